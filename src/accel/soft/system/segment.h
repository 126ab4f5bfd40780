/*
 * Descriptor attributes and the helpers that far transfers and event delivery share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_SEGMENT_H
#define TENON_ACCEL_SOFT_SEGMENT_H

#include "accel/soft/interp/exec.h"

/* Type bits of code and data segments. */
#define SEG_CODE 8u
#define SEG_CONFORM 4u /* code */
#define SEG_DOWN 4u    /* data */
#define SEG_READ 2u    /* code */
#define SEG_WRITE 2u   /* data */

static inline unsigned seg_dpl(const struct x86_segment *s)
{
    return s->attr >> X86_ATTR_DPL_SHIFT & 3;
}

/* Linear addresses are 32 bits wide outside long mode. */
static inline uint64_t soft_lin(const struct soft_vcpu *v, uint64_t linear)
{
    return v->long_mode ? linear : (uint32_t)linear;
}

/* The code segment a transfer goes to: same privilege (outer false: rpl_cpl is the selector's RPL)
   or a return (outer: rpl_cpl is the new CPL). Raises #GP, #NP. */
void soft_check_code(struct soft_vcpu *v, uint16_t selector, unsigned rpl_cpl,
                     struct x86_segment *cs, uint64_t *desc, bool outer);
/* Loads CS with `cpl` and picks mode and space. */
void soft_commit_cs(struct soft_vcpu *v, struct x86_segment *cs, uint64_t desc, unsigned cpl);
void soft_lldt(struct soft_vcpu *v, uint16_t selector);
void soft_ltr(struct soft_vcpu *v, uint16_t selector);
/* Checks SS for a stack of `cpl` (transfers between privileges); errors are `vector`(selector). */
void soft_check_ss(struct soft_vcpu *v, uint16_t selector, unsigned cpl, int vector,
                   struct x86_segment *ss);

/* A stack that is being written before it becomes the current one. */
struct new_stack {
    uint64_t base, sp, mask;
    unsigned cpl;
};
void new_stack_push(struct soft_vcpu *v, struct new_stack *stack, unsigned size, uint64_t value);
/* Stack pointer width of a stack segment as a mask. */
uint64_t soft_stack_mask(const struct soft_vcpu *v, const struct x86_segment *ss);

exec_fn exec_lar_lsl, exec_verr_verw, exec_lldt_ltr, exec_sldt_str, exec_arpl;
exec_fn exec_jmpf, exec_callf, exec_retf, exec_iret, exec_syscall, exec_sysret, exec_sysenter,
    exec_sysexit, exec_int, exec_lfar;

#endif
