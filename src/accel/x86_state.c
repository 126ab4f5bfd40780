/*
 * Architectural vCPU state: its description for save and restore, what of it is refused, and its
 * values after reset (Intel SDM vol. 3, table 10-1; 11.4.7.1 for the local APIC).
 *
 * No lock: the state belongs to its caller.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/x86_state.h"

#include <string.h>

#include "base/bytes.h"

static const struct state_field segment_fields[] = {
    STATE_U64(1, x86_segment, base),
    STATE_U32(2, x86_segment, limit),
    STATE_U32(3, x86_segment, attr),
    STATE_U16(4, x86_segment, selector),
};

static const struct state_table segment_table = {
    .name = "x86-segment",
    .version = 1,
    .min_version = 1,
    .size = sizeof(struct x86_segment),
    .fields = segment_fields,
    .field_count = ARRAY_SIZE(segment_fields),
};

static const struct state_field table_register_fields[] = {
    STATE_U64(1, x86_table_register, base),
    STATE_U16(2, x86_table_register, limit),
};

static const struct state_table table_register_table = {
    .name = "x86-table-register",
    .version = 1,
    .min_version = 1,
    .size = sizeof(struct x86_table_register),
    .fields = table_register_fields,
    .field_count = ARRAY_SIZE(table_register_fields),
};

static const struct state_field msr_fields[] = {
    STATE_U64(1, x86_msrs, tsc),
    STATE_U64(2, x86_msrs, tsc_adjust),
    STATE_U64(3, x86_msrs, tsc_aux),
    STATE_U64(4, x86_msrs, tsc_deadline),
    STATE_U64(5, x86_msrs, apic_base),
    STATE_U64(6, x86_msrs, star),
    STATE_U64(7, x86_msrs, lstar),
    STATE_U64(8, x86_msrs, cstar),
    STATE_U64(9, x86_msrs, sfmask),
    STATE_U64(10, x86_msrs, kernel_gs_base),
    STATE_U64(11, x86_msrs, sysenter_cs),
    STATE_U64(12, x86_msrs, sysenter_esp),
    STATE_U64(13, x86_msrs, sysenter_eip),
    STATE_U64(14, x86_msrs, pat),
    STATE_U64(15, x86_msrs, misc_enable),
    STATE_U64(16, x86_msrs, spec_ctrl),
    STATE_U64(17, x86_msrs, xss),
    STATE_U64(18, x86_msrs, mtrr_def_type),
    STATE_U64(19, x86_msrs, mtrr_fixed),
    STATE_U64(20, x86_msrs, mtrr_base),
    STATE_U64(21, x86_msrs, mtrr_mask),
    STATE_U64(22, x86_msrs, kvm_system_time),
    STATE_U64(23, x86_msrs, kvm_wall_clock),
    STATE_U64(24, x86_msrs, kvm_async_pf),
    STATE_U64(25, x86_msrs, kvm_steal_time),
    STATE_U64(26, x86_msrs, kvm_pv_eoi),
    STATE_U64(27, x86_msrs, mcg_status),
    STATE_U64(28, x86_msrs, mcg_ctl),
};

static const struct state_table msr_table = {
    .name = "x86-msrs",
    .version = 1,
    .min_version = 1,
    .size = sizeof(struct x86_msrs),
    .fields = msr_fields,
    .field_count = ARRAY_SIZE(msr_fields),
};

static const struct state_field state_fields[] = {
    STATE_U64(1, x86_state, gpr),
    STATE_U64(2, x86_state, rip),
    STATE_U64(3, x86_state, rflags),
    STATE_STRUCT(4, x86_state, seg, &segment_table),
    STATE_STRUCT(5, x86_state, ldt, &segment_table),
    STATE_STRUCT(6, x86_state, tr, &segment_table),
    STATE_STRUCT(7, x86_state, gdt, &table_register_table),
    STATE_STRUCT(8, x86_state, idt, &table_register_table),
    STATE_U64(9, x86_state, cr0),
    STATE_U64(10, x86_state, cr2),
    STATE_U64(11, x86_state, cr3),
    STATE_U64(12, x86_state, cr4),
    STATE_U64(13, x86_state, cr8),
    STATE_U64(14, x86_state, efer),
    STATE_U64(15, x86_state, xcr0),
    STATE_U64(16, x86_state, dr),
    STATE_STRUCT(17, x86_state, msr, &msr_table),
    STATE_BYTES(18, x86_state, xsave),
    STATE_BYTES(19, x86_state, lapic),
    STATE_U8(20, x86_state, activity),
    STATE_U8(21, x86_state, sipi_vector),
    STATE_BOOL(22, x86_state, interrupt_shadow),
    STATE_BOOL(23, x86_state, nmi_pending),
    STATE_BOOL(24, x86_state, nmi_masked),
    STATE_BOOL(25, x86_state, exception_pending),
    STATE_U8(26, x86_state, exception_vector),
    STATE_BOOL(27, x86_state, exception_has_error),
    STATE_U32(28, x86_state, exception_error),
    STATE_BOOL(29, x86_state, interrupt_injected),
    STATE_U8(30, x86_state, interrupt_vector),
};

#define CR0_PE (1ull << 0)
#define CR0_ET (1ull << 4)
#define CR0_NW (1ull << 29)
#define CR0_CD (1ull << 30)
#define CR0_PG (1ull << 31)
#define CR4_PAE (1ull << 5)
#define EFER_LME (1ull << 8)
#define EFER_LMA (1ull << 10)
#define APIC_BASE_X2 (1ull << 10)
#define APIC_BASE_EN (1ull << 11)
#define RFLAGS_FIXED (1ull << 1)
#define RFLAGS_KNOWN 0x3f7fd7ull
/* x87, SSE, AVX, MPX, AVX-512, PKRU */
#define XSAVE_COMPONENTS 0x2ffull

static bool canonical57(uint64_t address)
{
    return (uint64_t)((int64_t)(address << 7) >> 7) == address;
}

static struct err *check_control(const struct x86_state *s)
{
    if ((s->cr0 & CR0_PG && !(s->cr0 & CR0_PE)) || (s->cr0 & CR0_NW && !(s->cr0 & CR0_CD)) ||
        s->cr0 >> 32)
        return err_new("CR0 %#llx is not possible", (unsigned long long)s->cr0);
    if (s->cr4 >> 32)
        return err_new("CR4 %#llx is not possible", (unsigned long long)s->cr4);
    if (s->cr8 > 15)
        return err_new("CR8 %#llx is not possible", (unsigned long long)s->cr8);
    bool lma = s->cr0 & CR0_PG && s->efer & EFER_LME;
    if (!!(s->efer & EFER_LMA) != lma || (lma && !(s->cr4 & CR4_PAE)))
        return err_new("EFER %#llx does not go with CR0 and CR4", (unsigned long long)s->efer);
    if (!(s->rflags & RFLAGS_FIXED) || s->rflags & ~RFLAGS_KNOWN)
        return err_new("RFLAGS %#llx is not possible", (unsigned long long)s->rflags);
    if (!(s->xcr0 & 1) || (s->xcr0 & 4 && !(s->xcr0 & 2)))
        return err_new("XCR0 %#llx is not possible", (unsigned long long)s->xcr0);
    if (s->dr[6] >> 32 || s->dr[7] >> 32)
        return err_new("DR6 or DR7 has bits above 31");
    return NULL;
}

static struct err *check_addresses(const struct x86_state *s)
{
    const struct x86_msrs *m = &s->msr;
    const uint64_t addresses[] = {
        s->gdt.base,
        s->idt.base,
        s->ldt.base,
        s->tr.base,
        m->lstar,
        m->cstar,
        m->kernel_gs_base,
        m->sysenter_esp,
        m->sysenter_eip,
        s->seg[X86_FS].base,
        s->seg[X86_GS].base,
    };
    for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
        if (!canonical57(addresses[i]))
            return err_new("address %#llx is not canonical", (unsigned long long)addresses[i]);
    }
    for (unsigned i = 0; i < X86_SEGS; i++) {
        if (s->seg[i].attr & ~0x1f0ffu)
            return err_new("segment %u has attributes %#x", i, s->seg[i].attr);
    }
    if ((s->ldt.attr | s->tr.attr) & ~0x1f0ffu)
        return err_new("LDT or task register has unknown attributes");
    return NULL;
}

static struct err *check_xsave(const struct x86_state *s)
{
    uint64_t present = get_le64(s->xsave + 512);
    /* Components may hold state while XCR0 has them off, but must be ones that fit the image. */
    if (present & ~XSAVE_COMPONENTS || get_le64(s->xsave + 520))
        return err_new("XSAVE header has components %#llx, or is compacted",
                       (unsigned long long)present);
    for (unsigned i = 528; i < 576; i += 8) {
        if (get_le64(s->xsave + i))
            return err_new("XSAVE header has reserved bits set");
    }
    if (get_le32(s->xsave + 24) & ~0x3ffffu)
        return err_new("MXCSR %#x is not possible", get_le32(s->xsave + 24));
    return NULL;
}

static struct err *check_msrs(const struct x86_msrs *m)
{
    if ((m->apic_base & (APIC_BASE_X2 | APIC_BASE_EN)) == APIC_BASE_X2 || m->apic_base >> 52)
        return err_new("IA32_APIC_BASE %#llx is not possible", (unsigned long long)m->apic_base);
    for (unsigned i = 0; i < 8; i++) {
        unsigned type = m->pat >> (8 * i) & 0xff;
        if (type > 7 || type == 2 || type == 3)
            return err_new("IA32_PAT has memory type %u", type);
    }
    return NULL;
}

static struct err *state_check(const void *staged)
{
    const struct x86_state *s = staged;
    TRY(check_control(s));
    TRY(check_addresses(s));
    TRY(check_xsave(s));
    TRY(check_msrs(&s->msr));
    if (s->activity > X86_WAIT_SIPI)
        return err_new("activity %u is not known", s->activity);
    if (s->exception_pending && (s->exception_vector > 31 || s->exception_vector == 2))
        return err_new("pending exception has vector %u", s->exception_vector);
    if (s->interrupt_injected && s->interrupt_vector < 16)
        return err_new("injected interrupt has vector %u", s->interrupt_vector);
    return NULL;
}

const struct state_table x86_state_table = {
    .name = "x86-cpu",
    .version = 1,
    .min_version = 1,
    .size = sizeof(struct x86_state),
    .fields = state_fields,
    .field_count = ARRAY_SIZE(state_fields),
    .check = state_check,
};

static void reset_lapic(struct x86_state *s, unsigned apic_id, bool bsp)
{
    static const uint16_t lvts[] = {0x320, 0x330, 0x340, 0x350, 0x360, 0x370};
    put_le32(s->lapic + 0x20, (uint32_t)apic_id << 24);
    put_le32(s->lapic + 0x30, 0x00050014); /* version 0x14, LVT entries 0 to 5 */
    put_le32(s->lapic + 0xe0, 0xffffffff);
    put_le32(s->lapic + 0xf0, 0xff);
    for (size_t i = 0; i < ARRAY_SIZE(lvts); i++)
        put_le32(s->lapic + lvts[i], 0x10000);
    /* The BSP's LINT0 passes the PIC through, as firmware leaves it: a direct boot has no firmware.
     */
    if (bsp)
        put_le32(s->lapic + 0x350, 0x700);
}

void x86_state_reset(struct x86_state *s, unsigned apic_id, bool bsp)
{
    memset(s, 0, sizeof(*s));
    s->gpr[X86_RDX] = 0x600; /* family 6; an engine that knows the signature puts it here */
    s->rip = 0xfff0;
    s->rflags = RFLAGS_FIXED;
    for (unsigned i = 0; i < X86_SEGS; i++)
        s->seg[i] = (struct x86_segment){.limit = 0xffff, .attr = X86_ATTR_P | X86_ATTR_S | 3};
    s->seg[X86_CS].selector = 0xf000;
    s->seg[X86_CS].base = 0xffff0000;
    s->seg[X86_CS].attr = X86_ATTR_P | X86_ATTR_S | 0xb;
    s->ldt = (struct x86_segment){.limit = 0xffff, .attr = X86_ATTR_P | 2};
    s->tr = (struct x86_segment){.limit = 0xffff, .attr = X86_ATTR_P | 0xb};
    s->gdt.limit = s->idt.limit = 0xffff;
    s->cr0 = CR0_CD | CR0_NW | CR0_ET;
    s->xcr0 = 1;
    s->dr[6] = 0xffff0ff0;
    s->dr[7] = 0x400;
    s->msr.apic_base = 0xfee00000 | APIC_BASE_EN | (bsp ? 1u << 8 : 0);
    s->msr.pat = 0x0007040600070406ull;
    s->msr.misc_enable = 0x1801; /* fast strings; no branch trace store, no PEBS */
    put_le16(s->xsave, 0x40);    /* FCW */
    s->xsave[4] = 0xff;          /* no register is empty: tags are "zero" after power-on */
    put_le32(s->xsave + 24, 0x1f80);
    put_le32(s->xsave + 28, 0xffff);
    put_le64(s->xsave + 512, 1); /* x87 is not in its XSAVE initial configuration */
    reset_lapic(s, apic_id, bsp);
    s->activity = bsp ? X86_ACTIVE : X86_WAIT_SIPI;
}
