/*
 * qcow2: zeroes, discards and the map of extents.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>

#include "base/bytes.h"
#include "block/format/qcow2.h"

/* What a whole cluster's entry becomes when it is to read as zeros. */
static uint64_t zeroed_entry(const struct qcow2 *q, uint64_t entry, bool unmap)
{
    enum qcow2_kind kind = qcow2_kind(q, entry);
    if (kind == QCOW2_UNALLOCATED && !q->image->backing)
        return entry;
    if (q->external) /* zeros were written there */
        return kind == QCOW2_UNALLOCATED ? QCOW2_ZERO : entry;
    if (q->version < 3)
        return 0;
    if (!unmap && (kind == QCOW2_NORMAL || kind == QCOW2_ZERO_ALLOCATED) && (entry & QCOW2_COPIED))
        return entry | QCOW2_ZERO;
    return q->image->backing || !unmap || kind == QCOW2_ZERO_PLAIN ? QCOW2_ZERO : 0;
}

static int zero_extended(struct qcow2 *q, uint64_t offset, bool unmap)
{
    uint8_t *slice;
    unsigned index;
    uint64_t gone = 0;
    int result = qcow2_map(q, offset, &slice, &index);
    if (result || (!slice && !q->image->backing))
        return result;
    result = qcow2_map_write(q, offset, &slice, &index);
    if (!result && qcow2_zero_extended(q, slice, index, unmap, &gone) && gone)
        result = qcow2_gone_entry(q, gone);
    return result;
}

/* Under the lock, which it keeps. */
static int zero_locked(struct qcow2 *q, uint64_t offset, uint64_t count, bool unmap)
{
    for (uint64_t i = 0; i < count; i++) {
        uint8_t *slice;
        unsigned index;
        uint64_t at = offset + (i << q->cluster_bits);
        int result = qcow2_map(q, at, &slice, &index);
        if (result)
            return result;
        if (q->entry_bits == 4) {
            result = zero_extended(q, at, unmap);
            if (result)
                return result;
            continue;
        }
        uint64_t before = slice ? get_be64(slice + index * 8) : 0;
        uint64_t after = zeroed_entry(q, before, unmap);
        if (after == before) {
            if (!slice) /* the whole slice is like this */
                i += qcow2_slice_entries(q) - index - 1;
            continue;
        }
        result = qcow2_map_write(q, at, &slice, &index);
        if (result)
            return result;
        put_be64(slice + index * 8, after);
        qcow2_cache_dirty(q, &q->l2, slice);
        if ((before ^ after) & QCOW2_OFFSET_MASK || before & QCOW2_COMPRESSED)
            result = qcow2_gone_entry(q, before);
        if (result)
            return result;
    }
    return 0;
}

static int zero_clusters(struct qcow2 *q, uint64_t offset, uint64_t count, bool unmap)
{
    int result = qcow2_bound_gone(q);
    if (result)
        return result;
    lock_take(&q->lock);
    qcow2_wait_for_claims(q, offset, count << q->cluster_bits);
    if (q->external) /* which may be read without the image: it says zero, too */
        result = image_zero(q->data, offset, MIN(count << q->cluster_bits, q->image->size - offset),
                            unmap);
    if (!result)
        result = zero_locked(q, offset, count, unmap);
    lock_drop(&q->lock);
    return result;
}

static int write_zeros(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    static const uint8_t zeros[65536];
    int result = 0;
    for (uint64_t at = 0; at < length && !result; at += sizeof(zeros))
        result = qcow2_pwrite(q->image, zeros, offset + at, MIN(length - at, sizeof(zeros)));
    return result;
}

/* A piece of a cluster: written, unless it reads as zeros already. */
static int zero_piece(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    struct qcow2_run run;
    int result = 0;
    for (uint64_t at = 0; at < length && !result; at += run.length) {
        lock_take(&q->lock);
        result = qcow2_find_run(q, offset + at, length - at, &run);
        lock_drop(&q->lock);
        if (result)
            break;
        bool zero = run.kind == QCOW2_ZERO_PLAIN || run.kind == QCOW2_ZERO_ALLOCATED ||
                    (run.kind == QCOW2_UNALLOCATED && !q->image->backing);
        if (!zero)
            result = write_zeros(q, offset + at, run.length);
    }
    return result;
}

int qcow2_zero(struct image *image, uint64_t offset, uint64_t length, bool unmap)
{
    struct qcow2 *q = image->state;
    uint64_t mask = q->cluster_size - 1, end = offset + length;
    /* The last cluster counts as whole when the disk ends in it. */
    uint64_t first = (offset + mask) & ~mask,
             last = end == image->size ? (end + mask) & ~mask : end & ~mask;
    if (q->version < 3 && image->backing)
        return write_zeros(q, offset, length);
    int result = first > offset ? zero_piece(q, offset, MIN(length, first - offset)) : 0;
    if (!result && first < last)
        result = zero_clusters(q, first, (last - first) >> q->cluster_bits, unmap);
    if (!result && end > last && end > first)
        result = zero_piece(q, last, end - last);
    return result;
}

int qcow2_discard(struct image *image, uint64_t offset, uint64_t length)
{
    struct qcow2 *q = image->state;
    uint64_t mask = q->cluster_size - 1, end = offset + length;
    uint64_t first = (offset + mask) & ~mask,
             last = end == image->size ? (end + mask) & ~mask : end & ~mask;
    if (first >= last || (q->version < 3 && image->backing))
        return 0;
    return zero_clusters(q, first, (last - first) >> q->cluster_bits, true);
}

static int extent_locked(struct qcow2 *q, uint64_t offset, uint64_t length,
                         struct image_extent *out)
{
    static const unsigned flags[] = {
        [QCOW2_UNALLOCATED] = 0,
        [QCOW2_ZERO_PLAIN] = IMAGE_EXTENT_ALLOCATED | IMAGE_EXTENT_ZERO,
        [QCOW2_ZERO_ALLOCATED] = IMAGE_EXTENT_ALLOCATED | IMAGE_EXTENT_ZERO | IMAGE_EXTENT_HOST,
        [QCOW2_NORMAL] = IMAGE_EXTENT_ALLOCATED | IMAGE_EXTENT_DATA | IMAGE_EXTENT_HOST,
        [QCOW2_PACKED] = IMAGE_EXTENT_ALLOCATED | IMAGE_EXTENT_DATA | IMAGE_EXTENT_COMPRESSED,
    };
    out->length = 0;
    /* Slices are small: go on over equal runs. */
    while (out->length < length) {
        struct qcow2_run run;
        int result = qcow2_find_run(q, offset + out->length, length - out->length, &run);
        if (result)
            return result;
        if (!out->length) {
            out->flags = flags[run.kind];
            out->host = run.host;
        } else if (out->flags != flags[run.kind] ||
                   (out->flags & IMAGE_EXTENT_HOST && run.host != out->host + out->length)) {
            break;
        }
        out->length += run.length;
    }
    if (q->external)
        out->flags &= ~IMAGE_EXTENT_HOST;
    return 0;
}

int qcow2_extent(struct image *image, uint64_t offset, uint64_t length, struct image_extent *out)
{
    struct qcow2 *q = image->state;
    lock_take(&q->lock);
    int result = extent_locked(q, offset, length, out);
    lock_drop(&q->lock);
    return result;
}
