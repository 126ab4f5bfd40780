/*
 * The copying of a backup. See backup.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/checked.h"
#include "base/spare.h"
#include "block/core/driver.h"
#include "block/live/backup.h"

#define UNIT KIB(64)
#define UNIT_MAX MIB(2)

struct backup {
    struct image *source, *target;
    unsigned unit_bits;
    uint64_t units;
    uint64_t *begun, *todo; /* a bit a unit: what there was to copy, and what is left */
    char *bitmap;           /* of the source; owned; NULL: none */
    struct spare buffers;   /* a unit each */
};

/* --- a target that names the backup before it as its backing file, which is not there --- */

static int absent_read(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    return -EIO;
}

/* Whole units are written, so nobody reads it; what is zero is not left out because of it. */
static const struct block_driver absent = {
    .name = "absent", .parallel = true, .pread = absent_read};

static void cover_backing(struct image *target)
{
    if (!image_backing_name(target))
        return;
    struct image *backing = image_new(&absent, 0);
    backing->size = image_size(target);
    image_set_backing(target, backing);
}

/* --- beginning and end --- */

static struct err *choose_unit(struct backup *backup)
{
    struct image_info info;
    image_get_info(backup->target, &info);
    uint64_t unit = MAX(UNIT, (uint64_t)info.cluster_size);
    if (unit > UNIT_MAX || !is_power_of_2(unit))
        return err_new("the target's clusters are larger than 2 MiB");
    backup->unit_bits = (unsigned)__builtin_ctzll(unit);
    backup->units = (image_size(backup->source) + unit - 1) >> backup->unit_bits;
    return NULL;
}

static void mark(struct backup *backup, uint64_t offset, uint64_t length)
{
    uint64_t last = (offset + length - 1) >> backup->unit_bits;
    for (uint64_t unit = offset >> backup->unit_bits; unit <= last; unit++)
        bitmap_set(backup->begun, unit);
}

/* What the bitmap has is the backup's now. */
static struct err *take_bitmap(struct backup *backup)
{
    uint64_t size = image_size(backup->source), run;
    for (uint64_t at = 0; at < size; at += run) {
        bool dirty;
        int result =
            image_bitmap_extent(backup->source, backup->bitmap, at, size - at, &dirty, &run);
        if (result)
            return err_errno(-result, "cannot read bitmap '%s'", backup->bitmap);
        if (dirty)
            mark(backup, at, run);
    }
    return image_bitmap_clear(backup->source, backup->bitmap, 0, size);
}

struct err *backup_begin(struct image *source, struct image *target, const char *bitmap,
                         struct backup **out)
{
    struct backup *backup = xcalloc(1, sizeof(*backup));
    *backup = (struct backup){
        .source = source, .target = target, .bitmap = bitmap ? xstrdup(bitmap) : NULL};
    spare_init(&backup->buffers, free);
    struct err *err = choose_unit(backup);
    size_t words = BITMAP_WORDS(backup->units) + 1;
    if (!err) {
        backup->begun = calloc(words, sizeof(uint64_t));
        backup->todo = calloc(words, sizeof(uint64_t));
        if (!backup->begun || !backup->todo)
            err = err_new("no memory for a disk of that size");
    }
    if (!err && bitmap)
        err = take_bitmap(backup);
    else if (!err)
        mark(backup, 0, image_size(source));
    if (err) {
        backup_end(backup, true);
        return err;
    }
    memcpy(backup->todo, backup->begun, words * sizeof(uint64_t));
    cover_backing(target);
    *out = backup;
    return NULL;
}

/* An error means that the bitmap is gone: nobody wants it any more. */
static void give_bitmap_back(struct backup *backup)
{
    uint64_t size = image_size(backup->source);
    for (uint64_t unit = 0; unit < backup->units; unit++) {
        uint64_t at = unit << backup->unit_bits;
        if (bitmap_test(backup->begun, unit))
            err_free(image_bitmap_set(backup->source, backup->bitmap, at,
                                      MIN(backup_unit(backup), size - at)));
    }
}

void backup_end(struct backup *backup, bool good)
{
    if (!backup)
        return;
    if (!good && backup->bitmap)
        give_bitmap_back(backup);
    spare_fini(&backup->buffers);
    free(backup->begun);
    free(backup->todo);
    free(backup->bitmap);
    free(backup);
}

uint64_t backup_unit(const struct backup *backup)
{
    return 1ull << backup->unit_bits;
}

/* --- copying --- */

static int copy_unit(struct backup *backup, uint8_t *buffer, uint64_t unit)
{
    uint64_t at = unit << backup->unit_bits;
    uint64_t length = MIN(backup_unit(backup), image_size(backup->source) - at);
    int result = image_read(backup->source, buffer, at, length);
    if (result)
        return result;
    return image_is_zero(buffer, length) ? image_zero(backup->target, at, length, true)
                                         : image_write(backup->target, buffer, at, length);
}

int backup_copy(struct backup *backup, uint64_t offset, uint64_t length)
{
    uint64_t end =
        MIN((offset + length + backup_unit(backup) - 1) >> backup->unit_bits, backup->units);
    uint8_t *buffer = NULL;
    int result = 0;
    for (uint64_t unit = offset >> backup->unit_bits; unit < end && !result; unit++) {
        if (!bitmap_test_atomic(backup->todo, unit))
            continue;
        buffer = buffer ? buffer : spare_take(&backup->buffers);
        buffer = buffer ? buffer : malloc(backup_unit(backup));
        result = buffer ? copy_unit(backup, buffer, unit) : -ENOMEM;
        if (!result)
            bitmap_clear_atomic(backup->todo, unit);
    }
    spare_give(&backup->buffers, buffer);
    return result;
}
