/*
 * General executors of bit instructions: BT family, scans and counts, CRC32, ADX, BMI1, BMI2,
 * RDRAND.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/interp/exec_all.h"

#include "accel/soft/interp/alu.h"
#include "accel/soft/interp/operand.h"
#include "accel/soft/mem/atomic.h"
#include "accel/soft/system/segment.h"

static uint64_t bit_result(unsigned id, uint64_t a, uint64_t mask)
{
    switch (id) {
    case I_BTS:
        return a | mask;
    case I_BTR:
        return a & ~mask;
    case I_BTC:
        return a ^ mask;
    default:
        return a;
    }
}

static void set_carry(struct soft_vcpu *v, bool carry)
{
    cc_set_flags(v, (cc_compute(v) & ~FL_CF) | (carry ? FL_CF : 0));
}

/* BT, BTS, BTR, BTC. With a register offset and memory, the offset reaches beyond the operand. */
void exec_bt(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize, bits = n * 8;
    int64_t offset = sign_extend(get_operand(v, insn, 1), n);
    uint64_t mask = 1ull << (offset & (bits - 1)), a;
    if (!insn->is_mem) {
        a = get_operand(v, insn, 0);
        if (insn->id != I_BT)
            put_operand(v, insn, 0, bit_result(insn->id, a, mask));
        set_carry(v, a & mask);
        return;
    }
    uint64_t ea = soft_ea(v, insn);
    if (insn->op[1] == O_Gv)
        ea = zero_extend(ea + (offset >> (n == 8 ? 6 : n == 4 ? 5 : 4)) * n, insn->addrsize);
    enum soft_access access = insn->id == I_BT ? ACC_READ : ACC_WRITE;
    uint64_t linear = soft_seg_linear(v, insn->seg, ea, n, access);
    if (insn->id == I_BT) {
        a = soft_load(v, linear, n);
    } else if (insn->prefix & INSN_LOCK) {
        struct atomic atomic;
        atomic_begin_at(v, linear, n, &atomic);
        do {
            a = atomic_old(&atomic);
        } while (!atomic_replace(&atomic, a, bit_result(insn->id, a, mask)));
        atomic_end(v, &atomic);
    } else {
        soft_check_alignment(v, linear, n);
        soft_probe(v, linear, n, ACC_WRITE);
        a = soft_load(v, linear, n);
        soft_store(v, linear, n, bit_result(insn->id, a, mask));
    }
    set_carry(v, a & mask);
}

void exec_bsf_bsr(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t a = get_operand(v, insn, 1);
    uint32_t f = cc_compute(v) & ~FL_ARITH;
    if (!a) { /* the destination keeps its value, as CPUs do; also its upper half */
        cc_set_flags(v, f | FL_ZF | FL_PF);
        return;
    }
    uint64_t r = insn->id == I_BSF ? __builtin_ctzll(a) : 63 - __builtin_clzll(a);
    put_operand(v, insn, 0, r);
    cc_set_flags(v, f | (__builtin_parity(r) ? 0 : FL_PF));
}

/* TZCNT, LZCNT, POPCNT. */
void exec_count(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize, bits = n * 8;
    uint64_t a = get_operand(v, insn, 1), r;
    if (insn->id == I_POPCNT) {
        r = __builtin_popcountll(a);
        cc_set_flags(v, a ? 0 : FL_ZF);
    } else {
        if (insn->id == I_TZCNT)
            r = a ? (unsigned)__builtin_ctzll(a) : bits;
        else
            r = a ? __builtin_clzll(a) - (64 - bits) : bits;
        cc_set_flags(v, (r == bits ? FL_CF : 0) | (r ? 0 : FL_ZF));
    }
    put_operand(v, insn, 0, r);
}

void exec_crc32(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = insn->opsize;
    uint64_t data = get_operand(v, insn, 1);
    uint32_t crc = v->r[insn->reg];
    for (unsigned i = 0; i < n; i++) {
        crc ^= (uint8_t)(data >> (8 * i));
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    v->r[insn->reg] = crc;
}

/* ADCX uses CF alone, ADOX OF alone. */
void exec_adx(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = operand_size(insn, 0);
    uint32_t flag = insn->id == I_ADCX ? FL_CF : FL_OF, f = cc_compute(v);
    uint64_t a = get_operand(v, insn, 0), b = get_operand(v, insn, 1);
    unsigned __int128 sum = (unsigned __int128)a + b + !!(f & flag);
    put_operand(v, insn, 0, sum);
    cc_set_flags(v, (f & ~flag) | (sum >> (n * 8) & 1 ? flag : 0));
}

static uint64_t pdep(uint64_t source, uint64_t mask)
{
    uint64_t r = 0;
    for (; mask; mask &= mask - 1, source >>= 1)
        if (source & 1)
            r |= mask & -mask;
    return r;
}

static uint64_t pext(uint64_t source, uint64_t mask)
{
    uint64_t r = 0, bit = 1;
    for (; mask; mask &= mask - 1, bit <<= 1)
        if (source & mask & -mask)
            r |= bit;
    return r;
}

static void bmi_flags(struct soft_vcpu *v, uint64_t r, unsigned n, bool carry)
{
    cc_set_flags(v, (carry ? FL_CF : 0) | (zero_extend(r, n) ? 0 : FL_ZF) |
                        (sign_extend(r, n) < 0 ? FL_SF : 0));
}

void exec_bmi(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = operand_size(insn, 0), bits = n * 8;
    uint64_t a = get_operand(v, insn, 1), b = get_operand(v, insn, 2), r;
    switch (insn->id) {
    case I_ANDN:
        r = ~a & b;
        bmi_flags(v, r, n, false);
        break;
    case I_BLSR:
        r = a & (a - 1);
        bmi_flags(v, r, n, !a);
        break;
    case I_BLSMSK:
        r = a ^ (a - 1);
        bmi_flags(v, r, n, !a);
        break;
    case I_BLSI:
        r = a & -a;
        bmi_flags(v, r, n, a);
        break;
    case I_BEXTR: {
        unsigned start = b & 0xff, length = b >> 8 & 0xff;
        r = start < bits ? a >> start : 0;
        if (length < bits)
            r &= (1ull << length) - 1;
        cc_set_flags(v, r ? 0 : FL_ZF);
        break;
    }
    case I_BZHI: {
        unsigned index = b & 0xff;
        r = index < bits ? a & ((1ull << index) - 1) : a;
        bmi_flags(v, r, n, index >= bits);
        break;
    }
    case I_PDEP:
        r = pdep(a, b);
        break;
    case I_PEXT:
        r = pext(a, b);
        break;
    default: { /* RORX */
        unsigned count = b & (bits - 1);
        r = count ? a >> count | a << (bits - count) : a;
        break;
    }
    }
    put_operand(v, insn, 0, r);
}

void exec_shiftx(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = operand_size(insn, 0);
    uint64_t a = get_operand(v, insn, 1), r;
    unsigned count = get_operand(v, insn, 2) & (n * 8 - 1);
    if (insn->id == I_SHLX)
        r = a << count;
    else if (insn->id == I_SHRX)
        r = a >> count;
    else
        r = sign_extend(a, n) >> count;
    put_operand(v, insn, 0, r);
}

void exec_mulx(struct soft_vcpu *v, const struct insn *insn)
{
    unsigned n = operand_size(insn, 0);
    uint64_t a = zero_extend(v->r[X86_RDX], n), b = get_operand(v, insn, 2);
    unsigned __int128 product = (unsigned __int128)a * b;
    put_operand(v, insn, 1, product);
    put_operand(v, insn, 0, product >> (n * 8));
}

void exec_rdrand(struct soft_vcpu *v, const struct insn *insn)
{
    uint64_t value;
    bool ok = soft_random(&value);
    put_operand(v, insn, 0, ok ? value : 0);
    cc_set_flags(v, ok ? FL_CF : 0);
}
