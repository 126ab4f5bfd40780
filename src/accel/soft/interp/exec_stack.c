/*
 * General executors of stack instructions (Intel SDM vol. 1, chapter 6).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/interp/exec_all.h"

#include "accel/soft/interp/operand.h"
#include "accel/soft/system/segment.h"

static uint64_t stack_mask(const struct soft_vcpu *v)
{
    return soft_stack_mask(v, &v->seg[X86_SS]);
}

static void set_sp(struct soft_vcpu *v, uint64_t sp)
{
    uint64_t mask = stack_mask(v);
    if (mask == 0xffffffff)
        v->r[X86_RSP] = (uint32_t)sp;
    else
        v->r[X86_RSP] = (v->r[X86_RSP] & ~mask) | (sp & mask);
}

static uint64_t stack_linear(struct soft_vcpu *v, uint64_t sp, unsigned size,
                             enum soft_access access)
{
    return soft_seg_linear(v, X86_SS, sp & stack_mask(v), size, access);
}

void soft_push(struct soft_vcpu *v, unsigned size, uint64_t value)
{
    uint64_t sp = v->r[X86_RSP] - size;
    soft_store(v, stack_linear(v, sp, size, ACC_WRITE), size, value);
    set_sp(v, sp);
}

static uint64_t peek(struct soft_vcpu *v, unsigned offset, unsigned size)
{
    return soft_load(v, stack_linear(v, v->r[X86_RSP] + offset, size, ACC_READ), size);
}

uint64_t soft_pop(struct soft_vcpu *v, unsigned size)
{
    uint64_t value = peek(v, 0, size);
    set_sp(v, v->r[X86_RSP] + size);
    return value;
}

void exec_push(struct soft_vcpu *v, const struct insn *insn)
{
    soft_push(v, insn->opsize, get_operand(v, insn, 0));
}

void exec_pop(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t value = peek(v, 0, insn->opsize), old = v->r[X86_RSP];
    /* The address of a memory operand is computed with the stack pointer after the pop. */
    set_sp(v, old + insn->opsize);
    if (insn->is_mem) {
        uint64_t after = v->r[X86_RSP];
        unsigned base = insn->base;
        uint64_t ea = soft_ea(v, insn);
        v->r[X86_RSP] = old; /* a fault must not show the new one */
        soft_store(v, soft_seg_linear(v, insn->seg, ea, insn->opsize, ACC_WRITE), insn->opsize,
                   value);
        v->r[X86_RSP] = after;
        (void)base;
        return;
    }
    put_operand(v, insn, 0, value);
}

void exec_pusha(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize;
    uint64_t sp = v->r[X86_RSP];
    soft_probe(v, stack_linear(v, sp - 8 * n, 8 * n, ACC_WRITE), 8 * n, ACC_WRITE);
    for (unsigned i = 0; i < 8; i++)
        soft_push(v, n, i == X86_RSP ? sp : v->r[i]);
}

void exec_popa(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize;
    uint64_t values[8];
    for (unsigned i = 0; i < 8; i++)
        values[i] = peek(v, i * n, n);
    for (unsigned i = 0; i < 8; i++)
        if (7 - i != X86_RSP)
            put_reg(v, insn, 7 - i, n, values[i]);
    set_sp(v, v->r[X86_RSP] + 8 * n);
}

static void vm86_iopl(struct soft_vcpu *v)
{
    if (v->rflags & FL_VM && (v->rflags >> FL_IOPL_SHIFT & 3) != 3)
        soft_gp(v, 0);
}

void exec_pushf(struct soft_vcpu *v, const struct insn *insn)
{
    vm86_iopl(v);
    soft_push(v, insn->opsize, soft_flags(v) & ~(FL_VM | FL_RF));
}

void exec_popf(struct soft_vcpu *v, const struct insn *insn)
{
    vm86_iopl(v);
    uint32_t mask = soft_popf_mask(v, insn->opsize) & ~FL_RF;
    uint32_t flags = soft_pop(v, insn->opsize);
    soft_set_flags(v, (soft_flags(v) & ~mask & ~FL_RF) | (flags & mask));
}

static const uint8_t seg_of[] = {X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS};

void exec_pushseg(struct soft_vcpu *v, const struct insn *insn)
{
    soft_push(v, insn->opsize, v->seg[seg_of[insn->op[0] - O_ES]].selector);
}

void exec_popseg(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned seg = seg_of[insn->op[0] - O_ES];
    uint64_t selector = peek(v, 0, insn->opsize);
    soft_load_seg(v, seg, selector);
    set_sp(v, v->r[X86_RSP] + insn->opsize);
    if (seg == X86_SS)
        v->shadow = SHADOW_SS;
}

void exec_enter(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize, level = insn->imm2 & 31;
    uint64_t mask = stack_mask(v), sp = v->r[X86_RSP];
    uint64_t low = sp - n * (level + 1) - (uint16_t)insn->imm;
    uint64_t end = stack_linear(v, low, n, ACC_WRITE);
    soft_check_alignment(v, end, n);
    soft_probe(v, end, n, ACC_WRITE);
    sp -= n;
    soft_store(v, stack_linear(v, sp, n, ACC_WRITE), n, v->r[X86_RBP]);
    uint64_t frame = sp, bp = v->r[X86_RBP];
    for (unsigned i = 1; i < level; i++) {
        bp -= n;
        uint64_t value = soft_load(v, stack_linear(v, bp, n, ACC_READ), n);
        sp -= n;
        soft_store(v, stack_linear(v, sp, n, ACC_WRITE), n, value);
    }
    if (level) {
        sp -= n;
        soft_store(v, stack_linear(v, sp, n, ACC_WRITE), n, frame);
    }
    put_reg(v, insn, X86_RBP, n == 2 && mask != 0xffff ? 2 : n, frame);
    set_sp(v, sp - (uint16_t)insn->imm);
}

void exec_leave(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize;
    uint64_t bp = v->r[X86_RBP];
    uint64_t value = soft_load(v, stack_linear(v, bp, n, ACC_READ), n);
    set_sp(v, bp + n);
    put_reg(v, insn, X86_RBP, n, value);
}
