/*
 * Instruction decoder: bytes to `struct insn`, driven by the tables of optable.c (Intel SDM vol. 2,
 * chapter 2 and appendix A). One row an opcode: what it is, its operands, what it may do. The
 * interpreter and a translator share it.
 *
 * Pure: no guest access, no allocation. Any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_DECODE_H
#define TENON_ACCEL_SOFT_DECODE_H

#include "base/base.h"

#define INSN_MAX 15

/* Width of code: CS.L and CS.D. */
enum insn_mode { INSN_16, INSN_32, INSN_64 };

/* Opcode maps; the VEX field mmmmm uses the same numbers. */
enum insn_map { INSN_MAP_ONE, INSN_MAP_0F, INSN_MAP_0F38, INSN_MAP_0F3A };

/* insn.prefix */
#define INSN_LOCK (1u << 0)
#define INSN_REPNE (1u << 1)    /* F2 */
#define INSN_REP (1u << 2)      /* F3 */
#define INSN_OPSIZE (1u << 3)   /* 66 */
#define INSN_ADDRSIZE (1u << 4) /* 67 */
#define INSN_VEX (1u << 5)
#define INSN_SEGMENT (1u << 6) /* a segment override was given */

/* insn.mem_access: what the instruction does to its ModRM memory operand. */
#define INSN_MEM_READ 1u
#define INSN_MEM_WRITE 2u

/* Register numbers of the vCPU's register file beyond the 16 GPRs: see struct soft_vcpu.r */
#define INSN_REG_NONE 16 /* always zero */
#define INSN_REG_RIP 17  /* RIP-relative: the address is relative to the NEXT instruction */

/*
 * CPU features that an opcode needs, as bit numbers of a 64-bit mask: opcodes whose feature the
 * guest's CPUID lacks decode to #UD.
 */
enum insn_feature {
    FEAT_NONE,
    FEAT_X87,
    FEAT_MMX,
    FEAT_SSE,
    FEAT_SSE2,
    FEAT_SSE3,
    FEAT_SSSE3,
    FEAT_SSE41,
    FEAT_SSE42,
    FEAT_AES,
    FEAT_PCLMUL,
    FEAT_SHA,
    FEAT_GFNI,
    FEAT_AVX,
    FEAT_AVX2,
    FEAT_FMA,
    FEAT_F16C,
    FEAT_VAES,
    FEAT_VPCLMUL,
    FEAT_AVX_VNNI,
    FEAT_FXSR,
    FEAT_XSAVE,
    FEAT_XSAVEOPT,
    FEAT_XSAVEC,
    FEAT_XSAVES,
    FEAT_CX8,
    FEAT_CX16,
    FEAT_CMOV,
    FEAT_MOVBE,
    FEAT_POPCNT,
    FEAT_LZCNT,
    FEAT_BMI1,
    FEAT_BMI2,
    FEAT_ADX,
    FEAT_RDRAND,
    FEAT_RDSEED,
    FEAT_RDTSCP,
    FEAT_RDPID,
    FEAT_FSGSBASE,
    FEAT_INVPCID,
    FEAT_CLFLUSH,
    FEAT_CLFLUSHOPT,
    FEAT_CLWB,
    FEAT_SMAP,
    FEAT_SYSCALL,
    FEAT_SEP,
    FEAT_LAHF64,
    FEAT_PREFETCHW,
    FEAT_SERIALIZE,
    FEAT_MOVDIRI,
    FEAT_3DNOW,
};

/* What kind of executor an instruction needs. */
enum insn_class {
    INSN_CLASS_INT,   /* integer and system: exec_*.c */
    INSN_CLASS_X87,   /* D8..DF: soft_simd_exec */
    INSN_CLASS_SIMD,  /* MMX, SSE, AVX: soft_simd_exec */
    INSN_CLASS_STATE, /* FXSAVE, XSAVE and their kin: soft_xstate_exec */
};

/* A decoded instruction, self-contained: it may be kept after the bytes are gone. */
struct insn {
    uint16_t id;    /* enum insn_id of optable.h */
    uint8_t cls;    /* enum insn_class */
    uint8_t len;    /* bytes, 1..15 */
    uint8_t mode;   /* enum insn_mode */
    uint8_t map;    /* enum insn_map */
    uint8_t opcode; /* last opcode byte */
    uint8_t modrm;  /* raw ModRM byte; 0 when absent */
    uint8_t has_modrm;
    uint8_t modrm_at;  /* offset of ModRM in raw[] */
    uint8_t opcode_at; /* offset of the opcode byte in raw[] */
    uint8_t prefix;    /* INSN_LOCK... */
    uint8_t pp;        /* mandatory prefix as VEX.pp counts: 0 none, 1 66, 2 F3, 3 F2 */
    uint8_t rex;       /* REX byte or 0; for VEX its W R X B bits as a REX would hold them */
    uint8_t vex_l;     /* VEX.L */
    uint8_t vex_v;     /* VEX.vvvv, already inverted: a register number */
    uint8_t opsize;    /* effective operand size in bytes: 1, 2, 4, 8 */
    uint8_t addrsize;  /* effective address size in bytes: 2, 4, 8 */
    uint8_t reg;       /* ModRM.reg with REX.R; opcode register with REX.B for +r forms in rm */
    uint8_t rm;        /* ModRM.rm with REX.B, when it names a register */
    uint8_t is_mem;    /* the ModRM operand is memory */
    uint8_t base, index,
        scale;          /* registers (INSN_REG_NONE, INSN_REG_RIP); scale is a shift count */
    uint8_t seg;        /* enum x86_seg of the memory operand, override applied */
    uint8_t mem_size;   /* bytes of the memory operand; 0: the class decides */
    uint8_t mem_access; /* INSN_MEM_READ | INSN_MEM_WRITE */
    uint8_t rep;        /* string instructions: 0, INSN_REP or INSN_REPNE */
    uint8_t flags;      /* INSN_F_* of optable.h */
    uint8_t op[4];      /* operand kinds, enum insn_operand of optable.h */
    uint8_t feature;    /* enum insn_feature */
    int64_t disp;       /* displacement, sign-extended; moffs in full */
    int64_t imm;        /* immediate, sign-extended as the instruction does; branch displacement */
    uint16_t imm2;      /* ENTER's second, far pointers' selector */
    uint8_t raw[INSN_MAX];
};

enum decode_result {
    DECODE_OK,
    DECODE_SHORT,   /* the bytes end inside the instruction: fetch more */
    DECODE_UD,      /* no such instruction in this mode: #UD */
    DECODE_TOO_LONG /* more than 15 bytes: #GP(0) */
};

/*
 * Decodes one instruction from `bytes`, of which `count` are there. insn->len is set for DECODE_OK
 * and DECODE_UD. `features` has a bit for every enum insn_feature that the guest may use.
 */
enum decode_result decode(const uint8_t *bytes, unsigned count, enum insn_mode mode,
                          uint64_t features, struct insn *insn);

/* The instruction's name for logs and tests, "add" or "simd". */
const char *decode_name(uint16_t id);

#endif
