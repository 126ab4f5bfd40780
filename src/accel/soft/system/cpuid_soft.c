/*
 * CPUID of the software engine: what it executes, and what the instruction answers.
 *
 * User-level extensions run natively, one instruction at a time, so they are the host's, up to what
 * the decoder and the XSAVE image know. System features are the engine's own and do not depend on
 * the host. Everything else is absent. (Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E.)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <cpuid.h>

#include "accel/cpuid_features.h"
#include "accel/soft/apic/lapic.h"
#include "accel/soft/soft.h"

#define BIT(n) (1u << (n))
#define SIG_AUTH 0x68747541u /* "Auth"enticAMD */
#define SIG_HYGO 0x6f677948u /* "Hygo"nGenuine */

/* A word of feature bits: those passed from the host, and those that the engine itself provides. */
struct word {
    uint32_t leaf, subleaf;
    enum cpuid_register reg;
    uint32_t host, own;
};

static const struct word words[] = {
    /* mmx fxsr sse sse2 cmov clflush fpu */
    {1, 0, CPUID_EDX, BIT(0) | BIT(15) | BIT(19) | BIT(23) | BIT(24) | BIT(25) | BIT(26),
     /* de pse tsc msr pae mce cx8 apic sep mtrr pge mca pat pse36 */
     BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(9) | BIT(11) | BIT(12) |
         BIT(13) | BIT(14) | BIT(16) | BIT(17)},
    /* pni pclmulqdq ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes xsave avx f16c rdrand */
    {1, 0, CPUID_ECX,
     BIT(0) | BIT(1) | BIT(9) | BIT(12) | BIT(13) | BIT(19) | BIT(20) | BIT(22) | BIT(23) |
         BIT(25) | BIT(26) | BIT(28) | BIT(29) | BIT(30),
     /* pcid x2apic tsc_deadline_timer hypervisor */
     BIT(17) | BIT(21) | BIT(24) | BIT(31)},
    {6, 0, CPUID_EAX, 0, BIT(2)}, /* arat */
    /* bmi1 avx2 fdp_excptn_only bmi2 zero_fcs_fds rdseed adx clflushopt clwb sha_ni */
    {7, 0, CPUID_EBX,
     BIT(3) | BIT(5) | BIT(6) | BIT(8) | BIT(13) | BIT(18) | BIT(19) | BIT(23) | BIT(24) | BIT(29),
     /* fsgsbase tsc_adjust smep erms invpcid */
     BIT(0) | BIT(1) | BIT(7) | BIT(9) | BIT(10)},
    /* gfni vaes vpclmulqdq */
    {7, 0, CPUID_ECX, BIT(8) | BIT(9) | BIT(10), BIT(22)}, /* rdpid */
    /* fsrm serialize spec_ctrl arch_capabilities */
    {7, 0, CPUID_EDX, 0, BIT(4) | BIT(14) | BIT(26) | BIT(29)},
    {7, 1, CPUID_EAX, BIT(4), 0},                     /* avx_vnni */
    {7, 2, CPUID_EDX, 0, BIT(4)},                     /* bhi_ctrl */
    {0xd, 1, CPUID_EAX, BIT(0) | BIT(1) | BIT(2), 0}, /* xsaveopt xsavec xgetbv1 */
    /* syscall nx pdpe1gb rdtscp lm */
    {0x80000001, 0, CPUID_EDX, 0, BIT(11) | BIT(20) | BIT(26) | BIT(27) | BIT(29)},
    /* lahf_lm 3dnowprefetch, and the host's abm */
    {0x80000001, 0, CPUID_ECX, BIT(5), BIT(0) | BIT(8)},
    {0x80000007, 0, CPUID_EDX, 0, BIT(8)}, /* nonstop_tsc */
    /* kvmclock_old kvm_nopiodelay kvmclock kvmclock_stable */
    {0x40000001, 0, CPUID_EAX, 0, BIT(0) | BIT(1) | BIT(3) | BIT(24)},
};

/* By the first word of the vendor's name. */
static bool is_amd(uint32_t ebx)
{
    return ebx == SIG_AUTH || ebx == SIG_HYGO;
}

static void host_cpuid(uint32_t leaf, uint32_t subleaf, struct cpuid_entry *entry)
{
    *entry = (struct cpuid_entry){.leaf = leaf, .subleaf = subleaf};
    __cpuid_count(leaf, subleaf, entry->eax, entry->ebx, entry->ecx, entry->edx);
}

/* Copies a leaf that describes and does not promise: names, caches. */
static void copy_leaf(struct cpuid_table *table, uint32_t max, uint32_t leaf)
{
    struct cpuid_entry entry;
    if (leaf > max)
        return;
    host_cpuid(leaf, 0, &entry);
    cpuid_put(table, &entry);
}

static void copy_caches(struct cpuid_table *table, uint32_t max, uint32_t leaf)
{
    if (leaf > max)
        return;
    for (uint32_t subleaf = 0; subleaf < 8; subleaf++) {
        struct cpuid_entry entry;
        host_cpuid(leaf, subleaf, &entry);
        entry.subleaf_matters = true;
        cpuid_put(table, &entry);
        if (!(entry.eax & 0x1f))
            break;
    }
}

static void put_words(struct cpuid_table *table, uint32_t max, uint32_t max_extended)
{
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        const struct word *word = &words[i];
        uint32_t limit = word->leaf >= 0x80000000 ? max_extended : max;
        struct cpuid_entry host = {0}, *entry = cpuid_find(table, word->leaf, word->subleaf);
        if (word->host && word->leaf <= limit)
            host_cpuid(word->leaf, word->subleaf, &host);
        if (!entry) {
            struct cpuid_entry fresh = {.leaf = word->leaf,
                                        .subleaf = word->subleaf,
                                        .subleaf_matters = word->leaf == 7 || word->leaf == 0xd};
            cpuid_put(table, &fresh);
            entry = cpuid_find(table, word->leaf, word->subleaf);
        }
        *cpuid_reg(entry, word->reg) = (*cpuid_reg(&host, word->reg) & word->host) | word->own;
    }
}

/* XSAVE: x87, SSE and AVX, at the places where every CPU has them. */
static void put_xsave(struct cpuid_table *table)
{
    bool avx = cpuid_has(table, cpuid_feature_find("avx"));
    uint32_t size = avx ? 832 : 576;
    cpuid_put(
        table,
        &(struct cpuid_entry){
            .leaf = 0xd, .subleaf_matters = true, .eax = avx ? 7 : 3, .ebx = 576, .ecx = size});
    if (avx)
        cpuid_put(table,
                  &(struct cpuid_entry){
                      .leaf = 0xd, .subleaf = 2, .subleaf_matters = true, .eax = 256, .ebx = 576});
}

static void put_sizes(struct cpuid_table *table, uint32_t max_extended, bool amd)
{
    struct cpuid_entry host = {.eax = 40};
    if (max_extended >= 0x80000008)
        host_cpuid(0x80000008, 0, &host);
    uint32_t physical = MIN(host.eax & 0xff, 48u);
    struct cpuid_entry sizes = {.leaf = 0x80000008, .eax = 48u << 8 | physical};
    if (amd)
        sizes.ebx = BIT(29); /* btc_no: the interpreter does not speculate */
    cpuid_put(table, &sizes);
    if (!amd)
        return;
    /* lfence_rdtsc null_sel_clr_base srso_no; tsa_sq_no tsa_l1_no */
    cpuid_put(table, &(struct cpuid_entry){.leaf = 0x80000021,
                                           .eax = BIT(2) | BIT(6) | BIT(29),
                                           .ecx = BIT(1) | BIT(2)});
    cpuid_put(table, &(struct cpuid_entry){.leaf = 0x8000001e});
    struct cpuid_entry *ext = cpuid_find(table, 0x80000001, 0);
    ext->ecx |= BIT(22); /* topoext */
    /* AMD repeats most of leaf 1 here. */
    ext->edx |= cpuid_find(table, 1, 0)->edx & 0x0183f3ff;
}

struct err *soft_cpuid_supported(struct accel_vm *vm, struct cpuid_table *table)
{
    struct cpuid_entry zero, one, extended, entry;
    table->count = 0;
    host_cpuid(0, 0, &zero);
    host_cpuid(0x80000000, 0, &extended);
    uint32_t max = zero.eax, max_extended = extended.eax;
    bool amd = is_amd(zero.ebx);
    cpuid_put(table, &zero);
    host_cpuid(1, 0, &one);
    one.ebx = 8u << 8; /* CLFLUSH line in 8 bytes; the rest is topology */
    one.ecx = one.edx = 0;
    cpuid_put(table, &one);
    if (!amd)
        copy_leaf(table, max, 2);
    copy_caches(table, amd ? 0 : max, 4);
    cpuid_put(table, &extended);
    host_cpuid(0x80000001, 0, &entry);
    entry.ecx = entry.edx = 0;
    if (!amd)
        entry.eax = entry.ebx = 0;
    cpuid_put(table, &entry);
    for (uint32_t leaf = 0x80000002; leaf <= 0x80000006; leaf++)
        copy_leaf(table, max_extended, leaf);
    put_words(table, max, max_extended);
    put_sizes(table, max_extended, amd);
    if (amd)
        copy_caches(table, max_extended, 0x8000001d);
    if (cpuid_has(table, cpuid_feature_find("xsave")))
        put_xsave(table);
    cpuid_find(table, 7, 0)->eax = 2; /* highest subleaf */
    return NULL;
}

static uint32_t xsave_size(uint64_t xcr0)
{
    return xcr0 & 4 ? 832 : 576;
}

void soft_cpuid(struct soft_vcpu *v, uint32_t leaf, uint32_t subleaf, struct cpuid_entry *answer)
{
    cpuid_query(&v->cpuid, leaf, subleaf, answer);
    switch (leaf) {
    case 1:
        answer->ecx &= ~BIT(27);
        if (v->cr4 & CR4_OSXSAVE)
            answer->ecx |= BIT(27);
        if (!(lapic_apic_base(v->lapic) & APIC_BASE_ENABLE))
            answer->edx &= ~BIT(9);
        break;
    case 0xb:
    case 0x1f:
        if (!answer->ecx && cpuid_find(&v->cpuid, leaf, 0)) {
            answer->ecx = subleaf & 0xff;
            answer->edx = v->index;
        }
        break;
    case 0xd:
        if (subleaf == 0 && answer->eax)
            answer->ebx = xsave_size(v->xcr0);
        else if (subleaf == 1 && answer->eax & BIT(1))
            answer->ebx = xsave_size(v->xcr0);
        break;
    }
}

/* Which CPUID feature each feature of the decoder is. */
static const struct {
    enum insn_feature feature;
    const char *name;
} feature_names[] = {
    {FEAT_X87, "fpu"},
    {FEAT_MMX, "mmx"},
    {FEAT_SSE, "sse"},
    {FEAT_SSE2, "sse2"},
    {FEAT_SSE3, "pni"},
    {FEAT_SSSE3, "ssse3"},
    {FEAT_SSE41, "sse4_1"},
    {FEAT_SSE42, "sse4_2"},
    {FEAT_AES, "aes"},
    {FEAT_PCLMUL, "pclmulqdq"},
    {FEAT_SHA, "sha_ni"},
    {FEAT_GFNI, "gfni"},
    {FEAT_AVX, "avx"},
    {FEAT_AVX2, "avx2"},
    {FEAT_FMA, "fma"},
    {FEAT_F16C, "f16c"},
    {FEAT_VAES, "vaes"},
    {FEAT_VPCLMUL, "vpclmulqdq"},
    {FEAT_AVX_VNNI, "avx_vnni"},
    {FEAT_FXSR, "fxsr"},
    {FEAT_XSAVE, "xsave"},
    {FEAT_XSAVEOPT, "xsaveopt"},
    {FEAT_XSAVEC, "xsavec"},
    {FEAT_XSAVES, "xsaves"},
    {FEAT_CX8, "cx8"},
    {FEAT_CX16, "cx16"},
    {FEAT_CMOV, "cmov"},
    {FEAT_MOVBE, "movbe"},
    {FEAT_POPCNT, "popcnt"},
    {FEAT_LZCNT, "abm"},
    {FEAT_BMI1, "bmi1"},
    {FEAT_BMI2, "bmi2"},
    {FEAT_ADX, "adx"},
    {FEAT_RDRAND, "rdrand"},
    {FEAT_RDSEED, "rdseed"},
    {FEAT_RDTSCP, "rdtscp"},
    {FEAT_RDPID, "rdpid"},
    {FEAT_FSGSBASE, "fsgsbase"},
    {FEAT_INVPCID, "invpcid"},
    {FEAT_CLFLUSH, "clflush"},
    {FEAT_CLFLUSHOPT, "clflushopt"},
    {FEAT_CLWB, "clwb"},
    {FEAT_SMAP, "smap"},
    {FEAT_SYSCALL, "syscall"},
    {FEAT_SEP, "sep"},
    {FEAT_LAHF64, "lahf_lm"},
    {FEAT_PREFETCHW, "3dnowprefetch"},
    {FEAT_SERIALIZE, "serialize"},
    {FEAT_MOVDIRI, "movdiri"},
};

void soft_cpuid_apply(struct soft_vcpu *v)
{
    v->features = 1ull << FEAT_NONE;
    for (size_t i = 0; i < ARRAY_SIZE(feature_names); i++) {
        if (cpuid_has(&v->cpuid, cpuid_feature_find(feature_names[i].name)))
            v->features |= 1ull << feature_names[i].feature;
    }
    struct cpuid_entry sizes, name;
    cpuid_query(&v->cpuid, 0, 0, &name);
    v->amd = is_amd(name.ebx);
    cpuid_query(&v->cpuid, 0x80000008, 0, &sizes);
    unsigned bits = sizes.eax & 0xff;
    if (bits < 32 || bits > 52)
        bits = 36;
    v->phys_mask = (1ull << bits) - 1;
}
