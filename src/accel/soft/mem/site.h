/*
 * The sites of translated code (xlate/frame.h): filled from the TLBs, emptied with them.
 *
 * A site is a copy of TLB entries, and goes whenever such entries must go: the flushes of tlb.c end
 * here too. An entry that only makes room for another leaves its copies alone.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_SITE_H
#define TENON_ACCEL_SOFT_SITE_H

#include "accel/soft/soft.h"

enum site_result {
    SITE_READY, /* the site is filled */
    SITE_CROSS, /* the span does not lie in one window */
    SITE_WALK,  /* the TLB does not have it: soft_tlb_fill first */
};

/* Fills site `index` for its span at `linear`. Changes no vector register, but for a write while
   dirty pages are logged. */
enum site_result soft_site_fill(struct soft_vcpu *v, uint64_t linear, unsigned index, bool write);

/* Empties all. */
void soft_sites_flush(struct soft_vcpu *v, struct soft_space *space, bool write);
/* Those whose window has the page, by linear or by host address. */
void soft_sites_drop_page(struct soft_vcpu *v, struct soft_space *space, uint64_t linear);
void soft_sites_drop_host(struct soft_vcpu *v, struct soft_space *space, uintptr_t page);

#endif
