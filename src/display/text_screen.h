/*
 * A screen of characters, as an adapter in text mode shows it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DISPLAY_TEXT_SCREEN_H
#define TENON_DISPLAY_TEXT_SCREEN_H

#include "base/base.h"

#define TEXT_COLUMNS_MAX 256
#define TEXT_ROWS_MAX 128

struct text_cell {
    uint8_t code;      /* code page 437 */
    uint8_t attribute; /* bits 0-3 foreground, 4-7 background, as the adapter would show them */
};

struct text_screen {
    unsigned columns, rows; /* 0: no text is shown, but a picture of width x height, or nothing */
    unsigned width, height;
    bool cursor;
    unsigned cursor_column, cursor_row;
    struct text_cell cell[TEXT_ROWS_MAX][TEXT_COLUMNS_MAX];
};

#endif
