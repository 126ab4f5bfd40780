/*
 * CPUID tables and CPU models: see cpuid.h. Leaves by Intel SDM vol. 2 (CPUID), AMD APM vol. 3
 * appendix E, and Linux Documentation/virt/kvm/x86/cpuid.rst.
 *
 * No lock: tables belong to their caller.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/cpuid.h"

#include <string.h>

#include "accel/cpuid_features.h"
#include "base/buf.h"
#include "base/bytes.h"

#define LEAF_HYPERVISOR 0x40000000u
#define LEAF_KVM_FEATURES 0x40000001u
#define LEAF_HYPERVISOR_TIMING 0x40000010u
#define LEAF_EXTENDED 0x80000000u

/* The local APIC timer counts nanoseconds, under KVM and under the software engine alike. */
#define APIC_TIMER_KHZ 1000000u

struct cpuid_entry *cpuid_find(struct cpuid_table *table, uint32_t leaf, uint32_t subleaf)
{
    for (unsigned i = 0; i < table->count; i++) {
        struct cpuid_entry *entry = &table->entries[i];
        if (entry->leaf == leaf && (!entry->subleaf_matters || entry->subleaf == subleaf))
            return entry;
    }
    return NULL;
}

void cpuid_put(struct cpuid_table *table, const struct cpuid_entry *entry)
{
    struct cpuid_entry *old = cpuid_find(table, entry->leaf, entry->subleaf);
    if (old)
        *old = *entry;
    else if (table->count < CPUID_ENTRIES_MAX)
        table->entries[table->count++] = *entry;
}

void cpuid_query(const struct cpuid_table *table, uint32_t leaf, uint32_t subleaf,
                 struct cpuid_entry *answer)
{
    const struct cpuid_entry *entry = cpuid_find((struct cpuid_table *)table, leaf, subleaf);
    *answer = entry ? *entry : (struct cpuid_entry){.leaf = leaf, .subleaf = subleaf};
}

static void put_leaf(struct cpuid_table *table, uint32_t leaf, uint32_t eax, uint32_t ebx,
                     uint32_t ecx, uint32_t edx)
{
    cpuid_put(table,
              &(struct cpuid_entry){.leaf = leaf, .eax = eax, .ebx = ebx, .ecx = ecx, .edx = edx});
}

static void put_subleaf(struct cpuid_table *table, uint32_t leaf, uint32_t subleaf, uint32_t eax,
                        uint32_t ebx, uint32_t ecx, uint32_t edx)
{
    cpuid_put(table, &(struct cpuid_entry){.leaf = leaf,
                                           .subleaf = subleaf,
                                           .subleaf_matters = true,
                                           .eax = eax,
                                           .ebx = ebx,
                                           .ecx = ecx,
                                           .edx = edx});
}

static void remove_leaf(struct cpuid_table *table, uint32_t leaf)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < table->count; i++) {
        if (table->entries[i].leaf != leaf)
            table->entries[kept++] = table->entries[i];
    }
    table->count = kept;
}

/* Names of the features that `table` has, for an error message. */
static void list_features(const struct cpuid_table *table, struct buf *out)
{
    for (size_t i = 0; i < cpuid_feature_count; i++) {
        if (!cpuid_has(table, &cpuid_features[i]))
            continue;
        if (out->len)
            buf_text(out, " ");
        buf_text(out, cpuid_features[i].name);
    }
    buf_u8(out, 0);
}

static struct err *feature_error(const struct cpuid_table *supported, const char *name,
                                 const char *what)
{
    struct buf names = BUF_INIT;
    list_features(supported, &names);
    struct err *err = err_of(ERR_USAGE, "CPU feature '%s' %s; there are: %s", name, what,
                             (const char *)names.data);
    buf_fini(&names);
    return err;
}

/* Cuts every word of feature bits to what the model's level names. */
static void cut_to_level(struct cpuid_table *table, enum cpuid_level level)
{
    for (unsigned i = 0; i < table->count; i++) {
        struct cpuid_entry *entry = &table->entries[i];
        uint32_t keep[4] = {0};
        bool word[4] = {false};
        for (size_t f = 0; f < cpuid_feature_count; f++) {
            const struct cpuid_feature *feature = &cpuid_features[f];
            if (feature->leaf != entry->leaf || feature->subleaf != entry->subleaf)
                continue;
            word[feature->reg] = true;
            if (feature->level <= level)
                keep[feature->reg] |= 1u << feature->bit;
        }
        for (unsigned reg = 0; reg < 4; reg++) {
            if (word[reg])
                *cpuid_reg(entry, reg) &= keep[reg];
        }
    }
}

static struct err *apply_user_features(const struct cpuid_table *supported,
                                       const struct cpu_model *model, struct cpuid_table *table)
{
    for (const char *const *name = model->add; name && *name; name++) {
        const struct cpuid_feature *feature = cpuid_feature_find(*name);
        if (!feature)
            return feature_error(supported, *name, "is not known");
        if (!cpuid_has(supported, feature))
            return feature_error(supported, *name, "is not offered by this engine and host");
        /* What it needs comes along: nobody who asks for avx2 wants to hear about xsave. */
        for (; feature; feature = feature->needs ? cpuid_feature_find(feature->needs) : NULL)
            cpuid_set(table, feature, cpuid_has(supported, feature));
    }
    for (const char *const *name = model->remove; name && *name; name++) {
        const struct cpuid_feature *feature = cpuid_feature_find(*name);
        if (!feature)
            return feature_error(supported, *name, "is not known");
        cpuid_set(table, feature, false);
    }
    return NULL;
}

/* A feature without the one that it stands on would be a CPU that never existed. */
static void drop_orphans(struct cpuid_table *table)
{
    bool changed = true;
    while (changed) {
        changed = false;
        for (size_t i = 0; i < cpuid_feature_count; i++) {
            const struct cpuid_feature *feature = &cpuid_features[i];
            if (!feature->needs || !cpuid_has(table, feature))
                continue;
            if (!cpuid_has(table, cpuid_feature_find(feature->needs))) {
                cpuid_set(table, feature, false);
                changed = true;
            }
        }
    }
}

static bool has(const struct cpuid_table *table, const char *name)
{
    const struct cpuid_feature *feature = cpuid_feature_find(name);
    return feature && cpuid_has(table, feature);
}

/* Leaf 0xd: the XSAVE components that the remaining features use, and the area that they need. */
static void fit_xsave(struct cpuid_table *table)
{
    struct cpuid_entry *main_leaf = cpuid_find(table, 0xd, 0);
    if (!main_leaf)
        return;
    if (!has(table, "xsave")) {
        remove_leaf(table, 0xd);
        return;
    }
    uint32_t allowed = 3;
    if (has(table, "avx"))
        allowed |= 1u << 2;
    if (has(table, "mpx"))
        allowed |= 3u << 3;
    if (has(table, "avx512f"))
        allowed |= 7u << 5;
    if (has(table, "pku"))
        allowed |= 1u << 9;
    if (has(table, "amx_tile"))
        allowed |= 3u << 17;
    main_leaf->eax &= allowed;
    main_leaf->edx = 0;
    uint32_t end = 576;
    for (unsigned i = 0; i < table->count; i++) {
        struct cpuid_entry *entry = &table->entries[i];
        if (entry->leaf != 0xd || entry->subleaf < 2 || entry->subleaf > 31)
            continue;
        bool user = main_leaf->eax >> entry->subleaf & 1;
        if (user)
            end = MAX(end, entry->ebx + entry->eax);
        else if (!(entry->ecx & 1)) /* not a supervisor component: gone */
            entry->eax = entry->ebx = entry->ecx = entry->edx = 0;
    }
    main_leaf->ecx = end;
    main_leaf->ebx = 576; /* of XCR0 at reset; the engine follows XCR0 */
}

static unsigned bits_for(unsigned count)
{
    unsigned bits = 0;
    while (1u << bits < count)
        bits++;
    return bits;
}

/* Intel's cache leaf 4 and AMD's 0x8000001d share their layout: who shares each cache. */
static void fit_caches(struct cpuid_table *table, uint32_t leaf, unsigned core_bits)
{
    uint32_t cores = (1u << core_bits) - 1;
    for (unsigned i = 0; i < table->count; i++) {
        struct cpuid_entry *entry = &table->entries[i];
        if (entry->leaf != leaf || !(entry->eax & 0x1f))
            continue;
        unsigned level = entry->eax >> 5 & 7;
        entry->eax &= 0x3fff;
        if (level >= 3)
            entry->eax |= (cores & 0xfff) << 14;
        if (leaf == 4)
            entry->eax |= MIN(cores, 63u) << 26;
    }
}

/* One socket, one thread a core, a core an APIC ID. */
static void fit_topology(struct cpuid_table *table, unsigned apic_id, unsigned vcpus)
{
    unsigned core_bits = bits_for(vcpus);
    struct cpuid_entry *one = cpuid_find(table, 1, 0);
    if (one) {
        one->ebx = (one->ebx & 0xffff) | MIN(1u << core_bits, 255u) << 16 | (apic_id & 0xff) << 24;
        if (vcpus > 1)
            one->edx |= 1u << 28;
        else
            one->edx &= ~(1u << 28);
    }
    fit_caches(table, 4, core_bits);
    fit_caches(table, 0x8000001d, core_bits);

    struct cpuid_entry *zero = cpuid_find(table, 0, 0);
    uint32_t max = zero ? zero->eax : 0;
    for (uint32_t leaf = 0xb; leaf <= 0x1f; leaf += 0x1f - 0xb) {
        remove_leaf(table, leaf);
        if (leaf > 0xb && max < leaf)
            continue;
        put_subleaf(table, leaf, 0, 0, 1, 0x100, apic_id);
        put_subleaf(table, leaf, 1, core_bits, vcpus, 0x201, apic_id);
        put_subleaf(table, leaf, 2, 0, 0, 2, apic_id);
    }
    struct cpuid_entry *size = cpuid_find(table, 0x80000008, 0);
    bool amd = zero && zero->ebx != 0x756e6547; /* "Genu" */
    if (size)
        size->ecx = amd ? core_bits << 12 | (vcpus - 1) : 0;
    struct cpuid_entry *ext = cpuid_find(table, 0x80000001, 0);
    if (ext && amd)
        ext->ecx = (ext->ecx & ~2u) | (vcpus > 1 ? 2 : 0);
    if (cpuid_find(table, 0x8000001e, 0)) {
        remove_leaf(table, 0x8000001e);
        put_leaf(table, 0x8000001e, apic_id, apic_id & 0xff, 0, 0);
    }
}

/*
 * tsc_khz as a fraction of the 1 GHz crystal, by continued fractions. Linux multiplies crystal kHz
 * by the numerator in 32 bits, so the numerator stays below 4294; the error is below 1 ppm.
 */
static void crystal_ratio(uint32_t tsc_khz, uint32_t *numerator, uint32_t *denominator)
{
    uint64_t n = tsc_khz, d = APIC_TIMER_KHZ;
    uint64_t p0 = 0, q0 = 1, p1 = 1, q1 = 0;
    while (d) {
        uint64_t a = n / d;
        uint64_t p2 = a * p1 + p0, q2 = a * q1 + q0;
        if (p2 > 4294)
            break;
        p0 = p1, q0 = q1, p1 = p2, q1 = q2;
        uint64_t rest = n % d;
        n = d, d = rest;
    }
    *numerator = (uint32_t)p1;
    *denominator = (uint32_t)q1;
}

static void put_timing(struct cpuid_table *table, uint32_t tsc_khz)
{
    if (!tsc_khz)
        return;
    uint32_t numerator, denominator;
    crystal_ratio(tsc_khz, &numerator, &denominator);
    if (denominator)
        put_leaf(table, 0x15, denominator, numerator, APIC_TIMER_KHZ * 1000, 0);
    uint32_t mhz = (tsc_khz + 500) / 1000;
    put_leaf(table, 0x16, mhz, mhz, 100, 0);
}

static void put_hypervisor(struct cpuid_table *table, const struct cpuid_table *supported,
                           uint32_t tsc_khz)
{
    static const char signature[12] = "KVMKVMKVM";
    struct cpuid_entry features;
    cpuid_query(supported, LEAF_KVM_FEATURES, 0, &features);
    put_leaf(table, LEAF_HYPERVISOR, LEAF_HYPERVISOR_TIMING, get_le32(signature),
             get_le32(signature + 4), get_le32(signature + 8));
    if (!cpuid_find(table, LEAF_KVM_FEATURES, 0))
        put_leaf(table, LEAF_KVM_FEATURES, features.eax, 0, 0, features.edx);
    put_leaf(table, LEAF_HYPERVISOR_TIMING, tsc_khz, APIC_TIMER_KHZ, 0, 0);
}

/* Another vendor's name. Leaves stay as they are; an engine does what that vendor's CPUs do. */
static struct err *put_vendor(struct cpuid_table *table, const char *vendor)
{
    static const uint32_t leaves[] = {0, LEAF_EXTENDED};

    if (!vendor)
        return NULL;
    if (strlen(vendor) != 12)
        return err_of(ERR_USAGE, "a vendor has 12 characters, such as AuthenticAMD; found '%s'",
                      vendor);
    for (size_t i = 0; i < ARRAY_SIZE(leaves); i++) {
        struct cpuid_entry *entry = cpuid_find(table, leaves[i], 0);
        /* The upper range repeats the name on AMD's CPUs and is silent on Intel's. */
        if (!entry || (leaves[i] && !entry->ebx))
            continue;
        entry->ebx = get_le32(vendor);
        entry->edx = get_le32(vendor + 4);
        entry->ecx = get_le32(vendor + 8);
    }
    return NULL;
}

/* Leaves 0 and 0x80000000 name the highest leaf of their range. */
static void fit_limits(struct cpuid_table *table)
{
    uint32_t basic = 0, extended = LEAF_EXTENDED;
    for (unsigned i = 0; i < table->count; i++) {
        uint32_t leaf = table->entries[i].leaf;
        if (leaf < LEAF_HYPERVISOR)
            basic = MAX(basic, leaf);
        else if (leaf >= LEAF_EXTENDED)
            extended = MAX(extended, leaf);
    }
    struct cpuid_entry *entry = cpuid_find(table, 0, 0);
    if (entry)
        entry->eax = basic;
    entry = cpuid_find(table, LEAF_EXTENDED, 0);
    if (entry)
        entry->eax = extended;
}

static struct err *model_level(const char *name, enum cpuid_level *level)
{
    if (!name || !strcmp(name, "host"))
        *level = CPUID_LEVEL_HOST;
    else if (!strcmp(name, "x86-64-v2"))
        *level = CPUID_LEVEL_V2;
    else if (!strcmp(name, "x86-64-v3"))
        *level = CPUID_LEVEL_V3;
    else
        return err_of(ERR_USAGE, "CPU model '%s' is not known; there are: host x86-64-v2 x86-64-v3",
                      name);
    return NULL;
}

/* A model promises its whole level: a host that lacks a part of it cannot run it. */
static struct err *require_level(const struct cpuid_table *supported, const char *name,
                                 enum cpuid_level level)
{
    if (level == CPUID_LEVEL_HOST)
        return NULL;
    for (size_t i = 0; i < cpuid_feature_count; i++) {
        const struct cpuid_feature *feature = &cpuid_features[i];
        if (feature->level < CPUID_LEVEL_V2 || feature->level > level || feature->leaf == 0xd)
            continue;
        if (!cpuid_has(supported, feature))
            return err_of(ERR_USAGE,
                          "CPU model '%s' needs feature '%s', which this engine and host lack; "
                          "choose model host",
                          name, feature->name);
    }
    return NULL;
}

struct err *cpuid_build(const struct cpuid_table *supported, const struct cpu_model *model,
                        unsigned apic_id, unsigned vcpus, uint32_t tsc_khz,
                        struct cpuid_table *table)
{
    enum cpuid_level level = CPUID_LEVEL_HOST;
    TRY(model_level(model->name, &level));
    TRY(require_level(supported, model->name, level));
    *table = *supported;
    if (level != CPUID_LEVEL_HOST)
        cut_to_level(table, level);
    TRY(apply_user_features(supported, model, table));
    cpuid_set(table, cpuid_feature_find("hypervisor"), true);
    drop_orphans(table);
    fit_xsave(table);
    put_timing(table, tsc_khz);
    fit_topology(table, apic_id, vcpus);
    put_hypervisor(table, supported, tsc_khz);
    fit_limits(table);
    return put_vendor(table, model->vendor);
}
