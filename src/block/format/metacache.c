/*
 * Write-back of image metadata; see metacache.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/format/metacache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 1024u
#define PAGES_MAX 2048u /* 8 MiB */
#define DIRTY_MAX 128u  /* what fits the smallest journal, with room to spare */

void metacache_init(struct metacache *cache, struct image *file)
{
    memset(cache, 0, sizeof(*cache));
    cache->file = file;
    cache->buckets = xcalloc(BUCKETS, sizeof(*cache->buckets));
    cache->dirty = xcalloc(DIRTY_MAX, sizeof(*cache->dirty));
}

void metacache_fini(struct metacache *cache)
{
    for (unsigned i = 0; cache->buckets && i < BUCKETS; i++) {
        struct meta_page *next;
        for (struct meta_page *page = cache->buckets[i]; page; page = next) {
            next = page->next;
            free(page);
        }
    }
    free(cache->buckets);
    free(cache->dirty);
    memset(cache, 0, sizeof(*cache));
}

/* Drops a clean page that was not looked at since the hand passed it last. */
static void make_room(struct metacache *cache)
{
    for (unsigned step = 0; cache->count >= PAGES_MAX && step < 4 * BUCKETS; step++) {
        struct meta_page **link = &cache->buckets[cache->hand++ % BUCKETS];
        while (*link) {
            struct meta_page *page = *link;
            if (page->dirty || page->used || page->pinned) {
                page->used = 0;
                link = &page->next;
            } else {
                *link = page->next;
                free(page);
                cache->count--;
            }
        }
    }
}

/* What lies beyond the end of the file reads as zeros. */
static int read_page(struct image *file, struct meta_page *page)
{
    uint64_t offset = page->index * META_PAGE, size = image_size(file);
    if (offset >= size)
        return 0;
    return image_read(file, page->data, offset, MIN(size - offset, (uint64_t)META_PAGE));
}

static int find(struct metacache *cache, uint64_t index, struct meta_page **result)
{
    struct meta_page **bucket = &cache->buckets[index % BUCKETS];
    for (struct meta_page *page = *bucket; page; page = page->next) {
        if (page->index == index) {
            page->used = 1;
            *result = page;
            return 0;
        }
    }
    make_room(cache);
    struct meta_page *page = calloc(1, sizeof(*page));
    if (!page)
        return -ENOMEM;
    page->index = index;
    page->used = 1;
    int status = read_page(cache->file, page);
    if (status) {
        free(page);
        return status;
    }
    page->next = *bucket;
    *bucket = page;
    cache->count++;
    *result = page;
    return 0;
}

static bool within_sector(uint64_t offset, unsigned size)
{
    return size && offset % META_SECTOR + size <= META_SECTOR && offset <= INT64_MAX - META_PAGE;
}

int metacache_read(struct metacache *cache, uint64_t offset, unsigned size, const uint8_t **bytes)
{
    struct meta_page *page;
    if (!within_sector(offset, size))
        return -EIO;
    int status = find(cache, offset / META_PAGE, &page);
    if (!status)
        *bytes = page->data + offset % META_PAGE;
    return status;
}

int metacache_write(struct metacache *cache, uint64_t offset, unsigned size, uint8_t **bytes)
{
    struct meta_page *page;
    if (!within_sector(offset, size))
        return -EIO;
    int status = find(cache, offset / META_PAGE, &page);
    if (status)
        return status;
    if (!page->dirty) {
        if (cache->dirty_count == DIRTY_MAX) { /* a commit drops no page */
            status = metacache_commit(cache);
            if (status)
                return status;
        }
        cache->dirty[cache->dirty_count++] = page;
    }
    page->dirty |= (uint8_t)(1u << (offset % META_PAGE / META_SECTOR));
    *bytes = page->data + offset % META_PAGE;
    return 0;
}

int metacache_pin(struct metacache *cache, uint64_t index, const uint8_t *bytes)
{
    struct meta_page *page;
    int status = index > INT64_MAX / META_PAGE ? -EIO : find(cache, index, &page);
    if (status)
        return status;
    memcpy(page->data, bytes, META_PAGE);
    page->pinned = true;
    return 0;
}

int metacache_copy(struct metacache *cache, void *buffer, uint64_t offset, size_t length)
{
    uint8_t *to = buffer;
    while (length) {
        const uint8_t *bytes;
        unsigned n = (unsigned)MIN(length, (size_t)(META_SECTOR - offset % META_SECTOR));
        int status = metacache_read(cache, offset, n, &bytes);
        if (status)
            return status;
        memcpy(to, bytes, n);
        to += n;
        offset += n;
        length -= n;
    }
    return 0;
}

/* Writes the changed sectors, a run at a time: a page may share its other sectors with data. */
static int write_page(struct metacache *cache, const struct meta_page *page)
{
    const unsigned sectors = META_PAGE / META_SECTOR;
    for (unsigned first = 0; first < sectors; first++) {
        unsigned end = first;
        while (end < sectors && page->dirty >> end & 1)
            end++;
        if (end == first)
            continue;
        int status =
            image_write(cache->file, page->data + first * META_SECTOR,
                        page->index * META_PAGE + first * META_SECTOR, (end - first) * META_SECTOR);
        if (status)
            return status;
        first = end;
    }
    return 0;
}

int metacache_commit(struct metacache *cache)
{
    if (!cache->dirty_count)
        return 0;
    int status = cache->unordered ? 0 : image_flush(cache->file);
    if (!status && cache->journal && !cache->unordered)
        status = cache->journal(cache->opaque, cache->dirty, cache->dirty_count);
    for (unsigned i = 0; !status && i < cache->dirty_count; i++)
        status = write_page(cache, cache->dirty[i]);
    if (!status && !cache->unordered)
        status = image_flush(cache->file);
    if (status)
        return status; /* all stays changed: the next commit does it again */
    for (unsigned i = 0; i < cache->dirty_count; i++)
        cache->dirty[i]->dirty = 0;
    cache->dirty_count = 0;
    return 0;
}
