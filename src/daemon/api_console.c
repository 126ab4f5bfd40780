/*
 * REST: consoles, as WebSocket or as a stream of bytes, and the tickets to them and to screens.
 *
 * A browser cannot send a token with a WebSocket: it asks for a ticket, which opens one thing
 * once, within seconds, with the rights of who asked.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/api.h"
#include "daemon/websocket.h"

#define TICKET_S 30
#define TICKETS_MAX 1024

/* ---- tickets ---- */

struct ticket {
    struct list link;
    char text[ACCESS_SECRET_SIZE];
    char *path;
    struct identity who;
    uint64_t deadline_ns;
};

static void ticket_free(struct daemon *daemon, struct ticket *ticket)
{
    list_remove(&ticket->link);
    daemon->ticket_count--;
    identity_fini(&ticket->who);
    free(ticket->path);
    free(ticket);
}

/* In the order of their deadlines. */
static void drop_old(struct daemon *daemon)
{
    uint64_t now = clock_now_ns();

    while (!list_empty(&daemon->tickets)) {
        struct ticket *first = list_first(&daemon->tickets, struct ticket, link);
        if (first->deadline_ns > now && daemon->ticket_count <= TICKETS_MAX)
            return;
        ticket_free(daemon, first);
    }
}

void api_tickets_forget(struct daemon *daemon, const char *name)
{
    struct ticket *ticket;

    list_for_each (ticket, &daemon->tickets, link)
        if (!name || !strcmp(ticket->who.name, name))
            ticket_free(daemon, ticket);
}

bool api_ticket_use(struct daemon *daemon, const char *text, const char *path, struct identity *who)
{
    struct ticket *ticket;

    drop_old(daemon);
    list_for_each (ticket, &daemon->tickets, link) {
        if (strlen(text) != strlen(ticket->text) ||
            !access_equal(text, ticket->text, strlen(text)) || strcmp(path, ticket->path) != 0)
            continue;
        bool good = !identity_has_expired(&ticket->who);
        if (good)
            *who = identity_copy(&ticket->who);
        ticket_free(daemon, ticket);
        return good;
    }
    return false;
}

/* ---- one who watches ---- */

struct viewer {
    struct session session;
    struct console_watcher watcher;
    struct console *console;
    struct loop *loop;
    bool may_type;
    /* One of the two; none: the upgrade is on its way. */
    struct websocket *websocket;
    struct http_stream *stream;
    struct api_call *call; /* of the upgrade, until it is there */
    bool ended;            /* in the meantime */
};

static void viewer_free(struct viewer *viewer)
{
    console_unwatch(&viewer->watcher);
    session_end(&viewer->session);
    free(viewer);
}

static void on_output(void *opaque, const uint8_t *bytes, size_t len)
{
    struct viewer *viewer = opaque;

    if (viewer->websocket)
        websocket_send(viewer->websocket, bytes, len);
    else
        http_stream_write(viewer->stream, bytes, len);
}

static void on_message(void *opaque, const uint8_t *bytes, size_t len)
{
    struct viewer *viewer = opaque;

    if (viewer->may_type && viewer->console)
        console_type(viewer->console, bytes, len);
}

static void on_client_gone(void *opaque)
{
    viewer_free(opaque);
}

static const struct websocket_events websocket_events = {on_message, on_client_gone, NULL};

/* The right to it, or the VM, has ended. */
static void hang_up(void *opaque)
{
    struct viewer *viewer = opaque;

    if (viewer->stream) {
        http_stream_close(viewer->stream); /* calls on_client_gone */
    } else if (viewer->websocket) {
        websocket_close(viewer->websocket, 1001);
        viewer_free(viewer);
    } else {
        viewer->ended = true; /* on_upgraded() does the rest */
    }
}

static void on_console_ended(void *opaque)
{
    struct viewer *viewer = opaque;

    viewer->console = NULL;
    list_init(&viewer->watcher.link);
    hang_up(viewer);
}

static struct viewer *viewer_new(struct api_call *call, struct console *console)
{
    struct viewer *viewer = xcalloc(1, sizeof(*viewer));

    viewer->console = console;
    viewer->loop = call->daemon->loop;
    viewer->may_type = call->who.role >= ROLE_OPERATOR;
    viewer->watcher =
        (struct console_watcher){.output = on_output, .ended = on_console_ended, .opaque = viewer};
    list_init(&viewer->watcher.link);
    session_begin(&viewer->session, call->daemon->loop, &call->daemon->sessions, &call->who,
                  hang_up, viewer);
    return viewer;
}

/* ---- opening ---- */

static void on_upgraded(void *opaque, struct http_upgrade *upgrade, int fd, const char *extra,
                        size_t extra_len)
{
    struct viewer *viewer = opaque;
    struct api_call *call = viewer->call;

    if (!viewer->ended) {
        struct instance *vm = fleet_find(call->daemon->fleet, call->argument[0]);
        const struct instance_console *found =
            vm ? instance_find_console(vm, call->argument[1]) : NULL;
        viewer->console = found ? found->console : NULL;
    }
    api_answered(call, 101);
    viewer->call = NULL;
    if (upgrade && (viewer->ended || !viewer->console))
        http_upgrade_close(upgrade); /* it ended while the answer was on its way */
    else if (upgrade)
        viewer->websocket =
            websocket_new(viewer->loop, upgrade, fd, extra, extra_len, &websocket_events, viewer);
    if (viewer->websocket)
        console_watch(viewer->console, &viewer->watcher);
    else
        viewer_free(viewer);
}

static struct err *open_console(struct api_call *call)
{
    char accept[WEBSOCKET_ACCEPT_SIZE];
    struct console *console = call->console->console;

    if (!console)
        return err_of(ERR_BUSY, "VM '%s' is %s", call->vm->name, instance_state_text(call->vm));
    if (websocket_handshake(call->request, accept)) {
        http_answer_header(call->request, "Sec-WebSocket-Accept", accept);
        struct viewer *waiting = viewer_new(call, NULL);
        waiting->call = call;
        http_answer_upgrade(call->request, "websocket", on_upgraded, waiting);
        return NULL;
    }
    if (http_header(call->request, "Upgrade"))
        return err_of(ERR_USAGE, "the upgrade is no WebSocket of version 13");
    struct viewer *viewer = viewer_new(call, console);
    viewer->stream =
        http_answer_stream(call->request, "application/octet-stream", on_client_gone, viewer);
    console_watch(console, &viewer->watcher);
    api_answered(call, 200);
    return NULL;
}

static struct err *type_console(struct api_call *call)
{
    const char *text = json_string_value(json_object_get(call->body, "text"));
    struct console *console = call->console->console;

    if (!console_is_connected(console))
        return err_of(ERR_BUSY, "VM '%s' is %s", call->vm->name, instance_state_text(call->vm));
    if (!console_type(console, text, strlen(text)))
        return err_of(ERR_BUSY, "the guest does not read console '%s'", call->console->id);
    api_answer_nothing(call);
    return NULL;
}

/* It is for what lies above it: .../consoles/c0, .../screen. */
static struct err *create_ticket(struct api_call *call)
{
    struct daemon *daemon = call->daemon;
    struct ticket *ticket;
    const char *path = http_path(call->request);

    drop_old(daemon);
    ticket = xcalloc(1, sizeof(*ticket));
    struct err *err = access_secret(ticket->text);
    if (err) {
        free(ticket);
        return err;
    }
    ticket->path = xasprintf("%.*s", (int)(strrchr(path, '/') - path), path);
    ticket->deadline_ns = clock_now_ns() + TICKET_S * NSEC_PER_SEC;
    ticket->who = identity_copy(&call->who);
    list_append(&daemon->tickets, &ticket->link);
    daemon->ticket_count++;
    api_answer(call, json_pack("{s:s, s:i, s:o}", "ticket", ticket->text, "expires_in", TICKET_S,
                               "path", json_sprintf("%s?ticket=%s", ticket->path, ticket->text)));
    return NULL;
}

const struct api_handler api_console_handlers[] = {
    {"openConsole", open_console},
    {"typeConsole", type_console},
    {"createTicket", create_ticket},
    {"createScreenTicket", create_ticket},
    {NULL, NULL},
};
