/*
 * How log lines leave a process: as text, as JSON lines, or to systemd's journal.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BASE_LOG_OUTPUT_H
#define TENON_BASE_LOG_OUTPUT_H

#include "base/base.h"
#include "base/err.h"

enum log_format { LOG_TEXT, LOG_JSON, LOG_JOURNALD };

#define LOG_JOURNAL_PATH "/run/systemd/journal/socket"

struct log_output {
    enum log_format format;
    const char *vm; /* of the whole process; NULL: of none */
    int journal_fd; /* datagram socket that is connected to the journal; else -1 */
};

/*
 * `format` is "text", "json" or "journald", else ERR_USAGE. NULL: the journal, where standard error
 * is its stream (systemd says so in $JOURNAL_STREAM) and it listens; else text. `journal` is
 * LOG_JOURNAL_PATH, but for tests. `vm` is borrowed.
 */
struct err *log_output_open(struct log_output *output, const char *format, const char *vm,
                            const char *journal);
const char *log_output_format(const struct log_output *output);
/* The lines of this process take this way from now on; `output` stays. What the journal does not
 * take goes to standard error as text. */
void log_output_use(struct log_output *output);

#endif
