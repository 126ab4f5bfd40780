/*
 * qcow2: compressed clusters, zlib (raw deflate, RFC 1951) and zstd (RFC 8878).
 *
 * They are packed without alignment; several share a host cluster, whose reference count says how
 * many.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "block/format/qcow2.h"

#define DEFLATE_LEVEL 2 /* the fastest whose output is no larger than that of zlib's default */
#define UNPACKERS_BYTES MIB(4) /* of plain clusters in memory, but four at least */

static int inflate_cluster(const struct qcow2 *q, struct qcow2_unpacker *u, uint64_t length)
{
    if (q->compression == 1) {
        if (!u->unzstd)
            u->unzstd = ZSTD_createDCtx();
        if (!u->unzstd)
            return -ENOMEM;
        size_t frame = ZSTD_findFrameCompressedSize(u->packed, length);
        if (ZSTD_isError(frame))
            return -EIO;
        size_t got = ZSTD_decompressDCtx(u->unzstd, u->plain, q->cluster_size, u->packed, frame);
        return got == q->cluster_size ? 0 : -EIO;
    }
    size_t used, got = 0;
    if (!u->inflater)
        u->inflater = libdeflate_alloc_decompressor();
    if (!u->inflater)
        return -ENOMEM;
    enum libdeflate_result result = libdeflate_deflate_decompress_ex(
        u->inflater, u->packed, length, u->plain, q->cluster_size, &used, &got);
    return result == LIBDEFLATE_SUCCESS && got == q->cluster_size ? 0 : -EIO;
}

/* The one that has this cluster, or the one that was used longest ago. */
static struct qcow2_unpacker *unpacker_take(struct qcow2 *q, uint64_t entry)
{
    struct qcow2_unpacker *best = NULL;
    unsigned count = MIN(MAX((unsigned)(UNPACKERS_BYTES >> q->cluster_bits), 4u), QCOW2_SPARE_MAX);
    for (;;) {
        for (unsigned i = 0; i < count; i++) {
            struct qcow2_unpacker *u = &q->unpacker[i];
            if (u->busy || (best && best->entry == entry))
                continue;
            if (!best || u->entry == entry || u->used < best->used)
                best = u;
        }
        if (best)
            break;
        pthread_cond_wait(&q->progress, &q->lock.mutex);
    }
    best->busy = true;
    best->used = ++q->sequence;
    return best;
}

static int fetch(struct qcow2 *q, struct qcow2_unpacker *u, uint64_t entry)
{
    uint64_t offset, length;
    if (!u->plain)
        u->plain = malloc(q->cluster_size);
    if (!u->packed)
        u->packed = malloc(q->cluster_size * 2 + 512);
    if (!u->plain || !u->packed)
        return -ENOMEM;
    qcow2_packed_range(q, entry, &offset, &length);
    if (offset >= image_size(q->file) || length > q->cluster_size * 2)
        return -EIO;
    int result = image_read(q->file, u->packed, offset, length);
    return result ? result : inflate_cluster(q, u, length);
}

int qcow2_unpack(struct qcow2 *q, uint64_t entry, void *out, uint64_t inside, uint64_t length)
{
    struct qcow2_unpacker *u = unpacker_take(q, entry);
    bool has = u->entry == entry;
    u->entry = 0;
    lock_drop(&q->lock);
    int result = has ? 0 : fetch(q, u, entry);
    if (!result)
        memcpy(out, u->plain + inside, length);
    lock_take(&q->lock);
    u->entry = result ? 0 : entry;
    u->busy = false;
    pthread_cond_broadcast(&q->progress);
    return result;
}

void qcow2_unpacked_forget(struct qcow2 *q)
{
    for (unsigned i = 0; i < QCOW2_SPARE_MAX; i++)
        q->unpacker[i].entry = 0;
}

static void unpacker_fini(struct qcow2_unpacker *u)
{
    free(u->plain);
    free(u->packed);
    if (u->inflater)
        libdeflate_free_decompressor(u->inflater);
    ZSTD_freeDCtx(u->unzstd);
}

static void release_zstd(void *compressor)
{
    ZSTD_freeCCtx(compressor);
}

static void release_zlib(void *compressor)
{
    libdeflate_free_compressor(compressor);
}

/* Compressors wait for the next thread: setting one up costs more than a cluster's work. */
void qcow2_packed_init(struct qcow2 *q)
{
    spare_init(&q->zlib, release_zlib);
    spare_init(&q->zstd, release_zstd);
}

void qcow2_packed_fini(struct qcow2 *q)
{
    for (unsigned i = 0; i < QCOW2_SPARE_MAX; i++)
        unpacker_fini(&q->unpacker[i]);
    spare_fini(&q->zlib);
    spare_fini(&q->zstd);
}

uint32_t qcow2_compress_unit(const struct image *image)
{
    const struct qcow2 *q = image->state;
    return q->external || q->crypt_method ? 0 : (uint32_t)q->cluster_size;
}

/* As level 3, but with tables that stay in a core's first cache, and shorter matches: a cluster is
 * so small that this takes less time and less room. */
static void *new_zstd(const struct qcow2 *q)
{
    ZSTD_CCtx *zstd = ZSTD_createCCtx();
    if (!zstd)
        return NULL;
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_strategy, ZSTD_dfast);
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_hashLog, (int)q->cluster_bits - 2);
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_chainLog, (int)q->cluster_bits - 3);
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_minMatch, 4);
    return zstd;
}

int qcow2_compress(struct image *image, const void *unit, void *out, size_t *out_length)
{
    struct qcow2 *q = image->state;
    struct spare *spare = q->compression == 1 ? &q->zstd : &q->zlib;
    void *compressor = spare_take(spare);
    if (!compressor)
        compressor =
            q->compression == 1 ? new_zstd(q) : (void *)libdeflate_alloc_compressor(DEFLATE_LEVEL);
    if (!compressor)
        return -ENOMEM;
    if (q->compression == 1) {
        size_t made = ZSTD_compress2(compressor, out, q->cluster_size, unit, q->cluster_size);
        *out_length = ZSTD_isError(made) || made >= q->cluster_size ? 0 : made;
    } else {
        *out_length = libdeflate_deflate_compress(compressor, unit, q->cluster_size, out,
                                                  q->cluster_size - 1);
    }
    spare_give(spare, compressor);
    return 0;
}

/* Room for `length` bytes: behind the last packed cluster, or in new clusters. */
static int pack_room(struct qcow2 *q, size_t length, uint64_t *at)
{
    uint64_t in_cluster = q->pack_next % q->cluster_size;
    if (q->pack_next && in_cluster && in_cluster + length <= q->cluster_size &&
        qcow2_ref_add(q, q->pack_next >> q->cluster_bits, 1) == 0) {
        *at = q->pack_next;
        q->pack_next += length;
        return 0;
    }
    uint64_t host, next = ALIGN_UP(q->pack_next, q->cluster_size);
    int result = qcow2_alloc_run(q, 1, &host);
    if (result)
        return result;
    if (q->pack_next && in_cluster && host == next &&
        qcow2_ref_add(q, q->pack_next >> q->cluster_bits, 1) == 0)
        *at = q->pack_next; /* it begins in the old cluster and ends in the new one */
    else
        *at = host;
    q->pack_next = *at + length;
    return 0;
}

static int write_packed_locked(struct qcow2 *q, uint64_t offset, const void *data, size_t length)
{
    uint8_t *slice;
    unsigned index;
    uint64_t at = 0;
    int result = qcow2_map_write(q, offset, &slice, &index);
    if (!result)
        result = pack_room(q, length, &at);
    /* Readers fetch whole sectors. */
    uint64_t end = ALIGN_UP(at + length, q->cluster_size);
    if (!result && image_size(q->file) < end)
        result = image_truncate(q->file, end);
    if (!result)
        result = image_write(q->file, data, at, length);
    if (!result)
        result = qcow2_map(q, offset, &slice, &index);
    if (result)
        return result;
    unsigned x = 62 - (q->cluster_bits - 8);
    uint64_t sectors = (at + length - 1) / 512 - at / 512;
    uint64_t before = qcow2_entry(q, slice, index);
    put_be64(slice + ((size_t)index << q->entry_bits), QCOW2_COMPRESSED | sectors << x | at);
    if (q->entry_bits == 4)
        put_be64(slice + index * 16 + 8, 0);
    qcow2_cache_dirty(q, &q->l2, slice);
    return qcow2_gone_entry(q, before);
}

int qcow2_write_packed(struct image *image, uint64_t offset, const void *data, size_t length)
{
    struct qcow2 *q = image->state;
    int result = qcow2_bound_gone(q);
    if (result)
        return result;
    lock_take(&q->lock);
    qcow2_wait_for_claims(q, offset, q->cluster_size);
    result = write_packed_locked(q, offset, data, length);
    lock_drop(&q->lock);
    return result;
}
