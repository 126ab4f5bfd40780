/*
 * CPU models: a feature that is taken away is absent from CPUID, and its instructions are #UD in
 * the interpreter and in translated code; what the model keeps is executed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "accel/cpuid_features.h"
#include "soft_rig.h"

#define CODE 0x100000u
#define HANDLERS 0x8800u
#define RUNS 3 /* the later ones from translated code */

/* One instruction that only this feature brings; memory operands are at RCX. */
static const struct {
    const char *feature;
    uint8_t len, bytes[7];
} samples[] = {
    {"pni", 4, {0xf2, 0x0f, 0x7c, 0xc1}},
    {"ssse3", 5, {0x66, 0x0f, 0x38, 0x00, 0xc1}},
    {"sse4_1", 5, {0x66, 0x0f, 0x38, 0x40, 0xc1}},
    {"sse4_2", 5, {0x66, 0x0f, 0x38, 0x37, 0xc1}},
    {"popcnt", 4, {0xf3, 0x0f, 0xb8, 0xc1}},
    {"cx16", 4, {0x48, 0x0f, 0xc7, 0x09}},
    {"lahf_lm", 1, {0x9f}},
    {"aes", 5, {0x66, 0x0f, 0x38, 0xdc, 0xc1}},
    {"pclmulqdq", 6, {0x66, 0x0f, 0x3a, 0x44, 0xc1, 0x00}},
    {"sha_ni", 4, {0x0f, 0x38, 0xc8, 0xc1}},
    {"gfni", 5, {0x66, 0x0f, 0x38, 0xcf, 0xc1}},
    {"movbe", 4, {0x0f, 0x38, 0xf0, 0x01}},
    {"bmi1", 5, {0xc4, 0xe2, 0x78, 0xf2, 0xc1}},
    {"bmi2", 5, {0xc4, 0xe2, 0xf1, 0xf7, 0xc1}},
    {"adx", 5, {0x66, 0x0f, 0x38, 0xf6, 0xc1}},
    {"avx", 4, {0xc5, 0xf8, 0x57, 0xc0}},
    {"avx2", 4, {0xc5, 0xfd, 0xfe, 0xc0}},
    {"fma", 5, {0xc4, 0xe2, 0x79, 0x98, 0xc1}},
    {"f16c", 5, {0xc4, 0xe2, 0x79, 0x13, 0xc0}},
    {"vaes", 5, {0xc4, 0xe2, 0x7d, 0xdc, 0xc1}},
    {"vpclmulqdq", 6, {0xc4, 0xe3, 0x7d, 0x44, 0xc1, 0x00}},
    {"avx_vnni", 5, {0xc4, 0xe2, 0x79, 0x50, 0xc1}},
    {"rdrand", 3, {0x0f, 0xc7, 0xf0}},
    {"rdtscp", 3, {0x0f, 0x01, 0xf9}},
    {"rdpid", 4, {0xf3, 0x0f, 0xc7, 0xf8}},
    {"fsgsbase", 4, {0xf3, 0x0f, 0xae, 0xc0}},
    {"clflushopt", 4, {0x66, 0x0f, 0xae, 0x39}},
    {"serialize", 3, {0x0f, 0x01, 0xe8}},
};

static struct rig *new_rig(const char *debug, const struct cpu_model *model)
{
    static const uint8_t end[] = {RIG_END};
    struct rig *rig = rig_new_model(debug, model);
    struct soft_vcpu *v = rig->v;
    v->cr4 |= CR4_FSGSBASE;
    if (cpuid_has(&v->cpuid, cpuid_feature_find("xsave"))) {
        v->cr4 |= CR4_OSXSAVE;
        v->xcr0 = cpuid_has(&v->cpuid, cpuid_feature_find("avx")) ? 7 : 3;
    }
    memcpy(rig->ram + HANDLERS, end, sizeof(end));
    rig_gate(rig, VEC_UD, HANDLERS, 0x8e, 0);
    return rig;
}

/* Does it raise #UD, the same in all runs? */
static bool undefined(struct rig *rig, unsigned sample)
{
    static const uint8_t end[] = {RIG_END};
    struct soft_vcpu *v = rig->v;
    unsigned count = 0;
    memcpy(rig->ram + CODE, samples[sample].bytes, samples[sample].len);
    memcpy(rig->ram + CODE + samples[sample].len, end, sizeof(end));
    soft_code_flush(v);
    for (unsigned i = 0; i < RUNS; i++) {
        v->r[X86_RSP] = RIG_STACK - 0x1000;
        v->r[X86_RCX] = 0x200000;
        v->rip = CODE;
        assert_int_equal(rig_run(rig), VM_EXIT_KICKED);
        count += v->rip >= HANDLERS && v->rip < HANDLERS + 16;
    }
    if (count && count != RUNS)
        fail_msg("%s: #UD in %u of %u runs", samples[sample].feature, count, RUNS);
    return count;
}

static bool has(const struct rig *rig, const char *feature)
{
    return cpuid_has(&rig->v->cpuid, cpuid_feature_find(feature));
}

/* What the guest reads by CPUID, not the table. */
static bool shown(struct rig *rig, const char *name)
{
    const struct cpuid_feature *feature = cpuid_feature_find(name);
    struct cpuid_entry answer;
    soft_cpuid(rig->v, feature->leaf, feature->subleaf, &answer);
    return *cpuid_reg(&answer, feature->reg) >> feature->bit & 1;
}

static void check_model(const struct cpu_model *model)
{
    static const char *const modes[] = {"xlate-after=0", "xlate-after=1"};
    for (unsigned mode = 0; mode < ARRAY_SIZE(modes); mode++) {
        struct rig *rig = new_rig(modes[mode], model);
        for (unsigned i = 0; i < ARRAY_SIZE(samples); i++) {
            assert_int_equal(shown(rig, samples[i].feature), has(rig, samples[i].feature));
            if (undefined(rig, i) == has(rig, samples[i].feature))
                fail_msg("%s with model %s, %s: %s", samples[i].feature, model->name, modes[mode],
                         has(rig, samples[i].feature) ? "is #UD" : "is not #UD");
        }
        rig_free(rig);
    }
}

static void test_host(void **state)
{
    check_model(&(struct cpu_model){.name = "host"});
}

static void test_levels(void **state)
{
    if (!__builtin_cpu_supports("avx2"))
        skip();
    struct rig *rig = new_rig(NULL, &(struct cpu_model){.name = "x86-64-v2"});
    assert_true(has(rig, "sse4_2") && !has(rig, "avx") && !has(rig, "bmi1"));
    rig_free(rig);
    check_model(&(struct cpu_model){.name = "x86-64-v2"});
    check_model(&(struct cpu_model){.name = "x86-64-v3"});
}

static void test_removed(void **state)
{
    for (unsigned i = 0; i < ARRAY_SIZE(samples); i++) {
        const char *const remove[] = {samples[i].feature, NULL};
        const struct cpu_model model = {.name = "host", .remove = remove};
        struct rig *rig = new_rig("xlate-after=1", &(struct cpu_model){.name = "host"});
        bool there = has(rig, samples[i].feature);
        rig_free(rig);
        if (!there)
            continue;
        rig = new_rig("xlate-after=1", &model);
        assert_false(has(rig, samples[i].feature));
        rig_free(rig);
        check_model(&model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_host),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_removed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
