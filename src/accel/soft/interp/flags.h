/*
 * Lazy arithmetic flags (Intel SDM vol. 1, 3.4.3): an instruction leaves its operands, and whoever
 * needs a flag computes it. Operands are sign-extended to 64 bits, which keeps both orders, so that
 * most conditions do not depend on the operand size.
 *
 *   kind       cc_dst             cc_src
 *   CC_FLAGS   unused             the flags themselves (FL_ARITH)
 *   CC_SUB     minuend            subtrahend; also CMP, NEG (0 - x), and logic results (r - 0)
 *   CC_SBB     minuend            subtrahend, with a borrow of 1
 *   CC_ADD     result             addend
 *   CC_ADC     result             addend, with a carry of 1
 *   CC_INC     result             CF before
 *   CC_DEC     result             CF before
 *   CC_SHL     result             operand shifted by count - 1 (its top bit is CF)
 *   CC_SHR     result             operand shifted by count - 1 (its bottom bit is CF); SAR too
 *   CC_MUL     low half           CF and OF as 0 or 1
 *
 * cc_op holds the kind in bits 7:0 and the operand's top bit number in bits 15:8.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_FLAGS_H
#define TENON_ACCEL_SOFT_FLAGS_H

#include "accel/soft/soft.h"

enum cc_kind {
    CC_FLAGS,
    CC_SUB,
    CC_SBB,
    CC_ADD,
    CC_ADC,
    CC_INC,
    CC_DEC,
    CC_SHL,
    CC_SHR,
    CC_MUL,
};

#define CC(kind, bytes) ((uint32_t)(kind) | ((bytes)*8u - 1) << 8)

/* The arithmetic flags from the lazy state. */
uint32_t cc_compute(const struct soft_vcpu *v);
/* Conditions that the fast tests below leave over; `cc` as in Jcc opcodes. */
bool cc_test_slow(const struct soft_vcpu *v, unsigned cc);

static inline int64_t sign_extend(uint64_t value, unsigned bytes)
{
    switch (bytes) {
    case 1:
        return (int8_t)value;
    case 2:
        return (int16_t)value;
    case 4:
        return (int32_t)value;
    default:
        return value;
    }
}

static inline uint64_t zero_extend(uint64_t value, unsigned bytes)
{
    switch (bytes) {
    case 1:
        return (uint8_t)value;
    case 2:
        return (uint16_t)value;
    case 4:
        return (uint32_t)value;
    default:
        return value;
    }
}

static inline void cc_set(struct soft_vcpu *v, uint32_t op, uint64_t dst, uint64_t src)
{
    v->cc_op = op;
    v->cc_dst = dst;
    v->cc_src = src;
}

static inline void cc_set_flags(struct soft_vcpu *v, uint32_t flags)
{
    v->cc_op = CC(CC_FLAGS, 8);
    v->cc_dst = 0;
    v->cc_src = flags;
}

static inline void cc_set_logic(struct soft_vcpu *v, uint64_t result, unsigned bytes)
{
    cc_set(v, CC(CC_SUB, bytes), sign_extend(result, bytes), 0);
}

/* Carry alone: what ADC, SBB, INC and RCL ask for. */
static inline bool cc_carry(const struct soft_vcpu *v)
{
    switch ((uint8_t)v->cc_op) {
    case CC_FLAGS:
        return v->cc_src & FL_CF;
    case CC_SUB:
        return v->cc_dst < v->cc_src;
    case CC_SBB:
        return v->cc_dst <= v->cc_src;
    case CC_ADD:
        return v->cc_dst < v->cc_src;
    case CC_ADC:
        return v->cc_dst <= v->cc_src;
    case CC_SHL:
        return v->cc_src >> (v->cc_op >> 8) & 1;
    default:
        return v->cc_src & 1; /* INC, DEC, SHR, MUL */
    }
}

static inline bool cc_zero(const struct soft_vcpu *v)
{
    uint8_t kind = v->cc_op;
    if (likely(kind == CC_SUB))
        return v->cc_dst == v->cc_src;
    if (likely(kind != CC_FLAGS && kind != CC_SBB))
        return v->cc_dst == 0;
    return cc_compute(v) & FL_ZF;
}

static inline bool cc_sign(const struct soft_vcpu *v)
{
    uint8_t kind = v->cc_op;
    if (likely(kind == CC_SUB))
        return (v->cc_dst - v->cc_src) >> (v->cc_op >> 8) & 1;
    if (likely(kind != CC_FLAGS && kind != CC_SBB))
        return v->cc_dst >> 63;
    return cc_compute(v) & FL_SF;
}

/* Condition `cc` of Jcc, SETcc and CMOVcc: 0 O, 2 B, 4 Z, 6 BE, 8 S, 10 P, 12 L, 14 LE; odd
 * negates. */
static inline __attribute__((always_inline)) bool cc_test(const struct soft_vcpu *v, unsigned cc)
{
    bool result;
    switch (cc >> 1) {
    case 1:
        result = cc_carry(v);
        break;
    case 2:
        result = cc_zero(v);
        break;
    case 4:
        result = cc_sign(v);
        break;
    default:
        if (likely((uint8_t)v->cc_op == CC_SUB && (cc >> 1) != 0 && (cc >> 1) != 5)) {
            if (cc >> 1 == 3)
                result = v->cc_dst <= v->cc_src;
            else if (cc >> 1 == 6)
                result = (int64_t)v->cc_dst < (int64_t)v->cc_src;
            else
                result = (int64_t)v->cc_dst <= (int64_t)v->cc_src;
        } else {
            return cc_test_slow(v, cc);
        }
    }
    return result ^ (cc & 1);
}

#endif
