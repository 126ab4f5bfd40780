/*
 * qcow2: reads, writes, zeroes, discards and the map of extents.
 *
 * Work goes in runs: clusters of one kind that lie behind each other, within one slice of a table.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "block/format/qcow2.h"

struct run {
    enum qcow2_kind kind;
    uint64_t entry;  /* of its first cluster */
    uint64_t host;   /* of the asked byte, if it has one */
    uint64_t length; /* bytes from the asked offset */
    bool copied;     /* all its clusters are ours alone */
};

static int find_run(struct qcow2 *q, uint64_t offset, uint64_t length, struct run *run)
{
    uint8_t *slice;
    unsigned index, entries = qcow2_slice_entries(q);
    uint64_t inside = offset & (q->cluster_size - 1);
    int result = qcow2_map(q, offset, &slice, &index);
    if (result)
        return result;
    *run = (struct run){.kind = QCOW2_UNALLOCATED};
    if (!slice) {
        run->length = MIN(length, ((uint64_t)(entries - index) << q->cluster_bits) - inside);
        return 0;
    }
    run->entry = get_be64(slice + index * 8);
    run->kind = qcow2_kind(q, run->entry);
    run->copied = run->entry & QCOW2_COPIED;
    bool host = run->kind == QCOW2_NORMAL || run->kind == QCOW2_ZERO_ALLOCATED;
    uint64_t at = run->entry & QCOW2_OFFSET_MASK, count = 1;
    if (host && at % q->cluster_size)
        return -EIO;
    uint64_t clusters = (inside + length + q->cluster_size - 1) >> q->cluster_bits;
    for (; run->kind != QCOW2_PACKED && index + count < entries && count < clusters; count++) {
        uint64_t entry = get_be64(slice + (index + count) * 8);
        if (qcow2_kind(q, entry) != run->kind)
            break;
        if (host && ((entry & QCOW2_OFFSET_MASK) != at + (count << q->cluster_bits) ||
                     !!(entry & QCOW2_COPIED) != run->copied))
            break;
    }
    run->host = at + inside;
    run->length = MIN(length, (count << q->cluster_bits) - inside);
    return 0;
}

int qcow2_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    struct qcow2 *q = image->state;
    uint8_t *out = buffer;
    while (length) {
        struct run run;
        const uint8_t *plain;
        int result = find_run(q, offset, length, &run);
        if (result)
            return result;
        switch (run.kind) {
        case QCOW2_UNALLOCATED:
            result = image_read_backing(image, out, offset, run.length);
            break;
        case QCOW2_NORMAL:
            result = image_read(q->file, out, run.host, run.length);
            break;
        case QCOW2_PACKED:
            result = qcow2_unpack(q, run.entry, &plain);
            if (!result)
                memcpy(out, plain + (offset & (q->cluster_size - 1)), run.length);
            break;
        default:
            memset(out, 0, run.length);
        }
        if (result)
            return result;
        out += run.length;
        offset += run.length;
        length -= run.length;
    }
    return 0;
}

/* Fills the rest of the first and last cluster of a run that gets a place of its own. */
static int write_fresh(struct qcow2 *q, const uint8_t *data, uint64_t offset, uint64_t length,
                       uint64_t host, bool blank)
{
    uint64_t mask = q->cluster_size - 1, head = offset & mask;
    uint64_t tail = (offset + length) & mask ? q->cluster_size - ((offset + length) & mask) : 0;
    uint64_t end = offset + length;
    int result;
    /* One cluster in part: put it together, one write. */
    if (!blank && (head || tail) && head + length + tail == q->cluster_size) {
        uint64_t start = offset - head, have = MIN(q->cluster_size, q->image->size - start);
        memset(q->cluster + have, 0, q->cluster_size - have);
        result = qcow2_pread(q->image, q->cluster, start, have);
        if (result)
            return result;
        memcpy(q->cluster + head, data, length);
        return image_write(q->file, q->cluster, host, q->cluster_size);
    }
    result = image_write(q->file, data, host + head, length);
    if (!result && head && !blank) {
        result = qcow2_pread(q->image, q->cluster, offset - head, head);
        if (!result)
            result = image_write(q->file, q->cluster, host, head);
    }
    if (!result && tail && !blank) {
        uint64_t have = end < q->image->size ? MIN(tail, q->image->size - end) : 0;
        memset(q->cluster + have, 0, tail - have);
        if (have)
            result = qcow2_pread(q->image, q->cluster, end, have);
        if (!result)
            result = image_write(q->file, q->cluster, host + head + length, tail);
    }
    return result;
}

/* Sets `count` entries from the guest offset to clusters that follow each other from `host`. */
static int link_clusters(struct qcow2 *q, uint64_t offset, uint64_t count, uint64_t host)
{
    for (uint64_t i = 0; i < count; i++) {
        uint8_t *slice;
        unsigned index;
        int result = qcow2_map_write(q, offset + (i << q->cluster_bits), &slice, &index);
        if (result)
            return result;
        uint64_t before = get_be64(slice + index * 8);
        uint64_t after = (host + (i << q->cluster_bits)) | QCOW2_COPIED;
        if (before == after)
            continue;
        put_be64(slice + index * 8, after);
        qcow2_cache_dirty(q, &q->l2, slice);
        if ((before ^ after) & QCOW2_OFFSET_MASK || before & QCOW2_COMPRESSED) {
            result = qcow2_gone_entry(q, before);
            if (result)
                return result;
        }
    }
    return 0;
}

/* How many clusters from here need a place: until one may be written in place. */
static int count_fresh(struct qcow2 *q, uint64_t offset, uint64_t wanted, uint64_t *count,
                       bool *zero)
{
    uint8_t *slice;
    unsigned index;
    int result = qcow2_map_write(q, offset, &slice, &index);
    if (result)
        return result;
    wanted = MIN(wanted, (uint64_t)(qcow2_slice_entries(q) - index));
    *zero = true;
    for (*count = 0; *count < wanted; ++*count) {
        uint64_t entry = get_be64(slice + (index + *count) * 8);
        enum qcow2_kind kind = qcow2_kind(q, entry);
        if (*count && (kind == QCOW2_NORMAL || kind == QCOW2_ZERO_ALLOCATED) &&
            (entry & QCOW2_COPIED))
            break;
        if (kind == QCOW2_NORMAL || kind == QCOW2_PACKED ||
            (kind == QCOW2_UNALLOCATED && q->image->backing))
            *zero = false;
    }
    return 0;
}

static int write_allocating(struct qcow2 *q, const uint8_t *data, uint64_t offset, uint64_t length,
                            uint64_t *done)
{
    uint64_t inside = offset & (q->cluster_size - 1), count, host, got;
    uint64_t start = offset - inside;
    bool zero;
    uint64_t end = q->file->size;
    int result = count_fresh(q, offset, (inside + length + q->cluster_size - 1) >> q->cluster_bits,
                             &count, &zero);
    if (!result)
        result = qcow2_alloc(q, count, &host, &got);
    if (result)
        return result;
    *done = MIN(length, (got << q->cluster_bits) - inside);
    /* Behind the end of the file there are zeros already. */
    result = write_fresh(q, data, offset, *done, host, zero && host >= MAX(end, q->file->size));
    if (result) {
        qcow2_unalloc(q, host, got);
        return result;
    }
    return link_clusters(q, start, got, host);
}

int qcow2_pwrite(struct image *image, const void *buffer, uint64_t offset, uint64_t length)
{
    struct qcow2 *q = image->state;
    const uint8_t *data = buffer;
    while (length) {
        struct run run;
        uint64_t done;
        int result = find_run(q, offset, length, &run);
        if (result)
            return result;
        bool ours = run.copied && !(run.entry & QCOW2_COMPRESSED);
        if (ours && run.kind == QCOW2_NORMAL) {
            done = run.length;
            /* A hostile table must not make a guest overwrite the tables. */
            result = qcow2_overlaps_metadata(q, run.host, run.length)
                         ? -EIO
                         : image_write(q->file, data, run.host, run.length);
        } else if (ours && run.kind == QCOW2_ZERO_ALLOCATED) {
            uint64_t inside = offset & (q->cluster_size - 1);
            done = run.length;
            result = qcow2_overlaps_metadata(q, run.host, run.length)
                         ? -EIO
                         : write_fresh(q, data, offset, done, run.host - inside, false);
            if (!result)
                result = link_clusters(q, offset - inside,
                                       (inside + done + q->cluster_size - 1) >> q->cluster_bits,
                                       run.host - inside);
        } else {
            result = write_allocating(q, data, offset, length, &done);
        }
        if (result)
            return result;
        data += done;
        offset += done;
        length -= done;
    }
    return 0;
}

/* What a whole cluster's entry becomes when it is to read as zeros. */
static uint64_t zeroed_entry(const struct qcow2 *q, uint64_t entry, bool unmap)
{
    enum qcow2_kind kind = qcow2_kind(q, entry);
    if (kind == QCOW2_UNALLOCATED && !q->image->backing)
        return entry;
    if (q->version < 3)
        return 0;
    if (!unmap && (kind == QCOW2_NORMAL || kind == QCOW2_ZERO_ALLOCATED) && (entry & QCOW2_COPIED))
        return entry | QCOW2_ZERO;
    return q->image->backing || !unmap || kind == QCOW2_ZERO_PLAIN ? QCOW2_ZERO : 0;
}

static int zero_clusters(struct qcow2 *q, uint64_t offset, uint64_t count, bool unmap)
{
    for (uint64_t i = 0; i < count; i++) {
        uint8_t *slice;
        unsigned index;
        uint64_t at = offset + (i << q->cluster_bits);
        int result = qcow2_map(q, at, &slice, &index);
        if (result)
            return result;
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
    struct run run;
    int result = find_run(q, offset, length, &run);
    if (result || run.kind == QCOW2_ZERO_PLAIN || run.kind == QCOW2_ZERO_ALLOCATED)
        return result;
    if (run.kind == QCOW2_UNALLOCATED && !q->image->backing)
        return 0;
    return write_zeros(q, offset, length);
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

int qcow2_extent(struct image *image, uint64_t offset, uint64_t length, struct image_extent *out)
{
    struct qcow2 *q = image->state;
    struct run run;
    out->length = 0;
    /* Slices are small: go on over equal runs. */
    while (out->length < length) {
        int result = find_run(q, offset + out->length, length - out->length, &run);
        if (result)
            return result;
        static const unsigned flags[] = {
            [QCOW2_UNALLOCATED] = 0,
            [QCOW2_ZERO_PLAIN] = IMAGE_EXTENT_ALLOCATED | IMAGE_EXTENT_ZERO,
            [QCOW2_ZERO_ALLOCATED] = IMAGE_EXTENT_ALLOCATED | IMAGE_EXTENT_ZERO | IMAGE_EXTENT_HOST,
            [QCOW2_NORMAL] = IMAGE_EXTENT_ALLOCATED | IMAGE_EXTENT_DATA | IMAGE_EXTENT_HOST,
            [QCOW2_PACKED] = IMAGE_EXTENT_ALLOCATED | IMAGE_EXTENT_DATA | IMAGE_EXTENT_COMPRESSED,
        };
        if (!out->length) {
            out->flags = flags[run.kind];
            out->host = run.host;
        } else if (out->flags != flags[run.kind] ||
                   (out->flags & IMAGE_EXTENT_HOST && run.host != out->host + out->length)) {
            break;
        }
        out->length += run.length;
    }
    return 0;
}
