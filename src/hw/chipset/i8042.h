/*
 * The i8042 keyboard controller with nothing plugged into its two ports: self test, command byte,
 * A20 and reset outputs, and the time-out answer of an empty port. Port 0x92 is here as well.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_CHIPSET_I8042_H
#define TENON_HW_CHIPSET_I8042_H

#include "hw/core/device.h"

struct i8042 {
    struct device device;

    /* Set before realize. */
    struct irq_line keyboard_irq, mouse_irq;

    /* Own. */
    struct io_region data_region, command_region, port92_region;
    uint8_t ram[32]; /* byte 0 is the command byte */
    uint8_t status, data;
    uint8_t command;             /* waits for its data byte; 0: none */
    uint8_t output_port;         /* bit 0 reset (active low), bit 1 A20 */
    uint8_t queue[4], queue_len; /* answers behind `data` */
    uint8_t queue_status[4];
};

extern const struct device_class i8042_class;

#endif
