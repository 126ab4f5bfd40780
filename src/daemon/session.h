/*
 * What a caller keeps open beyond its call: event streams, consoles. It ends with the right to it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DAEMON_SESSION_H
#define TENON_DAEMON_SESSION_H

#include "base/list.h"
#include "daemon/access.h"
#include "loop/loop.h"

struct session {
    struct list link;
    struct identity who;
    struct loop_timer expiry;
    void (*close)(void *opaque); /* the owner ends it, with session_end() */
    void *opaque;
};

void session_begin(struct session *session, struct loop *loop, struct list *sessions,
                   const struct identity *who, void (*close)(void *opaque), void *opaque);
void session_end(struct session *session);
/* Closes all sessions of an identity. */
void session_close_all(struct list *sessions, const char *name);

#endif
