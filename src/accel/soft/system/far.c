/*
 * Transfers of control between segments and privileges (Intel SDM vol. 3, 5.8): far jumps, calls
 * and returns, call gates, IRET, SYSCALL, SYSENTER and their returns. Task switches raise #GP: no
 * operating system of the 64-bit age uses them.
 *
 * Runs on the vCPU's thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/interp/operand.h"
#include "accel/soft/system/segment.h"

uint64_t soft_stack_mask(const struct soft_vcpu *v, const struct x86_segment *ss)
{
    if (v->mode == INSN_64)
        return ~0ull;
    return ss->attr & X86_ATTR_DB ? 0xffffffff : 0xffff;
}

void new_stack_push(struct soft_vcpu *v, struct new_stack *stack, unsigned size, uint64_t value)
{
    uint64_t sp = (stack->sp - size) & stack->mask;
    uint64_t linear = soft_lin(v, stack->base + sp);
    v->stack_access = true;
    if (stack->cpl == 3)
        soft_store(v, linear, size, value);
    else
        soft_store_sys(v, linear, size, value);
    stack->sp = (stack->sp & ~stack->mask) | sp;
}

void soft_check_ss(struct soft_vcpu *v, uint16_t selector, unsigned cpl, int vector,
                   struct x86_segment *ss)
{
    uint16_t error = selector & ~3;
    uint64_t desc;
    if (!error || !soft_descriptor(v, selector, &desc))
        soft_raise(v, vector, error);
    *ss = soft_unpack(selector, desc);
    if ((selector & 3u) != cpl || seg_dpl(ss) != cpl || !(ss->attr & X86_ATTR_S) ||
        ss->attr & SEG_CODE || !(ss->attr & SEG_WRITE))
        soft_raise(v, vector, error);
    if (!(ss->attr & X86_ATTR_P))
        soft_raise(v, VEC_SS, error);
    ss->attr |= 1;
}

static bool real_like(const struct soft_vcpu *v)
{
    return !(v->cr0 & CR0_PE) || v->rflags & FL_VM;
}

static void real_transfer(struct soft_vcpu *v, uint16_t selector, uint64_t offset)
{
    if (offset > 0xffff && !(v->seg[X86_CS].limit > 0xffff))
        soft_gp(v, 0);
    soft_set_seg_real(v, X86_CS, selector);
    v->next_rip = offset;
    soft_mode_changed(v);
}

static void check_target(struct soft_vcpu *v, const struct x86_segment *cs, uint64_t rip)
{
    if (v->long_mode && cs->attr & X86_ATTR_L ? !soft_canonical(rip) : rip > cs->limit)
        soft_gp(v, 0);
}

struct gate {
    uint16_t selector;
    uint64_t offset;
    unsigned params, size; /* words to copy; bytes of a word */
};

/* A call gate's contents, or false for a code segment. */
static bool read_gate(struct soft_vcpu *v, uint16_t selector, struct gate *gate)
{
    uint16_t error = selector & ~3;
    uint64_t desc;
    if (!error || !soft_descriptor(v, selector, &desc))
        soft_gp(v, error);
    if (desc >> 44 & 1)
        return false;
    unsigned type = desc >> 40 & 15, dpl = desc >> 45 & 3;
    if (type != 12 && (type != 4 || v->long_mode))
        soft_gp(v, error); /* also TSS and task gates */
    if (v->cpl > dpl || (selector & 3u) > dpl)
        soft_gp(v, error);
    if (!(desc >> 47 & 1))
        soft_raise(v, VEC_NP, error);
    gate->selector = desc >> 16;
    gate->offset = (desc & 0xffff) | (desc >> 32 & 0xffff0000);
    gate->params = desc >> 32 & 31;
    gate->size = type == 4 ? 2 : 4;
    if (type == 4)
        gate->offset &= 0xffff;
    if (v->long_mode) {
        uint64_t base = selector & 4 ? v->ldt.base : v->gdt.base;
        gate->offset |= soft_load_sys(v, base + (selector & 0xfff8) + 8, 8) << 32;
        gate->size = 8;
        gate->params = 0;
    }
    return true;
}

/* Selector and offset that a far JMP or CALL names. */
static void far_operand(struct soft_vcpu *v, const struct insn *insn, uint16_t *selector,
                        uint64_t *offset)
{
    if (!insn->is_mem) {
        *selector = insn->imm2;
        *offset = insn->imm;
        return;
    }
    uint64_t at = soft_linear(v, insn, insn->opsize + 2, ACC_READ);
    *offset = soft_load(v, at, insn->opsize);
    *selector = soft_load(v, soft_lin(v, at + insn->opsize), 2);
}

void exec_jmpf(struct soft_vcpu *v, const struct insn *insn)
{
    uint16_t selector;
    uint64_t offset;
    far_operand(v, insn, &selector, &offset);
    if (real_like(v)) {
        real_transfer(v, selector, offset);
        return;
    }
    struct gate gate;
    struct x86_segment cs;
    uint64_t desc;
    if (read_gate(v, selector, &gate)) {
        selector = gate.selector & ~3;
        offset = gate.offset;
    }
    soft_check_code(v, selector, selector & 3, &cs, &desc, false);
    check_target(v, &cs, offset);
    soft_commit_cs(v, &cs, desc, v->cpl);
    v->next_rip = offset;
}

static void push_far(struct soft_vcpu *v, unsigned size)
{
    struct new_stack stack = {.base = v->r[R_SEG + X86_SS],
                              .sp = v->r[X86_RSP],
                              .mask = soft_stack_mask(v, &v->seg[X86_SS]),
                              .cpl = v->cpl};
    new_stack_push(v, &stack, size, v->seg[X86_CS].selector);
    new_stack_push(v, &stack, size, v->next_rip);
    v->r[X86_RSP] = stack.sp;
}

/* A call through a gate to more privilege: new stack from the TSS, parameters copied. */
static void call_inner(struct soft_vcpu *v, const struct gate *gate, struct x86_segment *cs,
                       uint64_t desc)
{
    unsigned cpl = seg_dpl(cs);
    uint16_t ss_selector;
    struct new_stack stack = {.cpl = cpl, .mask = ~0ull};
    struct x86_segment ss = {.selector = cpl, .attr = X86_ATTR_UNUSABLE | cpl << 5};
    soft_tss_stack(v, cpl, &ss_selector, &stack.sp);
    if (!v->long_mode) {
        soft_check_ss(v, ss_selector, cpl, VEC_TS, &ss);
        stack.base = ss.base;
        stack.mask = ss.attr & X86_ATTR_DB ? 0xffffffff : 0xffff;
    }
    uint64_t old_mask = soft_stack_mask(v, &v->seg[X86_SS]);
    new_stack_push(v, &stack, gate->size, v->seg[X86_SS].selector);
    new_stack_push(v, &stack, gate->size, v->r[X86_RSP]);
    for (unsigned i = gate->params; i > 0; i--) {
        uint64_t at = (v->r[X86_RSP] + (i - 1) * gate->size) & old_mask;
        new_stack_push(v, &stack, gate->size,
                       soft_load(v, soft_lin(v, v->r[R_SEG + X86_SS] + at), gate->size));
    }
    new_stack_push(v, &stack, gate->size, v->seg[X86_CS].selector);
    new_stack_push(v, &stack, gate->size, v->next_rip);
    soft_commit_cs(v, cs, desc, cpl);
    soft_set_seg(v, X86_SS, &ss);
    v->r[X86_RSP] = stack.sp;
}

void exec_callf(struct soft_vcpu *v, const struct insn *insn)
{
    uint16_t selector;
    uint64_t offset;
    far_operand(v, insn, &selector, &offset);
    if (real_like(v)) {
        push_far(v, insn->opsize);
        real_transfer(v, selector, offset);
        return;
    }
    struct gate gate;
    struct x86_segment cs;
    uint64_t desc;
    if (!read_gate(v, selector, &gate)) {
        soft_check_code(v, selector, selector & 3, &cs, &desc, false);
        check_target(v, &cs, offset);
        push_far(v, insn->opsize);
        soft_commit_cs(v, &cs, desc, v->cpl);
        v->next_rip = offset;
        return;
    }
    uint16_t error = gate.selector & ~3;
    if (!error || !soft_descriptor(v, gate.selector, &desc))
        soft_gp(v, error);
    cs = soft_unpack(gate.selector, desc);
    if (!(cs.attr & X86_ATTR_S) || !(cs.attr & SEG_CODE) || seg_dpl(&cs) > v->cpl ||
        (v->long_mode && !(cs.attr & X86_ATTR_L)))
        soft_gp(v, error);
    if (!(cs.attr & X86_ATTR_P))
        soft_raise(v, VEC_NP, error);
    check_target(v, &cs, gate.offset);
    if (!(cs.attr & SEG_CONFORM) && seg_dpl(&cs) < v->cpl) {
        call_inner(v, &gate, &cs, desc);
    } else {
        push_far(v, gate.size);
        soft_commit_cs(v, &cs, desc, v->cpl);
    }
    v->next_rip = gate.offset;
}

/* After a return to less privilege, data segments that it may not use become null. */
static void drop_inner_segments(struct soft_vcpu *v)
{
    static const uint8_t segs[] = {X86_ES, X86_DS, X86_FS, X86_GS};
    for (unsigned i = 0; i < ARRAY_SIZE(segs); i++) {
        struct x86_segment *s = &v->seg[segs[i]];
        if (s->attr & X86_ATTR_UNUSABLE)
            continue;
        bool conforming = s->attr & SEG_CODE && s->attr & SEG_CONFORM;
        if (!conforming && seg_dpl(s) < v->cpl) {
            /* The selector goes, the base stays: 64-bit code still adds those of FS and GS. */
            struct x86_segment null = {.attr = X86_ATTR_UNUSABLE,
                                       .base = v->long_mode ? s->base : 0};
            soft_set_seg(v, segs[i], &null);
        }
    }
}

/* Pops without moving the stack pointer until all checks are done. */
static uint64_t peek(struct soft_vcpu *v, unsigned *at, unsigned size)
{
    uint64_t mask = soft_stack_mask(v, &v->seg[X86_SS]);
    uint64_t sp = (v->r[X86_RSP] + *at) & mask;
    *at += size;
    v->stack_access = true;
    return soft_load(v, soft_lin(v, v->r[R_SEG + X86_SS] + sp), size);
}

static void set_sp(struct soft_vcpu *v, uint64_t mask, uint64_t sp)
{
    v->r[X86_RSP] = (v->r[X86_RSP] & ~mask) | (sp & mask);
}

/* The SS of a return: null is allowed towards 64-bit code outside ring 3. */
static void return_ss(struct soft_vcpu *v, uint16_t selector, unsigned cpl, bool to64,
                      struct x86_segment *ss)
{
    if (!(selector & ~3) && to64 && cpl != 3 && (selector & 3u) == cpl) {
        *ss = (struct x86_segment){.selector = selector, .attr = X86_ATTR_UNUSABLE | cpl << 5};
        return;
    }
    soft_check_ss(v, selector, cpl, VEC_GP, ss);
}

/* The common end of RETF and IRET in protected mode. `sp_at` is where RSP and SS would be popped.
 */
static void far_return(struct soft_vcpu *v, uint16_t selector, uint64_t rip, unsigned size,
                       unsigned at, unsigned extra, bool always_ss)
{
    unsigned cpl = selector & 3;
    if (cpl < v->cpl)
        soft_gp(v, selector & ~3);
    struct x86_segment cs, ss;
    uint64_t desc;
    soft_check_code(v, selector, cpl, &cs, &desc, true);
    bool outer = cpl > v->cpl, to64 = v->long_mode && cs.attr & X86_ATTR_L;
    uint64_t mask = soft_stack_mask(v, &v->seg[X86_SS]);
    uint64_t sp = v->r[X86_RSP] + at + extra;
    if (outer || always_ss) {
        at += extra;
        sp = peek(v, &at, size);
        uint16_t ss_selector = peek(v, &at, size);
        return_ss(v, ss_selector, cpl, to64, &ss);
    }
    check_target(v, &cs, rip);
    soft_commit_cs(v, &cs, desc, cpl);
    if (outer || always_ss) {
        soft_set_seg(v, X86_SS, &ss);
        mask = to64 ? ~0ull : ss.attr & X86_ATTR_DB ? 0xffffffff : 0xffff;
        set_sp(v, mask, sp + (outer && !always_ss ? extra : 0));
        if (outer)
            drop_inner_segments(v);
    } else {
        set_sp(v, mask, sp);
    }
    v->next_rip = rip;
}

void exec_retf(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned at = 0, size = insn->opsize;
    uint64_t rip = peek(v, &at, size);
    uint16_t selector = peek(v, &at, size);
    if (real_like(v)) {
        uint64_t mask = soft_stack_mask(v, &v->seg[X86_SS]);
        real_transfer(v, selector, rip);
        set_sp(v, mask, v->r[X86_RSP] + at + insn->imm);
        return;
    }
    far_return(v, selector, rip, size, at, insn->imm, false);
}

/* Flags that IRET and POPF of this privilege may change. */
uint32_t soft_popf_mask(const struct soft_vcpu *v, unsigned size)
{
    unsigned iopl = v->rflags >> FL_IOPL_SHIFT & 3;
    uint32_t mask = FL_ARITH | FL_TF | FL_DF | FL_NT | FL_AC | FL_ID | FL_RF;
    if (v->cpl == 0)
        mask |= FL_IOPL;
    if (v->cpl <= iopl)
        mask |= FL_IF;
    return size == 2 ? mask & 0xffff : mask;
}

static void iret_real(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned at = 0, size = insn->opsize;
    bool vm86 = v->rflags & FL_VM;
    if (vm86 && (v->rflags >> FL_IOPL_SHIFT & 3) != 3)
        soft_gp(v, 0);
    uint64_t rip = peek(v, &at, size);
    uint16_t selector = peek(v, &at, size);
    uint32_t flags = peek(v, &at, size);
    uint64_t mask = soft_stack_mask(v, &v->seg[X86_SS]);
    uint32_t change = soft_popf_mask(v, size) | (vm86 ? 0 : FL_IOPL & (size == 2 ? 0xffff : ~0u));
    if (vm86)
        change &= ~FL_IOPL;
    real_transfer(v, selector, rip);
    set_sp(v, mask, v->r[X86_RSP] + at);
    soft_set_flags(v, (soft_flags(v) & ~change) | (flags & change));
    v->nmi_masked = false;
}

/* IRET from ring 0 into virtual 8086 mode. */
static void iret_vm86(struct soft_vcpu *v, uint64_t rip, uint16_t cs, uint32_t flags, unsigned at)
{
    uint64_t sp = peek(v, &at, 4);
    uint16_t selectors[5];
    static const uint8_t segs[5] = {X86_SS, X86_ES, X86_DS, X86_FS, X86_GS};
    for (unsigned i = 0; i < 5; i++)
        selectors[i] = peek(v, &at, 4);
    soft_set_flags(v, flags);
    soft_set_cpl(v, 3);
    soft_set_seg_real(v, X86_CS, cs);
    for (unsigned i = 0; i < 5; i++)
        soft_set_seg_real(v, segs[i], selectors[i]);
    v->r[X86_RSP] = sp;
    v->next_rip = rip & 0xffff;
    soft_mode_changed(v);
}

void exec_iret(struct soft_vcpu *v, const struct insn *insn)
{
    if (real_like(v)) {
        iret_real(v, insn);
        return;
    }
    if (v->rflags & FL_NT)
        soft_gp(v, 0); /* in long mode; a task return elsewhere, which we do not have */
    unsigned at = 0, size = insn->opsize;
    uint64_t rip = peek(v, &at, size);
    uint16_t selector = peek(v, &at, size);
    uint32_t flags = peek(v, &at, size);
    if (flags & FL_VM && !v->long_mode && v->cpl == 0 && size == 4) {
        iret_vm86(v, rip, selector, flags, at);
        v->nmi_masked = false;
        return;
    }
    uint32_t mask = soft_popf_mask(v, size);
    far_return(v, selector, rip, size, at, 0, v->mode == INSN_64);
    soft_set_flags(v, (soft_flags(v) & ~mask) | (flags & mask));
    v->nmi_masked = false;
}

/* ---- fast system calls ---- */

static struct x86_segment flat(uint16_t selector, bool code, unsigned dpl, bool long_code)
{
    struct x86_segment s = {.selector = selector, .limit = 0xffffffff};
    s.attr = X86_ATTR_P | X86_ATTR_S | X86_ATTR_G | dpl << X86_ATTR_DPL_SHIFT | (code ? 11 : 3) |
             (long_code ? X86_ATTR_L : X86_ATTR_DB);
    return s;
}

static void set_flat(struct soft_vcpu *v, uint16_t cs, uint16_t ss, unsigned cpl, bool long_code)
{
    v->seg[X86_CS] = flat(cs, true, cpl, long_code);
    v->seg[X86_SS] = flat(ss, false, cpl, false);
    soft_set_cpl(v, cpl);
    if (v->mode == INSN_64 && long_code)
        soft_cpl_changed(v);
    else
        soft_mode_changed(v);
}

/* Intel's CPUs know SYSCALL and SYSRET in 64-bit code only. */
static void check_syscall(struct soft_vcpu *v)
{
    if (!(v->efer & EFER_SCE) || !(v->cr0 & CR0_PE) || (v->mode != INSN_64 && !v->amd))
        soft_ud(v);
}

void exec_syscall(struct soft_vcpu *v, const struct insn *insn)
{
    check_syscall(v);
    uint32_t flags = soft_flags(v), clear = v->long_mode ? v->msr.sfmask : FL_IF | FL_VM;
    v->r[X86_RCX] = v->next_rip;
    if (v->long_mode)
        v->r[X86_R11] = flags & ~FL_RF;
    soft_set_flags(v, flags & ~clear & ~FL_RF);
    if (!v->long_mode)
        v->next_rip = (uint32_t)v->msr.star;
    else
        v->next_rip = v->mode == INSN_64 ? v->msr.lstar : v->msr.cstar;
    uint16_t cs = v->msr.star >> 32 & 0xfffc;
    set_flat(v, cs, cs + 8, 0, v->long_mode);
}

void exec_sysret(struct soft_vcpu *v, const struct insn *insn)
{
    check_syscall(v);
    uint16_t base = v->msr.star >> 48;
    bool to64 = insn->opsize == 8;
    uint64_t rip = v->r[X86_RCX];
    if (to64 && !soft_canonical(rip))
        soft_gp(v, 0);
    if (v->long_mode)
        soft_set_flags(v, (v->r[X86_R11] & 0x3c7fd7) | 2);
    else
        soft_set_flags(v, soft_flags(v) | FL_IF);
    set_flat(v, (base + (to64 ? 16 : 0)) | 3, (base + 8) | 3, 3, to64);
    v->next_rip = to64 ? rip : (uint32_t)rip;
    if (v->rflags & FL_TF)
        v->debug_pending |= DR6_BS; /* TF counts at the end of SYSRET */
}

void exec_sysenter(struct soft_vcpu *v, const struct insn *insn)
{
    if (!(v->cr0 & CR0_PE) || !(v->msr.sysenter_cs & 0xfffc))
        soft_gp(v, 0);
    uint16_t cs = v->msr.sysenter_cs & 0xfffc;
    v->rflags &= ~(FL_VM | FL_IF | FL_RF);
    set_flat(v, cs, cs + 8, 0, v->long_mode);
    v->r[X86_RSP] = v->long_mode ? v->msr.sysenter_esp : (uint32_t)v->msr.sysenter_esp;
    v->next_rip = v->long_mode ? v->msr.sysenter_eip : (uint32_t)v->msr.sysenter_eip;
}

void exec_sysexit(struct soft_vcpu *v, const struct insn *insn)
{
    uint16_t base = v->msr.sysenter_cs & 0xfffc;
    bool to64 = insn->opsize == 8;
    if (!base || !(v->cr0 & CR0_PE))
        soft_gp(v, 0);
    uint64_t rip = v->r[X86_RDX], sp = v->r[X86_RCX];
    if (to64 && (!soft_canonical(rip) || !soft_canonical(sp)))
        soft_gp(v, 0);
    set_flat(v, (base + (to64 ? 32 : 16)) | 3, (base + (to64 ? 40 : 24)) | 3, 3, to64);
    v->r[X86_RSP] = to64 ? sp : (uint32_t)sp;
    v->next_rip = to64 ? rip : (uint32_t)rip;
}

/* LDS, LES, LSS, LFS, LGS. */
void exec_lfar(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t at = soft_linear(v, insn, insn->opsize + 2, ACC_READ);
    uint64_t offset = soft_load(v, at, insn->opsize);
    uint16_t selector = soft_load(v, soft_lin(v, at + insn->opsize), 2);
    static const uint8_t segs[] = {X86_DS, X86_ES, X86_SS, X86_FS, X86_GS};
    soft_load_seg(v, segs[insn->id - I_LDS], selector);
    put_reg(v, insn, insn->reg, insn->opsize, offset);
}
