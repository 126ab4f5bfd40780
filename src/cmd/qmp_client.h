/*
 * A client of a VM's control socket, for commands that look at a running VM. It waits for each
 * answer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_QMP_CLIENT_H
#define TENON_CMD_QMP_CLIENT_H

#include <jansson.h>

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

struct qmp_client {
    int fd;
    struct buf in; /* what has come behind the last message */
};

/* `path` is what `tenon run --qmp` made. */
struct err *qmp_client_open(struct qmp_client *client, const char *path);
void qmp_client_close(struct qmp_client *client);
/*
 * Sends one command and waits for its answer; `take_arguments` may be NULL. `fd` (-1: none,
 * borrowed) goes along. *result, when it is wanted, is the caller's.
 */
struct err *qmp_client_run(struct qmp_client *client, const char *command, json_t *take_arguments,
                           int fd, json_t **result);

/* Waits until the VM hangs up; false when it has not by `deadline_ns` (CLOCK_MONOTONIC). */
bool qmp_client_await_end(struct qmp_client *client, uint64_t deadline_ns);

/* A counter in what query-stats said of the VM; 0: it has none. */
uint64_t qmp_client_stat(const json_t *providers, const char *name);

#endif
