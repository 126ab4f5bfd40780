/*
 * A format as a virtual machine's disk: the node's synchronous calls behind the queue's interface.
 *
 * The threads of the queues share the node, which lets in as many at once as its driver can take.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/core/internal.h"

static int transfer(struct image *image, const struct block_step *step, bool write)
{
    uint64_t offset = step->offset;
    for (unsigned i = 0; i < step->iov_count; i++) {
        const struct iovec *part = &step->iov[i];
        int result = write ? image_write(image, part->iov_base, offset, part->iov_len)
                           : image_read(image, part->iov_base, offset, part->iov_len);
        if (result)
            return result;
        offset += part->iov_len;
    }
    return (int)MIN(offset - step->offset, (uint64_t)INT32_MAX);
}

int block_image_step(struct image *image, const struct block_step *step)
{
    int result = -EINVAL;
    struct iovec whole = {step->buffer, step->length};
    struct block_step one = *step;
    one.iov = &whole;
    one.iov_count = 1;
    switch (step->call) {
    case BLOCK_CALL_READV:
        return transfer(image, step, false);
    case BLOCK_CALL_READ:
        return transfer(image, &one, false);
    case BLOCK_CALL_WRITEV:
        result = transfer(image, step, true);
        break;
    case BLOCK_CALL_WRITE:
        result = transfer(image, &one, true);
        break;
    case BLOCK_CALL_SYNC:
        return image_flush(image);
    case BLOCK_CALL_FALLOCATE:
        return image_zero(image, step->offset, step->length, step->flags & FALLOC_FL_PUNCH_HOLE);
    }
    if (result >= 0 && step->flags) { /* stable before it completes */
        int flushed = image_flush(image);
        return flushed ? flushed : result;
    }
    return result;
}

/* The next name of "qcow2.raw"; NULL driver: there is none of it. */
static struct err *next_format(const char **formats, const struct block_driver **driver)
{
    char name[32];
    size_t length = strcspn(*formats, ".");
    if (length >= sizeof(name))
        return err_new("unknown format '%s'", *formats);
    memcpy(name, *formats, length);
    name[length] = 0;
    *formats += length + ((*formats)[length] == '.');
    *driver = image_driver_find(name);
    return *driver ? NULL : err_new("unknown format '%s'", name);
}

/* Opens one layer; the descriptor is taken. */
static struct err *open_layer(int fd, const char **formats, unsigned flags, struct image **image)
{
    const struct block_driver *driver;
    struct image *file;
    struct err *err = next_format(formats, &driver);
    if (err) {
        close(fd);
        return err;
    }
    TRY(image_open_fd(fd, flags, &file));
    return image_open(file, driver, flags, NULL, image);
}

static struct err *open_chain(struct block *block, const struct block_options *options)
{
    const char *formats = options->formats;
    unsigned flags = (options->readonly ? 0 : IMAGE_OPEN_WRITABLE) |
                     (options->cache == BLOCK_CACHE_UNSAFE ? IMAGE_OPEN_UNSAFE : 0) |
                     (options->discard ? IMAGE_OPEN_DISCARD : 0);
    const int *fd = options->backing_fds;
    struct err *err = open_layer(options->fd, &formats, flags, &block->image);
    struct image *over = err ? NULL : block->image;
    for (; fd && *fd >= 0; fd++) {
        struct image *under;
        if (!err && *formats)
            err = open_layer(*fd, &formats, 0, &under);
        else
            close(*fd);
        if (!err) {
            image_set_backing(over, under);
            over = under;
        }
    }
    TRY(err);
    if (image_backing_name(over))
        return err_new("its backing file '%s' was not opened", image_backing_name(over));
    return NULL;
}

struct err *block_open_removable(const struct block_options *options, struct block **out)
{
    struct block_options opened = *options;
    struct block *block = block_new(options);
    struct err *err = NULL;
    block->fd = -1;
    block->engine = BLOCK_ENGINE_THREADS;
    block->removable = true;
    block->memory_align = 1;
    block->info.logical_block = block->info.physical_block = 512;
    if (!options->formats)
        opened.formats = "raw";
    if (options->fd >= 0)
        err = open_chain(block, &opened);
    if (block->image)
        block->info.size = ALIGN_DOWN(image_size(block->image), 512ull);
    return block_finish(block, &opened, err, out);
}

struct err *block_open(const struct block_options *options, struct block **out)
{
    struct block_options opened = *options;
    if (!options->formats)
        opened.formats = "raw";
    if (!strcmp(opened.formats, "raw") && !image_fd_is_socket(options->fd))
        return block_open_raw(options, out);
    struct block *block = block_new(options);
    block->fd = -1; /* the image's */
    struct err *err = open_chain(block, &opened);
    block->memory_align = 1;
    block->info.logical_block = 512;
    block->info.physical_block = 4096;
    if (!err) {
        block->info.size = ALIGN_DOWN(image_size(block->image), 512ull);
        if (!block->info.size)
            err = err_new("it is empty");
    }
    return block_finish(block, options, err, out);
}
