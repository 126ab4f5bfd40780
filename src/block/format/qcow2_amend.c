/*
 * qcow2: changes of an image that exists: its version, its flags, its backing file, and emptying an
 * overlay.
 *
 * The header, its extensions and the backing file's name are put together anew in memory and
 * written at once over the old ones, behind a flush of everything that the new header relies on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "block/format/qcow2.h"

#define V2_HEADER 72u
#define V3_HEADER 112u
#define EXT_END 0u
#define EXT_BACKING_FORMAT 0xe2792acau
#define EXT_FEATURE_NAMES 0x6803f857u

struct header {
    uint8_t *bytes; /* a cluster */
    uint64_t room, at;
    bool full;
};

static void add(struct header *new, const void *bytes, size_t length, size_t padded)
{
    if (!range_within(new->at, padded, new->room)) {
        new->full = true;
        return;
    }
    memcpy(new->bytes + new->at, bytes, length);
    new->at += padded;
}

static void add_extension(struct header *new, uint32_t type, const void *bytes, uint32_t length)
{
    uint8_t head[8];
    put_be32(head, type);
    put_be32(head + 4, length);
    add(new, head, sizeof(head), sizeof(head));
    add(new, bytes, length, ALIGN_UP((size_t)length, (size_t)8));
}

/* The extensions of the old header, but for the backing file's format, which may be another. */
static void keep_extensions(const struct qcow2 *q, const uint8_t *old, struct header *new)
{
    uint64_t at = q->header_length, end = get_be64(old + 8);
    if (!end || end > q->cluster_size)
        end = q->cluster_size;
    while (at + 8 <= end) {
        uint32_t type = get_be32(old + at), length = get_be32(old + at + 4);
        at += 8;
        if (type == EXT_END || !range_within(at, length, end))
            break;
        if (type != EXT_BACKING_FORMAT && type != QCOW2_EXT_BITMAPS &&
            !(type == EXT_FEATURE_NAMES && q->version < 3))
            add_extension(new, type, old + at, length);
        at += ALIGN_UP((uint64_t)length, (uint64_t)8);
    }
}

static void fixed_fields(const struct qcow2 *q, const uint8_t *old, unsigned version,
                         struct header *new)
{
    uint32_t length = version >= 3 ? MAX(q->header_length, V3_HEADER) : V2_HEADER;
    memcpy(new->bytes, old, MIN(length, q->header_length));
    put_be32(new->bytes + 4, version);
    put_be64(new->bytes + 8, 0);
    put_be32(new->bytes + 16, 0);
    if (version >= 3) {
        put_be64(new->bytes + 72, q->incompatible);
        put_be64(new->bytes + 80, q->compatible);
        put_be64(new->bytes + 88, q->autoclear);
        put_be32(new->bytes + 96, q->refcount_order);
        put_be32(new->bytes + 100, length);
    }
    new->at = length;
}

/* `old` and `new` are clusters; `new` is zeros. */
static int rewrite(struct qcow2 *q, uint8_t *old, uint8_t *bytes, unsigned version,
                   const char *backing, const char *format)
{
    struct header new = {.bytes = bytes, .room = q->cluster_size};
    int result = image_read(q->file, old, 0, q->cluster_size);
    if (result)
        return result;
    fixed_fields(q, old, version, &new);
    keep_extensions(q, old, &new);
    if (backing && format)
        add_extension(&new, EXT_BACKING_FORMAT, format, (uint32_t)strlen(format));
    if (q->bitmap_count) {
        uint8_t bitmaps[24] = {0};
        put_be32(bitmaps, q->bitmap_count);
        put_be64(bitmaps + 8, q->bitmap_size);
        put_be64(bitmaps + 16, q->bitmap_at);
        add_extension(&new, QCOW2_EXT_BITMAPS, bitmaps, sizeof(bitmaps));
    }
    add_extension(&new, EXT_END, "", 0);
    if (backing) {
        put_be64(bytes + 8, new.at);
        put_be32(bytes + 16, (uint32_t)strlen(backing));
        add(&new, backing, strlen(backing), strlen(backing));
    }
    if (new.full || (backing && strlen(backing) > 1023))
        return -ENAMETOOLONG;
    result = qcow2_flush_all(q);
    if (!result)
        result = qcow2_header_write(q, 0, bytes, q->cluster_size);
    if (!result) {
        q->version = version;
        q->header_length = version >= 3 ? get_be32(bytes + 100) : V2_HEADER;
    }
    return result;
}

int qcow2_rewrite_header(struct qcow2 *q, unsigned version, const char *backing, const char *format)
{
    uint8_t *old = malloc(q->cluster_size), *new = calloc(1, q->cluster_size);
    int result = old && new ? rewrite(q, old, new, version, backing, format) : -ENOMEM;
    free(old);
    free(new);
    return result;
}

static struct err *change_header(struct qcow2 *q, unsigned version, const char *backing,
                                 const char *format)
{
    int result = qcow2_rewrite_header(q, version, backing, format);
    return result ? err_errno(-result, "cannot write its header") : NULL;
}

struct err *qcow2_set_backing_name(struct image *image, const char *name, const char *format)
{
    struct qcow2 *q = image->state;
    return change_header(q, q->version, name, format);
}

/* Version 2 knows no clusters that are zero by their entry. */
static int spell_out_zeros(struct qcow2 *q)
{
    static const uint8_t zeros[65536];
    struct image_extent extent;
    int result = 0;
    for (uint64_t at = 0; at < q->image->size && !result; at += extent.length) {
        result = qcow2_extent(q->image, at, q->image->size - at, &extent);
        if (result || !(extent.flags & IMAGE_EXTENT_ZERO) ||
            !(extent.flags & IMAGE_EXTENT_ALLOCATED))
            continue;
        for (uint64_t done = 0; done < extent.length && !result; done += sizeof(zeros))
            result = qcow2_pwrite(q->image, zeros, at + done,
                                  MIN(extent.length - done, (uint64_t)sizeof(zeros)));
    }
    return result;
}

static struct err *set_version(struct qcow2 *q, unsigned version)
{
    if (version == q->version)
        return NULL;
    if (version < 3) {
        if (q->snapshot_count)
            return err_new("an image with snapshots cannot become compat 0.10");
        if (q->refcount_order != 4 || q->incompatible || image_bitmap_count(q->image))
            return err_new(
                "it has what compat 0.10 has not: other reference counts, zstd or bitmaps");
        int result = spell_out_zeros(q);
        if (result)
            return err_errno(-result, "cannot write its zeros");
        q->compatible = 0;
    }
    return change_header(q, version, q->image->backing_name, q->image->backing_format);
}

static struct err *set_lazy(struct qcow2 *q, const char *value)
{
    bool on = !strcmp(value, "on") || !strcmp(value, "true");
    if (!on && strcmp(value, "off") && strcmp(value, "false"))
        return err_of(ERR_USAGE, "lazy_refcounts is on or off, not '%s'", value);
    if (on && q->version < 3)
        return err_of(ERR_USAGE, "compat 0.10 has no lazy reference counts");
    uint64_t bits = on ? q->compatible | QCOW2_COMPAT_LAZY : q->compatible & ~QCOW2_COMPAT_LAZY;
    int result = q->lazy_dirty && !on ? qcow2_set_clean(q) : 0;
    if (!result && q->version >= 3)
        result = qcow2_write_header_u64(q, 80, bits);
    if (result)
        return err_errno(-result, "cannot write its header");
    q->compatible = bits;
    return NULL;
}

struct err *qcow2_amend(struct image *image, const struct image_option *option, unsigned count)
{
    struct qcow2 *q = image->state;
    const char *lazy = NULL;
    unsigned version = q->version;
    for (unsigned i = 0; i < count; i++) {
        const char *name = option[i].name, *value = option[i].value;
        if (!strcmp(name, "compat")) {
            version = !strcmp(value, "0.10") || !strcmp(value, "v2") ? 2 : 3;
            if (version == 3 && strcmp(value, "1.1") && strcmp(value, "v3"))
                return err_of(ERR_USAGE, "compat is 0.10 or 1.1, not '%s'", value);
        } else if (!strcmp(name, "lazy_refcounts")) {
            lazy = value;
        } else {
            return err_of(ERR_USAGE, "option '%s' cannot be changed: convert the image", name);
        }
    }
    if (lazy && version < 3) /* off it must be */
        TRY(set_lazy(q, lazy));
    TRY(set_version(q, version));
    return lazy ? set_lazy(q, lazy) : NULL;
}

int qcow2_drop(struct qcow2 *q, uint64_t offset, uint64_t end)
{
    int result = 0;
    for (uint64_t at = offset; at < end && !result;) {
        uint8_t *slice;
        unsigned index;
        result = qcow2_map(q, at, &slice, &index);
        if (!result && !slice) {
            at += (uint64_t)(qcow2_slice_entries(q) - index) << q->cluster_bits;
            continue;
        }
        uint64_t before = result ? 0 : qcow2_entry(q, slice, index);
        size_t place = (size_t)index << q->entry_bits, bytes = 1u << q->entry_bits;
        at += q->cluster_size;
        if (result || image_is_zero(slice + place, bytes))
            continue;
        result = qcow2_map_write(q, at - q->cluster_size, &slice, &index);
        if (result)
            break;
        memset(slice + place, 0, bytes);
        qcow2_cache_dirty(q, &q->l2, slice);
        result = qcow2_gone_entry(q, before);
    }
    return result ? result : qcow2_flush_all(q);
}

struct err *qcow2_empty(struct image *image)
{
    int result = qcow2_drop(image->state, 0, image->size);
    return result ? err_errno(-result, "cannot free its clusters") : NULL;
}
