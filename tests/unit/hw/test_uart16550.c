/*
 * The 16550A: identification, FIFOs, interrupts in their order, loop-back, both directions of a
 * stream.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "board_env.h"
#include "hw/serial/uart16550.h"

#define PORT 0x3f8

struct fixture {
    struct board_env board;
    struct uart16550 *uart;
    struct stream *stream;
    int peer;
};

static struct uart16550 *uart_new(struct board_env *board, struct stream *stream)
{
    struct device *device = device_new(&uart16550_class, &board->env, "com1");
    struct uart16550 *uart = (struct uart16550 *)device;
    uart->port = PORT;
    uart->irq = board_line(board, 4);
    uart->stream = stream;
    board_ok(device_realize(device));
    return uart;
}

static int setup(void **state)
{
    static struct fixture f;
    int pair[2];
    board_init(&f.board);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    board_ok(stream_new_fds(f.board.env.loop, pair[0], pair[0], &f.stream));
    f.peer = pair[1];
    f.uart = uart_new(&f.board, f.stream);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    device_free(&f->uart->device);
    stream_free(f->stream);
    close(f->peer);
    board_fini(&f->board);
    return 0;
}

static uint8_t get(struct fixture *f, unsigned reg)
{
    return (uint8_t)board_in(&f->board, (uint16_t)(PORT + reg), 1);
}

static void set(struct fixture *f, unsigned reg, uint8_t value)
{
    board_out(&f->board, (uint16_t)(PORT + reg), 1, value);
}

/* Sends to the guest, and turns the loop until `count` bytes are in the FIFO. */
static void feed(struct fixture *f, const char *bytes, size_t len, unsigned count)
{
    assert_int_equal(write(f->peer, bytes, len), len);
    uint64_t limit = clock_now_ns() + NSEC_PER_SEC;
    while (f->uart->rx_len < count && clock_now_ns() < limit)
        loop_once(f->board.env.loop, 5);
    assert_int_equal(f->uart->rx_len, count);
}

static void is_a_16550a(void **state)
{
    struct fixture *f = *state;
    set(f, 7, 0x5a);
    assert_int_equal(get(f, 7), 0x5a);
    set(f, 1, 0xff);
    assert_int_equal(get(f, 1), 0x0f);
    set(f, 1, 0);
    set(f, 2, 0x01);
    assert_int_equal(get(f, 2) & 0xc0, 0xc0);
    set(f, 2, 0x00);
    assert_int_equal(get(f, 2), 0x01);
    set(f, 3, 0x83);
    set(f, 0, 0x01);
    set(f, 1, 0x02);
    assert_int_equal(get(f, 0), 0x01);
    assert_int_equal(get(f, 1), 0x02);
    assert_int_equal(f->uart->divisor, 0x0201);
    set(f, 3, 0x03);
    assert_int_equal(get(f, 1), 0);
    assert_int_equal(get(f, 5), 0x60);
    /* Modem inputs in loop-back are the outputs. */
    set(f, 4, 0x10 | 0x0a);
    assert_int_equal(get(f, 6) & 0xf0, 0x90);
    set(f, 4, 0x00);
    assert_int_equal(get(f, 6) & 0xf0, 0xb0);
}

static void output_arrives(void **state)
{
    struct fixture *f = *state;
    char text[2000];
    for (unsigned line = 0; line < 20; line++) {
        for (unsigned i = 0; i < 79; i++)
            set(f, 0, (uint8_t)('a' + i % 26));
        set(f, 0, '\n');
    }
    assert_int_equal(read(f->peer, text, sizeof(text)), 1600);
    assert_int_equal(text[79], '\n');
    set(f, 0, '#'); /* no end of line: comes by the timer */
    uint64_t limit = clock_now_ns() + NSEC_PER_SEC;
    ssize_t got = -1;
    while (got < 0 && clock_now_ns() < limit) {
        loop_once(f->board.env.loop, 5);
        got = read(f->peer, text, sizeof(text));
    }
    assert_int_equal(got, 1);
    /* What is left at the end is not lost. */
    set(f, 0, '!');
    device_quiesce(&f->uart->device);
    assert_int_equal(read(f->peer, text, sizeof(text)), 1);
    device_resume(&f->uart->device);
}

static void transmitter_interrupts(void **state)
{
    struct fixture *f = *state;
    set(f, 4, 0x08);
    set(f, 1, 0x02);
    assert_true(f->board.level[4]);
    assert_int_equal(get(f, 2), 0x02);
    assert_false(f->board.level[4]); /* reading told it */
    assert_int_equal(get(f, 2), 0x01);
    set(f, 0, 'x');
    assert_int_equal(f->board.rises[4], 2);
    set(f, 0, 'y'); /* a new edge for each */
    assert_int_equal(f->board.rises[4], 3);
    set(f, 4, 0x00); /* OUT2 cuts the wire */
    assert_false(f->board.level[4]);
    set(f, 4, 0x08);
    assert_true(f->board.level[4]);
    set(f, 1, 0x00);
    assert_false(f->board.level[4]);
}

static void receiver_interrupts(void **state)
{
    struct fixture *f = *state;
    set(f, 2, 0x41); /* trigger at four */
    set(f, 4, 0x08);
    set(f, 1, 0x01);
    feed(f, "ab", 2, 2);
    assert_true(f->board.level[4]);
    assert_int_equal(get(f, 2), 0xcc); /* time-out */
    feed(f, "cd", 2, 4);
    assert_int_equal(get(f, 2), 0xc4);
    assert_int_equal(get(f, 5) & 1, 1);
    for (const char *c = "abcd"; *c; c++)
        assert_int_equal(get(f, 0), *c);
    assert_false(f->board.level[4]);
    assert_int_equal(get(f, 5) & 1, 0);
    assert_int_equal(get(f, 0), 0);
}

static void no_input_is_lost(void **state)
{
    struct fixture *f = *state;
    char text[1000];
    unsigned got = 0;
    for (unsigned i = 0; i < sizeof(text); i++)
        text[i] = (char)('0' + i % 75);
    set(f, 2, 0x01);
    feed(f, text, sizeof(text), 16);
    uint64_t limit = clock_now_ns() + 3 * NSEC_PER_SEC;
    while (got < sizeof(text) && clock_now_ns() < limit) {
        while (get(f, 5) & 1) {
            assert_int_equal(get(f, 0), text[got]);
            got++;
        }
        loop_once(f->board.env.loop, 5);
    }
    assert_int_equal(got, sizeof(text));
    assert_int_equal(get(f, 5) & 2, 0);
}

static void loop_back_overruns(void **state)
{
    struct fixture *f = *state;
    set(f, 2, 0x01);
    set(f, 4, 0x18);
    set(f, 1, 0x04);
    for (unsigned i = 0; i < 17; i++)
        set(f, 0, (uint8_t)i);
    assert_false(f->board.level[4]);
    assert_int_equal(get(f, 2), 0xc6);
    assert_int_equal(get(f, 5), 0x63);
    assert_int_equal(get(f, 5), 0x61);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(get(f, 0), i);
    set(f, 0, 9);
    set(f, 2, 0x03); /* clear the receiver */
    assert_int_equal(get(f, 5), 0x60);
    /* A byte of the other side did not come through. */
    char byte;
    assert_int_equal(read(f->peer, &byte, 1), -1);
    assert_int_equal(errno, EAGAIN);
}

static void state_comes_back(void **state)
{
    struct fixture *f = *state;
    struct board_env second;
    set(f, 2, 0x81);
    set(f, 4, 0x0b);
    set(f, 1, 0x07);
    set(f, 7, 0x33);
    feed(f, "hello", 5, 5);
    get(f, 0);
    board_init(&second);
    struct uart16550 *fresh = uart_new(&second, NULL);
    board_round_trip(&f->uart->device, &fresh->device);
    for (const char *c = "ello"; *c; c++)
        assert_int_equal(board_in(&second, PORT, 1), *c);
    device_free(&fresh->device);
    board_fini(&second);
}

static void any_write_is_survived(void **state)
{
    struct fixture *f = *state;
    uint32_t seed = 11;
    for (unsigned i = 0; i < 20000; i++) {
        seed = seed * 1664525 + 1013904223;
        board_out(&f->board, (uint16_t)(PORT + (seed >> 28)), 1u << (seed >> 26 & 1),
                  seed >> 8 & 0xff);
        get(f, seed >> 21 & 7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(is_a_16550a, setup, teardown),
        cmocka_unit_test_setup_teardown(output_arrives, setup, teardown),
        cmocka_unit_test_setup_teardown(transmitter_interrupts, setup, teardown),
        cmocka_unit_test_setup_teardown(receiver_interrupts, setup, teardown),
        cmocka_unit_test_setup_teardown(no_input_is_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(loop_back_overruns, setup, teardown),
        cmocka_unit_test_setup_teardown(state_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(any_write_is_survived, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
