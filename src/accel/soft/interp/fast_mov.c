/*
 * Specialised ops: moves, extensions, LEA, stack, conditional moves and sets of 64-bit code.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma GCC target("general-regs-only")

#include "accel/soft/interp/fast.h"

#define LOAD(n, shape) fast_load(v, op, fast_ea(v, op, shape), n)

#define MOV_SIZE(n)                                                                                \
    OP_DEFINE(mov_rr_##n, fast_put(v, op->a, n, fast_reg(v, op->b, n)))                            \
    OP_DEFINE(mov_ri_##n, fast_put(v, op->a, n, op->imm))                                          \
    OP_DEFINE(mov_rm_##n, fast_put(v, op->a, n, LOAD(n, EA_BASE)))                                 \
    OP_DEFINE(mov_rmf_##n, fast_put(v, op->a, n, LOAD(n, EA_FULL)))                                \
    OP_DEFINE(mov_mr_##n, fast_store(v, op, fast_ea(v, op, EA_BASE), n, fast_reg(v, op->a, n)))    \
    OP_DEFINE(mov_mrf_##n, fast_store(v, op, fast_ea(v, op, EA_FULL), n, fast_reg(v, op->a, n)))   \
    OP_DEFINE(mov_mi_##n, fast_store(v, op, fast_ea(v, op, EA_BASE), n, op->imm))                  \
    OP_DEFINE(mov_mif_##n, fast_store(v, op, fast_ea(v, op, EA_FULL), n, op->imm))
#define MOV_ROW(n)                                                                                 \
    {                                                                                              \
        mov_rr_##n, mov_ri_##n, mov_rm_##n, mov_rmf_##n, mov_mr_##n, mov_mrf_##n, mov_mi_##n,      \
            mov_mif_##n                                                                            \
    }

MOV_SIZE(1)
MOV_SIZE(2)
MOV_SIZE(4)
MOV_SIZE(8)

op_fn *const fast_mov[SIZES][MOV_FORMS] = {MOV_ROW(1), MOV_ROW(2), MOV_ROW(4), MOV_ROW(8)};

/* Zero extension to 4 or 8 bytes is the same thing. */
#define MOVZX(n)                                                                                   \
    OP_DEFINE(movzx_r_##n, v->r[op->a] = fast_reg(v, op->b, n))                                    \
    OP_DEFINE(movzx_m_##n, v->r[op->a] = LOAD(n, EA_BASE))                                         \
    OP_DEFINE(movzx_mf_##n, v->r[op->a] = LOAD(n, EA_FULL))

MOVZX(1)
MOVZX(2)

op_fn *const fast_movzx[2][3] = {{movzx_r_1, movzx_m_1, movzx_mf_1},
                                 {movzx_r_2, movzx_m_2, movzx_mf_2}};

#define MOVSX(to, n)                                                                               \
    OP_DEFINE(movsx##to##_r_##n, fast_put(v, op->a, to, sign_extend(fast_reg(v, op->b, n), n)))    \
    OP_DEFINE(movsx##to##_m_##n, fast_put(v, op->a, to, sign_extend(LOAD(n, EA_BASE), n)))         \
    OP_DEFINE(movsx##to##_mf_##n, fast_put(v, op->a, to, sign_extend(LOAD(n, EA_FULL), n)))

MOVSX(4, 1)
MOVSX(4, 2)
MOVSX(8, 1)
MOVSX(8, 2)
MOVSX(8, 4)

op_fn *const fast_movsx[2][3][3] = {
    {{movsx4_r_1, movsx4_m_1, movsx4_mf_1}, {movsx4_r_2, movsx4_m_2, movsx4_mf_2}, {NULL}},
    {{movsx8_r_1, movsx8_m_1, movsx8_mf_1},
     {movsx8_r_2, movsx8_m_2, movsx8_mf_2},
     {movsx8_r_4, movsx8_m_4, movsx8_mf_4}},
};

OP_DEFINE(lea_4, v->r[op->a] = (uint32_t)fast_ea(v, op, EA_BASE))
OP_DEFINE(lea_f_4, v->r[op->a] = (uint32_t)fast_ea(v, op, EA_FULL))
OP_DEFINE(lea_8, v->r[op->a] = fast_ea(v, op, EA_BASE))
OP_DEFINE(lea_f_8, v->r[op->a] = fast_ea(v, op, EA_FULL))

op_fn *const fast_lea[2][EA_SHAPES] = {{lea_4, lea_f_4}, {lea_8, lea_f_8}};

/* ---- conditions ---- */

/* The operand is read whether or not it is moved; a 32-bit move clears the upper half anyway. */
#define CMOV(cc, n)                                                                                \
    OP_DEFINE(cmov_r_##cc##_##n,                                                                   \
              fast_put(v, op->a, n, fast_reg(v, cc_test(v, cc) ? op->b : op->a, n)))               \
    OP_DEFINE(cmov_m_##cc##_##n, uint64_t b = LOAD(n, EA_FULL);                                    \
              fast_put(v, op->a, n, cc_test(v, cc) ? b : fast_reg(v, op->a, n)))
#define SETCC(cc) OP_DEFINE(set_##cc, fast_put(v, op->a, 1, cc_test(v, cc)))
#define CONDITION(cc) CMOV(cc, 4) CMOV(cc, 8) SETCC(cc)
#define CMOV_ROW(cc)                                                                               \
    {                                                                                              \
        {cmov_r_##cc##_4, cmov_m_##cc##_4}, {cmov_r_##cc##_8, cmov_m_##cc##_8},                    \
    }

CONDITION(0)
CONDITION(1)
CONDITION(2)
CONDITION(3)
CONDITION(4)
CONDITION(5)
CONDITION(6)
CONDITION(7)
CONDITION(8)
CONDITION(9)
CONDITION(10)
CONDITION(11)
CONDITION(12)
CONDITION(13)
CONDITION(14)
CONDITION(15)

op_fn *const fast_cmov[16][2][2] = {CMOV_ROW(0),  CMOV_ROW(1),  CMOV_ROW(2),  CMOV_ROW(3),
                                    CMOV_ROW(4),  CMOV_ROW(5),  CMOV_ROW(6),  CMOV_ROW(7),
                                    CMOV_ROW(8),  CMOV_ROW(9),  CMOV_ROW(10), CMOV_ROW(11),
                                    CMOV_ROW(12), CMOV_ROW(13), CMOV_ROW(14), CMOV_ROW(15)};
op_fn *const fast_set[16] = {set_0, set_1, set_2,  set_3,  set_4,  set_5,  set_6,  set_7,
                             set_8, set_9, set_10, set_11, set_12, set_13, set_14, set_15};

/* ---- stack ---- */

FAST void push(struct soft_vcpu *v, const struct op *op, uint64_t value)
{
    uint64_t sp = v->r[X86_RSP] - 8;
    fast_store(v, op, sp, 8, value);
    v->r[X86_RSP] = sp;
}

#define OP_PUBLIC(name, body)                                                                      \
    const struct op *name(struct soft_vcpu *v, const struct op *op)                                \
    {                                                                                              \
        body;                                                                                      \
        NEXT_OP(v, op);                                                                            \
    }

OP_PUBLIC(fast_push_r, push(v, op, v->r[op->a]))
OP_PUBLIC(fast_push_i, push(v, op, op->imm))
OP_PUBLIC(fast_push_m, push(v, op, LOAD(8, EA_FULL)))
/* POP RSP: the popped value wins, so the pointer moves first. */
OP_PUBLIC(fast_pop_r, uint64_t value = fast_load(v, op, v->r[X86_RSP], 8); v->r[X86_RSP] += 8;
          v->r[op->a] = value)
OP_PUBLIC(fast_leave, uint64_t bp = v->r[X86_RBP]; uint64_t value = fast_load(v, op, bp, 8);
          v->r[X86_RSP] = bp + 8; v->r[X86_RBP] = value)
OP_PUBLIC(fast_pushf, push(v, op, (soft_flags(v) & ~(FL_VM | FL_RF))))

OP_PUBLIC(fast_nop, )
OP_PUBLIC(fast_cdqe, v->r[X86_RAX] = (int32_t)v->r[X86_RAX])
OP_PUBLIC(fast_cwde, v->r[X86_RAX] = (uint32_t)(int16_t)v->r[X86_RAX])
OP_PUBLIC(fast_cqo, v->r[X86_RDX] = (int64_t)v->r[X86_RAX] >> 63)
OP_PUBLIC(fast_cdq, v->r[X86_RDX] = (uint32_t)((int32_t)v->r[X86_RAX] >> 31))
OP_PUBLIC(fast_bswap4, v->r[op->a] = __builtin_bswap32(v->r[op->a]))
OP_PUBLIC(fast_bswap8, v->r[op->a] = __builtin_bswap64(v->r[op->a]))
OP_PUBLIC(fast_xchg4, uint32_t a = v->r[op->a]; v->r[op->a] = (uint32_t)v->r[op->b];
          v->r[op->b] = a)
OP_PUBLIC(fast_xchg8, uint64_t a = v->r[op->a]; v->r[op->a] = v->r[op->b]; v->r[op->b] = a)
OP_PUBLIC(fast_cld, v->rflags &= ~FL_DF)

/* CLI in ring 0: selected only where it cannot fault is not known, so it asks. */
const struct op *fast_cli(struct soft_vcpu *v, const struct op *op)
{
    if (unlikely(v->cpl > (v->rflags >> FL_IOPL_SHIFT & 3)))
        return op_generic(v, op);
    v->rflags &= ~FL_IF;
    NEXT_OP(v, op);
}

/* The shadow is left on where nothing waits: the next look at events then takes one instruction
   more, so that `sti; hlt` is one even at the end of a block. */
const struct op *fast_sti(struct soft_vcpu *v, const struct op *op)
{
    if (unlikely(v->cpl > (v->rflags >> FL_IOPL_SHIFT & 3)))
        return op_generic(v, op);
    if (v->rflags & FL_IF)
        NEXT_OP(v, op);
    v->rflags |= FL_IF;
    v->shadow = SHADOW_STI;
    if (v->intr_maybe || v->nmi_pending || atomic_load_explicit(&v->events, memory_order_relaxed)) {
        v->icount += op->n;
        v->rip = v->r[R_BLOCK] + op->off + op->len;
        return NULL;
    }
    NEXT_OP(v, op);
}

FAST void bit_test(struct soft_vcpu *v, uint64_t a, unsigned bit)
{
    uint32_t f = cc_compute(v) & ~FL_CF;
    cc_set_flags(v, f | (a >> bit & 1));
}

OP_PUBLIC(fast_bt_ri4, bit_test(v, v->r[op->a], op->imm & 31))
OP_PUBLIC(fast_bt_ri8, bit_test(v, v->r[op->a], op->imm & 63))
OP_PUBLIC(fast_bt_rr4, bit_test(v, v->r[op->a], v->r[op->b] & 31))
OP_PUBLIC(fast_bt_rr8, bit_test(v, v->r[op->a], v->r[op->b] & 63))
