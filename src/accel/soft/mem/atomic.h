/*
 * LOCKed read-modify-write as a loop over compare-and-swap on the host address, at the guest's own
 * width, so that it is atomic against other vCPUs and devices (Intel SDM vol. 3, 9.1).
 *
 * Where there is no host address (MMIO, an operand across a page boundary) the vCPUs take one lock
 * instead; those are not atomic against plain stores.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_ATOMIC_H
#define TENON_ACCEL_SOFT_ATOMIC_H

#include "accel/soft/interp/operand.h"

struct atomic {
    struct soft_vcpu *v;
    void *host; /* NULL: under the lock */
    uint64_t linear;
    uint64_t code; /* the operand's gpa in a page with code, or UINT64_MAX */
    unsigned size;
};

/* Checks the operand's rights; raises before anything is locked. */
void atomic_begin(struct soft_vcpu *v, const struct insn *insn, unsigned size,
                  struct atomic *atomic);
void atomic_begin_at(struct soft_vcpu *v, uint64_t linear, unsigned size, struct atomic *atomic);
uint64_t atomic_old(const struct atomic *atomic);
/* Stores `new_value` if memory still holds `old`. */
bool atomic_replace(const struct atomic *atomic, uint64_t old, uint64_t new_value);
/* Gives the lock back if this vCPU holds it: after an exception in the middle. */
void soft_split_drop(struct soft_vcpu *v);
void atomic_end(struct soft_vcpu *v, const struct atomic *atomic);

#endif
