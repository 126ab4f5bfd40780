/*
 * qcow2: reference counts, and clusters taken and given back by them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "block/format/qcow2.h"

#define BEYOND_END_MAX 65536

/* log2 of the counts in a block. */
static unsigned block_bits(const struct qcow2 *q)
{
    return q->cluster_bits + 3 - q->refcount_order;
}

uint64_t qcow2_ref_max(const struct qcow2 *q)
{
    return q->refcount_order == 6 ? UINT64_MAX : (1ull << (1u << q->refcount_order)) - 1;
}

/* The slice that holds a cluster's count and the place of the count in it; *slice NULL: no block.
 */
static int locate(struct qcow2 *q, uint64_t cluster, uint8_t **slice, unsigned *place)
{
    uint64_t index = cluster >> block_bits(q);
    *slice = NULL;
    if (index >= q->reftable_size || !(q->reftable[index] & QCOW2_OFFSET_MASK))
        return 0;
    uint64_t block = q->reftable[index] & QCOW2_OFFSET_MASK;
    if (block % q->cluster_size || !range_within(block, q->cluster_size, image_size(q->file)))
        return -EIO;
    uint64_t bit = (cluster & ((1ull << block_bits(q)) - 1)) << q->refcount_order;
    uint64_t byte = bit / 8;
    *place = (unsigned)((bit % ((uint64_t)q->slice_size * 8)) >> q->refcount_order);
    return qcow2_ref_slice(q, block + ALIGN_DOWN(byte, (uint64_t)q->slice_size), slice);
}

static uint64_t load(const struct qcow2 *q, const uint8_t *slice, unsigned place)
{
    switch (q->refcount_order) {
    case 3:
        return slice[place];
    case 4:
        return get_be16(slice + place * 2);
    case 5:
        return get_be32(slice + place * 4);
    case 6:
        return get_be64(slice + place * 8);
    }
    unsigned bit = place << q->refcount_order;
    return slice[bit / 8] >> (bit % 8) & qcow2_ref_max(q);
}

static void store(const struct qcow2 *q, uint8_t *slice, unsigned place, uint64_t count)
{
    unsigned bit = place << q->refcount_order;
    switch (q->refcount_order) {
    case 3:
        slice[place] = (uint8_t)count;
        return;
    case 4:
        put_be16(slice + place * 2, (uint16_t)count);
        return;
    case 5:
        put_be32(slice + place * 4, (uint32_t)count);
        return;
    case 6:
        put_be64(slice + place * 8, count);
        return;
    }
    uint8_t mask = (uint8_t)(qcow2_ref_max(q) << (bit % 8));
    slice[bit / 8] = (uint8_t)((slice[bit / 8] & ~mask) | count << (bit % 8));
}

int qcow2_ref_get(struct qcow2 *q, uint64_t cluster, uint64_t *count)
{
    uint8_t *slice;
    unsigned place;
    int result = locate(q, cluster, &slice, &place);
    *count = result || !slice ? 0 : load(q, slice, place);
    return result;
}

bool qcow2_overlaps_metadata(const struct qcow2 *q, uint64_t offset, uint64_t length)
{
    uint64_t size = q->cluster_size;
    if (q->crypt_method && ranges_overlap(offset, length, q->crypt_at, q->crypt_size))
        return true;
    if (!offset || ranges_overlap(offset, length, q->l1_offset, (uint64_t)q->l1_size * 8) ||
        ranges_overlap(offset, length, q->reftable_offset, (uint64_t)q->reftable_size * 8))
        return true;
    for (uint32_t i = 0; i < q->l1_size; i++)
        if (q->l1[i] && ranges_overlap(offset, length, q->l1[i] & QCOW2_OFFSET_MASK, size))
            return true;
    for (uint32_t i = 0; i < MIN(q->reftable_used, q->reftable_size); i++)
        if (q->reftable[i] &&
            ranges_overlap(offset, length, q->reftable[i] & QCOW2_OFFSET_MASK, size))
            return true;
    for (uint32_t i = 0; i < q->snapshot_count; i++)
        if (ranges_overlap(offset, length, q->snapshot[i].l1_offset,
                           (uint64_t)q->snapshot[i].l1_size * 8))
            return true;
    return false;
}

/* Zeros for a cluster that is about to be a table. */
static int write_zeros(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    static const uint8_t zeros[65536];
    int result = 0;
    for (uint64_t at = 0; at < length && !result; at += sizeof(zeros))
        result = image_write(q->file, zeros, offset + at, MIN(length - at, sizeof(zeros)));
    return result;
}

/* A larger reference table, at the first clusters that it does not cover yet, with the blocks that
 * count itself. */
static int grow_reftable(struct qcow2 *q, uint64_t index)
{
    uint64_t per_block = 1ull << block_bits(q), per_table = q->cluster_size / 8;
    uint64_t first = index << block_bits(q), blocks = 1, tables, entries;
    if (index >= QCOW2_REFTABLE_MAX / 8)
        return -EFBIG;
    for (;; blocks++) { /* as many blocks as count the blocks and the table */
        entries = MAX((uint64_t)q->reftable_size * 3 / 2, index + blocks + 1);
        tables = (entries + per_table - 1) / per_table;
        if (blocks * per_block >= blocks + tables)
            break;
    }
    entries = tables * per_table;
    if (entries * 8 > QCOW2_REFTABLE_MAX)
        return -EFBIG;
    uint64_t at = first << q->cluster_bits;
    uint64_t table_at = at + (blocks << q->cluster_bits);
    if (qcow2_overlaps_metadata(q, at, (blocks + tables) << q->cluster_bits))
        return -EIO;
    qcow2_take_virgin(q, at, (blocks + tables) << q->cluster_bits);
    uint64_t *table = calloc(entries, 8);
    uint8_t *bytes = calloc(entries, 8);
    int result = table && bytes ? write_zeros(q, at, blocks << q->cluster_bits) : -ENOMEM;
    if (!result) {
        memcpy(table, q->reftable, (size_t)q->reftable_size * 8);
        for (uint64_t i = 0; i < blocks; i++)
            table[index + i] = at + (i << q->cluster_bits);
        for (uint64_t i = 0; i < entries; i++)
            put_be64(bytes + i * 8, table[i]);
        result = image_write(q->file, bytes, table_at, entries * 8);
    }
    free(bytes);
    if (result) {
        free(table);
        return result;
    }
    uint64_t old_offset = q->reftable_offset, old_size = q->reftable_size;
    uint64_t *old = q->reftable;
    qcow2_forget(q, at, (blocks + tables) << q->cluster_bits);
    q->reftable = table;
    q->reftable_size = (uint32_t)entries;
    q->reftable_used = MAX(q->reftable_used, (uint32_t)(index + blocks));
    for (uint64_t i = 0; i < blocks + tables && !result; i++)
        result = qcow2_ref_set(q, first + i, 1);
    if (!result)
        result = qcow2_write_refs(q);
    if (!result)
        result = qcow2_sync(q);
    uint8_t header[12];
    put_be64(header, table_at);
    put_be32(header + 8, (uint32_t)tables);
    if (!result)
        result = qcow2_header_write(q, 48, header, sizeof(header));
    if (result) { /* the header names the old one: go on with that */
        q->reftable = old;
        q->reftable_size = (uint32_t)old_size;
        free(table);
        return result;
    }
    free(old);
    q->reftable_offset = table_at;
    for (uint64_t i = 0; i < (old_size * 8 + q->cluster_size - 1) / q->cluster_size; i++)
        qcow2_gone(q, old_offset + (i << q->cluster_bits));
    return 0;
}

/* The block that counts the clusters of `index`, at the first of them: none is in use yet. */
static int new_block(struct qcow2 *q, uint64_t index)
{
    if (index >= q->reftable_size)
        return grow_reftable(q, index);
    uint64_t cluster = index << block_bits(q), at = cluster << q->cluster_bits;
    uint8_t bytes[8];
    if (qcow2_overlaps_metadata(q, at, q->cluster_size))
        return -EIO;
    qcow2_take_virgin(q, at, q->cluster_size);
    int result = write_zeros(q, at, q->cluster_size);
    if (result)
        return result;
    qcow2_forget(q, at, q->cluster_size);
    q->reftable[index] = at;
    q->reftable_used = MAX(q->reftable_used, (uint32_t)index + 1);
    result = qcow2_ref_set(q, cluster, 1);
    if (!result)
        result = qcow2_write_refs(q);
    if (!result)
        result = qcow2_sync(q);
    put_be64(bytes, at);
    if (!result)
        result = image_write(q->file, bytes, q->reftable_offset + index * 8, 8);
    if (result)
        q->reftable[index] = 0;
    return result;
}

int qcow2_ref_set(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    uint8_t *slice;
    unsigned place;
    int result = 0;
    if (qcow2_lazy(q) && !(q->incompatible & QCOW2_INCOMPAT_DIRTY)) {
        result = qcow2_set_incompatible(q, q->incompatible | QCOW2_INCOMPAT_DIRTY);
        q->lazy_dirty = !result;
    }
    if (!result)
        result = locate(q, cluster, &slice, &place);
    if (!result && !slice) {
        if (!count)
            return 0;
        result = new_block(q, cluster >> block_bits(q));
        if (!result)
            result = locate(q, cluster, &slice, &place);
    }
    if (result || !slice)
        return result ? result : -EIO;
    store(q, slice, place, count);
    qcow2_cache_dirty(q, &q->refs, slice);
    return 0;
}

int qcow2_ref_add(struct qcow2 *q, uint64_t cluster, int delta)
{
    uint64_t count;
    int result = qcow2_ref_get(q, cluster, &count);
    if (result)
        return result;
    if (delta > 0 && !count) /* what is referred to must have been counted */
        return -EIO;
    if (delta < 0 ? count < (uint64_t)-delta : count > qcow2_ref_max(q) - (uint64_t)delta)
        return delta < 0 ? -EIO : -ERANGE;
    count += (uint64_t)(int64_t)delta;
    if (!count && cluster < q->hint)
        q->hint = cluster;
    return qcow2_ref_set(q, cluster, count);
}

/* Is the cluster free? Makes the block that counts it, so that it can be taken. */
static int is_free(struct qcow2 *q, uint64_t cluster, bool *yes)
{
    uint64_t count, index = cluster >> block_bits(q);
    if (cluster >= (1ull << (56 - q->cluster_bits)))
        return -EFBIG;
    if (index >= q->reftable_size || !(q->reftable[index] & QCOW2_OFFSET_MASK)) {
        int result = new_block(q, index);
        if (result)
            return result;
    }
    int result = qcow2_ref_get(q, cluster, &count);
    *yes = !count;
    return result;
}

static int find(struct qcow2 *q, uint64_t least, uint64_t most, uint64_t *first, uint64_t *got)
{
    uint64_t cluster = q->hint, run = 0;
    bool at_hint = true;
    if (least >= 1ull << block_bits(q)) /* new blocks would lie in every run */
        return -EFBIG;
    for (;; cluster++) {
        bool yes;
        int result = is_free(q, cluster, &yes);
        if (result)
            return result;
        if (yes && at_hint) {
            q->hint = cluster;
            at_hint = false;
        }
        if (!yes && run >= least)
            break;
        /* Counts of clusters far behind the end of the file are not to be believed. */
        if (!yes && cluster > (image_size(q->file) >> q->cluster_bits) + BEYOND_END_MAX)
            return -EIO;
        run = yes ? run + 1 : 0;
        if (run == most) {
            cluster++;
            break;
        }
    }
    *first = cluster - run;
    *got = run;
    return 0;
}

static int take(struct qcow2 *q, uint64_t least, uint64_t most, uint64_t *offset, uint64_t *got,
                bool *virgin)
{
    uint64_t first = 0;
    int result = find(q, least, most, &first, got);
    if (result)
        return result;
    if (qcow2_overlaps_metadata(q, first << q->cluster_bits, *got << q->cluster_bits)) {
        qcow2_set_incompatible(q, q->incompatible | QCOW2_INCOMPAT_CORRUPT);
        return -EIO;
    }
    for (uint64_t i = 0; i < *got; i++) {
        result = qcow2_ref_set(q, first + i, 1);
        if (result)
            return result;
    }
    if (q->hint == first)
        q->hint = first + *got;
    *offset = first << q->cluster_bits;
    *virgin = qcow2_take_virgin(q, *offset, *got << q->cluster_bits);
    return 0;
}

int qcow2_alloc(struct qcow2 *q, uint64_t wanted, uint64_t *offset, uint64_t *got, bool *virgin)
{
    return take(q, 1, wanted, offset, got, virgin);
}

int qcow2_alloc_run(struct qcow2 *q, uint64_t count, uint64_t *offset)
{
    uint64_t got;
    bool virgin;
    return take(q, count, count, offset, &got, &virgin);
}

void qcow2_unalloc(struct qcow2 *q, uint64_t offset, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        (void)qcow2_ref_add(q, (offset >> q->cluster_bits) + i, -1);
}

int qcow2_gone(struct qcow2 *q, uint64_t offset)
{
    if (q->gone_count >= QCOW2_GONE_MAX && list_empty(&q->ops) && !q->flushing) {
        int result = qcow2_flush_all(q);
        if (result)
            return result;
    }
    if (q->gone_count == q->gone_room) {
        size_t room = MAX(2 * q->gone_room, (size_t)64);
        struct qcow2_gone *more = reallocarray(q->gone, room, sizeof(*more));
        if (!more)
            return -ENOMEM;
        q->gone = more;
        q->gone_room = room;
    }
    q->gone[q->gone_count++] =
        (struct qcow2_gone){.cluster = offset >> q->cluster_bits, .sequence = ++q->sequence};
    return 0;
}

int qcow2_gone_entry(struct qcow2 *q, uint64_t entry)
{
    uint64_t at, length;
    int result = 0;
    switch (qcow2_kind(q, entry)) {
    case QCOW2_NORMAL:
    case QCOW2_ZERO_ALLOCATED:
        return q->external ? 0 : qcow2_gone(q, entry & QCOW2_OFFSET_MASK);
    case QCOW2_PACKED:
        qcow2_packed_range(q, entry, &at, &length);
        for (uint64_t end = at + length, here = ALIGN_DOWN(at, q->cluster_size);
             here < end && !result; here += q->cluster_size)
            result = qcow2_gone(q, here);
        return result;
    default:
        return 0;
    }
}

/* Takes away references that are not the last; nothing may come into the others any more. */
static int drop_shared(struct qcow2 *q, size_t count)
{
    int first_error = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t left, at = q->gone[i].cluster << q->cluster_bits;
        int result = qcow2_ref_get(q, q->gone[i].cluster, &left);
        if (!result && left == 1) {
            qcow2_forget(q, at, q->cluster_size);
            if (q->pack_next > at && q->pack_next <= at + q->cluster_size)
                q->pack_next = 0;
            continue;
        }
        if (!result)
            result = qcow2_ref_add(q, q->gone[i].cluster, -1);
        q->gone[i].cluster = 0;
        if (result && !first_error)
            first_error = result;
    }
    return first_error;
}

/* The room of what is about to be free, before anybody can get it. */
static void punch(struct qcow2 *q, size_t count, bool shared)
{
    for (size_t i = 0, end; i < count; i = end) {
        uint64_t first = q->gone[i].cluster;
        for (end = i + 1; first && end < count; end++)
            if (q->gone[end].cluster != first + (end - i))
                break;
        if (!first)
            continue;
        if (shared)
            lock_drop(&q->lock);
        image_discard(q->file, first << q->cluster_bits, (end - i) << q->cluster_bits);
        if (shared)
            lock_take(&q->lock);
    }
}

int qcow2_commit_gone(struct qcow2 *q, size_t count, bool shared)
{
    uint64_t oldest = qcow2_oldest_op(q), hint = UINT64_MAX;
    size_t ready = 0;
    while (ready < count && q->gone[ready].sequence < oldest)
        ready++;
    if (!ready)
        return 0;
    int first_error = drop_shared(q, ready);
    qcow2_unpacked_forget(q);
    if (q->image->flags & IMAGE_OPEN_DISCARD)
        punch(q, ready, shared);
    for (size_t i = 0; i < ready; i++) {
        if (!q->gone[i].cluster)
            continue;
        int result = qcow2_ref_add(q, q->gone[i].cluster, -1);
        if (result && !first_error)
            first_error = result;
        if (!result)
            hint = MIN(hint, q->gone[i].cluster);
    }
    q->hint = MIN(q->hint, hint);
    q->gone_count -= ready;
    memmove(q->gone, q->gone + ready, q->gone_count * sizeof(*q->gone));
    return first_error;
}

bool qcow2_take_virgin(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    bool virgin = offset >= q->virgin;
    q->virgin = MAX(q->virgin, offset + length);
    return virgin;
}
