/*
 * Dirty bitmaps of a node: which pieces of the disk were written since the bitmap was made or
 * cleared, for incremental backups.
 *
 * A recording bitmap is marked when a change has returned, whether it failed or not: whoever clears
 * it before copying misses nothing. Bits are set and cleared atomically; the list changes only
 * while nobody else is inside of the node.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/checked.h"
#include "block/core/driver.h"

uint64_t image_bitmap_bits(const struct image_bitmap_node *bitmap, uint64_t size)
{
    return (size >> bitmap->granularity_bits) + !!(size & ((1ull << bitmap->granularity_bits) - 1));
}

struct err *image_bitmap_new(struct image *image, const char *name, unsigned granularity_bits,
                             struct image_bitmap_node **out)
{
    struct image_bitmap_node *bitmap = xcalloc(1, sizeof(*bitmap));
    bitmap->granularity_bits = granularity_bits;
    bitmap->bits = image_bitmap_bits(bitmap, image->size);
    bitmap->words = bitmap->bits <= IMAGE_BITMAP_BITS_MAX
                        ? calloc(BITMAP_WORDS(bitmap->bits) + 1, sizeof(uint64_t))
                        : NULL;
    if (!bitmap->words) {
        free(bitmap);
        return err_new("a bitmap of that granularity is too large for this disk");
    }
    bitmap->name = xstrdup(name);
    list_append(&image->bitmaps, &bitmap->link);
    *out = bitmap;
    return NULL;
}

void image_bitmap_drop(struct image_bitmap_node *bitmap)
{
    list_remove(&bitmap->link);
    free(bitmap->words);
    free(bitmap->name);
    free(bitmap);
}

static void mark(struct image_bitmap_node *bitmap, uint64_t offset, uint64_t length, bool value)
{
    uint64_t first = offset >> bitmap->granularity_bits;
    uint64_t end = MIN(((offset + length - 1) >> bitmap->granularity_bits) + 1, bitmap->bits);
    for (uint64_t bit = first; bit < end;) {
        uint64_t count = MIN(end - bit, 64 - bit % 64);
        uint64_t mask = (count == 64 ? ~0ull : (1ull << count) - 1) << bit % 64;
        if (value)
            __atomic_fetch_or(&bitmap->words[bit / 64], mask, __ATOMIC_RELEASE);
        else
            __atomic_fetch_and(&bitmap->words[bit / 64], ~mask, __ATOMIC_RELEASE);
        bit += count;
    }
}

void image_bitmaps_mark(struct image *image, uint64_t offset, uint64_t length)
{
    struct image_bitmap_node *bitmap;
    list_for_each (bitmap, &image->bitmaps, link)
        if (bitmap->recording && !bitmap->inconsistent)
            mark(bitmap, offset, length, true);
}

/* The disk has another size; all of it may be other than it was. */
void image_bitmaps_resized(struct image *image, bool all_dirty)
{
    struct image_bitmap_node *bitmap;
    list_for_each (bitmap, &image->bitmaps, link) {
        uint64_t bits = image_bitmap_bits(bitmap, image->size), before = bitmap->bits;
        size_t words = BITMAP_WORDS(before) + 1;
        if (bits != before) {
            bitmap->words = xrealloc(bitmap->words, BITMAP_WORDS(bits) + 1, sizeof(uint64_t));
            if (BITMAP_WORDS(bits) + 1 > words)
                memset(bitmap->words + words, 0, (BITMAP_WORDS(bits) + 1 - words) * 8);
            bitmap->bits = bits;
            for (uint64_t bit = bits; bit < MIN(before, ALIGN_UP(bits, 64ull)); bit++)
                bitmap_clear(bitmap->words, bit);
        }
        if (all_dirty && bitmap->recording && image->size)
            mark(bitmap, 0, image->size, true);
    }
}

static struct image_bitmap_node *find(const struct image *image, const char *name)
{
    struct image_bitmap_node *bitmap;
    list_for_each (bitmap, &image->bitmaps, link)
        if (!strcmp(bitmap->name, name))
            return bitmap;
    return NULL;
}

/* With the node alone; a bitmap that may be used. */
static struct err *get(struct image *image, const char *name, struct image_bitmap_node **bitmap)
{
    *bitmap = find(image, name);
    if (!*bitmap)
        return err_new("there is no bitmap '%s'", name);
    if ((*bitmap)->inconsistent)
        return err_new("bitmap '%s' was not closed cleanly: it can only be removed", name);
    return NULL;
}

unsigned image_bitmap_count(const struct image *image)
{
    struct image_bitmap_node *bitmap;
    unsigned count = 0;
    list_for_each (bitmap, &image->bitmaps, link)
        count++;
    return count;
}

static uint64_t dirty_bytes(const struct image *image, const struct image_bitmap_node *bitmap)
{
    uint64_t bits = 0, size = 1ull << bitmap->granularity_bits, over;
    for (uint64_t i = 0; i < BITMAP_WORDS(bitmap->bits); i++)
        bits +=
            (unsigned)__builtin_popcountll(__atomic_load_n(&bitmap->words[i], __ATOMIC_RELAXED));
    over = bitmap->bits * size - image->size;
    bool last = bitmap->bits && bitmap_test_atomic(bitmap->words, bitmap->bits - 1);
    return bits * size - (last ? over : 0);
}

void image_bitmap_get(const struct image *image, unsigned index, struct image_bitmap *out)
{
    struct image_bitmap_node *bitmap;
    *out = (struct image_bitmap){0};
    list_for_each (bitmap, &image->bitmaps, link) {
        if (index--)
            continue;
        snprintf(out->name, sizeof(out->name), "%s", bitmap->name);
        out->granularity = 1ull << bitmap->granularity_bits;
        out->recording = bitmap->recording;
        out->persistent = bitmap->persistent;
        out->inconsistent = bitmap->inconsistent;
        out->dirty = bitmap->inconsistent ? 0 : dirty_bytes(image, bitmap);
        return;
    }
}

struct err *image_bitmap_add(struct image *image, const char *name, uint64_t granularity,
                             bool persistent)
{
    struct image_bitmap_node *bitmap;
    struct err *err = NULL;
    granularity = granularity ? granularity : KIB(64);
    if (!name[0] || strlen(name) >= sizeof(((struct image_bitmap *)0)->name))
        return err_of(ERR_USAGE, "a bitmap's name has 1 to 1023 bytes");
    if (!is_power_of_2(granularity) || granularity < 512 || granularity > GIB(2))
        return err_of(ERR_USAGE, "a bitmap's granularity is a power of two from 512 to 2G");
    if (persistent && (!image->driver->bitmaps_persist || !image->driver->bitmaps_persist(image)))
        return err_of(ERR_USAGE, "this %s image cannot keep bitmaps", image->driver->name);
    if (persistent && !image->writable)
        return err_of(ERR_DENIED, "it is not writable");
    pthread_rwlock_wrlock(&image->gate);
    if (find(image, name))
        err = err_new("there is a bitmap '%s' already", name);
    if (!err)
        err = image_bitmap_new(image, name, (unsigned)__builtin_ctzll(granularity), &bitmap);
    if (!err) {
        bitmap->recording = true;
        bitmap->persistent = persistent;
    }
    pthread_rwlock_unlock(&image->gate);
    return err;
}

struct err *image_bitmap_remove(struct image *image, const char *name)
{
    pthread_rwlock_wrlock(&image->gate);
    struct image_bitmap_node *bitmap = find(image, name);
    struct err *err = bitmap ? NULL : err_new("there is no bitmap '%s'", name);
    if (!err && bitmap->persistent && !image->writable)
        err = err_of(ERR_DENIED, "it is not writable");
    if (!err)
        image_bitmap_drop(bitmap);
    pthread_rwlock_unlock(&image->gate);
    return err;
}

struct err *image_bitmap_record(struct image *image, const char *name, bool on)
{
    struct image_bitmap_node *bitmap;
    pthread_rwlock_wrlock(&image->gate);
    struct err *err = get(image, name, &bitmap);
    if (!err)
        bitmap->recording = on;
    pthread_rwlock_unlock(&image->gate);
    return err;
}

static struct err *change(struct image *image, const char *name, uint64_t offset, uint64_t length,
                          bool dirty)
{
    struct image_bitmap_node *bitmap;
    pthread_rwlock_wrlock(&image->gate);
    struct err *err = get(image, name, &bitmap);
    if (!err && !range_within(offset, length, image->size))
        err = err_new("a bitmap has no more bytes than the disk");
    if (!err && length)
        mark(bitmap, offset, length, dirty);
    pthread_rwlock_unlock(&image->gate);
    return err;
}

struct err *image_bitmap_clear(struct image *image, const char *name, uint64_t offset,
                               uint64_t length)
{
    return change(image, name, offset, length, false);
}

struct err *image_bitmap_set(struct image *image, const char *name, uint64_t offset,
                             uint64_t length)
{
    return change(image, name, offset, length, true);
}

struct err *image_bitmap_merge(struct image *image, const char *to, const char *from)
{
    struct image_bitmap_node *target, *source;
    pthread_rwlock_wrlock(&image->gate);
    struct err *err = get(image, to, &target);
    if (!err)
        err = get(image, from, &source);
    for (uint64_t bit = 0; !err && bit < source->bits; bit++) {
        uint64_t at = bit << source->granularity_bits;
        if (bitmap_test(source->words, bit))
            mark(target, at, MIN(1ull << source->granularity_bits, image->size - at), true);
    }
    pthread_rwlock_unlock(&image->gate);
    return err;
}

int image_bitmap_extent(struct image *image, const char *name, uint64_t offset, uint64_t length,
                        bool *dirty, uint64_t *run)
{
    pthread_rwlock_rdlock(&image->gate);
    struct image_bitmap_node *bitmap = find(image, name);
    int result = !bitmap ? -ENOENT : bitmap->inconsistent ? -EIO : 0;
    if (!result && (!length || !range_within(offset, length, image->size)))
        result = -EINVAL;
    if (!result) {
        uint64_t bit = offset >> bitmap->granularity_bits;
        uint64_t last = (offset + length - 1) >> bitmap->granularity_bits, end = bit + 1;
        *dirty = bitmap_test_atomic(bitmap->words, bit);
        while (end <= last && bitmap_test_atomic(bitmap->words, end) == *dirty)
            end++;
        *run = MIN(length, (end << bitmap->granularity_bits) - offset);
    }
    pthread_rwlock_unlock(&image->gate);
    return result;
}
