/*
 * Host time. Everything inside Tenon counts nanoseconds of CLOCK_MONOTONIC.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BASE_CLOCK_H
#define TENON_BASE_CLOCK_H

#include "base/base.h"

#define NSEC_PER_SEC 1000000000ull
#define NSEC_PER_MSEC 1000000ull

/* Nanoseconds of CLOCK_MONOTONIC: arbitrary start, never steps. */
uint64_t clock_now_ns(void);
/* Nanoseconds that the calling thread has run. */
uint64_t clock_thread_ns(void);
/* Nanoseconds since 1970 of CLOCK_REALTIME. */
uint64_t clock_wall_ns(void);
/* The same as RFC 3339 text in UTC, with milliseconds. */
#define CLOCK_TEXT_SIZE 40
void clock_text(uint64_t wall_ns, char text[CLOCK_TEXT_SIZE]);

#endif
