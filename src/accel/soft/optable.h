/*
 * What the opcode tables are made of: instruction ids, operand kinds and flags.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_OPTABLE_H
#define TENON_ACCEL_SOFT_OPTABLE_H

#include "accel/soft/decode.h"

/* Every instruction that an executor tells apart. Condition codes come from the opcode's low bits. */
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

#endif
