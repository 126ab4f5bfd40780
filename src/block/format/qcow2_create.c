/*
 * qcow2: new images, and growing ones.
 *
 * A new image is: header, reference table, one reference block, L1 table. The header is written
 * last.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "block/format/qcow2.h"

#define HEADER_LENGTH 112u
#define EXT_BACKING_FORMAT 0xe2792acau

const char *const qcow2_create_options[] = {"compat",
                                            "cluster_size",
                                            "refcount_bits",
                                            "lazy_refcounts",
                                            "compression_type",
                                            "preallocation",
                                            "extended_l2",
                                            "data_file",
                                            "data_file_raw",
                                            "encrypt.format",
                                            "encrypt.key-secret",
                                            "encrypt.cipher-alg",
                                            "encrypt.cipher-mode",
                                            "encrypt.ivgen-alg",
                                            "encrypt.hash-alg",
                                            "encrypt.iter-time",
                                            "backing_file",
                                            "backing_fmt",
                                            NULL};

struct plan {
    unsigned version, cluster_bits, refcount_order, compression, entry_bits;
    bool lazy, data_raw;
    enum { ALLOCATE_NOTHING, ALLOCATE_METADATA, ALLOCATE_ROOM, ALLOCATE_ZEROS } preallocation;
    const char *data_file; /* NULL: none */
    uint64_t crypt_at;
    size_t crypt_size; /* 0: not encrypted */
    uint64_t size, l1_entries;
};

/* A number with an optional k, M. */
static bool number(const char *text, uint64_t *value)
{
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    *value = strtoull(text, &end, 10);
    if (*end == 'k' || *end == 'K')
        *value <<= 10, end++;
    else if (*end == 'm' || *end == 'M')
        *value <<= 20, end++;
    return !*end;
}

static struct err *choose_preallocation(const struct image_create *create, struct plan *plan)
{
    static const char *const names[] = {"off", "metadata", "falloc", "full"};
    const char *text = image_create_value(create, "preallocation");
    unsigned how = 0;
    while (text && how < ARRAY_SIZE(names) && strcmp(text, names[how]))
        how++;
    if (how == ARRAY_SIZE(names))
        return err_of(ERR_USAGE, "preallocation is off, metadata, falloc or full, not '%s'", text);
    plan->preallocation = how;
    if (how && (create->backing_name || plan->entry_bits == 4 ||
                image_create_value(create, "encrypt.format")))
        return err_of(ERR_USAGE, "preallocation goes neither with a backing file, which it would "
                                 "hide, nor with extended_l2, nor with encryption");
    return NULL;
}

static struct err *choose(const struct image_create *create, struct plan *plan)
{
    const char *text;
    uint64_t value;
    *plan = (struct plan){.version = 3, .cluster_bits = 16, .refcount_order = 4, .entry_bits = 3};
    plan->size = ALIGN_UP(create->size, (uint64_t)IMAGE_SECTOR);
    if ((text = image_create_value(create, "compat"))) {
        if (!strcmp(text, "0.10") || !strcmp(text, "v2"))
            plan->version = 2;
        else if (strcmp(text, "1.1") && strcmp(text, "v3"))
            return err_of(ERR_USAGE, "compat is 0.10 or 1.1, not '%s'", text);
    }
    if ((text = image_create_value(create, "cluster_size"))) {
        if (!number(text, &value) || !is_power_of_2(value) || value < 512 || value > MIB(2))
            return err_of(ERR_USAGE, "cluster_size is a power of two from 512 to 2M, not '%s'",
                          text);
        plan->cluster_bits = (unsigned)__builtin_ctzll(value);
    }
    if ((text = image_create_value(create, "refcount_bits"))) {
        if (!number(text, &value) || !is_power_of_2(value) || value > 64)
            return err_of(ERR_USAGE, "refcount_bits is a power of two up to 64, not '%s'", text);
        plan->refcount_order = (unsigned)__builtin_ctzll(value);
    }
    if ((text = image_create_value(create, "compression_type"))) {
        plan->compression = !strcmp(text, "zstd");
        if (!plan->compression && strcmp(text, "zlib"))
            return err_of(ERR_USAGE, "compression_type is zlib or zstd, not '%s'", text);
    }
    if ((text = image_create_value(create, "lazy_refcounts")))
        plan->lazy = !strcmp(text, "on") || !strcmp(text, "true");
    if ((text = image_create_value(create, "extended_l2")) &&
        (!strcmp(text, "on") || !strcmp(text, "true"))) {
        plan->entry_bits = 4;
        if (plan->version == 2 || plan->cluster_bits < 14)
            return err_of(ERR_USAGE, "extended_l2 needs compat 1.1 and clusters of 16k or more");
    }
    plan->data_file = image_create_value(create, "data_file");
    if ((text = image_create_value(create, "data_file_raw")))
        plan->data_raw = !strcmp(text, "on") || !strcmp(text, "true");
    if (plan->data_raw && (!plan->data_file || create->backing_name))
        return err_of(ERR_USAGE, "data_file_raw needs a data_file and bears no backing file");
    if (plan->data_file && (plan->version == 2 || strlen(plan->data_file) > 1023))
        return err_of(ERR_USAGE,
                      "compat 0.10 has no data_file, and its name has at most 1023 bytes");
    if (plan->version == 2 && (plan->refcount_order != 4 || plan->compression || plan->lazy))
        return err_of(ERR_USAGE, "compat 0.10 has 16-bit reference counts, zlib, and no lazy ones");
    TRY(choose_preallocation(create, plan));
    uint64_t covers = 1ull << (2 * plan->cluster_bits - plan->entry_bits);
    plan->l1_entries = plan->size / covers + !!(plan->size % covers);
    if (plan->l1_entries * 8 > QCOW2_L1_MAX)
        return err_of(ERR_USAGE, "that size needs larger clusters");
    return NULL;
}

/* The header's first cluster. */
static struct err *header(const struct plan *plan, const struct image_create *create, uint8_t *out,
                          uint64_t reftable, uint32_t reftable_clusters, uint64_t l1)
{
    uint64_t cluster = 1ull << plan->cluster_bits;
    uint32_t at = plan->version >= 3 ? HEADER_LENGTH : 72;
    put_be32(out, QCOW2_MAGIC);
    put_be32(out + 4, plan->version);
    put_be32(out + 20, plan->cluster_bits);
    put_be64(out + 24, plan->size);
    put_be32(out + 36, (uint32_t)plan->l1_entries);
    put_be64(out + 40, l1);
    put_be64(out + 48, reftable);
    put_be32(out + 56, reftable_clusters);
    if (plan->version >= 3) {
        put_be64(out + 72, (plan->compression ? QCOW2_INCOMPAT_COMPRESSION : 0) |
                               (plan->data_file ? QCOW2_INCOMPAT_DATA_FILE : 0) |
                               (plan->entry_bits == 4 ? QCOW2_INCOMPAT_EXTENDED_L2 : 0));
        put_be64(out + 88, plan->data_raw ? QCOW2_AUTOCLEAR_RAW_DATA : 0);
        put_be64(out + 80, plan->lazy ? QCOW2_COMPAT_LAZY : 0);
        put_be32(out + 96, plan->refcount_order);
        put_be32(out + 100, HEADER_LENGTH);
        out[104] = (uint8_t)plan->compression;
    }
    if (create->backing_name && create->backing_format) {
        uint32_t length = (uint32_t)strlen(create->backing_format);
        if (length > 16)
            return err_of(ERR_USAGE, "the backing format's name is too long");
        put_be32(out + at, EXT_BACKING_FORMAT);
        put_be32(out + at + 4, length);
        memcpy(out + at + 8, create->backing_format, length);
        at += 8 + ALIGN_UP(length, 8u);
    }
    if (plan->data_file) {
        uint32_t length = (uint32_t)strlen(plan->data_file);
        if (at + 24 + length > cluster)
            return err_of(ERR_USAGE, "the data file's name is too long for such clusters");
        put_be32(out + at, QCOW2_EXT_DATA_FILE);
        put_be32(out + at + 4, length);
        memcpy(out + at + 8, plan->data_file, length);
        at += 8 + ALIGN_UP(length, 8u);
    }
    if (plan->crypt_size) {
        if (at + 32 > cluster)
            return err_of(ERR_USAGE, "the header is too long for such clusters");
        put_be32(out + 32, QCOW2_CRYPT_LUKS);
        put_be32(out + at, QCOW2_EXT_CRYPTO);
        put_be32(out + at + 4, 16);
        put_be64(out + at + 8, plan->crypt_at);
        put_be64(out + at + 16, plan->crypt_size);
        at += 24;
    }
    at += 8; /* the end mark: zeros */
    if (create->backing_name) {
        size_t length = strlen(create->backing_name);
        if (length > 1023 || at + length > cluster)
            return err_of(ERR_USAGE, "the backing file's name is too long");
        put_be64(out + 8, at);
        put_be32(out + 16, (uint32_t)length);
        memcpy(out + at, create->backing_name, length);
    }
    return NULL;
}

static void set_count(uint8_t *blocks, unsigned order, uint64_t cluster)
{
    if (order < 3)
        blocks[(cluster << order) / 8] |= (uint8_t)(1u << ((cluster << order) % 8));
    else /* big-endian: one is in the last byte */
        blocks[((cluster + 1) << (order - 3)) - 1] = 1;
}

static struct err *create_data(const struct plan *plan, const struct image_files *files)
{
    struct image *data;
    if (!files || !files->create)
        return err_new("its data file cannot be made here");
    TRY(err_wrap(files->create(files->opaque, plan->data_file, &data), "data file '%s'",
                 plan->data_file));
    int result = image_truncate(data, plan->size);
    int closed = image_close(data);
    result = result ? result : closed;
    return result ? err_errno(-result, "cannot write data file '%s'", plan->data_file) : NULL;
}

/* Everything but the header at first. `crypt`: key slots and their header, or NULL. */
static struct err *write_image(struct image *file, const struct image_create *create,
                               struct plan *plan, const uint8_t *crypt)
{
    uint64_t cluster = 1ull << plan->cluster_bits;
    uint64_t per_block = cluster * 8 >> plan->refcount_order;
    uint64_t l1 = (plan->l1_entries * 8 + cluster - 1) / cluster;
    uint64_t key = (plan->crypt_size + cluster - 1) / cluster;
    uint64_t blocks = 1, tables = 1;
    while (per_block * blocks < 1 + tables + blocks + l1 + key) {
        blocks++;
        tables = (blocks * 8 + cluster - 1) / cluster;
    }
    uint64_t total = 1 + tables + blocks + l1 + key;
    if (tables * cluster > QCOW2_REFTABLE_MAX)
        return err_of(ERR_USAGE, "that size needs larger clusters");
    uint8_t *bytes = calloc(total, cluster);
    if (!bytes)
        return err_new("no memory for its tables");
    for (uint64_t i = 0; i < blocks; i++)
        put_be64(bytes + cluster + i * 8, (1 + tables + i) * cluster);
    for (uint64_t i = 0; i < total; i++)
        set_count(bytes + (1 + tables) * cluster, plan->refcount_order, i);
    plan->crypt_at = (total - key) * cluster;
    if (crypt)
        memcpy(bytes + plan->crypt_at, crypt, plan->crypt_size);
    struct err *err = header(plan, create, bytes, cluster, (uint32_t)tables,
                             l1 ? (1 + tables + blocks) * cluster : (1 + tables) * cluster);
    int result = 0;
    if (!err && !l1) /* an empty disk still names an L1 table */
        put_be64(bytes + 40, 0);
    if (!err)
        result = image_write(file, bytes + cluster, cluster, (total - 1) * cluster);
    if (!err && !result)
        result = image_write(file, bytes, 0, cluster);
    free(bytes);
    return err ? err : result ? err_errno(-result, "cannot write") : NULL;
}

static int write_zeros(struct image *file, uint64_t offset, uint64_t length)
{
    static const uint8_t zeros[KIB(64)];
    int result = 0;
    for (uint64_t at = 0; at < length && !result; at += sizeof(zeros))
        result = image_write(file, zeros, offset + at, MIN(length - at, sizeof(zeros)));
    return result;
}

/* A place for each cluster of a new disk, and in the file what the plan says. */
static int allocate_all(struct qcow2 *q, const struct plan *plan)
{
    uint64_t size = plan->size, end = 0, got = 0, host = 0;
    int result = 0;
    for (uint64_t at = 0; at < size && !result; at += got << q->cluster_bits) {
        bool virgin;
        uint64_t left = (size - at + q->cluster_size - 1) >> q->cluster_bits;
        result = qcow2_place(q, at, MIN(left, GIB(1) >> q->cluster_bits), &host, &got, &virgin);
        if (!result)
            result = qcow2_link(q, at, got, host);
        if (result)
            break;
        uint64_t length = got << q->cluster_bits;
        if (q->external)
            length = MIN(length, size - at);
        if (plan->preallocation == ALLOCATE_ROOM)
            result = image_zero(q->data, host, length, false);
        else if (plan->preallocation == ALLOCATE_ZEROS)
            result = write_zeros(q->data, host, length);
        end = MAX(end, host + length);
    }
    return !result && image_size(q->data) < end ? image_truncate(q->data, end) : result;
}

static struct err *preallocate(struct image *file, const struct image_create *create,
                               const struct plan *plan)
{
    struct image *image = image_new(&image_qcow2, IMAGE_OPEN_WRITABLE | IMAGE_OPEN_SCRATCH);
    image->file = file; /* borrowed */
    struct err *err = image_qcow2.open(image, create->files);
    if (!err) {
        int result = allocate_all(image->state, plan), closed = image_qcow2.close(image);
        result = result ? result : closed;
        err = result ? err_errno(-result, "cannot allocate its clusters") : NULL;
    }
    image_fini(image);
    free(image);
    return err;
}

struct err *qcow2_create(struct image *file, const struct image_create *create)
{
    struct plan plan;
    uint8_t *crypt;
    TRY(choose(create, &plan));
    if (plan.data_file)
        TRY(create_data(&plan, create->files));
    TRY(qcow2_crypt_create(create, &crypt, &plan.crypt_size));
    struct err *err = write_image(file, create, &plan, crypt);
    free(crypt);
    if (!err && plan.preallocation)
        err = preallocate(file, create, &plan);
    return err;
}

/* As if every cluster of the disk were allocated, tables that may be needed included. */
struct err *qcow2_measure(const struct image_create *create, struct image_measure *measure)
{
    struct plan plan;
    TRY(choose(create, &plan));
    uint64_t cluster = 1ull << plan.cluster_bits, per_table = cluster / 8;
    uint64_t data = (plan.size + cluster - 1) >> plan.cluster_bits;
    uint64_t entries = cluster >> plan.entry_bits;
    uint64_t l2 = (data + entries - 1) / entries, l1 = (l2 + per_table - 1) / per_table;
    uint64_t per_block = cluster * 8 >> plan.refcount_order, clusters = 1 + l1 + l2 + data;
    uint64_t blocks = 0, tables = 0, before;
    do { /* the reference blocks count themselves too */
        before = blocks + tables;
        blocks = (clusters + before + per_block - 1) / per_block;
        tables = (blocks + per_table - 1) / per_table;
    } while (blocks + tables != before);
    measure->unit = cluster;
    uint64_t key = image_create_value(create, "encrypt.format") ? MIB(2) >> plan.cluster_bits : 0;
    measure->metadata = (1 + key + l1 + l2 + blocks + tables) << plan.cluster_bits;
    return NULL;
}

static int move_l1(struct qcow2 *q, uint32_t entries)
{
    uint64_t clusters = ((uint64_t)entries * 8 + q->cluster_size - 1) >> q->cluster_bits, at;
    uint64_t *table = calloc(clusters, q->cluster_size);
    uint8_t *bytes = calloc(clusters, q->cluster_size);
    int result = table && bytes ? qcow2_alloc_run(q, clusters, &at) : -ENOMEM;
    if (!result) {
        memcpy(table, q->l1, (size_t)q->l1_size * 8);
        for (uint32_t i = 0; i < q->l1_size; i++)
            put_be64(bytes + (uint64_t)i * 8, q->l1[i]);
        result = image_write(q->file, bytes, at, clusters << q->cluster_bits);
    }
    if (!result)
        result = qcow2_flush_all(q);
    uint8_t header[12];
    put_be32(header, entries);
    if (!result) {
        put_be64(header + 4, at);
        result = qcow2_header_write(q, 36, header, sizeof(header));
    }
    free(bytes);
    if (result) {
        free(table);
        return result;
    }
    uint64_t old = q->l1_offset, old_bytes = (uint64_t)q->l1_size * 8;
    free(q->l1);
    q->l1 = table;
    q->l1_size = entries;
    q->l1_offset = at;
    for (uint64_t i = 0; i < old_bytes && !result; i += q->cluster_size)
        result = qcow2_gone(q, old + i);
    return result;
}

/* What is behind the new end goes, and does not come back when the disk grows again. */
static int cut(struct image *image, uint64_t size)
{
    struct qcow2 *q = image->state;
    uint64_t edge = MIN(ALIGN_UP(size, q->cluster_size), image->size);
    int result = edge > size ? qcow2_zero(image, size, edge - size, false) : 0;
    return result || edge == image->size ? result : qcow2_drop(q, edge, image->size);
}

struct err *qcow2_resize(struct image *image, uint64_t size)
{
    struct qcow2 *q = image->state;
    uint64_t covers = 1ull << qcow2_table_bits(q), before = image->size;
    size = ALIGN_UP(size, (uint64_t)IMAGE_SECTOR);
    uint64_t needed = size / covers + !!(size % covers);
    if (q->snapshot_count && q->version < 3)
        return err_new("an image of version 2 with snapshots cannot change its size");
    if (needed * 8 > QCOW2_L1_MAX)
        return err_new("that size needs larger clusters");
    int result = size < before ? cut(image, size) : 0;
    if (!result && needed > q->l1_size)
        result = move_l1(q, (uint32_t)needed);
    if (!result && q->external && image_size(q->data) < size)
        result = image_truncate(q->data, size);
    /* What the backing image has there must not appear. */
    image->size = size;
    if (!result && size > before && image->backing && image_size(image->backing) > before)
        result = qcow2_zero(image, before, MIN(size, image_size(image->backing)) - before, false);
    if (!result)
        result = qcow2_flush_all(q);
    if (!result)
        result = qcow2_write_header_u64(q, 24, size);
    if (!result && q->external && size < before)
        result = image_truncate(q->data, size);
    if (result)
        image->size = before;
    return result ? err_errno(-result, "cannot write its tables") : NULL;
}
