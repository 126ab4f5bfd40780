/*
 * The KVM engine: registers to and from struct x86_state (api.rst 4.11 and following).
 *
 * The vCPU is outside vcpu_run and its thread holds no half-done instruction; see vcpu.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "accel/kvm/kvm.h"

/* The order of enum x86_reg. */
static void gpr_get(const struct kvm_regs *from, uint64_t *gpr)
{
    const uint64_t list[16] = {from->rax, from->rcx, from->rdx, from->rbx, from->rsp, from->rbp,
                               from->rsi, from->rdi, from->r8,  from->r9,  from->r10, from->r11,
                               from->r12, from->r13, from->r14, from->r15};
    memcpy(gpr, list, sizeof(list));
}

static void gpr_set(struct kvm_regs *to, const uint64_t *gpr)
{
    uint64_t *list[16] = {
        (uint64_t *)&to->rax, (uint64_t *)&to->rcx, (uint64_t *)&to->rdx, (uint64_t *)&to->rbx,
        (uint64_t *)&to->rsp, (uint64_t *)&to->rbp, (uint64_t *)&to->rsi, (uint64_t *)&to->rdi,
        (uint64_t *)&to->r8,  (uint64_t *)&to->r9,  (uint64_t *)&to->r10, (uint64_t *)&to->r11,
        (uint64_t *)&to->r12, (uint64_t *)&to->r13, (uint64_t *)&to->r14, (uint64_t *)&to->r15};
    for (unsigned i = 0; i < 16; i++)
        *list[i] = gpr[i];
}

static void segment_get(const struct kvm_segment *from, struct x86_segment *to)
{
    to->base = from->base;
    to->limit = from->limit;
    to->selector = from->selector;
    to->attr = (from->type & X86_ATTR_TYPE) | (from->s ? X86_ATTR_S : 0) |
               (uint32_t)(from->dpl & 3) << X86_ATTR_DPL_SHIFT | (from->present ? X86_ATTR_P : 0) |
               (from->avl ? X86_ATTR_AVL : 0) | (from->l ? X86_ATTR_L : 0) |
               (from->db ? X86_ATTR_DB : 0) | (from->g ? X86_ATTR_G : 0) |
               (from->unusable ? X86_ATTR_UNUSABLE : 0);
}

static void segment_set(struct kvm_segment *to, const struct x86_segment *from)
{
    uint32_t attr = from->attr;
    *to = (struct kvm_segment){
        .base = from->base,
        .limit = from->limit,
        .selector = from->selector,
        .type = attr & X86_ATTR_TYPE,
        .s = !!(attr & X86_ATTR_S),
        .dpl = attr >> X86_ATTR_DPL_SHIFT & 3,
        .present = !!(attr & X86_ATTR_P),
        .avl = !!(attr & X86_ATTR_AVL),
        .l = !!(attr & X86_ATTR_L),
        .db = !!(attr & X86_ATTR_DB),
        .g = !!(attr & X86_ATTR_G),
        .unusable = !!(attr & X86_ATTR_UNUSABLE),
    };
}

static void sregs_get(const struct kvm_sregs *from, struct x86_state *state)
{
    const struct kvm_segment *list[X86_SEGS] = {&from->es, &from->cs, &from->ss,
                                                &from->ds, &from->fs, &from->gs};
    for (unsigned i = 0; i < X86_SEGS; i++)
        segment_get(list[i], &state->seg[i]);
    segment_get(&from->ldt, &state->ldt);
    segment_get(&from->tr, &state->tr);
    state->gdt = (struct x86_table_register){from->gdt.base, from->gdt.limit};
    state->idt = (struct x86_table_register){from->idt.base, from->idt.limit};
    state->cr0 = from->cr0;
    state->cr2 = from->cr2;
    state->cr3 = from->cr3;
    state->cr4 = from->cr4;
    state->cr8 = from->cr8;
    state->efer = from->efer;
    state->msr.apic_base = from->apic_base;
}

static void sregs_set(struct kvm_sregs *to, const struct x86_state *state)
{
    struct kvm_segment *list[X86_SEGS] = {&to->es, &to->cs, &to->ss, &to->ds, &to->fs, &to->gs};
    for (unsigned i = 0; i < X86_SEGS; i++)
        segment_set(list[i], &state->seg[i]);
    segment_set(&to->ldt, &state->ldt);
    segment_set(&to->tr, &state->tr);
    to->gdt = (struct kvm_dtable){.base = state->gdt.base, .limit = state->gdt.limit};
    to->idt = (struct kvm_dtable){.base = state->idt.base, .limit = state->idt.limit};
    to->cr0 = state->cr0;
    to->cr2 = state->cr2;
    to->cr3 = state->cr3;
    to->cr4 = state->cr4;
    to->cr8 = state->cr8;
    to->efer = state->efer;
    to->apic_base = state->msr.apic_base;
    /* interrupt_bitmap stays empty: struct kvm_vcpu_events carries the injected interrupt. */
}

static void events_get(const struct kvm_vcpu_events *from, struct x86_state *state)
{
    state->interrupt_shadow = from->interrupt.shadow;
    state->nmi_pending = from->nmi.pending || from->nmi.injected;
    state->nmi_masked = from->nmi.masked;
    state->exception_pending = from->exception.injected || from->exception.pending;
    state->exception_vector = from->exception.nr;
    state->exception_has_error = from->exception.has_error_code;
    state->exception_error = from->exception.error_code;
    /* A software interrupt (int n) is executed again from its instruction. */
    state->interrupt_injected = from->interrupt.injected && !from->interrupt.soft;
    state->interrupt_vector = from->interrupt.nr;
    state->sipi_vector = from->sipi_vector;
}

static void events_set(struct kvm_vcpu_events *to, const struct x86_state *state)
{
    to->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
    to->interrupt.shadow =
        state->interrupt_shadow ? KVM_X86_SHADOW_INT_STI | KVM_X86_SHADOW_INT_MOV_SS : 0;
    to->interrupt.injected = state->interrupt_injected;
    to->interrupt.nr = state->interrupt_vector;
    to->nmi.pending = state->nmi_pending;
    to->nmi.masked = state->nmi_masked;
    to->exception.injected = state->exception_pending;
    to->exception.nr = state->exception_vector;
    to->exception.has_error_code = state->exception_has_error;
    to->exception.error_code = state->exception_error;
    if (state->activity == X86_WAIT_SIPI) {
        to->flags |= KVM_VCPUEVENT_VALID_SIPI_VECTOR;
        to->sipi_vector = state->sipi_vector;
    }
}

static uint8_t activity_of(uint32_t mp_state)
{
    switch (mp_state) {
    case KVM_MP_STATE_HALTED:
        return X86_HALTED;
    case KVM_MP_STATE_UNINITIALIZED:
        return X86_WAIT_INIT;
    case KVM_MP_STATE_INIT_RECEIVED:
        return X86_WAIT_SIPI;
    default:
        return X86_ACTIVE;
    }
}

static uint32_t mp_state_of(uint8_t activity)
{
    switch (activity) {
    case X86_HALTED:
        return KVM_MP_STATE_HALTED;
    case X86_WAIT_INIT:
        return KVM_MP_STATE_UNINITIALIZED;
    case X86_WAIT_SIPI:
        return KVM_MP_STATE_INIT_RECEIVED;
    default:
        return KVM_MP_STATE_RUNNABLE;
    }
}

/* Everything that KVM_RUN's neighbours move, in one place, so that get and set stay short. */
struct bundle {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_xcrs xcrs;
    struct kvm_xsave xsave;
    struct kvm_lapic_state lapic;
    struct kvm_mp_state mp;
    struct kvm_vcpu_events events;
    struct kvm_debugregs debug;
};

struct call {
    unsigned long request;
    const char *name;
    size_t offset;
};

#define CALL(request, member)                                                                      \
    {                                                                                              \
        request, #request, offsetof(struct bundle, member)                                         \
    }

static struct err *make_calls(struct accel_vcpu *vcpu, const struct call *calls, size_t count,
                              struct bundle *bundle)
{
    for (size_t i = 0; i < count; i++) {
        int rc = kvm_call(vcpu->fd, calls[i].request, (uint8_t *)bundle + calls[i].offset);
        if (rc < 0)
            return err_errno(rc, "kvm: %s of CPU %u", calls[i].name, vcpu->index);
    }
    return NULL;
}

struct err *kvm_vcpu_get(struct accel_vcpu *vcpu, struct x86_state *state)
{
    /* The activity first: reading it makes KVM act on an INIT or SIPI that waits. */
    static const struct call calls[] = {
        CALL(KVM_GET_MP_STATE, mp),        CALL(KVM_GET_REGS, regs),
        CALL(KVM_GET_SREGS, sregs),        CALL(KVM_GET_XCRS, xcrs),
        CALL(KVM_GET_XSAVE, xsave),        CALL(KVM_GET_LAPIC, lapic),
        CALL(KVM_GET_VCPU_EVENTS, events), CALL(KVM_GET_DEBUGREGS, debug),
    };
    scoped(free_cleanup) struct bundle *bundle = xcalloc(1, sizeof(*bundle));
    TRY(make_calls(vcpu, calls, ARRAY_SIZE(calls), bundle));

    memset(state, 0, sizeof(*state));
    gpr_get(&bundle->regs, state->gpr);
    state->rip = bundle->regs.rip;
    state->rflags = bundle->regs.rflags;
    sregs_get(&bundle->sregs, state);
    for (unsigned i = 0; i < bundle->xcrs.nr_xcrs && i < KVM_MAX_XCRS; i++)
        if (bundle->xcrs.xcrs[i].xcr == 0)
            state->xcr0 = bundle->xcrs.xcrs[i].value;
    _Static_assert(sizeof(bundle->xsave) == X86_XSAVE_SIZE, "XSAVE area");
    _Static_assert(sizeof(bundle->lapic) == sizeof(state->lapic), "LAPIC page");
    memcpy(state->xsave, &bundle->xsave, X86_XSAVE_SIZE);
    memcpy(state->lapic, &bundle->lapic, sizeof(state->lapic));
    state->activity = activity_of(bundle->mp.mp_state);
    events_get(&bundle->events, state);
    memcpy(state->dr, bundle->debug.db, sizeof(bundle->debug.db));
    state->dr[6] = bundle->debug.dr6;
    state->dr[7] = bundle->debug.dr7;
    return kvm_msrs_get(vcpu, &state->msr);
}

struct err *kvm_vcpu_set(struct accel_vcpu *vcpu, const struct x86_state *state)
{
    /* XCR0 before the XSAVE area, which must be legal under it; the LAPIC after its base. */
    static const struct call before_msrs[] = {
        CALL(KVM_SET_REGS, regs),
        CALL(KVM_SET_SREGS, sregs),
        CALL(KVM_SET_XCRS, xcrs),
        CALL(KVM_SET_XSAVE, xsave),
    };
    static const struct call after_msrs[] = {
        CALL(KVM_SET_LAPIC, lapic),
        CALL(KVM_SET_MP_STATE, mp),
        CALL(KVM_SET_VCPU_EVENTS, events),
        CALL(KVM_SET_DEBUGREGS, debug),
    };
    scoped(free_cleanup) struct bundle *bundle = xcalloc(1, sizeof(*bundle));

    gpr_set(&bundle->regs, state->gpr);
    bundle->regs.rip = state->rip;
    bundle->regs.rflags = state->rflags;
    sregs_set(&bundle->sregs, state);
    bundle->xcrs = (struct kvm_xcrs){.nr_xcrs = 1, .xcrs[0] = {.xcr = 0, .value = state->xcr0}};
    memcpy(&bundle->xsave, state->xsave, X86_XSAVE_SIZE);
    memcpy(&bundle->lapic, state->lapic, sizeof(state->lapic));
    bundle->mp.mp_state = mp_state_of(state->activity);
    events_set(&bundle->events, state);
    memcpy(bundle->debug.db, state->dr, sizeof(bundle->debug.db));
    bundle->debug.dr6 = state->dr[6];
    bundle->debug.dr7 = state->dr[7];

    TRY(make_calls(vcpu, before_msrs, ARRAY_SIZE(before_msrs), bundle));
    TRY(kvm_msrs_set(vcpu, &state->msr));
    TRY(make_calls(vcpu, after_msrs, ARRAY_SIZE(after_msrs), bundle));
    return kvm_msrs_set_deadline(vcpu, &state->msr);
}
