/*
 * The high precision event timer (IA-PC HPET 1.0a), three timers, counting at 100 MHz.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_CHIPSET_HPET_H
#define TENON_HW_CHIPSET_HPET_H

#include "hw/core/device.h"
#include "hw/core/hw_clock.h"

#define HPET_TIMERS 3
#define HPET_TICK_NS 10
/* IOAPIC pins that a timer's interrupt may be routed to. */
#define HPET_ROUTES 0x00ff0104u
/* Value of the general capabilities' low half, for the ACPI table. */
#define HPET_BLOCK_ID 0x8086a201u

struct hpet_timer {
    struct hpet *hpet;
    unsigned index;
    struct loop_timer timer;
    uint64_t config, comparator, period;
    bool level; /* the line as we drive it */
};

struct hpet {
    struct device device;

    /* Set before realize. */
    uint64_t base;              /* LAYOUT_HPET_BASE */
    struct irq_line pin[24];    /* IOAPIC pins that HPET_ROUTES names */
    struct irq_line isa0, isa8; /* ISA lines 0 and 8, which PIT and RTC reach through us */

    /* Own. */
    struct io_region region;
    struct hw_clock clock;
    uint64_t config, status;
    uint64_t counter; /* at counter_ns; while disabled, as it stands */
    uint64_t counter_ns;
    struct hpet_timer timer[HPET_TIMERS];
    bool legacy; /* legacy replacement: PIT and RTC are cut off. Atomic */
};

extern const struct device_class hpet_class;

/*
 * What PIT and RTC get as their interrupt line: passes on to isa0 and isa8, unless the guest has
 * switched on legacy replacement.
 */
struct irq_line hpet_pit_line(struct hpet *hpet);
struct irq_line hpet_rtc_line(struct hpet *hpet);

#endif
