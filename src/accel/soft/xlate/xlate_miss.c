/*
 * What translated code calls when an access has no translation at hand.
 *
 * Pages of a program for which sites are filled again and again are mirrored side by side, where
 * one window holds them all (mem/mirror.h). A site that goes on missing has its block translated
 * once more, with the hashed TLB in the site's place. An access that misses there for the same page
 * again and again, because another one's page has the same slot, has a site of its own the next
 * time. A group of accesses whose span often crosses a page has each access checked alone.
 *
 * Compiled without vector registers: the host's may hold the guest's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma GCC target("general-regs-only")

#include "accel/soft/mem/mirror.h"
#include "accel/soft/mem/site.h"
#include "accel/soft/mem/tlb.h"
#include "accel/soft/xlate/xlate.h"
#include "base/bitmap.h"

/* Misses less than NEAR instructions apart count; so many in excess of the others are too many. */
#define NEAR 2000
#define MISSES 1024
/* Groups that cross a page less than FAR instructions apart, so many times. */
#define FAR 2000
#define CROSSINGS 16

static bool in_tlb(const struct soft_space *space, uint64_t linear, bool write)
{
    const struct soft_tlbe *e = (write ? space->write : space->read) + tlb_index(linear);
    return (linear ^ e->tag) <= 0xfff;
}

static bool in_huge(const struct soft_space *space, uint64_t linear)
{
    return (linear ^ space->huge[huge_index(linear)].tag) < MIB(2);
}

static uint8_t *host_of(const struct soft_space *space, uint64_t linear, bool write)
{
    const struct soft_tlbe *e = (write ? space->write : space->read) + tlb_index(linear);
    return (uint8_t *)(uintptr_t)(linear + e->addend);
}

static void copy(uint8_t *to, const uint8_t *from, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        to[i] = from[i];
}

/* The bytes of an access, 8 at most, of which `first` end a page; `low` and `high` point to
   both parts. Whole words are read: they lie in these pages. */
static uint64_t gather(const uint8_t *low, const uint8_t *high, unsigned first)
{
    uint64_t before = host_load((uintptr_t)low + first - 8, 8);
    return before >> (64 - 8 * first) | host_load((uintptr_t)high, 8) << 8 * first;
}

static void scatter(uint8_t *to, unsigned n, uint64_t value)
{
    for (unsigned piece = 4; piece; piece /= 2) {
        if (!(n & piece))
            continue;
        host_store((uintptr_t)to, piece, value);
        to += piece;
        value >>= 8 * piece;
    }
}

/* An access over a page boundary is done on a copy. */
static uint64_t cross(struct soft_vcpu *v, uint64_t linear, const struct xlate_access *a)
{
    struct soft_space *space = v->space;
    struct xlate_frame *frame = &space->frame;
    uint64_t second = (linear | 0xfff) + 1;
    if (!in_tlb(space, linear, a->write) || !in_tlb(space, second, a->write))
        return MISS_WALK;
    unsigned first = second - linear;
    frame->part[0] = host_of(space, linear, a->write);
    frame->part[1] = host_of(space, second, a->write);
    frame->part_len[0] = first;
    frame->part_len[1] = a->size - first;
    if (likely(a->size <= 8)) {
        host_store((uintptr_t)frame->bounce, 8, gather(frame->part[0], frame->part[1], first));
        return MISS_CROSS;
    }
    copy(frame->bounce, frame->part[0], first);
    copy(frame->bounce + first, frame->part[1], a->size - first);
    return MISS_CROSS;
}

void xlate_cross_back(struct soft_vcpu *v)
{
    struct xlate_frame *frame = &v->space->frame;
    unsigned first = frame->part_len[0], second = frame->part_len[1];
    if (likely(first + second <= 8)) {
        /* As wide as the instruction wrote it. */
        uint64_t value = host_load((uintptr_t)frame->bounce, first + second);
        scatter(frame->part[0], first, value);
        scatter(frame->part[1], second, value >> 8 * first);
        return;
    }
    copy(frame->part[0], frame->bounce, first);
    copy(frame->part[1], frame->bounce + first, second);
}

/* Does the access go on to the page behind or before the window, as a walk through memory does? */
static bool goes_on(const struct soft_site *site, uint64_t linear)
{
    uint64_t end = ((site->start + site->limit - 1) | 0xfff) + 1, at = linear & ~0xfffull;
    return at == end || at == site->start - GUEST_PAGE_SIZE;
}

/* Cleared member by member: the C library's memset uses the guest's vector registers. */
struct block_hints *xlate_hints(struct soft_vcpu *v, struct block *block)
{
    struct soft_code *code = v->code;
    size_t bytes = ALIGN_UP(sizeof(struct block_hints), sizeof(struct op));
    if (block->hints)
        return block->hints;
    if (code->used + bytes > CODE_ARENA)
        return &code->lost; /* all is dropped soon */
    struct block_hints *hints = (struct block_hints *)(code->arena + code->used);
    code->used += bytes;
    hints->hashed[0] = hints->hashed[1] = 0;
    hints->huge[0] = hints->huge[1] = 0;
    hints->sited[0] = hints->sited[1] = 0;
    hints->lone = false;
    block->hints = hints;
    return hints;
}

/* The site is filled anew: was it just so a moment ago? */
static void missed(struct soft_vcpu *v, struct xlate_access *a)
{
    uint64_t now = v->space->frame.icount;
    if (now - a->last >= NEAR) {
        a->score -= MIN(a->score, 4);
    } else if (++a->score >= MISSES) {
        struct block_hints *hints = xlate_hints(v, a->block);
        bitmap_set(hints->hashed, a->op);
        bitmap_clear(hints->sited, a->op);
        a->again = true;
    }
    a->last = now;
}

/* The hashed TLB does not have the page: did this access put it there the last time? */
static void evicted(struct soft_vcpu *v, uint64_t linear, struct xlate_access *a)
{
    uint32_t page = linear >> (a->huge ? 21 : GUEST_PAGE_SHIFT);
    if (a->page != page) {
        a->page = page;
        a->score -= MIN(a->score, 4);
    } else if (++a->score >= MISSES) {
        struct block_hints *hints = xlate_hints(v, a->block);
        bitmap_set(hints->sited, a->op);
        bitmap_clear(hints->hashed, a->op);
        bitmap_clear(hints->huge, a->op);
        a->again = true;
    }
}

static uint64_t crossed(struct soft_vcpu *v, uint64_t linear, struct xlate_access *a)
{
    if (a->bounce)
        return cross(v, linear, a);
    uint64_t now = v->space->frame.icount;
    if (a->group && now - a->last < FAR && ++a->score == CROSSINGS)
        xlate_hints(v, a->block)->lone = a->again = true;
    a->last = now;
    return MISS_LEAVE;
}

static bool crosses(uint64_t linear, unsigned size)
{
    return (linear & 0xfff) + size > GUEST_PAGE_SIZE;
}

/* What can be done with the TLB as it is. */
static uint64_t find(struct soft_vcpu *v, uint64_t linear, struct xlate_access *a)
{
    if (!soft_canonical(linear) || !soft_canonical(linear + a->size))
        return MISS_LEAVE;
    if (a->hashed && crosses(linear, a->size))
        return crossed(v, linear, a);
    if (a->huge ? in_huge(v->space, linear) : a->hashed && in_tlb(v->space, linear, a->write))
        return MISS_RETRY;
    if (a->hashed) {
        if (!a->huge && !a->write && in_huge(v->space, linear)) {
            if (++a->score >= MISSES) {
                bitmap_set(xlate_hints(v, a->block)->huge, a->op);
                a->again = true;
            }
        } else {
            evicted(v, linear, a);
        }
        return MISS_WALK;
    }
    const struct soft_site *site = &v->space->sites[a->write].at[a->site];
    bool walks = goes_on(site, linear);
    switch (soft_site_fill(v, linear, a->site, a->write)) {
    case SITE_READY:
        if (!walks)
            missed(v, a);
        return MISS_RETRY;
    case SITE_CROSS:
        return crossed(v, linear, a);
    default:
        return MISS_WALK;
    }
}

/* Do sites that are filled for the access show that its pages should be mirrored? */
static bool wants_mirror(struct soft_vcpu *v, uint64_t linear, const struct xlate_access *a)
{
    struct mirror_run run;
    if (a->hashed || a->huge || (!a->write && in_huge(v->space, linear)))
        return false;
    unsigned span = SITE_SPAN(a->site);
    if (soft_mirror_find(v->space, linear, a->write, &run) &&
        linear + span - run.start <= run.length)
        return false;
    bool wanted = soft_mirror_wanted(v, linear);
    return (crosses(linear, span) && soft_mirror_wanted(v, linear + span - 1)) || wanted;
}

uint64_t xlate_miss(struct soft_vcpu *v, uint64_t linear, struct xlate_access *a)
{
    if ((v->vm->dirty_log && a->write) || v->vm->modes.crossings || wants_mirror(v, linear, a))
        return MISS_WALK;
    uint64_t result = find(v, linear, a);
    return a->again ? MISS_WALK : result;
}

/* Test mode crossings: on a copy, as if a page ended in the access. The copy is aligned to 16
   bytes, and an instruction may want more. */
static uint64_t cross_forced(struct soft_vcpu *v, uint64_t linear, const struct xlate_access *a)
{
    struct xlate_frame *frame = &v->space->frame;
    if (a->group) {
        xlate_hints(v, a->block)->lone = true;
        xlate_again(v, a->block);
    }
    if (!a->bounce || v->watching || (a->size > 16 && !(linear & 31)))
        return MISS_LEAVE;
    unsigned first = a->size;
    if (crosses(linear, a->size))
        first = GUEST_PAGE_SIZE - (linear & 0xfff);
    else if (soft_crossing_forced(v, linear, a->size))
        first = a->size / 2;
    frame->part_len[0] = first;
    frame->part_len[1] = a->size - first;
    for (unsigned i = 0, at = 0; at < a->size; at += frame->part_len[i++]) {
        frame->part[i] = soft_host_try(v, linear + at, a->write);
        if (!frame->part[i])
            return MISS_LEAVE;
        if (a->size == 2 && first == 2)
            host_store((uintptr_t)frame->bounce, 2, host_load((uintptr_t)frame->part[0], 2));
        else
            copy(frame->bounce + at, frame->part[i], frame->part_len[i]);
    }
    return MISS_CROSS;
}

static bool fill(struct soft_vcpu *v, uint64_t linear, bool write)
{
    return in_tlb(v->space, linear, write) || soft_tlb_fill(v, linear, write);
}

uint64_t xlate_walk(struct soft_vcpu *v, uint64_t linear, struct xlate_access *a)
{
    if (unlikely(v->vm->modes.crossings))
        return cross_forced(v, linear, a);
    if (a->huge ? !soft_tlb_fill(v, linear, false) : !fill(v, linear, a->write))
        return MISS_LEAVE;
    if (a->bounce && crosses(linear, a->size) && !fill(v, linear + a->size - 1, a->write))
        return MISS_LEAVE;
    if (wants_mirror(v, linear, a)) {
        enum mirror_result mirrored = soft_mirror_add(v, linear, a->write);
        if (mirrored == MIRROR_OTHERS_GONE)
            return MISS_LEAVE;
        if (mirrored == MIRROR_ADDED)
            a->score = 0;
    }
    uint64_t result = find(v, linear, a);
    if (a->huge && result == MISS_WALK) { /* not a large page: this was no good idea */
        bitmap_clear(xlate_hints(v, a->block)->huge, a->op);
        a->again = true;
    }
    if (a->again)
        xlate_again(v, a->block);
    a->again = false;
    return result == MISS_WALK ? MISS_LEAVE : result;
}
