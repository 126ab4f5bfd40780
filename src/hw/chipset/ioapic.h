/*
 * The I/O APIC: 24 interrupt inputs that become messages.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_CHIPSET_IOAPIC_H
#define TENON_HW_CHIPSET_IOAPIC_H

#include "hw/core/device.h"

#define IOAPIC_PINS 24

struct ioapic {
    struct device device;

    /* Set before realize. */
    uint64_t base; /* LAYOUT_IOAPIC_BASE */
    /*
     * Optional: pin `pin` is programmed so (accel_ops.ioapic_route). Called for every pin on reset
     * and load, then on each change; with the IOAPIC's lock held.
     */
    void (*route)(void *opaque, unsigned pin, uint64_t address, uint32_t data, bool level,
                  bool masked);
    void *opaque;

    /* Own. */
    struct lock irq_lock; /* LOCK_IRQCHIP: covers all below */
    struct io_region region;
    uint8_t select;              /* IOREGSEL */
    uint8_t id;                  /* IOAPICID, bits 24..27 */
    uint32_t levels;             /* a bit a pin: the line is asserted */
    uint64_t entry[IOAPIC_PINS]; /* redirection table */
};

extern const struct device_class ioapic_class;

/* The wire to a pin. Any thread; may be used before realize. */
struct irq_line ioapic_line(struct ioapic *ioapic, unsigned pin);
/* A local APIC ended level-triggered interrupt `vector`. Any thread. */
void ioapic_eoi(struct ioapic *ioapic, uint8_t vector);

#endif
