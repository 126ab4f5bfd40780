/*
 * Drivers that break every rule: loops, addresses outside RAM, lengths of nothing and of 4 GiB,
 * indexes that jump, descriptors that change after they were read, registers written in every size
 * and offset. The device asks for a reset or ignores it; it never crashes, hangs or writes where it
 * must not.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <pthread.h>

#include "virtio_driver.h"
#include "virtio_echo.h"

#define VERSION_1 F(VIRTIO_F_VERSION_1)
#define PACKED F(VIRTIO_F_RING_PACKED)
#define EVENT F(VIRTIO_F_EVENT_IDX)
#define INDIRECT F(VIRTIO_F_INDIRECT_DESC)
#define NEXT VIRTQ_DESC_NEXT
#define WRITE VIRTQ_DESC_WRITE
#define TABLE VIRTQ_DESC_INDIRECT
#define SIZE 16

struct bed {
    struct machine machine;
    struct echo *echo;
    struct driver driver;
    struct ring *ring;
    unsigned lines; /* of the log */
};

static void bed_open(struct bed *bed)
{
    machine_init(&bed->machine);
    bed->lines = 0;
    log_set_sink(quiet_log, &bed->lines);
    bed->echo = (struct echo *)device_new(&echo_class, &bed->machine.env, "e0");
    machine_add(&bed->machine, &bed->echo->virtio.pci.device);
    driver_find(&bed->driver, &bed->machine, &bed->echo->virtio);
    driver_msix_on(&bed->driver);
}

static void bed_close(struct bed *bed)
{
    device_free(&bed->echo->virtio.pci.device);
    machine_fini(&bed->machine);
}

static void bed_start(struct bed *bed, uint64_t features)
{
    assert_true(driver_negotiate(&bed->driver, VERSION_1 | features));
    bed->ring = driver_queue(&bed->driver, 0, SIZE);
    driver_start(&bed->driver);
    driver_turn(&bed->driver, 2);
}

/* The device wants a reset, said so once, and works again after it. */
static void expect_broken(struct bed *bed, const char *what)
{
    ring_kick_always(&bed->driver, bed->ring);
    driver_turn(&bed->driver, 3);
    if (!(driver_status(&bed->driver) & VIRTIO_STATUS_NEEDS_RESET))
        fail_msg("%s: the device goes on", what);
    assert_int_equal(bed->machine.message[1], 1); /* configuration interrupt */
    unsigned popped = bed->echo->popped;
    for (int i = 0; i < 20; i++) {
        ring_kick_always(&bed->driver, bed->ring);
        driver_turn(&bed->driver, 1);
    }
    assert_int_equal(bed->echo->popped, popped);
    assert_true(bed->lines >= 1 && bed->lines <= 6);

    bed->echo->hold = false;
    bed_start(bed, 0);
    struct buffer buffers[2] = {{1 << 16, 8}, {(1 << 16) + 64, 8}};
    uint16_t id;
    uint32_t len;
    ring_add(&bed->driver, bed->ring, buffers, 1, 1, false);
    ring_kick(&bed->driver, bed->ring);
    assert_true(ring_wait(&bed->driver, bed->ring, &id, &len));
    assert_int_equal(len, 8);
}

/* A descriptor as the split layout has it. */
struct split_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

struct split_case {
    const char *what;
    struct split_desc desc[4];
    uint16_t head;
};

#define OK_ADDR 0x20000ull

static const struct split_case split_cases[] = {
    {"a loop of one", {{OK_ADDR, 8, NEXT, 0}}, 0},
    {"a loop of two", {{OK_ADDR, 8, NEXT, 1}, {OK_ADDR, 8, NEXT, 0}}, 0},
    {"a loop of nothing", {{OK_ADDR, 0, NEXT, 1}, {OK_ADDR, 0, NEXT, 0}}, 0},
    {"a head outside", {{OK_ADDR, 8, 0, 0}}, SIZE},
    {"a head far outside", {{OK_ADDR, 8, 0, 0}}, 0xffff},
    {"a next outside", {{OK_ADDR, 8, NEXT, SIZE}}, 0},
    {"a next far outside", {{OK_ADDR, 8, NEXT, 0xfff0}}, 0},
    {"a hole", {{RAM_SIZE + 4096, 8, 0, 0}}, 0},
    {"the end of memory", {{RAM_SIZE - 4, 8, 0, 0}}, 0},
    {"the end of the address space", {{~0ull - 3, 8, 0, 0}}, 0},
    {"the last address", {{~0ull, 1, 0, 0}}, 0},
    {"around the address space", {{~0ull - 4095, 0xffffffff, WRITE, 0}}, 0},
    {"a write to ROM", {{ROM_BASE, 8, WRITE, 0}}, 0},
    {"4 GiB", {{0, 0xffffffff, 0, 0}}, 0},
    {"4 GiB to write", {{0, 0xffffffff, WRITE, 0}}, 0},
    {"readable after writable", {{OK_ADDR, 8, NEXT | WRITE, 1}, {OK_ADDR, 8, 0, 0}}, 0},
    {"its own registers", {{0xc0000000, 64, WRITE, 0}}, 0},
    {"table: not agreed on", {{OK_ADDR, 16, TABLE, 0}}, 0},
};

static void write_split(struct bed *bed, const struct split_desc *desc, unsigned count, uint64_t to)
{
    for (unsigned i = 0; i < count; i++)
        put_desc(machine_host(&bed->machine, to) + 16 * i,
                 (struct buffer){desc[i].addr, desc[i].len}, desc[i].flags, desc[i].next);
}

static void publish_split(struct bed *bed, uint16_t head)
{
    put_le16(bed->ring->host[1] + 4, head);
    put_le16(bed->ring->host[1] + 2, 1);
}

static void test_split_chains(void **state)
{
    for (unsigned i = 0; i < ARRAY_SIZE(split_cases); i++) {
        for (unsigned event = 0; event < 2; event++) {
            struct bed bed;
            bed_open(&bed);
            bed_start(&bed, event ? EVENT : 0);
            write_split(&bed, split_cases[i].desc, 4, bed.ring->area[0]);
            publish_split(&bed, split_cases[i].head);
            expect_broken(&bed, split_cases[i].what);
            bed_close(&bed);
        }
    }
}

static void test_split_tables(void **state)
{
    static const struct split_case cases[] = {
        {"empty", {{OK_ADDR, 0, TABLE, 0}}, 0},
        {"half an entry", {{OK_ADDR, 8, TABLE, 0}}, 0},
        {"an entry and a half", {{OK_ADDR, 24, TABLE, 0}}, 0},
        {"4 GiB", {{OK_ADDR, 0xfffffff0, TABLE, 0}}, 0},
        {"more than a chain may have", {{OK_ADDR, 16 * 257, TABLE, 0}}, 0},
        {"outside", {{RAM_SIZE, 32, TABLE, 0}}, 0},
        {"over the end", {{RAM_SIZE - 16, 32, TABLE, 0}}, 0},
        {"around", {{~0ull - 15, 32, TABLE, 0}}, 0},
        {"goes on behind", {{OK_ADDR, 32, TABLE | NEXT, 1}, {OK_ADDR, 8, 0, 0}}, 0},
        {"refers to itself", {{OK_ADDR, 16, TABLE, 0}}, 1},
        {"a loop inside", {{OK_ADDR, 32, TABLE, 0}}, 2},
        {"next outside", {{OK_ADDR, 32, TABLE, 0}}, 3},
    };
    static const struct split_desc inside[4][2] = {
        {{0x30000, 8, NEXT, 1}, {0x30000, 8, NEXT, 1}}, /* the second never ends */
        {{OK_ADDR, 16, TABLE, 0}, {0, 0, 0, 0}},
        {{0x30000, 8, NEXT, 1}, {0x30000, 8, NEXT, 0}},
        {{0x30000, 8, NEXT, 2}, {0x30000, 8, 0, 0}},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct bed bed;
        bed_open(&bed);
        bed_start(&bed, INDIRECT);
        write_split(&bed, cases[i].desc, 4, bed.ring->area[0]);
        write_split(&bed, inside[cases[i].head], 2, OK_ADDR);
        if (cases[i].desc[0].addr == RAM_SIZE - 16) /* its last entry in RAM goes on */
            write_split(&bed, inside[0], 1, RAM_SIZE - 16);
        publish_split(&bed, 0);
        expect_broken(&bed, cases[i].what);
        bed_close(&bed);
    }
}

/* Many buffers of a megabyte: each fits, their sum reaches 4 GiB. */
static void test_sum_of_lengths(void **state)
{
    struct bed bed;
    bed_open(&bed);
    check_ok(gmem_add_ram(bed.machine.env.gmem, "large", GIB(1), MIB(512)));
    bed_start(&bed, 0);
    for (unsigned i = 0; i < SIZE; i++)
        put_desc(bed.ring->host[0] + 16 * i, (struct buffer){GIB(1), MIB(512)},
                 i + 1 < SIZE ? NEXT : 0, (uint16_t)(i + 1));
    publish_split(&bed, 0);
    expect_broken(&bed, "a sum of 4 GiB");
    bed_close(&bed);
}

static void test_index_jumps(void **state)
{
    static const uint16_t jumps[] = {SIZE + 1, 100, 0x7fff, 0x8000, 0xffff};
    for (unsigned i = 0; i < ARRAY_SIZE(jumps); i++) {
        struct bed bed;
        bed_open(&bed);
        bed_start(&bed, 0);
        put_le16(bed.ring->host[1] + 2, jumps[i]);
        expect_broken(&bed, "a jump");
        bed_close(&bed);
    }
    /* More in flight than the ring has entries: the same head again and again. */
    struct bed bed;
    bed_open(&bed);
    bed_start(&bed, 0);
    bed.echo->hold = true;
    struct split_desc desc = {OK_ADDR, 8, 0, 0};
    write_split(&bed, &desc, 1, bed.ring->area[0]);
    for (uint16_t i = 1; i <= SIZE; i++) {
        put_le16(bed.ring->host[1] + 2, i);
        ring_kick_always(&bed.driver, bed.ring);
        driver_turn(&bed.driver, 1);
    }
    assert_int_equal(bed.echo->held_count, SIZE);
    assert_int_equal(driver_status(&bed.driver) & VIRTIO_STATUS_NEEDS_RESET, 0);
    put_le16(bed.ring->host[1] + 2, SIZE + 1);
    ring_kick_always(&bed.driver, bed.ring);
    driver_turn(&bed.driver, 2);
    assert_int_equal(bed.echo->held_count, SIZE);
    assert_true(driver_status(&bed.driver) & VIRTIO_STATUS_NEEDS_RESET);
    bed_close(&bed);
}

/* Descriptors of the packed layout: len, id, flags besides the available mark. */
static void put_packed(struct bed *bed, unsigned place, uint64_t addr, uint32_t len, uint16_t flags)
{
    put_desc(bed->ring->host[0] + 16 * place, (struct buffer){addr, len}, 0,
             (uint16_t)(flags | 1u << 7));
}

static void test_packed_chains(void **state)
{
    for (unsigned i = 0; i < 12; i++) {
        struct bed bed;
        bed_open(&bed);
        bed_start(&bed, PACKED | (i % 2 ? EVENT : 0) | (i >= 7 ? INDIRECT : 0));
        struct split_desc table[2] = {{0x30000, 8, 0, i == 10 ? WRITE : 0}, {0x30000, 8, 0, 0}};
        write_split(&bed, table, 2, OK_ADDR);
        switch (i) {
        case 0: /* never ends: every descriptor has another behind it */
            for (unsigned k = 0; k < SIZE; k++)
                put_packed(&bed, k, OK_ADDR, 8, NEXT);
            break;
        case 1:
            put_packed(&bed, 0, RAM_SIZE, 8, 0);
            break;
        case 2:
            put_packed(&bed, 0, ~0ull - 2, 8, WRITE);
            break;
        case 3:
            put_packed(&bed, 0, 0, 0xffffffff, 0);
            break;
        case 4:
            put_packed(&bed, 0, OK_ADDR, 8, NEXT | WRITE);
            put_packed(&bed, 1, OK_ADDR, 8, 0);
            break;
        case 5:
            put_packed(&bed, 0, OK_ADDR, 32, TABLE); /* not agreed on */
            break;
        case 6:
            put_packed(&bed, 0, ROM_BASE, 8, WRITE);
            break;
        case 7:
            put_packed(&bed, 0, OK_ADDR, 33, TABLE);
            break;
        case 8:
            put_packed(&bed, 0, OK_ADDR, 32, TABLE | NEXT);
            break;
        case 9:
            put_packed(&bed, 0, OK_ADDR, 8, NEXT);
            put_packed(&bed, 1, OK_ADDR, 32, TABLE);
            break;
        case 10: /* readable after writable, inside */
            put_packed(&bed, 0, OK_ADDR, 32, TABLE);
            break;
        case 11:
            put_packed(&bed, 0, RAM_SIZE - 8, 32, TABLE);
            break;
        }
        expect_broken(&bed, "packed");
        bed_close(&bed);
    }
}

/* A chain over what is still in flight. */
static void test_packed_overlap(void **state)
{
    struct bed bed;
    bed_open(&bed);
    bed_start(&bed, PACKED);
    bed.echo->hold = true;
    for (unsigned k = 0; k < SIZE; k++)
        put_packed(&bed, k, OK_ADDR, 8, k < SIZE - 2 ? NEXT : 0);
    ring_kick_always(&bed.driver, bed.ring);
    driver_turn(&bed.driver, 2);
    assert_int_equal(bed.echo->held_count, 2);
    /* All of the ring is in flight; the next round is marked available over it. */
    for (unsigned k = 0; k < SIZE; k++)
        put_desc(bed.ring->host[0] + 16 * k, (struct buffer){OK_ADDR, 8}, 0, 1u << 15);
    expect_broken(&bed, "overlap");
    bed_close(&bed);
}

static void test_ring_places(void **state)
{
    static const uint64_t places[] = {
        1,          8,     RAM_SIZE - 16, RAM_SIZE,     ROM_BASE,
        0xc0000000, ~0ull, ~0ull - 15,    ~0ull - 4095, RAM_SIZE / 2 - 16};
    for (unsigned packed = 0; packed < 2; packed++) {
        for (unsigned area = 0; area < 3; area++) {
            for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
                struct bed bed;
                bed_open(&bed);
                struct driver *driver = &bed.driver;
                assert_true(driver_negotiate(driver, VERSION_1 | (packed ? PACKED : 0)));
                COMMON_WRITE(driver, 0x16, 2, 0);
                COMMON_WRITE(driver, 0x18, 2, SIZE);
                for (unsigned k = 0; k < 3; k++)
                    COMMON_WRITE(driver, 0x20 + 8 * k, 8,
                                 k == area ? places[i] : 0x10000ull * (k + 1));
                COMMON_WRITE(driver, 0x1c, 2, 1);
                driver_start(driver);
                mmio_write(&bed.machine, driver->notify, 2, 0);
                driver_turn(driver, 2);
                bool enabled = COMMON_READ(driver, 0x1c, 2);
                assert_int_equal(!enabled, !!(driver_status(driver) & VIRTIO_STATUS_NEEDS_RESET));
                assert_int_equal(bed.echo->popped, 0);
                bed_close(&bed);
            }
        }
    }
}

static void test_ring_sizes(void **state)
{
    static const uint16_t sizes[] = {0, 3, 7, 257, 512, 0x8000, 0xffff};
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct bed bed;
        bed_open(&bed);
        struct driver *driver = &bed.driver;
        assert_true(driver_negotiate(driver, VERSION_1));
        COMMON_WRITE(driver, 0x16, 2, 0);
        COMMON_WRITE(driver, 0x18, 2, sizes[i]);
        for (unsigned k = 0; k < 3; k++)
            COMMON_WRITE(driver, 0x20 + 8 * k, 8, 0x10000ull * (k + 1));
        COMMON_WRITE(driver, 0x1c, 2, 1);
        assert_true(driver_status(driver) & VIRTIO_STATUS_NEEDS_RESET);
        assert_int_equal(COMMON_READ(driver, 0x1c, 2), 0);
        bed_close(&bed);
    }
}

struct changer {
    struct bed *bed;
    bool stop;
};

/* Another CPU of the guest that never stops rewriting rings, descriptors and tables. */
static void *change(void *opaque)
{
    struct changer *changer = opaque;
    struct ring *ring = changer->bed->ring;
    uint32_t seed = 12345;
    while (!__atomic_load_n(&changer->stop, __ATOMIC_RELAXED)) {
        seed = seed * 1664525 + 1013904223;
        volatile uint8_t *at = ring->host[0] + (seed >> 8) % (16 * SIZE);
        uint8_t before = *at;
        *at = (uint8_t)seed;
        at[0] = seed & 0x8000 ? before : (uint8_t)(seed >> 16);
        volatile uint16_t *avail = (volatile uint16_t *)(void *)(ring->host[1] + 2);
        if (!(seed & 0xf00))
            *avail = (uint16_t)(*avail + (seed & 7));
    }
    return NULL;
}

static void test_changes_after_the_check(void **state)
{
    for (unsigned kind = 0; kind < 4; kind++) {
        struct bed bed;
        bed_open(&bed);
        uint64_t end = clock_now_ns() + 300 * NSEC_PER_MSEC;
        while (clock_now_ns() < end) {
            bed.machine.next = 4096;
            bed_start(&bed, (kind & 1 ? PACKED : 0) | (kind & 2 ? INDIRECT | EVENT : 0));
            struct split_desc good[4] = {{0x20000, 64, NEXT, 1},
                                         {0x21000, 64, NEXT | WRITE, 2},
                                         {0x22000, 64, WRITE, 3},
                                         {0x23000, 64, TABLE, 0}};
            for (unsigned i = 0; i < SIZE; i += 4)
                write_split(&bed, good, 4, bed.ring->area[0] + 16 * i);
            struct changer changer = {.bed = &bed};
            pthread_t thread;
            pthread_create(&thread, NULL, change, &changer);
            for (int i = 0; i < 200; i++) {
                ring_kick_always(&bed.driver, bed.ring);
                loop_once(bed.machine.env.loop, 0);
                if (driver_status(&bed.driver) & VIRTIO_STATUS_NEEDS_RESET)
                    break;
            }
            __atomic_store_n(&changer.stop, true, __ATOMIC_RELAXED);
            pthread_join(thread, NULL);
        }
        bed_close(&bed);
    }
}

/* Every register in every size, live and idle. */
static void test_registers_in_every_size(void **state)
{
    static const uint64_t values[] = {0, 1, 0xffffffffffffffff, 0x8000000080000000,
                                      0x4242424242424242};
    struct bed bed;
    bed_open(&bed);
    uint64_t bar = bed.driver.common, msix = driver_bar(&bed.driver, 1);
    for (unsigned round = 0; round < 2; round++) {
        if (round)
            bed_start(&bed, 0);
        for (unsigned v = 0; v < ARRAY_SIZE(values); v++) {
            for (unsigned size = 1; size <= 8; size *= 2) {
                for (uint64_t at = 0; at < 0x4000; at++) {
                    if (at % 4096 >= 0x80 && at % 4096 < 0xff0)
                        continue;
                    mmio_read(&bed.machine, bar + at, size);
                    mmio_write(&bed.machine, bar + at, size, values[v]);
                }
                for (uint64_t at = 0; at<4096; at += size> 1 ? size / 2 : 1) {
                    mmio_read(&bed.machine, msix + at, size);
                    mmio_write(&bed.machine, msix + at, size, values[v]);
                }
                driver_turn(&bed.driver, 1);
            }
        }
    }
    /* Configuration space, with the BARs flying around; then all back in order. */
    for (unsigned v = 0; v < ARRAY_SIZE(values); v++) {
        for (unsigned size = 1; size <= 8; size *= 2) {
            for (unsigned at = 0; at < 4096; at++) {
                mmio_read(&bed.machine, bed.driver.config + at, size);
                mmio_write(&bed.machine, bed.driver.config + at, size, values[v]);
            }
        }
    }
    device_reset(&bed.echo->virtio.pci.device);
    check_ok(pci_bus_assign(bed.machine.bus));
    driver_find(&bed.driver, &bed.machine, &bed.echo->virtio);
    driver_msix_on(&bed.driver);
    bed_start(&bed, 0);
    struct buffer buffers[2] = {{1 << 16, 8}, {(1 << 16) + 64, 8}};
    uint16_t id;
    uint32_t len;
    ring_add(&bed.driver, bed.ring, buffers, 1, 1, false);
    ring_kick(&bed.driver, bed.ring);
    assert_true(ring_wait(&bed.driver, bed.ring, &id, &len));
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split_chains),
        cmocka_unit_test(test_split_tables),
        cmocka_unit_test(test_sum_of_lengths),
        cmocka_unit_test(test_index_jumps),
        cmocka_unit_test(test_packed_chains),
        cmocka_unit_test(test_packed_overlap),
        cmocka_unit_test(test_ring_places),
        cmocka_unit_test(test_ring_sizes),
        cmocka_unit_test(test_changes_after_the_check),
        cmocka_unit_test(test_registers_in_every_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
