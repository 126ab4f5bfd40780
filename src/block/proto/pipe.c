/*
 * A pipe as the end of a copy: a node that takes each byte of a disk once, from the first on.
 *
 * One thread at a time, as the core sees to; in order, as the job that writes it does.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/core/driver.h"
#include "block/proto/pipe.h"

struct pipe_state {
    int fd; /* borrowed */
    uint64_t at;
};

static int pipe_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    (void)image, (void)buffer, (void)offset, (void)length;
    return -ESPIPE;
}

static int pipe_pwrite(struct image *image, const void *buffer, uint64_t offset, uint64_t length)
{
    struct pipe_state *state = image->state;
    const uint8_t *bytes = buffer;
    if (offset != state->at)
        return -ESPIPE;
    while (length) {
        ssize_t put = write(state->fd, bytes, length);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -errno;
        bytes += put;
        length -= (uint64_t)put;
        state->at += (uint64_t)put;
    }
    return 0;
}

static int pipe_close(struct image *image)
{
    free(image->state);
    return 0;
}

static const struct block_driver image_pipe = {
    .name = "pipe",
    .close = pipe_close,
    .pread = pipe_pread,
    .pwrite = pipe_pwrite,
};

struct image *image_open_pipe(int fd, uint64_t size)
{
    struct pipe_state *state = xcalloc(1, sizeof(*state));
    struct image *image = image_new(&image_pipe, IMAGE_OPEN_WRITABLE | IMAGE_OPEN_UNSAFE);
    state->fd = fd;
    image->state = state;
    image->size = size;
    return image;
}
