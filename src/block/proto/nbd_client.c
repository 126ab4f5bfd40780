/*
 * NBD over a socket that somebody handed over (doc/proto.md of the NBD project): how a confined
 * process reaches an image that another process has opened for it. The server is one of ours; what
 * it says is checked all the same.
 *
 * Simple replies, one request at a time: the core lets no second thread in. After a broken reply
 * nothing is sent any more, and every call fails.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "block/export/nbd_internal.h"
#include "block/proto/remote.h"

#define GREETING_SIZE 18u
#define EXPORT_SIZE 10u
#define REPLY_SIZE 16u
#define ZERO_MAX GIB(1)

struct nbd_link {
    int fd;
    bool broken;
    unsigned flags; /* enum nbd_transmission_flag */
    uint64_t cookie;
};

/* All of it, or the link is broken. */
static bool transfer(struct nbd_link *link, void *data, size_t length, bool out)
{
    uint8_t *at = data;

    while (length && !link->broken) {
        ssize_t n = out ? send(link->fd, at, length, MSG_NOSIGNAL) : recv(link->fd, at, length, 0);
        if (n < 0 && errno == EINTR)
            continue;
        link->broken = n <= 0;
        at += MAX(n, 0);
        length -= (size_t)MAX(n, 0);
    }
    return !link->broken;
}

static bool send_all(struct nbd_link *link, const void *data, size_t length)
{
    return transfer(link, (void *)(uintptr_t)data, length, true);
}

static bool receive_all(struct nbd_link *link, void *data, size_t length)
{
    return transfer(link, data, length, false);
}

static int error_of(uint32_t error)
{
    switch (error) {
    case NBD_OK:
        return 0;
    case NBD_EPERM:
        return -EPERM;
    case NBD_ENOMEM:
        return -ENOMEM;
    case NBD_EINVAL:
        return -EINVAL;
    case NBD_ENOSPC:
        return -ENOSPC;
    default:
        return -EIO;
    }
}

/* One request of at most 32 MiB of data, which are sent or received. */
static int request(struct nbd_link *link, unsigned command, unsigned flags, uint64_t offset,
                   uint32_t length, const void *out, void *in)
{
    uint8_t header[NBD_REQUEST_SIZE], reply[REPLY_SIZE];

    put_be32(header, NBD_REQUEST_MAGIC);
    put_be16(header + 4, (uint16_t)flags);
    put_be16(header + 6, (uint16_t)command);
    put_be64(header + 8, ++link->cookie);
    put_be64(header + 16, offset);
    put_be32(header + 24, length);
    if (!send_all(link, header, sizeof(header)) || (out && !send_all(link, out, length)) ||
        !receive_all(link, reply, sizeof(reply)))
        return -EIO;
    if (get_be32(reply) != NBD_SIMPLE_REPLY_MAGIC || get_be64(reply + 8) != link->cookie) {
        link->broken = true;
        return -EIO;
    }
    int result = error_of(get_be32(reply + 4));
    if (!result && in && !receive_all(link, in, length))
        return -EIO;
    return result;
}

static int link_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    uint8_t *in = buffer;
    int result = 0;

    remote_clip_read(image, buffer, offset, &length);
    for (uint64_t here; length && !result; in += here, offset += here, length -= here) {
        here = MIN(length, NBD_TRANSFER_MAX);
        result = request(image->state, NBD_CMD_READ, 0, offset, (uint32_t)here, NULL, in);
    }
    return result;
}

static int link_pwrite(struct image *image, const void *buffer, uint64_t offset, uint64_t length)
{
    const uint8_t *out = buffer;
    int result = remote_clip_write(image, offset, length);

    for (uint64_t here; length && !result; out += here, offset += here, length -= here) {
        here = MIN(length, NBD_TRANSFER_MAX);
        result = request(image->state, NBD_CMD_WRITE, 0, offset, (uint32_t)here, out, NULL);
    }
    return result;
}

/* A command without data over a range. */
static int over_range(struct image *image, unsigned feature, unsigned command, unsigned flags,
                      uint64_t offset, uint64_t length)
{
    struct nbd_link *link = image->state;
    int result = link->flags & feature ? remote_clip_write(image, offset, length) : -ENOTSUP;

    for (uint64_t here; length && !result; offset += here, length -= here) {
        here = MIN(length, ZERO_MAX);
        result = request(link, command, flags, offset, (uint32_t)here, NULL, NULL);
    }
    return result;
}

static int link_zero(struct image *image, uint64_t offset, uint64_t length, bool unmap)
{
    return over_range(image, NBD_FLAG_SEND_WRITE_ZEROES, NBD_CMD_WRITE_ZEROES,
                      unmap ? 0 : NBD_CMD_FLAG_NO_HOLE, offset, length);
}

static int link_discard(struct image *image, uint64_t offset, uint64_t length)
{
    return over_range(image, NBD_FLAG_SEND_TRIM, NBD_CMD_TRIM, 0, offset, length);
}

static int link_flush(struct image *image)
{
    struct nbd_link *link = image->state;

    return link->flags & NBD_FLAG_SEND_FLUSH ? request(link, NBD_CMD_FLUSH, 0, 0, 0, NULL, NULL)
                                             : 0;
}

static int link_close(struct image *image)
{
    struct nbd_link *link = image->state;

    close(link->fd);
    free(link);
    image->state = NULL;
    return 0;
}

static const struct block_driver driver = {
    .name = "nbd-link",
    .pread = link_pread,
    .pwrite = link_pwrite,
    .zero = link_zero,
    .discard = link_discard,
    .flush = link_flush,
    .close = link_close,
};

/* The fixed newstyle handshake with its oldest option, which every server knows. */
static struct err *negotiate(struct nbd_link *link, uint64_t *size)
{
    uint8_t greeting[GREETING_SIZE], hello[20], export[EXPORT_SIZE];

    if (!receive_all(link, greeting, sizeof(greeting)))
        return err_new("the process that has the image is gone");
    if (get_be64(greeting) != NBD_MAGIC || get_be64(greeting + 8) != NBD_OPTION_MAGIC ||
        (get_be16(greeting + 16) & (NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES)) !=
            (NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES))
        return err_new("the process that has the image speaks no NBD");
    put_be32(hello, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
    put_be64(hello + 4, NBD_OPTION_MAGIC);
    put_be32(hello + 12, NBD_OPT_EXPORT_NAME);
    put_be32(hello + 16, 0); /* the name "" */
    if (!send_all(link, hello, sizeof(hello)) || !receive_all(link, export, sizeof(export)))
        return err_new("the process that has the image does not give it");
    *size = get_be64(export);
    link->flags = get_be16(export + 8);
    return NULL;
}

struct err *image_open_socket(int take_fd, unsigned flags, struct image **image)
{
    struct nbd_link *link = xcalloc(1, sizeof(*link));
    uint64_t size = 0;

    link->fd = take_fd;
    struct err *err = negotiate(link, &size);
    if (!err && size > INT64_MAX)
        err = err_new("the image's size is out of range");
    if (!err && flags & IMAGE_OPEN_WRITABLE && link->flags & NBD_FLAG_READ_ONLY)
        err = err_of(ERR_DENIED, "the server lets nobody write");
    if (err) {
        close(link->fd);
        free(link);
        return err;
    }
    *image = remote_node(&driver, link, flags, size);
    return NULL;
}
