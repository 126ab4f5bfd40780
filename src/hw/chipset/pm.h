/*
 * ACPI power management of the ICH9: PM1 event and control, PM timer, GPE0, SMI command port.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_CHIPSET_PM_H
#define TENON_HW_CHIPSET_PM_H

#include "hw/core/device.h"
#include "hw/core/hw_clock.h"

/* Offsets in the block at LAYOUT_PORT_PM. */
#define PM_PM1_EVENT 0x00
#define PM_PM1_CONTROL 0x04
#define PM_TIMER 0x08
#define PM_GPE0 0x20
#define PM_GPE0_BYTES 16 /* status and enable halves together */
#define PM_SMI_ENABLE 0x30
/* What to write to the SMI command port. */
#define PM_SMI_ACPI_ENABLE 0x02
#define PM_SMI_ACPI_DISABLE 0x03
/* SLP_TYP of S5 and S3, as \_S5 and \_S3 tell them. */
#define PM_SLEEP_S5 0
#define PM_SLEEP_S3 1

struct pm {
    struct device device;

    /* Set before realize. */
    struct irq_line sci;

    /* Own. */
    struct io_region region, smi_region;
    struct loop_timer timer, alarm_timer;
    struct hw_clock clock;
    uint16_t pm1_status, pm1_enable, pm1_control;
    uint8_t gpe_status[PM_GPE0_BYTES / 2], gpe_enable[PM_GPE0_BYTES / 2];
    uint8_t smi_command, smi_data;
    uint64_t timer_seen; /* timer ticks up to which the overflow flag was worked out */
    bool sci_level;
    bool asleep;      /* S3: an enabled event wakes */
    bool alarm_level; /* atomic: of the clock's wire */
    bool alarm;       /* atomic: the clock's alarm went off and is not in pm1_status yet */
};

extern const struct device_class pm_class;

/* The wire from the real-time clock's alarm. Any thread, with the clock's lock held. */
struct irq_line pm_alarm_line(struct pm *pm);
/* In S3, and nothing has asked to wake yet. Any thread. */
bool pm_asleep(struct pm *pm);
/* Somebody pressed the power button, which also wakes. Any thread. */
void pm_power_button(struct pm *pm);
/* A general-purpose event, 0..63. Any thread. */
void pm_gpe_raise(struct pm *pm, unsigned event);

#endif
