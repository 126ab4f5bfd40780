/*
 * What happened, in order: published once, kept for a while, told to every subscriber. On the loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DAEMON_EVENTS_H
#define TENON_DAEMON_EVENTS_H

#include <jansson.h>

#include "base/base.h"
#include "base/list.h"

#define EVENTS_KEPT 1024

struct event {
    uint64_t id;      /* from 1, without gaps */
    const char *type; /* "vm.state" */
    const char *vm;   /* NULL: of no VM */
    const char *text; /* the event as JSON, in one line */
};

struct events;

struct events_subscriber {
    struct list link;
    void (*tell)(void *opaque, const struct event *event);
    void *opaque;
};

struct events *events_new(void);
/* NULL is fine. */
void events_free(struct events *events);
/* `take_data` may be NULL. */
void events_publish(struct events *events, const char *type, const char *vm, json_t *take_data);
/* Tells of what is kept and later than `after` first, then of what comes. */
void events_subscribe(struct events *events, struct events_subscriber *subscriber, uint64_t after);
void events_unsubscribe(struct events_subscriber *subscriber);
/* The number of the latest event; 0: none yet. */
uint64_t events_latest(const struct events *events);

/* Nanoseconds since 1970 as RFC 3339 text in UTC, with milliseconds. */
json_t *events_time(uint64_t wall_ns);

#endif
