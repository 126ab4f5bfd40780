/*
 * Arithmetic of one operand size with its lazy flags, shared by the general and the fast executors.
 * Operands come zero-extended or with garbage above their size; results too.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_ALU_H
#define TENON_ACCEL_SOFT_ALU_H

#include "accel/soft/interp/flags.h"

#define ALU_INLINE static inline __attribute__((always_inline))

ALU_INLINE uint64_t alu_add(struct soft_vcpu *v, uint64_t a, uint64_t b, unsigned n)
{
    uint64_t r = a + b;
    cc_set(v, CC(CC_ADD, n), sign_extend(r, n), sign_extend(b, n));
    return r;
}

ALU_INLINE uint64_t alu_sub(struct soft_vcpu *v, uint64_t a, uint64_t b, unsigned n)
{
    cc_set(v, CC(CC_SUB, n), sign_extend(a, n), sign_extend(b, n));
    return a - b;
}

ALU_INLINE uint64_t alu_adc(struct soft_vcpu *v, uint64_t a, uint64_t b, unsigned n)
{
    bool carry = cc_carry(v);
    uint64_t r = a + b + carry;
    cc_set(v, carry ? CC(CC_ADC, n) : CC(CC_ADD, n), sign_extend(r, n), sign_extend(b, n));
    return r;
}

ALU_INLINE uint64_t alu_sbb(struct soft_vcpu *v, uint64_t a, uint64_t b, unsigned n)
{
    bool carry = cc_carry(v);
    cc_set(v, carry ? CC(CC_SBB, n) : CC(CC_SUB, n), sign_extend(a, n), sign_extend(b, n));
    return a - b - carry;
}

ALU_INLINE uint64_t alu_logic(struct soft_vcpu *v, uint64_t r, unsigned n)
{
    cc_set_logic(v, r, n);
    return r;
}

ALU_INLINE uint64_t alu_inc(struct soft_vcpu *v, uint64_t a, unsigned n)
{
    bool carry = cc_carry(v);
    cc_set(v, CC(CC_INC, n), sign_extend(a + 1, n), carry);
    return a + 1;
}

ALU_INLINE uint64_t alu_dec(struct soft_vcpu *v, uint64_t a, unsigned n)
{
    bool carry = cc_carry(v);
    cc_set(v, CC(CC_DEC, n), sign_extend(a - 1, n), carry);
    return a - 1;
}

/* The eight instructions of group 1, by their number. */
ALU_INLINE uint64_t alu_group1(struct soft_vcpu *v, unsigned which, uint64_t a, uint64_t b,
                               unsigned n)
{
    switch (which) {
    case 0:
        return alu_add(v, a, b, n);
    case 1:
        return alu_logic(v, a | b, n);
    case 2:
        return alu_adc(v, a, b, n);
    case 3:
        return alu_sbb(v, a, b, n);
    case 4:
        return alu_logic(v, a & b, n);
    case 6:
        return alu_logic(v, a ^ b, n);
    default:
        return alu_sub(v, a, b, n); /* SUB and CMP */
    }
}

/* Shifts; the count is masked already and not 0. */
ALU_INLINE uint64_t alu_shl(struct soft_vcpu *v, uint64_t a, unsigned count, unsigned n)
{
    uint64_t last = count > 64 ? 0 : a << (count - 1), r = last << 1;
    cc_set(v, CC(CC_SHL, n), sign_extend(r, n), last);
    return r;
}

ALU_INLINE uint64_t alu_shr(struct soft_vcpu *v, uint64_t a, unsigned count, unsigned n)
{
    uint64_t last = zero_extend(a, n) >> (count - 1), r = last >> 1;
    cc_set(v, CC(CC_SHR, n), sign_extend(r, n), last);
    return r;
}

ALU_INLINE uint64_t alu_sar(struct soft_vcpu *v, uint64_t a, unsigned count, unsigned n)
{
    int64_t last = sign_extend(a, n) >> (count - 1), r = last >> 1;
    cc_set(v, CC(CC_SHR, n), r, last);
    return r;
}

/* Rotates touch CF and OF only. */
uint64_t alu_rotate(struct soft_vcpu *v, unsigned id, uint64_t a, unsigned count, unsigned n);

#endif
