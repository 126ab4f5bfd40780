/*
 * What the architecture leaves undefined: see undefined.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/check/undefined.h"

#include "accel/soft/decode/optable.h"
#include "accel/soft/soft.h"

/* The count of a shift or rotate, masked as the CPU does; UINT32_MAX when it is not known. */
static unsigned count_of(const struct insn *insn, const uint64_t *gpr)
{
    uint64_t count = insn->imm;
    if (insn->op[1] == O_ONE)
        count = 1;
    else if (insn->op[1] == O_CL || insn->op[2] == O_CL) {
        if (!gpr)
            return UINT32_MAX;
        count = gpr[X86_RCX];
    }
    return count & (insn->opsize == 8 ? 63 : 31);
}

/* insn: flags; * only when the masked count is not 0, or not 1 for OF. */
static uint32_t undefined_of_shift(const struct insn *insn, unsigned count)
{
    bool known = count != UINT32_MAX;
    uint32_t of = known && count <= 1 ? 0 : FL_OF;
    uint32_t cf = known && count <= insn->opsize * 8u ? 0 : FL_CF;
    if (known && !count)
        return 0;
    switch (insn->id) {
    case I_SHL:
    case I_SHR:
        return FL_AF | of | cf;
    case I_SAR:
    case I_SHLD:
    case I_SHRD:
        return FL_AF | of;
    default: /* ROL, ROR, RCL, RCR */
        return of;
    }
}

uint32_t soft_undefined_flags(const struct insn *insn, const uint64_t *gpr)
{
    switch (insn->id) {
    case I_AND:
    case I_OR:
    case I_XOR:
    case I_TEST:
        return FL_AF;
    case I_SHL:
    case I_SHR:
    case I_SAR:
    case I_SHLD:
    case I_SHRD:
    case I_ROL:
    case I_ROR:
    case I_RCL:
    case I_RCR:
        return undefined_of_shift(insn, count_of(insn, gpr));
    case I_MUL:
    case I_IMUL1:
    case I_IMUL2:
    case I_IMUL3:
        return FL_SF | FL_ZF | FL_AF | FL_PF;
    case I_DIV:
    case I_IDIV:
        return FL_ARITH;
    case I_BSF:
    case I_BSR:
        return FL_ARITH & ~FL_ZF;
    case I_BT:
    case I_BTS:
    case I_BTR:
    case I_BTC:
        return FL_OF | FL_SF | FL_AF | FL_PF;
    case I_LZCNT:
    case I_TZCNT:
        return FL_OF | FL_SF | FL_PF | FL_AF;
    case I_BEXTR:
        return FL_AF | FL_SF | FL_PF;
    case I_ANDN:
    case I_BLSI:
    case I_BLSMSK:
    case I_BLSR:
    case I_BZHI:
        return FL_AF | FL_PF;
    default:
        return 0;
    }
}

bool soft_undefined_result(const struct insn *insn, const uint64_t *gpr)
{
    switch (insn->id) {
    case I_SHLD:
    case I_SHRD: /* by more than the width */
        return insn->opsize == 2 && count_of(insn, gpr) > 16;
    case I_BSWAP:
        return insn->opsize == 2;
    case I_BSF:
    case I_BSR: /* a zero source: AMD keeps the target, Intel says undefined */
        return insn->opsize != 8;
    case I_MOVSXD: /* to 16 bits: from 16 or from 32 */
        return insn->opsize == 2;
    case I_JCC:
    case I_JMP:
    case I_CALL:
    case I_JMPI:
    case I_CALLI:
    case I_RET:
    case I_LOOP:
    case I_LOOPE:
    case I_LOOPNE:
    case I_JCXZ: /* near branches with 66: Intel ignores it, AMD truncates RIP */
        return insn->prefix & INSN_OPSIZE;
    default:
        return false;
    }
}
