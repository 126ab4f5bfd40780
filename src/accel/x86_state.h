/*
 * Architectural state of one x86-64 vCPU, the same for every engine, so that a snapshot taken under
 * one runs under another.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_X86_STATE_H
#define TENON_ACCEL_X86_STATE_H

#include "base/base.h"
#include "state/state.h"

enum x86_reg {
    X86_RAX,
    X86_RCX,
    X86_RDX,
    X86_RBX,
    X86_RSP,
    X86_RBP,
    X86_RSI,
    X86_RDI,
    X86_R8,
    X86_R9,
    X86_R10,
    X86_R11,
    X86_R12,
    X86_R13,
    X86_R14,
    X86_R15,
};

enum x86_seg { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_SEGS };

/* Attributes as bits 8..23 of the descriptor's high half hold them (VMX "access rights"). */
#define X86_ATTR_TYPE 0xfu
#define X86_ATTR_S (1u << 4)
#define X86_ATTR_DPL_SHIFT 5
#define X86_ATTR_P (1u << 7)
#define X86_ATTR_AVL (1u << 12)
#define X86_ATTR_L (1u << 13)
#define X86_ATTR_DB (1u << 14)
#define X86_ATTR_G (1u << 15)
#define X86_ATTR_UNUSABLE (1u << 16)

struct x86_segment {
    uint64_t base;
    uint32_t limit; /* in bytes, granularity applied */
    uint32_t attr;
    uint16_t selector;
};

struct x86_table_register {
    uint64_t base;
    uint16_t limit;
};

/* Is the vCPU running, halted, or waiting for INIT or SIPI? */
enum x86_activity { X86_ACTIVE, X86_HALTED, X86_WAIT_INIT, X86_WAIT_SIPI };

/* Model-specific registers, each with its own field so that tables and dumps can name it. */
struct x86_msrs {
    uint64_t tsc; /* value at the moment of vcpu_get */
    uint64_t tsc_adjust, tsc_aux, tsc_deadline;
    uint64_t apic_base;
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, misc_enable, spec_ctrl, xss;
    uint64_t mtrr_def_type;
    uint64_t mtrr_fixed[11];
    uint64_t mtrr_base[8], mtrr_mask[8];
    uint64_t kvm_system_time, kvm_wall_clock, kvm_async_pf, kvm_steal_time, kvm_pv_eoi;
    uint64_t mcg_status, mcg_ctl;
};

#define X86_XSAVE_SIZE 4096

struct x86_state {
    uint64_t gpr[16]; /* by enum x86_reg */
    uint64_t rip, rflags;
    struct x86_segment seg[X86_SEGS], ldt, tr;
    struct x86_table_register gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, xcr0;
    uint64_t dr[8]; /* 4 and 5 unused */
    struct x86_msrs msr;
    uint8_t xsave[X86_XSAVE_SIZE]; /* standard (not compacted) XSAVE format */
    /* Register page, a 32-bit register each 16 bytes; the ID is in bits 31:24 in x2APIC mode too.
     */
    uint8_t lapic[1024];
    uint8_t activity; /* enum x86_activity */
    uint8_t sipi_vector;
    bool interrupt_shadow; /* after sti or mov ss */
    bool nmi_pending, nmi_masked;
    bool exception_pending; /* to be injected */
    uint8_t exception_vector;
    bool exception_has_error;
    uint32_t exception_error;
    bool interrupt_injected; /* acknowledged, delivery not finished */
    uint8_t interrupt_vector;
};

/* Describes all of it; `check` refuses what no CPU can hold. */
extern const struct state_table x86_state_table;

/* The state after power-on or reset (Intel SDM vol. 3, table 10-1), for the BSP or an AP. */
void x86_state_reset(struct x86_state *state, unsigned apic_id, bool bsp);

#endif
