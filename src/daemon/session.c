/*
 * Sessions. See session.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "daemon/session.h"

#include <string.h>

#include "base/clock.h"

static void on_expiry(void *opaque)
{
    struct session *session = opaque;

    session->close(session->opaque);
}

void session_begin(struct session *session, struct loop *loop, struct list *sessions,
                   const struct identity *who, void (*close)(void *opaque), void *opaque)
{
    uint64_t now = clock_wall_ns();

    session->who = identity_copy(who);
    session->close = close;
    session->opaque = opaque;
    list_append(sessions, &session->link);
    loop_timer_init(loop, &session->expiry, on_expiry, session);
    if (session->who.expires_ns)
        loop_timer_arm(&session->expiry,
                       clock_now_ns() +
                           (session->who.expires_ns > now ? session->who.expires_ns - now : 0));
}

void session_end(struct session *session)
{
    loop_timer_cancel(&session->expiry);
    list_remove(&session->link);
    identity_fini(&session->who);
}

void session_close_all(struct list *sessions, const char *name)
{
    struct session *session;

    list_for_each (session, sessions, link)
        if (!strcmp(session->who.name, name))
            session->close(session->opaque);
}
