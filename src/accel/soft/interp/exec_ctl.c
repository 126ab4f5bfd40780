/*
 * General executors of near jumps, calls and returns, and of the odd instructions: BOUND, XLAT,
 * decimal adjustment.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/interp/exec_all.h"

#include "accel/soft/interp/operand.h"
#include "accel/soft/system/segment.h"

void soft_jump(struct soft_vcpu *v, uint64_t rip, unsigned opsize)
{
    if (v->mode == INSN_64) {
        if (unlikely(!soft_canonical(rip)))
            soft_gp(v, 0);
    } else {
        rip = opsize == 2 ? (uint16_t)rip : (uint32_t)rip;
        if (unlikely(rip > v->seg[X86_CS].limit))
            soft_gp(v, 0);
    }
    v->next_rip = rip;
}

void exec_jmp(struct soft_vcpu *v, const struct insn *insn)
{
    soft_jump(v, v->next_rip + insn->imm, insn->opsize);
}

void exec_jcc(struct soft_vcpu *v, const struct insn *insn)
{
    if (cc_test_slow(v, insn->opcode & 15))
        exec_jmp(v, insn);
}

void exec_jmpi(struct soft_vcpu *v, const struct insn *insn)
{
    soft_jump(v, get_operand(v, insn, 0), insn->opsize);
}

static void call(struct soft_vcpu *v, uint64_t target, unsigned opsize)
{
    uint64_t back = v->next_rip;
    soft_jump(v, target, opsize);
    soft_push(v, opsize, back);
}

void exec_call(struct soft_vcpu *v, const struct insn *insn)
{
    call(v, v->next_rip + insn->imm, insn->opsize);
}

void exec_calli(struct soft_vcpu *v, const struct insn *insn)
{
    call(v, get_operand(v, insn, 0), insn->opsize);
}

void exec_ret(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t old = v->r[X86_RSP];
    uint64_t target = soft_pop(v, insn->opsize);
    uint64_t after = v->r[X86_RSP];
    v->r[X86_RSP] = old;
    soft_jump(v, target, insn->opsize);
    uint64_t mask = soft_stack_mask(v, &v->seg[X86_SS]);
    v->r[X86_RSP] = (after & ~mask) | ((after + (uint16_t)insn->imm) & mask);
}

void exec_loop(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t count = zero_extend(v->r[X86_RCX] - 1, insn->addrsize);
    bool zero = cc_compute(v) & FL_ZF;
    bool jump = count && (insn->id == I_LOOP || zero == (insn->id == I_LOOPE));
    uint64_t fall = v->next_rip;
    if (jump)
        soft_jump(v, fall + insn->imm, insn->opsize);
    put_reg(v, insn, X86_RCX, insn->addrsize, count);
}

void exec_jcxz(struct soft_vcpu *v, const struct insn *insn)
{
    if (!zero_extend(v->r[X86_RCX], insn->addrsize))
        exec_jmp(v, insn);
}

void exec_nop(struct soft_vcpu *v, const struct insn *insn)
{
}

void exec_ud(struct soft_vcpu *v, const struct insn *insn)
{
    soft_ud(v);
}

void exec_bound(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize;
    uint64_t at = soft_linear(v, insn, 2 * n, ACC_READ);
    int64_t low = sign_extend(soft_load(v, at, n), n);
    int64_t high = sign_extend(soft_load(v, soft_lin(v, at + n), n), n);
    int64_t index = sign_extend(v->r[insn->reg], n);
    if (index < low || index > high)
        soft_raise(v, VEC_BR, 0);
}

void exec_xlat(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t ea = zero_extend(v->r[X86_RBX] + (uint8_t)v->r[X86_RAX], insn->addrsize);
    uint64_t value = soft_load(v, soft_seg_linear(v, insn->seg, ea, 1, ACC_READ), 1);
    *(uint8_t *)&v->r[X86_RAX] = value;
}

void exec_salc(struct soft_vcpu *v, const struct insn *insn)
{
    *(uint8_t *)&v->r[X86_RAX] = cc_carry(v) ? 0xff : 0;
}

static uint32_t result_flags(uint8_t r)
{
    return (r ? 0 : FL_ZF) | (r & 0x80 ? FL_SF : 0) | (__builtin_parity(r) ? 0 : FL_PF);
}

static void daa_das(struct soft_vcpu *v, bool add)
{
    uint8_t *al = (uint8_t *)&v->r[X86_RAX], old = *al;
    uint32_t f = cc_compute(v), out = 0;
    if ((old & 15) > 9 || f & FL_AF) {
        *al += add ? 6 : -6;
        out |= FL_AF;
        if (f & FL_CF || (add ? old > 0xf9 : old < 6))
            out |= FL_CF;
    }
    if (old > 0x99 || f & FL_CF) {
        *al += add ? 0x60 : -0x60;
        out |= FL_CF;
    }
    cc_set_flags(v, out | result_flags(*al));
}

static void aaa_aas(struct soft_vcpu *v, bool add)
{
    uint16_t ax = v->r[X86_RAX];
    uint32_t out = 0;
    if ((ax & 15) > 9 || cc_compute(v) & FL_AF) {
        ax = add ? ax + 0x106 : ax - 6 - 0x100;
        out = FL_AF | FL_CF;
    }
    ax &= 0xff0f;
    v->r[X86_RAX] = (v->r[X86_RAX] & ~0xffffull) | ax;
    cc_set_flags(v, out | result_flags(ax));
}

/* DAA, DAS, AAA, AAS, AAM, AAD. */
void exec_bcd(struct soft_vcpu *v, const struct insn *insn)
{
    uint8_t al = v->r[X86_RAX], ah = v->r[X86_RAX] >> 8, base = insn->imm;
    uint16_t ax;
    switch (insn->id) {
    case I_DAA:
        daa_das(v, true);
        return;
    case I_DAS:
        daa_das(v, false);
        return;
    case I_AAA:
        aaa_aas(v, true);
        return;
    case I_AAS:
        aaa_aas(v, false);
        return;
    case I_AAM:
        if (!base)
            soft_raise(v, VEC_DE, 0);
        ax = (al / base) << 8 | al % base;
        break;
    default:
        ax = (uint8_t)(al + ah * base);
        break;
    }
    v->r[X86_RAX] = (v->r[X86_RAX] & ~0xffffull) | ax;
    cc_set_flags(v, result_flags(ax));
}
