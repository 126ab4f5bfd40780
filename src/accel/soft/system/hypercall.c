/*
 * Hypercalls of KVM's guest interface (Linux Documentation/virt/kvm/x86/hypercalls.rst), by VMCALL
 * and VMMCALL alike.
 *
 * The number is in RAX, up to four arguments in RBX, RCX, RDX, RSI; the answer is in RAX. CPUID
 * offers none of them, so a guest that calls one tries its luck, as it may.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/apic/lapic.h"
#include "accel/soft/interp/exec_all.h"

#define HC_VAPIC_POLL_IRQ 1
#define HC_SEND_IPI 10
#define ANSWER_EPERM (-1)
#define ANSWER_EINVAL (-22)
#define ANSWER_ENOSYS (-1000)

#define ICR_KEPT 0x7ffu /* vector and delivery mode; destination and shorthand must be zero */

/* 128 APIC IDs from `first` on in two words; an answer counts who got the interrupt. */
static int64_t send_ipi(struct soft_vcpu *v, uint64_t low, uint64_t high, uint32_t first,
                        uint64_t icr, unsigned word)
{
    if (icr & ~(uint64_t)ICR_KEPT)
        return ANSWER_EINVAL;
    int64_t count = 0;
    for (unsigned i = 0; i < 2 * word; i++) {
        uint64_t bits = i < word ? low >> i : high >> (i - word);
        if (!(bits & 1) || first >= v->vm->vcpu_count || i >= v->vm->vcpu_count - first)
            continue;
        struct soft_vcpu *target = v->vm->vcpu[first + i];
        if (!target)
            continue;
        lapic_accept(target->lapic, icr >> 8 & 7, icr & 0xff, false);
        count++;
    }
    return count;
}

void exec_vmcall(struct soft_vcpu *v, const struct insn *insn)
{
    bool wide = insn->mode == INSN_64;
    uint64_t number = v->r[X86_RAX],
             a[4] = {v->r[X86_RBX], v->r[X86_RCX], v->r[X86_RDX], v->r[X86_RSI]};
    if (!wide) {
        number = (uint32_t)number;
        for (unsigned i = 0; i < 4; i++)
            a[i] = (uint32_t)a[i];
    }
    int64_t answer = ANSWER_ENOSYS;
    if (v->cpl)
        answer = ANSWER_EPERM;
    else if (number == HC_VAPIC_POLL_IRQ)
        answer = 0; /* only leaves the guest */
    else if (number == HC_SEND_IPI)
        answer = send_ipi(v, a[0], a[1], (uint32_t)a[2], a[3], wide ? 64 : 32);
    v->r[X86_RAX] = wide ? (uint64_t)answer : (uint32_t)answer;
}
