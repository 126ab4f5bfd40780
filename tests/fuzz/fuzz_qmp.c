/*
 * Fuzz target: what a client of a VM's control socket says, to a real VM that stands at its first
 * instruction. The input's lines are sent as they are; one that starts with '@' becomes a file with
 * its bytes in it, one that starts with '%' a socket, and the descriptor goes along. Each input has
 * a VM of its own, so that what one finds comes again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../unit/vm/guest.h"
#include "base/log.h"
#include "ctl/vm_control.h"
#include "vm/schema.h"

#define FILE_SIZE KIB(64)
#define LINES_MAX 64
#define SOCKETS_MAX 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct target {
    struct vm_config config;
    struct timeline timeline;
    struct loop *loop;
    struct vm *vm;
    struct vm_control *control;
    int client;
    int peer[SOCKETS_MAX]; /* of the sockets that went along */
    unsigned peers;
    bool ended;
};

static void must(struct err *err)
{
    if (!err)
        return;
    fprintf(stderr, "%s\n", err_text(err));
    abort();
}

static void no_log(void *opaque, const struct log_record *record)
{
}

static int file_with(const uint8_t *bytes, size_t len)
{
    int fd = memfd_create("file", MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, FILE_SIZE) != 0 || pwrite(fd, bytes, len, 0) != (ssize_t)len)
        abort();
    return fd;
}

static void on_ended(void *opaque, const struct vm_result *result)
{
    ((struct target *)opaque)->ended = true;
}

/* A machine with something for every command: disk, drive, screen, agent. */
static void configure(struct vm_config *config)
{
    static const uint8_t code[] = {0xf4, GUEST_LOOP};

    vm_config_init(config);
    config->board = VM_BOARD_Q35;
    config->accel = VM_ACCEL_SOFT;
    config->vga = config->agent = true;
    must(schema_apply_flag(config, "disk", "disk"));
    must(schema_apply_flag(config, "disk", "media=cdrom"));
    must(guest_config(config, code, sizeof(code)));
    config->disk[0].fd = file_with(NULL, 0);
}

static void start(struct target *target)
{
    int pair[2];

    configure(&target->config);
    must(loop_new("fuzz", &target->loop));
    must(vm_new(&target->config, target->loop, &target->timeline, &target->vm));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        abort();
    const struct vm_control_config config = {.loop = target->loop,
                                             .vm = target->vm,
                                             .name = "fuzz",
                                             .timeline = &target->timeline,
                                             .owner_fd = pair[1],
                                             .listen_fd = -1,
                                             .gdb_fd = -1};
    target->client = pair[0];
    must(vm_control_new(&config, &target->control));
    vm_start_paused(target->vm);
    must(vm_start(target->vm, on_ended, target));
    vm_control_started(target->control);
}

static void stop(struct target *target)
{
    close(target->client);
    while (target->peers)
        close(target->peer[--target->peers]);
    vm_control_free(target->control);
    vm_free(target->vm);
    loop_free(target->loop);
    vm_config_fini(&target->config);
}

/* `fd` goes along and is closed; -1: none. */
static void say(struct target *target, const void *bytes, size_t len, int fd)
{
    struct iovec iov = {(void *)(uintptr_t)bytes, len};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.header = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    char drain[4096];

    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof(control);
        memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    }
    (void)!sendmsg(target->client, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    fd_cleanup(&fd);
    loop_once(target->loop, 0);
    while (recv(target->client, drain, sizeof(drain), MSG_DONTWAIT) > 0)
        ;
}

static void say_line(struct target *target, const uint8_t *line, size_t len)
{
    int pair[2];

    if (len && line[0] == '@') {
        say(target, " ", 1, file_with(line + 1, MIN(len - 1, FILE_SIZE)));
    } else if (len && line[0] == '%' && target->peers < SOCKETS_MAX) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
            abort();
        target->peer[target->peers++] = pair[0];
        say(target, " ", 1, pair[1]);
    } else {
        say(target, line, len, -1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct target target = {.peers = 0};

    log_set_sink(no_log, NULL);
    start(&target);
    for (unsigned i = 0; i < LINES_MAX && size && !target.ended; i++) {
        const uint8_t *end = memchr(data, '\n', size);
        size_t len = end ? (size_t)(end - data) : size;
        say_line(&target, data, len);
        len += end != NULL;
        data += len;
        size -= len;
    }
    stop(&target);
    return 0;
}
