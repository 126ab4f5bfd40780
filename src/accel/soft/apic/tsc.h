/*
 * Time of the software engine: guest TSC, clock thread, kvmclock.
 *
 * One equation holds for every vCPU: guest TSC = host TSC + clock offset + TSC_ADJUST. The clock
 * offset is the VM's, so TSCs are synchronous unless the guest writes them, and kvmclock is a pure
 * function of the guest TSC: a snapshot that restores the TSC restores the clock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_TSC_H
#define TENON_ACCEL_SOFT_TSC_H

#include "accel/soft/soft.h"

/* tsc * 1000000 / khz without overflow. */
static inline uint64_t tsc_scale_ns(uint64_t ticks, uint32_t khz)
{
    return (uint64_t)((unsigned __int128)ticks * 1000000 / khz);
}

/* The guest's own write of IA32_TSC or IA32_TSC_ADJUST: exact, moves both. */
void soft_tsc_guest_write(struct soft_vcpu *v, uint64_t tsc);
void soft_tsc_adjust_write(struct soft_vcpu *v, uint64_t adjust);
/* CLOCK_MONOTONIC time at which the vCPU's TSC reaches `tsc`; 0 when it has. Any thread. */
uint64_t soft_tsc_to_ns(struct soft_vcpu *v, uint64_t tsc);
/* Nanoseconds of the VM's own clock: what kvmclock shows. */
uint64_t soft_clock_system_ns(struct soft_vm *vm);
/* The clock thread calls the LAPIC timer of vCPU `index` at this time; UINT64_MAX: never. */
void soft_clock_arm(struct soft_vm *vm, unsigned index, uint64_t deadline_ns);
/* Disarms for good, and waits until the clock thread has left that LAPIC. */
void soft_clock_detach(struct soft_vm *vm, unsigned index);

/* kvmclock.c: MSRs of Linux Documentation/virt/kvm/x86/msr.rst; false is #GP. */
bool kvmclock_set_system_time(struct soft_vcpu *v, uint64_t value);
bool kvmclock_set_wall_clock(struct soft_vcpu *v, uint64_t value);
/* Writes the time page of this vCPU anew, if it has one. */
void kvmclock_update(struct soft_vcpu *v);

#endif
