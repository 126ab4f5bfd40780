/*
 * Test mode tlb=N: no more than N entries in the software TLBs of a vCPU, reads and writes
 * together. A new one drops the oldest, so that misses and everything behind them are frequent.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_FEW_H
#define TENON_ACCEL_SOFT_FEW_H

#include "accel/soft/soft.h"

/* To be freed with free(). */
struct few *few_new(uint32_t entries);
/* An entry of a TLB of `space` is about to be filled for the page of `linear`. */
void few_filled(struct soft_vcpu *v, struct soft_space *space, struct soft_tlbe *entry,
                uint64_t linear);

#endif
