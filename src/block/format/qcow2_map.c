/*
 * qcow2: from a guest offset to its L2 entry, and new L2 tables.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "block/format/qcow2.h"

enum qcow2_kind qcow2_kind(const struct qcow2 *q, uint64_t entry)
{
    if (entry & QCOW2_COMPRESSED)
        return QCOW2_PACKED;
    bool host = entry & (q->external ? QCOW2_OFFSET_MASK | QCOW2_COPIED : QCOW2_OFFSET_MASK);
    if (q->version >= 3 && q->entry_bits == 3 && (entry & QCOW2_ZERO))
        return host ? QCOW2_ZERO_ALLOCATED : QCOW2_ZERO_PLAIN;
    return host ? QCOW2_NORMAL : QCOW2_UNALLOCATED;
}

unsigned qcow2_slice_entries(const struct qcow2 *q)
{
    return q->slice_size >> q->entry_bits;
}

void qcow2_packed_range(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *length)
{
    unsigned x = 62 - (q->cluster_bits - 8);
    uint64_t sectors = (entry >> x & ((1ull << (q->cluster_bits - 8)) - 1)) + 1;
    *offset = entry & ((1ull << x) - 1);
    *length = sectors * 512 - *offset % 512;
}

static bool table_good(const struct qcow2 *q, uint64_t table)
{
    return table % q->cluster_size == 0 &&
           range_within(table, q->cluster_size, image_size(q->file));
}

static int locate(struct qcow2 *q, uint64_t table, uint64_t offset, uint8_t **slice,
                  unsigned *index)
{
    uint64_t number = offset >> q->cluster_bits & ((q->cluster_size >> q->entry_bits) - 1);
    uint64_t byte = number << q->entry_bits;
    *index = (unsigned)(byte % q->slice_size >> q->entry_bits);
    return qcow2_l2_slice(q, table + ALIGN_DOWN(byte, (uint64_t)q->slice_size), slice);
}

int qcow2_map(struct qcow2 *q, uint64_t offset, uint8_t **slice, unsigned *index)
{
    uint64_t l1_index = offset >> qcow2_table_bits(q);
    *slice = NULL;
    *index = (unsigned)((offset >> q->cluster_bits) % qcow2_slice_entries(q));
    if (l1_index >= q->l1_size)
        return -EIO;
    uint64_t table = q->l1[l1_index] & QCOW2_OFFSET_MASK;
    if (!table)
        return 0;
    return table_good(q, table) ? locate(q, table, offset, slice, index) : -EIO;
}

int qcow2_write_l1_entry(struct qcow2 *q, uint64_t index)
{
    uint8_t bytes[8];
    put_be64(bytes, q->l1[index]);
    return image_write(q->file, bytes, q->l1_offset + index * 8, 8);
}

int qcow2_write_l1(struct qcow2 *q)
{
    uint64_t count = q->l1_dirty_end - q->l1_dirty;
    if (!count)
        return 0;
    for (uint64_t i = 0; i < count; i++)
        put_be64(q->cluster + i * 8, q->l1[q->l1_dirty + i]);
    int result =
        image_write(q->file, q->cluster, q->l1_offset + (uint64_t)q->l1_dirty * 8, count * 8);
    if (!result)
        q->l1_dirty = q->l1_dirty_end = 0;
    return result;
}

/* Can the entry be written together with those that are dirty? */
static bool l1_near(const struct qcow2 *q, uint64_t index)
{
    return q->l1_dirty == q->l1_dirty_end ||
           MAX(q->l1_dirty_end, index + 1) - MIN(q->l1_dirty, index) <= q->cluster_size / 8;
}

static void l1_set(struct qcow2 *q, uint64_t index, uint64_t entry)
{
    bool first = q->l1_dirty == q->l1_dirty_end;
    q->l1[index] = entry;
    q->l1_dirty = (uint32_t)(first ? index : MIN(q->l1_dirty, index));
    q->l1_dirty_end = (uint32_t)(first ? index + 1 : MAX(q->l1_dirty_end, index + 1));
}

/*
 * A table of our own for this part of the disk: empty, or a copy of one that snapshots share. The
 * L1 entry follows when the L2 slices are written: what it names is stable then.
 */
static int new_table(struct qcow2 *q, uint64_t l1_index)
{
    uint64_t old = q->l1[l1_index] & QCOW2_OFFSET_MASK, at;
    int result = old && !table_good(q, old) ? -EIO : 0;
    if (!result && (old || !l1_near(q, l1_index)))
        result = qcow2_write_l2(q); /* also what memory has of the old table */
    if (!result)
        result = qcow2_alloc_run(q, 1, &at);
    if (result)
        return result;
    if (old)
        result = image_read(q->file, q->cluster, old, q->cluster_size);
    else
        memset(q->cluster, 0, q->cluster_size);
    if (!result)
        result = image_write(q->file, q->cluster, at, q->cluster_size);
    qcow2_forget(q, at, q->cluster_size);
    if (result) {
        qcow2_unalloc(q, at, 1);
        return result;
    }
    l1_set(q, l1_index, at | QCOW2_COPIED);
    return old ? qcow2_gone(q, old) : 0;
}

int qcow2_map_write(struct qcow2 *q, uint64_t offset, uint8_t **slice, unsigned *index)
{
    uint64_t l1_index = offset >> qcow2_table_bits(q);
    if (l1_index >= q->l1_size)
        return -EIO;
    if (!(q->l1[l1_index] & QCOW2_COPIED) || !(q->l1[l1_index] & QCOW2_OFFSET_MASK)) {
        int result = new_table(q, l1_index);
        if (result)
            return result;
    }
    return qcow2_map(q, offset, slice, index);
}
