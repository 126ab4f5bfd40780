/*
 * TSC of the software engine: the guest's counter. (Intel SDM vol. 3, 18.17.)
 *
 * Threads: a vCPU's offset belongs to its thread; the VM's offset is changed under the clock's lock
 * while vCPUs are stopped (timer.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/apic/tsc.h"

#include <x86intrin.h>

#include "accel/soft/apic/lapic.h"
#include "base/clock.h"

uint64_t soft_tsc(struct soft_vcpu *v)
{
    return __rdtsc() + (uint64_t)v->tsc_offset;
}

void soft_tsc_guest_write(struct soft_vcpu *v, uint64_t tsc)
{
    soft_tsc_adjust_write(v, v->msr.tsc_adjust + (tsc - soft_tsc(v)));
}

void soft_tsc_adjust_write(struct soft_vcpu *v, uint64_t adjust)
{
    v->tsc_offset += (int64_t)(adjust - v->msr.tsc_adjust);
    v->msr.tsc_adjust = adjust;
    lapic_tsc_changed(v->lapic);
    kvmclock_update(v);
}

uint64_t soft_tsc_to_ns(struct soft_vcpu *v, uint64_t tsc)
{
    uint64_t now = __rdtsc() + (uint64_t)v->tsc_offset;
    if (tsc <= now)
        return 0;
    uint64_t ns = clock_now_ns(), wait = tsc_scale_ns(tsc - now, v->vm->tsc_khz) + 1;
    return wait > INT64_MAX - ns ? UINT64_MAX - 1 : ns + wait;
}
