/*
 * Real-time clock: the date, setting it, formats, interrupts, CMOS memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <time.h>

#include "board_env.h"
#include "hw/chipset/rtc.h"

struct fixture {
    struct board_env board;
    struct rtc *rtc;
};

static struct rtc *rtc_new(struct board_env *board)
{
    struct device *device = device_new(&rtc_class, &board->env, "rtc");
    struct rtc *rtc = (struct rtc *)device;
    rtc->irq = board_line(board, 8);
    rtc->low_ram = GIB(2);
    rtc->high_ram = GIB(6);
    board_ok(device_realize(device));
    return rtc;
}

static int setup(void **state)
{
    static struct fixture f;
    board_init(&f.board);
    f.rtc = rtc_new(&f.board);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    device_free(&f->rtc->device);
    board_fini(&f->board);
    return 0;
}

static uint8_t get(struct fixture *f, unsigned reg)
{
    board_out(&f->board, 0x70, 1, reg);
    return (uint8_t)board_in(&f->board, 0x71, 1);
}

static void set(struct fixture *f, unsigned reg, uint8_t value)
{
    board_out(&f->board, 0x70, 1, reg);
    board_out(&f->board, 0x71, 1, value);
}

static int from_bcd(uint8_t value)
{
    return (value >> 4) * 10 + (value & 15);
}

static time_t read_clock(struct fixture *f)
{
    struct tm tm = {
        .tm_sec = from_bcd(get(f, 0)),
        .tm_min = from_bcd(get(f, 2)),
        .tm_hour = from_bcd(get(f, 4)),
        .tm_mday = from_bcd(get(f, 7)),
        .tm_mon = from_bcd(get(f, 8)) - 1,
        .tm_year = from_bcd(get(f, 0x32)) * 100 + from_bcd(get(f, 9)) - 1900,
    };
    return timegm(&tm);
}

static void tells_the_hosts_time(void **state)
{
    struct fixture *f = *state;
    /* Two readings, in case a second turned in between. */
    time_t now = time(NULL), seen = read_clock(f);
    if (seen < now || seen > now + 1)
        seen = read_clock(f), now = time(NULL);
    assert_in_range(seen, now - 1, now + 1);
    struct tm tm;
    gmtime_r(&seen, &tm);
    assert_in_range(from_bcd(get(f, 6)), tm.tm_wday + 1, tm.tm_wday + 2);
    assert_int_equal(get(f, 0x0d), 0x80);
    assert_int_equal(get(f, 0x0b), 0x02);
}

static void write_clock(struct fixture *f, const struct tm *tm)
{
    static const uint8_t regs[] = {0, 2, 4, 7, 8, 9, 0x32};
    int values[] = {tm->tm_sec,
                    tm->tm_min,
                    tm->tm_hour,
                    tm->tm_mday,
                    tm->tm_mon + 1,
                    tm->tm_year % 100,
                    (tm->tm_year + 1900) / 100};
    set(f, 0x0b, 0x82);
    for (unsigned i = 0; i < ARRAY_SIZE(regs); i++)
        set(f, regs[i], (uint8_t)(values[i] / 10 << 4 | values[i] % 10));
    set(f, 0x0b, 0x02);
}

static void can_be_set(void **state)
{
    struct fixture *f = *state;
    static const time_t moments[] = {0, 951782400 /* 29 February 2000 */, 1709164799, 4102444800};
    for (unsigned i = 0; i < ARRAY_SIZE(moments); i++) {
        struct tm tm;
        gmtime_r(&moments[i], &tm);
        write_clock(f, &tm);
        assert_in_range(read_clock(f), moments[i], moments[i] + 2);
    }
    /* While SET is on, the bytes are memory. */
    set(f, 0x0b, 0x82);
    set(f, 0, 0x99);
    set(f, 8, 0xff);
    assert_int_equal(get(f, 0), 0x99);
    set(f, 0x0b, 0x02); /* any nonsense gives some time */
    read_clock(f);
}

static void other_formats(void **state)
{
    struct fixture *f = *state;
    struct tm tm = {
        .tm_sec = 30, .tm_min = 45, .tm_hour = 15, .tm_mday = 24, .tm_mon = 11, .tm_year = 125};
    write_clock(f, &tm);
    set(f, 0x0b, 0x06); /* binary */
    assert_int_equal(get(f, 2), 45);
    assert_int_equal(get(f, 4), 15);
    assert_int_equal(get(f, 9), 25);
    set(f, 0x0b, 0x00); /* twelve hours */
    assert_int_equal(get(f, 4), 0x83);
    set(f, 4, 0x12); /* twelve at night */
    set(f, 0x0b, 0x02);
    assert_int_equal(get(f, 4), 0x00);
}

static void interrupts(void **state)
{
    struct fixture *f = *state;
    set(f, 0x0a, 0x26); /* 1024 Hz */
    set(f, 0x0b, 0x42);
    board_wait_rises(&f->board, 8, 1);
    assert_int_equal(get(f, 0x0c) & 0xc0, 0xc0);
    assert_false(f->board.level[8]);
    board_wait_rises(&f->board, 8, 3 - 1);
    get(f, 0x0c);
    set(f, 0x0b, 0x02);
    /* Update ended, and an alarm at every second. */
    for (unsigned reg = 1; reg <= 5; reg += 2)
        set(f, reg, 0xff);
    get(f, 0x0c);
    unsigned before = f->board.rises[8];
    set(f, 0x0b, 0x32);
    board_wait_rises(&f->board, 8, before + 1);
    assert_int_equal(get(f, 0x0c) & 0xb0, 0xb0);
    assert_int_equal(get(f, 0x0c), 0);
    device_reset(&f->rtc->device);
    assert_int_equal(get(f, 0x0b), 0x02);
}

static void flags_come_without_interrupts(void **state)
{
    struct fixture *f = *state;
    get(f, 0x0c);
    struct timespec pause = {.tv_nsec = 5 * 1000000};
    nanosleep(&pause, NULL);
    assert_int_equal(get(f, 0x0c) & 0xc0, 0x40); /* the periodic flag, no request */
}

static void memory_sizes(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(get(f, 0x15) | get(f, 0x16) << 8, 640);
    assert_int_equal(get(f, 0x30) | get(f, 0x31) << 8, 0xffff);
    assert_int_equal(get(f, 0x34) | get(f, 0x35) << 8, (GIB(2) - MIB(16)) / KIB(64));
    assert_int_equal(get(f, 0x5b) | get(f, 0x5c) << 8 | get(f, 0x5d) << 16, GIB(6) / KIB(64));
    set(f, 0x40, 0x5a);
    assert_int_equal(get(f, 0xc0), 0x5a); /* bit 7 is the NMI mask */
}

static void any_write_is_survived(void **state)
{
    struct fixture *f = *state;
    uint32_t seed = 3;
    for (unsigned i = 0; i < 20000; i++) {
        seed = seed * 1664525 + 1013904223;
        set(f, seed >> 24 & 0x3f, (uint8_t)(seed >> 16));
        get(f, seed >> 10 & 0x7f);
        board_out(&f->board, 0x70, 2, seed);
    }
}

static void state_comes_back(void **state)
{
    struct fixture *f = *state;
    struct board_env second;
    struct fixture g;
    struct tm tm = {.tm_mday = 1, .tm_year = 99};
    write_clock(f, &tm);
    set(f, 0x60, 0x12);
    board_init(&second);
    g.rtc = rtc_new(&second);
    board_round_trip(&f->rtc->device, &g.rtc->device);
    g.board = second;
    assert_int_equal(get(&g, 0x60), 0x12);
    assert_in_range(read_clock(&g), 915148800, 915148800 + 5);
    device_free(&g.rtc->device);
    board_fini(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tells_the_hosts_time, setup, teardown),
        cmocka_unit_test_setup_teardown(can_be_set, setup, teardown),
        cmocka_unit_test_setup_teardown(other_formats, setup, teardown),
        cmocka_unit_test_setup_teardown(interrupts, setup, teardown),
        cmocka_unit_test_setup_teardown(flags_come_without_interrupts, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(any_write_is_survived, setup, teardown),
        cmocka_unit_test_setup_teardown(state_comes_back, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
