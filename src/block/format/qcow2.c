/*
 * qcow2: the header, opening and closing. See qcow2.h.
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
#define V3_HEADER 104u
#define L2_CACHE MIB(4)
#define REFS_CACHE MIB(1)
#define EXT_END 0u
#define EXT_BACKING_FORMAT 0xe2792acau
#define EXTENSIONS_MAX 100

int qcow2_header_write(struct qcow2 *q, unsigned at, const void *bytes, size_t length)
{
    int result = image_write(q->file, bytes, at, length);
    return result ? result : qcow2_sync(q);
}

int qcow2_write_header_u64(struct qcow2 *q, unsigned at, uint64_t value)
{
    uint8_t bytes[8];
    put_be64(bytes, value);
    return qcow2_header_write(q, at, bytes, sizeof(bytes));
}

int qcow2_set_incompatible(struct qcow2 *q, uint64_t bits)
{
    if (q->version < 3 || !q->image->writable)
        return 0;
    int result = qcow2_write_header_u64(q, 72, bits);
    if (!result)
        q->incompatible = bits;
    return result;
}

int qcow2_set_clean(struct qcow2 *q)
{
    int result = 0;
    if (q->refs.dirty)
        result = qcow2_write_refs(q);
    if (!result && q->incompatible & QCOW2_INCOMPAT_DIRTY)
        result = qcow2_sync(q);
    if (!result && q->incompatible & QCOW2_INCOMPAT_DIRTY)
        result = qcow2_set_incompatible(q, q->incompatible & ~QCOW2_INCOMPAT_DIRTY);
    q->lazy_dirty = q->lazy_dirty && result;
    return result;
}

static int qcow2_probe(const uint8_t *head, size_t length, uint64_t file_size)
{
    (void)file_size;
    return length >= 8 && get_be32(head) == QCOW2_MAGIC && get_be32(head + 4) >= 2 ? 100 : 0;
}

static struct err *refuse_features(const struct qcow2 *q)
{
    uint64_t known = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT | QCOW2_INCOMPAT_COMPRESSION |
                     QCOW2_INCOMPAT_DATA_FILE | QCOW2_INCOMPAT_EXTENDED_L2;
    if (q->incompatible & ~known)
        return err_new("it needs features that are not known (incompatible bits 0x%llx)",
                       (unsigned long long)(q->incompatible & ~known));
    return NULL;
}

static struct err *read_v3(struct qcow2 *q, const uint8_t *head)
{
    q->incompatible = get_be64(head + 72);
    q->compatible = get_be64(head + 80);
    q->autoclear = get_be64(head + 88);
    q->refcount_order = get_be32(head + 96);
    q->header_length = get_be32(head + 100);
    TRY(refuse_features(q));
    q->entry_bits = q->incompatible & QCOW2_INCOMPAT_EXTENDED_L2 ? 4 : 3;
    if (q->entry_bits == 4 && q->cluster_bits < 14)
        return err_new("its clusters of %llu bytes are too small for subclusters",
                       (unsigned long long)q->cluster_size);
    if (q->refcount_order > 6)
        return err_new("its reference counts have 2^%u bits, more than 64", q->refcount_order);
    if (q->header_length < V3_HEADER || q->header_length > q->cluster_size)
        return err_new("bad header length %u", q->header_length);
    if (q->header_length > 104)
        q->compression = head[104];
    if (q->compression > 1)
        return err_new("unknown compression type %u", q->compression);
    if (!q->compression != !(q->incompatible & QCOW2_INCOMPAT_COMPRESSION))
        return err_new("its compression type contradicts its feature bits");
    return NULL;
}

/* A string of the header, in place of another. */
static struct err *read_text(struct qcow2 *q, uint64_t at, uint32_t length, char **text)
{
    char bytes[1024] = "";
    int result = image_read(q->file, bytes, at, length);
    if (result)
        return err_errno(-result, "cannot read its header");
    free(*text);
    *text = bytes[0] ? xstrdup(bytes) : NULL;
    return NULL;
}

static struct err *read_extensions(struct qcow2 *q, uint64_t end)
{
    uint64_t at = q->header_length;
    for (unsigned i = 0; at + 8 <= end && i < EXTENSIONS_MAX; i++) {
        uint8_t head[8];
        int result = image_read(q->file, head, at, 8);
        if (result)
            return err_errno(-result, "cannot read its header");
        uint32_t type = get_be32(head), length = get_be32(head + 4);
        at += 8;
        if (type == EXT_END)
            return NULL;
        if (!range_within(at, length, end))
            return err_new("a header extension reaches beyond the header");
        if (type == QCOW2_EXT_CRYPTO && length >= 16) {
            uint8_t place[16];
            result = image_read(q->file, place, at, sizeof(place));
            if (result)
                return err_errno(-result, "cannot read its header");
            q->crypt_at = get_be64(place);
            q->crypt_size = get_be64(place + 8);
        }
        if (type == QCOW2_EXT_BITMAPS && length == 24) {
            uint8_t bitmaps[24];
            result = image_read(q->file, bitmaps, at, sizeof(bitmaps));
            if (result)
                return err_errno(-result, "cannot read its header");
            q->bitmap_count = get_be32(bitmaps);
            q->bitmap_size = get_be64(bitmaps + 8);
            q->bitmap_at = get_be64(bitmaps + 16);
        }
        if (type == EXT_BACKING_FORMAT && length < 64)
            TRY(read_text(q, at, length, &q->image->backing_format));
        if (type == QCOW2_EXT_DATA_FILE && length < 1024)
            TRY(read_text(q, at, length, &q->data_name));
        at += ALIGN_UP((uint64_t)length, (uint64_t)8);
    }
    return NULL;
}

static struct err *read_backing(struct qcow2 *q, uint64_t offset, uint32_t length)
{
    if (!offset)
        return NULL;
    if (length > 1023 || !range_within(offset, length, q->cluster_size))
        return err_new("its backing file's name lies outside of the header");
    char name[1024] = "";
    int result = image_read(q->file, name, offset, length);
    if (result)
        return err_errno(-result, "cannot read its backing file's name");
    if (name[0])
        q->image->backing_name = xstrdup(name);
    return NULL;
}

static struct err *read_header(struct qcow2 *q)
{
    uint8_t head[112] = {0};
    int result = image_read(q->file, head, 0, MIN(sizeof(head), image_size(q->file)));
    if (result)
        return err_errno(-result, "cannot read its header");
    if (image_size(q->file) < V2_HEADER || get_be32(head) != QCOW2_MAGIC)
        return err_new("it is not a qcow2 image");
    q->version = get_be32(head + 4);
    if (q->version < 2 || q->version > 3)
        return err_new("bad version %u", q->version);
    q->cluster_bits = get_be32(head + 20);
    if (q->cluster_bits < 9 || q->cluster_bits > 21)
        return err_new("its clusters have 2^%u bytes; 2^9 to 2^21 are possible", q->cluster_bits);
    q->cluster_size = 1ull << q->cluster_bits;
    q->slice_size = (uint32_t)MIN(q->cluster_size, KIB(4));
    q->image->size = get_be64(head + 24);
    q->refcount_order = 4;
    q->entry_bits = 3;
    q->header_length = V2_HEADER;
    if (q->version >= 3)
        TRY(read_v3(q, head));
    q->crypt_method = get_be32(head + 32);
    if (q->crypt_method && q->crypt_method != QCOW2_CRYPT_LUKS)
        return err_new("it is encrypted in a way that is not supported: LUKS is");
    if (q->image->size > INT64_MAX - MIB(4))
        return err_new("its size is beyond what a file can be");
    q->l1_size = get_be32(head + 36);
    q->l1_offset = get_be64(head + 40);
    q->reftable_offset = get_be64(head + 48);
    uint64_t reftable = (uint64_t)get_be32(head + 56) << q->cluster_bits;
    if (!reftable || reftable > QCOW2_REFTABLE_MAX)
        return err_new("its reference table has %llu bytes; 8 MiB are the most",
                       (unsigned long long)reftable);
    q->reftable_size = (uint32_t)(reftable / 8);
    q->snapshot_count = get_be32(head + 60);
    q->snapshots_offset = get_be64(head + 64);
    uint64_t backing = get_be64(head + 8);
    TRY(read_backing(q, backing, get_be32(head + 16)));
    return read_extensions(q, backing && backing > q->header_length ? backing : q->cluster_size);
}

static struct err *read_table(struct qcow2 *q, const char *what, uint64_t offset, uint64_t entries,
                              uint64_t **table)
{
    if (offset % q->cluster_size || (entries && !offset))
        return err_new("its %s is not at the start of a cluster", what);
    if (!range_within(offset, entries * 8, image_size(q->file)))
        return err_new("its %s lies beyond the end of the file", what);
    uint64_t *words = calloc(MAX(entries, (uint64_t)1), 8);
    if (!words)
        return err_new("no memory for its %s", what);
    *table = words;
    int result = image_read(q->file, words, offset, entries * 8);
    if (result)
        return err_errno(-result, "cannot read its %s", what);
    for (uint64_t i = 0; i < entries; i++)
        words[i] = get_be64(&words[i]);
    return NULL;
}

static struct err *read_tables(struct qcow2 *q)
{
    uint64_t covers = 1ull << qcow2_table_bits(q);
    uint64_t needed = q->image->size / covers + !!(q->image->size % covers);
    if (needed > QCOW2_L1_MAX / 8 || q->l1_size > QCOW2_L1_MAX / 8)
        return err_new("its L1 table has %u entries and needs %llu; %llu are the most", q->l1_size,
                       (unsigned long long)needed, (unsigned long long)(QCOW2_L1_MAX / 8));
    if (q->l1_size < needed)
        return err_new("its L1 table is too small for its size");
    TRY(read_table(q, "L1 table", q->l1_offset, q->l1_size, &q->l1));
    TRY(read_table(q, "reference table", q->reftable_offset, q->reftable_size, &q->reftable));
    for (uint32_t i = 0; i < q->reftable_size; i++)
        if (q->reftable[i])
            q->reftable_used = i + 1;
    return qcow2_snapshots_load(q);
}

/* What must be put right before the first write. */
static struct err *prepare_writing(struct qcow2 *q)
{
    if (q->incompatible & QCOW2_INCOMPAT_CORRUPT) {
        q->image->writable = false;
        q->image->readonly_why =
            "it is marked corrupt: repair it with `tenon image check --repair`";
        return NULL;
    }
    if (q->incompatible & QCOW2_INCOMPAT_DIRTY) {
        struct image_check check = {0};
        TRY(err_wrap(qcow2_check(q->image, true, &check), "it was not closed cleanly"));
        if (check.corruptions || check.errors)
            return err_new("it was not closed cleanly and is damaged: see `tenon image check`");
    }
    uint64_t keep = q->autoclear & ((q->bitmap_count ? QCOW2_AUTOCLEAR_BITMAPS : 0) |
                                    (q->external ? QCOW2_AUTOCLEAR_RAW_DATA : 0));
    int result = qcow2_bitmaps_in_use(q);
    if (!result && q->version >= 3 && q->autoclear != keep)
        result = qcow2_write_header_u64(q, 88, keep);
    q->autoclear = keep;
    q->prepared = true;
    return result ? err_errno(-result, "cannot write its header") : NULL;
}

static struct err *open_data(struct qcow2 *q, const struct image_files *files)
{
    if (!(q->incompatible & QCOW2_INCOMPAT_DATA_FILE))
        return NULL;
    if (!q->data_name)
        return err_new("its data is in another file, which it does not name");
    if (!files || !files->open)
        return err_new("its data file '%s' cannot be opened here", q->data_name);
    struct image *data;
    TRY(err_wrap(files->open(files->opaque, q->data_name, q->image->writable, &data),
                 "its data file '%s'", q->data_name));
    q->data = data;
    q->external = true;
    return NULL;
}

static struct err *open_parts(struct qcow2 *q, const struct image_files *files)
{
    TRY(read_header(q));
    TRY(open_data(q, files));
    if (q->crypt_method)
        TRY(qcow2_crypt_open(q));
    q->cluster = malloc(q->cluster_size);
    if (!q->cluster || qcow2_cache_init(&q->l2, q->slice_size, L2_CACHE) ||
        qcow2_cache_init(&q->refs, q->slice_size, REFS_CACHE))
        return err_new("no memory for its tables");
    TRY(read_tables(q));
    TRY(qcow2_bitmaps_load(q));
    q->virgin = ALIGN_UP(image_size(q->file), q->cluster_size);
    if (q->image->writable && !(q->image->flags & IMAGE_OPEN_CHECK))
        return prepare_writing(q);
    return NULL;
}

static void state_free(struct qcow2 *q)
{
    if (q->external)
        image_close(q->data);
    qcow2_crypt_close(q);
    qcow2_snapshots_free(q);
    qcow2_packed_fini(q);
    qcow2_cache_fini(&q->l2);
    qcow2_cache_fini(&q->refs);
    qcow2_ops_fini(q);
    free(q->cluster);
    free(q->data_name);
    free(q->l1);
    free(q->reftable);
    free(q);
}

static struct err *qcow2_open(struct image *image, const struct image_files *files)
{
    struct qcow2 *q = xcalloc(1, sizeof(*q));
    q->image = image;
    q->file = q->data = image->file;
    qcow2_packed_init(q);
    qcow2_ops_init(q);
    image->state = q;
    struct err *err = open_parts(q, files);
    if (err) {
        state_free(q);
        image->state = NULL;
    }
    return err;
}

/* For readers that want the last cluster whole. */
static int complete_last_cluster(struct qcow2 *q)
{
    uint64_t size = image_size(q->file);
    return q->ragged && q->file->grows && size % q->cluster_size
               ? image_truncate(q->file, ALIGN_UP(size, q->cluster_size))
               : 0;
}

static int qcow2_close(struct image *image)
{
    struct qcow2 *q = image->state;
    int result = 0;
    if (image->writable) {
        result = qcow2_flush_all(q); /* now the last counts may go down ... */
        if (!result && q->prepared)
            result = qcow2_bitmaps_store(q);
        if (!result)
            result = q->lazy_dirty ? qcow2_set_clean(q) : qcow2_write_refs(q); /* in the file */
        if (!result)
            result = complete_last_cluster(q);
    }
    if (q->external) {
        int closed = image_close(q->data);
        q->external = false;
        result = result ? result : closed;
    }
    state_free(q);
    image->state = NULL;
    return result;
}

static void qcow2_info(struct image *image, struct image_info *info)
{
    const struct qcow2 *q = image->state;
    info->cluster_size = (uint32_t)q->cluster_size;
    info->encrypted = q->crypt_method;
    info->dirty = q->incompatible & QCOW2_INCOMPAT_DIRTY;
    info->corrupt = q->incompatible & QCOW2_INCOMPAT_CORRUPT;
    image_info_text(info, "compat", q->version >= 3 ? "1.1" : "0.10");
    image_info_text(info, "compression-type", q->compression ? "zstd" : "zlib");
    image_info_number(info, "refcount-bits", 1ull << q->refcount_order);
    if (q->version < 3)
        return;
    image_info_bool(info, "lazy-refcounts", q->compatible & QCOW2_COMPAT_LAZY);
    image_info_bool(info, "corrupt", info->corrupt);
    image_info_bool(info, "extended-l2", q->entry_bits == 4);
    if (q->external) {
        image_info_text(info, "data-file", q->data_name);
        image_info_bool(info, "data-file-raw", q->autoclear & QCOW2_AUTOCLEAR_RAW_DATA);
    }
    if (image_bitmap_count(image))
        image_info_number(info, "bitmaps", image_bitmap_count(image));
}

const struct block_driver image_qcow2 = {
    .name = "qcow2",
    .parallel = true,
    .create_options = qcow2_create_options,
    .probe = qcow2_probe,
    .open = qcow2_open,
    .create = qcow2_create,
    .close = qcow2_close,
    .pread = qcow2_pread,
    .pwrite = qcow2_pwrite,
    .flush = qcow2_flush,
    .zero = qcow2_zero,
    .discard = qcow2_discard,
    .extent = qcow2_extent,
    .compress_unit = qcow2_compress_unit,
    .compress = qcow2_compress,
    .write_compressed = qcow2_write_packed,
    .info = qcow2_info,
    .bitmaps_persist = qcow2_bitmaps_persist,
    .check = qcow2_check,
    .resize = qcow2_resize,
    .snapshot_count = qcow2_snapshot_count,
    .snapshot_get = qcow2_snapshot_get,
    .snapshot_create = qcow2_snapshot_create,
    .snapshot_apply = qcow2_snapshot_apply,
    .snapshot_delete = qcow2_snapshot_delete,
    .snapshot_load = qcow2_snapshot_load,
    .set_backing_name = qcow2_set_backing_name,
    .amend = qcow2_amend,
    .empty = qcow2_empty,
    .locked = qcow2_locked,
    .unlock = qcow2_unlock,
    .wants_key = qcow2_wants_key,
    .measure = qcow2_measure,
};
