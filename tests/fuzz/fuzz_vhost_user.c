/*
 * Fuzz target: the vhost-user back end. The input is a front end: messages with descriptors of
 * memory and of doorbells, and bytes in the memory that it shows.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "hw/vhost/vhost_user_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DISK_SIZE KIB(256)
#define MEMORY KIB(64)
#define MESSAGES_MAX 200

struct target {
    struct vhost_user *vhost;
    struct loop *loop;
    int memory; /* the front end's guest memory */
    int listener;
};

static void must(struct err *err)
{
    if (err)
        abort();
}

static void no_log(void *opaque, const struct log_record *record)
{
}

static int sized_file(uint64_t size)
{
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || ftruncate(fd, (off_t)size) != 0)
        abort();
    return fd;
}

static void target_open(struct target *target)
{
    struct block_options options = {
        .id = "d0", .fd = sized_file(DISK_SIZE), .discard = true, .engine = BLOCK_ENGINE_THREADS};
    struct vhost_user_config config = {.queues = 2, .serial = "fuzz"};
    log_set_sink(no_log, NULL);
    must(loop_new("fuzz", &target->loop));
    must(block_open_raw(&options, &config.block));
    target->memory = sized_file(MEMORY);
    config.loop = target->loop;
    /* Nobody comes and nobody stops it: messages are handed over directly. */
    config.listen_fd = target->listener = eventfd(0, 0);
    config.stop_fd = eventfd(0, 0);
    must(vhost_user_new(&config, &target->vhost));
}

/* Zero to two descriptors, of the kind that the message wants, or of the other. */
static void attach(struct target *target, uint8_t how)
{
    struct vhost_user *vhost = target->vhost;
    for (unsigned i = 0; i < (how & 3u) && i < 2; i++)
        vhost->fds[vhost->fd_count++] = how & 4 ? eventfd(1, EFD_NONBLOCK) : dup(target->memory);
}

static void message(struct target *target, const uint8_t *at, size_t size)
{
    struct vhost_user *vhost = target->vhost;
    uint8_t payload[VHOST_PAYLOAD_MAX] = {0}, reply[VHOST_PAYLOAD_MAX];
    uint32_t length;
    size_t body = MIN(size - 2, sizeof(payload));
    memcpy(payload, at + 2, body);
    attach(target, at[1]);
    vhost_user_handle(vhost, (enum vhost_request)(at[0] % 40), payload, (uint32_t)body, reply,
                      &length);
    while (vhost->fd_count)
        close(vhost->fds[--vhost->fd_count]);
    if (length > sizeof(reply))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct target target;
    if (!target.vhost)
        target_open(&target);
    /* Each piece: its kind and length, then so many bytes. */
    for (unsigned i = 0; i < MESSAGES_MAX && size >= 2; i++) {
        uint8_t kind = data[0];
        size_t length = MIN((size_t)data[1], size - 2);
        const uint8_t *at = data + 2;
        data += 2 + length;
        size -= 2 + length;
        if (kind & 1 && length > 2)
            (void)!pwrite(target.memory, at + 2, length - 2, get_le16(at) % MEMORY);
        else if (kind & 2)
            loop_once(target.loop, 0);
        else if (length >= 2)
            message(&target, at, length);
    }
    loop_once(target.loop, 0);
    vhost_user_forget(target.vhost);
    return 0;
}
