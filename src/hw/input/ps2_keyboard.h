/*
 * A PS/2 keyboard: what it answers, and what its keys send. Part of struct i8042, under whose lock
 * it lives.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_INPUT_PS2_KEYBOARD_H
#define TENON_HW_INPUT_PS2_KEYBOARD_H

#include "hw/input/ps2_queue.h"

struct ps2_keyboard {
    struct ps2_queue out;
    uint8_t set;       /* scan code set: 1 or 2 */
    uint8_t command;   /* waits for its parameter; 0: none */
    uint8_t leds;      /* bit 0 scroll, 1 num, 2 caps lock */
    uint8_t typematic; /* kept; nothing repeats by itself */
    bool scanning;
};

extern const struct state_table ps2_keyboard_state;

void ps2_keyboard_reset(struct ps2_keyboard *keyboard);
/* A byte from the controller. */
void ps2_keyboard_write(struct ps2_keyboard *keyboard, uint8_t byte);
/* `key` as in display/keys.h. Dropped while the guest does not listen, or when it has not for long.
 */
void ps2_keyboard_key(struct ps2_keyboard *keyboard, uint8_t key, bool down);
/* What a byte of set 2 is in set 1: the controller's translation. */
uint8_t ps2_translate(uint8_t byte);

#endif
