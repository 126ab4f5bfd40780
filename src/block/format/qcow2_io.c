/*
 * qcow2: reads and writes.
 *
 * Work goes in runs: clusters of one kind that lie behind each other, within one slice of a table.
 * Each is looked up under the lock and moved outside of it (qcow2_ops.c says why that is safe).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "block/format/qcow2.h"

int qcow2_find_run(struct qcow2 *q, uint64_t offset, uint64_t length, struct qcow2_run *run)
{
    uint8_t *slice;
    unsigned index, entries = qcow2_slice_entries(q);
    uint64_t inside = offset & (q->cluster_size - 1);
    int result = qcow2_map(q, offset, &slice, &index);
    if (result)
        return result;
    *run = (struct qcow2_run){.kind = QCOW2_UNALLOCATED};
    if (!slice) {
        run->length = MIN(length, ((uint64_t)(entries - index) << q->cluster_bits) - inside);
        return 0;
    }
    if (q->entry_bits == 4)
        return qcow2_find_run_extended(q, offset, length, slice, index, run);
    run->entry = get_be64(slice + index * 8);
    run->kind = qcow2_kind(q, run->entry);
    run->copied = run->entry & QCOW2_COPIED;
    bool host = run->kind == QCOW2_NORMAL || run->kind == QCOW2_ZERO_ALLOCATED;
    uint64_t at = run->entry & QCOW2_OFFSET_MASK, count = 1;
    if (host && (at % q->cluster_size || (q->external && at != offset - inside)))
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

/* Under the lock, which it leaves: one run into memory. */
static int read_run(struct qcow2 *q, const struct qcow2_run *run, uint8_t *out, uint64_t offset)
{
    int result;
    switch (run->kind) {
    case QCOW2_UNALLOCATED:
        if (!q->image->backing) {
            memset(out, 0, run->length);
            return 0;
        }
        lock_drop(&q->lock);
        result = image_read_backing(q->image, out, offset, run->length);
        lock_take(&q->lock);
        return result;
    case QCOW2_NORMAL:
        lock_drop(&q->lock);
        result = image_read(q->data, out, run->host, run->length);
        lock_take(&q->lock);
        return result;
    case QCOW2_PACKED:
        return qcow2_unpack(q, run->entry, out, offset & (q->cluster_size - 1), run->length);
    default:
        memset(out, 0, run->length);
        return 0;
    }
}

/* Under the lock, which it leaves. The caller is a registered call. */
static int read_locked(struct qcow2 *q, uint8_t *out, uint64_t offset, uint64_t length)
{
    while (length) {
        struct qcow2_run run;
        int result = qcow2_find_run(q, offset, length, &run);
        if (!result)
            result = read_run(q, &run, out, offset);
        if (result)
            return result;
        out += run.length;
        offset += run.length;
        length -= run.length;
    }
    return 0;
}

int qcow2_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    struct qcow2 *q = image->state;
    struct qcow2_op op;
    lock_take(&q->lock);
    qcow2_op_begin(q, &op);
    int result = read_locked(q, buffer, offset, length);
    qcow2_op_end(q, &op);
    lock_drop(&q->lock);
    return result;
}

static int write_unlocked(struct qcow2 *q, const void *data, uint64_t host, uint64_t length)
{
    lock_drop(&q->lock);
    int result = image_write(q->data, data, host, length);
    lock_take(&q->lock);
    return result;
}

/* What the disk has there, and zeros behind its end. */
static int read_old(struct qcow2 *q, uint8_t *out, uint64_t offset, uint64_t length)
{
    uint64_t size = q->image->size, have = offset < size ? MIN(length, size - offset) : 0;
    memset(out + have, 0, length - have);
    return have ? read_locked(q, out, offset, have) : 0;
}

/* Fills the rest of the first and last unit of a run that gets a place of its own. */
static int write_around(struct qcow2 *q, const uint8_t *data, uint64_t offset, uint64_t length,
                        uint64_t host, uint64_t unit, uint8_t *scratch)
{
    uint64_t mask = unit - 1, head = offset & mask, end = offset + length;
    uint64_t tail = end & mask ? unit - (end & mask) : 0;
    int result = head ? read_old(q, scratch, offset - head, head) : 0;
    if (head + length + tail == unit) { /* put it together: one write */
        if (!result && tail)
            result = read_old(q, scratch + head + length, end, tail);
        memcpy(scratch + head, data, length);
        return result ? result : write_unlocked(q, scratch, host, unit);
    }
    if (!result && head)
        result = write_unlocked(q, scratch, host, head);
    if (!result && tail)
        result = read_old(q, scratch, end, tail);
    if (!result && tail)
        result = write_unlocked(q, scratch, host + head + length, tail);
    return result ? result : write_unlocked(q, data, host + head, length);
}

int qcow2_write_fresh(struct qcow2 *q, const uint8_t *data, uint64_t offset, uint64_t length,
                      uint64_t host, uint64_t unit, bool blank)
{
    q->ragged |= blank;
    if (blank || !((offset | length) & (unit - 1)))
        return write_unlocked(q, data, host + (offset & (unit - 1)), length);
    uint8_t *scratch = qcow2_scratch_take(q);
    if (!scratch)
        return -ENOMEM;
    int result = write_around(q, data, offset, length, host, unit, scratch);
    qcow2_scratch_give(q, scratch);
    return result;
}

int qcow2_link(struct qcow2 *q, uint64_t offset, uint64_t count, uint64_t host)
{
    while (q->frozen)
        pthread_cond_wait(&q->progress, &q->lock.mutex);
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

/* In an external data file every cluster has its place. */
int qcow2_place(struct qcow2 *q, uint64_t start, uint64_t count, uint64_t *host, uint64_t *got,
                bool *virgin)
{
    if (!q->external)
        return qcow2_alloc(q, count, host, got, virgin);
    *host = start;
    *got = count;
    *virgin = false;
    return 0;
}

static int write_allocating(struct qcow2 *q, struct qcow2_op *op, const uint8_t *data,
                            uint64_t offset, uint64_t length, uint64_t *done)
{
    uint64_t inside = offset & (q->cluster_size - 1), count, host, got;
    uint64_t start = offset - inside;
    bool zero, virgin;
    int result = count_fresh(q, offset, (inside + length + q->cluster_size - 1) >> q->cluster_bits,
                             &count, &zero);
    if (!result)
        result = qcow2_place(q, start, count, &host, &got, &virgin);
    if (result)
        return result;
    *done = MIN(length, (got << q->cluster_bits) - inside);
    qcow2_claim(op, start, got << q->cluster_bits);
    result = qcow2_write_fresh(q, data, offset, *done, host, q->cluster_size,
                               zero && virgin && !q->luks);
    if (result && !q->external)
        qcow2_unalloc(q, host, got);
    if (!result)
        result = qcow2_link(q, start, got, host);
    qcow2_release(q, op);
    return result;
}

/* A run that has a place but reads as zeros. */
static int write_zeroed(struct qcow2 *q, struct qcow2_op *op, const uint8_t *data, uint64_t offset,
                        const struct qcow2_run *run)
{
    uint64_t inside = offset & (q->cluster_size - 1), host = run->host - inside;
    uint64_t count = (inside + run->length + q->cluster_size - 1) >> q->cluster_bits;
    qcow2_claim(op, offset - inside, count << q->cluster_bits);
    int result = qcow2_write_fresh(q, data, offset, run->length, host, q->cluster_size, false);
    if (!result)
        result = qcow2_link(q, offset - inside, count, host);
    qcow2_release(q, op);
    return result;
}

/* The next stretch of a write: *done bytes of it. */
static int write_run(struct qcow2 *q, struct qcow2_op *op, const uint8_t *data, uint64_t offset,
                     uint64_t length, uint64_t *done)
{
    struct qcow2_run run;
    int result = qcow2_find_run(q, offset, length, &run);
    if (result)
        return result;
    *done = run.length;
    bool ours = run.copied && (run.kind == QCOW2_NORMAL || run.kind == QCOW2_ZERO_ALLOCATED);
    /* A hostile table must not make a guest overwrite the tables. */
    if (ours && !q->external && qcow2_overlaps_metadata(q, run.host, run.length))
        return -EIO;
    if (ours && run.kind == QCOW2_NORMAL)
        return write_unlocked(q, data, run.host, run.length);
    *done = 0;
    if (qcow2_wait_for_claims(q, offset, length))
        return 0; /* things have changed: look again */
    if (q->entry_bits == 4)
        return qcow2_write_extended(q, op, data, offset, &run, done);
    if (!ours)
        return write_allocating(q, op, data, offset, length, done);
    *done = run.length;
    return write_zeroed(q, op, data, offset, &run);
}

int qcow2_pwrite(struct image *image, const void *buffer, uint64_t offset, uint64_t length)
{
    struct qcow2 *q = image->state;
    const uint8_t *data = buffer;
    struct qcow2_op op;
    int result = qcow2_bound_gone(q);
    if (result)
        return result;
    lock_take(&q->lock);
    qcow2_op_begin(q, &op);
    while (length && !result) {
        uint64_t done = 0; /* a lookup that fails says nothing */
        result = write_run(q, &op, data, offset, length, &done);
        data += done;
        offset += done;
        length -= done;
    }
    qcow2_op_end(q, &op);
    lock_drop(&q->lock);
    return result;
}
