/*
 * ACPI events and sleep of a machine without PM hardware (ACPI 6.4, 4.8.3.7 and 5.6.9): an event
 * register with an interrupt, the sleep control and status registers, and a reset register.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_CHIPSET_GED_H
#define TENON_HW_CHIPSET_GED_H

#include "hw/core/device.h"

/* Offsets in the block at LAYOUT_GED_BASE. */
#define GED_EVENTS 0x0        /* 32 bits, read clears: GED_EVENT_* */
#define GED_SLEEP_CONTROL 0x8 /* 8 bits */
#define GED_SLEEP_STATUS 0x9  /* 8 bits */
#define GED_RESET 0xa         /* 8 bits: GED_RESET_VALUE resets */
#define GED_SIZE 0x10
#define GED_RESET_VALUE 0x06
#define GED_SLEEP_S5 5

#define GED_EVENT_POWER_BUTTON 0x1u

struct ged {
    struct device device;

    /* Set before realize. */
    uint64_t base;       /* LAYOUT_GED_BASE */
    struct irq_line irq; /* pin LAYOUT_GSI_GED, level */

    /* Own. */
    struct io_region region;
    uint32_t events;
    uint8_t sleep_status;
};

extern const struct device_class ged_class;

/* Somebody pressed the power button. Any thread. */
void ged_power_button(struct ged *ged);

#endif
