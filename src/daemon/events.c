/*
 * The ring of events. See events.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "daemon/events.h"

#include <stdlib.h>

#include "base/clock.h"

struct kept {
    struct event event;
    char *type, *vm, *text;
};

struct events {
    uint64_t latest;
    struct kept kept[EVENTS_KEPT]; /* event `id` is at id % EVENTS_KEPT */
    struct list subscribers;
};

json_t *events_time(uint64_t wall_ns)
{
    char text[CLOCK_TEXT_SIZE];

    clock_text(wall_ns, text);
    return json_string(text);
}

struct events *events_new(void)
{
    struct events *events = xcalloc(1, sizeof(*events));

    list_init(&events->subscribers);
    return events;
}

static void kept_fini(struct kept *kept)
{
    free(kept->type);
    free(kept->vm);
    free(kept->text);
}

void events_free(struct events *events)
{
    if (!events)
        return;
    for (size_t i = 0; i < EVENTS_KEPT; i++)
        kept_fini(&events->kept[i]);
    free(events);
}

void events_publish(struct events *events, const char *type, const char *vm, json_t *take_data)
{
    uint64_t id = ++events->latest;
    struct kept *kept = &events->kept[id % EVENTS_KEPT];
    struct events_subscriber *subscriber;
    json_t *json = json_pack("{s:I, s:o, s:s, s:s*, s:o}", "id", (json_int_t)id, "time",
                             events_time(clock_wall_ns()), "type", type, "vm", vm, "data",
                             take_data ? take_data : json_object());

    kept_fini(kept);
    kept->type = xstrdup(type);
    kept->vm = vm ? xstrdup(vm) : NULL;
    kept->text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    kept->event = (struct event){id, kept->type, kept->vm, kept->text ? kept->text : "{}"};
    list_for_each (subscriber, &events->subscribers, link)
        subscriber->tell(subscriber->opaque, &kept->event);
}

void events_subscribe(struct events *events, struct events_subscriber *subscriber, uint64_t after)
{
    uint64_t first = events->latest >= EVENTS_KEPT ? events->latest - EVENTS_KEPT + 1 : 1;

    for (uint64_t id = MAX(after + 1, first); id <= events->latest; id++)
        subscriber->tell(subscriber->opaque, &events->kept[id % EVENTS_KEPT].event);
    list_append(&events->subscribers, &subscriber->link);
}

void events_unsubscribe(struct events_subscriber *subscriber)
{
    list_remove(&subscriber->link);
}

uint64_t events_latest(const struct events *events)
{
    return events->latest;
}
