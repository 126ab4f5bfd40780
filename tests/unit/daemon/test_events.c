/*
 * Events: order, what is kept, and subscribers that come and go.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "../test.h"

#include <string.h>

#include "daemon/events.h"

struct listener {
    struct events_subscriber subscriber;
    uint64_t first, last;
    unsigned count;
};

static void tell(void *opaque, const struct event *event)
{
    struct listener *listener = opaque;

    if (!listener->count++)
        listener->first = event->id;
    else
        assert_int_equal(event->id, listener->last + 1);
    listener->last = event->id;
}

static struct listener *listen_from(struct events *events, struct listener *listener,
                                    uint64_t after)
{
    *listener = (struct listener){.subscriber = {.tell = tell, .opaque = listener}};
    events_subscribe(events, &listener->subscriber, after);
    return listener;
}

static void test_order(void **state)
{
    struct events *events = events_new();
    struct listener early, late;

    listen_from(events, &early, 0);
    for (int i = 0; i < 3; i++)
        events_publish(events, "vm.state", "web", json_pack("{s:i}", "n", i));
    assert_int_equal(early.count, 3);
    assert_int_equal(listen_from(events, &late, 1)->count, 2);
    events_unsubscribe(&early.subscriber);
    events_publish(events, "vm.state", NULL, NULL);
    assert_int_equal(early.count, 3);
    assert_int_equal(late.last, 4);
    events_free(events);
}

static void test_old_ones_go(void **state)
{
    struct events *events = events_new();
    struct listener listener;

    for (int i = 0; i < EVENTS_KEPT + 100; i++)
        events_publish(events, "vm.state", "web", NULL);
    listen_from(events, &listener, 0);
    assert_int_equal(listener.count, EVENTS_KEPT);
    assert_int_equal(listener.first, 101);
    assert_int_equal(events_latest(events), EVENTS_KEPT + 100);
    events_free(events);
}

static void test_time(void **state)
{
    json_t *time = events_time(1000000000123456789ull);

    assert_string_equal(json_string_value(time), "2001-09-09T01:46:40.123Z");
    json_decref(time);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_old_ones_go),
        cmocka_unit_test(test_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
