/*
 * Model-specific registers of the software engine (Intel SDM vol. 4; AMD APM vol. 2, appendix A;
 * Linux Documentation/virt/kvm/x86/msr.rst). An unknown register is #GP, as on a CPU.
 *
 * Registers that only hold a value are rows of a table: where they live, which bits exist, which
 * CPUID feature brings them. Those that do something are in the two switches. The vCPU's thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/cpuid_features.h"
#include "accel/soft/apic/lapic.h"
#include "accel/soft/apic/tsc.h"

enum {
    MSR_TSC = 0x10,
    MSR_KVM_WALL_OLD = 0x11,
    MSR_KVM_TIME_OLD = 0x12,
    MSR_APIC_BASE = 0x1b,
    MSR_TSC_ADJUST = 0x3b,
    MSR_SPEC_CTRL = 0x48,
    MSR_PRED_CMD = 0x49,
    MSR_UCODE_REV = 0x8b,
    MSR_MTRR_CAP = 0xfe,
    MSR_ARCH_CAPABILITIES = 0x10a,
    MSR_MCG_CAP = 0x179,
    MSR_MTRR_PHYS_BASE0 = 0x200,
    MSR_MTRR_PHYS_MASK7 = 0x20f,
    MSR_PAT = 0x277,
    MSR_MTRR_DEF_TYPE = 0x2ff,
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_X2APIC = 0x800,
    MSR_X2APIC_END = 0x8ff,
};
#define MSR_EFER 0xc0000080u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KVM_WALL_CLOCK 0x4b564d00u
#define MSR_KVM_SYSTEM_TIME 0x4b564d01u

/*
 * Nothing is speculated here, so no guest needs a mitigation: RDCL_NO, IBRS_ALL (so that a kernel
 * takes the cheap choice for Spectre v2), SKIP_L1DFL, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO,
 * SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO.
 */
#define ARCH_CAPABILITIES                                                                          \
    (1ull << 0 | 1ull << 1 | 1ull << 3 | 1ull << 4 | 1ull << 5 | 1ull << 6 | 1ull << 8 |           \
     1ull << 13 | 1ull << 14 | 1ull << 15 | 1ull << 20 | 1ull << 24 | 1ull << 26 | 1ull << 27 |    \
     1ull << 62)

/*
 * IBRS, STIBP, SSBD, BHI_DIS_S: kept and without effect. The last is there because kernels take
 * BHI_NO with a grain of salt under a hypervisor, and would clear branch history at every system
 * call.
 */
#define SPEC_CTRL_BITS 0x407

/* MTRRcap: 8 variable ranges, fixed ranges, write combining. */
#define MTRR_CAP 0x508

enum row_kind {
    ROW_PLAIN,     /* any value within `mask` */
    ROW_CANONICAL, /* an address */
    ROW_FIXED,     /* reads as `mask`; a write is ignored */
    ROW_CONST,     /* reads as `mask`; a write is #GP */
    ROW_MTRR,      /* eight memory types */
};

struct row {
    uint32_t first, last;
    enum row_kind kind;
    uint16_t offset; /* in struct x86_msrs */
    uint64_t mask;
    const char *feature; /* NULL: always there */
};

#define AT(member) offsetof(struct x86_msrs, member)
#define ALL UINT64_MAX

/* Every CPU that calls itself AMD has it, whatever CPUID says. */
static const char amd_only[] = "amd";

static const struct row rows[] = {
    {0xc0000081, 0xc0000081, ROW_PLAIN, AT(star), ALL, NULL},
    {0xc0000082, 0xc0000082, ROW_CANONICAL, AT(lstar), ALL, NULL},
    {0xc0000083, 0xc0000083, ROW_CANONICAL, AT(cstar), ALL, NULL},
    {0xc0000084, 0xc0000084, ROW_PLAIN, AT(sfmask), ALL, NULL},
    {0xc0000102, 0xc0000102, ROW_CANONICAL, AT(kernel_gs_base), ALL, NULL},
    {0xc0000103, 0xc0000103, ROW_PLAIN, AT(tsc_aux), 0xffffffff, NULL},
    {0x174, 0x174, ROW_PLAIN, AT(sysenter_cs), ALL, "sep"},
    {0x175, 0x175, ROW_CANONICAL, AT(sysenter_esp), ALL, "sep"},
    {0x176, 0x176, ROW_CANONICAL, AT(sysenter_eip), ALL, "sep"},
    {0x1a0, 0x1a0, ROW_PLAIN, AT(misc_enable), 0x400ffffffull, NULL},
    {MSR_SPEC_CTRL, MSR_SPEC_CTRL, ROW_PLAIN, AT(spec_ctrl), SPEC_CTRL_BITS, "spec_ctrl"},
    {MSR_ARCH_CAPABILITIES, MSR_ARCH_CAPABILITIES, ROW_CONST, 0, ARCH_CAPABILITIES,
     "arch_capabilities"},
    {0x250, 0x250, ROW_MTRR, AT(mtrr_fixed[0]), ALL, "mtrr"},
    {0x258, 0x259, ROW_MTRR, AT(mtrr_fixed[1]), ALL, "mtrr"},
    {0x268, 0x26f, ROW_MTRR, AT(mtrr_fixed[3]), ALL, "mtrr"},
    {MSR_MTRR_CAP, MSR_MTRR_CAP, ROW_CONST, 0, MTRR_CAP, "mtrr"},
    {0x17a, 0x17a, ROW_PLAIN, AT(mcg_status), 7, "mca"},
    {MSR_MCG_CAP, MSR_MCG_CAP, ROW_CONST, 0, 0, "mca"}, /* no banks */
    {0x0, 0x1, ROW_FIXED, 0, 0, "mce"},                 /* P5 machine check */
    {0x17, 0x17, ROW_CONST, 0, 0, NULL},                /* PLATFORM_ID */
    {0x3a, 0x3a, ROW_CONST, 0, 1, NULL},                /* FEATURE_CONTROL: locked, nothing on */
    {0x2a, 0x2a, ROW_FIXED, 0, 0, NULL},                /* EBL_CR_POWERON */
    {0x79, 0x79, ROW_FIXED, 0, 0, NULL},                /* microcode update trigger */
    {0x1d9, 0x1d9, ROW_FIXED, 0, 0, NULL},              /* DEBUGCTL: no branch records */
    {0x1db, 0x1de, ROW_FIXED, 0, 0, NULL},              /* last branch and interrupt */
    /* AMD: SYSCFG, HWCR, TOP_MEM.., NB_CFG, interrupt pending, MMIO base, LS/DC/DE/BU configuration
     */
    {0xc0010000, 0xc0010007, ROW_FIXED, 0, 0, amd_only}, /* K7 performance counters: never count */
    {0xc0010010, 0xc0010010, ROW_FIXED, 0, 0, "topoext"},
    {0xc0010015, 0xc0010015, ROW_FIXED, 0, 1ull << 24, "topoext"}, /* TSC counts at P0 */
    {0xc001001a, 0xc001001f, ROW_FIXED, 0, 0, "topoext"},
    {0xc0010055, 0xc0010055, ROW_FIXED, 0, 0, "topoext"},
    {0xc0010058, 0xc0010058, ROW_FIXED, 0, 0, "topoext"},
    {0xc0011020, 0xc0011023, ROW_FIXED, 0, 0, "topoext"},
    {0xc0011029, 0xc001102a, ROW_FIXED, 0, 2, "topoext"}, /* DE_CFG: LFENCE serialises */
};

static bool guest_has(const struct soft_vcpu *v, const char *name)
{
    if (name == amd_only)
        return v->amd;
    return !name || cpuid_has(&v->cpuid, cpuid_feature_find(name));
}

/* Asked at every timer tick: no search for names. */
static bool has_deadline(const struct soft_vcpu *v)
{
    struct cpuid_entry one;
    cpuid_query(&v->cpuid, 1, 0, &one);
    return one.ecx >> 24 & 1;
}

static const struct row *find_row(const struct soft_vcpu *v, uint32_t index)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        if (index >= rows[i].first && index <= rows[i].last)
            return guest_has(v, rows[i].feature) ? &rows[i] : NULL;
    }
    return NULL;
}

static uint64_t *row_value(struct soft_vcpu *v, const struct row *row, uint32_t index)
{
    return (uint64_t *)(void *)((char *)&v->msr + row->offset) + (index - row->first);
}

/* Memory types that MTRRs know; PAT has one more, uncached minus. */
static bool memory_types(uint64_t value, bool pat)
{
    for (unsigned i = 0; i < 8; i++, value >>= 8) {
        unsigned type = value & 0xff;
        if (type > 7 || type == 2 || type == 3 || (type == 7 && !pat))
            return false;
    }
    return true;
}

static bool row_write(struct soft_vcpu *v, const struct row *row, uint32_t index, uint64_t value)
{
    switch (row->kind) {
    case ROW_CONST:
        return false;
    case ROW_FIXED:
        return true;
    case ROW_PLAIN:
        if (value & ~row->mask)
            return false;
        break;
    case ROW_CANONICAL:
        if (!soft_canonical(value))
            return false;
        break;
    case ROW_MTRR:
        if (!memory_types(value, false))
            return false;
        break;
    }
    *row_value(v, row, index) = value;
    return true;
}

static bool write_efer(struct soft_vcpu *v, uint64_t value)
{
    uint64_t known = EFER_SCE | EFER_LMA;
    known |= guest_has(v, "lm") ? EFER_LME : 0;
    known |= guest_has(v, "nx") ? EFER_NXE : 0;
    if (value & ~known || ((value ^ v->efer) & EFER_LME && v->cr0 & CR0_PG))
        return false;
    value = (value & ~(uint64_t)EFER_LMA) | (v->efer & EFER_LMA);
    bool mapping = (value ^ v->efer) & EFER_NXE;
    v->efer = value;
    if (mapping)
        soft_tlb_flush(v);
    soft_mode_changed(v);
    return true;
}

static bool write_apic_base(struct soft_vcpu *v, uint64_t value)
{
    if (value & APIC_BASE_X2 && !guest_has(v, "x2apic"))
        return false;
    if (!lapic_set_apic_base(v->lapic, value, v->phys_mask))
        return false;
    v->msr.apic_base = lapic_apic_base(v->lapic);
    soft_tlb_flush(v); /* the register page moved, or is RAM now */
    return true;
}

static bool write_mtrr_variable(struct soft_vcpu *v, uint32_t index, uint64_t value)
{
    unsigned range = (index - MSR_MTRR_PHYS_BASE0) / 2;
    bool mask = index & 1;
    uint64_t usable = (v->phys_mask & ~0xfffull) | (mask ? 0x800 : 0xff);
    if (value & ~usable)
        return false;
    if (mask)
        v->msr.mtrr_mask[range] = value;
    else if (memory_types((value & 0xff) * 0x0101010101010101ull, false))
        v->msr.mtrr_base[range] = value;
    else
        return false;
    return true;
}

static bool write_mtrr_default(struct soft_vcpu *v, uint64_t value)
{
    if (value & ~0xcffull || !memory_types((value & 0xff) * 0x0101010101010101ull, false))
        return false;
    v->msr.mtrr_def_type = value;
    return true;
}

static bool write_pat(struct soft_vcpu *v, uint64_t value)
{
    if (!memory_types(value, true))
        return false;
    v->msr.pat = value;
    return true;
}

static bool write_base(struct soft_vcpu *v, unsigned seg, uint64_t value)
{
    if (!soft_canonical(value))
        return false;
    soft_seg_base(v, seg, value);
    return true;
}

bool soft_wrmsr(struct soft_vcpu *v, uint32_t index, uint64_t value)
{
    switch (index) {
    case MSR_TSC_DEADLINE:
        if (!has_deadline(v))
            return false;
        lapic_set_tsc_deadline(v->lapic, value);
        return true;
    case MSR_X2APIC ... MSR_X2APIC_END:
        return lapic_msr_write(v->lapic, index, value);
    case MSR_FS_BASE:
        return write_base(v, X86_FS, value);
    case MSR_GS_BASE:
        return write_base(v, X86_GS, value);
    case MSR_EFER:
        return write_efer(v, value);
    case MSR_TSC:
        soft_tsc_guest_write(v, value);
        return true;
    case MSR_TSC_ADJUST:
        if (!guest_has(v, "tsc_adjust"))
            return false;
        soft_tsc_adjust_write(v, value);
        return true;
    case MSR_APIC_BASE:
        return write_apic_base(v, value);
    case MSR_PRED_CMD:
        return guest_has(v, "spec_ctrl") && !(value & ~1ull);
    case MSR_UCODE_REV:
        return true; /* part of the ritual that reads the revision */
    case MSR_PAT:
        return write_pat(v, value);
    case MSR_MTRR_PHYS_BASE0 ... MSR_MTRR_PHYS_MASK7:
        return write_mtrr_variable(v, index, value);
    case MSR_MTRR_DEF_TYPE:
        return write_mtrr_default(v, value);
    case MSR_KVM_WALL_OLD:
        return guest_has(v, "kvmclock_old") && kvmclock_set_wall_clock(v, value);
    case MSR_KVM_WALL_CLOCK:
        return guest_has(v, "kvmclock") && kvmclock_set_wall_clock(v, value);
    case MSR_KVM_TIME_OLD:
        return guest_has(v, "kvmclock_old") && kvmclock_set_system_time(v, value);
    case MSR_KVM_SYSTEM_TIME:
        return guest_has(v, "kvmclock") && kvmclock_set_system_time(v, value);
    }
    const struct row *row = find_row(v, index);
    return row && row_write(v, row, index, value);
}

/* The revision sits in the high half, on Intel CPUs. */
static uint64_t microcode_revision(const struct soft_vcpu *v)
{
    return guest_has(v, "topoext") ? 0x01000065 : 1ull << 32;
}

bool soft_rdmsr(struct soft_vcpu *v, uint32_t index, uint64_t *value)
{
    switch (index) {
    case MSR_TSC_DEADLINE:
        *value = lapic_tsc_deadline(v->lapic);
        return has_deadline(v);
    case MSR_X2APIC ... MSR_X2APIC_END:
        return lapic_msr_read(v->lapic, index, value);
    case MSR_FS_BASE:
        *value = v->seg[X86_FS].base;
        return true;
    case MSR_GS_BASE:
        *value = v->seg[X86_GS].base;
        return true;
    case MSR_EFER:
        *value = v->efer;
        return true;
    case MSR_TSC:
        *value = soft_tsc(v);
        return true;
    case MSR_TSC_ADJUST:
        *value = v->msr.tsc_adjust;
        return guest_has(v, "tsc_adjust");
    case MSR_APIC_BASE:
        *value = lapic_apic_base(v->lapic);
        return true;
    case MSR_UCODE_REV:
        *value = microcode_revision(v);
        return true;
    case MSR_PAT:
        *value = v->msr.pat;
        return true;
    case MSR_MTRR_PHYS_BASE0 ... MSR_MTRR_PHYS_MASK7:
        *value = index & 1 ? v->msr.mtrr_mask[(index - MSR_MTRR_PHYS_BASE0) / 2]
                           : v->msr.mtrr_base[(index - MSR_MTRR_PHYS_BASE0) / 2];
        return true;
    case MSR_MTRR_DEF_TYPE:
        *value = v->msr.mtrr_def_type;
        return true;
    case MSR_KVM_WALL_OLD:
    case MSR_KVM_WALL_CLOCK:
        *value = v->msr.kvm_wall_clock;
        return guest_has(v, index == MSR_KVM_WALL_OLD ? "kvmclock_old" : "kvmclock");
    case MSR_KVM_TIME_OLD:
    case MSR_KVM_SYSTEM_TIME:
        *value = v->msr.kvm_system_time;
        return guest_has(v, index == MSR_KVM_TIME_OLD ? "kvmclock_old" : "kvmclock");
    }
    const struct row *row = find_row(v, index);
    if (!row)
        return false;
    *value =
        row->kind == ROW_FIXED || row->kind == ROW_CONST ? row->mask : *row_value(v, row, index);
    return true;
}
