/*
 * Unit tests of src/loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "../test.h"
#include "base/clock.h"
#include "loop/loop.h"

struct trace {
    char text[64];
    struct loop *loop;
    struct loop_fd watch;
};

static struct trace trace;

static void note(void *opaque)
{
    strcat(trace.text, opaque);
}

static void note_and_stop(void *opaque)
{
    note(opaque);
    loop_stop(trace.loop);
}

static int set_up(void **state)
{
    memset(&trace, 0, sizeof(trace));
    assert_ok(loop_new("test", &trace.loop));
    return 0;
}

static int tear_down(void **state)
{
    loop_free(trace.loop);
    return 0;
}

static void timers_fire_in_order_of_deadline(void **state)
{
    struct loop_timer a, b, c, d;
    uint64_t now = clock_now_ns();
    loop_timer_init(trace.loop, &a, note, "a");
    loop_timer_init(trace.loop, &b, note_and_stop, "b");
    loop_timer_init(trace.loop, &c, note, "c");
    loop_timer_init(trace.loop, &d, note, "d");
    loop_timer_arm(&b, now + 3 * NSEC_PER_MSEC);
    loop_timer_arm(&a, now + 2 * NSEC_PER_MSEC);
    loop_timer_arm(&d, now + 1 * NSEC_PER_MSEC);
    loop_timer_arm(&c, 0);
    loop_timer_cancel(&d);
    assert_false(loop_timer_armed(&d));
    loop_run(trace.loop);
    assert_string_equal(trace.text, "cab");
    assert_true(clock_now_ns() >= now + 3 * NSEC_PER_MSEC);
}

static void work_from_another_thread_keeps_its_order(void **state)
{
    struct loop_thread *thread;
    assert_ok(loop_thread_start(trace.loop, &thread));
    loop_post(trace.loop, note, "1");
    loop_post(trace.loop, note, "2");
    struct loop_timer timer;
    loop_timer_init(trace.loop, &timer, note, "3");
    for (int i = 0; i < 10000 && !__atomic_load_n(&trace.text[1], __ATOMIC_ACQUIRE); i++)
        usleep(1000);
    loop_timer_arm(&timer, clock_now_ns());
    for (int i = 0; i < 10000 && loop_timer_armed(&timer); i++)
        usleep(1000);
    loop_thread_join(thread);
    assert_string_equal(trace.text, "123");
}

static void on_pipe(void *opaque, uint32_t events)
{
    char byte;
    assert_int_equal(read(trace.watch.fd, &byte, 1), 1);
    strncat(trace.text, &byte, 1);
    loop_fd_remove(&trace.watch);
}

static void a_removed_watch_is_silent(void **state)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], "xy", 2), 2);
    assert_ok(loop_fd_add(trace.loop, &trace.watch, fds[0], EPOLLIN, on_pipe, NULL));
    loop_once(trace.loop, 100);
    loop_once(trace.loop, 0);
    assert_string_equal(trace.text, "x");
    loop_fd_remove(&trace.watch);
    close(fds[0]);
    close(fds[1]);
}

static void add_one(void *opaque)
{
    __atomic_fetch_add((int *)opaque, 1, __ATOMIC_SEQ_CST);
}

static void count_done(void *opaque)
{
    int *sum = opaque;
    if (++sum[1] == 100)
        loop_stop(trace.loop);
}

static void the_pool_completes_on_the_loop(void **state)
{
    struct pool *pool;
    int sum[2] = {0};
    assert_ok(pool_new("workers", 3, &pool));
    for (int i = 0; i < 100; i++)
        pool_submit(pool, add_one, trace.loop, count_done, sum);
    loop_run(trace.loop);
    pool_free(pool);
    assert_int_equal(sum[0], 100);
    assert_int_equal(sum[1], 100);
}

int main(void)
{
#define LOOP_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        LOOP_TEST(timers_fire_in_order_of_deadline),
        LOOP_TEST(work_from_another_thread_keeps_its_order),
        LOOP_TEST(a_removed_watch_is_silent),
        LOOP_TEST(the_pool_completes_on_the_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
