/*
 * The i8042 keyboard controller with a keyboard and a mouse, or with nothing plugged into its two
 * ports: self test, command byte, translation, A20 and reset outputs, and the time-out answer of an
 * empty port. Port 0x92 is here as well.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_INPUT_I8042_H
#define TENON_HW_INPUT_I8042_H

#include "hw/input/ps2_keyboard.h"
#include "hw/input/ps2_mouse.h"

struct i8042 {
    struct device device;

    /* Set before realize. */
    struct irq_line keyboard_irq, mouse_irq;
    bool plugged; /* keyboard and mouse are there */

    /* Own. */
    struct io_region data_region, command_region, port92_region;
    uint8_t ram[32]; /* byte 0 is the command byte */
    uint8_t status, data;
    uint8_t command;             /* waits for its data byte; 0: none */
    uint8_t output_port;         /* bit 0 reset (active low), bit 1 A20 */
    uint8_t queue[4], queue_len; /* answers of its own behind `data` */
    uint8_t queue_status[4];
    bool released; /* translation: the next byte belongs to a release */
    struct ps2_keyboard keyboard;
    struct ps2_mouse mouse;
};

/* Any thread. `key` as in display/keys.h. */
void i8042_key(struct i8042 *kbc, uint8_t key, bool down);
/* Any thread: see ps2_mouse_event(). */
void i8042_mouse(struct i8042 *kbc, int x, int y, int wheel, uint8_t buttons);

extern const struct device_class i8042_class;

#endif
