/*
 * The screen and the keyboard of a VM, for those who look at it from outside. On the control loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_VM_VM_SCREEN_H
#define TENON_VM_VM_SCREEN_H

#include "display/keys.h"
#include "display/picture.h"
#include "hw/input/ps2_mouse.h"
#include "vm/vm.h"

/* What the screen shows; an error when the VM has none. The caller owns the picture. */
struct err *vm_screen_picture(struct vm *vm, struct picture *picture);
/* Presses and releases keys, after those that are still to come. */
struct err *vm_screen_keys(struct vm *vm, const struct key_stroke *stroke, unsigned hold_ms);

/* What a person does to keyboard and mouse in one moment. */
struct vm_input {
    uint8_t key;   /* KEY_NONE: the mouse */
    bool down;     /* the key, or the buttons */
    bool absolute; /* x and y are places, negative: as it is; otherwise distances */
    int x, y, wheel;
    uint8_t buttons; /* enum mouse_button: those that change */
};
/* NULL: the VM has a screen. */
struct err *vm_screen_check(const struct vm *vm);
/* At once, whatever is still being typed. */
struct err *vm_screen_input(struct vm *vm, const struct vm_input *input);

#endif
