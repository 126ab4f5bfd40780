/*
 * Keyboard controller with empty ports, debug exit, debug console.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <unistd.h>

#include "board_env.h"
#include "hw/chipset/debug.h"
#include "hw/chipset/testdev.h"
#include "hw/input/i8042.h"

struct fixture {
    struct board_env board;
    struct i8042 *kbc;
};

static struct i8042 *i8042_new(struct board_env *board)
{
    struct device *device = device_new(&i8042_class, &board->env, "i8042");
    struct i8042 *kbc = (struct i8042 *)device;
    kbc->keyboard_irq = board_line(board, 1);
    kbc->mouse_irq = board_line(board, 12);
    board_ok(device_realize(device));
    return kbc;
}

static int setup(void **state)
{
    static struct fixture f;
    board_init(&f.board);
    f.kbc = i8042_new(&f.board);
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

static unsigned status(struct fixture *f)
{
    return (unsigned)board_in(&f->board, 0x64, 1);
}

static unsigned command(struct fixture *f, unsigned value)
{
    board_out(&f->board, 0x64, 1, value);
    assert_int_equal(status(f) & 0x01, 0x01);
    return (unsigned)board_in(&f->board, 0x60, 1);
}

/* The steps of Linux's probe. */
static void is_found_by_a_probe(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(status(f) & 0x03, 0);
    assert_int_equal(command(f, 0xaa), 0x55);
    unsigned control = command(f, 0x20);
    assert_int_equal(control & 0x04, 0x04);
    board_out(&f->board, 0x64, 1, 0x60);
    board_out(&f->board, 0x60, 1, (control | 0x10) & ~0x01u);
    assert_int_equal(command(f, 0x20), (control | 0x10) & ~0x01u);
    /* What the loop command sends comes back as the mouse's. */
    board_out(&f->board, 0x64, 1, 0xd3);
    board_out(&f->board, 0x60, 1, 0x5a);
    assert_int_equal(status(f) & 0x21, 0x21);
    assert_int_equal(board_in(&f->board, 0x60, 1), 0x5a);
    board_out(&f->board, 0x64, 1, 0xa7);
    assert_int_equal(command(f, 0x20) & 0x20, 0x20);
    board_out(&f->board, 0x64, 1, 0xa8);
    assert_int_equal(command(f, 0x20) & 0x20, 0);
    assert_int_equal(command(f, 0xa9), 0);
    assert_int_equal(command(f, 0xab), 0);
    assert_int_equal(status(f) & 0x01, 0);
}

static void empty_ports_time_out(void **state)
{
    struct fixture *f = *state;
    board_out(&f->board, 0x60, 1, 0xf2); /* identify */
    assert_true(f->board.level[1]);
    assert_int_equal(status(f) & 0x61, 0x41);
    assert_int_equal(board_in(&f->board, 0x60, 1), 0xfe);
    assert_false(f->board.level[1]);
    assert_int_equal(status(f) & 0x61, 0);
    board_out(&f->board, 0x64, 1, 0xd4);
    board_out(&f->board, 0x60, 1, 0xf2);
    assert_int_equal(status(f) & 0x61, 0x61);
    assert_int_equal(board_in(&f->board, 0x60, 1), 0xfe);
    /* Answers queue up, in order, and no further than they fit. */
    for (unsigned i = 0; i < 10; i++) {
        board_out(&f->board, 0x64, 1, 0xd2);
        board_out(&f->board, 0x60, 1, 0x10 + i);
    }
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(board_in(&f->board, 0x60, 1), 0x10 + i);
    assert_int_equal(status(f) & 0x01, 0);
}

static void resets(void **state)
{
    struct fixture *f = *state;
    board_out(&f->board, 0x64, 1, 0xff);
    assert_int_equal(command(f, 0xd0), 0x03);
    board_out(&f->board, 0x64, 1, 0xd1);
    board_out(&f->board, 0x60, 1, 0x03);
    board_out(&f->board, 0x92, 1, 0x02);
    assert_int_equal(board_in(&f->board, 0x92, 1), 0x02);
    assert_int_equal(f->board.power_count, 0);
    board_out(&f->board, 0x64, 1, 0xfe);
    assert_int_equal(f->board.power_count, 1);
    assert_int_equal(f->board.power, HW_POWER_RESET);
    board_out(&f->board, 0x92, 1, 0x01);
    assert_int_equal(f->board.power_count, 2);
    board_out(&f->board, 0x64, 1, 0xd1);
    board_out(&f->board, 0x60, 1, 0x02);
    assert_int_equal(f->board.power_count, 3);
}

static void state_comes_back(void **state)
{
    struct fixture *f = *state;
    struct board_env second;
    board_out(&f->board, 0x60, 1, 0xf2);
    board_out(&f->board, 0x64, 1, 0xd2);
    board_out(&f->board, 0x60, 1, 0x77);
    board_out(&f->board, 0x64, 1, 0xd4);
    board_init(&second);
    struct i8042 *kbc = i8042_new(&second);
    board_round_trip(&f->kbc->device, &kbc->device);
    assert_int_equal(board_in(&second, 0x60, 1), 0xfe);
    assert_int_equal(board_in(&second, 0x60, 1), 0x77);
    device_free(&kbc->device);
    board_fini(&second);
}

static void debug_exit_ends(void **state)
{
    struct fixture *f = *state;
    struct device *device = device_new(&debug_exit_class, &f->board.env, "exit");
    board_ok(device_realize(device));
    board_out(&f->board, 0xf4, 1, 0x2a);
    assert_int_equal(f->board.power, HW_POWER_EXIT);
    assert_int_equal(f->board.power_status, 0x2a);
    board_out(&f->board, 0xf4, 4, 0x12345678);
    assert_int_equal(f->board.power_status, 0x12345678);
    device_free(device);
}

static void debug_console_writes(void **state)
{
    struct fixture *f = *state;
    int pipes[2];
    char text[64];
    struct stream *stream;
    assert_int_equal(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
    board_ok(stream_new_fds(f->board.env.loop, -1, pipes[1], &stream));
    struct device *device = device_new(&debug_console_class, &f->board.env, "console");
    ((struct debug_console *)device)->stream = stream;
    board_ok(device_realize(device));
    assert_int_equal(board_in(&f->board, 0xe9, 1), 0xe9);
    for (const char *c = "hello\n"; *c; c++)
        board_out(&f->board, 0xe9, 1, (uint8_t)*c);
    assert_int_equal(read(pipes[0], text, sizeof(text)), 6);
    assert_memory_equal(text, "hello\n", 6);
    /* Without a line's end, after a moment. */
    board_out(&f->board, 0xe9, 1, '>');
    uint64_t limit = clock_now_ns() + NSEC_PER_SEC;
    ssize_t got = -1;
    while (got < 0 && clock_now_ns() < limit) {
        loop_once(f->board.env.loop, 5);
        got = read(pipes[0], text, sizeof(text));
    }
    assert_int_equal(got, 1);
    board_out(&f->board, 0xe9, 1, '!');
    device_free(device); /* takes nothing with it */
    assert_int_equal(read(pipes[0], text, sizeof(text)), 1);
    stream_free(stream);
    close(pipes[0]);
}

static void testdev_answers(void **state)
{
    struct fixture *f = *state;
    struct testdev *dev = (struct testdev *)device_new(&testdev_class, &f->board.env, "testdev");
    for (unsigned i = 0; i < TESTDEV_LINES; i++)
        dev->line[i] = board_line(&f->board, i);
    board_ok(device_realize(&dev->device));
    board_out(&f->board, 0xe0, 4, 0x12345678);
    board_out(&f->board, 0xe1, 1, 0xab);
    board_out(&f->board, 0xe4, 4, 0xffffffff);
    assert_int_equal(board_in(&f->board, 0xe0, 4), 0x1234ab78);
    assert_int_equal(board_in(&f->board, 0xe2, 2), 0x1234);
    assert_int_equal(board_in(&f->board, 0xe4, 4), 0);
    board_out(&f->board, 0x2000 + 14, 1, 1);
    board_out(&f->board, 0x2000 + 23, 1, 0x80);
    assert_true(f->board.level[14] && f->board.level[23] && !f->board.level[13]);
    assert_int_equal(board_in(&f->board, 0x2000 + 23, 1), 1);
    board_out(&f->board, 0x2000 + 14, 1, 0);
    assert_false(f->board.level[14]);
    io_bus_write(f->board.env.mmio, 0xff00fff8, 8, 0x1122334455667788);
    assert_int_equal(io_bus_read(f->board.env.mmio, 0xff00fffe, 2), 0x1122);

    struct board_env second;
    board_init(&second);
    struct testdev *other = (struct testdev *)device_new(&testdev_class, &second.env, "testdev");
    board_ok(device_realize(&other->device));
    board_round_trip(&dev->device, &other->device);
    assert_int_equal(board_in(&second, 0xe0, 4), 0x1234ab78);
    assert_int_equal(io_bus_read(second.env.mmio, 0xff00fff8, 4), 0x55667788);
    device_free(&other->device);
    board_fini(&second);

    device_reset(&dev->device);
    assert_false(f->board.level[23]);
    assert_int_equal(board_in(&f->board, 0xe0, 4), 0);
    assert_int_equal(io_bus_read(f->board.env.mmio, 0xff00fff8, 8), 0);
    device_free(&dev->device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(is_found_by_a_probe, setup, teardown),
        cmocka_unit_test_setup_teardown(empty_ports_time_out, setup, teardown),
        cmocka_unit_test_setup_teardown(resets, setup, teardown),
        cmocka_unit_test_setup_teardown(state_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(debug_exit_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(debug_console_writes, setup, teardown),
        cmocka_unit_test_setup_teardown(testdev_answers, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
