/*
 * Ops that are not instructions of their own: the general one, block ends, looking blocks up.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/interp/ops.h"

#include "accel/soft/run.h"

static inline void run_general(struct soft_vcpu *v, const struct op *op)
{
    const struct insn *insn = op->insn;
    v->rip = v->r[R_BLOCK] + op->off;
    v->next_rip = v->rip + op->len;
    if (unlikely(v->mode != INSN_64)) {
        v->rip = (uint32_t)v->rip;
        v->next_rip = (uint32_t)v->next_rip;
    }
    v->stack_access = false;
    if (unlikely(insn->id == I_COUNT || (insn->flags & INSN_F_PRIV && v->cpl != 0)))
        soft_gp(v, 0);
    soft_exec[insn->id](v, insn);
}

const struct op *op_generic(struct soft_vcpu *v, const struct op *op)
{
    run_general(v, op);
    NEXT_OP(v, op);
}

/* System calls and returns, with nothing for the run loop to do behind them. */
static bool goes_on(const struct soft_vcpu *v, const struct insn *insn)
{
    return (insn->id == I_SYSCALL || insn->id == I_SYSRET || insn->id == I_IRET) &&
           !v->intr_maybe && !v->nmi_pending && !v->shadow && !soft_wants_step(v);
}

const struct op *op_generic_end(struct soft_vcpu *v, const struct op *op)
{
    run_general(v, op);
    v->icount += op->n;
    v->rip = v->next_rip;
    if (op->insn->flags & INSN_F_STATE) {
        if (!goes_on(v, op->insn))
            return NULL;
        v->rflags &= ~FL_RF;
    }
    return enter_rip(v, v->rip);
}

const struct op *soft_lookup(struct soft_vcpu *v, uint64_t rip)
{
    v->rip = rip;
    struct block *block = soft_block_find(v);
    v->r[R_BLOCK] = rip;
    return block->ops;
}

const struct op *soft_link(struct soft_vcpu *v, const struct op *op, uint64_t rip)
{
    v->rip = rip;
    const uint64_t used = v->code->used;
    struct block *block = soft_block_find(v);
    /* A flush of the arena may have taken this very op away: then it is not linked. */
    if (v->code->used >= used)
        ((struct op *)(uintptr_t)op)->link = block;
    v->r[R_BLOCK] = rip;
    return block->ops;
}

const struct op *op_lookup(struct soft_vcpu *v, const struct op *op)
{
    GOTO_OP(v, soft_lookup(v, v->r[R_BLOCK]));
}

const struct op *op_dead(struct soft_vcpu *v, const struct op *op)
{
    uint64_t rip = v->r[R_BLOCK] + op->off;
    if (op->n)
        v->icount += op->n - 1u;
    GOTO_OP(v, soft_lookup(v, v->mode == INSN_64 ? rip : (uint32_t)rip));
}

const struct op *op_fallthrough(struct soft_vcpu *v, const struct op *op)
{
    v->icount += op->n;
    uint64_t rip = v->r[R_BLOCK] + op->disp;
    if (unlikely(v->mode != INSN_64))
        rip = (uint32_t)rip;
    if (op->a)
        return enter_link(v, op, rip);
    return enter_rip(v, rip);
}

/*
 * The page behind the instruction's first. Not inlined: an op with a local whose address is known
 * elsewhere keeps its frame when it jumps to the next op, and a guest's loop would fill the stack.
 */
static __attribute__((noinline)) uint64_t second_page(struct soft_vcpu *v, uint64_t linear)
{
    uint64_t gpa;
    soft_fetch_ptr(v, linear, &gpa);
    return gpa;
}

/* First op of a block whose instruction crosses a page: is the next page still what it was? */
const struct op *op_crossing(struct soft_vcpu *v, const struct op *op)
{
    v->rip = v->r[R_BLOCK];
    uint64_t linear = v->rip + op->disp;
    if (v->mode != INSN_64)
        linear = (uint32_t)(linear + v->seg[X86_CS].base);
    if (unlikely(second_page(v, linear) != (uint64_t)op->imm)) {
        soft_code_drop(
            v, ((const struct block *)((const uint8_t *)op - offsetof(struct block, ops)))->gpa);
        GOTO_OP(v, soft_lookup(v, v->rip));
    }
    NEXT_OP(v, op);
}
