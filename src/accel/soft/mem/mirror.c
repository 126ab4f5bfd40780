/*
 * Maps guest pages side by side. See mirror.h.
 *
 * Translated code's vector registers may be live in what only looks, so no vectors here.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma GCC target("general-regs-only")

#include "accel/soft/mem/mirror.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "accel/soft/mem/site.h"
#include "accel/soft/mem/tlb.h"

#define PART_SIZE MIB(64)
#define PART_PAGES (PART_SIZE / GUEST_PAGE_SIZE)
#define PARTS 8
#define WRITTEN 65536u
/* Pages to each side that come along if the TLB has them. */
#define AROUND 16
/* Sites that were filled for a page until it is worth a mapping, which costs some 30 times as much.
 */
#define WORTH 16
/* Mappings of a VM, each of which may cut the rest of a part in two: the kernel allows a process
   65530. */
#define MAPPINGS_MAX 24000u
#define MIRROR_OFF UINT_MAX /* of soft_vcpu.mirrored: RAM cannot be mapped again */

/* An aligned piece of the address space. */
struct part {
    uint64_t start;
    uint8_t *at; /* where it is mirrored; NULL: not in use */
    uint64_t used;
    bool any[2]; /* bits are set in `valid` */
    struct {
        unsigned first, end;
    } run[2]; /* the one that was found last, or a piece of it */
    uint64_t valid[2][PART_PAGES / 64];
    const uint8_t *page[PART_PAGES]; /* what is mapped */
};

struct soft_mirror {
    struct part part[PARTS];
    uint64_t clock;
    bool gone; /* something was unmapped that might be in use */
    uint64_t
        written[WRITTEN / 64]; /* host pages that may be mirrored to write: a bit each, hashed */
};

static unsigned written_bit(const uint8_t *page)
{
    return (uintptr_t)page / GUEST_PAGE_SIZE % WRITTEN;
}

static struct part *part_of(const struct soft_space *space, uint64_t linear)
{
    if (!space->mirror)
        return NULL;
    for (unsigned i = 0; i < PARTS; i++) {
        struct part *part = &space->mirror->part[i];
        if (part->at && linear - part->start < PART_SIZE)
            return part;
    }
    return NULL;
}

static unsigned index_in(const struct part *part, uint64_t linear)
{
    return (linear - part->start) / GUEST_PAGE_SIZE;
}

static bool is_valid(const struct part *part, unsigned i, bool write)
{
    return part->valid[write][i / 64] >> i % 64 & 1;
}

/* ---- to look ---- */

/* The first page from i on that is not there. */
static unsigned run_end(const uint64_t *valid, unsigned i)
{
    while (i < PART_PAGES) {
        uint64_t missing = ~valid[i / 64] >> i % 64;
        if (missing)
            return i + (unsigned)__builtin_ctzll(missing);
        i = (i / 64 + 1) * 64;
    }
    return PART_PAGES;
}

/* The first page of the run that goes up to i. */
static unsigned run_start(const uint64_t *valid, unsigned i)
{
    for (;;) {
        uint64_t missing = ~valid[i / 64] << (63 - i % 64);
        if (missing)
            return i + 1 - (unsigned)__builtin_clzll(missing);
        if (i < 64)
            return 0;
        i = i / 64 * 64 - 1;
    }
}

static void make_valid(struct soft_mirror *mirror, struct part *part, unsigned i, bool write)
{
    part->valid[write][i / 64] |= 1ull << i % 64;
    part->any[write] = true;
    unsigned bit = written_bit(part->page[i]);
    if (write)
        mirror->written[bit / 64] |= 1ull << bit % 64;
}

/* Where the TLB has the page at `linear`, or NULL. */
static const uint8_t *in_tlb(const struct soft_space *space, uint64_t linear, bool write)
{
    const struct soft_tlbe *e = (write ? space->write : space->read) + tlb_index(linear);
    return e->tag == linear ? (const uint8_t *)(uintptr_t)(linear + e->addend) : NULL;
}

bool soft_mirror_find(struct soft_space *space, uint64_t linear, bool write, struct mirror_run *run)
{
    struct part *part = part_of(space, linear);
    if (!part)
        return false;
    unsigned at = index_in(part, linear);
    if (!is_valid(part, at, write)) {
        if (!part->page[at] || part->page[at] != in_tlb(space, linear & ~0xfffull, write))
            return false;
        make_valid(space->mirror, part, at, write);
    }
    unsigned first = part->run[write].first, end = part->run[write].end;
    if (at < first || at >= end) {
        part->run[write].first = first = run_start(part->valid[write], at);
        part->run[write].end = end = run_end(part->valid[write], at);
    }
    run->start = part->start + first * GUEST_PAGE_SIZE;
    run->length = (end - first) * GUEST_PAGE_SIZE;
    run->addend = (uintptr_t)part->at - part->start;
    return true;
}

bool soft_mirror_wanted(struct soft_vcpu *v, uint64_t linear)
{
    struct soft_space *space = v->space;
    uint8_t *heat = &space->heat[tlb_exec_hash(linear)];
    if (space == v->supervisor || v->mirrored == MIRROR_OFF)
        return false;
    *heat += *heat < WORTH;
    return *heat == WORTH;
}

/* ---- to map ---- */

static void close_part(struct part *part)
{
    if (part->at)
        munmap(part->at, PART_SIZE);
    memset(part, 0, sizeof(*part));
}

static void reset(struct soft_vcpu *v, struct soft_space *space)
{
    if (!space || !space->mirror)
        return;
    soft_sites_flush(v, space, false);
    soft_sites_flush(v, space, true);
    soft_mirror_free(space);
}

static struct part *open_part(struct soft_vcpu *v, struct soft_space *space, uint64_t linear)
{
    if (!space->mirror)
        space->mirror = xcalloc(1, sizeof(*space->mirror));
    void *at = mmap(NULL, PART_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    struct part *oldest = &space->mirror->part[0];
    for (unsigned i = 1; i < PARTS; i++)
        if (space->mirror->part[i].used < oldest->used)
            oldest = &space->mirror->part[i];
    if (oldest->at) {
        soft_sites_flush(v, space, false);
        soft_sites_flush(v, space, true);
        space->mirror->gone = true;
    }
    close_part(oldest);
    oldest->at = at;
    oldest->start = linear & ~(PART_SIZE - 1);
    return oldest;
}

/* Puts the host page at place i. */
static bool map_page(struct soft_vcpu *v, struct part *part, unsigned i, const uint8_t *page)
{
    if (!gmem_alias(v->vm->gmem, page, part->at + i * GUEST_PAGE_SIZE)) {
        part->page[i] = NULL;
        v->mirrored = MIRROR_OFF;
        return false;
    }
    part->page[i] = page;
    if (!i || part->page[i - 1] + GUEST_PAGE_SIZE != page)
        v->mirrored++;
    return true;
}

/* The page of place i, as the TLB has it; false when it does not. */
static bool take_in(struct soft_vcpu *v, struct part *part, unsigned i, bool write)
{
    if (is_valid(part, i, write))
        return true;
    uint64_t linear = part->start + i * GUEST_PAGE_SIZE;
    const uint8_t *page = in_tlb(v->space, linear, write);
    if (!page)
        return false;
    if (part->page[i] != page) {
        if (is_valid(part, i, !write)) { /* both must be one page */
            soft_sites_drop_page(v, v->space, linear);
            v->space->mirror->gone = true;
        }
        if (!map_page(v, part, i, page))
            return false;
    }
    make_valid(v->space->mirror, part, i, write);
    return true;
}

/* Will it be wanted soon? */
static bool is_warm(const struct soft_space *space, const struct part *part, unsigned i)
{
    return space->heat[tlb_exec_hash(part->start + i * GUEST_PAGE_SIZE)] >= WORTH / 4;
}

static void take_around(struct soft_vcpu *v, struct part *part, unsigned at, bool write)
{
    for (unsigned i = at + 1; i < PART_PAGES && i <= at + AROUND && is_warm(v->space, part, i); i++)
        if (!take_in(v, part, i, write))
            break;
    for (unsigned i = at; i-- > 0 && i + AROUND >= at && is_warm(v->space, part, i);)
        if (!take_in(v, part, i, write))
            break;
}

enum mirror_result soft_mirror_add(struct soft_vcpu *v, uint64_t linear, bool write)
{
    struct soft_space *space = v->space;
    if (v->mirrored == MIRROR_OFF || (write && v->vm->dirty_log))
        return MIRROR_NOT;
    if (v->mirrored > MAPPINGS_MAX / v->vm->vcpu_count) {
        for (unsigned i = 0; i < SOFT_ASIDS; i++)
            reset(v, v->user[i]);
        v->mirrored = 0;
        return MIRROR_OTHERS_GONE;
    }
    struct part *part = part_of(space, linear);
    if (!part)
        part = open_part(v, space, linear);
    if (!part)
        return MIRROR_NOT;
    part->used = ++space->mirror->clock;
    unsigned at = index_in(part, linear);
    bool added = take_in(v, part, at, write);
    if (added)
        take_around(v, part, at, write);
    bool gone = space->mirror->gone;
    space->mirror->gone = false;
    return gone ? MIRROR_OTHERS_GONE : added ? MIRROR_ADDED : MIRROR_NOT;
}

void soft_mirror_free(struct soft_space *space)
{
    if (!space || !space->mirror)
        return;
    for (unsigned i = 0; i < PARTS; i++)
        close_part(&space->mirror->part[i]);
    free(space->mirror);
    space->mirror = NULL;
}

/* ---- to forget ---- */

/* Dirty log: the page may have been written until now. */
static void written(struct soft_vcpu *v, const uint8_t *page)
{
    uint64_t gpa = soft_host_gpa(v->vm->mem, page);
    if (gpa != UINT64_MAX)
        gmem_dirty_set(v->vm->gmem, gpa, GUEST_PAGE_SIZE);
}

void soft_mirror_flush(struct soft_vcpu *v, struct soft_space *space, bool write)
{
    if (!write)
        memset(space->heat, 0, sizeof(space->heat));
    for (unsigned k = 0; space->mirror && k < PARTS; k++) {
        struct part *part = &space->mirror->part[k];
        if (!part->any[write])
            continue;
        for (unsigned i = 0; write && v->vm->dirty_log && i < PART_PAGES; i++)
            if (is_valid(part, i, write))
                written(v, part->page[i]);
        memset(part->valid[write], 0, sizeof(part->valid[write]));
        part->any[write] = false;
        part->run[write].end = 0;
        if (write)
            memset(space->mirror->written, 0, sizeof(space->mirror->written));
    }
}

bool soft_mirror_drop(struct soft_vcpu *v, struct soft_space *space, uint64_t linear, bool write)
{
    space->heat[tlb_exec_hash(linear)] = 0;
    struct part *part = part_of(space, linear);
    if (!part)
        return false;
    unsigned i = index_in(part, linear);
    if (!is_valid(part, i, write))
        return false;
    if (write && v->vm->dirty_log)
        written(v, part->page[i]);
    part->valid[write][i / 64] &= ~(1ull << i % 64);
    part->run[write].end = 0;
    return true;
}

uint64_t soft_mirror_next(const struct soft_space *space, const uint8_t *page, uint64_t from)
{
    uint64_t found = UINT64_MAX;
    if (!space->mirror ||
        !(space->mirror->written[written_bit(page) / 64] >> written_bit(page) % 64 & 1))
        return found;
    for (unsigned k = 0; k < PARTS; k++) {
        const struct part *part = &space->mirror->part[k];
        for (unsigned i = 0; part->any[true] && i < PART_PAGES; i++) {
            uint64_t linear = part->start + i * GUEST_PAGE_SIZE;
            if (part->page[i] == page && is_valid(part, i, true) && linear >= from)
                found = MIN(found, linear);
        }
    }
    return found;
}
