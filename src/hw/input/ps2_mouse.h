/*
 * A PS/2 mouse with a wheel. Part of struct i8042, under whose lock it lives.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_INPUT_PS2_MOUSE_H
#define TENON_HW_INPUT_PS2_MOUSE_H

#include "hw/input/ps2_queue.h"

enum mouse_button {
    MOUSE_LEFT = 0x01,
    MOUSE_RIGHT = 0x02,
    MOUSE_MIDDLE = 0x04,
    MOUSE_SIDE = 0x08,
    MOUSE_EXTRA = 0x10,
};

struct ps2_mouse {
    struct ps2_queue out;
    uint8_t type;    /* what it says it is: 0; 3 with a wheel; 4 with five buttons as well */
    uint8_t command; /* waits for its parameter; 0: none */
    uint8_t
        rates[3]; /* the last three rates set, newest first: a magic sequence changes the type */
    uint8_t resolution;
    bool remote, wrap, reporting, scaling;
    uint8_t buttons, reported; /* enum mouse_button: now, and as the guest knows them */
    int32_t x, y, wheel;       /* movement not yet reported; y grows upwards */
};

extern const struct state_table ps2_mouse_state;

void ps2_mouse_reset(struct ps2_mouse *mouse);
void ps2_mouse_write(struct ps2_mouse *mouse, uint8_t byte);
/* Movement to the right, downwards, and of the wheel towards the user; buttons as they are now. */
void ps2_mouse_event(struct ps2_mouse *mouse, int x, int y, int wheel, uint8_t buttons);
/* Movement becomes a packet when all before has been taken. */
void ps2_mouse_report(struct ps2_mouse *mouse);

#endif
