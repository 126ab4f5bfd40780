/*
 * The 0F38 and 0F3A opcode maps: SSSE3, SSE4, AES, AVX, AVX2, FMA, BMI and the few integer
 * instructions that live there (Intel SDM vol. 2, appendix A, tables ).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/decode/optable_rows.h"

/* clang-format off */
const struct oprow optable_simd_7e[4] = {
    S(SSE2, A_W, Y, NA, NA, NA), S(SSE2, A_W, NA, Y, NA, NA), S(SSE2, 0, NA, NA, 8, NA), {0}};

#define S_SSSE3 S(SSSE3, 0, 8, X, NA, NA)
#define S_66(feature, size) S(feature, 0, NA, size, NA, NA)
#define V_66(feature, size) S(feature, A_VEX, NA, size, NA, NA)
/* FMA: packed rows use the vector, scalar rows (odd opcodes) 4 or 8 by W. */
#define FMA_ROWS(base)                                                                             \
    [(base) + 6] = V_66(FMA, X), [(base) + 7] = V_66(FMA, X), [(base) + 8] = V_66(FMA, X),         \
    [(base) + 9] = V_66(FMA, Y), [(base) + 10] = V_66(FMA, X), [(base) + 11] = V_66(FMA, Y),       \
    [(base) + 12] = V_66(FMA, X), [(base) + 13] = V_66(FMA, Y), [(base) + 14] = V_66(FMA, X),      \
    [(base) + 15] = V_66(FMA, Y)

static const struct oprow prefix_82[4] = {
    {0},
    OPF(INVPCID, A_PRIV | A_STATE | A_END | A_MEM | A_NOSIZE | A_F64, FEAT_INVPCID, O_Gv, O_M)};
static const struct oprow prefix_f0[4] = {
    OPF(MOVBE, A_MEM, FEAT_MOVBE, O_Gv, O_Ev), OPF(MOVBE, A_MEM, FEAT_MOVBE, O_Gv, O_Ev), {0},
    OPF(CRC32, A_B, FEAT_SSE42, O_Gy, O_Eb)};
static const struct oprow prefix_f1[4] = {
    OPF(MOVBE, A_MEM | A_W, FEAT_MOVBE, O_Ev, O_Gv),
    OPF(MOVBE, A_MEM | A_W, FEAT_MOVBE, O_Ev, O_Gv),
    {0}, OPF(CRC32, 0, FEAT_SSE42, O_Gy, O_Ev)};
static const struct oprow prefix_f2[4] = {OPF(ANDN, A_VEX, FEAT_BMI1, O_Gy, O_By, O_Ey)};
static const struct oprow group17[8] = {{0}, OPF(BLSR, A_VEX, FEAT_BMI1, O_By, O_Ey),
                                        OPF(BLSMSK, A_VEX, FEAT_BMI1, O_By, O_Ey),
                                        OPF(BLSI, A_VEX, FEAT_BMI1, O_By, O_Ey)};
static const struct oprow prefix_f3[4] = {SUB(GROUP, group17)};
static const struct oprow prefix_f5[4] = {
    OPF(BZHI, A_VEX, FEAT_BMI2, O_Gy, O_Ey, O_By), {0},
    OPF(PEXT, A_VEX, FEAT_BMI2, O_Gy, O_By, O_Ey), OPF(PDEP, A_VEX, FEAT_BMI2, O_Gy, O_By, O_Ey)};
static const struct oprow prefix_f6[4] = {
    {0}, OPF(ADCX, 0, FEAT_ADX, O_Gy, O_Ey), OPF(ADOX, 0, FEAT_ADX, O_Gy, O_Ey),
    OPF(MULX, A_VEX, FEAT_BMI2, O_Gy, O_By, O_Ey)};
static const struct oprow prefix_f7[4] = {
    OPF(BEXTR, A_VEX, FEAT_BMI1, O_Gy, O_Ey, O_By), OPF(SHLX, A_VEX, FEAT_BMI2, O_Gy, O_Ey, O_By),
    OPF(SARX, A_VEX, FEAT_BMI2, O_Gy, O_Ey, O_By), OPF(SHRX, A_VEX, FEAT_BMI2, O_Gy, O_Ey, O_By)};
static const struct oprow prefix_3a_f0[4] = {{0}, {0}, {0},
                                             OPF(RORX, A_VEX, FEAT_BMI2, O_Gy, O_Ey, O_Ib)};

const struct oprow optable_0f38[256] = {
    [0x00] = S_SSSE3, [0x01] = S_SSSE3, [0x02] = S_SSSE3, [0x03] = S_SSSE3, [0x04] = S_SSSE3,
    [0x05] = S_SSSE3, [0x06] = S_SSSE3, [0x07] = S_SSSE3, [0x08] = S_SSSE3, [0x09] = S_SSSE3,
    [0x0a] = S_SSSE3, [0x0b] = S_SSSE3,
    [0x0c] = V_66(AVX, X), [0x0d] = V_66(AVX, X), [0x0e] = V_66(AVX, X), [0x0f] = V_66(AVX, X),
    [0x10] = S_66(SSE41, X), [0x13] = V_66(F16C, H), [0x14] = S_66(SSE41, X),
    [0x15] = S_66(SSE41, X), [0x16] = V_66(AVX2, X), [0x17] = S_66(SSE41, X),
    [0x18] = V_66(AVX, 4), [0x19] = V_66(AVX, 8), [0x1a] = V_66(AVX, 16),
    [0x1c] = S_SSSE3, [0x1d] = S_SSSE3, [0x1e] = S_SSSE3,
    [0x20] = S_66(SSE41, H), [0x21] = S_66(SSE41, Q), [0x22] = S_66(SSE41, E),
    [0x23] = S_66(SSE41, H), [0x24] = S_66(SSE41, Q), [0x25] = S_66(SSE41, H),
    [0x28] = S_66(SSE41, X), [0x29] = S_66(SSE41, X),
    [0x2a] = S(SSE41, A_MEM, NA, X, NA, NA), [0x2b] = S_66(SSE41, X),
    [0x2c] = S(AVX, A_VEX | A_MEM, NA, X, NA, NA), [0x2d] = S(AVX, A_VEX | A_MEM, NA, X, NA, NA),
    [0x2e] = S(AVX, A_VEX | A_MEM | A_W, NA, X, NA, NA),
    [0x2f] = S(AVX, A_VEX | A_MEM | A_W, NA, X, NA, NA),
    [0x30] = S_66(SSE41, H), [0x31] = S_66(SSE41, Q), [0x32] = S_66(SSE41, E),
    [0x33] = S_66(SSE41, H), [0x34] = S_66(SSE41, Q), [0x35] = S_66(SSE41, H),
    [0x36] = V_66(AVX2, X), [0x37] = S_66(SSE42, X), [0x38] = S_66(SSE41, X),
    [0x39] = S_66(SSE41, X), [0x3a] = S_66(SSE41, X), [0x3b] = S_66(SSE41, X),
    [0x3c] = S_66(SSE41, X), [0x3d] = S_66(SSE41, X), [0x3e] = S_66(SSE41, X),
    [0x3f] = S_66(SSE41, X), [0x40] = S_66(SSE41, X), [0x41] = S_66(SSE41, X),
    [0x45] = V_66(AVX2, X), [0x46] = V_66(AVX2, X), [0x47] = V_66(AVX2, X),
    [0x50] = V_66(AVX_VNNI, X), [0x51] = V_66(AVX_VNNI, X), [0x52] = V_66(AVX_VNNI, X),
    [0x53] = V_66(AVX_VNNI, X),
    [0x58] = V_66(AVX2, 4), [0x59] = V_66(AVX2, 8), [0x5a] = V_66(AVX2, 16),
    [0x78] = V_66(AVX2, 1), [0x79] = V_66(AVX2, 2), [0x82] = SUB(PREFIX, prefix_82),
    [0x8c] = S(AVX2, A_VEX | A_MEM, NA, X, NA, NA),
    [0x8e] = S(AVX2, A_VEX | A_MEM | A_W, NA, X, NA, NA),
    [0x90] = S(AVX2, A_VEX | A_MEM, NA, V, NA, NA), [0x91] = S(AVX2, A_VEX | A_MEM, NA, V, NA, NA),
    [0x92] = S(AVX2, A_VEX | A_MEM, NA, V, NA, NA), [0x93] = S(AVX2, A_VEX | A_MEM, NA, V, NA, NA),
    FMA_ROWS(0x90), FMA_ROWS(0xa0), FMA_ROWS(0xb0),
    [0xc8] = S(SHA, 0, 16, NA, NA, NA), [0xc9] = S(SHA, 0, 16, NA, NA, NA),
    [0xca] = S(SHA, 0, 16, NA, NA, NA), [0xcb] = S(SHA, 0, 16, NA, NA, NA),
    [0xcc] = S(SHA, 0, 16, NA, NA, NA), [0xcd] = S(SHA, 0, 16, NA, NA, NA),
    [0xcf] = S_66(GFNI, X), [0xdb] = S_66(AES, X), [0xdc] = S_66(AES, X), [0xdd] = S_66(AES, X),
    [0xde] = S_66(AES, X), [0xdf] = S_66(AES, X),
    [0xf0] = SUB(PREFIX, prefix_f0), [0xf1] = SUB(PREFIX, prefix_f1),
    [0xf2] = SUB(PREFIX, prefix_f2), [0xf3] = SUB(PREFIX, prefix_f3),
    [0xf5] = SUB(PREFIX, prefix_f5), [0xf6] = SUB(PREFIX, prefix_f6),
    [0xf7] = SUB(PREFIX, prefix_f7),
};

const struct oprow optable_0f3a[256] = {
    [0x00] = V_66(AVX2, X), [0x01] = V_66(AVX2, X), [0x02] = V_66(AVX2, X), [0x04] = V_66(AVX, X),
    [0x05] = V_66(AVX, X), [0x06] = V_66(AVX, X), [0x08] = S_66(SSE41, X), [0x09] = S_66(SSE41, X),
    [0x0a] = S_66(SSE41, 4), [0x0b] = S_66(SSE41, 8), [0x0c] = S_66(SSE41, X),
    [0x0d] = S_66(SSE41, X), [0x0e] = S_66(SSE41, X), [0x0f] = S_SSSE3,
    [0x14] = S(SSE41, A_W, NA, 1, NA, NA), [0x15] = S(SSE41, A_W, NA, 2, NA, NA),
    [0x16] = S(SSE41, A_W, NA, Y, NA, NA), [0x17] = S(SSE41, A_W, NA, 4, NA, NA),
    [0x18] = V_66(AVX, 16), [0x19] = S(AVX, A_VEX | A_W, NA, 16, NA, NA),
    [0x1d] = S(F16C, A_VEX | A_W, NA, H, NA, NA), [0x20] = S_66(SSE41, 1), [0x21] = S_66(SSE41, 4),
    [0x22] = S_66(SSE41, Y), [0x38] = V_66(AVX2, 16),
    [0x39] = S(AVX2, A_VEX | A_W, NA, 16, NA, NA), [0x40] = S_66(SSE41, X), [0x41] = S_66(SSE41, X),
    [0x42] = S_66(SSE41, X), [0x44] = S_66(PCLMUL, X), [0x46] = V_66(AVX2, X),
    [0x4a] = V_66(AVX, X), [0x4b] = V_66(AVX, X), [0x4c] = V_66(AVX, X),
    [0x60] = S_66(SSE42, 16), [0x61] = S_66(SSE42, 16), [0x62] = S_66(SSE42, 16),
    [0x63] = S_66(SSE42, 16), [0xcc] = S(SHA, 0, 16, NA, NA, NA), [0xce] = S_66(GFNI, X),
    [0xcf] = S_66(GFNI, X), [0xdf] = S_66(AES, 16), [0xf0] = SUB(PREFIX, prefix_3a_f0),
};
