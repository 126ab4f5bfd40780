/*
 * QMP server: the control protocol of a VM, JSON messages over a stream socket.
 *
 * The wire form is the QEMU Machine Protocol (docs/interop/qmp-spec of QEMU): a greeting, the
 * negotiation command qmp_capabilities, then commands with answers in order, and events between
 * them. Stock QMP clients drive it. Messages need no newline between them: a client that sends bare
 * JSON objects is understood, as are clients that send one a line.
 *
 * A peer is not trusted to be sane: a message is at most QMP_MESSAGE_MAX bytes, a client that does
 * not read its answers is dropped at QMP_BACKLOG_MAX bytes. Everything runs on the server's loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CTL_QMP_H
#define TENON_CTL_QMP_H

#include <jansson.h>

#include "base/base.h"
#include "base/err.h"
#include "loop/loop.h"

#define QMP_MESSAGE_MAX KIB(64)
#define QMP_BACKLOG_MAX KIB(256)
#define QMP_CLIENTS_MAX 8
#define QMP_FDS_MAX 8

struct qmp_server;

/*
 * One command. `run` gets the "arguments" object (borrowed, NULL when absent) and may set *result
 * (owned by the caller afterwards); without one the answer is an empty object.
 */
struct qmp_command {
    const char *name;
    struct err *(*run)(void *opaque, const json_t *arguments, json_t **result);
};

/* `commands` ends with a NULL name and is borrowed. qmp_capabilities, query-version and
 * query-commands are the server's own. */
struct qmp_server *qmp_server_new(struct loop *loop, const struct qmp_command *commands,
                                  void *opaque);
/* Sends what can be sent at once, closes all clients. NULL is fine. */
void qmp_server_free(struct qmp_server *server);

/*
 * A connected socket becomes a client; taken. With `owner` it may leave out the negotiation: it
 * gets every event from now on, also those that come before its first command. `closed` (optional)
 * runs once when the peer hangs up or is dropped, not on qmp_server_free.
 */
struct err *qmp_server_add(struct qmp_server *server, int fd, bool owner,
                           void (*closed)(void *opaque), void *opaque);
/* Accepts clients on a listening socket, QMP_CLIENTS_MAX at a time; taken. */
struct err *qmp_server_listen(struct qmp_server *server, int fd);

/*
 * For a command: the oldest descriptor that its client has sent along (SCM_RIGHTS) and nobody has
 * taken; -1: none. At most QMP_FDS_MAX wait, further ones are closed.
 */
int qmp_server_take_fd(struct qmp_server *server);

/* To every client that has negotiated; `take_data` may be NULL. */
void qmp_server_event(struct qmp_server *server, const char *name, json_t *take_data);
/* Waits at most `timeout_ms` until every client has read what was sent: before the process ends. */
void qmp_server_drain(struct qmp_server *server, int timeout_ms);

#endif
