/*
 * The decoder: a table of encodings with their lengths and fields in all modes, what must not
 * decode, and arbitrary bytes (no crash, no length beyond what was there).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "accel/soft/decode/optable.h"
#include "accel/x86_state.h"

struct expected {
    const char *hex;
    enum insn_mode mode;
    enum insn_id id;
    uint8_t opsize;
    uint8_t base, index, scale; /* base 255: not memory */
    int64_t disp, imm;
};

#define NOMEM 255, 0, 0, 0
#define NONE INSN_REG_NONE

static const struct expected encodings[] = {
    {"90", INSN_64, I_NOP, 4, NOMEM, 0},
    {"4190", INSN_64, I_XCHG, 4, NOMEM, 0},
    {"f390", INSN_64, I_PAUSE, 4, NOMEM, 0},
    {"01d8", INSN_64, I_ADD, 4, NOMEM, 0},
    {"4801d8", INSN_64, I_ADD, 8, NOMEM, 0},
    {"6601d8", INSN_64, I_ADD, 2, NOMEM, 0},
    {"01d8", INSN_16, I_ADD, 2, NOMEM, 0},
    {"6601d8", INSN_16, I_ADD, 4, NOMEM, 0},
    {"00d8", INSN_32, I_ADD, 1, NOMEM, 0},
    {"488b4424f8", INSN_64, I_MOV, 8, X86_RSP, NONE, 0, -8, 0},
    {"488b04cd00100000", INSN_64, I_MOV, 8, NONE, X86_RCX, 3, 0x1000, 0},
    {"4a8b44a510", INSN_64, I_MOV, 8, X86_RBP, X86_R12, 2, 0x10, 0},
    {"8b0510000000", INSN_64, I_MOV, 4, INSN_REG_RIP, NONE, 0, 0x10, 0},
    {"8b0510000000", INSN_32, I_MOV, 4, NONE, NONE, 0, 0x10, 0},
    {"8b4002", INSN_16, I_MOV, 2, X86_RBX, X86_RSI, 0, 2, 0},
    {"8b061234", INSN_16, I_MOV, 2, NONE, NONE, 0, 0x3412, 0},
    {"8b46fe", INSN_16, I_MOV, 2, X86_RBP, NONE, 0, -2, 0},
    {"678b00", INSN_16, I_MOV, 2, X86_RAX, NONE, 0, 0, 0},
    {"678b00", INSN_32, I_MOV, 4, X86_RBX, X86_RSI, 0, 0, 0},
    {"a18877665544332211", INSN_64, I_MOV, 4, NONE, NONE, 0, 0x1122334455667788, 0},
    {"a144332211", INSN_32, I_MOV, 4, NONE, NONE, 0, 0x11223344, 0},
    {"48b88877665544332211", INSN_64, I_MOV, 8, NOMEM, 0x1122334455667788},
    {"66b83412", INSN_64, I_MOV, 2, NOMEM, 0x1234},
    {"48c7c0ffffffff", INSN_64, I_MOV, 8, NOMEM, -1},
    {"6aff", INSN_64, I_PUSH, 8, NOMEM, -1},
    {"666aff", INSN_64, I_PUSH, 2, NOMEM, -1},
    {"c20800", INSN_64, I_RET, 8, NOMEM, 8},
    {"c8100002", INSN_64, I_ENTER, 8, NOMEM, 0x10},
    {"e8fcffffff", INSN_64, I_CALL, 8, NOMEM, -4},
    {"e8fcff", INSN_16, I_CALL, 2, NOMEM, -4},
    {"0f84fcffffff", INSN_64, I_JCC, 8, NOMEM, -4},
    {"ea785634123412", INSN_32, I_JMPF, 4, NOMEM, 0x12345678},
    {"f6c001", INSN_64, I_TEST, 1, NOMEM, 1},
    {"f7d8", INSN_64, I_NEG, 4, NOMEM, 0},
    {"f7c001000000", INSN_64, I_TEST, 4, NOMEM, 1},
    {"f00fc108", INSN_64, I_XADD, 4, X86_RAX, NONE, 0, 0, 0},
    {"f00fc708", INSN_64, I_CMPXCHG8B, 4, X86_RAX, NONE, 0, 0, 0},
    {"0fbae007", INSN_64, I_BT, 4, NOMEM, 7},
    {"f30fb8c1", INSN_64, I_POPCNT, 4, NOMEM, 0},
    {"f30fbcc1", INSN_64, I_TZCNT, 4, NOMEM, 0},
    {"0fbcc1", INSN_64, I_BSF, 4, NOMEM, 0},
    {"0f01f8", INSN_64, I_SWAPGS, 4, NOMEM, 0},
    {"0f01f9", INSN_64, I_RDTSCP, 4, NOMEM, 0},
    {"0f0138", INSN_64, I_INVLPG, 4, X86_RAX, NONE, 0, 0, 0},
    {"0f20c0", INSN_64, I_MOVCR_R, 8, NOMEM, 0},
    {"440f22c0", INSN_64, I_MOVCR_W, 8, NOMEM, 0},
    {"0f05", INSN_64, I_SYSCALL, 4, NOMEM, 0},
    {"480f07", INSN_64, I_SYSRET, 8, NOMEM, 0},
    {"48cf", INSN_64, I_IRET, 8, NOMEM, 0},
    {"f348a5", INSN_64, I_MOVS, 8, NOMEM, 0},
    {"f3480faed0", INSN_64, I_WRFSBASE, 8, NOMEM, 0},
    {"0faee8", INSN_64, I_LFENCE, 4, NOMEM, 0},
    {"660f38820a", INSN_64, I_INVPCID, 8, X86_RDX, NONE, 0, 0, 0},
    {"f20f38f1c1", INSN_64, I_CRC32, 4, NOMEM, 0},
    {"0f38f001", INSN_64, I_MOVBE, 4, X86_RCX, NONE, 0, 0, 0},
    {"c4e278f2c1", INSN_64, I_ANDN, 4, NOMEM, 0},
    {"c4e2f1f7c1", INSN_64, I_SHLX, 8, NOMEM, 0},
    {"f30f1efa", INSN_64, I_NOP, 4, NOMEM, 0},
    {"0f1f840000000000", INSN_64, I_NOP, 4, X86_RAX, X86_RAX, 0, 0, 0},
    {"660f6f00", INSN_64, I_SIMD, 2, X86_RAX, NONE, 0, 0, 0},
    {"c5fd6f00", INSN_64, I_SIMD, 4, X86_RAX, NONE, 0, 0, 0},
    {"660f3a0fc108", INSN_64, I_SIMD, 2, NOMEM, 8},
    {"d9c0", INSN_64, I_X87, 4, NOMEM, 0},
    {"c418", INSN_32, I_LES, 4, X86_RAX, NONE, 0, 0, 0},
    {"37", INSN_32, I_AAA, 4, NOMEM, 0},
    {"40", INSN_32, I_INC, 4, NOMEM, 0},
    {"63c8", INSN_32, I_ARPL, 4, NOMEM, 0},
    {"4863c8", INSN_64, I_MOVSXD, 8, NOMEM, 0},
};

static unsigned unhex(const char *hex, uint8_t *bytes)
{
    unsigned n = 0;
    for (; hex[0] && hex[1]; hex += 2) {
        char pair[3] = {hex[0], hex[1], 0};
        bytes[n++] = strtoul(pair, NULL, 16);
    }
    return n;
}

static void check(const struct expected *e)
{
    uint8_t bytes[32] = {0};
    struct insn insn;
    unsigned len = unhex(e->hex, bytes);
    enum decode_result result = decode(bytes, len, e->mode, ~0ull, &insn);
    if (result != DECODE_OK || insn.len != len || insn.id != e->id || insn.opsize != e->opsize ||
        insn.is_mem != (e->base != 255) ||
        (insn.is_mem && (insn.base != e->base || insn.index != e->index || insn.scale != e->scale ||
                         insn.disp != e->disp)) ||
        (insn.imm != e->imm))
        fail_msg("%s: result %d, %s, length %u, size %u, base %u index %u scale %u disp %lld "
                 "imm %lld",
                 e->hex, result, decode_name(insn.id), insn.len, insn.opsize, insn.base, insn.index,
                 insn.scale, (long long)insn.disp, (long long)insn.imm);
    /* Every shorter prefix of it wants more bytes. */
    for (unsigned i = 0; i < len; i++) {
        result = decode(bytes, i, e->mode, ~0ull, &insn);
        if (result != DECODE_SHORT)
            fail_msg("%s cut to %u bytes: %d", e->hex, i, result);
    }
}

static void test_encodings(void **state)
{
    for (unsigned i = 0; i < ARRAY_SIZE(encodings); i++)
        check(&encodings[i]);
}

static void test_refused(void **state)
{
    static const struct {
        const char *hex;
        enum insn_mode mode;
    } bad[] = {
        {"06", INSN_64},           {"27", INSN_64},
        {"60", INSN_64},           {"9a000000000000", INSN_64},
        {"82c001", INSN_64},       {"f001d8", INSN_64}, /* LOCK with a register */
        {"f08b00", INSN_64},                            /* LOCK on a load */
        {"8dc0", INSN_64},                              /* LEA of a register */
        {"c6c801", INSN_64},       {"fed0", INSN_64},
        {"0fc7c8", INSN_64},       {"66c4e278f2c1", INSN_64},
        {"62f17c48580a", INSN_64}, {"0f01f8", INSN_32},
        {"c4e3d3f0de8b", INSN_64}, {"660f77", INSN_64},
        {"f30fae00", INSN_64},                            /* EMMS and FXSAVE take no prefix */
        {"0f20c8", INSN_64},       {"440f21c0", INSN_64}, /* CR1, DR8 */
    };
    struct insn insn;
    uint8_t bytes[32];
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        unsigned len = unhex(bad[i].hex, bytes);
        enum decode_result result = decode(bytes, len, bad[i].mode, ~0ull, &insn);
        if (result != DECODE_UD)
            fail_msg("%s: %d (%s)", bad[i].hex, result, decode_name(insn.id));
    }
    /* Fifteen bytes are the limit, prefixes included. */
    memset(bytes, 0x66, sizeof(bytes));
    bytes[14] = 0x90;
    assert_int_equal(decode(bytes, 15, INSN_64, ~0ull, &insn), DECODE_OK);
    bytes[14] = 0x66;
    assert_int_equal(decode(bytes, 16, INSN_64, ~0ull, &insn), DECODE_TOO_LONG);
}

static void test_features(void **state)
{
    static const struct {
        const char *hex;
        enum insn_feature feature;
    } gated[] = {{"f30fb8c1", FEAT_POPCNT}, {"0f38f001", FEAT_MOVBE},   {"c4e278f2c1", FEAT_BMI1},
                 {"c4e2f1f7c1", FEAT_BMI2}, {"660f38f6c1", FEAT_ADX},   {"0fc7f0", FEAT_RDRAND},
                 {"c5fd6f00", FEAT_AVX},    {"f30faed0", FEAT_FSGSBASE}};
    struct insn insn;
    uint8_t bytes[16];
    for (unsigned i = 0; i < ARRAY_SIZE(gated); i++) {
        unsigned len = unhex(gated[i].hex, bytes);
        uint64_t without = ~(1ull << gated[i].feature);
        assert_int_equal(decode(bytes, len, INSN_64, ~0ull, &insn), DECODE_OK);
        assert_int_equal(decode(bytes, len, INSN_64, without, &insn), DECODE_UD);
    }
    /* Without BMI1, F3 0F BC is BSF. */
    unsigned len = unhex("f30fbcc1", bytes);
    assert_int_equal(decode(bytes, len, INSN_64, ~(1ull << FEAT_BMI1), &insn), DECODE_OK);
    assert_int_equal(insn.id, I_BSF);
}

static void test_garbage(void **state)
{
    uint64_t seed = 88172645463325252ull;
    for (unsigned i = 0; i < 300000; i++) {
        uint8_t bytes[16];
        struct insn insn;
        for (unsigned k = 0; k < 2; k++) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            memcpy(bytes + 8 * k, &seed, 8);
        }
        unsigned count = seed % 16;
        enum decode_result result = decode(bytes, count, i % 3, seed | seed >> 13, &insn);
        if (result == DECODE_OK) {
            assert_in_range(insn.len, 1, count);
            assert_in_range(insn.id, 0, I_COUNT - 1);
            assert_true(insn.base <= INSN_REG_RIP && insn.index <= INSN_REG_NONE);
            assert_true(insn.seg < X86_SEGS);
            assert_true(insn.mem_size <= 32 && insn.reg < 16 && insn.rm < 16);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encodings),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
