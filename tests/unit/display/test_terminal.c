/*
 * Screens drawn in a terminal, and what a terminal sends.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "display/terminal_input.h"
#include "display/text_terminal.h"

/* --- input --- */

static struct {
    struct key_stroke stroke[64];
    unsigned count, rows, columns;
} got;

static void on_stroke(void *opaque, const struct key_stroke *stroke)
{
    assert_true(got.count < ARRAY_SIZE(got.stroke));
    got.stroke[got.count++] = *stroke;
}

static void on_size(void *opaque, unsigned rows, unsigned columns)
{
    got.rows = rows;
    got.columns = columns;
}

static void type(struct terminal_input *input, const char *bytes)
{
    memset(&got, 0, sizeof(got));
    input->stroke = on_stroke;
    input->size = on_size;
    for (; *bytes; bytes++)
        terminal_input_byte(input, (uint8_t)*bytes);
}

/* The only stroke is these keys. */
static void expect(unsigned count, ...)
{
    va_list keys;
    assert_int_equal(got.count, 1);
    assert_int_equal(got.stroke[0].count, count);
    va_start(keys, count);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(got.stroke[0].key[i], va_arg(keys, int));
    va_end(keys);
}

static void names_and_numbers(void **state)
{
    assert_int_equal(key_find("ret"), 0x1c);
    assert_int_equal(key_find("kp_enter"), 0x9c);
    assert_int_equal(key_find("delete"), 0xd3);
    assert_int_equal(key_find("f12"), 0x58);
    assert_int_equal(key_find("less"), 0x56);
    assert_int_equal(key_find("any"), KEY_NONE);
    assert_int_equal(key_find(""), KEY_NONE);
}

static void every_printable_character_has_keys(void **state)
{
    for (unsigned c = ' '; c < 0x7f; c++) {
        struct key_stroke stroke = {0};
        assert_true(key_stroke_character(&stroke, (unsigned char)c));
        assert_true(stroke.count == 1 || (stroke.count == 2 && stroke.key[0] == KEY_SHIFT));
    }
    struct key_stroke stroke = {0};
    assert_false(key_stroke_character(&stroke, 0xc3));
    for (unsigned i = 0; i < KEYS_TOGETHER_MAX; i++)
        assert_true(key_stroke_add(&stroke, KEY_TAB));
    assert_false(key_stroke_add(&stroke, KEY_TAB));
}

static void characters_become_keys(void **state)
{
    struct terminal_input input = {0};
    type(&input, "q");
    expect(1, 0x10);
    type(&input, "Q");
    expect(2, KEY_SHIFT, 0x10);
    type(&input, "\r");
    expect(1, KEY_RET);
    type(&input, "\x7f");
    expect(1, KEY_BACKSPACE);
    type(&input, "\x03");
    expect(2, KEY_CTRL, 0x2e);
    type(&input, "\x1c");
    expect(2, KEY_CTRL, 0x2b);
    type(&input, "\x1bx");
    expect(2, KEY_ALT, 0x2d);
    type(&input, "\xc3\xa4");
    assert_int_equal(got.count, 0);
}

static void sequences_become_keys(void **state)
{
    static const struct {
        const char *bytes;
        int key;
    } cases[] = {{"\x1b[A", KEY_UP},      {"\x1bOB", KEY_DOWN},     {"\x1b[1~", KEY_HOME},
                 {"\x1b[H", KEY_HOME},    {"\x1b[3~", KEY_DELETE},  {"\x1b[6~", KEY_PGDN},
                 {"\x1bOP", KEY_F1},      {"\x1b[15~", KEY_F1 + 4}, {"\x1b[24~", KEY_F12},
                 {"\x1b[[C", KEY_F1 + 2}, {"\x1b[21~", KEY_F1 + 9}};
    struct terminal_input input = {0};
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        type(&input, cases[i].bytes);
        expect(1, cases[i].key);
        assert_false(terminal_input_waits(&input));
    }
    type(&input, "\x1b[1;5C");
    expect(2, KEY_CTRL, KEY_RIGHT);
    type(&input, "\x1b[3;2~");
    expect(2, KEY_SHIFT, KEY_DELETE);
    type(&input, "\x1b[Z");
    expect(2, KEY_SHIFT, KEY_TAB);
    type(&input, "\x1b[8;50;132t");
    assert_int_equal(got.rows, 50);
    assert_int_equal(got.columns, 132);
    /* What no key sends is nothing, and ends. */
    type(&input, "\x1b[99~\x1b[?25h\x1b[99999999999999999999;1A\x1b[~");
    type(&input, "\x1b[000000000000000000000000000000000000000");
    while (terminal_input_waits(&input))
        terminal_input_byte(&input, 'm');
    type(&input, "a");
    expect(1, 0x1e);
}

static void escape_alone_is_a_key(void **state)
{
    struct terminal_input input = {0};
    type(&input, "\x1b");
    assert_true(terminal_input_waits(&input));
    terminal_input_flush(&input);
    expect(1, KEY_ESC);
    type(&input, "\x1b[");
    terminal_input_flush(&input);
    expect(2, KEY_ALT, 0x1a);
    type(&input, "\x1b\x1b");
    expect(1, KEY_ESC);
    terminal_input_flush(&input);
    assert_int_equal(got.count, 2);
}

/* --- output --- */

static void put(struct text_screen *screen, unsigned x, unsigned y, const char *text)
{
    for (; *text; text++, x++)
        screen->cell[y][x] = (struct text_cell){(uint8_t)*text, 0x07};
}

static struct text_screen *screen_new(unsigned columns, unsigned rows)
{
    struct text_screen *screen = xcalloc(1, sizeof(*screen));
    screen->columns = columns;
    screen->rows = rows;
    for (unsigned y = 0; y < rows; y++)
        for (unsigned x = 0; x < columns; x++)
            screen->cell[y][x] = (struct text_cell){' ', 0x07};
    return screen;
}

static struct text_terminal *terminal;

static int setup(void **state)
{
    terminal = xcalloc(1, sizeof(*terminal));
    return 0;
}

static int teardown(void **state)
{
    free(terminal);
    return 0;
}

static void draws(const struct text_screen *screen, const char *expected)
{
    struct buf out = BUF_INIT;
    text_terminal_draw(terminal, screen, &out);
    assert_string_equal(out.data ? (char *)out.data : "", expected);
    buf_fini(&out);
}

#define BEGIN "\x1b[?25l"
#define CLEAR "\x1b[0m\x1b[H\x1b[2J"
#define END "\x1b[0m\x1b[?25l"

static void only_changes_are_drawn(void **state)
{
    struct text_screen *screen = screen_new(3, 2);
    put(screen, 0, 0, "ab");
    draws(screen, BEGIN CLEAR "\x1b[1;1H\x1b[0mab \x1b[2;1H   " END);
    draws(screen, "");
    put(screen, 1, 1, "x");
    draws(screen, BEGIN "\x1b[2;2H\x1b[0mx" END);
    screen->cursor = true;
    screen->cursor_column = 2;
    draws(screen, BEGIN "\x1b[1;3H\x1b[?25h");
    text_terminal_forget(terminal);
    draws(screen, BEGIN CLEAR "\x1b[1;1H\x1b[0mab \x1b[2;1H x \x1b[0m\x1b[1;3H\x1b[?25h");
    free(screen);
}

static void colours_and_code_page(void **state)
{
    struct text_screen *screen = screen_new(4, 1);
    screen->cell[0][0] = (struct text_cell){0xc9, 0x07}; /* box drawing */
    screen->cell[0][1] = (struct text_cell){0xe1, 0x1e}; /* yellow on blue */
    screen->cell[0][2] = (struct text_cell){0x18, 0xc0}; /* black on bright red */
    screen->cell[0][3] = (struct text_cell){0x1b, 0x07}; /* an arrow, never an escape */
    draws(screen, BEGIN CLEAR "\x1b[1;1H\x1b[0m\u2554\x1b[0;93;44m\u00df\x1b[0;30;101m\u2191\x1b[0m"
                              "\u2190" END);
    free(screen);
}

static void a_small_terminal_shows_the_cursor(void **state)
{
    struct text_screen *screen = screen_new(4, 4);
    put(screen, 0, 0, "0000");
    put(screen, 0, 3, "3333");
    terminal->rows = 2;
    terminal->columns = 3;
    draws(screen, BEGIN CLEAR "\x1b[1;1H\x1b[0m000\x1b[2;1H   " END);
    screen->cursor = true;
    screen->cursor_row = 3;
    screen->cursor_column = 1;
    draws(screen, BEGIN CLEAR "\x1b[1;1H\x1b[0m   \x1b[2;1H333\x1b[0m\x1b[2;2H\x1b[?25h");
    screen->cursor_row = 1;
    draws(screen, BEGIN CLEAR "\x1b[1;1H\x1b[0m   \x1b[2;1H   \x1b[0m\x1b[1;2H\x1b[?25h");
    free(screen);
}

static void graphics_are_only_named(void **state)
{
    struct text_screen *screen = screen_new(0, 0);
    struct buf out = BUF_INIT;
    screen->width = 640;
    screen->height = 480;
    text_terminal_draw(terminal, screen, &out);
    assert_non_null(strstr((char *)out.data, "graphics, 640x480"));
    buf_fini(&out);
    draws(screen, "");
    text_terminal_leave(terminal, &out);
    assert_string_equal((char *)out.data, "\x1b[0m\x1b[1;1H\x1b[?25h\r\n");
    buf_fini(&out);
    free(screen);
}

int main(void)
{
#define SCREEN_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_numbers),
        cmocka_unit_test(every_printable_character_has_keys),
        cmocka_unit_test(characters_become_keys),
        cmocka_unit_test(sequences_become_keys),
        cmocka_unit_test(escape_alone_is_a_key),
        SCREEN_TEST(only_changes_are_drawn),
        SCREEN_TEST(colours_and_code_page),
        SCREEN_TEST(a_small_terminal_shows_the_cursor),
        SCREEN_TEST(graphics_are_only_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
