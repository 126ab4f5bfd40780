/*
 * How one block leads to the next.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_OPS_H
#define TENON_ACCEL_SOFT_OPS_H

#include "accel/soft/interp/block.h"
#include "accel/soft/mem/tlb.h"

/* First op at `rip`; finds or builds the block; raises. */
const struct op *soft_lookup(struct soft_vcpu *v, uint64_t rip);
/* The same, and remembers the block in op->link. */
const struct op *soft_link(struct soft_vcpu *v, const struct op *op, uint64_t rip);

/* Goes on at `rip`, wherever that is. */
static inline __attribute__((always_inline)) const struct op *enter_rip(struct soft_vcpu *v,
                                                                        uint64_t rip)
{
    if (unlikely(atomic_load_explicit(&v->events, memory_order_relaxed))) {
        v->rip = rip;
        return NULL;
    }
    uint64_t key = jc_key(v, rip);
    const struct soft_jc *e = &v->space->jc[jc_index(key)];
    if (likely(e->key == key)) {
        v->r[R_BLOCK] = rip;
        GOTO_OP(v, e->block->ops);
    }
    GOTO_OP(v, soft_lookup(v, rip));
}

/* Goes on at `rip`, which lies in the same page as `op`. */
static inline __attribute__((always_inline)) const struct op *
enter_link(struct soft_vcpu *v, const struct op *op, uint64_t rip)
{
    if (unlikely(atomic_load_explicit(&v->events, memory_order_relaxed))) {
        v->rip = rip;
        return NULL;
    }
    if (likely(op->link != NULL)) {
        v->r[R_BLOCK] = rip;
        GOTO_OP(v, op->link->ops);
    }
    GOTO_OP(v, soft_link(v, op, rip));
}

#endif
