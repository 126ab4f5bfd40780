/*
 * qcow2: dirty bitmaps in the image (docs/interop/qcow2.txt, "Bitmaps").
 *
 * They are loaded when the image is opened and stored when it is closed. In between those of the
 * file are marked in use: whoever finds that mark knows that they miss writes. A bitmap that is
 * found so stays as it is until it is removed.
 *
 * The new directory is complete and flushed before the header names it; the old one is gone then.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/bytes.h"
#include "base/checked.h"
#include "block/format/qcow2.h"

#define ENTRY_HEAD 24u
#define DIRECTORY_MAX MIB(64)
#define TABLE_MAX 0x8000000u /* entries */
#define FLAG_IN_USE (1u << 0)
#define FLAG_AUTO (1u << 1)
#define FLAG_EXTRA_COMPATIBLE (1u << 2)
#define TYPE_DIRTY 1u
#define ALL_ONES 1ull
#define BITMAPS_MAX 65535u

static uint64_t entry_bytes(const uint8_t *entry)
{
    return ALIGN_UP((uint64_t)ENTRY_HEAD + get_be32(entry + 20) + get_be16(entry + 18), 8ull);
}

/* The bits that one cluster of the table stands for. */
static int load_cluster(struct qcow2 *q, struct image_bitmap_node *bitmap, uint64_t index,
                        uint64_t entry, uint8_t *buffer)
{
    uint64_t at = index << q->cluster_bits, all = (bitmap->bits + 7) / 8;
    uint64_t length = at < all ? MIN(all - at, q->cluster_size) : 0;
    uint64_t host = entry & QCOW2_OFFSET_MASK;
    if (!length)
        return 0;
    if (!host && !(entry & ALL_ONES))
        return 0; /* as it is in memory */
    if (!host) {
        memset(buffer, 0xff, length);
    } else if (host % q->cluster_size || !range_within(host, length, image_size(q->file))) {
        return -EIO;
    } else {
        int result = image_read(q->file, buffer, host, length);
        if (result)
            return result;
    }
    memcpy((uint8_t *)bitmap->words + at, buffer, length);
    return 0;
}

static int load_bits(struct qcow2 *q, struct image_bitmap_node *bitmap)
{
    uint64_t needed = ((bitmap->bits + 7) / 8 + q->cluster_size - 1) >> q->cluster_bits;
    uint64_t bytes = bitmap->stored_size * 8;
    if (bitmap->stored_size != needed)
        return -EIO;
    uint8_t *table = malloc(bytes + q->cluster_size), *buffer = table + bytes;
    int result = table ? image_read(q->file, table, bitmap->stored_at, bytes) : -ENOMEM;
    for (uint64_t i = 0; i < bitmap->stored_size && !result; i++)
        result = load_cluster(q, bitmap, i, get_be64(table + i * 8), buffer);
    free(table);
    for (uint64_t bit = bitmap->bits; bit < ALIGN_UP(bitmap->bits, 64ull) && !result; bit++)
        bitmap_clear(bitmap->words, bit); /* behind the disk's end */
    return result;
}

static struct err *load_entry(struct qcow2 *q, const uint8_t *entry)
{
    struct image_bitmap_node *bitmap;
    char name[1024];
    uint32_t flags = get_be32(entry + 12), size = get_be32(entry + 8);
    uint16_t length = get_be16(entry + 18);
    uint64_t at = get_be64(entry);
    unsigned granularity = entry[17];
    if (!length || length >= sizeof(name) || entry[16] != TYPE_DIRTY || granularity < 9 ||
        granularity > 31 || size > TABLE_MAX || at % q->cluster_size ||
        !range_within(at, (uint64_t)size * 8, image_size(q->file)))
        return err_new("a dirty bitmap's entry cannot be right");
    memcpy(name, entry + ENTRY_HEAD + get_be32(entry + 20), length);
    name[length] = 0;
    TRY(image_bitmap_new(q->image, name, granularity, &bitmap));
    q->bitmap_bits += bitmap->bits;
    if (q->bitmap_bits > 2 * IMAGE_BITMAP_BITS_MAX) /* one table may serve many */
        return err_new("its dirty bitmaps are too large");
    bitmap->persistent = true;
    bitmap->stored_at = at;
    bitmap->stored_size = size;
    bitmap->recording = flags & FLAG_AUTO;
    bitmap->inconsistent =
        (flags & FLAG_IN_USE) ||
        (get_be32(entry + 20) && !(flags & FLAG_EXTRA_COMPATIBLE)); /* of a later kind */
    if (!bitmap->inconsistent && load_bits(q, bitmap))
        return err_new("bitmap '%s' cannot be read", name);
    return NULL;
}

/* The directory as the header names it; *bytes is the caller's to free. */
static int read_directory(struct qcow2 *q, uint8_t **bytes)
{
    *bytes = NULL;
    if (q->bitmap_size > DIRECTORY_MAX || q->bitmap_at % q->cluster_size ||
        !range_within(q->bitmap_at, q->bitmap_size, image_size(q->file)))
        return -EIO;
    *bytes = malloc(q->bitmap_size + 1);
    return *bytes ? image_read(q->file, *bytes, q->bitmap_at, q->bitmap_size) : -ENOMEM;
}

/* Calls `each` with every entry of the directory that lies within it. */
static struct err *walk(struct qcow2 *q, uint8_t *bytes,
                        struct err *(*each)(struct qcow2 *q, const uint8_t *entry))
{
    uint64_t at = 0;
    for (uint32_t i = 0; i < q->bitmap_count; i++) {
        if (!range_within(at, ENTRY_HEAD, q->bitmap_size) ||
            !range_within(at, entry_bytes(bytes + at), q->bitmap_size))
            return err_new("its directory of dirty bitmaps is cut off");
        TRY(each(q, bytes + at));
        at += entry_bytes(bytes + at);
    }
    return NULL;
}

struct err *qcow2_bitmaps_load(struct qcow2 *q)
{
    uint8_t *bytes;
    if (!(q->autoclear & QCOW2_AUTOCLEAR_BITMAPS)) /* written by one who did not keep them */
        q->bitmap_count = 0;
    if (!q->bitmap_count)
        return NULL;
    if (q->bitmap_count > BITMAPS_MAX)
        return err_new("it has %u dirty bitmaps", q->bitmap_count);
    int result = read_directory(q, &bytes);
    struct err *err = result ? err_errno(-result, "cannot read its directory of dirty bitmaps")
                             : walk(q, bytes, load_entry);
    free(bytes);
    return err;
}

int qcow2_bitmaps_in_use(struct qcow2 *q)
{
    uint8_t *bytes;
    if (!q->bitmap_count)
        return 0;
    int result = read_directory(q, &bytes);
    uint64_t at = 0;
    for (uint32_t i = 0; i < q->bitmap_count && !result; i++) {
        put_be32(bytes + at + 12, get_be32(bytes + at + 12) | FLAG_IN_USE);
        at += entry_bytes(bytes + at);
    }
    if (!result)
        result = image_write(q->file, bytes, q->bitmap_at, q->bitmap_size);
    free(bytes);
    return result ? result : qcow2_sync(q);
}

/* Of each byte range that bitmaps have in the file: tables and the clusters that they name. */
static int each_range(struct qcow2 *q, const struct image_bitmap_node *bitmap,
                      int (*use)(void *opaque, uint64_t offset, uint64_t length), void *opaque)
{
    uint64_t bytes = bitmap->stored_size * 8;
    uint8_t *table = malloc(bytes + 1);
    int result = table ? image_read(q->file, table, bitmap->stored_at, bytes) : -ENOMEM;
    for (uint64_t i = 0; i < bitmap->stored_size && !result; i++) {
        uint64_t host = get_be64(table + i * 8) & QCOW2_OFFSET_MASK;
        if (host)
            result = use(opaque, host, q->cluster_size);
    }
    free(table);
    return result || !bytes ? result : use(opaque, bitmap->stored_at, bytes);
}

/* Does a bitmap that is not consistent keep what the file has there? */
static bool kept(const struct qcow2 *q, uint64_t table)
{
    struct image_bitmap_node *bitmap;
    list_for_each (bitmap, &q->image->bitmaps, link)
        if (bitmap->inconsistent && bitmap->stored_at == table)
            return true;
    return false;
}

int qcow2_bitmaps_ranges(struct qcow2 *q, bool all,
                         int (*use)(void *opaque, uint64_t offset, uint64_t length), void *opaque)
{
    uint8_t *bytes;
    uint64_t at = 0;
    if (!q->bitmap_count)
        return 0;
    int result = read_directory(q, &bytes);
    for (uint32_t i = 0; i < q->bitmap_count && !result; i++) {
        struct image_bitmap_node stored = {.stored_at = get_be64(bytes + at),
                                           .stored_size = get_be32(bytes + at + 8)};
        if (all || !kept(q, stored.stored_at))
            result = each_range(q, &stored, use, opaque);
        at += entry_bytes(bytes + at);
    }
    free(bytes);
    return result ? result : use(opaque, q->bitmap_at, q->bitmap_size);
}

/* Writes the bits; zero clusters have no place. */
static int store_bits(struct qcow2 *q, const struct image_bitmap_node *bitmap, uint8_t *table,
                      uint64_t entries)
{
    uint64_t all = (bitmap->bits + 7) / 8;
    int result = 0;
    for (uint64_t i = 0; i < entries && !result; i++) {
        const uint8_t *bits = (const uint8_t *)bitmap->words + (i << q->cluster_bits);
        uint64_t at, length = MIN(all - (i << q->cluster_bits), q->cluster_size);
        if (image_is_zero(bits, length))
            continue;
        memset(q->cluster, 0, q->cluster_size);
        memcpy(q->cluster, bits, length);
        result = qcow2_alloc_run(q, 1, &at);
        if (!result)
            result = image_write(q->file, q->cluster, at, q->cluster_size);
        if (!result)
            put_be64(table + i * 8, at);
    }
    return result;
}

/* Room for bytes in clusters of their own. */
static int store_bytes(struct qcow2 *q, const uint8_t *bytes, uint64_t length, uint64_t *at)
{
    uint64_t clusters = (length + q->cluster_size - 1) >> q->cluster_bits;
    int result = qcow2_alloc_run(q, clusters, at);
    return result ? result : image_write(q->file, bytes, *at, length);
}

static int store_one(struct qcow2 *q, struct image_bitmap_node *bitmap, uint8_t *entry)
{
    int result = 0;
    if (!bitmap->inconsistent) {
        uint64_t entries = ((bitmap->bits + 7) / 8 + q->cluster_size - 1) >> q->cluster_bits;
        uint8_t *table = calloc(entries + 1, 8);
        bitmap->stored_at = 0;
        bitmap->stored_size = entries;
        result = table ? store_bits(q, bitmap, table, entries) : -ENOMEM;
        if (!result && entries)
            result = store_bytes(q, table, entries * 8, &bitmap->stored_at);
        free(table);
    }
    put_be64(entry, bitmap->stored_at);
    put_be32(entry + 8, (uint32_t)bitmap->stored_size);
    put_be32(entry + 12,
             (bitmap->inconsistent ? FLAG_IN_USE : 0) | (bitmap->recording ? FLAG_AUTO : 0));
    entry[16] = TYPE_DIRTY;
    entry[17] = (uint8_t)bitmap->granularity_bits;
    put_be16(entry + 18, (uint16_t)strlen(bitmap->name));
    memcpy(entry + ENTRY_HEAD, bitmap->name, strlen(bitmap->name));
    return result;
}

static uint64_t directory_bytes(const struct qcow2 *q, uint32_t *count)
{
    struct image_bitmap_node *bitmap;
    uint64_t bytes = 0;
    *count = 0;
    list_for_each (bitmap, &q->image->bitmaps, link) {
        if (!bitmap->persistent)
            continue;
        ++*count;
        bytes += ALIGN_UP((uint64_t)ENTRY_HEAD + strlen(bitmap->name), 8ull);
    }
    return bytes;
}

struct old_ranges {
    struct qcow2 *q;
    uint64_t *cluster;
    size_t count, room;
};

static int remember(void *opaque, uint64_t offset, uint64_t length)
{
    struct old_ranges *old = opaque;
    for (uint64_t at = offset; at < offset + length; at += old->q->cluster_size) {
        if (old->count == old->room) {
            old->room = MAX(2 * old->room, (size_t)64);
            old->cluster = xrealloc(old->cluster, old->room, sizeof(*old->cluster));
        }
        old->cluster[old->count++] = at;
    }
    return 0;
}

static int store_directory(struct qcow2 *q, uint32_t count, uint64_t bytes, uint64_t *at)
{
    struct image_bitmap_node *bitmap;
    uint8_t *directory = calloc(1, bytes + 1), *entry = directory;
    int result = directory ? 0 : -ENOMEM;
    *at = 0;
    list_for_each (bitmap, &q->image->bitmaps, link) {
        if (!bitmap->persistent || result)
            continue;
        result = store_one(q, bitmap, entry);
        entry += ALIGN_UP((uint64_t)ENTRY_HEAD + strlen(bitmap->name), 8ull);
    }
    if (!result && count)
        result = store_bytes(q, directory, bytes, at);
    free(directory);
    return result ? result : qcow2_flush_all(q);
}

int qcow2_bitmaps_store(struct qcow2 *q)
{
    struct old_ranges old = {.q = q};
    uint32_t count;
    uint64_t bytes = directory_bytes(q, &count), at;
    int result = qcow2_bitmaps_ranges(q, false, remember, &old);
    if (!count && !q->bitmap_count)
        return 0;
    if (!result)
        result = store_directory(q, count, bytes, &at);
    if (!result) {
        q->bitmap_count = count;
        q->bitmap_at = at;
        q->bitmap_size = bytes;
        q->autoclear =
            (q->autoclear & ~QCOW2_AUTOCLEAR_BITMAPS) | (count ? QCOW2_AUTOCLEAR_BITMAPS : 0);
        result =
            qcow2_rewrite_header(q, q->version, q->image->backing_name, q->image->backing_format);
    }
    for (size_t i = 0; i < old.count && !result; i++)
        result = qcow2_gone(q, old.cluster[i]);
    free(old.cluster);
    return result ? result : qcow2_flush_all(q);
}

bool qcow2_bitmaps_persist(const struct image *image)
{
    const struct qcow2 *q = image->state;
    return q->version >= 3;
}
