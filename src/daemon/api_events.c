/*
 * REST: events, as server-sent events (WHATWG HTML, section 9.2).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/api.h"

#define HEARTBEAT_NS (15 * NSEC_PER_SEC)

/* One client that listens. */
struct event_stream {
    struct list link;
    struct session session;
    struct events_subscriber subscriber;
    struct http_stream *stream;
    char *vm; /* NULL: all that it may see */
};

static void on_event(void *opaque, const struct event *event)
{
    struct event_stream *stream = opaque;
    struct buf text = BUF_INIT;

    if (event->vm ? !identity_sees(&stream->session.who, event->vm)
                  : stream->session.who.vms != NULL)
        return;
    if (stream->vm && (!event->vm || strcmp(event->vm, stream->vm) != 0))
        return;
    buf_printf(&text, "id: %llu\nevent: %s\ndata: %s\n\n", (unsigned long long)event->id,
               event->type, event->text);
    http_stream_write(stream->stream, text.data, text.len);
    buf_fini(&text);
}

static void on_ended(void *opaque)
{
    struct event_stream *stream = opaque;

    events_unsubscribe(&stream->subscriber);
    list_remove(&stream->link);
    session_end(&stream->session);
    free(stream->vm);
    free(stream);
}

static void close_stream(void *opaque)
{
    const struct event_stream *stream = opaque;

    http_stream_close(stream->stream); /* calls on_ended */
}

/* Where the client stopped, or now. */
static uint64_t begin_after(struct api_call *call)
{
    const char *last = http_header(call->request, "Last-Event-ID");

    if (last && *last && !last[strspn(last, "0123456789")])
        return strtoull(last, NULL, 10);
    return api_query_number(call, "after", events_latest(call->daemon->events));
}

static struct err *get_events(struct api_call *call)
{
    struct event_stream *stream = xcalloc(1, sizeof(*stream));
    uint64_t after = begin_after(call);
    const char *vm = http_query(call->request, "vm");

    stream->vm = vm ? xstrdup(vm) : NULL;
    session_begin(&stream->session, call->daemon->loop, &call->daemon->sessions, &call->who,
                  close_stream, stream);
    stream->subscriber.tell = on_event;
    stream->subscriber.opaque = stream;
    stream->stream = http_answer_stream(call->request, "text/event-stream", on_ended, stream);
    list_append(&call->daemon->streams, &stream->link);
    /* The head goes out at once: the client knows that it listens. */
    http_stream_write(stream->stream, ": tenon\n\n", 9);
    events_subscribe(call->daemon->events, &stream->subscriber, after);
    api_answered(call, 200);
    return NULL;
}

/* A client that has gone is seen by writing to it. */
static void on_heartbeat(void *opaque)
{
    struct daemon *daemon = opaque;
    struct event_stream *stream;

    list_for_each (stream, &daemon->streams, link)
        http_stream_write(stream->stream, ":\n\n", 3);
    loop_timer_arm(&daemon->heartbeat, clock_now_ns() + HEARTBEAT_NS);
}

void api_events_init(struct daemon *daemon)
{
    list_init(&daemon->streams);
    loop_timer_init(daemon->loop, &daemon->heartbeat, on_heartbeat, daemon);
    on_heartbeat(daemon);
}

void api_events_fini(struct daemon *daemon)
{
    loop_timer_cancel(&daemon->heartbeat);
}

const struct api_handler api_event_handlers[] = {
    {"getEvents", get_events},
    {NULL, NULL},
};
