/*
 * What a terminal sends, as key strokes of a PC keyboard: characters, and the sequences of cursor
 * and function keys as xterm, the Linux console and their kin send them (ECMA-48; XTerm Control
 * Sequences).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DISPLAY_TERMINAL_INPUT_H
#define TENON_DISPLAY_TERMINAL_INPUT_H

#include "display/keys.h"

#define TERMINAL_SEQUENCE_MAX 32

struct terminal_input {
    void (*stroke)(void *opaque, const struct key_stroke *stroke);
    /* The terminal says its size: CSI 8 ; rows ; columns t. */
    void (*size)(void *opaque, unsigned rows, unsigned columns);
    void *opaque;

    /* Own: an escape sequence that has begun. */
    char sequence[TERMINAL_SEQUENCE_MAX];
    unsigned len;
};

void terminal_input_byte(struct terminal_input *input, uint8_t byte);
/* Has a sequence begun? Then it may have been the Escape key alone. */
static inline bool terminal_input_waits(const struct terminal_input *input)
{
    return input->len != 0;
}
/* Nothing came for a while: what has begun were keys. */
void terminal_input_flush(struct terminal_input *input);

#endif
