/*
 * Dirty log and code pages.
 *
 * Both are bitmaps of guest pages that any thread sets atomically. They live in the regions and are
 * always allocated (a bit a page, touched on demand), so that switching them on cannot fail.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "base/bitmap.h"
#include "gmem/internal.h"

void gmem_dirty_enable(struct gmem *gmem, bool on)
{
    __atomic_store_n(&gmem->dirty_on, on, __ATOMIC_RELEASE);
}

bool gmem_dirty_enabled(const struct gmem *gmem)
{
    return __atomic_load_n(&gmem->dirty_on, __ATOMIC_ACQUIRE);
}

void gmem_dirty_set(struct gmem *gmem, uint64_t gpa, uint64_t len)
{
    while (len) {
        struct gmem_region *region = gmem_lookup(gmem, gpa);
        if (!region)
            return;
        uint64_t offset = gpa - region->gpa;
        uint64_t here = MIN(len, region->size - offset);
        uint64_t last = (offset + here - 1) >> GUEST_PAGE_SHIFT;
        for (uint64_t page = offset >> GUEST_PAGE_SHIFT; page <= last; page++)
            bitmap_set_atomic(region->dirty, page);
        gpa += here;
        len -= here;
    }
}

void gmem_dirty_take(struct gmem *gmem, size_t index, uint64_t *bitmap)
{
    struct gmem_region *region = &gmem->region[index];
    uint64_t words = BITMAP_WORDS(region->size >> GUEST_PAGE_SHIFT);
    for (uint64_t i = 0; i < words; i++)
        bitmap[i] = __atomic_exchange_n(&region->dirty[i], 0, __ATOMIC_ACQ_REL);
}

void gmem_code_listen(struct gmem *gmem, void (*fn)(void *opaque, uint64_t gpa, uint64_t len),
                      void *opaque)
{
    gmem->code_opaque = opaque;
    gmem->code_fn = fn;
}

void gmem_code_mark(struct gmem *gmem, uint64_t gpa, bool holds_code)
{
    struct gmem_region *region = gmem_lookup(gmem, gpa);
    if (!region)
        return;
    uint64_t page = (gpa - region->gpa) >> GUEST_PAGE_SHIFT;
    if (holds_code)
        bitmap_set_atomic(region->code, page);
    else
        bitmap_clear_atomic(region->code, page);
}

static bool any_code(struct gmem *gmem, uint64_t gpa, uint64_t len)
{
    while (len) {
        struct gmem_region *region = gmem_lookup(gmem, gpa);
        if (!region)
            return false;
        uint64_t offset = gpa - region->gpa;
        uint64_t here = MIN(len, region->size - offset);
        uint64_t last = (offset + here - 1) >> GUEST_PAGE_SHIFT;
        for (uint64_t page = offset >> GUEST_PAGE_SHIFT; page <= last; page++) {
            if (bitmap_test_atomic(region->code, page))
                return true;
        }
        gpa += here;
        len -= here;
    }
    return false;
}

void gmem_count_writes(struct gmem *gmem)
{
    gmem->counts = true;
}

uint64_t gmem_writes(const struct gmem *gmem, bool *busy)
{
    uint64_t ended = __atomic_load_n(&gmem->writes_ended, __ATOMIC_ACQUIRE);
    *busy = __atomic_load_n(&gmem->writes_begun, __ATOMIC_ACQUIRE) != ended;
    return ended;
}

void gmem_note_written(struct gmem *gmem, uint64_t gpa, uint64_t len)
{
    if (unlikely(gmem_dirty_enabled(gmem)))
        gmem_dirty_set(gmem, gpa, len);
    if (gmem->code_fn && any_code(gmem, gpa, len))
        gmem->code_fn(gmem->code_opaque, gpa, len);
}

void gmem_mark_written(struct gmem *gmem, uint64_t gpa, uint64_t len)
{
    gmem_write_begins(gmem);
    gmem_note_written(gmem, gpa, len);
    gmem_write_ends(gmem);
}

void gmem_region_written(struct gmem *gmem, const struct gmem_region *region, uint64_t offset,
                         uint64_t len)
{
    if (!len)
        return;
    if (unlikely(gmem_dirty_enabled(gmem))) {
        for (uint64_t page = offset >> GUEST_PAGE_SHIFT;
             page <= (offset + len - 1) >> GUEST_PAGE_SHIFT; page++)
            bitmap_set_atomic(region->dirty, page);
    }
    if (gmem->code_fn && region->view == GMEM_VIEW_RAM && any_code(gmem, region->gpa + offset, len))
        gmem->code_fn(gmem->code_opaque, region->gpa + offset, len);
}
