/*
 * A text screen drawn in a terminal: what has changed since the last time, as UTF-8 and ECMA-48
 * sequences that any terminal of today understands.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DISPLAY_TEXT_TERMINAL_H
#define TENON_DISPLAY_TEXT_TERMINAL_H

#include "base/buf.h"
#include "display/text_screen.h"

struct text_terminal {
    unsigned rows, columns; /* of the terminal; 0: unknown, and large enough */
    bool drawn;             /* the terminal shows `shown` */
    unsigned top;           /* the first row that is shown, where the terminal has less rows */
    struct text_screen shown;
};

/* Appends what turns what is shown into `screen`; nothing, when that is the same. */
void text_terminal_draw(struct text_terminal *terminal, const struct text_screen *screen,
                        struct buf *out);
/* The terminal's size has changed, or somebody else has drawn on it: all is drawn anew. */
void text_terminal_forget(struct text_terminal *terminal);
/* Appends what leaves the terminal as one wants it: below the text, in normal colours. */
void text_terminal_leave(struct text_terminal *terminal, struct buf *out);

#endif
