/*
 * A machine around a device under test: memory, buses, a loop that the test turns, interrupt lines
 * that count, and what the device asked of its environment.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TEST_BOARD_ENV_H
#define TENON_TEST_BOARD_ENV_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/clock.h"
#include "hw/core/device.h"

#define BOARD_PINS 32

struct board_env {
    struct hw_env env;
    struct {
        uint64_t address;
        uint32_t data;
    } msi[64];
    unsigned msi_count;
    unsigned power_count;
    enum hw_power_event power;
    unsigned power_status;
    bool level[BOARD_PINS];
    unsigned rises[BOARD_PINS];
};

static inline void board_msi(void *opaque, uint64_t address, uint32_t data)
{
    struct board_env *board = opaque;
    if (board->msi_count < ARRAY_SIZE(board->msi)) {
        board->msi[board->msi_count].address = address;
        board->msi[board->msi_count].data = data;
    }
    board->msi_count++;
}

static inline void board_power(void *opaque, enum hw_power_event event, unsigned status)
{
    struct board_env *board = opaque;
    board->power_count++;
    board->power = event;
    board->power_status = status;
}

static inline struct err *board_doorbell_add(void *opaque, uint64_t gpa, unsigned size, int fd)
{
    return err_new("no doorbells here");
}

static inline void board_doorbell_remove(void *opaque, uint64_t gpa, unsigned size, int fd)
{
}

static const struct hw_env_ops board_ops = {
    .msi_send = board_msi,
    .doorbell_add = board_doorbell_add,
    .doorbell_remove = board_doorbell_remove,
    .power = board_power,
};

static inline void board_line_set(void *opaque, unsigned pin, bool level)
{
    struct board_env *board = opaque;
    if (level && !board->level[pin])
        board->rises[pin]++;
    board->level[pin] = level;
}

static inline struct irq_line board_line(struct board_env *board, unsigned pin)
{
    return (struct irq_line){board_line_set, board, pin};
}

static inline void board_ok(struct err *err)
{
    if (err)
        print_error("%s\n", err_text(err));
    assert_null(err);
}

static inline void board_init(struct board_env *board)
{
    *board = (struct board_env){.env = {.ops = &board_ops}};
    board->env.opaque = board;
    board_ok(loop_new("test", &board->env.loop));
    board->env.gmem = gmem_new();
    board_ok(gmem_add_ram(board->env.gmem, "ram", 0, MIB(1)));
    board->env.pio = io_bus_new("pio");
    board->env.mmio = io_bus_new("mmio");
}

static inline void board_fini(struct board_env *board)
{
    io_bus_free(board->env.pio);
    io_bus_free(board->env.mmio);
    gmem_free(board->env.gmem);
    loop_free(board->env.loop);
}

static inline uint64_t board_in(struct board_env *board, uint16_t port, unsigned size)
{
    return io_bus_read(board->env.pio, port, size);
}

static inline void board_out(struct board_env *board, uint16_t port, unsigned size, uint64_t value)
{
    io_bus_write(board->env.pio, port, size, value);
}

/* Turns the loop until `done` says so, at most a second. */
static inline void board_wait(struct board_env *board, const bool *done)
{
    uint64_t limit = clock_now_ns() + NSEC_PER_SEC;
    while (!*done && clock_now_ns() < limit)
        loop_once(board->env.loop, 10);
}

/* Waits until the line has risen `rises` times. */
static inline void board_wait_rises(struct board_env *board, unsigned pin, unsigned rises)
{
    uint64_t limit = clock_now_ns() + 3 * NSEC_PER_SEC;
    while (board->rises[pin] < rises && clock_now_ns() < limit)
        loop_once(board->env.loop, 10);
    assert_true(board->rises[pin] >= rises);
}

static inline void board_save(struct device *device, struct state_writer *writer)
{
    state_writer_init(writer);
    device_save(device, writer);
    state_writer_end(writer);
}

static inline struct err *board_load(struct device *device, const struct buf *stream)
{
    struct state_reader reader;
    TRY(state_reader_init(&reader, stream->data, stream->len));
    TRY(device_load(device, &reader));
    return state_reader_end(&reader);
}

/*
 * Saves `device` (quiesced here), loads it into `fresh`, saves that: the bytes must be equal. Then
 * cuts and flips the stream: refused, or loaded, but never worse, and the cut is always refused.
 */
static inline void board_round_trip(struct device *device, struct device *fresh)
{
    struct state_writer first, second;
    device_quiesce(device);
    device_quiesce(fresh);
    board_save(device, &first);
    board_ok(board_load(fresh, &first.out));
    board_save(fresh, &second);
    assert_int_equal(first.out.len, second.out.len);
    assert_memory_equal(first.out.data, second.out.data, first.out.len);

    for (size_t len = 0; len < first.out.len; len += 1 + first.out.len / 64) {
        struct buf cut = {.data = first.out.data, .len = len};
        struct err *err = board_load(fresh, &cut);
        assert_non_null(err);
        err_free(err);
    }
    for (size_t at = 0; at < first.out.len; at += 1 + first.out.len / 64) {
        first.out.data[at] ^= 0x10;
        struct err *err = board_load(fresh, &first.out);
        assert_non_null(err);
        err_free(err);
        first.out.data[at] ^= 0x10;
    }
    /* Nothing of the refused ones stuck. */
    state_writer_fini(&second);
    board_save(fresh, &second);
    assert_memory_equal(first.out.data, second.out.data, first.out.len);
    state_writer_fini(&first);
    state_writer_fini(&second);
    device_resume(device);
    device_resume(fresh);
}

#endif
