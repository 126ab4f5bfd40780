/*
 * Exchanging the node of a disk, and its size, while its queues exist. See block/live.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/core/driver.h"
#include "block/core/internal.h"
#include "block/live.h"

struct image *block_node(const struct block *block)
{
    return block->job ? block->image->file : block->image;
}

void block_set_node(struct block *block, struct image *node)
{
    block->image = node;
    if (!block->throttle)
        return;
    block->throttle->file = node;
    block->throttle->size = image_size(node);
}

struct err *block_limit(struct block *block, const struct filter_limits *limits)
{
    TRY(block_to_node(block));
    if (block->throttle) {
        filter_group_set(block->throttle_group, limits);
        return NULL;
    }
    block->throttle_group = filter_group_new(limits);
    block->throttle = filter_throttle_open(block->image, block->throttle_group);
    return NULL;
}

struct err *block_to_node(struct block *block)
{
    unsigned flags = (block->info.readonly ? 0 : IMAGE_OPEN_WRITABLE) |
                     (block->cache == BLOCK_CACHE_UNSAFE ? IMAGE_OPEN_UNSAFE : 0) |
                     (block->info.discard ? IMAGE_OPEN_DISCARD : 0);
    struct image *file;
    if (block->image)
        return NULL;
    if (block->removable)
        return err_new("there is no medium in it");
    int fd = fcntl(block->fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return err_errno(errno, "cannot keep its file");
    TRY(image_open_fd(fd, flags, &file));
    struct image *node;
    TRY(image_open(file, &image_raw, flags, NULL, &node));
    block_set_node(block, node);
    block->no_punch = block->no_zero_range = false;
    return NULL;
}

bool image_same_file(const struct image *a, const struct image *b)
{
    struct stat one, two;
    return a->file && b->file && fstat(image_fd(a->file), &one) == 0 &&
           fstat(image_fd(b->file), &two) == 0 && one.st_dev == two.st_dev &&
           one.st_ino == two.st_ino;
}

static struct err *resize_raw(struct block *block, uint64_t size)
{
    struct stat status;
    if (fstat(block->fd, &status) != 0 || !S_ISREG(status.st_mode))
        return err_new("it is no file: only that can change its size");
    if (ftruncate(block->fd, (off_t)size) != 0)
        return err_errno(errno, "cannot set its length");
    return NULL;
}

struct err *block_resize(struct block *block, uint64_t size)
{
    if (block->job)
        return err_of(ERR_BUSY, "a job runs on it");
    if (block->info.readonly)
        return err_of(ERR_DENIED, "it is read-only");
    if (!size || size % block->info.logical_block || size > INT64_MAX)
        return err_of(ERR_USAGE, "a size is a multiple of %u bytes", block->info.logical_block);
    if (size < block->info.size)
        return err_of(ERR_USAGE, "a disk in use does not shrink: the guest would lose its end");
    TRY(block->image ? image_resize(block->image, size) : resize_raw(block, size));
    if (block->image)
        block_set_node(block, block->image); /* what lies on top follows */
    block->info.size = size;
    return NULL;
}

struct err *block_set_medium(struct block *block, struct image *medium)
{
    if (!block->removable || block->job || block->throttle) {
        image_close(medium);
        return block->removable ? err_of(ERR_BUSY, "a job runs on it, or it is limited")
                                : err_new("it is no drive whose medium can be changed");
    }
    image_close(block->image);
    block->image = medium;
    block->info.size = medium ? ALIGN_DOWN(image_size(medium), 512ull) : 0;
    return NULL;
}

struct err *block_change_bitmap(struct block *block, const struct block_bitmap_change *change)
{
    if (block->job)
        return err_of(ERR_BUSY, "a job runs on it");
    if (block->info.readonly)
        return err_of(ERR_DENIED, "it is read-only");
    TRY(block_to_node(block));
    switch (change->what) {
    case BLOCK_BITMAP_ADD:
        return image_bitmap_add(block->image, change->name, change->granularity,
                                change->persistent);
    case BLOCK_BITMAP_REMOVE:
        return image_bitmap_remove(block->image, change->name);
    case BLOCK_BITMAP_CLEAR:
        break;
    }
    return image_bitmap_clear(block->image, change->name, 0, image_size(block->image));
}

static struct err *judge_overlay(struct block *block, struct image *overlay)
{
    if (block->job)
        return err_of(ERR_BUSY, "a job runs on it");
    if (!image_writable(overlay))
        return err_new("the overlay is not writable");
    if (!image_backing_name(overlay))
        return err_new("the overlay names no backing file: create it with -b");
    if (image_size(overlay) != block->info.size)
        return err_new("the overlay has %llu bytes, the disk %llu",
                       (unsigned long long)image_size(overlay),
                       (unsigned long long)block->info.size);
    return NULL;
}

struct err *block_put_overlay(struct block *block, struct image *overlay)
{
    struct err *err = judge_overlay(block, overlay);
    if (!err)
        err = block_to_node(block);
    int result = err ? 0 : image_flush(block->image);
    if (result)
        err = err_errno(result, "what was written until now cannot be made stable");
    if (err) {
        image_close(overlay);
        return err;
    }
    image_set_backing(overlay, block->image);
    block_set_node(block, overlay);
    return NULL;
}
