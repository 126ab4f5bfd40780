/*
 * Passing calls on to the node below; see pass.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/filter/pass.h"

/* A file may have grown. */
static void follow_size(struct image *image)
{
    __atomic_store_n(&image->size, image_size(image->file), __ATOMIC_RELEASE);
}

struct image *filter_new(const struct block_driver *driver, struct image *take_below, void *state)
{
    struct image *image = image_new(driver, take_below->flags);
    image->state = state;
    image->file = take_below;
    image->grows = take_below->grows;
    image->writable = take_below->writable;
    follow_size(image);
    return image;
}

int filter_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    return image_read(image->file, buffer, offset, length);
}

int filter_pwrite(struct image *image, const void *buffer, uint64_t offset, uint64_t length)
{
    int result = image_write(image->file, buffer, offset, length);
    follow_size(image);
    return result;
}

int filter_zero(struct image *image, uint64_t offset, uint64_t length, bool unmap)
{
    int result = image_zero(image->file, offset, length, unmap);
    follow_size(image);
    return result;
}

int filter_discard(struct image *image, uint64_t offset, uint64_t length)
{
    return image_discard(image->file, offset, length);
}

int filter_flush(struct image *image)
{
    return image_flush(image->file);
}

int filter_extent(struct image *image, uint64_t offset, uint64_t length, struct image_extent *out)
{
    return image_extent(image->file, offset, length, out);
}

int filter_truncate(struct image *image, uint64_t size)
{
    int result = image_truncate(image->file, size);
    follow_size(image);
    return result;
}

struct err *filter_resize(struct image *image, uint64_t size)
{
    struct err *err = image_resize(image->file, size);
    follow_size(image);
    return err;
}
