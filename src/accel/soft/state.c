/*
 * The whole state of a vCPU: power-on, INIT, and exchange with struct x86_state.
 *
 * The vCPU is outside vcpu_run, or it is the vCPU's own thread that took an INIT.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>

#include "accel/soft/run.h"
#include "accel/soft/simd/simd.h"
#include "accel/soft/system/segment.h"

struct err *soft_vcpu_get(struct accel_vcpu *vcpu, struct x86_state *s)
{
    struct soft_vcpu *v = (struct soft_vcpu *)vcpu;
    memset(s, 0, sizeof(*s));
    memcpy(s->gpr, v->r, sizeof(s->gpr));
    s->rip = v->rip;
    s->rflags = soft_flags(v);
    memcpy(s->seg, v->seg, sizeof(s->seg));
    s->ldt = v->ldt;
    s->tr = v->tr;
    s->gdt = v->gdt;
    s->idt = v->idt;
    s->cr0 = v->cr0;
    s->cr2 = v->cr2;
    s->cr3 = v->cr3;
    s->cr4 = v->cr4;
    s->cr8 = lapic_cr8(v->lapic);
    s->efer = v->efer;
    s->xcr0 = v->xcr0;
    memcpy(s->dr, v->dr, sizeof(s->dr));
    soft_xstate_get(v, s->xsave);
    lapic_get(v->lapic, s->lapic); /* updates v->msr.apic_base and tsc_deadline */
    s->msr = v->msr;
    s->msr.tsc = soft_tsc(v);
    uint32_t events = atomic_load(&v->events);
    s->activity = v->activity;
    s->sipi_vector = atomic_load(&v->sipi_vector);
    s->interrupt_shadow = v->shadow;
    s->nmi_pending = v->nmi_pending || events & EV_NMI;
    s->nmi_masked = v->nmi_masked;
    s->exception_pending = v->exc_pending;
    s->exception_vector = v->exc_vector;
    s->exception_has_error = v->exc_has_error;
    s->exception_error = v->exc_error;
    s->interrupt_injected = v->inject_vector >= 0;
    s->interrupt_vector = v->inject_vector >= 0 ? v->inject_vector : 0;
    return NULL;
}

static unsigned cpl_of(const struct x86_state *s)
{
    if (!(s->cr0 & CR0_PE))
        return 0;
    if (s->rflags & FL_VM)
        return 3;
    return seg_dpl(&s->seg[X86_SS]) | ((s->seg[X86_CS].selector & 3) == 3 ? 3 : 0);
}

static void load_core(struct soft_vcpu *v, const struct x86_state *s)
{
    memcpy(v->r, s->gpr, sizeof(s->gpr));
    v->r[R_ZERO] = 0;
    v->rip = s->rip;
    memcpy(v->seg, s->seg, sizeof(v->seg));
    v->ldt = s->ldt;
    v->tr = s->tr;
    v->gdt = s->gdt;
    v->idt = s->idt;
    v->cr0 = s->cr0;
    v->cr2 = s->cr2;
    v->cr3 = s->cr3;
    v->cr4 = s->cr4;
    v->efer = s->efer;
    v->xcr0 = s->xcr0;
    memcpy(v->dr, s->dr, sizeof(v->dr));
    soft_set_flags(v, s->rflags);
    v->cpl = cpl_of(s);
    v->shadow = s->interrupt_shadow ? SHADOW_STI : 0;
    v->debug_pending = 0;
    soft_debug_changed(v);
    v->delivering = -1;
    v->delivering_ext = v->external = false;
}

struct err *soft_vcpu_set(struct accel_vcpu *vcpu, const struct x86_state *s)
{
    struct soft_vcpu *v = (struct soft_vcpu *)vcpu;
    load_core(v, s);
    v->msr = s->msr;
    soft_xstate_set(v, s->xsave);
    soft_tsc_set(v, s->msr.tsc);
    lapic_set(v->lapic, s->lapic);
    lapic_set_cr8(v->lapic, s->cr8);
    v->activity = s->activity;
    atomic_store(&v->sipi_vector, s->sipi_vector);
    v->nmi_pending = s->nmi_pending;
    v->nmi_masked = s->nmi_masked;
    v->exc_pending = s->exception_pending;
    v->exc_vector = s->exception_vector;
    v->exc_has_error = s->exception_has_error;
    v->exc_error = s->exception_error;
    v->inject_vector = s->interrupt_injected ? s->interrupt_vector : -1;
    v->intr_maybe = true;
    soft_code_flush(v);
    soft_tlb_flush(v);
    soft_mode_changed(v);
    return NULL;
}

void soft_reset_cpu(struct soft_vcpu *v, bool init)
{
    struct x86_state *s = xcalloc(1, sizeof(*s));
    x86_state_reset(s, v->index, v->index == 0);
    struct cpuid_entry leaf1;
    cpuid_query(&v->cpuid, 1, 0, &leaf1);
    if (leaf1.eax)
        s->gpr[X86_RDX] = leaf1.eax;
    load_core(v, s);
    v->activity = s->activity;
    v->nmi_pending = 0;
    v->nmi_masked = false;
    v->exc_pending = false;
    v->inject_vector = -1;
    v->intr_maybe = true;
    if (init) {
        lapic_reset(v->lapic, true);
    } else {
        v->msr = s->msr;
        atomic_store(&v->events, 0);
        soft_xstate_reset(v);
        lapic_reset(v->lapic, false);
        soft_tsc_set(v, 0);
    }
    soft_tlb_flush(v);
    soft_mode_changed(v);
    free(s);
}

void soft_vcpu_reset(struct accel_vcpu *vcpu)
{
    struct soft_vcpu *v = (struct soft_vcpu *)vcpu;
    soft_reset_cpu(v, false);
    soft_code_flush(v);
}
