/*
 * Work in pieces by several threads: all pieces once, results in order, the end at an error, and no
 * more threads than are of use.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "block/job/parallel.h"

#define PIECE_NS (3 * NSEC_PER_MSEC)

struct record {
    bool spins;    /* a piece needs a CPU; or it waits */
    uint64_t last; /* the piece at which it ends with an error */
    uint64_t done; /* results taken */
    uint64_t value[JOB_SLOTS_MAX];
    bool used[JOB_WORKERS_MAX];
};

static void work(void *opaque, unsigned worker, unsigned slot, uint64_t piece)
{
    struct record *record = opaque;
    const struct timespec time = {.tv_nsec = PIECE_NS};
    uint64_t end = clock_thread_ns() + PIECE_NS;
    record->used[worker] = true;
    record->value[slot] = piece * 3;
    if (!record->spins)
        nanosleep(&time, NULL);
    while (record->spins && clock_thread_ns() < end)
        ;
}

static struct err *finish(void *opaque, unsigned slot, uint64_t piece, bool *stop)
{
    struct record *record = opaque;
    (void)stop;
    assert_int_equal(piece, record->done++);
    assert_int_equal(record->value[slot], piece * 3);
    return piece == record->last ? err_new("piece %d", (int)piece) : NULL;
}

static unsigned run(struct record *record, uint64_t pieces)
{
    struct job_parallel job = {.workers = JOB_WORKERS_MAX,
                               .pieces = pieces,
                               .opaque = record,
                               .work = work,
                               .finish = finish};
    struct err *err = job_parallel_run(&job);
    unsigned used = 0;
    assert_int_equal(err != NULL, record->last < pieces);
    assert_int_equal(record->done, MIN(pieces, record->last + 1));
    err_free(err);
    for (unsigned i = 0; i < JOB_WORKERS_MAX; i++)
        used += record->used[i];
    return used;
}

static void test_threads_that_sleep(void **state)
{
    struct record record = {.last = 1000};
    (void)state;
    assert_int_equal(run(&record, 500), JOB_WORKERS_MAX);
}

static void test_threads_that_need_a_cpu(void **state)
{
    struct record record = {.last = 1000, .spins = true};
    (void)state;
    /* One more each time that the host takes the CPU away unseen. */
    assert_in_range(run(&record, 100), 1, job_default_workers() + 3);
}

static void test_error(void **state)
{
    struct record record = {.last = 40};
    (void)state;
    run(&record, 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_that_sleep),
        cmocka_unit_test(test_threads_that_need_a_cpu),
        cmocka_unit_test(test_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
