/*
 * Host time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <time.h>

#include "base/clock.h"

static uint64_t read_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * NSEC_PER_SEC + (uint64_t)now.tv_nsec;
}

uint64_t clock_now_ns(void)
{
    return read_ns(CLOCK_MONOTONIC);
}

uint64_t clock_thread_ns(void)
{
    return read_ns(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t clock_wall_ns(void)
{
    return read_ns(CLOCK_REALTIME);
}

void clock_text(uint64_t wall_ns, char text[CLOCK_TEXT_SIZE])
{
    time_t seconds = (time_t)(wall_ns / NSEC_PER_SEC);
    struct tm parts;

    gmtime_r(&seconds, &parts);
    size_t len = strftime(text, CLOCK_TEXT_SIZE, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text + len, CLOCK_TEXT_SIZE - len, ".%03uZ",
             (unsigned)(wall_ns % NSEC_PER_SEC / NSEC_PER_MSEC));
}
