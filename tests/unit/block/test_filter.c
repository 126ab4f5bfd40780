/*
 * The filters: failing by rule, telling what happens in order, and limiting rates, which no
 * machine may exceed, however fast or slow it is.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/clock.h"
#include "crash_log.h"

#define SIZE KIB(256)

static const uint8_t data[KIB(64)] = {1, 2, 3};

static struct image *file(struct crash_file *bytes)
{
    crash_file_truncate(bytes, SIZE);
    return crash_file_open(bytes, IMAGE_OPEN_WRITABLE);
}

static void test_fault(void **state)
{
    struct crash_file bytes = {0};
    struct image *image = filter_fault_open(file(&bytes));
    const struct filter_fault rules[] = {
        {.calls = FILTER_WRITE, .skip = 2, .count = 1, .error = ENOSPC},
        {.calls = FILTER_READ, .offset = 4096, .length = 512, .error = EIO},
        {.calls = FILTER_FLUSH, .skip = 1, .error = EIO},
    };
    uint8_t buffer[1024];
    (void)state;
    filter_fault_set(image, rules, ARRAY_SIZE(rules));
    assert_int_equal(image_write(image, data, 0, 512), 0);
    assert_int_equal(image_write(image, data, 0, 512), 0);
    assert_int_equal(image_write(image, data, SIZE, 512), -ENOSPC);
    assert_int_equal(image_size(image), SIZE);
    assert_int_equal(image_write(image, data, SIZE, 512), 0);
    assert_int_equal(image_size(image), SIZE + 512);
    assert_int_equal(image_read(image, buffer, 3072, 1024), 0);
    assert_int_equal(image_read(image, buffer, 3584, 513), -EIO);
    assert_int_equal(image_read(image, buffer, 4607, 1), -EIO);
    assert_int_equal(image_read(image, buffer, 4608, 512), 0);
    assert_int_equal(image_flush(image), 0);
    assert_int_equal(image_flush(image), -EIO);
    assert_int_equal(image_flush(image), -EIO);
    assert_int_equal(filter_fault_hits(image), 5);
    filter_fault_set(image, NULL, 0);
    assert_int_equal(image_flush(image), 0);
    assert_int_equal(image_close(image), 0);
    crash_file_fini(&bytes);
}

static void test_log(void **state)
{
    struct crash_file bytes = {0}, again = {0};
    struct crash_log log = {0};
    struct image *image = filter_log_open(file(&bytes), crash_log_add, &log);
    uint8_t buffer[8];
    (void)state;
    crash_file_truncate(&again, SIZE);
    assert_int_equal(image_write(image, data, 100, 2000), 0);
    assert_int_equal(image_flush(image), 0);
    assert_int_equal(image_read(image, buffer, 0, 8), 0);
    assert_int_equal(image_zero(image, 600, 700, true), 0);
    assert_int_equal(image_truncate(image, SIZE + 1000), 0);
    assert_int_equal(image_discard(image, 4096, 4096), 0);
    assert_int_equal(log.count, 5);
    static const unsigned calls[] = {FILTER_WRITE, FILTER_FLUSH, FILTER_ZERO, FILTER_TRUNCATE,
                                     FILTER_DISCARD};
    for (unsigned i = 0; i < log.count; i++) {
        assert_int_equal(log.entry[i].call, calls[i]);
        crash_apply(&again, &log.entry[i], NULL);
    }
    assert_int_equal(again.size, bytes.size);
    assert_memory_equal(again.bytes, bytes.bytes, bytes.size);
    assert_int_equal(image_close(image), 0);
    crash_log_fini(&log);
    crash_file_fini(&bytes);
    crash_file_fini(&again);
}

struct client {
    struct image *image;
    bool write;
    unsigned ops;
    uint64_t length;
};

static void *ask(void *opaque)
{
    struct client *client = opaque;
    static uint8_t sink[4][KIB(64)];
    for (unsigned i = 0; i < client->ops; i++) {
        if (client->write)
            (void)image_write(client->image, data, 0, client->length);
        else
            (void)image_read(client->image, sink[(uintptr_t)client / sizeof(*client) % 4], 0,
                             client->length);
    }
    return NULL;
}

/* Two nodes of a group and two threads on each: how long all that takes at least, in ns. */
static uint64_t time_clients(const struct filter_limits *limits, unsigned ops, uint64_t length,
                             bool write)
{
    struct crash_file bytes[2] = {{0}, {0}};
    struct filter_group *group = filter_group_new(limits);
    struct image *node[2];
    struct client client[4];
    pthread_t thread[4];
    for (unsigned i = 0; i < 2; i++)
        node[i] = filter_throttle_open(file(&bytes[i]), group);
    filter_group_free(group);
    uint64_t begin = clock_now_ns();
    for (unsigned i = 0; i < 4; i++) {
        client[i] = (struct client){node[i % 2], write, ops / 4, length};
        assert_int_equal(pthread_create(&thread[i], NULL, ask, &client[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    uint64_t took = clock_now_ns() - begin;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(image_close(node[i]), 0);
        crash_file_fini(&bytes[i]);
    }
    return took;
}

static void test_throttle(void **state)
{
    (void)state;
    /* 600 at 1000 a second, less the tenth of a second that may come at once. */
    struct filter_limits limits = {.ops = {1000}};
    assert_true(time_clients(&limits, 600, 512, true) >= 500 * NSEC_PER_MSEC * 95 / 100);
    /* Reads are not writes. */
    limits = (struct filter_limits){.ops = {0, 500}};
    assert_true(time_clients(&limits, 300, 512, false) >= 500 * NSEC_PER_MSEC * 95 / 100);
    assert_true(time_clients(&limits, 40, 512, true) < 60 * NSEC_PER_SEC);
    /* 8 MiB at 16 MiB a second, 2 MiB of burst. */
    limits = (struct filter_limits){.bytes = {MIB(16)}, .burst_bytes = MIB(2)};
    assert_true(time_clients(&limits, 128, KIB(64), true) >= 275 * NSEC_PER_MSEC * 95 / 100);
    /* New limits hold at once: an hour's wait would follow otherwise. */
    limits = (struct filter_limits){.ops = {1}};
    struct crash_file bytes = {0};
    struct filter_group *group = filter_group_new(&limits);
    struct image *image = filter_throttle_open(file(&bytes), group);
    limits.ops[0] = 1000000;
    filter_group_set(group, &limits);
    for (unsigned i = 0; i < 3600; i++)
        assert_int_equal(image_write(image, data, 0, 512), 0);
    filter_group_free(group);
    assert_int_equal(image_close(image), 0);
    crash_file_fini(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fault), cmocka_unit_test(test_log),
                                       cmocka_unit_test(test_throttle)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
