/*
 * qcow2 with extended L2 entries: 32 subclusters a cluster, each of which has data, is zero, or is
 * left to the backing image, as two bits of a bitmap behind the entry say. A small write over a
 * backing image copies no more than a subcluster.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>

#include "base/bytes.h"
#include "block/format/qcow2.h"

#define ALL_DATA 0xffffffffull
#define ALL_ZERO 0xffffffff00000000ull

static uint64_t get_bits(const uint8_t *slice, unsigned index)
{
    return get_be64(slice + index * 16 + 8);
}

static bool has_host(const struct qcow2 *q, uint64_t entry)
{
    enum qcow2_kind kind = qcow2_kind(q, entry);
    return kind == QCOW2_NORMAL || kind == QCOW2_ZERO_ALLOCATED;
}

/* -EIO: data without a place. */
static int subcluster(const struct qcow2 *q, uint64_t entry, uint64_t bits, unsigned sub,
                      enum qcow2_kind *kind)
{
    bool data = bits >> sub & 1, zero = bits >> (32 + sub) & 1;
    *kind = QCOW2_UNALLOCATED;
    if (qcow2_kind(q, entry) == QCOW2_PACKED)
        *kind = QCOW2_PACKED;
    else if (data && (zero || !has_host(q, entry)))
        return -EIO;
    else if (data)
        *kind = QCOW2_NORMAL;
    else if (zero)
        *kind = has_host(q, entry) ? QCOW2_ZERO_ALLOCATED : QCOW2_ZERO_PLAIN;
    return 0;
}

int qcow2_find_run_extended(struct qcow2 *q, uint64_t offset, uint64_t length, const uint8_t *slice,
                            unsigned index, struct qcow2_run *run)
{
    unsigned entries = qcow2_slice_entries(q), sub_bits = q->cluster_bits - 5;
    uint64_t mask = (1ull << sub_bits) - 1, inside = offset & (q->cluster_size - 1);
    unsigned sub = (unsigned)(inside >> sub_bits);
    run->entry = qcow2_entry(q, slice, index);
    run->copied = run->entry & QCOW2_COPIED;
    run->host = (run->entry & QCOW2_OFFSET_MASK) + inside;
    int result = subcluster(q, run->entry, get_bits(slice, index), sub, &run->kind);
    bool host = has_host(q, run->entry);
    if (!result && host &&
        ((run->host - inside) % q->cluster_size || (q->external && run->host != offset)))
        return -EIO;
    if (run->kind == QCOW2_PACKED) {
        run->length = MIN(length, q->cluster_size - inside);
        return 0;
    }
    uint64_t next = (uint64_t)index * 32 + sub, first = next, end = (uint64_t)entries * 32;
    for (next++; !result && next < end && ((next - first) << sub_bits) - (offset & mask) < length;
         next++) {
        uint64_t entry = qcow2_entry(q, slice, (unsigned)(next / 32));
        enum qcow2_kind kind;
        if (subcluster(q, entry, get_bits(slice, (unsigned)(next / 32)), next % 32, &kind) ||
            kind != run->kind)
            break; /* an error belongs to who asks for that place */
        if (has_host(q, entry) != host || !!(entry & QCOW2_COPIED) != run->copied)
            break;
        if (host && (entry & QCOW2_OFFSET_MASK) + ((next % 32) << sub_bits) !=
                        run->host - (offset & mask) + ((next - first) << sub_bits))
            break;
    }
    run->length = MIN(length, ((next - first) << sub_bits) - (offset & mask));
    return result;
}

static void set(struct qcow2 *q, uint8_t *slice, unsigned index, uint64_t entry, uint64_t bits)
{
    put_be64(slice + index * 16, entry);
    put_be64(slice + index * 16 + 8, bits);
    qcow2_cache_dirty(q, &q->l2, slice);
}

/* The data bits of the subclusters that a stretch of one cluster touches. */
static uint64_t touched(const struct qcow2 *q, uint64_t inside, uint64_t length)
{
    unsigned first = (unsigned)(inside >> (q->cluster_bits - 5));
    unsigned last = (unsigned)((inside + length - 1) >> (q->cluster_bits - 5));
    return (ALL_DATA >> (31 - last)) & (ALL_DATA << first);
}

/* Writes the stretch to its place and then lets the table say so. */
static int fill(struct qcow2 *q, const uint8_t *data, uint64_t offset, uint64_t length,
                uint64_t host, uint64_t unit, bool blank)
{
    uint64_t inside = offset & (q->cluster_size - 1), before;
    uint8_t *slice;
    unsigned index;
    int result =
        qcow2_write_fresh(q, data, offset, length, host + (inside & ~(unit - 1)), unit, blank);
    while (!result && q->frozen)
        pthread_cond_wait(&q->progress, &q->lock.mutex);
    if (!result)
        result = qcow2_map_write(q, offset, &slice, &index);
    if (result)
        return result;
    uint64_t bits = touched(q, inside, length), old = get_bits(slice, index);
    before = qcow2_entry(q, slice, index);
    if (unit == q->cluster_size)
        bits = ALL_DATA, old = 0;
    set(q, slice, index, host | QCOW2_COPIED, (old | bits) & ~(bits << 32));
    if ((before ^ host) & QCOW2_OFFSET_MASK || before & QCOW2_COMPRESSED)
        result = qcow2_gone_entry(q, before);
    return result;
}

int qcow2_write_extended(struct qcow2 *q, struct qcow2_op *op, const uint8_t *data, uint64_t offset,
                         const struct qcow2_run *run, uint64_t *done)
{
    uint64_t inside = offset & (q->cluster_size - 1), start = offset - inside, host, got;
    uint64_t unit = q->cluster_size / 32, length = MIN(run->length, q->cluster_size - inside);
    bool blank = false, placed = has_host(q, run->entry) && run->copied;
    uint8_t *slice;
    unsigned index;
    int result = qcow2_map_write(q, offset, &slice, &index); /* a table of our own */
    host = start + (run->host - offset);
    if (!result && !placed) {
        result = qcow2_place(q, start, 1, &host, &got, &blank);
        /* What was there before is shared, or packed: it comes along as a whole. */
        if (has_host(q, run->entry) || run->kind == QCOW2_PACKED)
            unit = q->cluster_size;
        blank = blank && unit < q->cluster_size && !q->image->backing && !q->luks;
    }
    if (result)
        return result;
    *done = length;
    qcow2_claim(op, start, q->cluster_size);
    result = fill(q, data, offset, length, host, unit, blank);
    qcow2_release(q, op);
    return result;
}

bool qcow2_zero_extended(struct qcow2 *q, uint8_t *slice, unsigned index, bool unmap,
                         uint64_t *gone)
{
    uint64_t entry = qcow2_entry(q, slice, index), bits = get_bits(slice, index);
    uint64_t after = 0, after_bits = q->image->backing || !unmap || bits ? ALL_ZERO : 0;
    *gone = 0;
    if (!entry && !bits && !q->image->backing)
        return false;
    if (q->external) { /* zeros were written there */
        after = entry;
        after_bits = (bits & ALL_DATA) | (~(bits & ALL_DATA) << 32);
    } else if (!unmap && has_host(q, entry) && (entry & QCOW2_COPIED)) {
        after = entry;
    }
    if (after == entry && after_bits == bits)
        return false;
    set(q, slice, index, after, after_bits);
    *gone = after == entry ? 0 : entry;
    return true;
}
