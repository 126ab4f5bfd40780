/*
 * Log: one line an event, to one sink. Any thread.
 *
 * The sink and the threshold are the only mutable globals of the program, besides the signal flag.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BASE_LOG_H
#define TENON_BASE_LOG_H

#include "base/base.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Receives a line without its newline. Called from any thread, must not call the log. */
typedef void log_sink_fn(void *opaque, enum log_level level, const char *line);

/* NULL restores the default sink: "program: line" on standard error. */
void log_set_sink(log_sink_fn *sink, void *opaque);
void log_set_level(enum log_level level);
enum log_level log_level(void);

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* How often one place may speak: a guest can repeat a mistake a million times a second. */
struct log_limit {
    uint64_t window_start_ns;
    uint32_t in_window;
    uint32_t suppressed;
};

/*
 * A guest's mistake: at most 5 lines in 10 seconds for each `limit`, then one line that counts what
 * was left out. `limit` lives in the device and is zero at first; a race on it costs a line at
 * most.
 */
void log_guest(struct log_limit *limit, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
