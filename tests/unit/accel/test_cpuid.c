/*
 * CPUID tables and CPU models.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "accel/cpuid.h"
#include "accel/cpuid_features.h"

static void put(struct cpuid_table *table, uint32_t leaf, int subleaf, uint32_t eax, uint32_t ebx,
                uint32_t ecx, uint32_t edx)
{
    cpuid_put(table, &(struct cpuid_entry){.leaf = leaf,
                                           .subleaf = subleaf < 0 ? 0 : (uint32_t)subleaf,
                                           .subleaf_matters = subleaf >= 0,
                                           .eax = eax,
                                           .ebx = ebx,
                                           .ecx = ecx,
                                           .edx = edx});
}

/* A server CPU with everything up to AVX-512 and AMX. */
static struct cpuid_table rich(void)
{
    struct cpuid_table t = {0};
    put(&t, 0, -1, 0xd, 0x756e6547, 0x6c65746e, 0x49656e69);
    put(&t, 1, -1, 0x806f8, 0x00020800, 0xfffaf38bu, 0x1f8bfbff);
    put(&t, 4, 0, 0x04000121, 0x02c0003f, 0x3f, 0);
    put(&t, 4, 1, 0x04004163, 0x03c0003f, 0x7ffff, 0);
    put(&t, 4, 2, 0, 0, 0, 0);
    put(&t, 6, -1, 4, 0, 0, 0);
    put(&t, 7, 0, 1, 0xf1bf2ffb, 0x1a415f46, 0xa5000010);
    put(&t, 7, 1, 0x30, 0, 0, 0);
    put(&t, 0xd, 0, 0x600e7, 0x2b00, 0x2b00, 0);
    put(&t, 0xd, 1, 0xf, 0, 0, 0);
    put(&t, 0xd, 2, 0x100, 0x240, 0, 0);
    put(&t, 0xd, 5, 0x40, 0x440, 0, 0);
    put(&t, 0xd, 6, 0x200, 0x480, 0, 0);
    put(&t, 0xd, 7, 0x400, 0x680, 0, 0);
    put(&t, 0xd, 17, 0x40, 0xac0, 2, 0);
    put(&t, 0xd, 18, 0x2000, 0xb00, 6, 0);
    put(&t, 0x80000000, -1, 0x80000008, 0, 0, 0);
    put(&t, 0x80000001, -1, 0, 0, 0x121, 0x2c100800);
    put(&t, 0x80000008, -1, 0x302e, 0, 0, 0);
    put(&t, 0x40000001, -1, (1u << 0) | (1u << 3) | (1u << 24), 0, 0, 0);
    return t;
}

static bool table_has(const struct cpuid_table *table, const char *name)
{
    const struct cpuid_feature *feature = cpuid_feature_find(name);
    assert_non_null(feature);
    return cpuid_has(table, feature);
}

static void test_put_find_query(void **unused)
{
    struct cpuid_table t = {0};
    put(&t, 1, -1, 1, 2, 3, 4);
    put(&t, 4, 0, 10, 0, 0, 0);
    put(&t, 4, 1, 11, 0, 0, 0);
    put(&t, 4, 1, 12, 0, 0, 0);
    assert_int_equal(t.count, 3);
    struct cpuid_entry e;
    cpuid_query(&t, 1, 77, &e);
    assert_int_equal(e.edx, 4);
    cpuid_query(&t, 4, 1, &e);
    assert_int_equal(e.eax, 12);
    cpuid_query(&t, 4, 2, &e);
    assert_int_equal(e.eax, 0);
    cpuid_query(&t, 0x99, 0, &e);
    assert_int_equal(e.eax | e.ebx | e.ecx | e.edx, 0);
    for (uint32_t i = 0; i < 2 * CPUID_ENTRIES_MAX; i++)
        put(&t, 0x100 + i, -1, i, 0, 0, 0);
    assert_int_equal(t.count, CPUID_ENTRIES_MAX);
}

static void test_feature_table_is_sound(void **unused)
{
    for (size_t i = 0; i < cpuid_feature_count; i++) {
        const struct cpuid_feature *f = &cpuid_features[i];
        assert_true(f->bit < 32);
        if (f->needs)
            assert_non_null(cpuid_feature_find(f->needs));
        for (size_t j = 0; j < i; j++) {
            const struct cpuid_feature *g = &cpuid_features[j];
            assert_string_not_equal(f->name, g->name);
            assert_false(f->leaf == g->leaf && f->subleaf == g->subleaf && f->reg == g->reg &&
                         f->bit == g->bit);
        }
    }
}

static void test_host_model(void **unused)
{
    struct cpuid_table supported = rich(), t;
    struct cpu_model model = {0};
    assert_null(cpuid_build(&supported, &model, 2, 3, 2600000, &t));
    assert_true(table_has(&t, "avx512f"));
    assert_true(table_has(&t, "hypervisor"));
    struct cpuid_entry e;
    cpuid_query(&t, 1, 0, &e);
    assert_int_equal(e.ebx >> 24, 2);
    assert_int_equal(e.ebx >> 16 & 0xff, 4);
    assert_int_equal(e.ebx & 0xffff, 0x0800);
    cpuid_query(&t, 4, 0, &e); /* private */
    assert_int_equal(e.eax >> 14 & 0xfff, 0);
    assert_int_equal(e.eax >> 26, 3);
    cpuid_query(&t, 4, 1, &e); /* level 3: shared by all */
    assert_int_equal(e.eax >> 14 & 0xfff, 3);
    cpuid_query(&t, 0xb, 0, &e);
    assert_int_equal(e.eax, 0);
    assert_int_equal(e.ecx, 0x100);
    cpuid_query(&t, 0xb, 1, &e);
    assert_int_equal(e.eax, 2);
    assert_int_equal(e.ebx, 3);
    assert_int_equal(e.edx, 2);
    cpuid_query(&t, 0x40000000, 0, &e);
    assert_int_equal(e.eax, 0x40000010);
    assert_int_equal(e.ebx, 0x4b4d564b);
    assert_int_equal(e.ecx, 0x564b4d56);
    assert_int_equal(e.edx, 0x4d);
    cpuid_query(&t, 0x40000001, 0, &e);
    assert_int_equal(e.eax, 1u << 24 | 9);
    cpuid_query(&t, 0x40000010, 0, &e);
    assert_int_equal(e.eax, 2600000);
    cpuid_query(&t, 0, 0, &e);
    assert_int_equal(e.eax, 0x16);
    cpuid_query(&t, 0xd, 0, &e);
    assert_int_equal(e.eax, 0x600e7);
    assert_int_equal(e.ecx, 0x2b00);
}

static void test_tsc_leaf_fits_linux_arithmetic(void **unused)
{
    static const uint32_t khz[] = {1000000, 1999999, 2600000, 2599998, 3892741, 4200000, 812345};
    struct cpuid_table supported = rich(), t;
    struct cpu_model model = {0};
    for (size_t i = 0; i < ARRAY_SIZE(khz); i++) {
        struct cpuid_entry e;
        assert_null(cpuid_build(&supported, &model, 0, 1, khz[i], &t));
        cpuid_query(&t, 0x15, 0, &e);
        uint32_t crystal_khz = e.ecx / 1000;
        uint32_t linux_khz = crystal_khz * e.ebx / e.eax; /* 32-bit on purpose */
        assert_in_range(linux_khz, khz[i] - khz[i] / 500000 - 1, khz[i] + khz[i] / 500000 + 1);
    }
}

static void test_named_models(void **unused)
{
    struct cpuid_table supported = rich(), t;
    struct cpu_model model = {.name = "x86-64-v2"};
    assert_null(cpuid_build(&supported, &model, 0, 1, 2600000, &t));
    assert_true(table_has(&t, "sse4_2"));
    assert_true(table_has(&t, "nx"));
    assert_true(table_has(&t, "x2apic"));
    assert_false(table_has(&t, "avx"));
    assert_false(table_has(&t, "avx2"));
    assert_false(table_has(&t, "xsave"));
    assert_false(table_has(&t, "ht"));
    assert_null(cpuid_find(&t, 0xd, 0));
    model.name = "x86-64-v3";
    assert_null(cpuid_build(&supported, &model, 0, 1, 2600000, &t));
    assert_true(table_has(&t, "avx2"));
    assert_true(table_has(&t, "movbe"));
    assert_false(table_has(&t, "avx512f"));
    struct cpuid_entry e;
    cpuid_query(&t, 0xd, 0, &e);
    assert_int_equal(e.eax, 7);
    assert_int_equal(e.ecx, 0x340);
    cpuid_query(&t, 0xd, 17, &e);
    assert_int_equal(e.eax, 0);
    model.name = "pentium";
    struct err *err = cpuid_build(&supported, &model, 0, 1, 2600000, &t);
    assert_non_null(err);
    assert_int_equal(err_kind(err), ERR_USAGE);
    assert_non_null(strstr(err_text(err), "x86-64-v3"));
    err_free(err);
}

static void test_model_above_the_host(void **unused)
{
    struct cpuid_table supported = rich(), t;
    cpuid_set(&supported, cpuid_feature_find("avx2"), false);
    struct cpu_model model = {.name = "x86-64-v3"};
    struct err *err = cpuid_build(&supported, &model, 0, 1, 2600000, &t);
    assert_non_null(err);
    assert_non_null(strstr(err_text(err), "avx2"));
    err_free(err);
}

static void test_add_and_remove(void **unused)
{
    struct cpuid_table supported = rich(), t;
    const char *const add[] = {"avx2", "aes", NULL}, *const remove[] = {"popcnt", NULL};
    struct cpu_model model = {.name = "x86-64-v2", .add = add, .remove = remove};
    assert_null(cpuid_build(&supported, &model, 0, 1, 2600000, &t));
    assert_true(table_has(&t, "avx2"));
    assert_true(table_has(&t, "avx"));   /* came along */
    assert_true(table_has(&t, "xsave")); /* so did this */
    assert_true(table_has(&t, "aes"));
    assert_false(table_has(&t, "fma"));
    assert_false(table_has(&t, "popcnt"));
    assert_non_null(cpuid_find(&t, 0xd, 2));

    const char *const no_avx[] = {"avx", NULL};
    model = (struct cpu_model){.remove = no_avx};
    assert_null(cpuid_build(&supported, &model, 0, 1, 2600000, &t));
    assert_false(table_has(&t, "avx2"));
    assert_false(table_has(&t, "avx512f"));
    assert_false(table_has(&t, "avx512bw"));
    assert_true(table_has(&t, "sse4_2"));
    struct cpuid_entry e;
    cpuid_query(&t, 0xd, 0, &e);
    assert_int_equal(e.eax & 0xff, 3);
}

static void test_vendor(void **unused)
{
    struct cpuid_table supported = rich(), t;
    struct cpu_model model = {.vendor = "AuthenticAMD"};
    assert_null(cpuid_build(&supported, &model, 0, 1, 2600000, &t));
    struct cpuid_entry e;
    cpuid_query(&t, 0, 0, &e);
    assert_int_equal(e.ebx, 0x68747541);
    assert_int_equal(e.edx, 0x69746e65);
    assert_int_equal(e.ecx, 0x444d4163);
    model.vendor = "AMD";
    struct err *err = cpuid_build(&supported, &model, 0, 1, 2600000, &t);
    assert_non_null(err);
    assert_non_null(strstr(err_text(err), "12 characters"));
    err_free(err);
}

static void test_bad_feature_names(void **unused)
{
    struct cpuid_table supported = rich(), t;
    const char *const unknown[] = {"warp", NULL}, *const lacking[] = {"svm", NULL};
    struct cpu_model model = {.add = unknown};
    struct err *err = cpuid_build(&supported, &model, 0, 1, 2600000, &t);
    assert_non_null(err);
    assert_non_null(strstr(err_text(err), "'warp' is not known"));
    assert_non_null(strstr(err_text(err), " avx2 "));
    assert_null(strstr(err_text(err), " svm"));
    err_free(err);
    model.add = lacking;
    err = cpuid_build(&supported, &model, 0, 1, 2600000, &t);
    assert_non_null(err);
    assert_non_null(strstr(err_text(err), "'svm' is not offered"));
    err_free(err);
    model = (struct cpu_model){.remove = unknown};
    err = cpuid_build(&supported, &model, 0, 1, 2600000, &t);
    assert_non_null(err);
    err_free(err);
}

static void test_amd_topology(void **unused)
{
    struct cpuid_table supported = rich(), t;
    cpuid_find(&supported, 0, 0)->ebx = 0x68747541;
    put(&supported, 0x8000001e, -1, 9, 9, 9, 9);
    put(&supported, 0x8000001d, 0, 0x4121, 0, 0, 0);
    put(&supported, 0x8000001d, 1, 0x4163, 0, 0, 0);
    struct cpu_model model = {0};
    assert_null(cpuid_build(&supported, &model, 5, 6, 3000000, &t));
    struct cpuid_entry e;
    cpuid_query(&t, 0x80000008, 0, &e);
    assert_int_equal(e.ecx, 0x3005);
    cpuid_query(&t, 0x8000001e, 0, &e);
    assert_int_equal(e.eax, 5);
    assert_int_equal(e.ebx, 5);
    cpuid_query(&t, 0x8000001d, 1, &e);
    assert_int_equal(e.eax >> 14, 7);
    cpuid_query(&t, 0x8000001d, 0, &e);
    assert_int_equal(e.eax >> 14, 0);
    cpuid_query(&t, 0x80000000, 0, &e);
    assert_int_equal(e.eax, 0x8000001e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_find_query),
        cmocka_unit_test(test_feature_table_is_sound),
        cmocka_unit_test(test_host_model),
        cmocka_unit_test(test_tsc_leaf_fits_linux_arithmetic),
        cmocka_unit_test(test_named_models),
        cmocka_unit_test(test_model_above_the_host),
        cmocka_unit_test(test_add_and_remove),
        cmocka_unit_test(test_bad_feature_names),
        cmocka_unit_test(test_vendor),
        cmocka_unit_test(test_amd_topology),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
