/*
 * qcow2: slices of L2 tables and of reference-count blocks in memory, and the order in which they
 * are written.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "block/format/qcow2.h"

#define WAYS 8u

int qcow2_cache_init(struct qcow2_cache *cache, uint32_t slice_size, uint64_t bytes)
{
    cache->sets = 16;
    while ((uint64_t)cache->sets * WAYS * slice_size < bytes)
        cache->sets *= 2;
    cache->slice = calloc((size_t)cache->sets * WAYS, sizeof(*cache->slice));
    cache->data = malloc((size_t)cache->sets * WAYS * slice_size);
    return cache->slice && cache->data ? 0 : -ENOMEM;
}

void qcow2_cache_fini(struct qcow2_cache *cache)
{
    free(cache->slice);
    free(cache->data);
}

static int write_slice(struct qcow2 *q, struct qcow2_cache *cache, struct qcow2_slice *slice)
{
    uint8_t *data = cache->data + (size_t)(slice - cache->slice) * q->slice_size;
    int result = image_write(q->file, data, slice->offset, q->slice_size);
    if (!result) {
        slice->dirty = false;
        cache->dirty--;
    }
    return result;
}

static int write_all(struct qcow2 *q, struct qcow2_cache *cache)
{
    for (unsigned i = 0; cache->dirty && i < cache->sets * WAYS; i++) {
        int result = cache->slice[i].dirty ? write_slice(q, cache, &cache->slice[i]) : 0;
        if (result)
            return result;
    }
    return 0;
}

int qcow2_sync(struct qcow2 *q)
{
    if (q->image->flags & IMAGE_OPEN_SCRATCH)
        return 0;
    int result = q->external ? image_flush(q->data) : 0;
    return result ? result : image_flush(q->file);
}

int qcow2_write_refs(struct qcow2 *q)
{
    return write_all(q, &q->refs);
}

/*
 * Counts reach the file before the tables that need them. Lazy ones need not: the image is marked
 * dirty (qcow2_ref_set), and whoever opens it after a crash counts anew.
 */
static int write_refs_first(struct qcow2 *q)
{
    return qcow2_lazy(q) && q->incompatible & QCOW2_INCOMPAT_DIRTY ? 0 : qcow2_write_refs(q);
}

static bool tables_dirty(const struct qcow2 *q)
{
    return q->l2.dirty || q->l1_dirty != q->l1_dirty_end;
}

/* What they name is stable. */
static int write_tables(struct qcow2 *q)
{
    int result = write_all(q, &q->l2);
    return result ? result : qcow2_write_l1(q);
}

int qcow2_write_l2(struct qcow2 *q)
{
    if (!tables_dirty(q))
        return 0;
    int result = write_refs_first(q);
    if (!result)
        result = qcow2_sync(q);
    return result ? result : write_tables(q);
}

int qcow2_flush_all(struct qcow2 *q)
{
    int result = qcow2_write_refs(q);
    if (!result)
        result = qcow2_write_l2(q);
    if (!result)
        result = qcow2_sync(q);
    return result ? result : qcow2_commit_gone(q, q->gone_count, false);
}

static int sync_unlocked(struct qcow2 *q)
{
    lock_drop(&q->lock);
    int result = qcow2_sync(q);
    lock_take(&q->lock);
    return result;
}

int qcow2_flush_shared(struct qcow2 *q)
{
    int result = write_refs_first(q);
    if (!result && tables_dirty(q)) { /* what they name has to be stable before they are written */
        q->frozen = true;
        result = sync_unlocked(q);
        if (!result)
            result = write_tables(q);
        q->frozen = false;
        pthread_cond_broadcast(&q->progress);
    }
    size_t gone = q->gone_count; /* what comes now is of the next flush */
    if (!result)
        result = sync_unlocked(q);
    return result ? result : qcow2_commit_gone(q, gone, true);
}

static unsigned set_of(const struct qcow2 *q, const struct qcow2_cache *cache, uint64_t offset)
{
    uint64_t mixed = offset / q->slice_size * 0x9e3779b97f4a7c15ull;
    return (unsigned)(mixed >> 32) & (cache->sets - 1);
}

static int get(struct qcow2 *q, struct qcow2_cache *cache, uint64_t offset, uint8_t **data)
{
    struct qcow2_slice *set = cache->slice + (size_t)set_of(q, cache, offset) * WAYS;
    struct qcow2_slice *victim = set;
    for (unsigned i = 0; i < WAYS; i++) {
        if (set[i].offset == offset) {
            set[i].used = ++cache->clock;
            *data = cache->data + (size_t)(&set[i] - cache->slice) * q->slice_size;
            return 0;
        }
        if (set[i].used < victim->used)
            victim = &set[i];
    }
    if (victim->dirty) {
        int result = cache == &q->l2 ? qcow2_write_l2(q) : write_all(q, cache);
        if (result)
            return result;
    }
    *data = cache->data + (size_t)(victim - cache->slice) * q->slice_size;
    victim->offset = 0;
    victim->used = 0;
    int result = image_read(q->file, *data, offset, q->slice_size);
    if (result)
        return result;
    victim->offset = offset;
    victim->used = ++cache->clock;
    return 0;
}

int qcow2_l2_slice(struct qcow2 *q, uint64_t offset, uint8_t **data)
{
    return get(q, &q->l2, offset, data);
}

int qcow2_ref_slice(struct qcow2 *q, uint64_t offset, uint8_t **data)
{
    return get(q, &q->refs, offset, data);
}

void qcow2_cache_dirty(struct qcow2 *q, struct qcow2_cache *cache, const uint8_t *data)
{
    struct qcow2_slice *slice = &cache->slice[(size_t)(data - cache->data) / q->slice_size];
    if (!slice->dirty) {
        slice->dirty = true;
        cache->dirty++;
    }
}

static void forget(struct qcow2_cache *cache, uint64_t offset, uint64_t length)
{
    for (unsigned i = 0; i < cache->sets * WAYS; i++) {
        struct qcow2_slice *slice = &cache->slice[i];
        if (!slice->offset || slice->offset < offset || slice->offset - offset >= length)
            continue;
        cache->dirty -= slice->dirty;
        *slice = (struct qcow2_slice){0};
    }
}

void qcow2_forget(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    forget(&q->l2, offset, length);
    forget(&q->refs, offset, length);
}
