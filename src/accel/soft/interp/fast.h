/*
 * What the specialised ops (fast_*.c) are made of: addresses, memory through the TLBs, templates.
 *
 * An op is a leaf: it has no frame, and its slow path is a call that keeps all registers (thunks of
 * fast_mem.c), so that the compiler saves nothing on the fast path. Files that include this are
 * compiled without vector registers, which the thunks do not keep.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_FAST_H
#define TENON_ACCEL_SOFT_FAST_H

#include "accel/soft/interp/alu.h"
#include "accel/soft/interp/ops.h"
#include "accel/soft/mem/tlb.h"

#define FAST static inline __attribute__((always_inline))

/* Shapes of a memory operand: base + disp alone, or everything. */
enum ea_shape { EA_BASE, EA_FULL, EA_SHAPES };
enum { SIZE_1, SIZE_2, SIZE_4, SIZE_8, SIZES };

uint64_t soft_op_load(struct soft_vcpu *v, const struct op *op, uint64_t linear, unsigned size);
void soft_op_store(struct soft_vcpu *v, const struct op *op, uint64_t linear, unsigned size,
                   uint64_t value);
/* Checks that a write would be allowed, then loads: first half of a read-modify-write. */
uint64_t soft_op_load_rw(struct soft_vcpu *v, const struct op *op, uint64_t linear, unsigned size);

#if SOFT_TAIL
#define THUNK_LOAD(name)                                                                           \
    FAST uint64_t slow_##name(struct soft_vcpu *v, const struct op *op, uint64_t linear,           \
                              unsigned size)                                                       \
    {                                                                                              \
        uint64_t value;                                                                            \
        __asm__ volatile("lea -128(%%rsp), %%rsp\n\t"                                              \
                         "call soft_thunk_" #name "\n\t"                                           \
                         "lea 128(%%rsp), %%rsp"                                                   \
                         : "=a"(value)                                                             \
                         : "D"(v), "S"(op), "d"(linear), "c"(size)                                 \
                         : "memory", "cc");                                                        \
        return value;                                                                              \
    }
THUNK_LOAD(load)
THUNK_LOAD(load_rw)
FAST void slow_store(struct soft_vcpu *v, const struct op *op, uint64_t linear, unsigned size,
                     uint64_t value)
{
    register uint64_t in_r8 __asm__("r8") = value;
    __asm__ volatile("lea -128(%%rsp), %%rsp\n\t"
                     "call soft_thunk_store\n\t"
                     "lea 128(%%rsp), %%rsp"
                     :
                     : "D"(v), "S"(op), "d"(linear), "c"(size), "r"(in_r8)
                     : "memory", "cc", "rax");
}
#else
#define slow_load soft_op_load
#define slow_load_rw soft_op_load_rw
#define slow_store soft_op_store
#endif

FAST uint64_t fast_ea(const struct soft_vcpu *v, const struct op *op, enum ea_shape shape)
{
    uint64_t ea = v->r[op->base] + (int64_t)op->disp;
    if (shape == EA_FULL)
        ea += (v->r[op->index] << op->scale) + v->r[op->seg];
    return ea;
}

FAST uint64_t fast_load(struct soft_vcpu *v, const struct op *op, uint64_t linear, unsigned size)
{
    const struct soft_tlbe *e = &v->space->read[tlb_index(linear)];
    if (likely((linear ^ e->tag) <= GUEST_PAGE_SIZE - size))
        return host_load(linear + e->addend, size);
    return slow_load(v, op, linear, size);
}

FAST void fast_store(struct soft_vcpu *v, const struct op *op, uint64_t linear, unsigned size,
                     uint64_t value)
{
    const struct soft_tlbe *e = &v->space->write[tlb_index(linear)];
    if (likely((linear ^ e->tag) <= GUEST_PAGE_SIZE - size))
        host_store(linear + e->addend, size, value);
    else
        slow_store(v, op, linear, size, value);
}

/* Host address of a write hit, or 0. */
FAST uintptr_t write_hit(const struct soft_vcpu *v, uint64_t linear, unsigned size)
{
    const struct soft_tlbe *e = &v->space->write[tlb_index(linear)];
    return likely((linear ^ e->tag) <= GUEST_PAGE_SIZE - size) ? linear + e->addend : 0;
}

/* Registers: `at` is a number, for bytes the byte's offset in the register file. */
FAST uint64_t fast_reg(const struct soft_vcpu *v, unsigned at, unsigned size)
{
    switch (size) {
    case 1:
        return ((const uint8_t *)v->r)[at];
    case 2:
        return (uint16_t)v->r[at];
    case 4:
        return (uint32_t)v->r[at];
    default:
        return v->r[at];
    }
}

FAST void fast_put(struct soft_vcpu *v, unsigned at, unsigned size, uint64_t value)
{
    switch (size) {
    case 1:
        ((uint8_t *)v->r)[at] = value;
        break;
    case 2:
        *(uint16_t *)&v->r[at] = value;
        break;
    case 4:
        v->r[at] = (uint32_t)value;
        break;
    default:
        v->r[at] = value;
        break;
    }
}

/* Something for each condition code. */
#define FOR_EACH_CC(X)                                                                             \
    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)

#define OP_DEFINE(name, body)                                                                      \
    static const struct op *name(struct soft_vcpu *v, const struct op *op)                         \
    {                                                                                              \
        body;                                                                                      \
        NEXT_OP(v, op);                                                                            \
    }

/* The address of the memory operand; false when it needs the general way (32-bit addresses,
   absolute 64-bit offsets). The shape goes to op->d. */
static inline bool fast_set_address(struct op *op, const struct insn *insn)
{
    if (insn->addrsize != 8 || insn->disp != (int32_t)insn->disp)
        return false;
    op->base = insn->base;
    op->index = insn->index;
    op->scale = insn->scale;
    op->seg = insn->seg >= X86_FS ? R_SEG + insn->seg : R_ZERO;
    op->disp = insn->disp;
    if (insn->base == INSN_REG_RIP) {
        int64_t disp = insn->disp + op->off + insn->len;
        if (disp != (int32_t)disp)
            return false;
        op->base = R_BLOCK;
        op->disp = disp;
    }
    op->d = insn->index != INSN_REG_NONE || op->seg != R_ZERO ? EA_FULL : EA_BASE;
    return true;
}

/* fast_alu.c: [instruction of group 1][size][form] */
enum alu_form {
    ALU_RR,
    ALU_RI,
    ALU_RM,
    ALU_RM_FULL,
    ALU_MR,
    ALU_MR_FULL,
    ALU_MI,
    ALU_MI_FULL,
    ALU_FORMS
};
extern op_fn *const fast_alu[8][SIZES][ALU_FORMS];
extern op_fn *const fast_test[SIZES][ALU_FORMS];
extern op_fn *const fast_unary[4][SIZES][3]; /* INC DEC NOT NEG; register, base, full */
enum shift_form { SHIFT_I, SHIFT_CL, SHIFT_FORMS };
extern op_fn *const fast_shift[3][SIZES][SHIFT_FORMS]; /* SHL SHR SAR of a register */
extern op_fn *const fast_rotate[2][SIZES];             /* ROL ROR of a register by an immediate */
extern op_fn *const fast_imul[2][SIZES][3]; /* two or three operands; register, base, full */

/* fast_mov.c */
enum mov_form {
    MOV_RR,
    MOV_RI,
    MOV_RM,
    MOV_RM_FULL,
    MOV_MR,
    MOV_MR_FULL,
    MOV_MI,
    MOV_MI_FULL,
    MOV_FORMS
};
extern op_fn *const fast_mov[SIZES][MOV_FORMS];
extern op_fn *const fast_movzx[2][3];       /* from 1 or 2 bytes; register, base, full */
extern op_fn *const fast_movsx[2][3][3];    /* to 4 or 8; from 1, 2, 4; register, base, full */
extern op_fn *const fast_lea[2][EA_SHAPES]; /* 4 or 8 */
extern op_fn *const fast_cmov[16][2][2];    /* condition; 4 or 8; register or memory */
extern op_fn *const fast_set[16];
op_fn fast_push_r, fast_push_i, fast_push_m, fast_pop_r, fast_leave, fast_nop, fast_cdqe, fast_cwde,
    fast_cqo, fast_cdq, fast_bswap4, fast_bswap8, fast_xchg4, fast_xchg8, fast_pushf, fast_cli,
    fast_sti, fast_bt_ri4, fast_bt_ri8, fast_bt_rr4, fast_bt_rr8, fast_cld;

/* fast_jump.c; [0] the target is in the same page, [1] anywhere */
extern op_fn *const fast_jcc[16][2];
extern op_fn *const fast_jmp[2], *const fast_call[2];
op_fn fast_ret, fast_jmp_r, fast_jmp_m, fast_call_r, fast_call_m;

/* fast_simd.c: the op of a SIMD instruction that has one of its own; op->insn is set. */
bool soft_select_simd(struct op *op, const struct insn *insn);
/* Any other SIMD or x87 instruction: simd.c. */
op_fn fast_simd;

/* fast_atomic.c: 4 and 8 bytes, memory of any shape */
extern op_fn *const fast_lock_cmpxchg[2], *const fast_lock_xadd[2], *const fast_xchg_m[2];
extern op_fn *const fast_lock_alu[8][2][2]; /* group 1; 4 or 8; register or immediate */
extern op_fn *const fast_lock_inc[2][2];    /* INC DEC */

#endif
