/*
 * A device's own time: nanoseconds that stand still while the machine is paused, and that go on
 * where they were after a restore. Timers, counters and periods of a device are written in this
 * time, so its state table needs only one reading of the clock.
 *
 * Under the owner's lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_CORE_HW_CLOCK_H
#define TENON_HW_CORE_HW_CLOCK_H

#include "base/base.h"
#include "base/clock.h"

struct hw_clock {
    uint64_t base_ns; /* CLOCK_MONOTONIC at device time 0; may be "before" the host's own start */
    uint64_t held_ns; /* device time while held; brought up to date before saving */
    bool held;
};

/* A restored device time beyond this (146 years) is refused: sums with it stay within 64 bits. */
#define HW_CLOCK_MAX (1ull << 62)

static inline uint64_t hw_clock_now(const struct hw_clock *clock)
{
    return clock->held ? clock->held_ns : clock_now_ns() - clock->base_ns;
}

/* From now on the time is `now_ns`; held stays held. */
static inline void hw_clock_set(struct hw_clock *clock, uint64_t now_ns)
{
    clock->held_ns = now_ns;
    clock->base_ns = clock_now_ns() - now_ns;
}

static inline void hw_clock_hold(struct hw_clock *clock)
{
    clock->held_ns = hw_clock_now(clock);
    clock->held = true;
}

static inline void hw_clock_go(struct hw_clock *clock)
{
    if (clock->held)
        clock->base_ns = clock_now_ns() - clock->held_ns;
    clock->held = false;
}

/* The host deadline of a moment in device time, for loop_timer_arm(). Only while not held. */
static inline uint64_t hw_clock_deadline(const struct hw_clock *clock, uint64_t at_ns)
{
    return at_ns + clock->base_ns;
}

/* a * b / c without overflow between; c is not 0 and the result fits. */
static inline uint64_t mul_div(uint64_t a, uint64_t b, uint64_t c)
{
    return (uint64_t)((unsigned __int128)a * b / c);
}

static inline uint64_t mul_div_up(uint64_t a, uint64_t b, uint64_t c)
{
    return (uint64_t)(((unsigned __int128)a * b + c - 1) / c);
}

#endif
