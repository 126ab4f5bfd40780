/*
 * The table of CPUID feature bits (Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E).
 *
 * No lock: constant data and pure functions.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/cpuid_features.h"

#include <string.h>

#define F(name, leaf, subleaf, reg, bit, level, needs)                                             \
    {                                                                                              \
        name, leaf, subleaf, CPUID_##reg, bit, CPUID_LEVEL_##level, needs                          \
    }

const struct cpuid_feature cpuid_features[] = {
    F("fpu", 1, 0, EDX, 0, BASE, NULL),
    F("vme", 1, 0, EDX, 1, BASE, NULL),
    F("de", 1, 0, EDX, 2, BASE, NULL),
    F("pse", 1, 0, EDX, 3, BASE, NULL),
    F("tsc", 1, 0, EDX, 4, BASE, NULL),
    F("msr", 1, 0, EDX, 5, BASE, NULL),
    F("pae", 1, 0, EDX, 6, BASE, NULL),
    F("mce", 1, 0, EDX, 7, BASE, NULL),
    F("cx8", 1, 0, EDX, 8, BASE, NULL),
    F("apic", 1, 0, EDX, 9, BASE, NULL),
    F("sep", 1, 0, EDX, 11, BASE, NULL),
    F("mtrr", 1, 0, EDX, 12, BASE, NULL),
    F("pge", 1, 0, EDX, 13, BASE, NULL),
    F("mca", 1, 0, EDX, 14, BASE, "mce"),
    F("cmov", 1, 0, EDX, 15, BASE, NULL),
    F("pat", 1, 0, EDX, 16, BASE, NULL),
    F("pse36", 1, 0, EDX, 17, BASE, NULL),
    F("clflush", 1, 0, EDX, 19, BASE, NULL),
    F("mmx", 1, 0, EDX, 23, BASE, "fpu"),
    F("fxsr", 1, 0, EDX, 24, BASE, "fpu"),
    F("sse", 1, 0, EDX, 25, BASE, "fxsr"),
    F("sse2", 1, 0, EDX, 26, BASE, "sse"),
    F("ss", 1, 0, EDX, 27, BASE, NULL),
    F("ht", 1, 0, EDX, 28, BASE, NULL),
    F("pni", 1, 0, ECX, 0, V2, "sse2"),
    F("pclmulqdq", 1, 0, ECX, 1, HOST, "sse2"),
    F("monitor", 1, 0, ECX, 3, HOST, NULL),
    F("vmx", 1, 0, ECX, 5, HOST, NULL),
    F("ssse3", 1, 0, ECX, 9, V2, "pni"),
    F("fma", 1, 0, ECX, 12, V3, "avx"),
    F("cx16", 1, 0, ECX, 13, V2, NULL),
    F("pdcm", 1, 0, ECX, 15, HOST, NULL),
    F("pcid", 1, 0, ECX, 17, BASE, NULL),
    F("sse4_1", 1, 0, ECX, 19, V2, "ssse3"),
    F("sse4_2", 1, 0, ECX, 20, V2, "sse4_1"),
    F("x2apic", 1, 0, ECX, 21, BASE, "apic"),
    F("movbe", 1, 0, ECX, 22, V3, NULL),
    F("popcnt", 1, 0, ECX, 23, V2, NULL),
    F("tsc_deadline_timer", 1, 0, ECX, 24, BASE, "apic"),
    F("aes", 1, 0, ECX, 25, HOST, "sse2"),
    F("xsave", 1, 0, ECX, 26, V3, "fxsr"),
    F("avx", 1, 0, ECX, 28, V3, "xsave"),
    F("f16c", 1, 0, ECX, 29, V3, "avx"),
    F("rdrand", 1, 0, ECX, 30, HOST, NULL),
    F("hypervisor", 1, 0, ECX, 31, BASE, NULL),
    F("arat", 6, 0, EAX, 2, BASE, "apic"),
    F("fsgsbase", 7, 0, EBX, 0, BASE, NULL),
    F("tsc_adjust", 7, 0, EBX, 1, BASE, "tsc"),
    F("sgx", 7, 0, EBX, 2, HOST, NULL),
    F("bmi1", 7, 0, EBX, 3, V3, "avx"),
    F("hle", 7, 0, EBX, 4, HOST, NULL),
    F("avx2", 7, 0, EBX, 5, V3, "avx"),
    F("smep", 7, 0, EBX, 7, BASE, NULL),
    F("bmi2", 7, 0, EBX, 8, V3, "avx"),
    F("erms", 7, 0, EBX, 9, BASE, NULL),
    F("invpcid", 7, 0, EBX, 10, BASE, "pcid"),
    F("rtm", 7, 0, EBX, 11, HOST, NULL),
    F("mpx", 7, 0, EBX, 14, HOST, "xsave"),
    F("avx512f", 7, 0, EBX, 16, HOST, "avx2"),
    F("avx512dq", 7, 0, EBX, 17, HOST, "avx512f"),
    F("rdseed", 7, 0, EBX, 18, HOST, NULL),
    F("adx", 7, 0, EBX, 19, HOST, NULL),
    F("smap", 7, 0, EBX, 20, BASE, NULL),
    F("avx512ifma", 7, 0, EBX, 21, HOST, "avx512f"),
    F("clflushopt", 7, 0, EBX, 23, HOST, NULL),
    F("clwb", 7, 0, EBX, 24, HOST, NULL),
    F("intel_pt", 7, 0, EBX, 25, HOST, NULL),
    F("avx512cd", 7, 0, EBX, 28, HOST, "avx512f"),
    F("sha_ni", 7, 0, EBX, 29, HOST, "sse2"),
    F("avx512bw", 7, 0, EBX, 30, HOST, "avx512f"),
    F("avx512vl", 7, 0, EBX, 31, HOST, "avx512f"),
    F("avx512vbmi", 7, 0, ECX, 1, HOST, "avx512bw"),
    F("umip", 7, 0, ECX, 2, BASE, NULL),
    F("pku", 7, 0, ECX, 3, HOST, "xsave"),
    F("waitpkg", 7, 0, ECX, 5, HOST, NULL),
    F("avx512_vbmi2", 7, 0, ECX, 6, HOST, "avx512bw"),
    F("shstk", 7, 0, ECX, 7, HOST, "xsaves"),
    F("gfni", 7, 0, ECX, 8, HOST, "sse2"),
    F("vaes", 7, 0, ECX, 9, HOST, "avx"),
    F("vpclmulqdq", 7, 0, ECX, 10, HOST, "avx"),
    F("avx512_vnni", 7, 0, ECX, 11, HOST, "avx512f"),
    F("avx512_bitalg", 7, 0, ECX, 12, HOST, "avx512bw"),
    F("avx512_vpopcntdq", 7, 0, ECX, 14, HOST, "avx512f"),
    F("la57", 7, 0, ECX, 16, HOST, NULL),
    F("rdpid", 7, 0, ECX, 22, HOST, NULL),
    F("bus_lock_detect", 7, 0, ECX, 24, HOST, NULL),
    F("cldemote", 7, 0, ECX, 25, HOST, NULL),
    F("movdiri", 7, 0, ECX, 27, HOST, NULL),
    F("movdir64b", 7, 0, ECX, 28, HOST, NULL),
    F("pks", 7, 0, ECX, 31, HOST, NULL),
    F("fsrm", 7, 0, EDX, 4, BASE, NULL),
    F("avx512_vp2intersect", 7, 0, EDX, 8, HOST, "avx512f"),
    F("md_clear", 7, 0, EDX, 10, HOST, NULL),
    F("serialize", 7, 0, EDX, 14, HOST, NULL),
    F("tsxldtrk", 7, 0, EDX, 16, HOST, "rtm"),
    F("ibt", 7, 0, EDX, 20, HOST, NULL),
    F("amx_bf16", 7, 0, EDX, 22, HOST, "amx_tile"),
    F("avx512_fp16", 7, 0, EDX, 23, HOST, "avx512bw"),
    F("amx_tile", 7, 0, EDX, 24, HOST, "xsave"),
    F("amx_int8", 7, 0, EDX, 25, HOST, "amx_tile"),
    F("spec_ctrl", 7, 0, EDX, 26, BASE, NULL),
    F("intel_stibp", 7, 0, EDX, 27, BASE, "spec_ctrl"),
    F("flush_l1d", 7, 0, EDX, 28, HOST, NULL),
    F("arch_capabilities", 7, 0, EDX, 29, BASE, NULL),
    F("spec_ctrl_ssbd", 7, 0, EDX, 31, BASE, NULL),
    F("avx_vnni", 7, 1, EAX, 4, HOST, "avx2"),
    F("avx512_bf16", 7, 1, EAX, 5, HOST, "avx512bw"),
    F("avx_ifma", 7, 1, EAX, 23, HOST, "avx2"),
    F("avx_vnni_int8", 7, 1, EDX, 4, HOST, "avx2"),
    F("avx_ne_convert", 7, 1, EDX, 5, HOST, "avx2"),
    F("bhi_ctrl", 7, 2, EDX, 4, BASE, "spec_ctrl"),
    F("xsaveopt", 0xd, 1, EAX, 0, V3, "xsave"),
    F("xsavec", 0xd, 1, EAX, 1, V3, "xsave"),
    F("xgetbv1", 0xd, 1, EAX, 2, V3, "xsave"),
    F("xsaves", 0xd, 1, EAX, 3, HOST, "xsavec"),
    F("syscall", 0x80000001, 0, EDX, 11, BASE, NULL),
    F("nx", 0x80000001, 0, EDX, 20, BASE, NULL),
    F("mmxext", 0x80000001, 0, EDX, 22, HOST, "mmx"),
    F("fxsr_opt", 0x80000001, 0, EDX, 25, HOST, "fxsr"),
    F("pdpe1gb", 0x80000001, 0, EDX, 26, BASE, NULL),
    F("rdtscp", 0x80000001, 0, EDX, 27, BASE, "tsc"),
    F("lm", 0x80000001, 0, EDX, 29, BASE, NULL),
    F("lahf_lm", 0x80000001, 0, ECX, 0, V2, NULL),
    F("svm", 0x80000001, 0, ECX, 2, HOST, NULL),
    F("cr8_legacy", 0x80000001, 0, ECX, 4, BASE, NULL),
    F("abm", 0x80000001, 0, ECX, 5, V3, NULL),
    F("sse4a", 0x80000001, 0, ECX, 6, HOST, "sse2"),
    F("misalignsse", 0x80000001, 0, ECX, 7, HOST, "sse"),
    F("3dnowprefetch", 0x80000001, 0, ECX, 8, BASE, NULL),
    F("osvw", 0x80000001, 0, ECX, 9, HOST, NULL),
    F("xop", 0x80000001, 0, ECX, 11, HOST, "avx"),
    F("fma4", 0x80000001, 0, ECX, 16, HOST, "avx"),
    F("tbm", 0x80000001, 0, ECX, 21, HOST, "avx"),
    F("topoext", 0x80000001, 0, ECX, 22, BASE, NULL),
    F("perfctr_core", 0x80000001, 0, ECX, 23, HOST, NULL),
    F("nonstop_tsc", 0x80000007, 0, EDX, 8, BASE, "tsc"),
    F("clzero", 0x80000008, 0, EBX, 0, HOST, NULL),
    F("xsaveerptr", 0x80000008, 0, EBX, 2, BASE, "xsave"),
    F("wbnoinvd", 0x80000008, 0, EBX, 9, HOST, NULL),
    F("amd_ibpb", 0x80000008, 0, EBX, 12, BASE, NULL),
    F("amd_ibrs", 0x80000008, 0, EBX, 14, BASE, NULL),
    F("amd_stibp", 0x80000008, 0, EBX, 15, BASE, NULL),
    F("amd_ssbd", 0x80000008, 0, EBX, 24, BASE, NULL),
    F("amd_ssb_no", 0x80000008, 0, EBX, 26, BASE, NULL),
    F("btc_no", 0x80000008, 0, EBX, 29, BASE, NULL),
    F("null_sel_clr_base", 0x80000021, 0, EAX, 6, BASE, NULL),
    F("autoibrs", 0x80000021, 0, EAX, 8, BASE, NULL),
    F("srso_no", 0x80000021, 0, EAX, 29, BASE, NULL),
    F("tsa_sq_no", 0x80000021, 0, ECX, 1, BASE, NULL),
    F("tsa_l1_no", 0x80000021, 0, ECX, 2, BASE, NULL),
    F("lfence_rdtsc", 0x80000021, 0, EAX, 2, BASE, NULL),
    F("kvmclock", 0x40000001, 0, EAX, 3, BASE, NULL),
    F("kvmclock_old", 0x40000001, 0, EAX, 0, BASE, NULL),
    F("kvm_nopiodelay", 0x40000001, 0, EAX, 1, BASE, NULL),
    F("kvm_asyncpf", 0x40000001, 0, EAX, 4, BASE, NULL),
    F("kvm_steal_time", 0x40000001, 0, EAX, 5, BASE, NULL),
    F("kvm_pv_eoi", 0x40000001, 0, EAX, 6, BASE, NULL),
    F("kvm_pv_unhalt", 0x40000001, 0, EAX, 7, BASE, NULL),
    F("kvm_pv_tlb_flush", 0x40000001, 0, EAX, 9, BASE, NULL),
    F("kvm_asyncpf_vmexit", 0x40000001, 0, EAX, 10, BASE, "kvm_asyncpf"),
    F("kvm_pv_ipi", 0x40000001, 0, EAX, 11, BASE, NULL),
    F("kvm_poll_control", 0x40000001, 0, EAX, 12, BASE, NULL),
    F("kvm_pv_sched_yield", 0x40000001, 0, EAX, 13, BASE, NULL),
    F("kvm_asyncpf_int", 0x40000001, 0, EAX, 14, BASE, "kvm_asyncpf"),
    F("kvm_msi_ext_dest_id", 0x40000001, 0, EAX, 15, BASE, NULL),
    F("kvmclock_stable", 0x40000001, 0, EAX, 24, BASE, "kvmclock"),
};
const size_t cpuid_feature_count = ARRAY_SIZE(cpuid_features);

#undef F

const struct cpuid_feature *cpuid_feature_find(const char *name)
{
    for (size_t i = 0; i < cpuid_feature_count; i++) {
        if (!strcmp(cpuid_features[i].name, name))
            return &cpuid_features[i];
    }
    return NULL;
}

uint32_t *cpuid_reg(struct cpuid_entry *entry, enum cpuid_register reg)
{
    switch (reg) {
    case CPUID_EAX:
        return &entry->eax;
    case CPUID_EBX:
        return &entry->ebx;
    case CPUID_ECX:
        return &entry->ecx;
    case CPUID_EDX:
        break;
    }
    return &entry->edx;
}

bool cpuid_has(const struct cpuid_table *table, const struct cpuid_feature *feature)
{
    struct cpuid_entry entry;
    cpuid_query(table, feature->leaf, feature->subleaf, &entry);
    return *cpuid_reg(&entry, feature->reg) >> feature->bit & 1;
}

void cpuid_set(struct cpuid_table *table, const struct cpuid_feature *feature, bool on)
{
    struct cpuid_entry *entry = cpuid_find(table, feature->leaf, feature->subleaf);
    if (!entry)
        return;
    if (on)
        *cpuid_reg(entry, feature->reg) |= 1u << feature->bit;
    else
        *cpuid_reg(entry, feature->reg) &= ~(1u << feature->bit);
}
