/*
 * Keys of a PC keyboard, and what one presses to type a character on a US layout.
 *
 * A key is the make code of scan code set 1; KEY_EXTENDED marks those that follow 0xe0. QEMU's
 * "number" of a key is the same.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DISPLAY_KEYS_H
#define TENON_DISPLAY_KEYS_H

#include "base/base.h"
#include "base/err.h"

#define KEY_EXTENDED 0x80
#define KEYS_TOGETHER_MAX 8

enum key {
    KEY_NONE = 0,
    KEY_ESC = 0x01,
    KEY_BACKSPACE = 0x0e,
    KEY_TAB = 0x0f,
    KEY_RET = 0x1c,
    KEY_CTRL = 0x1d,
    KEY_SHIFT = 0x2a,
    KEY_SHIFT_RIGHT = 0x36,
    KEY_ALT = 0x38,
    KEY_SPC = 0x39,
    KEY_F1 = 0x3b, /* to F10 */
    KEY_NUM_LOCK = 0x45,
    KEY_F11 = 0x57,
    KEY_F12 = 0x58,
    KEY_PRINT = 0x37 | KEY_EXTENDED,
    KEY_PAUSE = 0x46 | KEY_EXTENDED,
    KEY_HOME = 0x47 | KEY_EXTENDED,
    KEY_UP = 0x48 | KEY_EXTENDED,
    KEY_PGUP = 0x49 | KEY_EXTENDED,
    KEY_LEFT = 0x4b | KEY_EXTENDED,
    KEY_RIGHT = 0x4d | KEY_EXTENDED,
    KEY_END = 0x4f | KEY_EXTENDED,
    KEY_DOWN = 0x50 | KEY_EXTENDED,
    KEY_PGDN = 0x51 | KEY_EXTENDED,
    KEY_INSERT = 0x52 | KEY_EXTENDED,
    KEY_DELETE = 0x53 | KEY_EXTENDED,
};

/* Keys that are pressed one after the other, and released together. */
struct key_stroke {
    uint8_t key[KEYS_TOGETHER_MAX];
    unsigned count;
};

/* The key with QEMU's name for it ("ret", "a", "kp_5"); KEY_NONE: there is none. */
uint8_t key_find(const char *name);
/* Adds the keys that type `character`; false when none do, or no room is left. */
bool key_stroke_character(struct key_stroke *stroke, unsigned char character);
/* Reads keys joined by '-': "ctrl-alt-delete". */
struct err *key_stroke_read(struct key_stroke *stroke, const char *word);
bool key_stroke_add(struct key_stroke *stroke, uint8_t key);

#endif
