/*
 * The core of images: the one entry to drivers for reading and the one for writing, which check
 * range, permission and that drivers answer with an error or with success.
 *
 * The gate: data calls of a parallel driver share it, all others have it alone. It has no rank: a
 * graph has no cycles, and its gates are taken from the top down.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "block/core/driver.h"

#define ZERO_CHUNK KIB(64)

static const uint8_t no_bytes[ZERO_CHUNK];

/* A driver answers 0 or -errno; anything else is its mistake and counts as an I/O error. */
static int judged(int result)
{
    return result > 0 ? -EIO : result;
}

static void enter_data(struct image *image)
{
    if (image->driver->parallel)
        pthread_rwlock_rdlock(&image->gate);
    else
        pthread_rwlock_wrlock(&image->gate);
}

static void enter_alone(struct image *image)
{
    pthread_rwlock_wrlock(&image->gate);
}

/* Inside of the gate still: the bitmaps hold. */
static void changed(struct image *image, uint64_t offset, uint64_t length)
{
    if (!list_empty(&image->bitmaps) && length)
        image_bitmaps_mark(image, offset, length);
}

static void leave(struct image *image)
{
    pthread_rwlock_unlock(&image->gate);
}

static int check_read(const struct image *image, uint64_t offset, uint64_t length)
{
    if (image->backing_name && !image->backing) /* nobody may take its absence for zeros */
        return -ENOMEDIUM;
    if (image->grows) /* and reads as zeros beyond its end */
        return range_within(offset, length, INT64_MAX) ? 0 : -EINVAL;
    return range_within(offset, length, image_size(image)) ? 0 : -EINVAL;
}

static int check_write(const struct image *image, uint64_t offset, uint64_t length)
{
    if (!image->writable)
        return -EROFS;
    if (image->backing_name && !image->backing)
        return -ENOMEDIUM;
    if (image->grows)
        return range_within(offset, length, INT64_MAX) ? 0 : -EFBIG;
    return range_within(offset, length, image_size(image)) ? 0 : -ENOSPC;
}

int image_read(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    enter_data(image);
    int result = check_read(image, offset, length);
    if (!result && length)
        result = judged(image->driver->pread(image, buffer, offset, length));
    leave(image);
    return result;
}

int image_write(struct image *image, const void *buffer, uint64_t offset, uint64_t length)
{
    enter_data(image);
    int result = check_write(image, offset, length);
    if (!result && length)
        result = judged(image->driver->pwrite(image, buffer, offset, length));
    changed(image, offset, length);
    leave(image);
    return result;
}

/* For drivers that have no other way. */
static int write_zeros(struct image *image, uint64_t offset, uint64_t length)
{
    int result = 0;
    for (uint64_t at = 0; at < length && !result; at += ZERO_CHUNK)
        result = judged(
            image->driver->pwrite(image, no_bytes, offset + at, MIN(length - at, ZERO_CHUNK)));
    return result;
}

int image_zero(struct image *image, uint64_t offset, uint64_t length, bool unmap)
{
    enter_data(image);
    int result = check_write(image, offset, length);
    if (!result && length) {
        result = image->driver->zero ? judged(image->driver->zero(image, offset, length, unmap))
                                     : -ENOTSUP;
        if (result == -ENOTSUP)
            result = write_zeros(image, offset, length);
    }
    changed(image, offset, length);
    leave(image);
    return result;
}

int image_discard(struct image *image, uint64_t offset, uint64_t length)
{
    enter_data(image);
    int result = check_write(image, offset, length);
    if (!result && length && image->driver->discard)
        result = judged(image->driver->discard(image, offset, length));
    changed(image, offset, length);
    leave(image);
    return result == -ENOTSUP ? 0 : result;
}

int image_flush(struct image *image)
{
    if (!image->writable)
        return 0;
    if (!image->driver->flush)
        return image->file ? image_flush(image->file) : 0;
    enter_data(image);
    int result = judged(image->driver->flush(image));
    leave(image);
    return result;
}

int image_extent(struct image *image, uint64_t offset, uint64_t length, struct image_extent *extent)
{
    *extent = (struct image_extent){.length = length,
                                    .flags = IMAGE_EXTENT_ALLOCATED | IMAGE_EXTENT_DATA};
    enter_data(image);
    int result = length && range_within(offset, length, image_size(image)) ? 0 : -EINVAL;
    if (!result && image->driver->extent)
        result = judged(image->driver->extent(image, offset, length, extent));
    if (!result && (!extent->length || extent->length > length))
        result = -EIO;
    leave(image);
    return result;
}

int image_extent_chain(struct image *image, uint64_t offset, uint64_t length,
                       struct image_extent *extent, unsigned *depth)
{
    *depth = 0;
    for (;; image = image->backing, ++*depth) {
        int result = image_extent(image, offset, length, extent);
        if (result)
            return result;
        length = extent->length;
        if (extent->flags & IMAGE_EXTENT_ALLOCATED)
            return 0;
        if (!image->backing || offset >= image_size(image->backing)) {
            extent->flags |= IMAGE_EXTENT_ZERO;
            return 0;
        }
        length = MIN(length, image_size(image->backing) - offset);
    }
}

uint32_t image_compress_unit(const struct image *image)
{
    return image->driver->compress_unit ? image->driver->compress_unit(image) : 0;
}

int image_compress(struct image *image, const void *unit, void *out, size_t *out_length)
{
    return judged(image->driver->compress(image, unit, out, out_length));
}

int image_write_compressed(struct image *image, uint64_t offset, const void *data, size_t length)
{
    uint32_t unit = image_compress_unit(image);
    if (!unit)
        return -ENOTSUP;
    if (!image->writable)
        return -EROFS;
    if (offset % unit || offset >= image_size(image) || !length || length > unit)
        return -EINVAL;
    enter_data(image);
    int result = judged(image->driver->write_compressed(image, offset, data, length));
    changed(image, offset, unit);
    leave(image);
    return result;
}

int image_read_backing(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    uint64_t have = 0;
    if (image->backing && offset < image_size(image->backing))
        have = MIN(length, image_size(image->backing) - offset);
    memset((uint8_t *)buffer + have, 0, length - have);
    return have ? image_read(image->backing, buffer, offset, have) : 0;
}

void image_init(struct image *image, const struct block_driver *driver, unsigned flags)
{
    pthread_rwlockattr_t fair; /* whoever wants a node alone gets it under load, too */
    pthread_rwlockattr_init(&fair);
    pthread_rwlockattr_setkind_np(&fair, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&image->gate, &fair);
    pthread_rwlockattr_destroy(&fair);
    list_init(&image->bitmaps);
    image->driver = driver;
    image->flags = flags;
    image->writable = flags & IMAGE_OPEN_WRITABLE;
}

void image_fini(struct image *image)
{
    while (!list_empty(&image->bitmaps))
        image_bitmap_drop(list_first(&image->bitmaps, struct image_bitmap_node, link));
    pthread_rwlock_destroy(&image->gate);
    free(image->backing_name);
    free(image->backing_format);
}

struct image *image_new(const struct block_driver *driver, unsigned flags)
{
    struct image *image = xcalloc(1, sizeof(*image));
    image_init(image, driver, flags);
    return image;
}

static void image_free(struct image *image)
{
    image_fini(image);
    free(image);
}

struct err *image_open(struct image *take_file, const struct block_driver *driver, unsigned flags,
                       const struct image_files *files, struct image **out)
{
    struct image *image = image_new(NULL, flags);
    struct err *err = NULL;
    image->file = take_file;
    image->writable = image->writable && take_file->writable;
    if (!driver)
        err = image_probe(take_file, &driver);
    image->driver = driver;
    if (!err)
        err = err_wrap(driver->open(image, files), "%s", driver->name);
    if (!err && (flags & IMAGE_OPEN_WRITABLE) && !image->writable)
        err = err_of(ERR_DENIED, "%s: %s", driver->name,
                     image->readonly_why ? image->readonly_why : "it was opened for reading");
    if (err && image->state)
        driver->close(image);
    if (err) {
        image_close(image->backing);
        image_close(take_file);
        image_free(image);
        return err;
    }
    *out = image;
    return NULL;
}

void image_set_backing(struct image *image, struct image *take_backing)
{
    image_close(image->backing);
    image->backing = take_backing;
}

int image_close(struct image *image)
{
    if (!image)
        return 0;
    int result = judged(image->driver->close ? image->driver->close(image) : 0);
    image_close(image->backing);
    int below = image_close(image->file);
    image_free(image);
    return result ? result : below;
}

void image_overlay_layout(const struct block_driver *driver, struct image_create *create)
{
    static const struct image_option option = {"extended_l2", "on"};
    if (!create->backing_name || create->option_count || driver != image_driver_find("qcow2"))
        return;
    create->option = &option;
    create->option_count = 1;
}

struct err *image_create(struct image *file, const struct block_driver *driver,
                         const struct image_create *create)
{
    if (!driver->create)
        return err_of(ERR_USAGE, "%s images can be read only, not made", driver->name);
    for (unsigned i = 0; i < create->option_count; i++) {
        const char *const *name = driver->create_options;
        while (name && *name && strcmp(*name, create->option[i].name))
            name++;
        if (!name || !*name)
            return err_of(ERR_USAGE, "%s has no option '%s'", driver->name, create->option[i].name);
    }
    if (create->size > INT64_MAX - MIB(1))
        return err_of(ERR_USAGE, "the size is beyond what a file can be");
    return err_wrap(driver->create(file, create), "%s", driver->name);
}

const char *image_create_value(const struct image_create *create, const char *name)
{
    const char *value = NULL;
    for (unsigned i = 0; i < create->option_count; i++)
        if (!strcmp(create->option[i].name, name))
            value = create->option[i].value;
    return value;
}

bool image_is_zero(const void *bytes, size_t length)
{
    const uint8_t *at = bytes;
    size_t head = MIN(length, (size_t)16);
    for (size_t i = 0; i < head; i++)
        if (at[i])
            return false;
    return length <= 16 || memcmp(at, at + 16, length - 16) == 0;
}

uint64_t image_size(const struct image *image)
{
    return __atomic_load_n(&image->size, __ATOMIC_ACQUIRE);
}

bool image_writable(const struct image *image)
{
    return image->writable;
}

const struct block_driver *image_driver(const struct image *image)
{
    return image->driver;
}

struct image *image_backing(const struct image *image)
{
    return image->backing;
}

struct image *image_file(const struct image *image)
{
    return image->file;
}

const char *image_backing_name(const struct image *image)
{
    return image->backing_name;
}

const char *image_backing_format(const struct image *image)
{
    return image->backing_format;
}

void image_get_info(struct image *image, struct image_info *info)
{
    *info = (struct image_info){0};
    if (image->driver->info)
        image->driver->info(image, info);
}

static struct image_info_item *info_item(struct image_info *info, const char *name)
{
    struct image_info_item *item =
        &info->item[MIN(info->item_count, (unsigned)IMAGE_INFO_ITEMS - 1)];
    info->item_count = MIN(info->item_count + 1, (unsigned)IMAGE_INFO_ITEMS);
    item->name = name;
    return item;
}

void image_info_text(struct image_info *info, const char *name, const char *text)
{
    struct image_info_item *item = info_item(info, name);
    item->kind = IMAGE_INFO_TEXT;
    snprintf(item->text, sizeof(item->text), "%s", text);
}

void image_info_number(struct image_info *info, const char *name, uint64_t number)
{
    struct image_info_item *item = info_item(info, name);
    item->kind = IMAGE_INFO_NUMBER;
    item->number = number;
}

void image_info_bool(struct image_info *info, const char *name, bool value)
{
    struct image_info_item *item = info_item(info, name);
    item->kind = IMAGE_INFO_BOOL;
    item->number = value;
}

void image_check_say(struct image_check *check, const char *format, ...)
{
    char line[256];
    va_list args;
    if (!check->say)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    check->say(check->opaque, line);
}

struct err *image_check(struct image *image, bool repair, struct image_check *check)
{
    if (!image->driver->check)
        return err_of(ERR_USAGE, "a %s image has nothing to check", image->driver->name);
    if (repair && !image->writable)
        return err_of(ERR_DENIED, "it is not writable");
    enter_alone(image);
    struct err *err =
        err_wrap(image->driver->check(image, repair, check), "%s", image->driver->name);
    leave(image);
    return err;
}

struct err *image_resize(struct image *image, uint64_t size)
{
    if (!image->driver->resize)
        return err_of(ERR_USAGE, "a %s image cannot be resized", image->driver->name);
    if (!image->writable)
        return err_of(ERR_DENIED, "it is not writable");
    if (size > INT64_MAX - MIB(1))
        return err_of(ERR_USAGE, "the size is beyond what a file can be");
    enter_alone(image);
    struct err *err = err_wrap(image->driver->resize(image, size), "%s", image->driver->name);
    image_bitmaps_resized(image, false);
    leave(image);
    return err;
}

int image_truncate(struct image *file, uint64_t size)
{
    if (!file->writable)
        return -EROFS;
    if (!file->driver->truncate)
        return size <= image_size(file) ? 0 : -ENOSPC;
    enter_alone(file);
    int result = judged(file->driver->truncate(file, size));
    leave(file);
    return result;
}

unsigned image_snapshot_count(const struct image *image)
{
    return image->driver->snapshot_count ? image->driver->snapshot_count(image) : 0;
}

void image_snapshot_get(const struct image *image, unsigned index, struct image_snapshot *out)
{
    image->driver->snapshot_get(image, index, out);
}

/* The three changes of snapshots, behind one question. */
static struct err *snapshot_call(struct image *image, const char *name,
                                 struct err *(*call)(struct image *, const char *))
{
    if (!call)
        return err_of(ERR_USAGE, "a %s image has no snapshots", image->driver->name);
    if (!image->writable)
        return err_of(ERR_DENIED, "it is not writable");
    enter_alone(image);
    struct err *err = err_wrap(call(image, name), "%s", image->driver->name);
    if (call == image->driver->snapshot_apply)
        image_bitmaps_resized(image, true);
    leave(image);
    return err;
}

struct err *image_snapshot_create(struct image *image, const char *name)
{
    return snapshot_call(image, name, image->driver->snapshot_create);
}

struct err *image_snapshot_apply(struct image *image, const char *name)
{
    return snapshot_call(image, name, image->driver->snapshot_apply);
}

struct err *image_snapshot_delete(struct image *image, const char *name)
{
    return snapshot_call(image, name, image->driver->snapshot_delete);
}
