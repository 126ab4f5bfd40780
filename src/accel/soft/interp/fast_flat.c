/*
 * 32-bit code with flat segments, as firmware, boot loaders and old systems run: the specialised
 * ops of 64-bit code do for what is register or memory work; jumps and the stack have ops here.
 *
 * Flat is: protected mode without long mode, CS, SS, DS and ES from 0 to 4 GiB, data writable,
 * stack of 32 bits. Then a segment neither adds nor forbids anything, and an address needs only to
 * be cut to 32 bits. The TLBs have no entry for one that is not, so it takes the slow path, which
 * cuts it. Blocks of flat code have a key of their own: when a segment changes, others run.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma GCC target("general-regs-only")

#include "accel/soft/interp/fast.h"

#define TYPE_MASK 0xeu /* without "accessed" */
#define TYPE_DATA_WRITABLE 0x2u

static bool flat_data(const struct x86_segment *seg)
{
    return !seg->base && seg->limit == UINT32_MAX && !(seg->attr & X86_ATTR_UNUSABLE) &&
           (seg->attr & TYPE_MASK) == TYPE_DATA_WRITABLE;
}

void soft_flat_update(struct soft_vcpu *v)
{
    const struct x86_segment *seg = v->seg;

    v->flat = v->mode == INSN_32 && !v->long_mode && v->cr0 & CR0_PE && !seg[X86_CS].base &&
              seg[X86_CS].limit == UINT32_MAX && flat_data(&seg[X86_SS]) &&
              seg[X86_SS].attr & X86_ATTR_DB && flat_data(&seg[X86_DS]) && flat_data(&seg[X86_ES]);
    if (v->mode == INSN_32)
        v->salt = v->flat ? JC_SALT_32 | JC_SALT_FLAT : JC_SALT_32;
}

/* --- jumps --- */

FAST const struct op *near(struct soft_vcpu *v, const struct op *op)
{
    v->icount += op->n;
    return enter_link(v, op, (uint32_t)(v->r[R_BLOCK] + op->disp));
}

FAST const struct op *far(struct soft_vcpu *v, const struct op *op)
{
    v->icount += op->n;
    return enter_rip(v, (uint32_t)(v->r[R_BLOCK] + op->disp));
}

#define JCC(cc)                                                                                    \
    static const struct op *jcc_near_##cc(struct soft_vcpu *v, const struct op *op)                \
    {                                                                                              \
        if (!cc_test(v, cc))                                                                       \
            NEXT_OP(v, op);                                                                        \
        return near(v, op);                                                                        \
    }                                                                                              \
    static const struct op *jcc_far_##cc(struct soft_vcpu *v, const struct op *op)                 \
    {                                                                                              \
        if (!cc_test(v, cc))                                                                       \
            NEXT_OP(v, op);                                                                        \
        return far(v, op);                                                                         \
    }

FOR_EACH_CC(JCC)

#define JCC_ROW(cc) {jcc_near_##cc, jcc_far_##cc},
static op_fn *const flat_jcc[16][2] = {FOR_EACH_CC(JCC_ROW)};

static const struct op *jmp_near(struct soft_vcpu *v, const struct op *op)
{
    return near(v, op);
}

static const struct op *jmp_far(struct soft_vcpu *v, const struct op *op)
{
    return far(v, op);
}

/* --- stack --- */

FAST void push(struct soft_vcpu *v, const struct op *op, uint32_t value)
{
    uint32_t sp = (uint32_t)v->r[X86_RSP] - 4;

    fast_store(v, op, sp, 4, value);
    v->r[X86_RSP] = sp;
}

FAST void push_return(struct soft_vcpu *v, const struct op *op)
{
    push(v, op, (uint32_t)(v->r[R_BLOCK] + op->off + op->len));
}

static const struct op *call_near(struct soft_vcpu *v, const struct op *op)
{
    push_return(v, op);
    return near(v, op);
}

static const struct op *call_far(struct soft_vcpu *v, const struct op *op)
{
    push_return(v, op);
    return far(v, op);
}

static const struct op *ret(struct soft_vcpu *v, const struct op *op)
{
    uint32_t sp = (uint32_t)v->r[X86_RSP];
    uint64_t target = fast_load(v, op, sp, 4);

    v->r[X86_RSP] = (uint32_t)(sp + 4 + (uint16_t)op->imm);
    v->icount += op->n;
    return enter_rip(v, target);
}

static const struct op *jmp_r(struct soft_vcpu *v, const struct op *op)
{
    v->icount += op->n;
    return enter_rip(v, (uint32_t)v->r[op->a]);
}

static const struct op *call_r(struct soft_vcpu *v, const struct op *op)
{
    uint64_t target = (uint32_t)v->r[op->a];

    push_return(v, op);
    v->icount += op->n;
    return enter_rip(v, target);
}

OP_DEFINE(push_r, push(v, op, (uint32_t)v->r[op->a]))
OP_DEFINE(push_i, push(v, op, (uint32_t)op->imm))

static const struct op *pop_r(struct soft_vcpu *v, const struct op *op)
{
    uint32_t sp = (uint32_t)v->r[X86_RSP];
    uint64_t value = fast_load(v, op, sp, 4);

    v->r[X86_RSP] = (uint32_t)(sp + 4);
    v->r[op->a] = value; /* POP ESP: the value counts */
    NEXT_OP(v, op);
}

static const struct op *leave(struct soft_vcpu *v, const struct op *op)
{
    uint32_t sp = (uint32_t)v->r[X86_RBP];
    uint64_t value = fast_load(v, op, sp, 4);

    v->r[X86_RSP] = (uint32_t)(sp + 4);
    v->r[X86_RBP] = value;
    NEXT_OP(v, op);
}

/* --- choice --- */

static bool pick(struct op *op, op_fn *fn)
{
    op->fn = fn;
    return true;
}

static bool direct(struct op *op, const struct insn *insn, op_fn *near_fn, op_fn *far_fn)
{
    int64_t target = (int64_t)op->off + insn->len + (int32_t)insn->imm;
    int64_t in_page = target + op->c * 64 + op->d; /* block.c: offset of the block in its page */

    op->disp = (int32_t)target;
    op->link = NULL;
    return pick(op, in_page >= 0 && in_page < GUEST_PAGE_SIZE ? near_fn : far_fn);
}

static bool select_jump(struct op *op, const struct insn *insn)
{
    op->base = X86_RSP;
    op->seg = R_ZERO;
    op->a = insn->rm;
    switch (insn->id) {
    case I_JCC:
        return direct(op, insn, flat_jcc[insn->opcode & 15][0], flat_jcc[insn->opcode & 15][1]);
    case I_JMP:
        return direct(op, insn, jmp_near, jmp_far);
    case I_CALL:
        return direct(op, insn, call_near, call_far);
    case I_RET:
        op->imm = insn->imm;
        return pick(op, ret);
    case I_JMPI:
        return !insn->is_mem && pick(op, jmp_r);
    default:
        return !insn->is_mem && pick(op, call_r);
    }
}

static bool select_stack(struct op *op, const struct insn *insn)
{
    op->base = X86_RSP;
    op->seg = R_ZERO;
    op->a = insn->rm;
    op->imm = insn->imm;
    if (insn->is_mem)
        return false;
    switch (insn->id) {
    case I_PUSH:
        if (insn->op[0] >= O_Ib && insn->op[0] <= O_Iv)
            return pick(op, push_i);
        return pick(op, push_r);
    case I_POP:
        return pick(op, pop_r);
    default:
        return pick(op, leave);
    }
}

/* Needs neither a mode, nor a privilege, nor a segment's base. */
static bool is_plain(const struct insn *insn)
{
    switch (insn->id) {
    case I_ADD ... I_CMP:
    case I_TEST:
    case I_MOV:
    case I_INC:
    case I_DEC:
    case I_NOT:
    case I_NEG:
    case I_SHL:
    case I_SHR:
    case I_SAR:
    case I_ROL:
    case I_ROR:
    case I_MOVZX:
    case I_MOVSX:
    case I_IMUL2:
    case I_IMUL3:
    case I_NOP:
    case I_CBW:
    case I_CWD:
    case I_BSWAP:
    case I_SETCC:
    case I_CMOVCC:
    case I_LEA:
    case I_BT:
        return true;
    default:
        return false;
    }
}

bool soft_select_flat(struct op *op, const struct insn *insn)
{
    if (insn->prefix & INSN_LOCK || insn->rep ||
        (insn->is_mem && (insn->addrsize != 4 || insn->seg == X86_CS || insn->seg >= X86_FS)))
        return false;
    switch (insn->id) {
    case I_JCC:
    case I_JMP:
    case I_JMPI:
    case I_CALL:
    case I_CALLI:
    case I_RET:
        return insn->opsize == 4 && select_jump(op, insn);
    case I_PUSH:
    case I_POP:
    case I_LEAVE:
        return insn->opsize == 4 && select_stack(op, insn);
    default:
        break;
    }
    if (!is_plain(insn))
        return false;
    struct insn wide = *insn;
    wide.addrsize = 8;
    wide.disp = (int32_t)insn->disp;
    return soft_select(op, &wide);
}
