/*
 * The user's terminal in raw mode, and back on every way out.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_TERMINAL_H
#define TENON_CMD_TERMINAL_H

#include <sys/types.h>
#include <termios.h>

#include "base/base.h"
#include "base/err.h"

struct terminal {
    int fd; /* borrowed; -1: no terminal, all calls do nothing */
    bool raw, guarded;
    struct termios saved;
    int guard_fd; /* socket to the guard */
    pid_t guard_pid;
};

/* Not a terminal is no error: fd becomes -1. Starts the guard, but leaves the mode as it is. */
struct err *terminal_init(struct terminal *terminal, int fd);
/* Restores the mode and ends the guard. */
void terminal_fini(struct terminal *terminal);
/* Raw mode, unless another process group has the terminal: then when called again. */
void terminal_raw(struct terminal *terminal);
void terminal_restore(struct terminal *terminal);

/* After a stop and SIGCONT: whoever had the terminal in between has set a mode of its own. */
void terminal_continue(struct terminal *terminal);

/* A line of ours on standard error, with the line end that the terminal's mode needs. */
void terminal_say(const struct terminal *terminal, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
