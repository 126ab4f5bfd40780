/*
 * Virtqueues, driven as a guest drives them: both layouts, indirect tables, event index,
 * suppression, buffers across regions, dirty pages.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "virtq_bed.h"

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

/* One doorbell and one interrupt a batch, which are counted; none where the driver does not want to
 * hear. */
static void test_suppression(void **state)
{
    for (unsigned kind = 0; kind < 4; kind++) {
        struct virtq_stats stats;
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
            virtq_get_stats(virtio_queue(&bed.echo->virtio, 0), &stats);
            assert_int_equal(stats.kicks, round);
            assert_int_equal(stats.requests, 10 * round);
            assert_int_equal(stats.interrupts, round);
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
        cmocka_unit_test(test_endless_driver),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
