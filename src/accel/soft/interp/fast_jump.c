/*
 * Specialised ops: near jumps, calls and returns of 64-bit code.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma GCC target("general-regs-only")

#include "accel/soft/interp/fast.h"

/* 64-bit code keys the jump cache by rip alone. */
FAST const struct op *go(struct soft_vcpu *v, uint64_t rip)
{
    if (unlikely(atomic_load_explicit(&v->events, memory_order_relaxed))) {
        v->rip = rip;
        return NULL;
    }
    const struct soft_jc *e = &v->space->jc[jc_index(rip)];
    if (likely(e->key == rip)) {
        v->r[R_BLOCK] = rip;
        GOTO_OP(v, e->block->ops);
    }
    GOTO_OP(v, soft_lookup(v, rip));
}

#define JCC(cc)                                                                                    \
    static const struct op *jcc_near_##cc(struct soft_vcpu *v, const struct op *op)                \
    {                                                                                              \
        if (!cc_test(v, cc))                                                                       \
            NEXT_OP(v, op);                                                                        \
        v->icount += op->n;                                                                        \
        return enter_link(v, op, v->r[R_BLOCK] + op->disp);                                        \
    }                                                                                              \
    static const struct op *jcc_far_##cc(struct soft_vcpu *v, const struct op *op)                 \
    {                                                                                              \
        if (!cc_test(v, cc))                                                                       \
            NEXT_OP(v, op);                                                                        \
        v->icount += op->n;                                                                        \
        return go(v, v->r[R_BLOCK] + op->disp);                                                    \
    }

FOR_EACH_CC(JCC)

#define JCC_ROW(cc) {jcc_near_##cc, jcc_far_##cc},
op_fn *const fast_jcc[16][2] = {FOR_EACH_CC(JCC_ROW)};

static const struct op *jmp_near(struct soft_vcpu *v, const struct op *op)
{
    v->icount += op->n;
    return enter_link(v, op, v->r[R_BLOCK] + op->disp);
}

static const struct op *jmp_far(struct soft_vcpu *v, const struct op *op)
{
    v->icount += op->n;
    return go(v, v->r[R_BLOCK] + op->disp);
}

op_fn *const fast_jmp[2] = {jmp_near, jmp_far};

FAST void push_return(struct soft_vcpu *v, const struct op *op)
{
    uint64_t sp = v->r[X86_RSP] - 8;
    fast_store(v, op, sp, 8, v->r[R_BLOCK] + op->off + op->len);
    v->r[X86_RSP] = sp;
}

static const struct op *call_near(struct soft_vcpu *v, const struct op *op)
{
    push_return(v, op);
    v->icount += op->n;
    return enter_link(v, op, v->r[R_BLOCK] + op->disp);
}

static const struct op *call_far(struct soft_vcpu *v, const struct op *op)
{
    push_return(v, op);
    v->icount += op->n;
    return go(v, v->r[R_BLOCK] + op->disp);
}

op_fn *const fast_call[2] = {call_near, call_far};

/* A target that is not canonical faults on the jump itself. */
static const struct op *bad_target(struct soft_vcpu *v, const struct op *op)
{
    v->rip = v->r[R_BLOCK] + op->off;
    soft_gp(v, 0);
}

const struct op *fast_ret(struct soft_vcpu *v, const struct op *op)
{
    uint64_t sp = v->r[X86_RSP];
    uint64_t target = fast_load(v, op, sp, 8);
    if (unlikely(!soft_canonical(target)))
        return bad_target(v, op);
    v->r[X86_RSP] = sp + 8 + (uint16_t)op->imm;
    v->icount += op->n;
    return go(v, target);
}

FAST const struct op *jump_to(struct soft_vcpu *v, const struct op *op, uint64_t target)
{
    if (unlikely(!soft_canonical(target)))
        return bad_target(v, op);
    v->icount += op->n;
    return go(v, target);
}

const struct op *fast_jmp_r(struct soft_vcpu *v, const struct op *op)
{
    return jump_to(v, op, v->r[op->a]);
}

const struct op *fast_jmp_m(struct soft_vcpu *v, const struct op *op)
{
    return jump_to(v, op, fast_load(v, op, fast_ea(v, op, EA_FULL), 8));
}

FAST const struct op *call_to(struct soft_vcpu *v, const struct op *op, uint64_t target)
{
    if (unlikely(!soft_canonical(target)))
        return bad_target(v, op);
    push_return(v, op);
    v->icount += op->n;
    return go(v, target);
}

const struct op *fast_call_r(struct soft_vcpu *v, const struct op *op)
{
    return call_to(v, op, v->r[op->a]);
}

const struct op *fast_call_m(struct soft_vcpu *v, const struct op *op)
{
    return call_to(v, op, fast_load(v, op, fast_ea(v, op, EA_FULL), 8));
}
