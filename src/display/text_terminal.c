/*
 * A text screen drawn in a terminal. See text_terminal.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "display/text_terminal.h"

#include <stdio.h>
#include <string.h>

/* Code page 437: what its control codes look like, and its upper half. */
static const uint16_t low[32] = {0x0020, 0x263a, 0x263b, 0x2665, 0x2666, 0x2663, 0x2660, 0x2022,
                                 0x25d8, 0x25cb, 0x25d9, 0x2642, 0x2640, 0x266a, 0x266b, 0x263c,
                                 0x25ba, 0x25c4, 0x2195, 0x203c, 0x00b6, 0x00a7, 0x25ac, 0x21a8,
                                 0x2191, 0x2193, 0x2192, 0x2190, 0x221f, 0x2194, 0x25b2, 0x25bc};
static const uint16_t high[128] = {
    0x00c7, 0x00fc, 0x00e9, 0x00e2, 0x00e4, 0x00e0, 0x00e5, 0x00e7, 0x00ea, 0x00eb, 0x00e8, 0x00ef,
    0x00ee, 0x00ec, 0x00c4, 0x00c5, 0x00c9, 0x00e6, 0x00c6, 0x00f4, 0x00f6, 0x00f2, 0x00fb, 0x00f9,
    0x00ff, 0x00d6, 0x00dc, 0x00a2, 0x00a3, 0x00a5, 0x20a7, 0x0192, 0x00e1, 0x00ed, 0x00f3, 0x00fa,
    0x00f1, 0x00d1, 0x00aa, 0x00ba, 0x00bf, 0x2310, 0x00ac, 0x00bd, 0x00bc, 0x00a1, 0x00ab, 0x00bb,
    0x2591, 0x2592, 0x2593, 0x2502, 0x2524, 0x2561, 0x2562, 0x2556, 0x2555, 0x2563, 0x2551, 0x2557,
    0x255d, 0x255c, 0x255b, 0x2510, 0x2514, 0x2534, 0x252c, 0x251c, 0x2500, 0x253c, 0x255e, 0x255f,
    0x255a, 0x2554, 0x2569, 0x2566, 0x2560, 0x2550, 0x256c, 0x2567, 0x2568, 0x2564, 0x2565, 0x2559,
    0x2558, 0x2552, 0x2553, 0x256b, 0x256a, 0x2518, 0x250c, 0x2588, 0x2584, 0x258c, 0x2590, 0x2580,
    0x03b1, 0x00df, 0x0393, 0x03c0, 0x03a3, 0x03c3, 0x00b5, 0x03c4, 0x03a6, 0x0398, 0x03a9, 0x03b4,
    0x221e, 0x03c6, 0x03b5, 0x2229, 0x2261, 0x00b1, 0x2265, 0x2264, 0x2320, 0x2321, 0x00f7, 0x2248,
    0x00b0, 0x2219, 0x00b7, 0x221a, 0x207f, 0x00b2, 0x25a0, 0x00a0};

static void put_code(struct buf *out, uint8_t code)
{
    unsigned point = code < 32     ? low[code]
                     : code == 127 ? 0x2302
                     : code < 127  ? code
                                   : high[code - 128];

    if (point < 0x80) {
        buf_u8(out, (uint8_t)point);
    } else if (point < 0x800) {
        buf_u8(out, (uint8_t)(0xc0 | point >> 6));
        buf_u8(out, (uint8_t)(0x80 | (point & 0x3f)));
    } else {
        buf_u8(out, (uint8_t)(0xe0 | point >> 12));
        buf_u8(out, (uint8_t)(0x80 | (point >> 6 & 0x3f)));
        buf_u8(out, (uint8_t)(0x80 | (point & 0x3f)));
    }
}

/* PC colours have blue in bit 0 and red in bit 2, terminals the other way round. */
static unsigned colour(unsigned pc)
{
    return (pc & 2) | (pc & 1) << 2 | (pc & 4) >> 2;
}

/* Light grey on black is what the terminal's user has chosen for text. */
static void put_attribute(struct buf *out, uint8_t attribute)
{
    unsigned front = attribute & 15, back = attribute >> 4;

    buf_printf(out, "\x1b[0");
    if (attribute != 0x07) {
        buf_printf(out, ";%u", colour(front) + (front & 8 ? 90 : 30));
        buf_printf(out, ";%u", colour(back) + (back & 8 ? 100 : 40));
    }
    buf_printf(out, "m");
}

static unsigned shown_rows(const struct text_terminal *terminal, const struct text_screen *screen)
{
    return terminal->rows ? MIN(terminal->rows, screen->rows) : screen->rows;
}

static unsigned shown_columns(const struct text_terminal *terminal,
                              const struct text_screen *screen)
{
    return terminal->columns ? MIN(terminal->columns, screen->columns) : screen->columns;
}

/* In a small terminal the rows around the cursor are shown. */
static unsigned choose_top(const struct text_terminal *terminal, const struct text_screen *screen)
{
    unsigned rows = shown_rows(terminal, screen), top = MIN(terminal->top, screen->rows - rows);

    if (screen->cursor && screen->cursor_row < top)
        return screen->cursor_row;
    if (screen->cursor && screen->cursor_row >= top + rows)
        return screen->cursor_row - rows + 1;
    return top;
}

static bool is_same(struct text_cell a, struct text_cell b)
{
    return a.code == b.code && a.attribute == b.attribute;
}

static void draw_cells(struct text_terminal *terminal, const struct text_screen *screen,
                       struct buf *out)
{
    unsigned rows = shown_rows(terminal, screen), columns = shown_columns(terminal, screen);
    int attribute = -1;

    for (unsigned y = 0; y < rows; y++) {
        const struct text_cell *cell = screen->cell[terminal->top + y];
        const struct text_cell *before = terminal->shown.cell[terminal->top + y];
        unsigned at = UINT32_MAX; /* the column where the terminal's cursor stands */
        for (unsigned x = 0; x < columns; x++) {
            if (terminal->drawn && is_same(cell[x], before[x]))
                continue;
            if (at != x)
                buf_printf(out, "\x1b[%u;%uH", y + 1, x + 1);
            if (attribute != cell[x].attribute)
                put_attribute(out, cell[x].attribute);
            attribute = cell[x].attribute;
            put_code(out, cell[x].code);
            at = x + 1;
        }
    }
    if (attribute >= 0)
        buf_printf(out, "\x1b[0m");
}

static void draw_cursor(const struct text_terminal *terminal, const struct text_screen *screen,
                        struct buf *out)
{
    if (screen->cursor && screen->cursor_column < shown_columns(terminal, screen))
        buf_printf(out, "\x1b[%u;%uH\x1b[?25h", screen->cursor_row - terminal->top + 1,
                   screen->cursor_column + 1);
    else
        buf_printf(out, "\x1b[?25l");
}

/* A picture is not for a terminal: it says what would be seen. */
static void draw_notice(const struct text_screen *screen, struct buf *out)
{
    if (screen->width)
        buf_printf(out,
                   "[the screen shows graphics, %ux%u: `tenon screenshot` makes a picture of it]",
                   screen->width, screen->height);
}

static bool is_equal(const struct text_screen *a, const struct text_screen *b)
{
    if (a->columns != b->columns || a->rows != b->rows || a->width != b->width ||
        a->height != b->height || a->cursor != b->cursor ||
        (a->cursor && (a->cursor_column != b->cursor_column || a->cursor_row != b->cursor_row)))
        return false;
    for (unsigned y = 0; y < a->rows; y++) {
        if (memcmp(a->cell[y], b->cell[y], a->columns * sizeof(a->cell[y][0])))
            return false;
    }
    return true;
}

void text_terminal_draw(struct text_terminal *terminal, const struct text_screen *screen,
                        struct buf *out)
{
    struct text_screen *shown = &terminal->shown;

    if (terminal->drawn && is_equal(shown, screen))
        return;
    if (shown->columns != screen->columns || shown->rows != screen->rows ||
        shown->width != screen->width || shown->height != screen->height)
        terminal->drawn = false;
    unsigned top = choose_top(terminal, screen);
    if (top != terminal->top)
        terminal->drawn = false;
    terminal->top = top;
    buf_printf(out, "\x1b[?25l");
    if (!terminal->drawn)
        buf_printf(out, "\x1b[0m\x1b[H\x1b[2J");
    draw_cells(terminal, screen, out);
    if (!screen->columns && !terminal->drawn)
        draw_notice(screen, out);
    draw_cursor(terminal, screen, out);
    *shown = *screen;
    terminal->drawn = true;
}

void text_terminal_forget(struct text_terminal *terminal)
{
    terminal->drawn = false;
}

void text_terminal_leave(struct text_terminal *terminal, struct buf *out)
{
    if (terminal->drawn)
        buf_printf(out, "\x1b[0m\x1b[%u;1H\x1b[?25h\r\n",
                   MAX(shown_rows(terminal, &terminal->shown), 1u));
    terminal->drawn = false;
}
