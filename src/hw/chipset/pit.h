/*
 * The 8254 interval timer, and system control port B (0x61) with its speaker gate.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_CHIPSET_PIT_H
#define TENON_HW_CHIPSET_PIT_H

#include "hw/core/device.h"
#include "hw/core/hw_clock.h"

#define PIT_HZ 1193182u

struct pit_channel {
    uint32_t reload;            /* 1..65536; in BCD counting already as binary */
    uint64_t start_ns;          /* device time when counting (re)started */
    uint8_t mode;               /* 0..5 */
    uint8_t access;             /* 1 low, 2 high, 3 low then high */
    bool bcd, gate, counting;   /* counting: a count was loaded (and, modes 1 and 5, triggered) */
    bool write_high, read_high; /* the second byte of access 3 is next */
    uint8_t write_low;
    uint8_t latched_bytes; /* bytes of `latch` still to be read */
    uint16_t latch;
    bool status_latched;
    uint8_t status;
};

struct pit {
    struct device device;

    /* Set before realize. */
    struct irq_line irq; /* output of channel 0 */

    /* Own. */
    struct io_region region, speaker_region;
    struct loop_timer timer;
    struct hw_clock clock;
    struct pit_channel channel[3];
    bool irq_level;
    bool speaker_data; /* port 0x61 bit 1 */
};

extern const struct device_class pit_class;

#endif
