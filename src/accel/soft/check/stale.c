/*
 * Stale translations: see stale.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/check/stale.h"

#include "accel/soft/interp/block.h"
#include "accel/soft/mem/tlb.h"

/* Do the tables give another page than the one at `host`, or none? */
static bool page_stale(struct soft_vcpu *v, uint64_t page, const uint8_t *host,
                       enum soft_access access)
{
    struct walk walk;
    if (!soft_canonical(page))
        return false;
    if (!soft_walk_try(v, page, access, v->cpl == 3, &walk))
        return true;
    const struct soft_ram *ram = soft_ram_find(v->vm->mem, walk.gpa);
    return !ram || soft_ram_host(ram, walk.gpa) != host;
}

static bool window_stale(struct soft_vcpu *v, uint64_t start, uint64_t length, uint64_t addend,
                         enum soft_access access)
{
    for (uint64_t at = start & ~0xfffull; at < start + length; at += GUEST_PAGE_SIZE)
        if (page_stale(v, at, (uint8_t *)(uintptr_t)(at + addend), access))
            return true;
    return false;
}

static bool entries_stale(struct soft_vcpu *v, const struct soft_tlbe *entries, unsigned count,
                          enum soft_access access)
{
    for (unsigned i = 0; i < count; i++)
        if (entries[i].tag != tlb_empty_tag(i) &&
            window_stale(v, entries[i].tag, 1, entries[i].addend, access))
            return true;
    return false;
}

static bool sites_stale(struct soft_vcpu *v, const struct soft_sites *sites,
                        enum soft_access access)
{
    for (unsigned i = 0; i < SITE_COUNT; i++) {
        const struct soft_site *site = &sites->at[i];
        if (site->limit &&
            window_stale(v, site->start, site->limit + SITE_SPAN(i) - 1, site->addend, access))
            return true;
    }
    return false;
}

static bool huge_stale(struct soft_vcpu *v, const struct soft_space *space)
{
    for (unsigned i = 0; i < ARRAY_SIZE(space->huge); i++)
        if (huge_index(space->huge[i].tag) == i &&
            window_stale(v, space->huge[i].tag, MIB(2), space->huge[i].addend, ACC_READ))
            return true;
    return false;
}

bool soft_space_stale(struct soft_vcpu *v, const struct soft_space *space)
{
    return entries_stale(v, space->read, TLB_SIZE, ACC_READ) ||
           entries_stale(v, space->write, TLB_SIZE, ACC_WRITE) ||
           entries_stale(v, space->exec, TLBX_SIZE, ACC_EXEC) ||
           sites_stale(v, &space->sites[0], ACC_READ) ||
           sites_stale(v, &space->sites[1], ACC_WRITE) || huge_stale(v, space);
}
