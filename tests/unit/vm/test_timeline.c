/*
 * The boot timeline.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "vm/timeline.h"

static void test_first_mark_counts(void **state)
{
    struct timeline timeline = {0};
    uint64_t before = clock_now_ns();

    timeline_mark(&timeline, TIMELINE_CONFIG);
    uint64_t first = timeline.at_ns[TIMELINE_CONFIG];
    assert_in_range(first, before, clock_now_ns());
    timeline_mark(&timeline, TIMELINE_CONFIG);
    timeline_mark_at(&timeline, TIMELINE_CONFIG, 5);
    assert_int_equal(timeline.at_ns[TIMELINE_CONFIG], first);
    timeline_mark(&timeline, TIMELINE_MARKS);
    timeline_mark_at(&timeline, (enum timeline_mark)1000, 5);
    assert_string_equal(timeline_name((enum timeline_mark)1000), "?");
    for (unsigned mark = 0; mark < TIMELINE_MARKS; mark++)
        assert_non_null(timeline_name((enum timeline_mark)mark));
}

static void test_stages_add_up(void **state)
{
    struct timeline timeline = {0};
    double sum = 0, last = 0;
    json_t *stage;
    size_t i;

    /* Out of the enum's order, and with gaps. */
    timeline_mark_at(&timeline, TIMELINE_EXEC, 1000000);
    timeline_mark_at(&timeline, TIMELINE_END, 9500000);
    timeline_mark_at(&timeline, TIMELINE_INIT, 4000000);
    timeline_mark_at(&timeline, TIMELINE_FIRST_OUTPUT, 6000000);
    json_t *stages = timeline_to_json(&timeline);
    assert_int_equal(json_array_size(stages), 4);
    json_array_foreach(stages, i, stage)
    {
        sum += json_real_value(json_object_get(stage, "took_ms"));
        last = json_real_value(json_object_get(stage, "at_ms"));
        assert_true(sum == last);
    }
    assert_true(last == 8.5);
    assert_string_equal(json_string_value(json_object_get(json_array_get(stages, 1), "stage")),
                        "init");
    json_decref(stages);

    struct buf text = BUF_INIT;
    timeline_print(&timeline, &text);
    buf_u8(&text, 0);
    assert_string_equal((char *)text.data, "stage                           at ms      took ms\n"
                                           "exec                            0.000        0.000\n"
                                           "init                            3.000        3.000\n"
                                           "first output                    5.000        2.000\n"
                                           "end                             8.500        3.500\n");
    buf_fini(&text);
}

static void test_empty(void **state)
{
    struct timeline timeline = {0};
    json_t *stages = timeline_to_json(&timeline);

    assert_int_equal(json_array_size(stages), 0);
    json_decref(stages);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_mark_counts),
        cmocka_unit_test(test_stages_add_up),
        cmocka_unit_test(test_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
