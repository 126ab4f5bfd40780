/*
 * The engine without a guest: it drives devices and the VM layer from unit tests. Its vCPUs sleep
 * until they are kicked; a test plays the guest through the functions below.
 *
 * Any thread, unless marked.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_NONE_H
#define TENON_ACCEL_NONE_H

#include "accel/accel.h"

/* Guest accesses, on the calling thread. A write that a doorbell matches rings it and goes no
 * further. */
uint32_t none_pio_read(struct accel_vm *vm, uint16_t port, unsigned size);
void none_pio_write(struct accel_vm *vm, uint16_t port, unsigned size, uint32_t value);
uint64_t none_mmio_read(struct accel_vm *vm, uint64_t gpa, unsigned size);
void none_mmio_write(struct accel_vm *vm, uint64_t gpa, unsigned size, uint64_t value);
/* The guest ended a level-triggered interrupt. */
void none_eoi(struct accel_vm *vm, uint8_t vector);

/*
 * Runs `fn` on the vCPU's own thread, inside vcpu_run, and waits for its end: accesses then happen
 * where an engine would make them. Needs a thread in vcpu_run, now or soon.
 */
void none_vcpu_call(struct accel_vcpu *vcpu, void (*fn)(void *opaque), void *opaque);
/* vcpu_run returns this, as if the guest had caused it. */
void none_vcpu_exit(struct accel_vcpu *vcpu, enum vm_exit_reason reason, const char *error);

/* Message-signalled interrupts in the order of their sending. The oldest are kept, up to 1024. */
struct none_msi {
    uint64_t address;
    uint32_t data;
};
size_t none_msi_count(struct accel_vm *vm);
/* Takes the oldest; false when there is none. */
bool none_msi_take(struct accel_vm *vm, struct none_msi *msi);
/* Looks at the eventfds of irqfd_add (without waiting) and sends the MSI of each that was rung. */
void none_irqfd_poll(struct accel_vm *vm);

bool none_extint(struct accel_vm *vm);
unsigned none_nmi_count(struct accel_vcpu *vcpu);

struct none_route {
    uint64_t address;
    uint32_t data;
    bool level, masked;
};
/* What ioapic_route last said of a pin; masked before. */
void none_ioapic_route(struct accel_vm *vm, unsigned pin, struct none_route *route);

#endif
