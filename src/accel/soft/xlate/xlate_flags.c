/*
 * Which arithmetic flags an instruction reads and writes, and which are live at a jump's target
 * (Intel SDM vol. 1, appendix A). Undefined flags count as written.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/mem/tlb.h"
#include "accel/soft/xlate/xlate.h"

static uint32_t condition_reads(unsigned cc)
{
    static const uint32_t reads[8] = {FL_OF, FL_CF, FL_ZF,         FL_CF | FL_ZF,
                                      FL_SF, FL_PF, FL_SF | FL_OF, FL_SF | FL_OF | FL_ZF};
    return reads[cc >> 1 & 7];
}

/* Shifts and rotates leave the flags alone when the count is 0. */
static struct flag_use counted(const struct insn *insn, unsigned count_at, uint32_t reads,
                               uint32_t writes)
{
    if (insn->op[count_at] == O_CL)
        return (struct flag_use){FL_ARITH, 0, true};
    unsigned count = insn->op[count_at] == O_ONE ? 1 : insn->imm & (insn->opsize == 8 ? 63 : 31);
    /* RCL and RCR of bytes and words take the count modulo 9 and 17. */
    if (insn->opsize < 4 && writes != FL_ARITH)
        return (struct flag_use){FL_ARITH, 0, true};
    if (!count)
        return (struct flag_use){0, 0, false};
    return (struct flag_use){reads, writes, true};
}

struct flag_use xlate_flag_use(const struct insn *insn)
{
    switch (insn->id) {
    case I_ADD:
    case I_SUB:
    case I_CMP:
    case I_AND:
    case I_OR:
    case I_XOR:
    case I_TEST:
    case I_NEG:
    case I_XADD:
    case I_CMPXCHG:
    case I_MUL:
    case I_IMUL1:
    case I_IMUL2:
    case I_IMUL3:
    case I_TZCNT:
    case I_LZCNT:
    case I_POPCNT:
    case I_ANDN:
    case I_BEXTR:
    case I_BLSI:
    case I_BLSMSK:
    case I_BLSR:
    case I_BZHI:
        return (struct flag_use){0, FL_ARITH, true};
    case I_ADC:
    case I_SBB:
        return (struct flag_use){FL_CF, FL_ARITH, true};
    case I_INC:
    case I_DEC:
        return (struct flag_use){0, FL_ARITH & ~FL_CF, true};
    case I_SHL:
    case I_SHR:
    case I_SAR:
        return counted(insn, 1, 0, FL_ARITH);
    case I_ROL:
    case I_ROR:
        return counted(insn, 1, 0, FL_CF | FL_OF);
    case I_RCL:
    case I_RCR:
        return counted(insn, 1, FL_CF, FL_CF | FL_OF);
    case I_SHLD:
    case I_SHRD:
        return counted(insn, 2, 0, FL_ARITH);
    case I_BT:
    case I_BTS:
    case I_BTR:
    case I_BTC:
    case I_CLC:
    case I_STC:
        return (struct flag_use){0, FL_CF, true};
    case I_CMC:
    case I_ADCX:
        return (struct flag_use){FL_CF, FL_CF, true};
    case I_ADOX:
        return (struct flag_use){FL_OF, FL_OF, true};
    case I_LAHF:
        return (struct flag_use){FL_ARITH & ~FL_OF, 0, false};
    case I_SAHF:
        return (struct flag_use){0, FL_ARITH & ~FL_OF, true};
    case I_SETCC:
    case I_CMOVCC:
    case I_JCC:
        return (struct flag_use){condition_reads(insn->opcode), 0, false};
    case I_NOT:
    case I_MOV:
    case I_LEA:
    case I_XCHG:
    case I_MOVSX:
    case I_MOVSXD:
    case I_MOVZX:
    case I_BSWAP:
    case I_CBW:
    case I_CWD:
    case I_NOP:
    case I_PREFETCH:
    case I_PUSH:
    case I_POP:
    case I_LEAVE:
    case I_CRC32:
    case I_MOVBE:
    case I_PDEP:
    case I_PEXT:
    case I_RORX:
    case I_SARX:
    case I_SHLX:
    case I_SHRX:
    case I_MULX:
    case I_JMP:
    case I_JMPI:
    case I_CALL:
    case I_CALLI:
    case I_RET:
    case I_CLI:
    case I_STI:
    case I_SWAPGS:
    case I_RDTSC:
    case I_MOVCR_R:
    case I_LFENCE:
    case I_MFENCE:
    case I_SFENCE:
        return (struct flag_use){0, 0, false};
    case I_SIMD:
    case I_EMMS:
        return simd_sets_flags(insn) ? (struct flag_use){0, FL_ARITH, true}
                                     : (struct flag_use){0, 0, false};
    default:
        return (struct flag_use){FL_ARITH, 0, true};
    }
}

#define LOOK_BYTES 64u
#define LOOK_INSNS 12

uint32_t xlate_live_at(struct soft_vcpu *v, const uint8_t *page, uint64_t gpa, int64_t offset)
{
    if (offset < 0 || offset >= GUEST_PAGE_SIZE)
        return FL_ARITH;
    unsigned at = offset, end = MIN(at + LOOK_BYTES, GUEST_PAGE_SIZE);
    uint32_t open = FL_ARITH, live = 0;
    /* What is read here must be seen to change: then the blocks that relied on it go too. */
    soft_code_mark(v, (gpa & ~0xfffull) + at, end - at);
    for (unsigned i = 0; i < LOOK_INSNS && open; i++) {
        struct insn insn;
        if (at >= end || decode(page + at, end - at, INSN_64, v->features, &insn) != DECODE_OK ||
            !xlate_handles(&insn))
            break;
        struct flag_use use = xlate_flag_use(&insn);
        live |= use.reads & open;
        open &= ~(use.reads | use.writes);
        if (insn.flags & INSN_F_END || insn.id == I_JCC)
            break;
        at += insn.len;
    }
    return live | open;
}
