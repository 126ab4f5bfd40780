/*
 * Virtqueues and the device life around them, driven as a guest drives them: both layouts, indirect
 * tables, event index, resets with requests in flight, state.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "virtio_driver.h"
#include "virtio_echo.h"

#define VERSION_1 F(VIRTIO_F_VERSION_1)
#define PACKED F(VIRTIO_F_RING_PACKED)
#define EVENT F(VIRTIO_F_EVENT_IDX)
#define INDIRECT F(VIRTIO_F_INDIRECT_DESC)
#define RING_RESET F(VIRTIO_F_RING_RESET)

struct bed {
    struct machine machine;
    struct echo *echo;
    struct driver driver;
};

static void bed_open(struct bed *bed)
{
    machine_init(&bed->machine);
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

static struct ring *bed_start(struct bed *bed, uint64_t features, uint16_t size)
{
    assert_true(driver_negotiate(&bed->driver, VERSION_1 | features));
    struct ring *ring = driver_queue(&bed->driver, 0, size);
    driver_start(&bed->driver);
    ring_arm(&bed->driver, ring);
    return ring;
}

static void fill(struct bed *bed, struct buffer buffer, unsigned seed)
{
    for (uint32_t i = 0; i < buffer.len; i++) {
        uint8_t byte = (uint8_t)(seed + i * 3);
        assert_int_equal(gmem_write(bed->machine.env.gmem, buffer.gpa + i, &byte, 1), 0);
    }
}

static void expect(struct bed *bed, struct buffer buffer, unsigned seed, uint32_t from)
{
    for (uint32_t i = 0; i < buffer.len; i++) {
        uint8_t byte;
        assert_int_equal(gmem_read(bed->machine.env.gmem, buffer.gpa + i, &byte, 1), 0);
        assert_int_equal(byte, (uint8_t)(seed + (from + i) * 3) ^ 0x5a);
    }
}

/* Chains of every shape through many rounds of a small ring, up to three in flight. */
static void run_features(uint64_t features)
{
    struct bed bed;
    bed_open(&bed);
    struct ring *ring = bed_start(&bed, features, 16);
    uint64_t memory = machine_alloc(&bed.machine, 3 * 4096, 4096);
    for (unsigned round = 0; round < 400; round++) {
        unsigned flying = 1 + round % 3;
        uint16_t ids[3];
        struct buffer buffers[3][5];
        unsigned outs[3];
        for (unsigned n = 0; n < flying; n++) {
            uint64_t base = memory + 4096 * n;
            unsigned out = 1 + (round + n) % 3;
            /* Buffers of one, none and many bytes. */
            buffers[n][0] = (struct buffer){base, 1 + round % 60};
            buffers[n][1] = (struct buffer){base + 100, round % 2 ? 0 : 33};
            buffers[n][2] = (struct buffer){base + 200, 400};
            outs[n] = out;
            uint32_t total = 0;
            for (unsigned i = 0; i < out; i++) {
                fill(&bed, buffers[n][i], round + n + total * 3);
                total += buffers[n][i].len;
            }
            buffers[n][out] = (struct buffer){base + 1000, 7};
            buffers[n][out + 1] = (struct buffer){base + 2000, total > 7 ? total - 7 : 0};
            bool indirect = (features & INDIRECT) && (round + n) % 2;
            ids[n] = ring_add(&bed.driver, ring, buffers[n], out, 2, indirect);
        }
        ring_kick(&bed.driver, ring);
        for (unsigned n = 0; n < flying; n++) {
            uint16_t id;
            uint32_t len, total = 0;
            assert_true(ring_wait(&bed.driver, ring, &id, &len));
            assert_int_equal(id, ids[n]);
            for (unsigned i = 0; i < outs[n]; i++)
                total += buffers[n][i].len;
            struct buffer *in = &buffers[n][outs[n]];
            assert_int_equal(len, MIN(total, in[0].len + in[1].len));
            in[0].len = MIN(in[0].len, total);
            expect(&bed, in[0], round + n, 0);
            expect(&bed, in[1], round + n, 7);
        }
    }
    assert_int_equal(driver_status(&bed.driver) & VIRTIO_STATUS_NEEDS_RESET, 0);
    assert_int_equal(bed.echo->popped, 400 * 2 - 1);
    assert_true(bed.machine.message[2] > 0);
    bed_close(&bed);
}

static void test_every_ring_kind(void **state)
{
    for (unsigned i = 0; i < 8; i++)
        run_features((i & 1 ? PACKED : 0) | (i & 2 ? EVENT : 0) | (i & 4 ? INDIRECT : 0));
}

static unsigned interrupts(struct bed *bed)
{
    return bed->machine.message[2]; /* vector 1: queue 0 */
}

static void add_one(struct bed *bed, struct ring *ring)
{
    struct buffer buffers[2] = {{1 << 16, 8}, {(1 << 16) + 64, 8}};
    ring_add(&bed->driver, ring, buffers, 1, 1, false);
}

static void take(struct bed *bed, struct ring *ring, unsigned count)
{
    uint16_t id;
    uint32_t len;
    for (unsigned i = 0; i < count; i++)
        assert_true(ring_wait(&bed->driver, ring, &id, &len));
    assert_false(ring_used(&bed->driver, ring, &id, &len));
}

/* One doorbell and one interrupt a batch; none where the driver does not want to hear. */
static void test_suppression(void **state)
{
    for (unsigned kind = 0; kind < 4; kind++) {
        struct bed bed;
        bed_open(&bed);
        struct ring *ring = bed_start(&bed, (kind & 1 ? PACKED : 0) | (kind & 2 ? EVENT : 0), 64);
        driver_turn(&bed.driver, 2);
        for (unsigned round = 1; round <= 20; round++) {
            for (unsigned i = 0; i < 10; i++)
                add_one(&bed, ring);
            ring_kick(&bed.driver, ring);
            assert_int_equal(ring->kicks, round);
            driver_turn(&bed.driver, 2);
            assert_int_equal(interrupts(&bed), round);
            take(&bed, ring, 10);
        }
        /* Between popping and looking again the device wants no doorbell. */
        bed.echo->hold = true;
        add_one(&bed, ring);
        ring_kick(&bed.driver, ring);
        driver_turn(&bed.driver, 2);
        assert_int_equal(bed.echo->held_count, 1);

        /* The driver wants no interrupt. */
        bed.echo->hold = false;
        unsigned before = interrupts(&bed);
        if (kind & 2) {
            uint16_t far = (uint16_t)(ring->used + 40);
            if (kind & 1) {
                bool wrap = far < 64 ? ring->used_wrap : !ring->used_wrap;
                put_le16(ring->host[1], (uint16_t)(far % 64 | wrap << 15));
                put_le16(ring->host[1] + 2, 2);
            } else {
                put_le16(ring->host[1] + 4 + 2 * 64, far);
            }
        } else {
            put_le16(ring->host[1] + (kind & 1 ? 2 : 0), 1);
        }
        lock_take(&bed.echo->virtio.pci.device.lock);
        echo_release(bed.echo, virtio_queue(&bed.echo->virtio, 0));
        lock_drop(&bed.echo->virtio.pci.device.lock);
        driver_turn(&bed.driver, 2);
        assert_int_equal(interrupts(&bed), before);
        bed_close(&bed);
    }
}

/* A device that refuses doorbells gets none, also after an empty ring. */
static void test_polling_device(void **state)
{
    for (unsigned kind = 0; kind < 4; kind++) {
        struct bed bed;
        bed_open(&bed);
        struct ring *ring = bed_start(&bed, (kind & 1 ? PACKED : 0) | (kind & 2 ? EVENT : 0), 64);
        driver_turn(&bed.driver, 2);
        struct virtq *queue = virtio_queue(&bed.echo->virtio, 0);
        struct lock *lock = &bed.echo->virtio.pci.device.lock;
        add_one(&bed, ring);
        ring_kick(&bed.driver, ring);
        driver_turn(&bed.driver, 2);
        lock_take(lock);
        virtq_kicks_enable(queue, false);
        lock_drop(lock);
        take(&bed, ring, 1);
        ring->kicks = 0;
        for (unsigned i = 0; i < 5; i++) {
            add_one(&bed, ring);
            if (kind >= 2 && i == 0)
                ring->published_count = 0; /* the index of before may be passed once */
            ring_kick(&bed.driver, ring);
            lock_take(lock);
            assert_false(virtq_empty(queue));
            echo_kick(&bed.echo->virtio, queue);
            assert_true(virtq_empty(queue));
            lock_drop(lock);
            take(&bed, ring, 1);
        }
        assert_int_equal(ring->kicks, 0);
        lock_take(lock);
        virtq_kicks_enable(queue, true);
        lock_drop(lock);
        add_one(&bed, ring);
        ring_kick(&bed.driver, ring);
        assert_int_equal(ring->kicks, 1);
        bed_close(&bed);
    }
}

static void test_unpop(void **state)
{
    for (unsigned kind = 0; kind < 2; kind++) {
        struct bed bed;
        bed_open(&bed);
        struct ring *ring = bed_start(&bed, kind ? PACKED : 0, 4);
        for (unsigned round = 0; round < 30; round++) {
            bed.echo->unpop = true;
            add_one(&bed, ring);
            ring_kick_always(&bed.driver, ring);
            driver_turn(&bed.driver, 2);
            bed.echo->unpop = false;
            ring_kick_always(&bed.driver, ring);
            take(&bed, ring, 1);
        }
        assert_int_equal(bed.echo->popped, 60);
        bed_close(&bed);
    }
}

/* A buffer over the seam of two RAM regions is two segments. */
static void test_crossing_regions(void **state)
{
    struct bed bed;
    bed_open(&bed);
    struct ring *ring = bed_start(&bed, 0, 16);
    struct buffer buffers[2] = {{RAM_SIZE / 2 - 300, 1000}, {RAM_SIZE / 2 - 5000, 1000}};
    fill(&bed, buffers[0], 9);
    ring_add(&bed.driver, ring, buffers, 1, 1, false);
    ring_kick(&bed.driver, ring);
    take(&bed, ring, 1);
    expect(&bed, buffers[1], 9, 0);
    struct buffer back[2] = {{4096 * 50, 1000}, {RAM_SIZE / 2 - 1, 1000}};
    fill(&bed, back[0], 77);
    ring_add(&bed.driver, ring, back, 1, 1, false);
    ring_kick(&bed.driver, ring);
    take(&bed, ring, 1);
    expect(&bed, back[1], 77, 0);
    bed_close(&bed);
}

static void test_dirty_pages(void **state)
{
    struct bed bed;
    bed_open(&bed);
    struct ring *ring = bed_start(&bed, 0, 16);
    struct gmem *gmem = bed.machine.env.gmem;
    uint64_t pages[RAM_SIZE / 2 / 4096 / 64];
    gmem_dirty_enable(gmem, true);
    gmem_dirty_take(gmem, 0, pages);
    struct buffer buffers[2] = {{4096 * 100, 5000}, {4096 * 110, 3 * 4096}};
    ring_add(&bed.driver, ring, buffers, 1, 1, false);
    ring_kick(&bed.driver, ring);
    take(&bed, ring, 1);
    gmem_dirty_take(gmem, 0, pages);
    assert_true(pages[ring->area[2] / 4096 / 64] >> (ring->area[2] / 4096 % 64) & 1);
    assert_false(pages[100 / 64] >> (100 % 64) & 1);
    assert_true(pages[110 / 64] >> (110 % 64) & 1);
    assert_true(pages[111 / 64] >> (111 % 64) & 1);
    assert_false(pages[112 / 64] >> (112 % 64) & 1); /* 5000 bytes were written, not all */
    bed_close(&bed);
}

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

struct flood {
    struct bed *bed;
    struct ring *ring;
    unsigned left;
};

static void flood_more(void *opaque)
{
    struct flood *flood = opaque;
    if (flood->left) {
        flood->left--;
        add_one(flood->bed, flood->ring);
    }
}

/* A driver that adds as fast as the device answers does not keep the loop for itself. */
static void test_endless_driver(void **state)
{
    struct bed bed;
    bed_open(&bed);
    struct ring *ring = bed_start(&bed, 0, 16);
    driver_turn(&bed.driver, 2);
    struct flood flood = {&bed, ring, 1000};
    bed.echo->on_pop = flood_more;
    bed.echo->opaque = &flood;
    add_one(&bed, ring);
    ring_kick(&bed.driver, ring);
    loop_once(bed.machine.env.loop, 10);
    assert_int_equal(bed.echo->popped, 32);
    for (int i = 0; i < 100 && bed.echo->popped < 1001; i++)
        loop_once(bed.machine.env.loop, 1);
    assert_int_equal(bed.echo->popped, 1001);
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_ring_kind),  cmocka_unit_test(test_suppression),
        cmocka_unit_test(test_polling_device),   cmocka_unit_test(test_unpop),
        cmocka_unit_test(test_crossing_regions), cmocka_unit_test(test_dirty_pages),
        cmocka_unit_test(test_negotiation),      cmocka_unit_test(test_intx),
        cmocka_unit_test(test_doorbells),        cmocka_unit_test(test_window),
        cmocka_unit_test(test_reset_in_flight),  cmocka_unit_test(test_reset_across_threads),
        cmocka_unit_test(test_queue_reset),      cmocka_unit_test(test_state_mid_use),
        cmocka_unit_test(test_state_hostile),    cmocka_unit_test(test_endless_driver),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
