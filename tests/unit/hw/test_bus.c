/*
 * Dispatch buses: overlap, cuts, removal inside a callback, remaps beside readers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <pthread.h>

#include "board_env.h"

struct thing {
    struct io_region region;
    struct lock lock;
    uint64_t tag;
    unsigned reads, writes, last_size;
    uint64_t last_offset, last_value;
    bool leave; /* remove the region in the callback */
};

static uint64_t thing_read(void *opaque, uint64_t offset, unsigned size)
{
    struct thing *thing = opaque;
    thing->reads++;
    thing->last_offset = offset;
    thing->last_size = size;
    if (thing->leave)
        io_bus_remove(&thing->region);
    return thing->tag;
}

static void thing_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct thing *thing = opaque;
    thing->writes++;
    thing->last_offset = offset;
    thing->last_size = size;
    thing->last_value = value;
}

static const struct io_ops thing_ops = {thing_read, thing_write};

static void thing_init(struct thing *thing, uint64_t size, uint64_t tag)
{
    *thing = (struct thing){.tag = tag};
    lock_init(&thing->lock, LOCK_DEVICE);
    thing->region = (struct io_region){
        .name = "thing", .size = size, .ops = &thing_ops, .opaque = thing, .lock = &thing->lock};
}

static void nobody_reads_ones(void **state)
{
    struct io_bus *bus = io_bus_new("test");
    assert_int_equal(io_bus_read(bus, 0, 1), 0xff);
    assert_int_equal(io_bus_read(bus, 0xfffc, 4), 0xffffffff);
    assert_true(io_bus_read(bus, UINT64_MAX, 8) == UINT64_MAX);
    io_bus_write(bus, 5, 8, 1);
    io_bus_free(bus);
}

static void offsets_and_sizes_arrive(void **state)
{
    struct io_bus *bus = io_bus_new("test");
    struct thing a;
    thing_init(&a, 16, 0x1122334455667788);
    io_bus_add(bus, &a.region, 0x1000);
    assert_true(io_bus_read(bus, 0x1004, 8) == 0x1122334455667788);
    assert_int_equal(a.last_offset, 4);
    assert_int_equal(a.last_size, 8);
    assert_int_equal(io_bus_read(bus, 0x100f, 1), 0x88);
    io_bus_write(bus, 0x1002, 2, 0xabcdef);
    assert_int_equal(a.last_value, 0xcdef);
    assert_int_equal(io_bus_read(bus, 0x0fff, 1), 0xff);
    assert_int_equal(io_bus_read(bus, 0x1010, 1), 0xff);
    io_bus_remove(&a.region);
    io_bus_remove(&a.region);
    assert_int_equal(io_bus_read(bus, 0x1000, 4), 0xffffffff);
    io_bus_free(bus);
}

static void an_access_over_the_end_is_cut(void **state)
{
    struct io_bus *bus = io_bus_new("test");
    struct thing a, b;
    thing_init(&a, 3, 0xaa);
    thing_init(&b, 4, 0xbb);
    io_bus_add(bus, &a.region, 0x10);
    io_bus_add(bus, &b.region, 0x14);
    /* Bytes 0x12 (a), 0x13 (nobody), 0x14 and 0x15 (b, as one access of two). */
    b.tag = 0xccbb;
    assert_int_equal(io_bus_read(bus, 0x12, 4), 0xccbbffaa);
    assert_int_equal(a.last_size, 1);
    assert_int_equal(b.last_size, 2);
    /* Begins in front of a region. */
    assert_int_equal(io_bus_read(bus, 0x0f, 2), 0xaaff);
    io_bus_write(bus, 0x11, 8, 0x8877665544332211);
    assert_int_equal(a.writes, 1);
    assert_int_equal(a.last_value, 0x2211);
    assert_int_equal(b.writes, 1);
    assert_int_equal(b.last_value, 0x77665544);
    io_bus_remove(&a.region);
    io_bus_remove(&b.region);
    io_bus_free(bus);
}

static void the_first_stays_visible(void **state)
{
    struct io_bus *bus = io_bus_new("test");
    struct thing a, b, c;
    thing_init(&a, 0x10, 1);
    thing_init(&b, 0x100, 2);
    thing_init(&c, 0x1000, 3);
    io_bus_add(bus, &a.region, 0x50);
    io_bus_add(bus, &b.region, 0x10);
    io_bus_add(bus, &c.region, 0x0);
    static const struct {
        uint64_t at;
        uint64_t tag;
    } expected[] = {{0x0, 3},  {0xf, 3},   {0x10, 2},  {0x4f, 2},  {0x50, 1},     {0x5f, 1},
                    {0x60, 2}, {0x10f, 2}, {0x110, 3}, {0xfff, 3}, {0x1000, 0xff}};
    for (unsigned i = 0; i < ARRAY_SIZE(expected); i++)
        assert_int_equal(io_bus_read(bus, expected[i].at, 1), expected[i].tag);
    assert_int_equal(io_bus_read(bus, 0x60, 1), 2);
    assert_int_equal(b.last_offset, 0x50);
    io_bus_remove(&a.region);
    assert_int_equal(io_bus_read(bus, 0x50, 1), 2);
    io_bus_remove(&b.region);
    assert_int_equal(io_bus_read(bus, 0x50, 1), 3);
    io_bus_remove(&c.region);
    io_bus_free(bus);
}

static void wrapping_regions_are_nowhere(void **state)
{
    struct io_bus *bus = io_bus_new("test");
    struct thing a;
    thing_init(&a, 0x1000, 1);
    io_bus_add(bus, &a.region, UINT64_MAX - 0x10);
    assert_null(a.region.bus);
    io_bus_add(bus, &a.region, UINT64_MAX - 0xfff);
    assert_int_equal(io_bus_read(bus, UINT64_MAX, 1), 1);
    io_bus_remove(&a.region);
    io_bus_free(bus);
}

static void a_callback_may_remove_its_region(void **state)
{
    struct io_bus *bus = io_bus_new("test");
    struct thing a;
    thing_init(&a, 8, 7);
    a.leave = true;
    io_bus_add(bus, &a.region, 0);
    assert_int_equal(io_bus_read(bus, 0, 1), 7);
    assert_int_equal(io_bus_read(bus, 0, 1), 0xff);
    assert_int_equal(a.reads, 1);
    io_bus_free(bus);
}

struct racer {
    struct io_bus *bus;
    bool stop;
    unsigned wrong, seen;
};

/* While region 1 moves about, region 0 must always answer, and the moving one only with its own
 * tag. */
static void *race(void *opaque)
{
    struct racer *racer = opaque;
    while (!__atomic_load_n(&racer->stop, __ATOMIC_RELAXED)) {
        if (io_bus_read(racer->bus, 0x8000, 4) != 0x1234)
            racer->wrong++;
        uint64_t value = io_bus_read(racer->bus, 0x4000, 4);
        if (value != 0x5678 && value != 0xffffffff)
            racer->wrong++;
        racer->seen++;
    }
    return NULL;
}

static void remaps_beside_readers(void **state)
{
    struct io_bus *bus = io_bus_new("test");
    struct thing fixed, moving, others[40];
    struct racer racer = {.bus = bus};
    pthread_t thread;
    thing_init(&fixed, 0x100, 0x1234);
    thing_init(&moving, 0x100, 0x5678);
    io_bus_add(bus, &fixed.region, 0x8000);
    assert_int_equal(pthread_create(&thread, NULL, race, &racer), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(others); i++) {
        thing_init(&others[i], 0x10, i);
        io_bus_add(bus, &others[i].region, 0x100000 + 0x20 * i);
    }
    for (unsigned i = 0; i < 3000; i++) {
        lock_take(&moving.lock);
        io_bus_remove(&moving.region);
        io_bus_add(bus, &moving.region, i & 1 ? 0x4000 : 0x6000 + (i & 0xff0));
        lock_drop(&moving.lock);
    }
    __atomic_store_n(&racer.stop, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    assert_int_equal(racer.wrong, 0);
    assert_true(racer.seen > 0);
    io_bus_remove(&moving.region);
    io_bus_remove(&fixed.region);
    for (unsigned i = 0; i < ARRAY_SIZE(others); i++)
        io_bus_remove(&others[i].region);
    io_bus_free(bus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_reads_ones),
        cmocka_unit_test(offsets_and_sizes_arrive),
        cmocka_unit_test(an_access_over_the_end_is_cut),
        cmocka_unit_test(the_first_stays_visible),
        cmocka_unit_test(wrapping_regions_are_nowhere),
        cmocka_unit_test(a_callback_may_remove_its_region),
        cmocka_unit_test(remaps_beside_readers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
