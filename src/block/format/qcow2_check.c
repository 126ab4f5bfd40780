/*
 * qcow2: counting every reference and comparing with the counts in the file.
 *
 * A count that is too high is a leak, one that is too low a corruption. Repair sets counts and the
 * flags of sole ownership to what was counted; it never touches data.
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

#define CLUSTERS_MAX (1ull << 30)

struct counting {
    struct qcow2 *q;
    struct image_check *check;
    uint32_t *count; /* of each host cluster */
    uint64_t clusters;
    uint64_t *visited; /* L2 tables of the L1 table that is walked */
    uint8_t *table;
    bool repair, active;
    uint64_t next_host;
};

static void corrupt(struct counting *c, const char *what, uint64_t offset)
{
    c->check->corruptions++;
    if (c->check->corruptions < 100)
        image_check_say(c->check, "ERROR %s at 0x%llx", what, (unsigned long long)offset);
}

/* A reference to the clusters that hold these bytes of the file. */
static void refer(struct counting *c, uint64_t offset, uint64_t length, const char *what)
{
    if (!length)
        return;
    uint64_t first = offset >> c->q->cluster_bits;
    if (!range_within(offset, length, c->clusters << c->q->cluster_bits)) {
        corrupt(c, what, offset);
        return;
    }
    for (uint64_t i = first; i <= (offset + length - 1) >> c->q->cluster_bits; i++)
        if (c->count[i] != UINT32_MAX)
            c->count[i]++;
}

static void fix_flag(struct counting *c, uint64_t at, uint64_t entry)
{
    uint8_t bytes[8];
    if (!c->repair)
        return;
    put_be64(bytes, entry);
    if (image_write(c->q->file, bytes, at, 8) == 0) {
        c->check->corruptions--;
        c->check->corruptions_fixed++;
    } else {
        c->check->errors++;
    }
}

/* Does the flag of sole ownership say what the count in the file says? */
static bool check_flag(struct counting *c, uint64_t entry, uint64_t at, const char *what)
{
    uint64_t count;
    uint64_t cluster = (entry & QCOW2_OFFSET_MASK) >> c->q->cluster_bits;
    if (!c->active || cluster >= c->clusters)
        return true;
    /* After repair of counts, what was counted is what will be there. */
    if (c->repair)
        count = c->count[cluster];
    else if (qcow2_ref_get(c->q, cluster, &count))
        return true;
    if ((count == 1) == !!(entry & QCOW2_COPIED))
        return true;
    corrupt(c, what, at);
    return false;
}

static void count_entry(struct counting *c, uint64_t entry)
{
    struct qcow2 *q = c->q;
    uint64_t at, length;
    switch (qcow2_kind(q, entry)) {
    case QCOW2_PACKED:
        qcow2_packed_range(q, entry, &at, &length);
        refer(c, ALIGN_DOWN(at, (uint64_t)512), length + at % 512,
              "a compressed cluster beyond the end of the file");
        if (c->active) {
            c->check->allocated_clusters++;
            c->check->compressed_clusters++;
            c->check->fragmented_clusters++;
        }
        return;
    case QCOW2_NORMAL:
    case QCOW2_ZERO_ALLOCATED:
        at = entry & QCOW2_OFFSET_MASK;
        if (at % q->cluster_size) {
            corrupt(c, "a data cluster that is not aligned", at);
            return;
        }
        if (!q->external)
            refer(c, at, q->cluster_size, "a data cluster beyond the end of the file");
        if (c->active) {
            c->check->allocated_clusters++;
            if (c->next_host && at != c->next_host)
                c->check->fragmented_clusters++;
            c->next_host = at + q->cluster_size;
        }
        return;
    default:
        return;
    }
}

/* One L2 table; `flags`: this pass looks at the flags, another counted. */
static void walk_l2(struct counting *c, uint64_t table, bool flags)
{
    struct qcow2 *q = c->q;
    if (image_read(q->file, c->table, table, q->cluster_size)) {
        c->check->errors++;
        return;
    }
    for (uint64_t i = 0; i < q->cluster_size >> q->entry_bits; i++) {
        uint64_t entry = qcow2_entry(q, c->table, i);
        enum qcow2_kind kind = entry ? qcow2_kind(q, entry) : QCOW2_UNALLOCATED;
        if (!entry)
            continue;
        if (!flags)
            count_entry(c, entry);
        else if (!q->external && (kind == QCOW2_NORMAL || kind == QCOW2_ZERO_ALLOCATED) &&
                 !check_flag(c, entry, table + (i << q->entry_bits),
                             "a wrong ownership flag of a data cluster"))
            fix_flag(c, table + (i << q->entry_bits), entry ^ QCOW2_COPIED);
    }
}

static void walk_l1(struct counting *c, const uint64_t *l1, uint32_t size, uint64_t l1_offset,
                    bool flags)
{
    struct qcow2 *q = c->q;
    memset(c->visited, 0, BITMAP_WORDS(c->clusters) * 8);
    if (!flags)
        refer(c, l1_offset, (uint64_t)size * 8, "an L1 table beyond the end of the file");
    for (uint32_t i = 0; i < size; i++) {
        uint64_t table = l1[i] & QCOW2_OFFSET_MASK;
        if (!table)
            continue;
        if (table % q->cluster_size || !range_within(table, q->cluster_size, image_size(q->file))) {
            if (!flags)
                corrupt(c, "an L2 table that cannot be there", table);
            continue;
        }
        if (!flags)
            refer(c, table, q->cluster_size, "an L2 table beyond the end of the file");
        else if (!check_flag(c, l1[i], l1_offset + (uint64_t)i * 8,
                             "a wrong ownership flag of an L2 table")) {
            q->l1[i] ^= QCOW2_COPIED;
            fix_flag(c, l1_offset + (uint64_t)i * 8, q->l1[i]);
        }
        if (bitmap_test(c->visited, table >> q->cluster_bits)) {
            if (!flags)
                corrupt(c, "an L2 table that is used twice", table);
            continue;
        }
        bitmap_set(c->visited, table >> q->cluster_bits);
        walk_l2(c, table, flags);
    }
}

static void walk_snapshots(struct counting *c)
{
    struct qcow2 *q = c->q;
    c->active = false;
    for (uint32_t i = 0; i < q->snapshot_count; i++) {
        const struct qcow2_snapshot *snapshot = &q->snapshot[i];
        uint64_t *l1 = calloc((size_t)snapshot->l1_size + 1, 8);
        if (!l1 || image_read(q->file, l1, snapshot->l1_offset, (uint64_t)snapshot->l1_size * 8)) {
            c->check->errors++;
        } else {
            for (uint32_t k = 0; k < snapshot->l1_size; k++)
                l1[k] = get_be64(&l1[k]);
            walk_l1(c, l1, snapshot->l1_size, snapshot->l1_offset, false);
        }
        free(l1);
    }
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < q->snapshot_count; i++)
        bytes = ALIGN_UP(bytes, (uint64_t)8) + 40 + q->snapshot[i].extra_size +
                strlen(q->snapshot[i].say.id) + strlen(q->snapshot[i].say.name);
    if (q->snapshot_count)
        refer(c, q->snapshots_offset, bytes, "a snapshot table beyond the end of the file");
}

static int refer_bitmap(void *opaque, uint64_t offset, uint64_t length)
{
    refer(opaque, offset, length, "a dirty bitmap beyond the end of the file");
    return 0;
}

static void walk_refs(struct counting *c)
{
    struct qcow2 *q = c->q;
    if (q->crypt_method)
        refer(c, q->crypt_at, q->crypt_size, "an encryption header beyond the end of the file");
    refer(c, q->reftable_offset, (uint64_t)q->reftable_size * 8,
          "a reference table beyond the end of the file");
    for (uint32_t i = 0; i < q->reftable_size; i++) {
        uint64_t block = q->reftable[i] & QCOW2_OFFSET_MASK;
        if (block % q->cluster_size)
            corrupt(c, "a reference block that is not aligned", block);
        else if (block)
            refer(c, block, q->cluster_size, "a reference block beyond the end of the file");
    }
}

static void set_count(struct counting *c, uint64_t cluster, uint64_t counted, bool leak)
{
    uint64_t covered = c->q->cluster_bits + 3 - c->q->refcount_order, after;
    uint64_t index = cluster >> covered;
    bool block = index < c->q->reftable_size && (c->q->reftable[index] & QCOW2_OFFSET_MASK);
    if (!c->repair || !block || counted > qcow2_ref_max(c->q))
        return;
    if (qcow2_ref_set(c->q, cluster, counted) || qcow2_ref_get(c->q, cluster, &after) ||
        after != counted) {
        c->check->errors++;
        return;
    }
    *(leak ? &c->check->leaks : &c->check->corruptions) -= 1;
    *(leak ? &c->check->leaks_fixed : &c->check->corruptions_fixed) += 1;
}

static void compare(struct counting *c)
{
    uint64_t before = c->check->corruptions + c->check->leaks;
    for (uint64_t i = 0; i < c->clusters; i++) {
        uint64_t count;
        if (qcow2_ref_get(c->q, i, &count)) {
            c->check->errors++;
            continue;
        }
        if (count || c->count[i])
            c->check->end_offset = (i + 1) << c->q->cluster_bits;
        if (count == c->count[i])
            continue;
        bool leak = count > c->count[i];
        *(leak ? &c->check->leaks : &c->check->corruptions) += 1;
        if (before++ < 100)
            image_check_say(c->check, "%s cluster %llu refcount=%llu reference=%u",
                            leak ? "Leaked" : "ERROR", (unsigned long long)i,
                            (unsigned long long)count, c->count[i]);
        set_count(c, i, c->count[i], leak);
    }
}

static struct err *finish_repair(struct counting *c)
{
    struct qcow2 *q = c->q;
    int result = qcow2_write_refs(q);
    if (!result)
        qcow2_forget(q, 1, INT64_MAX); /* flags were written beside the slices in memory */
    q->hint = 0;
    q->pack_next = 0;
    if (!result)
        result = qcow2_sync(q);
    if (!result && !c->check->corruptions && !c->check->errors)
        result = qcow2_set_incompatible(q, q->incompatible &
                                               ~(QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT));
    return result ? err_errno(-result, "cannot write what was repaired") : NULL;
}

struct err *qcow2_check(struct image *image, bool repair, struct image_check *check)
{
    struct qcow2 *q = image->state;
    struct counting c = {.q = q, .check = check, .repair = repair, .active = true};
    if (image->writable && qcow2_flush_all(q))
        return err_new("cannot write its tables");
    c.clusters = (image_size(q->file) + q->cluster_size - 1) >> q->cluster_bits;
    if (c.clusters > CLUSTERS_MAX)
        return err_new("the file is too large to be checked");
    c.count = calloc(c.clusters, sizeof(*c.count));
    c.visited = calloc(BITMAP_WORDS(c.clusters), 8);
    c.table = malloc(q->cluster_size);
    struct err *err = NULL;
    if (!c.count || !c.visited || !c.table) {
        err = err_new("no memory to count its %llu clusters", (unsigned long long)c.clusters);
    } else {
        check->total_clusters = (image->size + q->cluster_size - 1) >> q->cluster_bits;
        refer(&c, 0, q->cluster_size, "the header");
        walk_l1(&c, q->l1, q->l1_size, q->l1_offset, false);
        walk_snapshots(&c);
        walk_refs(&c);
        if (qcow2_bitmaps_ranges(q, true, refer_bitmap, &c))
            check->errors++;
        compare(&c);
        c.active = true;
        walk_l1(&c, q->l1, q->l1_size, q->l1_offset, true);
        if (repair)
            err = finish_repair(&c);
    }
    free(c.count);
    free(c.visited);
    free(c.table);
    return err;
}
