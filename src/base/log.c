/*
 * Log lines to one sink.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

static pthread_mutex_t sink_mutex = PTHREAD_MUTEX_INITIALIZER;
static log_sink_fn *sink_fn;
static void *sink_opaque;
static enum log_level threshold = LOG_INFO;

void log_set_sink(log_sink_fn *sink, void *opaque)
{
    pthread_mutex_lock(&sink_mutex);
    sink_fn = sink;
    sink_opaque = opaque;
    pthread_mutex_unlock(&sink_mutex);
}

void log_set_level(enum log_level level)
{
    __atomic_store_n(&threshold, level, __ATOMIC_RELAXED);
}

enum log_level log_level(void)
{
    return __atomic_load_n(&threshold, __ATOMIC_RELAXED);
}

/* One write, so that lines of several processes on a terminal do not mix. */
void log_write_text(const char *message)
{
    char out[600];
    int length = snprintf(out, sizeof(out), "%s: %s\n", program_invocation_short_name, message);

    (void)!write(STDERR_FILENO, out, MIN((size_t)length, sizeof(out) - 1));
}

static void log_line(enum log_level level, const struct log_field *fields, const char *format,
                     va_list args)
{
    if (level > log_level())
        return;
    char message[512];
    vsnprintf(message, sizeof(message), format, args);
    const struct log_record record = {level, message, fields};
    pthread_mutex_lock(&sink_mutex);
    if (sink_fn)
        sink_fn(sink_opaque, &record);
    else
        log_write_text(message);
    pthread_mutex_unlock(&sink_mutex);
}

void log_with(enum log_level level, const struct log_field *fields, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    log_line(level, fields, format, args);
    va_end(args);
}

#define LOG_DEFINE(name, level)                                                                    \
    void name(const char *format, ...)                                                             \
    {                                                                                              \
        va_list args;                                                                              \
        va_start(args, format);                                                                    \
        log_line(level, LOG_FIELDS({NULL, NULL}), format, args);                                   \
        va_end(args);                                                                              \
    }

LOG_DEFINE(log_error, LOG_ERROR)
LOG_DEFINE(log_warn, LOG_WARN)
LOG_DEFINE(log_info, LOG_INFO)
LOG_DEFINE(log_debug, LOG_DEBUG)

#define GUEST_WINDOW_NS (10 * NSEC_PER_SEC)
#define GUEST_LINES 5

void log_guest(struct log_limit *limit, const char *format, ...)
{
    uint64_t now = clock_now_ns();
    if (!limit->window_start_ns || now - limit->window_start_ns >= GUEST_WINDOW_NS) {
        if (limit->suppressed)
            log_warn("guest: %u more lines like the last were left out", limit->suppressed);
        *limit = (struct log_limit){.window_start_ns = now};
    }
    if (limit->in_window >= GUEST_LINES) {
        limit->suppressed++;
        return;
    }
    limit->in_window++;
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_warn("guest: %s", text);
}
