/*
 * Keyboard and mouse behind the i8042: scan code sets, translation, commands, packets, interrupts.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "board_env.h"
#include "hw/input/i8042.h"
#include "hw/input/key_player.h"

struct fixture {
    struct board_env board;
    struct i8042 *kbc;
};

static struct i8042 *i8042_new(struct board_env *board)
{
    struct i8042 *kbc = (struct i8042 *)device_new(&i8042_class, &board->env, "i8042");
    kbc->keyboard_irq = board_line(board, 1);
    kbc->mouse_irq = board_line(board, 12);
    kbc->plugged = true;
    board_ok(device_realize(&kbc->device));
    return kbc;
}

static void control(struct fixture *f, unsigned value)
{
    board_out(&f->board, 0x64, 1, 0x60);
    board_out(&f->board, 0x60, 1, value);
}

/* Both ports on, both interrupts, no translation. */
#define RAW 0x07
#define TRANSLATED 0x47

static int setup(void **state)
{
    static struct fixture f;
    board_init(&f.board);
    f.kbc = i8042_new(&f.board);
    control(&f, RAW);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    device_free(&f->kbc->device);
    board_fini(&f->board);
    return 0;
}

/* What the output buffer gives, `n` bytes and no more, must be these. */
static void expect(struct fixture *f, bool mouse, unsigned n, const uint8_t *bytes)
{
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(board_in(&f->board, 0x64, 1) & 0x21, mouse ? 0x21 : 0x01);
        assert_int_equal(board_in(&f->board, 0x60, 1), bytes[i]);
    }
    assert_int_equal(board_in(&f->board, 0x64, 1) & 0x01, 0);
}

#define EXPECT(mouse, ...)                                                                         \
    do {                                                                                           \
        const uint8_t bytes_[] = {__VA_ARGS__};                                                    \
        expect(f, mouse, sizeof(bytes_), bytes_);                                                  \
    } while (0)

static void keyboard(struct fixture *f, unsigned byte)
{
    board_out(&f->board, 0x60, 1, byte);
}

static void mouse(struct fixture *f, unsigned byte)
{
    board_out(&f->board, 0x64, 1, 0xd4);
    board_out(&f->board, 0x60, 1, byte);
}

static void press(struct fixture *f, uint8_t key)
{
    i8042_key(f->kbc, key, true);
    i8042_key(f->kbc, key, false);
}

static void keys_send_set_2(void **state)
{
    struct fixture *f = *state;
    press(f, key_find("a"));
    EXPECT(false, 0x1c, 0xf0, 0x1c);
    press(f, key_find("right"));
    EXPECT(false, 0xe0, 0x74, 0xe0, 0xf0, 0x74);
    press(f, key_find("f7"));
    EXPECT(false, 0x83, 0xf0, 0x83);
    press(f, key_find("print"));
    EXPECT(false, 0xe0, 0x12, 0xe0, 0x7c, 0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12);
    press(f, key_find("pause"));
    EXPECT(false, 0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77);
}

static void the_controller_translates_to_set_1(void **state)
{
    struct fixture *f = *state;
    control(f, TRANSLATED);
    /* Every key that has a name comes out as its own number. */
    for (unsigned code = 1; code < 0x59; code++) {
        if (code == 0x55 || code == 0x54)
            continue;
        press(f, (uint8_t)code);
        EXPECT(false, (uint8_t)code, (uint8_t)(code | 0x80));
    }
    press(f, key_find("delete"));
    EXPECT(false, 0xe0, 0x53, 0xe0, 0xd3);
    press(f, key_find("sysrq"));
    EXPECT(false, 0x54, 0xd4);
    press(f, key_find("pause"));
    EXPECT(false, 0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5);
    /* Answers go through it as well. */
    keyboard(f, 0xf2);
    EXPECT(false, 0xfa, 0xab, 0x41);
}

static void keyboard_answers(void **state)
{
    struct fixture *f = *state;
    keyboard(f, 0xff);
    EXPECT(false, 0xfa, 0xaa);
    keyboard(f, 0xf2);
    EXPECT(false, 0xfa, 0xab, 0x83);
    keyboard(f, 0xee);
    EXPECT(false, 0xee);
    keyboard(f, 0xed);
    EXPECT(false, 0xfa);
    keyboard(f, 0x05);
    EXPECT(false, 0xfa);
    assert_int_equal(f->kbc->keyboard.leds, 5);
    keyboard(f, 0xfe); /* again, please */
    EXPECT(false, 0xfa);
    keyboard(f, 0xf0);
    EXPECT(false, 0xfa);
    keyboard(f, 0x00);
    EXPECT(false, 0xfa, 2);
    keyboard(f, 0xf0);
    EXPECT(false, 0xfa);
    keyboard(f, 0x01);
    EXPECT(false, 0xfa);
    press(f, key_find("up"));
    EXPECT(false, 0xe0, 0x48, 0xe0, 0xc8);
    press(f, key_find("pause"));
    EXPECT(false, 0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5);
    keyboard(f, 0xf0);
    EXPECT(false, 0xfa);
    keyboard(f, 0x03); /* we have no set 3 */
    EXPECT(false, 0xfe);
    keyboard(f, 0x17);
    EXPECT(false, 0xfe);
    /* A command instead of a parameter is a command. */
    keyboard(f, 0xf3);
    EXPECT(false, 0xfa);
    keyboard(f, 0xf5);
    EXPECT(false, 0xfa);
    press(f, key_find("a"));
    assert_int_equal(board_in(&f->board, 0x64, 1) & 0x01, 0);
    keyboard(f, 0xf4);
    EXPECT(false, 0xfa);
}

static void each_byte_is_an_interrupt(void **state)
{
    struct fixture *f = *state;
    unsigned before = f->board.rises[1];
    press(f, key_find("a"));
    assert_true(f->board.level[1]);
    EXPECT(false, 0x1c, 0xf0, 0x1c);
    assert_int_equal(f->board.rises[1] - before, 3);
    assert_false(f->board.level[1]);
    /* While its port is off, a key waits. */
    board_out(&f->board, 0x64, 1, 0xad);
    press(f, key_find("b"));
    assert_int_equal(board_in(&f->board, 0x64, 1) & 0x01, 0);
    board_out(&f->board, 0x64, 1, 0xae);
    EXPECT(false, 0x32, 0xf0, 0x32);
    /* A guest that does not listen loses keys, whole ones. */
    for (unsigned i = 0; i < 100; i++)
        press(f, key_find("right"));
    unsigned left = 0;
    for (; board_in(&f->board, 0x64, 1) & 1; left++)
        board_in(&f->board, 0x60, 1);
    assert_true(left > 50 && left < 70);
}

static void the_mouse_reports_movement(void **state)
{
    struct fixture *f = *state;
    i8042_mouse(f->kbc, 5, 5, 0, MOUSE_LEFT); /* it does not report yet */
    assert_int_equal(board_in(&f->board, 0x64, 1) & 0x01, 0);
    mouse(f, 0xff);
    EXPECT(true, 0xfa, 0xaa, 0x00);
    mouse(f, 0xf2);
    EXPECT(true, 0xfa, 0x00);
    mouse(f, 0xf4);
    EXPECT(true, 0xfa);
    i8042_mouse(f->kbc, 3, -2, 0, MOUSE_LEFT);
    assert_true(f->board.level[12]);
    EXPECT(true, 0x09, 3, 2);
    i8042_mouse(f->kbc, -1, 300, 0, MOUSE_RIGHT);
    EXPECT(true, 0x3a, 0xff, 0x01, 0x2a, 0x00, 0xd3);
    mouse(f, 0xe8);
    EXPECT(true, 0xfa);
    mouse(f, 3);
    EXPECT(true, 0xfa);
    mouse(f, 0xe9);
    EXPECT(true, 0xfa, 0x21, 3, 100);
}

static void the_mouse_learns_of_its_wheel(void **state)
{
    static const uint8_t wheel[] = {200, 100, 80}, explorer[] = {200, 200, 80};
    struct fixture *f = *state;
    for (unsigned i = 0; i < 3; i++) {
        mouse(f, 0xf3);
        EXPECT(true, 0xfa);
        mouse(f, wheel[i]);
        EXPECT(true, 0xfa);
    }
    mouse(f, 0xf2);
    EXPECT(true, 0xfa, 3);
    mouse(f, 0xf4);
    EXPECT(true, 0xfa);
    i8042_mouse(f->kbc, 0, 0, -2, 0);
    EXPECT(true, 0x08, 0, 0, 0xfe);
    for (unsigned i = 0; i < 3; i++) {
        mouse(f, 0xf3);
        EXPECT(true, 0xfa);
        mouse(f, explorer[i]);
        EXPECT(true, 0xfa);
    }
    mouse(f, 0xf2);
    EXPECT(true, 0xfa, 4);
    i8042_mouse(f->kbc, 0, 0, 1, MOUSE_SIDE);
    EXPECT(true, 0x08, 0, 0, 0x11);
}

static void the_mouse_is_asked_or_wraps(void **state)
{
    struct fixture *f = *state;
    mouse(f, 0xf0); /* remote */
    EXPECT(true, 0xfa);
    i8042_mouse(f->kbc, 7, 0, 0, 0);
    assert_int_equal(board_in(&f->board, 0x64, 1) & 0x01, 0);
    mouse(f, 0xeb);
    EXPECT(true, 0xfa, 0x08, 7, 0);
    mouse(f, 0xee); /* wrap */
    EXPECT(true, 0xfa);
    mouse(f, 0x42);
    EXPECT(true, 0x42);
    mouse(f, 0xec);
    EXPECT(true, 0xfa);
    mouse(f, 0x42);
    EXPECT(true, 0xfe);
}

static void play(void *keyboard, uint8_t key, bool down)
{
    i8042_key(keyboard, key, down);
}

static void strokes_are_played_in_time(void **state)
{
    struct fixture *f = *state;
    struct key_player *player = key_player_new(f->board.env.loop, play, f->kbc);
    struct key_stroke stroke = {0};
    assert_true(key_stroke_character(&stroke, 'A'));
    assert_int_equal(stroke.count, 2);
    assert_true(key_player_play(player, &stroke, 1));
    assert_true(key_player_play(player, &stroke, 1));
    while (key_player_room(player) != 1024)
        loop_once(f->board.env.loop, 10);
    EXPECT(false, 0x12, 0x1c, 0xf0, 0x1c, 0xf0, 0x12, 0x12, 0x1c, 0xf0, 0x1c, 0xf0, 0x12);
    for (unsigned i = 0; i < 1024; i++)
        assert_true(key_player_play(player, &stroke, 1000));
    assert_false(key_player_play(player, &stroke, 1000));
    key_player_free(player);
}

static void state_survives(void **state)
{
    struct fixture *f = *state;
    struct board_env second;
    keyboard(f, 0xed);
    press(f, key_find("up"));
    mouse(f, 0xf4);
    i8042_mouse(f->kbc, -1000, 1, 1, MOUSE_MIDDLE);
    board_init(&second);
    struct i8042 *kbc = i8042_new(&second);
    board_round_trip(&f->kbc->device, &kbc->device);
    assert_int_equal(kbc->keyboard.command, 0xed);
    assert_int_equal(kbc->mouse.buttons, MOUSE_MIDDLE);
    device_free(&kbc->device);
    board_fini(&second);
}

static void a_state_out_of_range_is_refused(void **state)
{
    struct fixture *f = *state;
    uint8_t *const bytes[] = {&f->kbc->keyboard.out.count, &f->kbc->mouse.out.count,
                              &f->kbc->keyboard.set, &f->kbc->mouse.type, &f->kbc->queue_len};
    for (unsigned i = 0; i < ARRAY_SIZE(bytes); i++) {
        struct state_writer writer;
        uint8_t before = *bytes[i];
        *bytes[i] = 99;
        board_save(&f->kbc->device, &writer);
        *bytes[i] = before;
        struct err *err = board_load(&f->kbc->device, &writer.out);
        assert_non_null(err);
        err_free(err);
        state_writer_fini(&writer);
    }
}

int main(void)
{
#define PS2_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        PS2_TEST(keys_send_set_2),
        PS2_TEST(the_controller_translates_to_set_1),
        PS2_TEST(keyboard_answers),
        PS2_TEST(each_byte_is_an_interrupt),
        PS2_TEST(the_mouse_reports_movement),
        PS2_TEST(the_mouse_learns_of_its_wheel),
        PS2_TEST(the_mouse_is_asked_or_wraps),
        PS2_TEST(strokes_are_played_in_time),
        PS2_TEST(state_survives),
        PS2_TEST(a_state_out_of_range_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
