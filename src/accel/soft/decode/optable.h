/*
 * What the opcode tables are made of: instruction ids, operand kinds and flags.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_OPTABLE_H
#define TENON_ACCEL_SOFT_OPTABLE_H

#include "accel/soft/decode/decode.h"

/* clang-format off */
/* Every instruction that an executor tells apart. Condition codes: the opcode's low bits. */
#define INSN_IDS(X)                                                                                \
    X(UD) X(ADD) X(OR) X(ADC) X(SBB) X(AND) X(SUB) X(XOR) X(CMP) X(TEST) X(MOV) X(MOVABS) X(LEA)   \
    X(INC) X(DEC) X(NOT) X(NEG) X(MUL) X(IMUL1) X(IMUL2) X(IMUL3) X(DIV) X(IDIV)                   \
    X(ROL) X(ROR) X(RCL) X(RCR) X(SHL) X(SHR) X(SAR) X(SHLD) X(SHRD)                               \
    X(PUSH) X(POP) X(PUSHA) X(POPA) X(PUSHF) X(POPF) X(PUSHSEG) X(POPSEG) X(ENTER) X(LEAVE)        \
    X(XCHG) X(NOP) X(PAUSE) X(MOVSX) X(MOVSXD) X(MOVZX) X(CBW) X(CWD) X(XLAT)                      \
    X(JCC) X(JMP) X(JMPI) X(JMPF) X(JMPFI) X(CALL) X(CALLI) X(CALLF) X(CALLFI) X(RET) X(RETF)      \
    X(IRET) X(LOOP) X(LOOPE) X(LOOPNE) X(JCXZ) X(INT) X(INT3) X(INT1) X(INTO) X(BOUND)             \
    X(MOVS) X(STOS) X(LODS) X(SCAS) X(CMPS) X(INS) X(OUTS) X(IN) X(OUT)                            \
    X(CLC) X(STC) X(CMC) X(CLD) X(STD) X(CLI) X(STI) X(LAHF) X(SAHF) X(SALC)                       \
    X(DAA) X(DAS) X(AAA) X(AAS) X(AAM) X(AAD) X(HLT) X(ARPL)                                       \
    X(SETCC) X(CMOVCC) X(BT) X(BTS) X(BTR) X(BTC) X(BSF) X(BSR) X(TZCNT) X(LZCNT) X(POPCNT)        \
    X(BSWAP) X(CMPXCHG) X(XADD) X(CMPXCHG8B) X(CMPXCHG16B) X(MOVNTI) X(MOVBE) X(CRC32)             \
    X(ADCX) X(ADOX) X(ANDN) X(BEXTR) X(BLSI) X(BLSMSK) X(BLSR) X(BZHI) X(MULX) X(PDEP) X(PEXT)     \
    X(RORX) X(SARX) X(SHLX) X(SHRX) X(RDRAND) X(RDSEED) X(RDPID)                                   \
    X(MOVSEG_R) X(MOVSEG_W) X(LDS) X(LES) X(LSS) X(LFS) X(LGS)                                     \
    X(SLDT) X(STR) X(LLDT) X(LTR) X(VERR) X(VERW) X(SGDT) X(SIDT) X(LGDT) X(LIDT) X(SMSW) X(LMSW)  \
    X(INVLPG) X(SWAPGS) X(RDTSC) X(RDTSCP) X(RDPMC) X(LAR) X(LSL) X(SYSCALL) X(SYSRET) X(SYSENTER) \
    X(SYSEXIT) X(CLTS) X(INVD) X(WBINVD) X(MOVCR_R) X(MOVCR_W) X(MOVDR_R) X(MOVDR_W)               \
    X(WRMSR) X(RDMSR) X(CPUID) X(RSM) X(INVPCID) X(RDFSBASE) X(RDGSBASE) X(WRFSBASE) X(WRGSBASE)   \
    X(LFENCE) X(MFENCE) X(SFENCE) X(CLFLUSH) X(PREFETCH) X(VMCALL) X(SERIALIZE)                    \
    X(FXSAVE) X(FXRSTOR) X(XSAVE) X(XRSTOR) X(XSAVEOPT) X(XSAVEC) X(XSAVES) X(XRSTORS)             \
    X(XGETBV) X(XSETBV) X(LDMXCSR) X(STMXCSR) X(FWAIT) X(EMMS)                                     \
    X(X87) X(SIMD)

enum insn_id {
#define X(name) I_##name,
    INSN_IDS(X)
#undef X
    I_COUNT
};

/* Operands. `v` follows the operand size, `z` too but stops at 4, `y` is 4 or 8 by REX.W. */
enum insn_operand {
    O_NONE,
    O_Eb, O_Ew, O_Ev, O_Ed, O_Ey, O_Eq, /* ModRM register or memory */
    O_Gb, O_Gw, O_Gv, O_Gd, O_Gy,       /* ModRM.reg */
    O_M,                                /* memory only, size by the executor */
    O_Mp,                               /* memory: far pointer */
    O_Rv, O_Rq,                         /* ModRM.rm as a register whatever mod says */
    O_Sw, O_Cq, O_Dq,                   /* segment, control, debug register in ModRM.reg */
    O_By,                               /* VEX.vvvv */
    O_Zb, O_Zv,                         /* register in the opcode's low bits */
    O_AL, O_AX, O_rAX, O_CL, O_DX, O_ONE,
    O_Ib, O_Is, O_Iw, O_Iz, O_Iv,       /* Ib zero-extended, Is sign-extended */
    O_Jb, O_Jz,                         /* branch displacement */
    O_Ob, O_Ov,                         /* memory at an absolute offset */
    O_Ap,                               /* immediate far pointer */
    O_ES, O_CS, O_SS, O_DS, O_FS, O_GS,
};

/* struct insn.flags */
#define INSN_F_END 0x01u    /* control leaves: last instruction of a block */
#define INSN_F_PRIV 0x02u   /* CPL 0 only: else #GP(0) */
#define INSN_F_LOCKED 0x04u /* LOCK is allowed (and XCHG with memory implies it) */
#define INSN_F_STATE 0x08u  /* may change mode, translation or IF: look again after it */

/* How a table row is read. */
enum row_kind {
    ROW_BAD,    /* #UD */
    ROW_INSN,
    ROW_GROUP,  /* sub[ModRM.reg] */
    ROW_PREFIX, /* sub[pp] */
    ROW_MODREG, /* sub[0] memory, sub[1] register */
    ROW_RM,     /* sub[ModRM.rm] */
    ROW_MODE,   /* sub[0] 16/32-bit code, sub[1] 64-bit */
    ROW_SIMD,   /* mem[pp] is the size code of the memory operand, 0 for #UD */
};

/* struct oprow.attr, beyond the INSN_F_* that go to struct insn */
#define A_END 0x0001u
#define A_PRIV 0x0002u
#define A_LOCK 0x0004u
#define A_STATE 0x0008u
#define A_D64 0x0010u    /* operand size is 8 by default in 64-bit code (2 with 66) */
#define A_F64 0x0020u    /* operand size is 8 in 64-bit code whatever the prefixes */
#define A_NO64 0x0040u   /* #UD in 64-bit code */
#define A_ONLY64 0x0080u /* #UD elsewhere */
#define A_B 0x0100u      /* byte operation */
#define A_W 0x0200u      /* memory operand is written */
#define A_RW 0x0400u     /* read and written */
#define A_MODRM 0x0800u  /* has ModRM though no operand says so */
#define A_VEX 0x1000u    /* VEX only */
#define A_REP 0x2000u    /* string instruction */
#define A_MEM 0x4000u    /* #UD with a register */
#define A_NOSIZE 0x8000u /* memory operand without an access (NOP, LEA, PREFETCH) */

/* Size codes of SIMD memory operands. */
enum simd_size {
    Z_NA,                     /* no such instruction */
    Z_1, Z_2, Z_4, Z_8, Z_16, /* bytes */
    Z_X,                      /* the vector: 8 MMX never comes here, 16, or 32 with VEX.L */
    Z_H, Z_Q, Z_E,            /* a half, quarter, eighth of the vector */
    Z_Y,                      /* 4, or 8 with W */
    Z_R,                      /* register operand only */
    Z_32,
    Z_V,                      /* gather: vector index, the executor handles the address */
    Z_D,                      /* MOVDDUP: 8, or 32 with VEX.L */
};

struct oprow {
    uint16_t id;
    uint16_t attr;
    uint8_t kind;
    uint8_t feature;
    union {
        uint8_t op[4];
        uint8_t mem[4];
    };
    const struct oprow *sub;
};

extern const struct oprow optable_one[256], optable_0f[256], optable_0f38[256], optable_0f3a[256];

#endif
