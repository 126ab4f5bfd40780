/*
 * The metadata of an image file in memory: its allocation tables and bitmaps, read as they are
 * needed and written back together.
 *
 * A change stays in memory until metacache_commit, which first makes guest data stable, then
 * writes the changed sectors, then makes those stable. So no table ever names data that a power
 * cut could lose, and a run of allocations costs two flushes. A format with a journal of its own
 * (VHDX) puts it in front of the write-back through `journal`.
 *
 * Memory is bounded: clean pages are dropped, too many changed ones commit by themselves. The
 * caller serialises all calls.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_FORMAT_METACACHE_H
#define TENON_BLOCK_FORMAT_METACACHE_H

#include "base/base.h"
#include "block/core/driver.h"

#define META_PAGE 4096u
#define META_SECTOR 512u

struct meta_page {
    uint64_t index;         /* file offset / META_PAGE */
    struct meta_page *next; /* of its hash bucket */
    uint8_t dirty;          /* a bit a sector */
    uint8_t used;           /* looked at since the last sweep */
    bool pinned;            /* differs from the file on purpose: a journal of a read-only image */
    uint8_t data[META_PAGE];
};

struct metacache {
    struct image *file; /* borrowed */
    struct meta_page **buckets;
    struct meta_page **dirty; /* in the order in which they became so */
    unsigned count, dirty_count, hand;
    bool unordered; /* nobody's image yet: no journal, no flushes between */
    /* Optional: called with the changed pages, after data is stable and before they are written. */
    int (*journal)(void *opaque, struct meta_page **pages, unsigned count);
    void *opaque;
};

void metacache_init(struct metacache *cache, struct image *file);
/* Changes that were not committed are lost. */
void metacache_fini(struct metacache *cache);

/*
 * The `size` bytes at `offset`, which lie within one sector; beyond the end of the file they are
 * zero. Good until the next call. 0 or -errno.
 */
int metacache_read(struct metacache *cache, uint64_t offset, unsigned size, const uint8_t **bytes);
/* The same, to change them: their sector is written by the next commit. */
int metacache_write(struct metacache *cache, uint64_t offset, unsigned size, uint8_t **bytes);
int metacache_commit(struct metacache *cache);
/* What the page holds from now on without a write to the file: for read-only images. */
int metacache_pin(struct metacache *cache, uint64_t index, const uint8_t *bytes);
/* Any length, within the page cache. For what is read once. */
int metacache_copy(struct metacache *cache, void *buffer, uint64_t offset, size_t length);
/* Whether a change waits for a commit. */
static inline bool metacache_is_dirty(const struct metacache *cache)
{
    return cache->dirty_count != 0;
}

#endif
