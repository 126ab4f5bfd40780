/*
 * Macros that write the rows of the opcode tables, and the SIMD rows of the 0F map. Included by
 * optable.c and optable_simd.c only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_OPTABLE_ROWS_H
#define TENON_ACCEL_SOFT_OPTABLE_ROWS_H

#include "accel/soft/decode/optable.h"

/* clang-format off */
#define OP(name, attr, ...) {I_##name, attr, ROW_INSN, FEAT_NONE, {{__VA_ARGS__}}, NULL}
#define OPF(name, attr, feature, ...) {I_##name, attr, ROW_INSN, feature, {{__VA_ARGS__}}, NULL}
#define SUB(how, table) {0, 0, ROW_##how, FEAT_NONE, {{0}}, table}
/* A row without a mandatory prefix, where 66, F3 and F2 are #UD. */
#define NO_PREFIX(...) SUB(PREFIX, ((const struct oprow[4]){__VA_ARGS__}))
/* A SIMD instruction: feature, memory access, size code for no prefix, 66, F3, F2. */
#define S(feature, attr, np, p66, pf3, pf2)                                                        \
    {I_SIMD, (attr) | A_MODRM, ROW_SIMD, FEAT_##feature,                                           \
     {{Z_##np, Z_##p66, Z_##pf3, Z_##pf2}}, NULL}

#define S_PS S(SSE, 0, X, X, NA, NA)   /* packed single and double */
#define S_PSSD S(SSE, 0, X, X, 4, 8)   /* packed and scalar, single and double */
#define S_INT S(SSE2, 0, 8, X, NA, NA) /* MMX and SSE2 integer */
#define S_SHIFT S(SSE2, 0, 8, 16, NA, NA) /* count in 128 bits whatever VEX.L says */

#define SIMD_0F_10_TO_7F                                                                           \
    [0x10] = S_PSSD, [0x11] = S(SSE, A_W, X, X, 4, 8),                                             \
    [0x12] = S(SSE, 0, 8, 8, X, D), [0x13] = S(SSE, A_W | A_MEM, 8, 8, NA, NA), [0x14] = S_PS,     \
    [0x15] = S_PS, [0x16] = S(SSE, 0, 8, 8, X, NA), [0x17] = S(SSE, A_W | A_MEM, 8, 8, NA, NA),    \
    [0x28] = S_PS, [0x29] = S(SSE, A_W, X, X, NA, NA), [0x2a] = S(SSE, 0, 8, 8, Y, Y),             \
    [0x2b] = S(SSE, A_W | A_MEM, X, X, NA, NA), [0x2c] = S(SSE, 0, 8, 16, 4, 8),                   \
    [0x2d] = S(SSE, 0, 8, 16, 4, 8), [0x2e] = S(SSE, 0, 4, 8, NA, NA),                             \
    [0x2f] = S(SSE, 0, 4, 8, NA, NA), [0x50] = S(SSE, 0, R, R, NA, NA), [0x51] = S_PSSD,           \
    [0x52] = S(SSE, 0, X, NA, 4, NA), [0x53] = S(SSE, 0, X, NA, 4, NA), [0x54] = S_PS,             \
    [0x55] = S_PS, [0x56] = S_PS, [0x57] = S_PS, [0x58] = S_PSSD, [0x59] = S_PSSD,                 \
    [0x5a] = S(SSE2, 0, H, X, 4, 8), [0x5b] = S(SSE2, 0, X, X, X, NA), [0x5c] = S_PSSD,            \
    [0x5d] = S_PSSD, [0x5e] = S_PSSD, [0x5f] = S_PSSD, [0x60] = S(SSE2, 0, 4, X, NA, NA),          \
    [0x61] = S(SSE2, 0, 4, X, NA, NA), [0x62] = S(SSE2, 0, 4, X, NA, NA), [0x63] = S_INT,          \
    [0x64] = S_INT, [0x65] = S_INT, [0x66] = S_INT, [0x67] = S_INT, [0x68] = S_INT,                \
    [0x69] = S_INT, [0x6a] = S_INT, [0x6b] = S_INT, [0x6c] = S(SSE2, 0, NA, X, NA, NA),            \
    [0x6d] = S(SSE2, 0, NA, X, NA, NA), [0x6e] = S(SSE2, 0, Y, Y, NA, NA),                         \
    [0x6f] = S(SSE2, 0, 8, X, X, NA), [0x70] = S(SSE2, 0, 8, X, X, X),                             \
    [0x71] = S(SSE2, 0, R, R, NA, NA), [0x72] = S(SSE2, 0, R, R, NA, NA),                          \
    [0x73] = S(SSE2, 0, R, R, NA, NA), [0x74] = S_INT, [0x75] = S_INT, [0x76] = S_INT,             \
    [0x7c] = S(SSE3, 0, NA, X, NA, X), [0x7d] = S(SSE3, 0, NA, X, NA, X),                          \
    [0x7e] = SUB(PREFIX, optable_simd_7e), [0x7f] = S(SSE2, A_W, 8, X, X, NA)

#define SIMD_0F_C2_TO_FF                                                                           \
    [0xc2] = S_PSSD, [0xc4] = S(SSE2, 0, 2, 2, NA, NA), [0xc5] = S(SSE2, 0, R, R, NA, NA),         \
    [0xc6] = S_PS, [0xd0] = S(SSE3, 0, NA, X, NA, X), [0xd1] = S_SHIFT, [0xd2] = S_SHIFT,          \
    [0xd3] = S_SHIFT, [0xd4] = S_INT, [0xd5] = S_INT, [0xd6] = S(SSE2, A_W, NA, 8, R, R),          \
    [0xd7] = S(SSE2, 0, R, R, NA, NA), [0xd8] = S_INT, [0xd9] = S_INT, [0xda] = S_INT,             \
    [0xdb] = S_INT, [0xdc] = S_INT, [0xdd] = S_INT, [0xde] = S_INT, [0xdf] = S_INT,                \
    [0xe0] = S_INT, [0xe1] = S_SHIFT, [0xe2] = S_SHIFT, [0xe3] = S_INT, [0xe4] = S_INT,            \
    [0xe5] = S_INT, [0xe6] = S(SSE2, 0, NA, X, H, X),                                              \
    [0xe7] = S(SSE2, A_W | A_MEM, 8, X, NA, NA), [0xe8] = S_INT, [0xe9] = S_INT, [0xea] = S_INT,   \
    [0xeb] = S_INT, [0xec] = S_INT, [0xed] = S_INT, [0xee] = S_INT, [0xef] = S_INT,                \
    [0xf0] = S(SSE3, A_MEM, NA, NA, NA, X), [0xf1] = S_SHIFT, [0xf2] = S_SHIFT,                    \
    [0xf3] = S_SHIFT, [0xf4] = S_INT, [0xf5] = S_INT, [0xf6] = S_INT,                              \
    [0xf7] = S(SSE2, A_W, R, R, NA, NA), [0xf8] = S_INT, [0xf9] = S_INT, [0xfa] = S_INT,           \
    [0xfb] = S_INT, [0xfc] = S_INT, [0xfd] = S_INT, [0xfe] = S_INT,                                \
    [0xff] = {I_UD, A_MODRM, ROW_INSN, FEAT_NONE, {{0}}, NULL}

extern const struct oprow optable_simd_7e[4];

#endif
