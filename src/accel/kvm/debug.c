/*
 * The KVM engine: a debugger outside the guest (api.rst 4.87 KVM_SET_GUEST_DEBUG). Points use the
 * processor's debug registers, which KVM then keeps apart from the guest's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>

#include "accel/kvm/kvm.h"

/* Intel SDM vol. 3, 18.2. */
#define DR6_POINTS 0xfu
#define DR7_FIXED 0x400u
#define DR7_GLOBAL(i) (2ull << (2 * (i)))
#define DR7_FIELD(i, bits) ((uint64_t)(bits) << (16 + 4 * (i)))

#define VECTOR_BP 3

static uint64_t dr7_of(const struct accel_debug *debug)
{
    static const uint8_t kinds[] = {
        [ACCEL_DEBUG_EXEC] = 0, [ACCEL_DEBUG_WRITE] = 1, [ACCEL_DEBUG_ACCESS] = 3};
    uint64_t dr7 = DR7_FIXED;

    for (unsigned i = 0; i < debug->count; i++) {
        const struct accel_debug_point *point = &debug->point[i];
        unsigned length = point->size == 8 ? 2 : point->size - 1;
        if (point->kind == ACCEL_DEBUG_EXEC)
            length = 0;
        dr7 |= DR7_GLOBAL(i) | DR7_FIELD(i, kinds[point->kind] | length << 2);
    }
    return dr7;
}

/* The INT3 at rip, as the exception that it is. KVM finds the instruction's end by itself. */
static struct err *pass_int3(struct accel_vcpu *vcpu)
{
    struct kvm_vcpu_events events;
    int rc = kvm_call(vcpu->fd, KVM_GET_VCPU_EVENTS, &events);

    if (rc == 0) {
        events.exception.injected = 1;
        events.exception.nr = VECTOR_BP;
        events.exception.has_error_code = 0;
        rc = kvm_call(vcpu->fd, KVM_SET_VCPU_EVENTS, &events);
    }
    return rc < 0 ? err_errno(rc, "kvm: CPU %u: its own INT3", vcpu->index) : NULL;
}

struct err *kvm_vcpu_debug(struct accel_vcpu *vcpu, const struct accel_debug *debug)
{
    struct kvm_guest_debug wish = {0};
    int known = kvm_call_number(vcpu->vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SET_GUEST_DEBUG2);

    if (debug->on)
        wish.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
    if (debug->step)
        wish.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP |
                        (known > 0 ? known & KVM_GUESTDBG_BLOCKIRQ : 0);
    if (debug->count) {
        wish.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        wish.arch.debugreg[7] = dr7_of(debug);
        for (unsigned i = 0; i < debug->count; i++)
            wish.arch.debugreg[i] = debug->point[i].linear;
    }
    int rc = kvm_call(vcpu->fd, KVM_SET_GUEST_DEBUG, &wish);
    if (rc < 0)
        return err_errno(rc, "kvm: CPU %u: KVM_SET_GUEST_DEBUG", vcpu->index);
    return debug->pass ? pass_int3(vcpu) : NULL;
}

void kvm_debug_exit(struct accel_vcpu *vcpu, struct vm_exit *exit)
{
    const struct kvm_debug_exit_arch *what = &vcpu->run->debug.arch;

    exit->reason = VM_EXIT_DEBUG;
    if (what->exception == VECTOR_BP) {
        exit->debug = ACCEL_DEBUG_INT3;
    } else if (what->dr6 & DR6_POINTS) {
        exit->debug = ACCEL_DEBUG_POINT;
        exit->debug_point = (unsigned)__builtin_ctzll(what->dr6 & DR6_POINTS);
    } else {
        exit->debug = ACCEL_DEBUG_STEPPED;
    }
}
