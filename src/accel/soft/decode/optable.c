/*
 * The opcode tables of integer and system instructions (Intel SDM vol. 2, appendix A): one-byte map
 * and the 0F map; the SIMD rows of the 0F map and the 0F38 and 0F3A maps are in optable_simd.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/decode/optable_rows.h"

/* clang-format off */
/* Rows of the eight two-operand ALU instructions, opcodes base+0 to base+5. */
#define ALU(base, name, lock, write)                                                               \
    [base] = OP(name, A_B | (lock) | (write), O_Eb, O_Gb),                                         \
    [(base) + 1] = OP(name, (lock) | (write), O_Ev, O_Gv),                                         \
    [(base) + 2] = OP(name, A_B, O_Gb, O_Eb), [(base) + 3] = OP(name, 0, O_Gv, O_Ev),              \
    [(base) + 4] = OP(name, A_B, O_AL, O_Ib), [(base) + 5] = OP(name, 0, O_rAX, O_Iz)

#define GROUP1(attr, e, i)                                                                         \
    {                                                                                              \
        OP(ADD, (attr) | A_LOCK | A_RW, e, i), OP(OR, (attr) | A_LOCK | A_RW, e, i),               \
            OP(ADC, (attr) | A_LOCK | A_RW, e, i), OP(SBB, (attr) | A_LOCK | A_RW, e, i),          \
            OP(AND, (attr) | A_LOCK | A_RW, e, i), OP(SUB, (attr) | A_LOCK | A_RW, e, i),          \
            OP(XOR, (attr) | A_LOCK | A_RW, e, i), OP(CMP, (attr), e, i)                           \
    }
static const struct oprow group1_80[8] = GROUP1(A_B, O_Eb, O_Is);
static const struct oprow group1_81[8] = GROUP1(0, O_Ev, O_Iz);
static const struct oprow group1_82[8] = GROUP1(A_B | A_NO64, O_Eb, O_Is);
static const struct oprow group1_83[8] = GROUP1(0, O_Ev, O_Is);

#define GROUP2(attr, e, i)                                                                         \
    {                                                                                              \
        OP(ROL, (attr) | A_RW, e, i), OP(ROR, (attr) | A_RW, e, i), OP(RCL, (attr) | A_RW, e, i),  \
            OP(RCR, (attr) | A_RW, e, i), OP(SHL, (attr) | A_RW, e, i),                            \
            OP(SHR, (attr) | A_RW, e, i), OP(SHL, (attr) | A_RW, e, i),                            \
            OP(SAR, (attr) | A_RW, e, i)                                                           \
    }
static const struct oprow group2_c0[8] = GROUP2(A_B, O_Eb, O_Ib);
static const struct oprow group2_c1[8] = GROUP2(0, O_Ev, O_Ib);
static const struct oprow group2_d0[8] = GROUP2(A_B, O_Eb, O_ONE);
static const struct oprow group2_d1[8] = GROUP2(0, O_Ev, O_ONE);
static const struct oprow group2_d2[8] = GROUP2(A_B, O_Eb, O_CL);
static const struct oprow group2_d3[8] = GROUP2(0, O_Ev, O_CL);

#define GROUP3(attr, e, i)                                                                         \
    {                                                                                              \
        OP(TEST, attr, e, i), OP(TEST, attr, e, i), OP(NOT, (attr) | A_LOCK | A_RW, e),            \
            OP(NEG, (attr) | A_LOCK | A_RW, e), OP(MUL, attr, e), OP(IMUL1, attr, e),              \
            OP(DIV, attr, e), OP(IDIV, attr, e)                                                    \
    }
static const struct oprow group3_f6[8] = GROUP3(A_B, O_Eb, O_Is);
static const struct oprow group3_f7[8] = GROUP3(0, O_Ev, O_Iz);

static const struct oprow group4[8] = {
    OP(INC, A_B | A_LOCK | A_RW, O_Eb),
    OP(DEC, A_B | A_LOCK | A_RW, O_Eb),
};
static const struct oprow group5[8] = {
    OP(INC, A_LOCK | A_RW, O_Ev),     OP(DEC, A_LOCK | A_RW, O_Ev),
    OP(CALLI, A_END | A_F64, O_Ev),   OP(CALLFI, A_END | A_STATE | A_MEM, O_Mp),
    OP(JMPI, A_END | A_F64, O_Ev),    OP(JMPFI, A_END | A_STATE | A_MEM, O_Mp),
    OP(PUSH, A_D64, O_Ev),
};
static const struct oprow group1a[8] = {OP(POP, A_D64 | A_W, O_Ev)};
static const struct oprow group11_c6[8] = {OP(MOV, A_B | A_W, O_Eb, O_Is)};
static const struct oprow group11_c7[8] = {OP(MOV, A_W, O_Ev, O_Iz)};

static const struct oprow mode_63[2] = {OP(ARPL, A_RW, O_Ew, O_Gw), OP(MOVSXD, 0, O_Gv, O_Ed)};

static const struct oprow mode_9e[2] = {OP(SAHF, 0), OPF(SAHF, 0, FEAT_LAHF64, 0)},
                          mode_9f[2] = {OP(LAHF, 0), OPF(LAHF, 0, FEAT_LAHF64, 0)};

static const struct oprow prefix_90[4] = {
    OP(XCHG, 0, O_Zv, O_rAX), OP(XCHG, 0, O_Zv, O_rAX), OP(PAUSE, A_END), OP(XCHG, 0, O_Zv, O_rAX)};

#define ZROWS(base, name, attr, ...)                                                               \
    [base] = OP(name, attr, __VA_ARGS__), [(base) + 1] = OP(name, attr, __VA_ARGS__),              \
    [(base) + 2] = OP(name, attr, __VA_ARGS__), [(base) + 3] = OP(name, attr, __VA_ARGS__),        \
    [(base) + 4] = OP(name, attr, __VA_ARGS__), [(base) + 5] = OP(name, attr, __VA_ARGS__),        \
    [(base) + 6] = OP(name, attr, __VA_ARGS__), [(base) + 7] = OP(name, attr, __VA_ARGS__)

#define X87 {I_X87, A_MODRM, ROW_INSN, FEAT_X87, {{0}}, NULL}

const struct oprow optable_one[256] = {
    ALU(0x00, ADD, A_LOCK, A_RW),
    [0x06] = OP(PUSHSEG, A_NO64, O_ES), [0x07] = OP(POPSEG, A_NO64, O_ES),
    ALU(0x08, OR, A_LOCK, A_RW),
    [0x0e] = OP(PUSHSEG, A_NO64, O_CS),
    ALU(0x10, ADC, A_LOCK, A_RW),
    [0x16] = OP(PUSHSEG, A_NO64, O_SS), [0x17] = OP(POPSEG, A_NO64 | A_STATE | A_END, O_SS),
    ALU(0x18, SBB, A_LOCK, A_RW),
    [0x1e] = OP(PUSHSEG, A_NO64, O_DS), [0x1f] = OP(POPSEG, A_NO64, O_DS),
    ALU(0x20, AND, A_LOCK, A_RW), [0x27] = OP(DAA, A_NO64),
    ALU(0x28, SUB, A_LOCK, A_RW), [0x2f] = OP(DAS, A_NO64),
    ALU(0x30, XOR, A_LOCK, A_RW), [0x37] = OP(AAA, A_NO64),
    ALU(0x38, CMP, 0, 0), [0x3f] = OP(AAS, A_NO64),
    ZROWS(0x40, INC, A_NO64, O_Zv), ZROWS(0x48, DEC, A_NO64, O_Zv),
    ZROWS(0x50, PUSH, A_D64, O_Zv), ZROWS(0x58, POP, A_D64, O_Zv),
    [0x60] = OP(PUSHA, A_NO64), [0x61] = OP(POPA, A_NO64),
    [0x62] = OP(BOUND, A_NO64 | A_MEM, O_Gv, O_M), [0x63] = SUB(MODE, mode_63),
    [0x68] = OP(PUSH, A_D64, O_Iz), [0x69] = OP(IMUL3, 0, O_Gv, O_Ev, O_Iz),
    [0x6a] = OP(PUSH, A_D64, O_Is), [0x6b] = OP(IMUL3, 0, O_Gv, O_Ev, O_Is),
    [0x6c] = OP(INS, A_B | A_REP), [0x6d] = OP(INS, A_REP),
    [0x6e] = OP(OUTS, A_B | A_REP), [0x6f] = OP(OUTS, A_REP),
    ZROWS(0x70, JCC, A_F64, O_Jb), ZROWS(0x78, JCC, A_F64, O_Jb),
    [0x80] = SUB(GROUP, group1_80), [0x81] = SUB(GROUP, group1_81),
    [0x82] = SUB(GROUP, group1_82), [0x83] = SUB(GROUP, group1_83),
    [0x84] = OP(TEST, A_B, O_Eb, O_Gb), [0x85] = OP(TEST, 0, O_Ev, O_Gv),
    [0x86] = OP(XCHG, A_B | A_LOCK | A_RW, O_Eb, O_Gb),
    [0x87] = OP(XCHG, A_LOCK | A_RW, O_Ev, O_Gv),
    [0x88] = OP(MOV, A_B | A_W, O_Eb, O_Gb), [0x89] = OP(MOV, A_W, O_Ev, O_Gv),
    [0x8a] = OP(MOV, A_B, O_Gb, O_Eb), [0x8b] = OP(MOV, 0, O_Gv, O_Ev),
    [0x8c] = OP(MOVSEG_R, A_W, O_Ev, O_Sw), [0x8d] = OP(LEA, A_MEM | A_NOSIZE, O_Gv, O_M),
    [0x8e] = OP(MOVSEG_W, A_STATE | A_END, O_Sw, O_Ew), [0x8f] = SUB(GROUP, group1a),
    [0x90] = SUB(PREFIX, prefix_90), [0x91] = OP(XCHG, 0, O_Zv, O_rAX),
    [0x92] = OP(XCHG, 0, O_Zv, O_rAX), [0x93] = OP(XCHG, 0, O_Zv, O_rAX),
    [0x94] = OP(XCHG, 0, O_Zv, O_rAX), [0x95] = OP(XCHG, 0, O_Zv, O_rAX),
    [0x96] = OP(XCHG, 0, O_Zv, O_rAX), [0x97] = OP(XCHG, 0, O_Zv, O_rAX),
    [0x98] = OP(CBW, 0), [0x99] = OP(CWD, 0),
    [0x9a] = OP(CALLF, A_NO64 | A_END | A_STATE, O_Ap),
    [0x9b] = {I_FWAIT, 0, ROW_INSN, FEAT_X87, {{0}}, NULL},
    [0x9c] = OP(PUSHF, A_D64), [0x9d] = OP(POPF, A_D64 | A_STATE | A_END),
    [0x9e] = SUB(MODE, mode_9e), [0x9f] = SUB(MODE, mode_9f),
    [0xa0] = OP(MOV, A_B, O_AL, O_Ob), [0xa1] = OP(MOV, 0, O_rAX, O_Ov),
    [0xa2] = OP(MOV, A_B | A_W, O_Ob, O_AL), [0xa3] = OP(MOV, A_W, O_Ov, O_rAX),
    [0xa4] = OP(MOVS, A_B | A_REP), [0xa5] = OP(MOVS, A_REP),
    [0xa6] = OP(CMPS, A_B | A_REP), [0xa7] = OP(CMPS, A_REP),
    [0xa8] = OP(TEST, A_B, O_AL, O_Ib), [0xa9] = OP(TEST, 0, O_rAX, O_Iz),
    [0xaa] = OP(STOS, A_B | A_REP), [0xab] = OP(STOS, A_REP),
    [0xac] = OP(LODS, A_B | A_REP), [0xad] = OP(LODS, A_REP),
    [0xae] = OP(SCAS, A_B | A_REP), [0xaf] = OP(SCAS, A_REP),
    ZROWS(0xb0, MOV, A_B, O_Zb, O_Ib), ZROWS(0xb8, MOV, 0, O_Zv, O_Iv),
    [0xc0] = SUB(GROUP, group2_c0), [0xc1] = SUB(GROUP, group2_c1),
    [0xc2] = OP(RET, A_END | A_F64, O_Iw), [0xc3] = OP(RET, A_END | A_F64),
    [0xc4] = OP(LES, A_NO64 | A_MEM, O_Gv, O_Mp), [0xc5] = OP(LDS, A_NO64 | A_MEM, O_Gv, O_Mp),
    [0xc6] = SUB(GROUP, group11_c6), [0xc7] = SUB(GROUP, group11_c7),
    [0xc8] = OP(ENTER, A_D64, O_Iw, O_Ib), [0xc9] = OP(LEAVE, A_D64),
    [0xca] = OP(RETF, A_END | A_STATE, O_Iw), [0xcb] = OP(RETF, A_END | A_STATE),
    [0xcc] = OP(INT3, A_END | A_STATE), [0xcd] = OP(INT, A_END | A_STATE, O_Ib),
    [0xce] = OP(INTO, A_NO64 | A_END | A_STATE), [0xcf] = OP(IRET, A_END | A_STATE),
    [0xd0] = SUB(GROUP, group2_d0), [0xd1] = SUB(GROUP, group2_d1),
    [0xd2] = SUB(GROUP, group2_d2), [0xd3] = SUB(GROUP, group2_d3),
    [0xd4] = OP(AAM, A_NO64, O_Ib), [0xd5] = OP(AAD, A_NO64, O_Ib), [0xd6] = OP(SALC, A_NO64),
    [0xd7] = OP(XLAT, A_B),
    [0xd8] = X87, [0xd9] = X87, [0xda] = X87, [0xdb] = X87,
    [0xdc] = X87, [0xdd] = X87, [0xde] = X87, [0xdf] = X87,
    [0xe0] = OP(LOOPNE, A_END | A_F64, O_Jb), [0xe1] = OP(LOOPE, A_END | A_F64, O_Jb),
    [0xe2] = OP(LOOP, A_END | A_F64, O_Jb), [0xe3] = OP(JCXZ, A_END | A_F64, O_Jb),
    [0xe4] = OP(IN, A_B, O_AL, O_Ib), [0xe5] = OP(IN, 0, O_rAX, O_Ib),
    [0xe6] = OP(OUT, A_B | A_END, O_Ib, O_AL), [0xe7] = OP(OUT, A_END, O_Ib, O_rAX),
    [0xe8] = OP(CALL, A_END | A_F64, O_Jz), [0xe9] = OP(JMP, A_END | A_F64, O_Jz),
    [0xea] = OP(JMPF, A_NO64 | A_END | A_STATE, O_Ap), [0xeb] = OP(JMP, A_END | A_F64, O_Jb),
    [0xec] = OP(IN, A_B, O_AL, O_DX), [0xed] = OP(IN, 0, O_rAX, O_DX),
    [0xee] = OP(OUT, A_B | A_END, O_DX, O_AL), [0xef] = OP(OUT, A_END, O_DX, O_rAX),
    [0xf1] = OP(INT1, A_END | A_STATE), [0xf4] = OP(HLT, A_PRIV | A_END | A_STATE),
    [0xf5] = OP(CMC, 0), [0xf6] = SUB(GROUP, group3_f6), [0xf7] = SUB(GROUP, group3_f7),
    [0xf8] = OP(CLC, 0), [0xf9] = OP(STC, 0),
    [0xfa] = OP(CLI, A_STATE), [0xfb] = OP(STI, A_STATE),
    [0xfc] = OP(CLD, 0), [0xfd] = OP(STD, 0),
    [0xfe] = SUB(GROUP, group4), [0xff] = SUB(GROUP, group5),
};

/* ---- the 0F map ---- */

static const struct oprow group6[8] = {
    OP(SLDT, A_W, O_Ev), OP(STR, A_W, O_Ev), OP(LLDT, A_PRIV, O_Ew), OP(LTR, A_PRIV, O_Ew),
    OP(VERR, 0, O_Ew),   OP(VERW, 0, O_Ew),
};

static const struct oprow group7_mem[8] = {
    OP(SGDT, A_W | A_NOSIZE, O_M),   OP(SIDT, A_W | A_NOSIZE, O_M),
    OP(LGDT, A_PRIV | A_NOSIZE, O_M), OP(LIDT, A_PRIV | A_NOSIZE, O_M),
    OP(SMSW, A_W, O_Ew),  {0},
    OP(LMSW, A_PRIV | A_STATE | A_END, O_Ew), OP(INVLPG, A_PRIV | A_STATE | A_END | A_NOSIZE, O_M),
};
static const struct oprow group7_r0[8] = {{0}, OP(VMCALL, A_MODRM)};
static const struct oprow group7_r2[8] = {
    NO_PREFIX(OPF(XGETBV, A_MODRM, FEAT_XSAVE, 0)),
    NO_PREFIX(OPF(XSETBV, A_MODRM | A_PRIV | A_END, FEAT_XSAVE, 0))};
static const struct oprow group7_r3[8] = {{0}, OP(VMCALL, A_MODRM)};
static const struct oprow group7_r5[8] = {
    NO_PREFIX(OPF(SERIALIZE, A_MODRM | A_END | A_STATE, FEAT_SERIALIZE, 0))};
static const struct oprow group7_r7[8] = {
    OP(SWAPGS, A_MODRM | A_PRIV | A_ONLY64), OPF(RDTSCP, A_MODRM, FEAT_RDTSCP, 0)};
static const struct oprow group7_reg[8] = {
    SUB(RM, group7_r0), {0}, SUB(RM, group7_r2), SUB(RM, group7_r3),
    OP(SMSW, A_W, O_Ev), SUB(RM, group7_r5),
    OP(LMSW, A_PRIV | A_STATE | A_END, O_Ew), SUB(RM, group7_r7)};
static const struct oprow split_01[2] = {SUB(GROUP, group7_mem), SUB(GROUP, group7_reg)};

static const struct oprow group8[8] = {
    {0}, {0}, {0}, {0},
    OP(BT, 0, O_Ev, O_Ib), OP(BTS, A_LOCK | A_RW, O_Ev, O_Ib),
    OP(BTR, A_LOCK | A_RW, O_Ev, O_Ib), OP(BTC, A_LOCK | A_RW, O_Ev, O_Ib)};

static const struct oprow prefix_c7_1[4] = {
    OP(CMPXCHG8B, A_LOCK | A_RW | A_NOSIZE, O_M), OP(CMPXCHG8B, A_LOCK | A_RW | A_NOSIZE, O_M),
    OP(CMPXCHG8B, A_LOCK | A_RW | A_NOSIZE, O_M), OP(CMPXCHG8B, A_LOCK | A_RW | A_NOSIZE, O_M)};
static const struct oprow group9_mem[8] = {
    {0}, SUB(PREFIX, prefix_c7_1), {0},
    OPF(XRSTORS, A_PRIV | A_NOSIZE, FEAT_XSAVES, O_M),
    OPF(XSAVEC, A_W | A_NOSIZE, FEAT_XSAVEC, O_M),
    OPF(XSAVES, A_PRIV | A_W | A_NOSIZE, FEAT_XSAVES, O_M)};
static const struct oprow prefix_c7_7[4] = {
    OPF(RDSEED, 0, FEAT_RDSEED, O_Rv), OPF(RDSEED, 0, FEAT_RDSEED, O_Rv),
    OPF(RDPID, A_F64, FEAT_RDPID, O_Rq)};
static const struct oprow group9_reg[8] = {
    {0}, {0}, {0}, {0}, {0}, {0}, OPF(RDRAND, 0, FEAT_RDRAND, O_Rv), SUB(PREFIX, prefix_c7_7)};
static const struct oprow split_c7[2] = {SUB(GROUP, group9_mem), SUB(GROUP, group9_reg)};

static const struct oprow prefix_ae_6[4] = {OPF(XSAVEOPT, A_W | A_NOSIZE, FEAT_XSAVEOPT, O_M),
                                            OPF(CLFLUSH, A_NOSIZE, FEAT_CLWB, O_M)};
static const struct oprow prefix_ae_7[4] = {OPF(CLFLUSH, A_NOSIZE, FEAT_CLFLUSH, O_M),
                                            OPF(CLFLUSH, A_NOSIZE, FEAT_CLFLUSHOPT, O_M)};
static const struct oprow group15_mem[8] = {
    NO_PREFIX(OPF(FXSAVE, A_W | A_NOSIZE, FEAT_FXSR, O_M)),
    NO_PREFIX(OPF(FXRSTOR, A_NOSIZE, FEAT_FXSR, O_M)),
    NO_PREFIX(OPF(LDMXCSR, 0, FEAT_SSE, O_Ed)), NO_PREFIX(OPF(STMXCSR, A_W, FEAT_SSE, O_Ed)),
    NO_PREFIX(OPF(XSAVE, A_W | A_NOSIZE, FEAT_XSAVE, O_M)),
    NO_PREFIX(OPF(XRSTOR, A_NOSIZE, FEAT_XSAVE, O_M)),
    SUB(PREFIX, prefix_ae_6), SUB(PREFIX, prefix_ae_7)};
#define FSGS(name) {{0}, {0}, OPF(name, A_ONLY64, FEAT_FSGSBASE, O_Rv), {0}}
static const struct oprow prefix_ae_r0[4] = FSGS(RDFSBASE), prefix_ae_r1[4] = FSGS(RDGSBASE),
                          prefix_ae_r2[4] = FSGS(WRFSBASE), prefix_ae_r3[4] = FSGS(WRGSBASE);
static const struct oprow prefix_ae_r5[4] = {OP(LFENCE, A_MODRM)};
static const struct oprow prefix_ae_r6[4] = {OP(MFENCE, A_MODRM)};
static const struct oprow prefix_ae_r7[4] = {OP(SFENCE, A_MODRM)};
static const struct oprow group15_reg[8] = {
    SUB(PREFIX, prefix_ae_r0), SUB(PREFIX, prefix_ae_r1), SUB(PREFIX, prefix_ae_r2),
    SUB(PREFIX, prefix_ae_r3), {0}, SUB(PREFIX, prefix_ae_r5), SUB(PREFIX, prefix_ae_r6),
    SUB(PREFIX, prefix_ae_r7)};
static const struct oprow split_ae[2] = {SUB(GROUP, group15_mem), SUB(GROUP, group15_reg)};

static const struct oprow prefix_b8[4] = {{0}, {0}, OPF(POPCNT, 0, FEAT_POPCNT, O_Gv, O_Ev), {0}};
/* Without the feature, F3 0F BC/BD are BSF and BSR with an ignored prefix: decode.c falls back. */
static const struct oprow prefix_bc[4] = {OP(BSF, 0, O_Gv, O_Ev), OP(BSF, 0, O_Gv, O_Ev),
                                          OPF(TZCNT, 0, FEAT_BMI1, O_Gv, O_Ev),
                                          OP(BSF, 0, O_Gv, O_Ev)};
static const struct oprow prefix_bd[4] = {OP(BSR, 0, O_Gv, O_Ev), OP(BSR, 0, O_Gv, O_Ev),
                                          OPF(LZCNT, 0, FEAT_LZCNT, O_Gv, O_Ev),
                                          OP(BSR, 0, O_Gv, O_Ev)};
static const struct oprow prefix_c3[4] = {OPF(MOVNTI, A_W | A_MEM, FEAT_SSE2, O_Ey, O_Gy)};

#define NOPS OP(NOP, A_NOSIZE, O_Ev)
#define CMOV OPF(CMOVCC, 0, FEAT_CMOV, O_Gv, O_Ev)
#define CMOVS(base)                                                                                \
    [base] = CMOV, [(base) + 1] = CMOV, [(base) + 2] = CMOV, [(base) + 3] = CMOV,                  \
    [(base) + 4] = CMOV, [(base) + 5] = CMOV, [(base) + 6] = CMOV, [(base) + 7] = CMOV

const struct oprow optable_0f[256] = {
    [0x00] = SUB(GROUP, group6), [0x01] = SUB(MODREG, split_01),
    [0x02] = OP(LAR, 0, O_Gv, O_Ew), [0x03] = OP(LSL, 0, O_Gv, O_Ew),
    [0x05] = OPF(SYSCALL, A_END | A_STATE, FEAT_SYSCALL, 0),
    [0x06] = OP(CLTS, A_PRIV), [0x07] = OPF(SYSRET, A_PRIV | A_END | A_STATE, FEAT_SYSCALL, 0),
    [0x08] = OP(INVD, A_PRIV), [0x09] = OP(WBINVD, A_PRIV), [0x0b] = OP(UD, 0),
    [0x0d] = OP(PREFETCH, A_NOSIZE, O_Ev),
    [0x18] = NOPS, [0x19] = NOPS, [0x1a] = NOPS, [0x1b] = NOPS, [0x1c] = NOPS, [0x1d] = NOPS,
    [0x1e] = NOPS, [0x1f] = NOPS,
    [0x20] = OP(MOVCR_R, A_PRIV | A_F64, O_Rq, O_Cq),
    [0x21] = OP(MOVDR_R, A_PRIV | A_F64, O_Rq, O_Dq),
    [0x22] = OP(MOVCR_W, A_PRIV | A_F64 | A_STATE | A_END, O_Cq, O_Rq),
    [0x23] = OP(MOVDR_W, A_PRIV | A_F64 | A_STATE | A_END, O_Dq, O_Rq),
    [0x30] = OP(WRMSR, A_PRIV | A_STATE | A_END), [0x31] = OP(RDTSC, 0),
    [0x32] = OP(RDMSR, A_PRIV), [0x33] = OP(RDPMC, 0),
    [0x34] = OPF(SYSENTER, A_END | A_STATE, FEAT_SEP, 0),
    [0x35] = OPF(SYSEXIT, A_PRIV | A_END | A_STATE, FEAT_SEP, 0),
    CMOVS(0x40), CMOVS(0x48), SIMD_0F_10_TO_7F,
    [0x77] = NO_PREFIX(OPF(EMMS, 0, FEAT_MMX, 0)),
    ZROWS(0x80, JCC, A_F64, O_Jz), ZROWS(0x88, JCC, A_F64, O_Jz),
    ZROWS(0x90, SETCC, A_B | A_W, O_Eb), ZROWS(0x98, SETCC, A_B | A_W, O_Eb),
    [0xa0] = OP(PUSHSEG, A_D64, O_FS), [0xa1] = OP(POPSEG, A_D64, O_FS),
    [0xa2] = OP(CPUID, 0), [0xa3] = OP(BT, 0, O_Ev, O_Gv),
    [0xa4] = OP(SHLD, A_RW, O_Ev, O_Gv, O_Ib), [0xa5] = OP(SHLD, A_RW, O_Ev, O_Gv, O_CL),
    [0xa8] = OP(PUSHSEG, A_D64, O_GS), [0xa9] = OP(POPSEG, A_D64, O_GS), [0xaa] = OP(RSM, 0),
    [0xab] = OP(BTS, A_LOCK | A_RW, O_Ev, O_Gv),
    [0xac] = OP(SHRD, A_RW, O_Ev, O_Gv, O_Ib), [0xad] = OP(SHRD, A_RW, O_Ev, O_Gv, O_CL),
    [0xae] = SUB(MODREG, split_ae), [0xaf] = OP(IMUL2, 0, O_Gv, O_Ev),
    [0xb0] = OP(CMPXCHG, A_B | A_LOCK | A_RW, O_Eb, O_Gb),
    [0xb1] = OP(CMPXCHG, A_LOCK | A_RW, O_Ev, O_Gv),
    [0xb2] = OP(LSS, A_MEM, O_Gv, O_Mp), [0xb3] = OP(BTR, A_LOCK | A_RW, O_Ev, O_Gv),
    [0xb4] = OP(LFS, A_MEM, O_Gv, O_Mp), [0xb5] = OP(LGS, A_MEM, O_Gv, O_Mp),
    [0xb6] = OP(MOVZX, 0, O_Gv, O_Eb), [0xb7] = OP(MOVZX, 0, O_Gv, O_Ew),
    [0xb8] = SUB(PREFIX, prefix_b8), [0xb9] = OP(UD, A_MODRM), [0xba] = SUB(GROUP, group8),
    [0xbb] = OP(BTC, A_LOCK | A_RW, O_Ev, O_Gv),
    [0xbc] = SUB(PREFIX, prefix_bc), [0xbd] = SUB(PREFIX, prefix_bd),
    [0xbe] = OP(MOVSX, 0, O_Gv, O_Eb), [0xbf] = OP(MOVSX, 0, O_Gv, O_Ew),
    [0xc0] = OP(XADD, A_B | A_LOCK | A_RW, O_Eb, O_Gb),
    [0xc1] = OP(XADD, A_LOCK | A_RW, O_Ev, O_Gv),
    [0xc3] = SUB(PREFIX, prefix_c3), [0xc7] = SUB(MODREG, split_c7),
    ZROWS(0xc8, BSWAP, 0, O_Zv), SIMD_0F_C2_TO_FF,
};
