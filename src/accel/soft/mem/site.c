/*
 * Fills and empties the sites of translated code. See site.h.
 *
 * The vCPU's thread. Translated code comes here with the guest's vector registers in the host's,
 * so this file is compiled without them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma GCC target("general-regs-only")

#include "accel/soft/mem/site.h"

#include "accel/soft/mem/mirror.h"
#include "accel/soft/mem/tlb.h"

/* Pages to each side that a window takes in if they happen to lie beside it in RAM. */
#define REACH 4

static unsigned seen_bit(uint64_t linear)
{
    return (linear >> 12 ^ linear >> 24) % SITE_SEEN;
}

/* Dirty log: the pages of a write window may have been written until now. */
static void write_dropped(struct soft_vcpu *v, const struct soft_site *site, unsigned span)
{
    if (likely(!v->vm->dirty_log) || !site->limit)
        return;
    for (uint64_t at = 0; at < site->limit + span - 1; at += GUEST_PAGE_SIZE) {
        struct soft_tlbe e = {.tag = site->start + at, .addend = site->addend};
        tlb_write_dropped(v, tlb_index(e.tag), &e);
    }
}

static void empty(struct soft_vcpu *v, struct soft_sites *sites, unsigned index, bool write)
{
    struct soft_site *site = &sites->at[index];
    if (write)
        write_dropped(v, site, SITE_SPAN(index));
    site->limit = 0;
}

/* The k-th site that may be in use; `count` of them. */
static unsigned used(const struct soft_sites *sites, unsigned k)
{
    return sites->n > SITE_LOG ? k : sites->log[k];
}

static unsigned count(const struct soft_sites *sites)
{
    return sites->n > SITE_LOG ? SITE_COUNT : sites->n;
}

void soft_sites_flush(struct soft_vcpu *v, struct soft_space *space, bool write)
{
    struct soft_sites *sites = &space->sites[write];
    for (unsigned k = 0; k < count(sites); k++)
        empty(v, sites, used(sites, k), write);
    if (sites->n)
        memset(sites->seen, 0, sizeof(sites->seen));
    sites->n = 0;
    soft_mirror_flush(v, space, write);
}

/* Empties the k-th site; 1 when another has that place in the log now. */
static unsigned drop(struct soft_vcpu *v, struct soft_sites *sites, unsigned k, bool write)
{
    empty(v, sites, used(sites, k), write);
    if (sites->n > SITE_LOG)
        return 0;
    sites->log[k] = sites->log[--sites->n];
    return 1;
}

/* Is the page of `linear` in the window? */
static bool covers(const struct soft_site *site, uint64_t linear, unsigned span)
{
    return site->limit && (linear & ~0xfffull) - site->start < site->limit + span - 1;
}

static void drop_page(struct soft_vcpu *v, struct soft_space *space, uint64_t linear, bool write)
{
    struct soft_sites *sites = &space->sites[write];
    unsigned bit = seen_bit(linear);
    if (!soft_mirror_drop(v, space, linear, write) && !(sites->seen[bit / 64] >> bit % 64 & 1))
        return;
    for (unsigned k = 0; k < count(sites); k++)
        if (covers(&sites->at[used(sites, k)], linear, SITE_SPAN(used(sites, k))))
            k -= drop(v, sites, k, write);
}

void soft_sites_drop_page(struct soft_vcpu *v, struct soft_space *space, uint64_t linear)
{
    drop_page(v, space, linear, false);
    drop_page(v, space, linear, true);
}

void soft_sites_drop_host(struct soft_vcpu *v, struct soft_space *space, uintptr_t page)
{
    struct soft_sites *sites = &space->sites[1];
    for (unsigned k = 0; k < count(sites); k++) {
        const struct soft_site *site = &sites->at[used(sites, k)];
        if (covers(site, page - site->addend, SITE_SPAN(used(sites, k))))
            k -= drop(v, sites, k, true);
    }
    const uint8_t *host = (const uint8_t *)page;
    uint64_t at = 0;
    while ((at = soft_mirror_next(space, host, at)) != UINT64_MAX)
        drop_page(v, space, at, true);
}

struct window {
    const struct soft_tlbe *table; /* whose entries it was made of; NULL: others */
    uint64_t start, length, addend;
};

static bool has_page(const struct window *w, uint64_t page)
{
    const struct soft_tlbe *e = &w->table[tlb_index(page)];
    return page && e->tag == page && e->addend == w->addend;
}

static void widen(struct window *w)
{
    for (unsigned i = 0; i < REACH && has_page(w, w->start + w->length); i++)
        w->length += GUEST_PAGE_SIZE;
    for (unsigned i = 0; i < REACH && has_page(w, w->start - GUEST_PAGE_SIZE); i++) {
        w->start -= GUEST_PAGE_SIZE;
        w->length += GUEST_PAGE_SIZE;
    }
}

static void put(struct soft_vcpu *v, struct soft_space *space, unsigned index, bool write,
                const struct window *w)
{
    struct soft_sites *sites = &space->sites[write];
    struct soft_site *site = &sites->at[index];
    if (!site->limit) {
        if (sites->n < SITE_LOG)
            sites->log[sites->n] = index;
        sites->n++;
    }
    if (write)
        write_dropped(v, site, SITE_SPAN(index));
    *site = (struct soft_site){
        .start = w->start, .limit = w->length - SITE_SPAN(index) + 1, .addend = w->addend};
    /* The flush of a large page empties all sites, and the mirror knows its own. */
    for (uint64_t at = 0; at < w->length && w->table; at += GUEST_PAGE_SIZE) {
        unsigned bit = seen_bit(w->start + at);
        sites->seen[bit / 64] |= 1ull << bit % 64;
    }
}

enum site_result soft_site_fill(struct soft_vcpu *v, uint64_t linear, unsigned index, bool write)
{
    struct soft_space *space = v->space;
    uint64_t page = linear & ~0xfffull;
    struct window w = {
        .table = write ? space->write : space->read, .start = page, .length = GUEST_PAGE_SIZE};
    const struct soft_tlbe *e = &w.table[tlb_index(page)];
    const struct soft_tlbe *huge = &space->huge[huge_index(linear)];
    struct mirror_run run;
    if (soft_mirror_find(space, linear, write, &run)) {
        w = (struct window){.start = run.start, .length = run.length, .addend = run.addend};
    } else if (!write && (linear ^ huge->tag) < MIB(2)) {
        w.start = huge->tag;
        w.length = MIB(2);
        w.addend = huge->addend;
        w.table = NULL;
    } else if (e->tag == page) {
        w.addend = e->addend;
        widen(&w);
    } else {
        return SITE_WALK;
    }
    if (linear - w.start > w.length - SITE_SPAN(index))
        return SITE_CROSS;
    put(v, space, index, write, &w);
    return SITE_READY;
}
