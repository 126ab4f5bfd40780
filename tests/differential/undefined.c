/*
 * What the architecture leaves undefined, in one place (Intel SDM vol. 2, the pages of the
 * instructions; AMD APM vol. 3), and which instructions have no answer that a test could compare.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "differential.h"

/* The count of a shift or rotate, masked as the CPU does; UINT32_MAX when it is not known. */
static unsigned count_of(const struct insn *insn, const struct machine_state *in)
{
    uint64_t count = insn->imm;
    if (insn->op[1] == O_ONE)
        count = 1;
    else if (insn->op[1] == O_CL || insn->op[2] == O_CL) {
        if (!in)
            return UINT32_MAX;
        count = in->gpr[X86_RCX];
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

uint32_t undefined_flags(const struct insn *insn, const struct machine_state *in)
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
        return undefined_of_shift(insn, count_of(insn, in));
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

bool undefined_result(const struct insn *insn, const struct machine_state *in)
{
    switch (insn->id) {
    case I_SHLD:
    case I_SHRD: /* by more than the width */
        return insn->opsize == 2 && count_of(insn, in) > 16;
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

const char *excluded_form(const struct form *form)
{
    switch (form->row->id) {
    case I_SYSCALL:
    case I_SYSENTER:
    case I_VMCALL:
        return "the host's kernel would answer";
    case I_INT:
        return form->row->op[0] == O_Ib ? NULL : "the host's kernel would answer";
    case I_RDTSC:
    case I_RDTSCP:
    case I_RDRAND:
    case I_RDSEED:
        return "another value each time";
    case I_CPUID:
    case I_RDPID:
    case I_RDPMC:
    case I_XGETBV:
    case I_SGDT:
    case I_SIDT:
    case I_SLDT:
    case I_STR:
    case I_SMSW:
    case I_LAR:
    case I_LSL:
    case I_VERR:
    case I_VERW:
        return "shows the host's system registers";
    case I_XSAVE:
    case I_XSAVEOPT:
    case I_XSAVEC:
    case I_XRSTOR:
        return "which state is initial is the CPU's choice; XRSTOR sees more of XCR0 there";
    case I_JMPFI:
    case I_CALLFI:
    case I_RETF:
    case I_IRET:
    case I_POPSEG:
    case I_LSS:
    case I_LFS:
    case I_LGS:
        return "segments are the host kernel's";
    case I_EMMS:
        return lenient ? "whether TOP becomes 0 is the maker's choice" : NULL;
    case I_UD:
        return "has no other outcome than #UD";
    default:
        return NULL;
    }
}
