/*
 * The slow paths of the specialised ops, and the thunks that keep all registers around them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/interp/fast.h"

/* Gives the slow path what a general executor has: the instruction's address; and the linear
   address, which the ops of flat 32-bit code do not cut to its 32 bits. */
static uint64_t enter(struct soft_vcpu *v, const struct op *op, uint64_t linear)
{
    v->rip = v->r[R_BLOCK] + op->off;
    v->next_rip = v->rip + op->len;
    if (v->mode != INSN_64) {
        v->rip = (uint32_t)v->rip;
        v->next_rip = (uint32_t)v->next_rip;
    }
    v->stack_access = (op->base == X86_RSP || op->base == X86_RBP) && op->seg == R_ZERO;
    return v->mode == INSN_64 ? linear : (uint32_t)linear;
}

__attribute__((used)) uint64_t soft_op_load(struct soft_vcpu *v, const struct op *op,
                                            uint64_t linear, unsigned size)
{
    linear = enter(v, op, linear);
    return soft_load(v, linear, size);
}

__attribute__((used)) uint64_t soft_op_load_rw(struct soft_vcpu *v, const struct op *op,
                                               uint64_t linear, unsigned size)
{
    linear = enter(v, op, linear);
    soft_probe(v, linear, size, ACC_WRITE);
    return soft_load(v, linear, size);
}

__attribute__((used)) void soft_op_store(struct soft_vcpu *v, const struct op *op, uint64_t linear,
                                         unsigned size, uint64_t value)
{
    linear = enter(v, op, linear);
    /* Their operand is what they read; they write to the stack. */
    if (op->fn == fast_push_m || op->fn == fast_call_m || op->fn == fast_call_r)
        v->stack_access = true;
    soft_store(v, linear, size, value);
}

#if SOFT_TAIL
/* Arguments arrive in the registers of a normal call; everything but rax comes back as it was. */
#define THUNK(name)                                                                                \
    __asm__(".pushsection .text\n"                                                                 \
            ".globl soft_thunk_" #name "\n"                                                        \
            ".hidden soft_thunk_" #name "\n"                                                       \
            ".type soft_thunk_" #name ", @function\n"                                              \
            "soft_thunk_" #name ":\n\t"                                                            \
            "push %rbp\n\tmov %rsp, %rbp\n\t"                                                      \
            "push %rcx\n\tpush %rdx\n\tpush %rsi\n\tpush %rdi\n\t"                                 \
            "push %r8\n\tpush %r9\n\tpush %r10\n\tpush %r11\n\t"                                   \
            "and $-16, %rsp\n\t"                                                                   \
            "call soft_op_" #name "\n\t"                                                           \
            "lea -64(%rbp), %rsp\n\t"                                                              \
            "pop %r11\n\tpop %r10\n\tpop %r9\n\tpop %r8\n\t"                                       \
            "pop %rdi\n\tpop %rsi\n\tpop %rdx\n\tpop %rcx\n\tpop %rbp\n\tret\n"                    \
            ".size soft_thunk_" #name ", . - soft_thunk_" #name "\n"                               \
            ".popsection")
THUNK(load);
THUNK(load_rw);
THUNK(store);
#endif
