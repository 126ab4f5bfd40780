/*
 * qcow2: internal snapshots: a copy of the L1 table and one more reference to all below it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/checked.h"
#include "base/clock.h"
#include "block/format/qcow2.h"

#define ENTRY_HEAD 40u
#define EXTRA_KNOWN 24u
#define TABLE_MAX MIB(64)

static struct err *load_one(struct qcow2 *q, struct qcow2_snapshot *snapshot, uint64_t *at)
{
    uint8_t head[ENTRY_HEAD], extra[EXTRA_KNOWN] = {0};
    int result = image_read(q->file, head, *at, sizeof(head));
    if (result || !range_within(*at, sizeof(head), image_size(q->file)))
        return err_new("its snapshot table lies beyond the end of the file");
    uint16_t id = get_be16(head + 12), name = get_be16(head + 14);
    snapshot->l1_offset = get_be64(head);
    snapshot->l1_size = get_be32(head + 8);
    snapshot->extra_size = get_be32(head + 36);
    snapshot->say.date_s = get_be32(head + 16);
    snapshot->say.date_ns = get_be32(head + 20);
    snapshot->say.vm_clock_ns = get_be64(head + 24);
    snapshot->say.vm_state_size = get_be32(head + 32);
    snapshot->say.disk_size = q->image->size;
    if (snapshot->extra_size > 1024 || id >= sizeof(snapshot->say.id) ||
        name >= sizeof(snapshot->say.name))
        return err_new("a snapshot's name or data are too long");
    if (snapshot->l1_size > QCOW2_L1_MAX / 8 || snapshot->l1_offset % q->cluster_size ||
        !range_within(snapshot->l1_offset, (uint64_t)snapshot->l1_size * 8, image_size(q->file)))
        return err_new("a snapshot's L1 table cannot be there");
    *at += ENTRY_HEAD;
    result = image_read(q->file, extra, *at, MIN(snapshot->extra_size, EXTRA_KNOWN));
    if (snapshot->extra_size >= 8)
        snapshot->say.vm_state_size = get_be64(extra);
    if (snapshot->extra_size >= 16)
        snapshot->say.disk_size = get_be64(extra + 8);
    snapshot->extra = xcalloc(1, snapshot->extra_size + 1);
    if (!result)
        result = image_read(q->file, snapshot->extra, *at, snapshot->extra_size);
    *at += snapshot->extra_size;
    if (!result)
        result = image_read(q->file, snapshot->say.id, *at, id);
    *at += id;
    if (!result)
        result = image_read(q->file, snapshot->say.name, *at, name);
    *at = ALIGN_UP(*at + name, (uint64_t)8);
    return result ? err_errno(-result, "cannot read its snapshot table") : NULL;
}

struct err *qcow2_snapshots_load(struct qcow2 *q)
{
    uint32_t count = q->snapshot_count;
    uint64_t at = q->snapshots_offset;
    q->snapshot_count = 0;
    if (!count)
        return NULL;
    if (count > QCOW2_SNAPSHOTS_MAX)
        return err_new("it has %u snapshots; %u are the most", count, QCOW2_SNAPSHOTS_MAX);
    if (at % q->cluster_size ||
        !range_within(at, (uint64_t)count * ENTRY_HEAD, image_size(q->file)))
        return err_new("its snapshot table cannot be there");
    q->snapshot = xcalloc(count, sizeof(*q->snapshot));
    for (; q->snapshot_count < count; q->snapshot_count++) {
        struct err *err = load_one(q, &q->snapshot[q->snapshot_count], &at);
        if (err) {
            q->snapshot_count++; /* its parts are freed with the others */
            return err;
        }
    }
    return NULL;
}

void qcow2_snapshots_free(struct qcow2 *q)
{
    for (uint32_t i = 0; q->snapshot && i < q->snapshot_count; i++)
        free(q->snapshot[i].extra);
    free(q->snapshot);
}

unsigned qcow2_snapshot_count(const struct image *image)
{
    return ((const struct qcow2 *)image->state)->snapshot_count;
}

void qcow2_snapshot_get(const struct image *image, unsigned index, struct image_snapshot *out)
{
    *out = ((const struct qcow2 *)image->state)->snapshot[index].say;
}

static int find(const struct qcow2 *q, const char *name)
{
    for (unsigned pass = 0; pass < 2; pass++) /* an id first, as qemu-img does */
        for (uint32_t i = 0; i < q->snapshot_count; i++)
            if (!strcmp(pass ? q->snapshot[i].say.name : q->snapshot[i].say.id, name))
                return (int)i;
    return -1;
}

static uint64_t table_bytes(const struct qcow2_snapshot *snapshot, uint32_t count)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < count; i++)
        bytes = ALIGN_UP(bytes + ENTRY_HEAD + snapshot[i].extra_size + strlen(snapshot[i].say.id) +
                             strlen(snapshot[i].say.name),
                         (uint64_t)8);
    return bytes;
}

static void fill_table(uint8_t *at, const struct qcow2_snapshot *snapshot, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++, snapshot++) {
        size_t id = strlen(snapshot->say.id), name = strlen(snapshot->say.name);
        uint8_t *start = at;
        put_be64(at, snapshot->l1_offset);
        put_be32(at + 8, snapshot->l1_size);
        put_be16(at + 12, (uint16_t)id);
        put_be16(at + 14, (uint16_t)name);
        put_be32(at + 16, (uint32_t)snapshot->say.date_s);
        put_be32(at + 20, snapshot->say.date_ns);
        put_be64(at + 24, snapshot->say.vm_clock_ns);
        put_be32(at + 32, snapshot->extra_size >= 8 ? 0 : (uint32_t)snapshot->say.vm_state_size);
        put_be32(at + 36, snapshot->extra_size);
        at += ENTRY_HEAD;
        memcpy(at, snapshot->extra, snapshot->extra_size);
        at += snapshot->extra_size;
        memcpy(at, snapshot->say.id, id);
        memcpy(at + id, snapshot->say.name, name);
        at = start + ALIGN_UP((size_t)(at + id + name - start), (size_t)8);
    }
}

/* Writes a table with these snapshots and lets the header name it; the old one is gone. */
static int store_table(struct qcow2 *q, const struct qcow2_snapshot *snapshot, uint32_t count)
{
    uint64_t bytes = table_bytes(snapshot, count), at = 0;
    uint64_t clusters = (bytes + q->cluster_size - 1) >> q->cluster_bits;
    uint64_t old = q->snapshots_offset;
    uint64_t old_bytes = table_bytes(q->snapshot, q->snapshot_count);
    int result = bytes > TABLE_MAX ? -EFBIG : 0;
    if (clusters && !result) {
        uint8_t *table = calloc(clusters, q->cluster_size);
        result = table ? qcow2_alloc_run(q, clusters, &at) : -ENOMEM;
        if (!result) {
            fill_table(table, snapshot, count);
            result = image_write(q->file, table, at, clusters << q->cluster_bits);
        }
        free(table);
    }
    if (!result)
        result = qcow2_flush_all(q);
    uint8_t header[12];
    put_be32(header, count);
    put_be64(header + 4, at);
    if (!result)
        result = qcow2_header_write(q, 60, header, sizeof(header));
    if (result)
        return result;
    q->snapshots_offset = at;
    for (uint64_t i = 0; i < old_bytes && !result; i += q->cluster_size)
        result = qcow2_gone(q, old + i);
    return result;
}

static int read_l1(struct qcow2 *q, uint64_t offset, uint32_t size, uint64_t **l1)
{
    *l1 = calloc((size_t)size + 1, 8);
    int result = *l1 ? image_read(q->file, *l1, offset, (uint64_t)size * 8) : -ENOMEM;
    for (uint32_t i = 0; i < size && !result; i++)
        (*l1)[i] = get_be64(&(*l1)[i]);
    return result;
}

static int change_entry(struct qcow2 *q, uint64_t entry, int delta)
{
    uint64_t at, length;
    int result = 0;
    if (delta < 0)
        return qcow2_gone_entry(q, entry);
    switch (qcow2_kind(q, entry)) {
    case QCOW2_NORMAL:
    case QCOW2_ZERO_ALLOCATED:
        return qcow2_ref_add(q, (entry & QCOW2_OFFSET_MASK) >> q->cluster_bits, 1);
    case QCOW2_PACKED:
        qcow2_packed_range(q, entry, &at, &length);
        for (uint64_t i = at >> q->cluster_bits; i <= (at + length - 1) >> q->cluster_bits; i++) {
            result = qcow2_ref_add(q, i, 1);
            if (result)
                return result;
        }
        return 0;
    default:
        return 0;
    }
}

/* One reference more or less to every L2 table of an L1 table and to all that they name. */
static int change_tree(struct qcow2 *q, const uint64_t *l1, uint32_t size, int delta)
{
    uint8_t *table = malloc(q->cluster_size);
    int result = table ? 0 : -ENOMEM;
    for (uint32_t i = 0; i < size && !result; i++) {
        uint64_t at = l1[i] & QCOW2_OFFSET_MASK;
        if (!at)
            continue;
        if (at % q->cluster_size || !range_within(at, q->cluster_size, image_size(q->file)))
            result = -EIO;
        if (!result)
            result = image_read(q->file, table, at, q->cluster_size);
        for (uint64_t k = 0; k < q->cluster_size >> q->entry_bits && !result; k++)
            result = change_entry(q, qcow2_entry(q, table, k), delta);
        if (!result)
            result = delta < 0 ? qcow2_gone(q, at) : qcow2_ref_add(q, at >> q->cluster_bits, 1);
    }
    free(table);
    return result;
}

/* Is the entry's flag of sole ownership to be turned? */
static int wrong_flag(struct qcow2 *q, uint64_t entry, bool *wrong)
{
    uint64_t count;
    int result = qcow2_ref_get(q, (entry & QCOW2_OFFSET_MASK) >> q->cluster_bits, &count);
    *wrong = (count == 1) != !!(entry & QCOW2_COPIED);
    return result;
}

static int set_table_flags(struct qcow2 *q, uint64_t table, uint8_t *bytes)
{
    bool changed = false, wrong;
    int result = image_read(q->file, bytes, table, q->cluster_size);
    for (uint64_t k = 0; k < q->cluster_size >> q->entry_bits && !result; k++) {
        uint64_t entry = qcow2_entry(q, bytes, k);
        enum qcow2_kind kind = qcow2_kind(q, entry);
        if (kind != QCOW2_NORMAL && kind != QCOW2_ZERO_ALLOCATED)
            continue;
        result = wrong_flag(q, entry, &wrong);
        if (!result && wrong) {
            put_be64(bytes + (k << q->entry_bits), entry ^ QCOW2_COPIED);
            changed = true;
        }
    }
    return !result && changed ? image_write(q->file, bytes, table, q->cluster_size) : result;
}

/* Sets the flags of the active tables to what the counts say. Everything is written before. */
static int set_flags(struct qcow2 *q)
{
    uint8_t *bytes = malloc(q->cluster_size);
    int result = bytes ? 0 : -ENOMEM;
    for (uint32_t i = 0; i < q->l1_size && !result; i++) {
        uint64_t table = q->l1[i] & QCOW2_OFFSET_MASK;
        bool wrong;
        if (!table)
            continue;
        result = set_table_flags(q, table, bytes);
        if (!result)
            result = wrong_flag(q, q->l1[i], &wrong);
        if (!result && wrong) {
            q->l1[i] ^= QCOW2_COPIED;
            result = qcow2_write_l1_entry(q, i);
        }
    }
    qcow2_forget(q, 1, INT64_MAX); /* all clean; the L2 slices are older than the file */
    free(bytes);
    return result ? result : qcow2_sync(q);
}

/* Counts, then flags, in the file. */
static int settle(struct qcow2 *q)
{
    int result = qcow2_flush_all(q);
    if (!result)
        result = qcow2_write_refs(q);
    return result ? result : set_flags(q);
}

static int write_l1_copy(struct qcow2 *q, const uint64_t *l1, uint32_t size, uint64_t *offset)
{
    uint64_t clusters = ((uint64_t)size * 8 + q->cluster_size - 1) >> q->cluster_bits;
    *offset = 0;
    if (!clusters)
        return 0;
    uint8_t *bytes = calloc(clusters, q->cluster_size);
    int result = bytes ? qcow2_alloc_run(q, clusters, offset) : -ENOMEM;
    for (uint32_t i = 0; i < size && !result; i++)
        put_be64(bytes + (uint64_t)i * 8, l1[i] & ~QCOW2_COPIED);
    if (!result)
        result = image_write(q->file, bytes, *offset, clusters << q->cluster_bits);
    free(bytes);
    return result;
}

/*
 * Counts and the flags of sole ownership cannot change at the same moment: while they do not agree
 * the image is marked dirty, which makes the next writer put them right. A change that fails leaves
 * the mark. (Version 2 has none: there a cut may leave wrong flags, over clusters that leak.)
 */
static int begin_change(struct qcow2 *q)
{
    int result = qcow2_flush_all(q);
    if (!result)
        result = qcow2_set_incompatible(q, q->incompatible | QCOW2_INCOMPAT_DIRTY);
    q->lazy_dirty = false; /* closing it does not take this mark away */
    return result;
}

static void describe(struct qcow2 *q, struct qcow2_snapshot *snapshot, const char *name)
{
    uint64_t now = clock_wall_ns(), last = 0;
    for (uint32_t i = 0; i < q->snapshot_count; i++) {
        uint64_t id = strtoull(q->snapshot[i].say.id, NULL, 10);
        last = MAX(last, id);
    }
    snprintf(snapshot->say.id, sizeof(snapshot->say.id), "%llu", (unsigned long long)last + 1);
    snprintf(snapshot->say.name, sizeof(snapshot->say.name), "%s", name);
    snapshot->say.date_s = now / NSEC_PER_SEC;
    snapshot->say.date_ns = (uint32_t)(now % NSEC_PER_SEC);
    snapshot->say.disk_size = q->image->size;
    snapshot->extra_size = EXTRA_KNOWN;
    snapshot->extra = xcalloc(1, EXTRA_KNOWN);
    put_be64(snapshot->extra + 8, q->image->size);
    memset(snapshot->extra + 16, 0xff, 8); /* no instruction count */
}

struct err *qcow2_snapshot_create(struct image *image, const char *name)
{
    struct qcow2 *q = image->state;
    if (!name[0] || strlen(name) >= sizeof(q->snapshot->say.name))
        return err_of(ERR_USAGE, "a snapshot's name has 1 to 255 bytes");
    if (q->external)
        return err_new("an image whose data is in an external file has no snapshots");
    if (find(q, name) >= 0)
        return err_new("there is a snapshot '%s' already", name);
    if (q->snapshot_count == QCOW2_SNAPSHOTS_MAX)
        return err_new("it has as many snapshots as are possible");
    q->snapshot = xrealloc(q->snapshot, q->snapshot_count + 1, sizeof(*q->snapshot));
    struct qcow2_snapshot *snapshot = &q->snapshot[q->snapshot_count];
    *snapshot = (struct qcow2_snapshot){.l1_size = q->l1_size};
    describe(q, snapshot, name);
    int result = begin_change(q);
    if (!result)
        result = change_tree(q, q->l1, q->l1_size, 1);
    if (!result)
        result = write_l1_copy(q, q->l1, q->l1_size, &snapshot->l1_offset);
    if (!result)
        result = settle(q);
    if (!result)
        result = store_table(q, q->snapshot, q->snapshot_count + 1);
    if (result) {
        free(snapshot->extra);
        return err_errno(-result, "cannot make the snapshot");
    }
    q->snapshot_count++;
    result = qcow2_set_clean(q);
    return result ? err_errno(-result, "cannot mark it clean") : NULL;
}

struct err *qcow2_snapshot_delete(struct image *image, const char *name)
{
    struct qcow2 *q = image->state;
    int index = find(q, name);
    if (index < 0)
        return err_new("there is no snapshot '%s'", name);
    struct qcow2_snapshot gone = q->snapshot[index];
    struct qcow2_snapshot *rest = xcalloc(q->snapshot_count, sizeof(*rest));
    memcpy(rest, q->snapshot, sizeof(*rest) * (size_t)index);
    memcpy(rest + index, q->snapshot + index + 1,
           sizeof(*rest) * (q->snapshot_count - (size_t)index - 1));
    uint64_t *l1 = NULL;
    int result = begin_change(q);
    if (!result)
        result = read_l1(q, gone.l1_offset, gone.l1_size, &l1);
    if (!result)
        result = store_table(q, rest, q->snapshot_count - 1);
    if (result) {
        free(l1);
        free(rest);
        return err_errno(-result, "cannot delete the snapshot");
    }
    free(q->snapshot);
    q->snapshot = rest;
    q->snapshot_count--;
    result = change_tree(q, l1, gone.l1_size, -1);
    for (uint64_t i = 0; i < (uint64_t)gone.l1_size * 8 && !result; i += q->cluster_size)
        result = qcow2_gone(q, gone.l1_offset + i);
    if (!result)
        result = settle(q);
    if (!result)
        result = qcow2_set_clean(q);
    free(l1);
    free(gone.extra);
    return result ? err_errno(-result, "cannot free what the snapshot held") : NULL;
}

/* The header names another L1 table. */
static int switch_l1(struct qcow2 *q, uint64_t offset, uint32_t size, uint64_t disk_size)
{
    uint8_t header[24];
    int result = image_read(q->file, header, 24, sizeof(header));
    put_be64(header, disk_size);
    put_be32(header + 12, size);
    put_be64(header + 16, offset);
    return result ? result : qcow2_header_write(q, 24, header, sizeof(header));
}

struct err *qcow2_snapshot_apply(struct image *image, const char *name)
{
    struct qcow2 *q = image->state;
    int index = find(q, name);
    if (index < 0)
        return err_new("there is no snapshot '%s'", name);
    const struct qcow2_snapshot *snapshot = &q->snapshot[index];
    uint64_t *l1, covers = 1ull << qcow2_table_bits(q), offset = 0;
    if (snapshot->say.disk_size > covers * snapshot->l1_size)
        return err_new("the snapshot's disk is larger than its tables");
    int result = begin_change(q);
    if (!result)
        result = read_l1(q, snapshot->l1_offset, snapshot->l1_size, &l1);
    else
        l1 = NULL;
    if (!result)
        result = change_tree(q, l1, snapshot->l1_size, 1);
    if (!result)
        result = write_l1_copy(q, l1, snapshot->l1_size, &offset);
    if (!result)
        result = qcow2_flush_all(q);
    if (!result)
        result = switch_l1(q, offset, snapshot->l1_size, snapshot->say.disk_size);
    if (result) {
        free(l1);
        return err_errno(-result, "cannot apply the snapshot");
    }
    uint64_t *old = q->l1, old_offset = q->l1_offset;
    uint32_t old_size = q->l1_size;
    q->l1 = l1;
    q->l1_size = snapshot->l1_size;
    q->l1_offset = offset;
    image->size = snapshot->say.disk_size;
    for (uint32_t i = 0; i < q->l1_size; i++)
        q->l1[i] &= ~QCOW2_COPIED;
    qcow2_forget(q, 1, INT64_MAX);
    result = change_tree(q, old, old_size, -1);
    for (uint64_t i = 0; i < (uint64_t)old_size * 8 && !result; i += q->cluster_size)
        result = qcow2_gone(q, old_offset + i);
    if (!result)
        result = settle(q);
    if (!result)
        result = qcow2_set_clean(q);
    free(old);
    return result ? err_errno(-result, "cannot free what was before") : NULL;
}

struct err *qcow2_snapshot_load(struct image *image, const char *name)
{
    struct qcow2 *q = image->state;
    int index = find(q, name);
    if (index < 0)
        return err_new("there is no snapshot '%s'", name);
    const struct qcow2_snapshot *snapshot = &q->snapshot[index];
    uint64_t *l1, covers = 1ull << qcow2_table_bits(q);
    if (snapshot->say.disk_size > covers * snapshot->l1_size)
        return err_new("the snapshot's disk is larger than its tables");
    int result = read_l1(q, snapshot->l1_offset, snapshot->l1_size, &l1);
    if (result) {
        free(l1);
        return err_errno(-result, "cannot read the snapshot's table");
    }
    free(q->l1);
    q->l1 = l1;
    q->l1_size = snapshot->l1_size;
    q->l1_offset = snapshot->l1_offset;
    image->size = snapshot->say.disk_size;
    return NULL;
}
