/*
 * The MC146818 real-time clock with its CMOS memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_CHIPSET_RTC_H
#define TENON_HW_CHIPSET_RTC_H

#include "hw/core/device.h"

struct rtc {
    struct device device;

    /* Set before realize. */
    struct irq_line irq;
    struct irq_line alarm; /* optional: follows the alarm alone */
    uint64_t low_ram;      /* bytes below 4 GiB, for the CMOS memory sizes */
    uint64_t high_ram;     /* bytes above */
    unsigned cpus;         /* for the CMOS count of them; 0 is 1 */

    /* Own. */
    struct io_region region;
    struct loop_timer timer;
    uint8_t index;
    uint8_t cmos[128];
    int64_t offset_ns; /* guest's clock minus the host's UTC */
    uint64_t seen_ns;  /* guest's time up to which flags were worked out */
};

extern const struct device_class rtc_class;

#endif
