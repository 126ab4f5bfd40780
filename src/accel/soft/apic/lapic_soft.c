/*
 * The local APIC inside the software engine: its host callbacks, and the functions of soft.h that
 * speak of vCPUs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/apic/lapic.h"
#include "accel/soft/apic/tsc.h"
#include "base/bitmap.h"
#include "base/clock.h"

static unsigned host_count(void *opaque)
{
    const struct soft_vm *vm = opaque;
    return vm->vcpu_count;
}

static struct lapic *host_peer(void *opaque, unsigned index)
{
    struct soft_vm *vm = opaque;
    struct soft_vcpu *v = __atomic_load_n(&vm->vcpu[index], __ATOMIC_ACQUIRE);
    return v ? v->lapic : NULL;
}

static void host_signal(void *opaque, unsigned index, enum lapic_signal signal, uint8_t vector)
{
    struct soft_vm *vm = opaque;
    struct soft_vcpu *v = __atomic_load_n(&vm->vcpu[index], __ATOMIC_ACQUIRE);
    if (!v)
        return; /* still being created: it has nothing to be told */
    switch (signal) {
    case LAPIC_SIGNAL_INTR:
        soft_post(v, EV_INTR);
        break;
    case LAPIC_SIGNAL_NMI:
        soft_post_nmi(v);
        break;
    case LAPIC_SIGNAL_INIT:
        soft_post(v, EV_INIT);
        break;
    case LAPIC_SIGNAL_SIPI:
        atomic_store(&v->sipi_vector, vector);
        soft_post(v, EV_SIPI);
        break;
    case LAPIC_SIGNAL_EXTINT:
        soft_post(v, EV_EXTINT | EV_INTR);
        break;
    }
}

static void host_eoi(void *opaque, uint8_t vector, bool level)
{
    struct soft_vm *vm = opaque;
    if (level || bitmap_test_atomic(vm->ioapic_level, vector))
        vm->io->ioapic_eoi(vm->opaque, vector);
}

static uint64_t host_now_ns(void *opaque)
{
    return clock_now_ns();
}

static uint64_t host_tsc_to_ns(void *opaque, unsigned index, uint64_t tsc)
{
    struct soft_vm *vm = opaque;
    return vm->vcpu[index] ? soft_tsc_to_ns(vm->vcpu[index], tsc) : 0;
}

static void host_arm(void *opaque, unsigned index, uint64_t deadline_ns)
{
    soft_clock_arm(opaque, index, deadline_ns);
}

static void host_detach(void *opaque, unsigned index)
{
    soft_clock_detach(opaque, index);
}

static const struct lapic_host soft_host = {
    .count = host_count,
    .peer = host_peer,
    .signal = host_signal,
    .eoi = host_eoi,
    .now_ns = host_now_ns,
    .tsc_to_ns = host_tsc_to_ns,
    .arm = host_arm,
    .detach = host_detach,
};

struct lapic *lapic_new(struct soft_vcpu *v)
{
    return lapic_create(&soft_host, v->vm, v->index);
}

void soft_msi(struct soft_vm *vm, uint64_t address, uint32_t data)
{
    lapic_route_msi(&soft_host, vm, address, data);
}

void lapic_get(struct lapic *lapic, uint8_t page[1024])
{
    struct soft_vm *vm = lapic->opaque;
    struct soft_vcpu *v = vm->vcpu[lapic->index];
    lapic_save(lapic, page, &v->msr.apic_base, &v->msr.tsc_deadline);
}

void lapic_set(struct lapic *lapic, const uint8_t page[1024])
{
    struct soft_vm *vm = lapic->opaque;
    struct soft_vcpu *v = vm->vcpu[lapic->index];
    lapic_restore(lapic, page, v->msr.apic_base, v->msr.tsc_deadline);
}
