/*
 * Raw: the disk is the file.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "block/core/driver.h"

static int raw_probe(const uint8_t *head, size_t length, uint64_t file_size)
{
    (void)head, (void)length, (void)file_size;
    return 1; /* takes what nothing else knows */
}

static struct err *raw_open(struct image *image, const struct image_files *files)
{
    (void)files;
    image->size = image->file->size;
    return NULL;
}

static struct err *raw_create(struct image *file, const struct image_create *create)
{
    if (create->backing_name)
        return err_of(ERR_USAGE, "a raw image cannot have a backing file");
    const char *how = image_create_value(create, "preallocation");
    if (how && strcmp(how, "off") && strcmp(how, "falloc") && strcmp(how, "full"))
        return err_of(ERR_USAGE, "preallocation is off, falloc or full, not '%s'", how);
    int result = image_truncate(file, create->size);
    if (!result && how && !strcmp(how, "falloc") && create->size &&
        posix_fallocate(image_fd(file), 0, (off_t)create->size))
        result = -ENOSPC;
    static const uint8_t zeros[65536];
    if (how && !strcmp(how, "full"))
        for (uint64_t at = 0; at < create->size && !result; at += sizeof(zeros))
            result = image_write(file, zeros, at, MIN(create->size - at, (uint64_t)sizeof(zeros)));
    return result ? err_errno(-result, "cannot make a file of that size") : NULL;
}

static int raw_close(struct image *image)
{
    (void)image;
    return 0;
}

static int raw_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    return image_read(image->file, buffer, offset, length);
}

static int raw_pwrite(struct image *image, const void *buffer, uint64_t offset, uint64_t length)
{
    return image_write(image->file, buffer, offset, length);
}

static int raw_zero(struct image *image, uint64_t offset, uint64_t length, bool unmap)
{
    return image_zero(image->file, offset, length, unmap);
}

static int raw_discard(struct image *image, uint64_t offset, uint64_t length)
{
    return image_discard(image->file, offset, length);
}

static int raw_extent(struct image *image, uint64_t offset, uint64_t length,
                      struct image_extent *out)
{
    return image_extent(image->file, offset, length, out);
}

static struct err *raw_resize(struct image *image, uint64_t size)
{
    TRY(image_resize(image->file, size));
    image->size = size;
    return NULL;
}

/* A raw image is as long as its disk, whatever is in it. */
static struct err *raw_measure(const struct image_create *create, struct image_measure *measure)
{
    (void)create;
    (void)measure;
    return NULL;
}

static const char *const options[] = {"preallocation", NULL};

const struct block_driver image_raw = {
    .name = "raw",
    .parallel = true,
    .in_place = true,
    .create_options = options,
    .probe = raw_probe,
    .open = raw_open,
    .create = raw_create,
    .close = raw_close,
    .pread = raw_pread,
    .pwrite = raw_pwrite,
    .zero = raw_zero,
    .discard = raw_discard,
    .extent = raw_extent,
    .resize = raw_resize,
    .measure = raw_measure,
};
