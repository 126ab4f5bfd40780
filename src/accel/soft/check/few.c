/*
 * A small TLB: see few.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/check/few.h"

#include "accel/soft/mem/site.h"
#include "accel/soft/mem/tlb.h"

struct few {
    uint32_t entries, next;
    struct {
        struct soft_space *space;
        struct soft_tlbe *entry;
        uint64_t linear;
    } ring[];
};

struct few *few_new(uint32_t entries)
{
    struct few *few = xcalloc(1, sizeof(*few) + entries * sizeof(few->ring[0]));
    few->entries = entries;
    return few;
}

void few_filled(struct soft_vcpu *v, struct soft_space *space, struct soft_tlbe *entry,
                uint64_t linear)
{
    struct few *few = v->few;
    uint32_t i = few->next;
    if (few->ring[i].entry) {
        few->ring[i].entry->tag = tlb_empty_tag(tlb_index(few->ring[i].linear));
        soft_sites_drop_page(v, few->ring[i].space, few->ring[i].linear);
    }
    few->ring[i].space = space;
    few->ring[i].entry = entry;
    few->ring[i].linear = linear;
    few->next = (i + 1) % few->entries;
}
