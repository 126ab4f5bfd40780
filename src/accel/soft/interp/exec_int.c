/*
 * General executors of the integer instructions: arithmetic, moves, shifts, multiplication and
 * division (Intel SDM vol. 2). All operand forms, sizes and modes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/interp/exec_all.h"

#include "accel/soft/interp/alu.h"
#include "accel/soft/interp/operand.h"
#include "accel/soft/mem/atomic.h"

static const uint8_t group1_number[] = {[I_ADD] = 0, [I_OR] = 1,  [I_ADC] = 2, [I_SBB] = 3,
                                        [I_AND] = 4, [I_SUB] = 5, [I_XOR] = 6, [I_CMP] = 7};

static bool locked(const struct insn *insn)
{
    return insn->prefix & INSN_LOCK;
}

void exec_group1(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize, which = group1_number[insn->id];
    uint64_t b = get_operand(v, insn, 1);
    if (which == 7) {
        alu_sub(v, get_operand(v, insn, 0), b, n);
        return;
    }
    if (locked(insn)) {
        struct atomic atomic;
        atomic_begin(v, insn, n, &atomic);
        uint64_t a, r;
        uint32_t op = v->cc_op;
        uint64_t dst = v->cc_dst, src = v->cc_src;
        do {
            cc_set(v, op, dst, src); /* ADC and SBB read the carry again */
            a = atomic_old(&atomic);
            r = alu_group1(v, which, a, b, n);
        } while (!atomic_replace(&atomic, a, r));
        atomic_end(v, &atomic);
        return;
    }
    uint64_t a = get_operand_rw(v, insn, 0);
    put_operand(v, insn, 0, alu_group1(v, which, a, b, n));
}

void exec_test(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t a = get_operand(v, insn, 0), b = get_operand(v, insn, 1);
    cc_set_logic(v, a & b, insn->opsize);
}

/* INC, DEC, NOT, NEG. */
static uint64_t unary(struct soft_vcpu *v, unsigned id, uint64_t a, unsigned n)
{
    switch (id) {
    case I_INC:
        return alu_inc(v, a, n);
    case I_DEC:
        return alu_dec(v, a, n);
    case I_NOT:
        return ~a;
    default:
        return alu_sub(v, 0, a, n);
    }
}

void exec_unary(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize;
    if (locked(insn)) {
        struct atomic atomic;
        atomic_begin(v, insn, n, &atomic);
        uint64_t a, r;
        uint32_t op = v->cc_op;
        uint64_t dst = v->cc_dst, src = v->cc_src;
        do {
            cc_set(v, op, dst, src);
            a = atomic_old(&atomic);
            r = unary(v, insn->id, a, n);
        } while (!atomic_replace(&atomic, a, r));
        atomic_end(v, &atomic);
        return;
    }
    uint64_t a = get_operand_rw(v, insn, 0);
    put_operand(v, insn, 0, unary(v, insn->id, a, n));
}

void exec_mov(struct soft_vcpu *v, const struct insn *insn)
{
    put_operand(v, insn, 0, get_operand(v, insn, 1));
}

void exec_movzx(struct soft_vcpu *v, const struct insn *insn)
{
    put_operand(v, insn, 0, get_operand(v, insn, 1));
}

void exec_movsx(struct soft_vcpu *v, const struct insn *insn)
{
    put_operand(v, insn, 0, sign_extend(get_operand(v, insn, 1), operand_size(insn, 1)));
}

void exec_lea(struct soft_vcpu *v, const struct insn *insn)
{
    put_operand(v, insn, 0, soft_ea(v, insn));
}

void exec_movbe(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t a = get_operand(v, insn, 1);
    a = insn->opsize == 2   ? __builtin_bswap16(a)
        : insn->opsize == 4 ? __builtin_bswap32(a)
                            : __builtin_bswap64(a);
    put_operand(v, insn, 0, a);
}

void exec_bswap(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t a = v->r[insn->rm];
    if (insn->opsize == 8)
        v->r[insn->rm] = __builtin_bswap64(a);
    else if (insn->opsize == 4)
        v->r[insn->rm] = __builtin_bswap32(a);
    else
        put_reg(v, insn, insn->rm, 2, 0); /* undefined; zero on real CPUs */
}

void exec_cbw(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize;
    put_reg(v, insn, X86_RAX, n, sign_extend(v->r[X86_RAX], n / 2));
}

void exec_cwd(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize;
    put_reg(v, insn, X86_RDX, n, sign_extend(v->r[X86_RAX], n) >> 63);
}

/* ---- shifts and rotates ---- */

uint64_t alu_rotate(struct soft_vcpu *v, unsigned id, uint64_t a, unsigned count, unsigned n)
{
    unsigned bits = n * 8;
    uint32_t f = cc_compute(v);
    bool carry = f & FL_CF, overflow;
    a = zero_extend(a, n);
    uint64_t r = a;
    if (id == I_RCL || id == I_RCR) {
        for (unsigned i = count % (bits + 1); i > 0; i--) {
            if (id == I_RCL) {
                bool out = r >> (bits - 1) & 1;
                r = zero_extend(r << 1 | carry, n);
                carry = out;
            } else {
                bool out = r & 1;
                r = r >> 1 | (uint64_t)carry << (bits - 1);
                carry = out;
            }
        }
    } else {
        unsigned k = count & (bits - 1);
        if (id == I_ROR)
            k = (bits - k) & (bits - 1);
        if (k)
            r = zero_extend(a << k, n) | a >> (bits - k);
        carry = id == I_ROL ? r & 1 : r >> (bits - 1) & 1;
    }
    if (id == I_ROL || id == I_RCL)
        overflow = (r >> (bits - 1) & 1) != carry;
    else
        overflow = (r >> (bits - 1) ^ r >> (bits - 2)) & 1;
    f = (f & ~(FL_CF | FL_OF)) | (carry ? FL_CF : 0) | (overflow ? FL_OF : 0);
    cc_set_flags(v, f);
    return r;
}

void exec_shift(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize;
    unsigned count = get_operand(v, insn, 1) & (n == 8 ? 63 : 31);
    uint64_t a = get_operand_rw(v, insn, 0), r;
    if (!count) {
        /* A 32-bit register is still written (its upper half clears); no flag changes. */
        put_operand(v, insn, 0, a);
        return;
    }
    switch (insn->id) {
    case I_SHL:
        r = alu_shl(v, a, count, n);
        break;
    case I_SHR:
        r = alu_shr(v, a, count, n);
        break;
    case I_SAR:
        r = alu_sar(v, a, count, n);
        break;
    default:
        r = alu_rotate(v, insn->id, a, count, n);
        break;
    }
    put_operand(v, insn, 0, r);
}

void exec_shld_shrd(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize, bits = n * 8;
    unsigned count = get_operand(v, insn, 2) & (n == 8 ? 63 : 31);
    uint64_t b = get_operand(v, insn, 1), a = get_operand_rw(v, insn, 0), r, last;
    if (!count) {
        put_operand(v, insn, 0, a);
        return;
    }
    if (n == 2) { /* counts above 16 are undefined: CPUs rotate the triple a:b:a */
        bool left = insn->id == I_SHLD;
        uint64_t wide = left ? a << 32 | b << 16 | a : a << 32 | b << 16 | a;
        if (left) {
            wide = a << 32 | b << 16 | a;
            last = wide << (count - 1) >> 32;
            r = wide << count >> 32;
        } else {
            last = wide >> (count - 1);
            r = wide >> count;
        }
    } else if (insn->id == I_SHLD) {
        last = count == 1 ? a : a << (count - 1) | b >> (bits - count + 1);
        r = a << count | b >> (bits - count);
    } else {
        last = count == 1 ? a : a >> (count - 1) | b << (bits - count + 1);
        r = a >> count | b << (bits - count);
    }
    r = zero_extend(r, n);
    cc_set(v, insn->id == I_SHLD ? CC(CC_SHL, n) : CC(CC_SHR, n), sign_extend(r, n),
           insn->id == I_SHLD ? last : (uint64_t)sign_extend(last, n));
    put_operand(v, insn, 0, r);
}

/* ---- multiplication and division ---- */

static void put_pair(struct soft_vcpu *v, const struct insn *insn, uint64_t low, uint64_t high)
{
    if (insn->opsize == 1) {
        put_reg(v, insn, X86_RAX, 2, (low & 0xff) | (high & 0xff) << 8);
        return;
    }
    put_reg(v, insn, X86_RAX, insn->opsize, low);
    put_reg(v, insn, X86_RDX, insn->opsize, high);
}

void exec_mul(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize;
    uint64_t a = zero_extend(v->r[X86_RAX], n), b = get_operand(v, insn, 0);
    unsigned __int128 product = (unsigned __int128)a * b;
    uint64_t low = zero_extend(product, n), high = zero_extend(product >> (n * 8), n);
    put_pair(v, insn, low, high);
    cc_set(v, CC(CC_MUL, n), sign_extend(low, n), high != 0);
}

void exec_imul1(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize;
    int64_t a = sign_extend(v->r[X86_RAX], n), b = sign_extend(get_operand(v, insn, 0), n);
    __int128 product = (__int128)a * b;
    uint64_t low = product, high = product >> (n * 8);
    put_pair(v, insn, low, high);
    cc_set(v, CC(CC_MUL, n), sign_extend(low, n), product != sign_extend(low, n));
}

void exec_imul(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize;
    bool three = insn->id == I_IMUL3;
    int64_t a = sign_extend(get_operand(v, insn, three ? 1 : 0), n);
    int64_t b = sign_extend(get_operand(v, insn, three ? 2 : 1), n);
    __int128 product = (__int128)a * b;
    int64_t low = sign_extend(product, n);
    put_operand(v, insn, 0, low);
    cc_set(v, CC(CC_MUL, n), low, product != low);
}

void exec_div(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize;
    uint64_t b = get_operand(v, insn, 0);
    uint64_t high = n == 1 ? v->r[X86_RAX] >> 8 & 0xff : zero_extend(v->r[X86_RDX], n);
    unsigned __int128 a = (unsigned __int128)high << (n * 8) | zero_extend(v->r[X86_RAX], n);
    if (!b || high >= b)
        soft_raise(v, VEC_DE, 0);
    uint64_t quotient, rest;
    if (n == 8) {
        __asm__("div %4" : "=a"(quotient), "=d"(rest) : "a"((uint64_t)a), "d"(high), "r"(b) : "cc");
    } else {
        quotient = (uint64_t)a / b;
        rest = (uint64_t)a % b;
    }
    put_pair(v, insn, quotient, rest);
}

void exec_idiv(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize;
    int64_t b = sign_extend(get_operand(v, insn, 0), n);
    uint64_t high = n == 1 ? v->r[X86_RAX] >> 8 & 0xff : v->r[X86_RDX];
    __int128 a = (__int128)((unsigned __int128)sign_extend(high, n) << (n * 8)) |
                 (__int128)zero_extend(v->r[X86_RAX], n);
    if (!b || (b == -1 && a == (__int128)((unsigned __int128)1 << 127)))
        soft_raise(v, VEC_DE, 0);
    __int128 quotient = a / b, rest = a % b;
    if (quotient != sign_extend(quotient, n))
        soft_raise(v, VEC_DE, 0);
    put_pair(v, insn, quotient, rest);
}

/* ---- exchanges ---- */

void exec_xchg(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize;
    uint64_t b = get_operand(v, insn, 1), a;
    if (insn->is_mem) {
        struct atomic atomic;
        atomic_begin(v, insn, n, &atomic);
        do {
            a = atomic_old(&atomic);
        } while (!atomic_replace(&atomic, a, b));
        atomic_end(v, &atomic);
    } else {
        a = get_operand(v, insn, 0);
        put_operand(v, insn, 0, b);
    }
    put_operand(v, insn, 1, a);
}

void exec_xadd(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize;
    uint64_t b = get_operand(v, insn, 1), a;
    if (locked(insn)) {
        struct atomic atomic;
        atomic_begin(v, insn, n, &atomic);
        do {
            a = atomic_old(&atomic);
        } while (!atomic_replace(&atomic, a, a + b));
        atomic_end(v, &atomic);
        alu_add(v, a, b, n);
        put_operand(v, insn, 1, a);
        return;
    }
    a = get_operand_rw(v, insn, 0);
    if (insn->is_mem) {
        put_operand(v, insn, 0, a + b);
        put_operand(v, insn, 1, a);
    } else {
        put_operand(v, insn, 1, a);
        put_operand(v, insn, 0, a + b);
    }
    alu_add(v, a, b, n);
}

void exec_cmpxchg(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize;
    uint64_t b = get_operand(v, insn, 1), expected = zero_extend(v->r[X86_RAX], n), a;
    if (locked(insn)) {
        struct atomic atomic;
        atomic_begin(v, insn, n, &atomic);
        do {
            a = atomic_old(&atomic);
        } while (!atomic_replace(&atomic, a, a == expected ? b : a));
        atomic_end(v, &atomic);
    } else {
        a = get_operand_rw(v, insn, 0);
        if (a == expected)
            put_operand(v, insn, 0, b);
        else if (insn->is_mem)
            put_operand(v, insn, 0, a);
    }
    alu_sub(v, expected, a, n);
    if (a != expected)
        put_reg(v, insn, X86_RAX, n, a);
    else if (n == 4 && !insn->is_mem)
        v->r[insn->rm] = (uint32_t)b;
}

/* ---- flags ---- */

void exec_flag(struct soft_vcpu *v, const struct insn *insn)
{
    uint32_t f = cc_compute(v);
    switch (insn->id) {
    case I_CLC:
        cc_set_flags(v, f & ~FL_CF);
        break;
    case I_STC:
        cc_set_flags(v, f | FL_CF);
        break;
    case I_CMC:
        cc_set_flags(v, f ^ FL_CF);
        break;
    case I_CLD:
        v->rflags &= ~FL_DF;
        break;
    default:
        v->rflags |= FL_DF;
        break;
    }
}

void exec_lahf(struct soft_vcpu *v, const struct insn *insn)
{
    uint32_t keep = FL_SF | FL_ZF | FL_AF | FL_PF | FL_CF;
    uint8_t *ah = (uint8_t *)&v->r[X86_RAX] + 1;
    if (insn->id == I_LAHF)
        *ah = (cc_compute(v) & keep) | 2;
    else
        cc_set_flags(v, (cc_compute(v) & FL_OF) | (*ah & keep));
}

void exec_setcc(struct soft_vcpu *v, const struct insn *insn)
{
    put_operand(v, insn, 0, cc_test_slow(v, insn->opcode & 15));
}

void exec_cmovcc(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t b = get_operand(v, insn, 1);
    if (cc_test_slow(v, insn->opcode & 15))
        put_operand(v, insn, 0, b);
    else
        put_operand(v, insn, 0, get_operand(v, insn, 0));
}
