/*
 * Names of CPUID feature bits, as Linux prints them in /proc/cpuinfo, and what each belongs to.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_CPUID_FEATURES_H
#define TENON_ACCEL_CPUID_FEATURES_H

#include "accel/cpuid.h"

enum cpuid_register { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

/* The smallest CPU model that has a feature (x86-64 psABI, micro-architecture levels). */
enum cpuid_level {
    CPUID_LEVEL_BASE = 1, /* every 64-bit CPU, and system features that only a kernel sees */
    CPUID_LEVEL_V2 = 2,
    CPUID_LEVEL_V3 = 3,
    CPUID_LEVEL_HOST = 9,
};

struct cpuid_feature {
    const char *name;
    uint32_t leaf;
    uint8_t subleaf;
    uint8_t reg; /* enum cpuid_register */
    uint8_t bit;
    uint8_t level;     /* enum cpuid_level */
    const char *needs; /* cannot exist without this other feature; NULL: stands alone */
};

extern const struct cpuid_feature cpuid_features[];
extern const size_t cpuid_feature_count;

/* NULL when there is no such name. */
const struct cpuid_feature *cpuid_feature_find(const char *name);

uint32_t *cpuid_reg(struct cpuid_entry *entry, enum cpuid_register reg);
bool cpuid_has(const struct cpuid_table *table, const struct cpuid_feature *feature);
/* Turning on in a table without that leaf does nothing. */
void cpuid_set(struct cpuid_table *table, const struct cpuid_feature *feature, bool on);

#endif
