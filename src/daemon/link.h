/*
 * A client of a VM's control socket (QMP) that never waits: commands are queued and answered by
 * callback, events come as they happen.
 *
 * Everything runs on the loop. A VM is not trusted to be sane either: a message is bounded, and a
 * command that is not answered in time ends the connection.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DAEMON_LINK_H
#define TENON_DAEMON_LINK_H

#include <jansson.h>
#include <sys/types.h>

#include "base/base.h"
#include "base/err.h"
#include "loop/loop.h"

struct link;

struct link_events {
    /* The VM is built and takes commands. */
    void (*ready)(void *opaque);
    void (*event)(void *opaque, const char *name, const json_t *data);
    /* The connection has ended; link_free() is the owner's, and may be called here. */
    void (*closed)(void *opaque);
};

/* Connects to socket `name` in the folder `dir_fd`, whatever the length of its path. */
struct err *link_connect(int dir_fd, const char *name, int *fd);
/* The process that listens on the other end; 0: unknown. */
pid_t link_peer(int fd);

/* Takes `fd`, a connected socket. */
struct err *link_new(struct loop *loop, int fd, const struct link_events *events, void *opaque,
                     struct link **link);
/* Commands that wait are answered with an error; the memory goes with the next round of the loop.
 * NULL is fine. */
void link_free(struct link *link);
bool link_is_ready(const struct link *link);

/*
 * Queues a command; `take_arguments` may be NULL, `fd` (-1: none, borrowed) goes along. `done` is
 * called exactly once, never from within this call: with the result or an error, both borrowed.
 */
typedef void link_done(void *opaque, const json_t *result, const struct err *err);
void link_run(struct link *link, const char *command, json_t *take_arguments, int fd,
              link_done *done, void *opaque);

#endif
