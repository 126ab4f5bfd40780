/*
 * The one line with which a program beside tenon-vmm says that it serves, or why it does not:
 *
 *   "ready"                       it serves from now on
 *   "error <status> <sentence>"   it ends with this exit status: 1 failed, 2 usage, 3 denied, 4
 * busy
 *
 * so that whoever started it can fail cleanly before the guest runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_READY_H
#define TENON_CMD_READY_H

#include "base/base.h"
#include "base/err.h"

/* Says it (NULL: ready) to `status_fd`, which is closed; -1: an error goes to the log. Returns the
 * exit status. */
int ready_report(int status_fd, struct err *take_err);
/* Waits for the line; an end without a word is an error too. */
struct err *ready_await(int status_fd, const char *program);

/* The values of such a program's options; `what` begins the error: "--fd". */
struct err *ready_parse_number(const char *text, const char *what, unsigned long max,
                               unsigned long *value);
struct err *ready_parse_fd(const char *text, const char *what, int *fd);

#endif
