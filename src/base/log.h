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

/* What a collector of logs may search for: a name of lower-case letters and '_', and a text. */
struct log_field {
    const char *name, *value; /* a value of NULL: left out */
};

struct log_record {
    enum log_level level;
    const char *message;           /* one sentence, which tells all that its fields tell */
    const struct log_field *field; /* ends with a name of NULL */
};

/* Called from any thread, one at a time; must not call the log. */
typedef void log_sink_fn(void *opaque, const struct log_record *record);

/* NULL restores the default sink: "program: message" on standard error. See log_output.h for
 * others. */
void log_set_sink(log_sink_fn *sink, void *opaque);
/* What the default sink does. */
void log_write_text(const char *message);
void log_set_level(enum log_level level);
enum log_level log_level(void);

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* `fields` are LOG_FIELDS({"vm", name}, ...). */
void log_with(enum log_level level, const struct log_field *fields, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#define LOG_FIELDS(...)                                                                            \
    (const struct log_field[])                                                                     \
    {                                                                                              \
        __VA_ARGS__,                                                                               \
        {                                                                                          \
            NULL, NULL                                                                             \
        }                                                                                          \
    }

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
