/*
 * The life of a virtio device around its queues: negotiation, interrupts and doorbells, the window
 * in configuration space, resets with requests in flight, state.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "virtq_bed.h"

static void test_negotiation(void **state)
{
    struct bed bed;
    bed_open(&bed);
    struct driver *driver = &bed.driver;
    uint64_t offered = driver_offered(driver);
    assert_int_equal(offered, VERSION_1 | PACKED | EVENT | INDIRECT | RING_RESET);
    assert_false(driver_negotiate(driver, 0));
    assert_false(driver_negotiate(driver, INDIRECT));
    assert_false(driver_negotiate(driver, VERSION_1 | F(5)));
    /* Without FEATURES_OK there is no DRIVER_OK, and no queue. */
    driver_queue(driver, 0, 16);
    assert_int_equal(COMMON_READ(driver, 0x1c, 2), 0);
    driver_start(driver);
    assert_int_equal(driver_status(driver) & VIRTIO_STATUS_DRIVER_OK, 0);
    assert_int_equal(bed.echo->activations, 0);
    assert_true(driver_negotiate(driver, VERSION_1));
    /* Agreed is agreed. */
    COMMON_WRITE(driver, 8, 4, 0);
    COMMON_WRITE(driver, 12, 4, 0xffffffff);
    assert_int_equal(COMMON_READ(driver, 12, 4), 0);
    driver_start(driver);
    assert_int_equal(bed.echo->activations, 1);
    assert_int_equal(driver_status(driver), 15);
    /* Bits cannot be cleared but by a reset. */
    COMMON_WRITE(driver, 0x14, 1, 1);
    assert_int_equal(driver_status(driver), 15);
    COMMON_WRITE(driver, 0x14, 1, 128 | 15);
    assert_int_equal(driver_status(driver), 128 | 15);
    unsigned resets = bed.echo->resets;
    driver_reset(driver);
    assert_int_equal(bed.echo->resets, resets + 1);
    assert_int_equal(COMMON_READ(driver, 0x12, 2), ECHO_QUEUES);
    COMMON_WRITE(driver, 0x16, 2, ECHO_QUEUES);
    assert_int_equal(COMMON_READ(driver, 0x18, 2), 0);
    bed_close(&bed);
}

static void test_intx(void **state)
{
    struct bed bed;
    bed_open(&bed);
    mmio_write(&bed.machine, bed.driver.config + bed.driver.msix + 2, 2, 0); /* MSI-X off */
    struct ring *ring = bed_start(&bed, 0, 16);
    add_one(&bed, ring);
    ring_kick(&bed.driver, ring);
    take(&bed, ring, 1);
    assert_true(bed.machine.line);
    assert_int_equal(mmio_read(&bed.machine, bed.driver.isr, 1), 1);
    assert_false(bed.machine.line);
    assert_int_equal(mmio_read(&bed.machine, bed.driver.isr, 1), 0);
    lock_take(&bed.echo->virtio.pci.device.lock);
    virtio_config_changed(&bed.echo->virtio);
    lock_drop(&bed.echo->virtio.pci.device.lock);
    assert_true(bed.machine.line);
    assert_int_equal(mmio_read(&bed.machine, bed.driver.isr, 1), 2);
    assert_int_equal(COMMON_READ(&bed.driver, 0x15, 1), 1);
    add_one(&bed, ring);
    ring_kick(&bed.driver, ring);
    take(&bed, ring, 1);
    assert_true(bed.machine.line);
    driver_reset(&bed.driver);
    assert_false(bed.machine.line);
    bed_close(&bed);
}

static void test_doorbells(void **state)
{
    struct bed bed;
    bed_open(&bed);
    bed.machine.doorbells = true;
    struct ring *ring = bed_start(&bed, 0, 16);
    assert_int_equal(bed.machine.bells, 1);
    assert_int_equal(bed.machine.bell_gpa[0], bed.driver.notify);
    add_one(&bed, ring);
    ring_kick(&bed.driver, ring);
    take(&bed, ring, 1);
    /* The BAR moves, and the doorbell with it. */
    uint64_t bar = bed.driver.config + 0x10 + 16;
    mmio_write(&bed.machine, bar, 4, 0xd0000000);
    assert_int_equal(bed.machine.bells, 1);
    assert_int_equal(bed.machine.bell_gpa[0], 0xd0003000);
    mmio_write(&bed.machine, bed.driver.config + 4, 2, 0); /* decoding off */
    assert_int_equal(bed.machine.bells, 0);
    mmio_write(&bed.machine, bed.driver.config + 4, 2, 6);
    assert_int_equal(bed.machine.bells, 1);
    driver_find(&bed.driver, &bed.machine, &bed.echo->virtio);
    driver_reset(&bed.driver);
    assert_int_equal(bed.machine.bells, 0);
    bed_close(&bed);
}

/* Registers through configuration space, for firmware that cannot map the BAR. */
static void test_window(void **state)
{
    struct bed bed;
    bed_open(&bed);
    struct machine *machine = &bed.machine;
    uint64_t cap = bed.driver.config + bed.echo->virtio.window;
    assert_int_equal(mmio_read(machine, cap + 3, 1), 5);
    mmio_write(machine, cap + 4, 1, 4);
    mmio_write(machine, cap + 8, 4, 0x14);
    mmio_write(machine, cap + 12, 4, 1);
    mmio_write(machine, cap + 16, 1, 1);
    assert_int_equal(driver_status(&bed.driver), 1);
    assert_int_equal(mmio_read(machine, cap + 16, 1), 1);
    mmio_write(machine, cap + 8, 4, 0x12);
    mmio_write(machine, cap + 12, 4, 2);
    assert_int_equal(mmio_read(machine, cap + 16, 2), ECHO_QUEUES);
    /* Nonsense windows. */
    static const uint32_t offsets[] = {0, 1, 0x13, 0x3fff, 0x4000, 0xffffffff, 0x3ffd};
    static const uint32_t sizes[] = {0, 1, 2, 3, 4, 5, 8, 0xffffffff};
    for (unsigned i = 0; i < ARRAY_SIZE(offsets); i++) {
        for (unsigned k = 0; k < ARRAY_SIZE(sizes); k++) {
            for (unsigned b = 0; b < 8; b++) {
                mmio_write(machine, cap + 4, 1, b);
                mmio_write(machine, cap + 8, 4, offsets[i]);
                mmio_write(machine, cap + 12, 4, sizes[k]);
                mmio_read(machine, cap + 16, 4);
                mmio_write(machine, cap + 16, 4, 0);
            }
        }
    }
    bed_close(&bed);
}

/* Requests that the device holds are answered before the status reads 0. */
static void test_reset_in_flight(void **state)
{
    struct bed bed;
    bed_open(&bed);
    struct ring *ring = bed_start(&bed, 0, 16);
    bed.echo->hold = true;
    for (unsigned i = 0; i < 5; i++)
        add_one(&bed, ring);
    ring_kick(&bed.driver, ring);
    driver_turn(&bed.driver, 3);
    assert_int_equal(bed.echo->held_count, 5);
    driver_reset(&bed.driver);
    assert_int_equal(bed.echo->held_count, 0);
    assert_int_equal(bed.echo->drains, 1);
    assert_int_equal(get_le16(ring->host[2] + 2), 5);
    bed.echo->hold = false;
    ring = bed_start(&bed, PACKED, 16);
    add_one(&bed, ring);
    ring_kick(&bed.driver, ring);
    take(&bed, ring, 1);
    bed_close(&bed);
}

/* The same while the queue's loop runs on a thread of its own. */
static void test_reset_across_threads(void **state)
{
    struct bed bed;
    bed_open(&bed);
    struct loop_thread *thread;
    struct lock *lock = &bed.echo->virtio.pci.device.lock;
    check_ok(loop_thread_start(bed.machine.env.loop, &thread));
    usleep(10000);
    for (unsigned round = 0; round < 50; round++) {
        struct ring *ring = bed_start(&bed, round % 2 ? PACKED : 0, 16);
        lock_take(lock);
        bed.echo->hold = true;
        lock_drop(lock);
        for (unsigned i = 0; i < 5; i++)
            add_one(&bed, ring);
        ring_kick(&bed.driver, ring);
        unsigned held = 0;
        for (int i = 0; i < 2000 && held < 5; i++) {
            usleep(100);
            lock_take(lock);
            held = bed.echo->held_count;
            lock_drop(lock);
        }
        assert_int_equal(held, 5);
        if (round % 3 == 0) { /* not the driver, but the machine */
            device_quiesce(&bed.echo->virtio.pci.device);
            assert_int_equal(bed.echo->held_count, 0);
            device_resume(&bed.echo->virtio.pci.device);
        }
        driver_reset(&bed.driver);
        assert_int_equal(bed.echo->held_count, 0);
        bed.machine.next = 4096;
        memset(bed.driver.ring, 0, sizeof(bed.driver.ring));
    }
    loop_thread_join(thread);
    bed_close(&bed);
}

static void test_queue_reset(void **state)
{
    struct bed bed;
    bed_open(&bed);
    struct driver *driver = &bed.driver;
    assert_true(driver_negotiate(driver, VERSION_1 | RING_RESET));
    struct ring *first = driver_queue(driver, 0, 16), *second = driver_queue(driver, 1, 16);
    driver_start(driver);
    bed.echo->hold = true;
    add_one(&bed, first);
    add_one(&bed, second);
    ring_kick(driver, first);
    ring_kick(driver, second);
    driver_turn(driver, 3);
    assert_int_equal(bed.echo->held_count, 2);
    COMMON_WRITE(driver, 0x16, 2, 0);
    COMMON_WRITE(driver, 0x3a, 2, 1);
    for (int i = 0; i < 100 && COMMON_READ(driver, 0x3a, 2); i++)
        driver_turn(driver, 1);
    assert_int_equal(COMMON_READ(driver, 0x3a, 2), 0);
    assert_int_equal(COMMON_READ(driver, 0x1c, 2), 0);
    assert_int_equal(bed.echo->held_count, 1); /* the other queue's */
    assert_int_equal(bed.echo->queue_resets, 1);
    /* Its doorbell means nothing now. */
    ring_kick_always(driver, first);
    driver_turn(driver, 3);
    bed.echo->hold = false;
    first = driver_queue(driver, 0, 8);
    assert_int_equal(COMMON_READ(driver, 0x1c, 2), 1);
    add_one(&bed, first);
    ring_kick(driver, first);
    take(&bed, first, 1);
    lock_take(&bed.echo->virtio.pci.device.lock);
    echo_release(bed.echo, virtio_queue(&bed.echo->virtio, 1));
    lock_drop(&bed.echo->virtio.pci.device.lock);
    take(&bed, second, 1);
    assert_int_equal(driver_status(driver), 15);
    bed_close(&bed);
}

/* Saved in the middle of its work, loaded into another device, which goes on with the same ring. */
static void test_state_mid_use(void **state)
{
    for (unsigned kind = 0; kind < 4; kind++) {
        struct bed bed;
        bed_open(&bed);
        struct ring *ring = bed_start(&bed, (kind & 1 ? PACKED : 0) | (kind & 2 ? EVENT : 0), 8);
        for (unsigned i = 0; i < 29; i++) {
            add_one(&bed, ring);
            ring_kick(&bed.driver, ring);
            take(&bed, ring, 1);
        }
        bed.echo->hold = true;
        add_one(&bed, ring);
        ring_kick(&bed.driver, ring);
        driver_turn(&bed.driver, 2);
        struct echo *fresh = (struct echo *)device_new(&echo_class, &bed.machine.env, "e0");
        machine_add(&bed.machine, &fresh->virtio.pci.device);
        struct device *old = &bed.echo->virtio.pci.device;
        /* Available while nobody looks. */
        round_trip(old, &fresh->virtio.pci.device);
        take(&bed, ring, 1);
        add_one(&bed, ring);
        add_one(&bed, ring);
        device_free(old);
        bed.echo = fresh;
        device_resume(&fresh->virtio.pci.device);
        take(&bed, ring, 2);
        for (unsigned i = 0; i < 29; i++) {
            add_one(&bed, ring);
            ring_kick(&bed.driver, ring);
            take(&bed, ring, 1);
        }
        assert_int_equal(fresh->popped, 31);
        bed_close(&bed);
    }
}

/* A size that no ring can have, in the register of a queue that is not enabled: no fault yet. */
static void test_state_of_an_unused_queue(void **state)
{
    struct bed bed;
    bed_open(&bed);
    bed_start(&bed, 0, 8);
    COMMON_WRITE(&bed.driver, 0x16, 2, 1);
    COMMON_WRITE(&bed.driver, 0x18, 2, 0xffff);
    struct echo *fresh = (struct echo *)device_new(&echo_class, &bed.machine.env, "e0");
    machine_add(&bed.machine, &fresh->virtio.pci.device);
    round_trip(&bed.echo->virtio.pci.device, &fresh->virtio.pci.device);
    device_free(&bed.echo->virtio.pci.device);
    bed.echo = fresh;
    device_resume(&fresh->virtio.pci.device);
    assert_false(fresh->virtio.needs_reset);
    COMMON_WRITE(&bed.driver, 0x1c, 2, 1);
    assert_int_equal(COMMON_READ(&bed.driver, 0x1c, 2), 0);
    assert_true(fresh->virtio.needs_reset);
    bed_close(&bed);
}

/* A stream that claims impossible places is refused, or leaves a device that needs a reset. */
static void test_state_hostile(void **state)
{
    struct bed bed;
    bed_open(&bed);
    bed_start(&bed, PACKED, 8);
    struct echo *fresh = (struct echo *)device_new(&echo_class, &bed.machine.env, "e0");
    machine_add(&bed.machine, &fresh->virtio.pci.device);
    struct virtq *queue = virtio_queue(&bed.echo->virtio, 0);
    struct device *from = &bed.echo->virtio.pci.device, *to = &fresh->virtio.pci.device;
    for (unsigned i = 0; i < 5; i++) {
        struct virtq before = *queue;
        uint64_t accepted = bed.echo->virtio.accepted;
        device_quiesce(from);
        if (i == 0)
            queue->avail = 4000;
        else if (i == 1)
            queue->area[0] = 0xfffffffffffffff0;
        else if (i == 2)
            queue->size = 300;
        else if (i == 3)
            bed.echo->virtio.accepted |= F(50);
        else
            queue->used = 8;
        struct state_writer writer;
        struct state_reader reader;
        state_writer_init(&writer);
        device_save(from, &writer);
        state_writer_end(&writer);
        check_ok(state_reader_init(&reader, writer.out.data, writer.out.len));
        device_quiesce(to);
        struct err *err = device_load(to, &reader);
        assert_true(i == 2 || i == 3 ? err != NULL : err == NULL);
        if (!err)
            assert_true(fresh->virtio.needs_reset);
        err_free(err);
        state_writer_fini(&writer);
        *queue = before;
        bed.echo->virtio.accepted = accepted;
        device_resume(to);
        driver_turn(&bed.driver, 2);
        device_reset(to);
        device_resume(from);
    }
    device_free(to);
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_negotiation),
        cmocka_unit_test(test_intx),
        cmocka_unit_test(test_doorbells),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_reset_in_flight),
        cmocka_unit_test(test_reset_across_threads),
        cmocka_unit_test(test_queue_reset),
        cmocka_unit_test(test_state_mid_use),
        cmocka_unit_test(test_state_of_an_unused_queue),
        cmocka_unit_test(test_state_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
