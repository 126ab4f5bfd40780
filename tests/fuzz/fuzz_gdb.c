/*
 * Fuzz target: what a debugger sends. Each line is a packet, wrapped as the protocol wants it, or
 * with '!' in front raw bytes. The VM has not started, so nothing runs in it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../unit/vm/guest.h"
#include "ctl/gdb/gdb.h"
#include "vm/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct target {
    struct vm_config config;
    struct timeline timeline;
    struct loop *loop;
    struct vm *vm;
    struct gdb_server *server;
    struct sockaddr_un name;
    socklen_t name_len;
    int client;
};

static void must(struct err *err)
{
    if (err)
        abort();
}

static void on_changed(void *opaque, bool running)
{
}

static void start(struct target *target)
{
    static const uint8_t code[] = {0x90, GUEST_LOOP};
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    vm_config_init(&target->config);
    target->config.board = VM_BOARD_MICRO;
    target->config.cpus = 2;
    target->config.accel = VM_ACCEL_SOFT;
    must(guest_config(&target->config, code, sizeof(code)));
    must(loop_new("fuzz", &target->loop));
    must(vm_new(&target->config, target->loop, &target->timeline, &target->vm));
    if (bind(listener, (struct sockaddr *)&name, sizeof(sa_family_t)) != 0 ||
        listen(listener, 1) != 0)
        abort();
    target->name_len = sizeof(target->name);
    getsockname(listener, (struct sockaddr *)&target->name, &target->name_len);
    const struct gdb_config config = {
        .loop = target->loop, .vm = target->vm, .listen_fd = listener, .changed = on_changed};
    must(gdb_server_new(&config, &target->server));
}

static void attach(struct target *target)
{
    target->client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (connect(target->client, (struct sockaddr *)&target->name, target->name_len) != 0)
        abort();
    loop_once(target->loop, 0);
}

static void detach(struct target *target)
{
    close(target->client);
    loop_once(target->loop, 0);
}

static void send_all(struct target *target, const uint8_t *bytes, size_t len)
{
    char drain[4096];

    (void)!send(target->client, bytes, len, MSG_NOSIGNAL);
    loop_once(target->loop, 0);
    while (recv(target->client, drain, sizeof(drain), MSG_DONTWAIT) > 0)
        ;
}

static void send_packet(struct target *target, const uint8_t *line, size_t len)
{
    uint8_t packet[4096 + 8], sum = 0;

    if (len > 4096)
        len = 4096;
    packet[0] = '$';
    memcpy(packet + 1, line, len);
    for (size_t i = 0; i < len; i++)
        sum += line[i];
    snprintf((char *)packet + 1 + len, 4, "#%02x", sum);
    send_all(target, packet, len + 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct target target;

    if (!target.vm)
        start(&target);
    attach(&target);
    while (size) {
        const uint8_t *end = memchr(data, '\n', size);
        size_t len = end ? (size_t)(end - data) : size;
        if (len && data[0] == '!')
            send_all(&target, data + 1, len - 1);
        else if (len && data[0] != 'k')
            send_packet(&target, data, len);
        data += len;
        size -= len;
        if (end) {
            data++;
            size--;
        }
    }
    detach(&target);
    return 0;
}
