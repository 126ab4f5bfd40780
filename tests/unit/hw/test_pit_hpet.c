/*
 * Interval timers: 8254 channels and port 0x61, HPET counter and comparators.
 *
 * Time is the host's, so bounds are wide where a slow machine could miss narrow ones.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <time.h>

#include "board_env.h"
#include "hw/chipset/hpet.h"
#include "hw/chipset/layout.h"
#include "hw/chipset/pit.h"

struct fixture {
    struct board_env board;
    struct pit *pit;
    struct hpet *hpet;
};

static struct pit *pit_new(struct board_env *board)
{
    struct device *device = device_new(&pit_class, &board->env, "pit");
    ((struct pit *)device)->irq = board_line(board, 0);
    board_ok(device_realize(device));
    return (struct pit *)device;
}

static struct hpet *hpet_new(struct board_env *board)
{
    struct device *device = device_new(&hpet_class, &board->env, "hpet");
    struct hpet *hpet = (struct hpet *)device;
    hpet->base = LAYOUT_HPET_BASE;
    for (unsigned i = 0; i < 24; i++)
        hpet->pin[i] = board_line(board, i);
    hpet->isa0 = board_line(board, 30);
    hpet->isa8 = board_line(board, 31);
    board_ok(device_realize(device));
    return hpet;
}

static int setup(void **state)
{
    static struct fixture f;
    board_init(&f.board);
    f.pit = pit_new(&f.board);
    f.hpet = hpet_new(&f.board);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    device_free(&f->pit->device);
    device_free(&f->hpet->device);
    board_fini(&f->board);
    return 0;
}

static void sleep_ms(unsigned ms)
{
    struct timespec time = {.tv_sec = 0, .tv_nsec = ms * 1000000l};
    nanosleep(&time, NULL);
}

/* Stops device time, so that a test can move it. */
static void hold(struct fixture *f)
{
    hw_clock_hold(&f->pit->clock);
}

static void pass_ticks(struct fixture *f, uint64_t ticks)
{
    f->pit->clock.held_ns += mul_div_up(ticks, NSEC_PER_SEC, PIT_HZ);
}

static void load(struct fixture *f, unsigned channel, uint8_t control, unsigned count)
{
    board_out(&f->board, 0x43, 1, channel << 6 | control);
    board_out(&f->board, (uint16_t)(0x40 + channel), 1, count & 0xff);
    board_out(&f->board, (uint16_t)(0x40 + channel), 1, count >> 8);
}

static unsigned latch(struct fixture *f, unsigned channel)
{
    board_out(&f->board, 0x43, 1, channel << 6);
    unsigned low = (unsigned)board_in(&f->board, (uint16_t)(0x40 + channel), 1);
    return low | (unsigned)board_in(&f->board, (uint16_t)(0x40 + channel), 1) << 8;
}

static bool out2(struct fixture *f)
{
    return board_in(&f->board, 0x61, 1) & 0x20;
}

static void mode0_calibrates(void **state)
{
    struct fixture *f = *state;
    hold(f);
    board_out(&f->board, 0x61, 1, 0x01);
    load(f, 2, 0x30, 1000);
    assert_int_equal(latch(f, 2), 1000);
    assert_false(out2(f));
    pass_ticks(f, 400);
    assert_int_equal(latch(f, 2), 600);
    /* The gate stops it. */
    board_out(&f->board, 0x61, 1, 0x00);
    pass_ticks(f, 5000);
    assert_in_range(latch(f, 2), 599, 600);
    board_out(&f->board, 0x61, 1, 0x03);
    assert_int_equal(board_in(&f->board, 0x61, 1) & 3, 3);
    pass_ticks(f, 599);
    assert_false(out2(f));
    pass_ticks(f, 2);
    assert_true(out2(f));
    /* It counts on below zero. */
    pass_ticks(f, 10);
    assert_true(latch(f, 2) > 0xff00);
}

static void mode2_and_3_repeat(void **state)
{
    struct fixture *f = *state;
    hold(f);
    load(f, 1, 0x34, 100);
    pass_ticks(f, 1050);
    assert_in_range(latch(f, 1), 49, 50);
    load(f, 1, 0x36, 100);
    pass_ticks(f, 1010);
    assert_in_range(latch(f, 1), 78, 80);
    assert_int_equal(latch(f, 1) & 1, 0);
    /* Read back: status, then count. */
    board_out(&f->board, 0x43, 1, 0xc4);
    assert_int_equal(board_in(&f->board, 0x41, 1), 0x80 | 0x36);
    assert_int_equal(board_in(&f->board, 0x41, 1), latch(f, 1) & 0xff);
    /* Only the high byte; zero is the largest count. */
    board_out(&f->board, 0x43, 1, 0x64);
    board_out(&f->board, 0x41, 1, 0);
    assert_int_equal(f->pit->channel[1].reload, 65536);
    /* Decimal. */
    load(f, 1, 0x31, 0x1234);
    assert_int_equal(f->pit->channel[1].reload, 1234);
    pass_ticks(f, 34);
    assert_int_equal(latch(f, 1), 0x1200);
}

static void channel0_interrupts(void **state)
{
    struct fixture *f = *state;
    load(f, 0, 0x34, PIT_HZ / 1000);
    uint64_t start = clock_now_ns();
    board_wait_rises(&f->board, 0, 10);
    assert_true(clock_now_ns() - start >= 9 * NSEC_PER_MSEC);
    /* One shot. */
    load(f, 0, 0x30, PIT_HZ / 500);
    unsigned before = f->board.rises[0];
    assert_false(f->board.level[0]);
    board_wait_rises(&f->board, 0, before + 1);
    for (unsigned i = 0; i < 5; i++)
        loop_once(f->board.env.loop, 2);
    assert_int_equal(f->board.rises[0], before + 1);
    /* A guest that asks for a million interrupts a second does not get the loop. */
    load(f, 0, 0x34, 1);
    before = f->board.rises[0];
    start = clock_now_ns();
    while (clock_now_ns() < start + 20 * NSEC_PER_MSEC)
        loop_once(f->board.env.loop, 1);
    assert_true(f->board.rises[0] - before <= 210);
}

static void pit_stands_still_in_a_pause(void **state)
{
    struct fixture *f = *state;
    load(f, 1, 0x34, 0);
    device_quiesce(&f->pit->device);
    unsigned before = latch(f, 1);
    sleep_ms(3);
    assert_int_equal(latch(f, 1), before);
    device_resume(&f->pit->device);
    sleep_ms(1);
    assert_int_not_equal(latch(f, 1), before);
}

static void pit_state_comes_back(void **state)
{
    struct fixture *f = *state;
    struct board_env second;
    load(f, 0, 0x34, 2000);
    load(f, 2, 0x30, 40000);
    board_out(&f->board, 0x43, 1, 0x80);
    board_in(&f->board, 0x42, 1); /* half of a latched count is read */
    board_init(&second);
    struct pit *fresh = pit_new(&second);
    board_round_trip(&f->pit->device, &fresh->device);
    assert_int_equal(fresh->channel[2].reload, 40000);
    board_wait_rises(&second, 0, 2);
    device_free(&fresh->device);
    board_fini(&second);
}

static uint64_t hpet_get(struct fixture *f, unsigned reg, unsigned size)
{
    return io_bus_read(f->board.env.mmio, LAYOUT_HPET_BASE + reg, size);
}

static void hpet_set(struct fixture *f, unsigned reg, unsigned size, uint64_t value)
{
    io_bus_write(f->board.env.mmio, LAYOUT_HPET_BASE + reg, size, value);
}

static void hpet_counts(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(hpet_get(f, 0, 4), HPET_BLOCK_ID);
    assert_int_equal(hpet_get(f, 4, 4), 10000000); /* femtoseconds */
    assert_int_equal(hpet_get(f, 0xf0, 8), 0);
    sleep_ms(1);
    assert_int_equal(hpet_get(f, 0xf0, 8), 0);
    hpet_set(f, 0x10, 4, 1);
    uint64_t start = clock_now_ns();
    sleep_ms(2);
    uint64_t count = hpet_get(f, 0xf0, 8);
    assert_true(count >= 200000 && count <= (clock_now_ns() - start) / 10 + 100000);
    assert_true(hpet_get(f, 0xf4, 4) == 0);
    hpet_set(f, 0x10, 4, 0);
    count = hpet_get(f, 0xf0, 8);
    sleep_ms(1);
    assert_true(hpet_get(f, 0xf0, 8) == count);
    hpet_set(f, 0xf4, 4, 7);
    assert_true(hpet_get(f, 0xf0, 8) >> 32 == 7);
    hpet_set(f, 0xf0, 8, 5);
    assert_true(hpet_get(f, 0xf0, 8) == 5);
}

static void hpet_one_shot_edge_and_level(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(hpet_get(f, 0x104, 4), HPET_ROUTES);
    hpet_set(f, 0x100, 4, 20 << 9 | 0x04);
    hpet_set(f, 0x10, 4, 1);
    hpet_set(f, 0x108, 8, hpet_get(f, 0xf0, 8) + 100000);
    board_wait_rises(&f->board, 20, 1);
    assert_false(f->board.level[20]);
    assert_int_equal(hpet_get(f, 0x20, 4), 0);
    hpet_set(f, 0x120, 4, 21 << 9 | 0x06 | 0x100);
    hpet_set(f, 0x128, 4, hpet_get(f, 0xf0, 4) + 100000);
    board_wait_rises(&f->board, 21, 1);
    assert_true(f->board.level[21]);
    assert_int_equal(hpet_get(f, 0x20, 4), 2);
    hpet_set(f, 0x20, 4, 2);
    assert_false(f->board.level[21]);
    assert_int_equal(hpet_get(f, 0x20, 4), 0);
    for (unsigned i = 0; i < 5; i++)
        loop_once(f->board.env.loop, 1);
    assert_int_equal(f->board.rises[20], 1);
    assert_int_equal(f->board.rises[21], 1);
}

static void hpet_periodic_and_legacy(void **state)
{
    struct fixture *f = *state;
    struct irq_line pit = hpet_pit_line(f->hpet), rtc = hpet_rtc_line(f->hpet);
    irq_set(&pit, true);
    irq_set(&rtc, true);
    assert_true(f->board.level[30] && f->board.level[31]);
    irq_set(&pit, false);
    irq_set(&rtc, false);
    hpet_set(f, 0x10, 4, 2);
    irq_set(&pit, true);
    assert_false(f->board.level[30]);
    unsigned before = f->board.rises[30];
    /* Timer 0, periodic, as Linux sets it up: comparator, then period. */
    hpet_set(f, 0x100, 4, 0x04 | 0x08 | 0x40 | 0x100);
    hpet_set(f, 0x108, 4, 100000);
    hpet_set(f, 0x108, 4, 100000);
    assert_int_equal(hpet_get(f, 0x100, 4) & 0x40, 0);
    hpet_set(f, 0x10, 4, 3);
    uint64_t start = clock_now_ns();
    board_wait_rises(&f->board, 30, before + 5);
    assert_true(clock_now_ns() - start >= 4 * NSEC_PER_MSEC);
    hpet_set(f, 0x10, 4, 0);
    irq_set(&pit, false);
}

static void hpet_survives_any_write(void **state)
{
    struct fixture *f = *state;
    uint32_t seed = 7;
    for (unsigned i = 0; i < 20000; i++) {
        seed = seed * 1664525 + 1013904223;
        unsigned reg = seed >> 8 & 0x1ff, size = 1u << (seed >> 20 & 3);
        uint64_t value = seed & 1 ? UINT64_MAX : (uint64_t)seed << (seed >> 24 & 31);
        hpet_set(f, reg, size, value);
        hpet_get(f, reg, size);
        if (i % 1000 == 0)
            loop_once(f->board.env.loop, 0);
    }
}

static void hpet_state_comes_back(void **state)
{
    struct fixture *f = *state;
    struct board_env second;
    hpet_set(f, 0x100, 4, 0x04 | 0x08 | 0x40 | 20 << 9);
    hpet_set(f, 0x108, 8, 300000);
    hpet_set(f, 0x10, 4, 1);
    hpet_set(f, 0x148, 8, 0x12345678);
    board_init(&second);
    struct hpet *fresh = hpet_new(&second);
    board_round_trip(&f->hpet->device, &fresh->device);
    assert_int_equal(fresh->timer[2].comparator, f->hpet->timer[2].comparator);
    assert_int_equal(fresh->timer[2].comparator, 0x12345678);
    board_wait_rises(&second, 20, 2);
    device_free(&fresh->device);
    board_fini(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(mode0_calibrates, setup, teardown),
        cmocka_unit_test_setup_teardown(mode2_and_3_repeat, setup, teardown),
        cmocka_unit_test_setup_teardown(channel0_interrupts, setup, teardown),
        cmocka_unit_test_setup_teardown(pit_stands_still_in_a_pause, setup, teardown),
        cmocka_unit_test_setup_teardown(pit_state_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(hpet_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(hpet_one_shot_edge_and_level, setup, teardown),
        cmocka_unit_test_setup_teardown(hpet_periodic_and_legacy, setup, teardown),
        cmocka_unit_test_setup_teardown(hpet_survives_any_write, setup, teardown),
        cmocka_unit_test_setup_teardown(hpet_state_comes_back, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
