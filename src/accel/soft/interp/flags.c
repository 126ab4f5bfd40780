/*
 * Lazy arithmetic flags: the computations that are not worth inlining, and RFLAGS as a whole.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/interp/flags.h"

static inline uint32_t parity(uint64_t result)
{
    return __builtin_parity((uint8_t)result) ? 0 : FL_PF;
}

uint32_t cc_compute(const struct soft_vcpu *v)
{
    uint64_t d = v->cc_dst, s = v->cc_src, result, a;
    unsigned top = v->cc_op >> 8;
    bool carry, overflow;
    uint32_t adjust = 0;
    switch ((uint8_t)v->cc_op) {
    case CC_FLAGS:
        return s;
    case CC_SUB:
    case CC_SBB:
        result = d - s - ((uint8_t)v->cc_op == CC_SBB);
        carry = (uint8_t)v->cc_op == CC_SBB ? d <= s : d < s;
        overflow = ((d ^ s) & (d ^ result)) >> top & 1;
        adjust = (d ^ s ^ result) & FL_AF;
        result = (uint64_t)((int64_t)(result << (63 - top)) >> (63 - top));
        break;
    case CC_ADD:
    case CC_ADC:
        result = d;
        a = d - s - ((uint8_t)v->cc_op == CC_ADC);
        carry = (uint8_t)v->cc_op == CC_ADC ? d <= s : d < s;
        overflow = ((a ^ result) & (s ^ result)) >> top & 1;
        adjust = (a ^ s ^ result) & FL_AF;
        break;
    case CC_INC:
        result = d;
        carry = s;
        overflow = d == ~0ull << top;
        adjust = (d & 15) == 0 ? FL_AF : 0;
        break;
    case CC_DEC:
        result = d;
        carry = s;
        overflow = d == (1ull << top) - 1;
        adjust = (d & 15) == 15 ? FL_AF : 0;
        break;
    case CC_SHL:
        result = d;
        carry = s >> top & 1;
        overflow = (s ^ d) >> top & 1;
        break;
    case CC_SHR:
        result = d;
        carry = s & 1;
        overflow = (s ^ d) >> top & 1;
        break;
    default: /* CC_MUL */
        result = d;
        carry = overflow = s & 1;
        break;
    }
    return (carry ? FL_CF : 0) | parity(result) | adjust | (result ? 0 : FL_ZF) |
           (result >> 63 ? FL_SF : 0) | (overflow ? FL_OF : 0);
}

bool cc_test_slow(const struct soft_vcpu *v, unsigned cc)
{
    uint32_t f = cc_compute(v);
    bool less = !(f & FL_SF) != !(f & FL_OF);
    bool result;
    switch (cc >> 1) {
    case 0:
        result = f & FL_OF;
        break;
    case 1:
        result = f & FL_CF;
        break;
    case 2:
        result = f & FL_ZF;
        break;
    case 3:
        result = f & (FL_CF | FL_ZF);
        break;
    case 4:
        result = f & FL_SF;
        break;
    case 5:
        result = f & FL_PF;
        break;
    case 6:
        result = less;
        break;
    default:
        result = less || (f & FL_ZF);
        break;
    }
    return result ^ (cc & 1);
}

uint32_t soft_flags(struct soft_vcpu *v)
{
    return (v->rflags & ~FL_ARITH) | cc_compute(v) | 2;
}

void soft_set_arith(struct soft_vcpu *v, uint32_t flags)
{
    cc_set_flags(v, flags & FL_ARITH);
}

void soft_set_flags(struct soft_vcpu *v, uint32_t flags)
{
    cc_set_flags(v, flags & FL_ARITH);
    v->rflags = (flags & ~FL_ARITH) | 2;
}
