/*
 * Exceptions and interrupts (Intel SDM vol. 3, chapter 6): raising, double faults, delivery through
 * the IDT in all modes.
 *
 * Runs on the vCPU's thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdarg.h>
#include <stdio.h>

#include "accel/soft/interp/operand.h"
#include "accel/soft/system/segment.h"

bool soft_vector_has_error(int vector)
{
    return vector == VEC_DF || (vector >= VEC_TS && vector <= VEC_PF) || vector == VEC_AC;
}

void soft_raise(struct soft_vcpu *v, int vector, uint32_t error)
{
    v->raised = vector;
    /* EXT: the fault came out of an event that the program did not ask for. */
    if (v->delivering_ext && vector >= VEC_TS && vector <= VEC_GP)
        error |= 1;
    v->raised_error = error;
    longjmp(v->unwind, 1);
}

void soft_fail(struct soft_vcpu *v, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(v->exit->error, sizeof(v->exit->error), format, args);
    va_end(args);
    v->exit->reason = VM_EXIT_ERROR;
    longjmp(v->unwind, 2);
}

/* Faults return to their instruction; traps, aborts and #DB do not, or not always. */
static bool is_fault(int vector)
{
    return vector == VEC_DE || (vector >= VEC_BR && vector <= VEC_NM) ||
           (vector >= VEC_TS && vector <= VEC_XM && vector != VEC_MC);
}

static bool contributory(int vector)
{
    return vector == VEC_DE || (vector >= VEC_TS && vector <= VEC_GP);
}

/* What a fault during the delivery of another becomes: itself, #DF, or -1 for a triple fault. */
static int combine(int first, int second)
{
    if (first == VEC_DF)
        return contributory(second) || second == VEC_PF ? -1 : second;
    if ((contributory(first) && contributory(second)) ||
        (first == VEC_PF && (contributory(second) || second == VEC_PF)))
        return VEC_DF;
    return second;
}

bool soft_deliver_raised(struct soft_vcpu *v)
{
    int vector = v->raised;
    uint32_t error = v->raised_error;
    if (v->delivering >= 0) {
        vector = combine(v->delivering_kind, vector);
        if (vector < 0)
            return false;
        if (vector == VEC_DF)
            error = 0;
    }
    v->external = false; /* an interrupt may have met it, but it is an exception */
    v->stack_access = false;
    if (vector != VEC_DB)
        v->debug_pending = 0; /* of an instruction that did not happen */
    soft_deliver(v, vector, false, soft_vector_has_error(vector), error, v->rip);
    return true;
}

static void __attribute__((noreturn)) idt_gp(struct soft_vcpu *v, int vector)
{
    soft_gp(v, vector * 8 + 2);
}

/* ---- real mode ---- */

static void deliver_real(struct soft_vcpu *v, int vector, uint64_t return_rip)
{
    if (vector * 4u + 3 > v->idt.limit)
        idt_gp(v, vector);
    uint32_t entry = soft_load_sys(v, (uint32_t)(v->idt.base + vector * 4), 4);
    struct new_stack stack = {.base = v->r[R_SEG + X86_SS],
                              .sp = v->r[X86_RSP],
                              .mask = soft_stack_mask(v, &v->seg[X86_SS]),
                              .cpl = v->cpl};
    new_stack_push(v, &stack, 2, soft_flags(v));
    new_stack_push(v, &stack, 2, v->seg[X86_CS].selector);
    new_stack_push(v, &stack, 2, return_rip);
    v->r[X86_RSP] = stack.sp;
    v->rflags &= ~(FL_IF | FL_TF | FL_AC | FL_RF);
    soft_set_seg_real(v, X86_CS, entry >> 16);
    v->rip = entry & 0xffff;
    soft_mode_changed(v);
}

/* ---- protected and long mode ---- */

struct idt_gate {
    uint16_t selector;
    uint64_t offset;
    unsigned type, dpl, ist;
};

static void read_idt(struct soft_vcpu *v, int vector, bool soft, struct idt_gate *gate)
{
    unsigned size = v->long_mode ? 16 : 8;
    if (vector * size + size - 1 > v->idt.limit)
        idt_gp(v, vector);
    uint64_t at = soft_lin(v, v->idt.base + vector * size);
    uint64_t low = soft_load_sys(v, at, 8);
    gate->type = low >> 40 & 31;
    gate->dpl = low >> 45 & 3;
    gate->selector = low >> 16;
    gate->ist = v->long_mode ? low >> 32 & 7 : 0;
    gate->offset = (low & 0xffff) | (low >> 32 & 0xffff0000);
    bool interrupt_or_trap = gate->type == 14 || gate->type == 15;
    if (!v->long_mode && (gate->type == 6 || gate->type == 7)) {
        gate->offset &= 0xffff;
        interrupt_or_trap = true;
    }
    if (!interrupt_or_trap)
        idt_gp(v, vector); /* also task gates */
    if (soft && gate->dpl < v->cpl)
        idt_gp(v, vector);
    if (!(low >> 47 & 1))
        soft_raise(v, VEC_NP, vector * 8 + 2);
    if (v->long_mode)
        gate->offset |= soft_load_sys(v, at + 8, 8) << 32;
}

static void check_handler(struct soft_vcpu *v, const struct idt_gate *gate, struct x86_segment *cs,
                          uint64_t *desc)
{
    uint16_t error = gate->selector & ~3;
    if (!error || !soft_descriptor(v, gate->selector, desc))
        soft_gp(v, error);
    *cs = soft_unpack(gate->selector, *desc);
    if (!(cs->attr & X86_ATTR_S) || !(cs->attr & SEG_CODE) || seg_dpl(cs) > v->cpl)
        soft_gp(v, error);
    if (v->long_mode && (!(cs->attr & X86_ATTR_L) || cs->attr & X86_ATTR_DB))
        soft_gp(v, error);
    if (!(cs->attr & X86_ATTR_P))
        soft_raise(v, VEC_NP, error);
    if (v->long_mode ? !soft_canonical(gate->offset) : gate->offset > cs->limit)
        soft_gp(v, 0);
}

/* Leaves virtual 8086 mode: its segment registers go to the ring 0 stack. */
static void push_vm86(struct soft_vcpu *v, struct new_stack *stack, unsigned size)
{
    static const uint8_t order[] = {X86_GS, X86_FS, X86_DS, X86_ES};
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        new_stack_push(v, stack, size, v->seg[order[i]].selector);
}

static void null_data_segments(struct soft_vcpu *v)
{
    static const uint8_t segs[] = {X86_GS, X86_FS, X86_DS, X86_ES};
    struct x86_segment null = {.attr = X86_ATTR_UNUSABLE};
    for (unsigned i = 0; i < ARRAY_SIZE(segs); i++)
        soft_set_seg(v, segs[i], &null);
}

/* The stack that the handler gets, and its SS when the privilege changes. */
static bool choose_stack(struct soft_vcpu *v, const struct idt_gate *gate, unsigned cpl,
                         struct new_stack *stack, struct x86_segment *ss)
{
    bool inner = cpl < v->cpl;
    stack->cpl = cpl;
    *ss = (struct x86_segment){.selector = cpl, .attr = X86_ATTR_UNUSABLE | cpl << 5};
    if (v->long_mode) {
        stack->mask = ~0ull;
        stack->base = 0;
        stack->sp = v->r[X86_RSP];
        uint16_t selector;
        if (gate->ist)
            soft_tss_stack(v, 3 + gate->ist + 0, &selector, &stack->sp);
        else if (inner)
            soft_tss_stack(v, cpl, &selector, &stack->sp);
        stack->sp &= ~15ull;
        return inner;
    }
    if (!inner) {
        stack->base = v->r[R_SEG + X86_SS];
        stack->sp = v->r[X86_RSP];
        stack->mask = soft_stack_mask(v, &v->seg[X86_SS]);
        return false;
    }
    uint16_t selector;
    soft_tss_stack(v, cpl, &selector, &stack->sp);
    soft_check_ss(v, selector, cpl, VEC_TS, ss);
    stack->base = ss->base;
    stack->mask = ss->attr & X86_ATTR_DB ? 0xffffffff : 0xffff;
    return true;
}

static void deliver_protected(struct soft_vcpu *v, int vector, bool soft, bool has_error,
                              uint32_t error, uint64_t return_rip)
{
    struct idt_gate gate;
    struct x86_segment cs, ss;
    uint64_t desc;
    struct new_stack stack;
    read_idt(v, vector, soft, &gate);
    check_handler(v, &gate, &cs, &desc);
    unsigned cpl = cs.attr & SEG_CONFORM ? v->cpl : seg_dpl(&cs);
    bool vm86 = v->rflags & FL_VM;
    if (vm86 && cpl != 0)
        soft_gp(v, gate.selector & ~3);
    bool inner = choose_stack(v, &gate, cpl, &stack, &ss);
    unsigned size = v->long_mode ? 8 : gate.type & 8 ? 4 : 2;
    uint32_t flags = soft_flags(v);
    /* Faults show RF set in the pushed image, so that a breakpoint there does not fire again. */
    if (!soft && !v->external && is_fault(vector))
        flags |= FL_RF;
    if (vm86)
        push_vm86(v, &stack, size);
    if (inner || v->long_mode) {
        new_stack_push(v, &stack, size, v->seg[X86_SS].selector);
        new_stack_push(v, &stack, size, v->r[X86_RSP]);
    }
    new_stack_push(v, &stack, size, flags);
    new_stack_push(v, &stack, size, v->seg[X86_CS].selector);
    new_stack_push(v, &stack, size, return_rip);
    if (has_error)
        new_stack_push(v, &stack, size, error);
    v->rflags &= ~(FL_TF | FL_NT | FL_RF | FL_VM | (gate.type & 1 ? 0 : FL_IF));
    soft_commit_cs(v, &cs, desc, cpl);
    if (inner) {
        soft_set_seg(v, X86_SS, &ss);
        v->r[X86_RSP] = stack.sp;
    } else {
        v->r[X86_RSP] = (v->r[X86_RSP] & ~stack.mask) | (stack.sp & stack.mask);
    }
    if (vm86)
        null_data_segments(v);
    v->rip = gate.offset;
}

void soft_deliver(struct soft_vcpu *v, int vector, bool soft, bool has_error, uint32_t error,
                  uint64_t return_rip)
{
    v->delivering = vector;
    /* Interrupts and INT n count as benign when a fault follows, whatever their number. */
    v->delivering_kind = v->external || soft ? -1 : vector;
    v->delivering_ext = !soft;
    if (vector == VEC_DB && !soft)
        soft_debug_delivered(v);
    if (!(v->cr0 & CR0_PE))
        deliver_real(v, vector, return_rip);
    else
        deliver_protected(v, vector, soft, has_error, error, return_rip);
    v->delivering = -1;
    v->delivering_ext = false;
    v->external = false;
    v->stack_access = false;
}

/* INT n, INT3, INTO, INT1. */
void exec_int(struct soft_vcpu *v, const struct insn *insn)
{
    int vector = insn->id == I_INT3   ? VEC_BP
                 : insn->id == I_INTO ? VEC_OF
                 : insn->id == I_INT1 ? VEC_DB
                                      : (int)insn->imm;
    if (unlikely(v->debugger.on) && insn->id == I_INT3) {
        if (!v->debugger.pass)
            soft_debugger_leave(v, ACCEL_DEBUG_INT3, 0);
        v->debugger.pass = false;
    }
    if (insn->id == I_INTO && !(cc_compute(v) & FL_OF))
        return;
    if (v->rflags & FL_VM && insn->id == I_INT && (v->rflags >> FL_IOPL_SHIFT & 3) != 3)
        soft_gp(v, 0);
    soft_deliver(v, vector, insn->id != I_INT1, false, 0, v->next_rip);
    v->next_rip = v->rip;
}
