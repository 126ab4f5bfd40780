/*
 * Specialised ops: arithmetic and logic of 64-bit code.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma GCC target("general-regs-only")

#include "accel/soft/interp/fast.h"

#define WRITES(which) ((which) != 7)

FAST void alu_rr(struct soft_vcpu *v, const struct op *op, unsigned which, unsigned n)
{
    uint64_t r = alu_group1(v, which, fast_reg(v, op->a, n), fast_reg(v, op->b, n), n);
    if (WRITES(which))
        fast_put(v, op->a, n, r);
}

FAST void alu_ri(struct soft_vcpu *v, const struct op *op, unsigned which, unsigned n)
{
    uint64_t r = alu_group1(v, which, fast_reg(v, op->a, n), op->imm, n);
    if (WRITES(which))
        fast_put(v, op->a, n, r);
}

FAST void alu_rm(struct soft_vcpu *v, const struct op *op, unsigned which, unsigned n,
                 enum ea_shape shape)
{
    uint64_t b = fast_load(v, op, fast_ea(v, op, shape), n);
    uint64_t r = alu_group1(v, which, fast_reg(v, op->a, n), b, n);
    if (WRITES(which))
        fast_put(v, op->a, n, r);
}

/* Memory with a register or an immediate. */
FAST void alu_m(struct soft_vcpu *v, const struct op *op, unsigned which, unsigned n,
                enum ea_shape shape, uint64_t b)
{
    uint64_t linear = fast_ea(v, op, shape);
    if (!WRITES(which)) {
        alu_group1(v, which, fast_load(v, op, linear, n), b, n);
        return;
    }
    uintptr_t host = write_hit(v, linear, n);
    uint64_t a = likely(host) ? host_load(host, n) : slow_load_rw(v, op, linear, n);
    uint64_t r = alu_group1(v, which, a, b, n);
    if (likely(host))
        host_store(host, n, r);
    else
        slow_store(v, op, linear, n, r);
}

#define ALU_SIZE(name, which, n)                                                                   \
    OP_DEFINE(name##_rr_##n, alu_rr(v, op, which, n))                                              \
    OP_DEFINE(name##_ri_##n, alu_ri(v, op, which, n))                                              \
    OP_DEFINE(name##_rm_##n, alu_rm(v, op, which, n, EA_BASE))                                     \
    OP_DEFINE(name##_rmf_##n, alu_rm(v, op, which, n, EA_FULL))                                    \
    OP_DEFINE(name##_mr_##n, alu_m(v, op, which, n, EA_BASE, fast_reg(v, op->a, n)))               \
    OP_DEFINE(name##_mrf_##n, alu_m(v, op, which, n, EA_FULL, fast_reg(v, op->a, n)))              \
    OP_DEFINE(name##_mi_##n, alu_m(v, op, which, n, EA_BASE, op->imm))                             \
    OP_DEFINE(name##_mif_##n, alu_m(v, op, which, n, EA_FULL, op->imm))
#define ALU_OP(name, which)                                                                        \
    ALU_SIZE(name, which, 1)                                                                       \
    ALU_SIZE(name, which, 2) ALU_SIZE(name, which, 4) ALU_SIZE(name, which, 8)
#define ALU_ROW(name, n)                                                                           \
    {                                                                                              \
        name##_rr_##n, name##_ri_##n, name##_rm_##n, name##_rmf_##n, name##_mr_##n,                \
            name##_mrf_##n, name##_mi_##n, name##_mif_##n                                          \
    }
#define ALU_TABLE(name)                                                                            \
    {                                                                                              \
        ALU_ROW(name, 1), ALU_ROW(name, 2), ALU_ROW(name, 4), ALU_ROW(name, 8)                     \
    }

ALU_OP(add, 0)
ALU_OP(or, 1)
ALU_OP(adc, 2)
ALU_OP(sbb, 3)
ALU_OP(and, 4)
ALU_OP(sub, 5)
ALU_OP(xor, 6)
ALU_OP(cmp, 7)

op_fn *const fast_alu[8][SIZES][ALU_FORMS] = {
    ALU_TABLE(add), ALU_TABLE(or),  ALU_TABLE(adc), ALU_TABLE(sbb),
    ALU_TABLE(and), ALU_TABLE(sub), ALU_TABLE(xor), ALU_TABLE(cmp),
};

/* ---- TEST ---- */

#define TEST_SIZE(n)                                                                               \
    OP_DEFINE(test_rr_##n, cc_set_logic(v, fast_reg(v, op->a, n) & fast_reg(v, op->b, n), n))      \
    OP_DEFINE(test_ri_##n, cc_set_logic(v, fast_reg(v, op->a, n) & op->imm, n))                    \
    OP_DEFINE(                                                                                     \
        test_mr_##n,                                                                               \
        cc_set_logic(v, fast_load(v, op, fast_ea(v, op, EA_BASE), n) & fast_reg(v, op->a, n), n))  \
    OP_DEFINE(                                                                                     \
        test_mrf_##n,                                                                              \
        cc_set_logic(v, fast_load(v, op, fast_ea(v, op, EA_FULL), n) & fast_reg(v, op->a, n), n))  \
    OP_DEFINE(test_mi_##n,                                                                         \
              cc_set_logic(v, fast_load(v, op, fast_ea(v, op, EA_BASE), n) & op->imm, n))          \
    OP_DEFINE(test_mif_##n,                                                                        \
              cc_set_logic(v, fast_load(v, op, fast_ea(v, op, EA_FULL), n) & op->imm, n))
#define TEST_ROW(n)                                                                                \
    {                                                                                              \
        test_rr_##n, test_ri_##n, NULL, NULL, test_mr_##n, test_mrf_##n, test_mi_##n, test_mif_##n \
    }

TEST_SIZE(1)
TEST_SIZE(2)
TEST_SIZE(4)
TEST_SIZE(8)

op_fn *const fast_test[SIZES][ALU_FORMS] = {TEST_ROW(1), TEST_ROW(2), TEST_ROW(4), TEST_ROW(8)};

/* ---- INC, DEC, NOT, NEG ---- */

FAST uint64_t unary(struct soft_vcpu *v, unsigned which, uint64_t a, unsigned n)
{
    switch (which) {
    case 0:
        return alu_inc(v, a, n);
    case 1:
        return alu_dec(v, a, n);
    case 2:
        return ~a;
    default:
        return alu_sub(v, 0, a, n);
    }
}

FAST void unary_m(struct soft_vcpu *v, const struct op *op, unsigned which, unsigned n,
                  enum ea_shape shape)
{
    uint64_t linear = fast_ea(v, op, shape);
    uintptr_t host = write_hit(v, linear, n);
    uint64_t a = likely(host) ? host_load(host, n) : slow_load_rw(v, op, linear, n);
    uint64_t r = unary(v, which, a, n);
    if (likely(host))
        host_store(host, n, r);
    else
        slow_store(v, op, linear, n, r);
}

#define UNARY_SIZE(name, which, n)                                                                 \
    OP_DEFINE(name##_r_##n, fast_put(v, op->a, n, unary(v, which, fast_reg(v, op->a, n), n)))      \
    OP_DEFINE(name##_m_##n, unary_m(v, op, which, n, EA_BASE))                                     \
    OP_DEFINE(name##_mf_##n, unary_m(v, op, which, n, EA_FULL))
#define UNARY_OP(name, which)                                                                      \
    UNARY_SIZE(name, which, 1)                                                                     \
    UNARY_SIZE(name, which, 2) UNARY_SIZE(name, which, 4) UNARY_SIZE(name, which, 8)
#define UNARY_TABLE(name)                                                                          \
    {                                                                                              \
        {name##_r_1, name##_m_1, name##_mf_1}, {name##_r_2, name##_m_2, name##_mf_2},              \
            {name##_r_4, name##_m_4, name##_mf_4}, {name##_r_8, name##_m_8, name##_mf_8},          \
    }

UNARY_OP(inc, 0)
UNARY_OP(dec, 1)
UNARY_OP(not, 2)
UNARY_OP(neg, 3)

op_fn *const fast_unary[4][SIZES][3] = {UNARY_TABLE(inc), UNARY_TABLE(dec), UNARY_TABLE(not ),
                                        UNARY_TABLE(neg)};

/* ---- shifts of a register ---- */

FAST uint64_t shift(struct soft_vcpu *v, unsigned which, uint64_t a, unsigned count, unsigned n)
{
    switch (which) {
    case 0:
        return alu_shl(v, a, count, n);
    case 1:
        return alu_shr(v, a, count, n);
    default:
        return alu_sar(v, a, count, n);
    }
}

/* The immediate is masked already and not 0. */
FAST void shift_i(struct soft_vcpu *v, const struct op *op, unsigned which, unsigned n)
{
    fast_put(v, op->a, n, shift(v, which, fast_reg(v, op->a, n), op->imm, n));
}

FAST void shift_cl(struct soft_vcpu *v, const struct op *op, unsigned which, unsigned n)
{
    unsigned count = v->r[X86_RCX] & (n == 8 ? 63 : 31);
    uint64_t a = fast_reg(v, op->a, n);
    if (likely(count))
        a = shift(v, which, a, count, n);
    fast_put(v, op->a, n, a);
}

#define SHIFT_SIZE(name, which, n)                                                                 \
    OP_DEFINE(name##_i_##n, shift_i(v, op, which, n))                                              \
    OP_DEFINE(name##_cl_##n, shift_cl(v, op, which, n))
#define SHIFT_OP(name, which)                                                                      \
    SHIFT_SIZE(name, which, 1)                                                                     \
    SHIFT_SIZE(name, which, 2) SHIFT_SIZE(name, which, 4) SHIFT_SIZE(name, which, 8)
#define SHIFT_TABLE(name)                                                                          \
    {                                                                                              \
        {name##_i_1, name##_cl_1}, {name##_i_2, name##_cl_2}, {name##_i_4, name##_cl_4},           \
            {name##_i_8, name##_cl_8},                                                             \
    }

SHIFT_OP(shl, 0)
SHIFT_OP(shr, 1)
SHIFT_OP(sar, 2)

op_fn *const fast_shift[3][SIZES][SHIFT_FORMS] = {SHIFT_TABLE(shl), SHIFT_TABLE(shr),
                                                  SHIFT_TABLE(sar)};

FAST void rotate(struct soft_vcpu *v, const struct op *op, bool right, unsigned n)
{
    unsigned bits = n * 8, count = op->imm & (bits - 1), k = right ? bits - count : count;
    uint64_t a = fast_reg(v, op->a, n);
    uint64_t r = k && k != bits ? zero_extend(a << k, n) | a >> (bits - k) : a;
    uint32_t f = cc_compute(v) & ~(FL_CF | FL_OF);
    bool top = r >> (bits - 1) & 1;
    if (right)
        f |= (top ? FL_CF : 0) | ((r >> (bits - 2) & 1) != top ? FL_OF : 0);
    else
        f |= (r & 1 ? FL_CF : 0) | ((r & 1) != top ? FL_OF : 0);
    cc_set_flags(v, f);
    fast_put(v, op->a, n, r);
}

OP_DEFINE(rol_4, rotate(v, op, false, 4))
OP_DEFINE(rol_8, rotate(v, op, false, 8))
OP_DEFINE(ror_4, rotate(v, op, true, 4))
OP_DEFINE(ror_8, rotate(v, op, true, 8))

op_fn *const fast_rotate[2][SIZES] = {{NULL, NULL, rol_4, rol_8}, {NULL, NULL, ror_4, ror_8}};

/* ---- IMUL with a register result ---- */

FAST void imul(struct soft_vcpu *v, const struct op *op, uint64_t a, uint64_t b, unsigned n)
{
    int64_t low;
    bool overflow;
    if (n == 8) {
        overflow = __builtin_mul_overflow((int64_t)a, (int64_t)b, &low);
    } else {
        int64_t product = (int64_t)(int32_t)a * (int32_t)b;
        low = (int32_t)product;
        overflow = low != product;
    }
    cc_set(v, CC(CC_MUL, n), low, overflow);
    fast_put(v, op->a, n, low);
}

#define IMUL_SIZE(n)                                                                               \
    OP_DEFINE(imul2_r_##n, imul(v, op, fast_reg(v, op->a, n), fast_reg(v, op->b, n), n))           \
    OP_DEFINE(imul2_m_##n,                                                                         \
              imul(v, op, fast_reg(v, op->a, n), fast_load(v, op, fast_ea(v, op, EA_BASE), n), n)) \
    OP_DEFINE(imul2_mf_##n,                                                                        \
              imul(v, op, fast_reg(v, op->a, n), fast_load(v, op, fast_ea(v, op, EA_FULL), n), n)) \
    OP_DEFINE(imul3_r_##n, imul(v, op, fast_reg(v, op->b, n), op->imm, n))                         \
    OP_DEFINE(imul3_m_##n, imul(v, op, fast_load(v, op, fast_ea(v, op, EA_BASE), n), op->imm, n))  \
    OP_DEFINE(imul3_mf_##n, imul(v, op, fast_load(v, op, fast_ea(v, op, EA_FULL), n), op->imm, n))

IMUL_SIZE(4)
IMUL_SIZE(8)

op_fn *const fast_imul[2][SIZES][3] = {
    {{NULL}, {NULL}, {imul2_r_4, imul2_m_4, imul2_mf_4}, {imul2_r_8, imul2_m_8, imul2_mf_8}},
    {{NULL}, {NULL}, {imul3_r_4, imul3_m_4, imul3_mf_4}, {imul3_r_8, imul3_m_8, imul3_mf_8}},
};
