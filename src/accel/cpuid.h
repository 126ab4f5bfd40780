/*
 * CPUID tables and CPU models (Intel SDM vol. 2 CPUID; AMD APM vol. 3 appendix E; Linux
 * Documentation/virt/kvm/x86/cpuid.rst for the leaves at 0x40000000).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_CPUID_H
#define TENON_ACCEL_CPUID_H

#include "base/base.h"
#include "base/err.h"

#define CPUID_ENTRIES_MAX 128

struct cpuid_entry {
    uint32_t leaf, subleaf;
    bool subleaf_matters; /* false: answers every subleaf */
    uint32_t eax, ebx, ecx, edx;
};

struct cpuid_table {
    unsigned count;
    struct cpuid_entry entries[CPUID_ENTRIES_MAX];
};

struct cpuid_entry *cpuid_find(struct cpuid_table *table, uint32_t leaf, uint32_t subleaf);
/* Adds the entry, or replaces the one of the same leaf and subleaf. */
void cpuid_put(struct cpuid_table *table, const struct cpuid_entry *entry);
/* What CPUID returns for any leaf: out-of-range leaves answer zero. */
void cpuid_query(const struct cpuid_table *table, uint32_t leaf, uint32_t subleaf,
                 struct cpuid_entry *answer);

/* What the user chose. */
struct cpu_model {
    const char *name;       /* "host", "x86-64-v2", "x86-64-v3"; NULL is "host" */
    const char *const *add; /* feature names ("avx2"), NULL-terminated; NULL: none */
    const char *const *remove;
    const char *vendor; /* 12 characters, "AuthenticAMD"; NULL: the host's */
};

/*
 * Builds the table of vCPU `apic_id` out of `vcpus`: `supported` cut to the model, with topology
 * leaves (one socket, one thread a core), the hypervisor leaves (KVM signature) and the TSC
 * frequency. An unknown feature name, or one that the engine lacks, is an error that lists what
 * there is.
 */
struct err *cpuid_build(const struct cpuid_table *supported, const struct cpu_model *model,
                        unsigned apic_id, unsigned vcpus, uint32_t tsc_khz,
                        struct cpuid_table *table);

#endif
