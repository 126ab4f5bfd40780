/*
 * Frames through virtio-net, over split and packed rings: both ways, back pressure both ways, in
 * pieces, from another thread, hostile requests.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "virtio_net_host.h"

static void test_transmit(void **state)
{
    struct bench *bench = bench_new(1);
    static uint8_t frame[NET_FRAME_MAX];
    start(bench, ring_feature(state) | HOST_FEATURES);
    struct outside *outside = &bench->outside[0];
    for (unsigned pieces = 1; pieces <= 20; pieces++) {
        uint32_t len = 60 + 700 * pieces;
        fill(frame, len, pieces);
        transmit(bench, bench->tx, frame, len, pieces);
        expect_used(bench, bench->tx, 0);
        assert_int_equal(outside->count, pieces);
        assert_int_equal(outside->len, len);
        assert_memory_equal(outside->last, frame, len);
    }
    assert_true(bench->machine.message[1 + 2] > 0);

    /* TSO: the header arrives as it is, without what the driver must not say. */
    fill(frame, 60000, 1);
    struct net_hdr hdr = {.flags = 0x83,
                          .gso_type = NET_GSO_TCPV4,
                          .gso_size = 1448,
                          .hdr_len = 54,
                          .csum_start = 34,
                          .csum_offset = 16,
                          .num_buffers = 77};
    net_hdr_put(&hdr, frame);
    transmit(bench, bench->tx, frame, 60000, 17);
    expect_used(bench, bench->tx, 0);
    hdr.flags = NET_HDR_F_NEEDS_CSUM;
    hdr.num_buffers = 0;
    net_hdr_put(&hdr, frame);
    assert_int_equal(outside->len, 60000);
    assert_memory_equal(outside->last, frame, 60000);
    bench_free(bench);
}

/* Frames that must not go out are completed and dropped. */
static void test_transmit_bad(void **state)
{
    struct bench *bench = bench_new(1);
    static uint8_t frame[NET_FRAME_MAX + 100];
    static const struct net_hdr bad[] = {
        {.flags = 1, .csum_start = 990, .csum_offset = 16},
        {.flags = 1, .csum_start = 65535, .csum_offset = 65535},
        {.flags = 1, .gso_type = 1, .gso_size = 0, .csum_start = 34, .csum_offset = 16},
        {.flags = 0, .gso_type = 1, .gso_size = 1448},
        {.flags = 1, .gso_type = 3, .gso_size = 1448, .csum_start = 34, .csum_offset = 6},
        {.flags = 1, .gso_type = 9, .gso_size = 1448, .csum_start = 34, .csum_offset = 6},
        /* not negotiated */
        {.flags = 1, .gso_type = 4, .gso_size = 1448, .csum_start = 54, .csum_offset = 16},
        {.flags = 1, .gso_type = 0x81, .gso_size = 1448, .csum_start = 34, .csum_offset = 16},
    };
    start(bench, ring_feature(state) | F(VIRTIO_NET_F_CSUM) | F(VIRTIO_NET_F_HOST_TSO4));
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        fill(frame, 1000, i);
        net_hdr_put(&bad[i], frame);
        transmit(bench, bench->tx, frame, 1000, 3);
        expect_used(bench, bench->tx, 0);
    }
    static const uint32_t lengths[] = {1, 11, 12, 25, NET_FRAME_MAX + 1, NET_FRAME_MAX + 100};
    for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
        fill(frame, 1000, i);
        transmit(bench, bench->tx, frame, lengths[i], 1);
        expect_used(bench, bench->tx, 0);
    }
    /* A request without anything to read. */
    struct buffer in = {bench->scratch, 100};
    ring_add(&bench->driver, bench->tx, &in, 0, 1, false);
    ring_kick(&bench->driver, bench->tx);
    expect_used(bench, bench->tx, 0);
    assert_int_equal(bench->outside[0].count, 0);
    assert_int_equal(bench->net->pair[0].port.dropped, ARRAY_SIZE(bad) + ARRAY_SIZE(lengths) + 1);

    /* Still in working order. */
    fill(frame, 100, 0);
    transmit(bench, bench->tx, frame, 100, 1);
    expect_used(bench, bench->tx, 0);
    assert_int_equal(bench->outside[0].count, 1);
    assert_false(driver_status(&bench->driver) & VIRTIO_STATUS_NEEDS_RESET);
    bench_free(bench);
}

static void test_transmit_many_pieces(void **state)
{
    struct bench *bench = bench_new(1);
    static uint8_t frame[NET_FRAME_MAX];
    struct buffer buffers[40];
    start(bench, ring_feature(state) | F(VIRTIO_F_INDIRECT_DESC));
    fill(frame, 40 * 50, 3);
    assert_int_equal(gmem_write(bench->machine.env.gmem, bench->scratch, frame, 40 * 50), 0);
    for (unsigned i = 0; i < 40; i++)
        buffers[i] = (struct buffer){bench->scratch + i * 50, 50};
    ring_add(&bench->driver, bench->tx, buffers, 40, 0, true);
    ring_kick(&bench->driver, bench->tx);
    expect_used(bench, bench->tx, 0);
    assert_int_equal(bench->outside[0].len, 40 * 50);
    assert_memory_equal(bench->outside[0].last, frame, 40 * 50);
    bench_free(bench);
}

/* The peer has no room: requests stay in the ring, the order holds, nothing is lost or spins. */
static void test_transmit_pressure(void **state)
{
    struct bench *bench = bench_new(1);
    struct outside *outside = &bench->outside[0];
    uint8_t frame[200];
    uint16_t id;
    uint32_t len;
    start(bench, ring_feature(state));
    outside->room = 3;
    for (unsigned i = 0; i < 10; i++) {
        fill(frame, sizeof(frame), i);
        transmit(bench, bench->tx, frame, sizeof(frame), 2);
    }
    driver_turn(&bench->driver, 10);
    assert_int_equal(outside->count, 3);
    for (unsigned i = 0; i < 3; i++)
        assert_true(ring_used(&bench->driver, bench->tx, &id, &len));
    assert_false(ring_used(&bench->driver, bench->tx, &id, &len));

    outside->room = 2;
    net_port_ready(&outside->port);
    assert_int_equal(outside->count, 5);
    outside->room = 100;
    net_port_ready(&outside->port);
    assert_int_equal(outside->count, 10);
    fill(frame, sizeof(frame), 9);
    assert_memory_equal(outside->last, frame, sizeof(frame));
    for (unsigned i = 0; i < 7; i++)
        expect_used(bench, bench->tx, 0);

    /* A reset in the middle: the waiting frames are forgotten, the next driver starts clean. */
    outside->room = 0;
    transmit(bench, bench->tx, frame, sizeof(frame), 2);
    driver_turn(&bench->driver, 3);
    driver_reset(&bench->driver);
    net_port_ready(&outside->port);
    start(bench, ring_feature(state));
    outside->room = 10;
    transmit(bench, bench->tx, frame, sizeof(frame), 1);
    expect_used(bench, bench->tx, 0);
    assert_int_equal(outside->count, 11);
    bench_free(bench);
}

static void test_receive(void **state)
{
    struct bench *bench = bench_new(1);
    static uint8_t frame[NET_FRAME_MAX], got[NET_FRAME_MAX];
    static const size_t lengths[] = {26, 60, BUFFER - 1, BUFFER, BUFFER + 1, 3 * BUFFER, 60000};
    struct outside *outside = &bench->outside[0];

    /* Nobody there: the frame is refused, and asked for again when the driver comes up. */
    fill(frame, 100, 1);
    assert_int_equal(outside_deliver(outside, frame, 100), -EAGAIN);
    start(bench, ring_feature(state) | F(VIRTIO_NET_F_MRG_RXBUF) | GUEST_FEATURES);
    driver_turn(&bench->driver, 3);
    assert_int_equal(outside->ready, 1);
    assert_int_equal(outside->told, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6);

    for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
        size_t len = lengths[i];
        unsigned buffers = (unsigned)((len + BUFFER - 1) / BUFFER);
        add_rx(bench, bench->rx, buffers, BUFFER);
        driver_turn(&bench->driver, 2);
        fill(frame, len, i);
        frame[0] = NET_HDR_F_DATA_VALID;
        assert_int_equal(outside_deliver(outside, frame, len), 0);
        assert_int_equal(collect(bench, bench->rx, got), len);
        assert_int_equal(get_le16(got + 10), buffers);
        put_le16(frame + 10, (uint16_t)buffers);
        assert_memory_equal(got, frame, len);
    }
    assert_true(bench->machine.message[1 + 1] > 0);
    assert_int_equal(outside->port.tx_frames, ARRAY_SIZE(lengths));
    bench_free(bench);
}

/* Too few buffers: refused, nothing used; the kick for more brings the frame. */
static void test_receive_pressure(void **state)
{
    struct bench *bench = bench_new(1);
    static uint8_t frame[NET_FRAME_MAX], got[NET_FRAME_MAX];
    struct outside *outside = &bench->outside[0];
    uint16_t id;
    uint32_t len;
    start(bench, ring_feature(state) | F(VIRTIO_NET_F_MRG_RXBUF));
    add_rx(bench, bench->rx, 2, BUFFER);
    driver_turn(&bench->driver, 3);
    fill(frame, 5000, 1);
    outside->held = frame;
    outside->held_len = 5000;
    assert_int_equal(outside_deliver(outside, frame, 5000), -EAGAIN);
    unsigned ready = outside->ready;
    driver_turn(&bench->driver, 3);
    assert_int_equal(outside->ready, ready);
    assert_false(ring_used(&bench->driver, bench->rx, &id, &len));
    add_rx(bench, bench->rx, 1, BUFFER);
    driver_turn(&bench->driver, 3);
    assert_non_null(outside->held);
    add_rx(bench, bench->rx, 1, BUFFER);
    driver_turn(&bench->driver, 3);
    assert_null(outside->held);
    assert_int_equal(collect(bench, bench->rx, got), 5000);
    assert_memory_equal(got + NET_HDR_SIZE, frame + NET_HDR_SIZE, 5000 - NET_HDR_SIZE);

    /* A ring that can never hold it: dropped, so that the next ones come. */
    add_rx(bench, bench->rx, 2, BUFFER);
    outside->held = frame;
    assert_int_equal(outside_deliver(outside, frame, 5000), -EAGAIN);
    ring_kick_always(&bench->driver, bench->rx);
    driver_turn(&bench->driver, 5);
    assert_non_null(outside->held);
    uint64_t limit = clock_now_ns() + 5 * NSEC_PER_SEC;
    while (outside->held && clock_now_ns() < limit)
        driver_turn(&bench->driver, 10);
    assert_null(outside->held);
    assert_int_equal(bench->net->pair[0].port.dropped, 1);
    assert_int_equal(outside_deliver(outside, frame, 3000), 0);
    assert_int_equal(collect(bench, bench->rx, got), 3000);
    bench_free(bench);
}

static void test_receive_whole(void **state)
{
    struct bench *bench = bench_new(1);
    static uint8_t frame[NET_FRAME_MAX], got[NET_FRAME_MAX];
    struct outside *outside = &bench->outside[0];
    start(bench, ring_feature(state));
    add_rx(bench, bench->rx, 2, BUFFER);
    driver_turn(&bench->driver, 3);
    fill(frame, 4000, 1);
    assert_int_equal(outside_deliver(outside, frame, BUFFER + 1), 0);
    assert_int_equal(bench->net->pair[0].port.dropped, 1);
    assert_int_equal(outside_deliver(outside, frame, BUFFER), 0);
    assert_int_equal(collect(bench, bench->rx, got), BUFFER);
    assert_int_equal(get_le16(got + 10), 1);

    /* This driver takes no offload: what the outside leaves to do is done on the way. */
    struct net_hdr hdr = {.flags = NET_HDR_F_NEEDS_CSUM, .csum_start = 14, .csum_offset = 6};
    net_hdr_put(&hdr, frame);
    memset(frame + NET_HDR_SIZE + 20, 0, 2);
    assert_int_equal(outside_deliver(outside, frame, 500), 0);
    assert_int_equal(collect(bench, bench->rx, got), 500);
    assert_int_equal(got[0], 0);
    assert_int_equal(net_csum_fold(net_csum_add(0, got + NET_HDR_SIZE + 14, 500 - 26)), 0);
    bench_free(bench);
}

#define FEED_FRAMES 3000
#define FEED_SIZE 5000
/* Small, so that it takes a while to fill them all. */
#define FEED_BUFFER 100
#define FEED_BUFFERS (FEED_SIZE / FEED_BUFFER)

/* Frames with a number in front, as fast as the device takes them. On the loop's thread. */
struct feeder {
    struct outside outside;
    uint8_t frame[FEED_SIZE];
    uint32_t next;
};

static void feed(void *opaque)
{
    struct feeder *feeder = opaque;
    while (feeder->next < FEED_FRAMES) {
        put_le32(feeder->frame + NET_HDR_SIZE + 14, feeder->next);
        if (outside_deliver(&feeder->outside, feeder->frame, FEED_SIZE) == -EAGAIN)
            return;
        feeder->next++;
    }
}

static void feeder_ready(struct net_port *port)
{
    feed(container_of(port, struct feeder, outside.port));
}

static const struct net_port_ops feeder_ops = {.kind = "feeder",
                                               .send = outside_send,
                                               .set_offload = outside_offload,
                                               .peer_ready = feeder_ready};

/* Driver and device on threads of their own: whoever sees a frame's first buffer sees all of them.
 */
static void test_threads(void **state)
{
    struct bench *bench = bench_new(1);
    struct feeder *feeder = calloc(1, sizeof(*feeder));
    struct loop_thread *thread;
    static uint8_t got[NET_FRAME_MAX];
    outside_init(&feeder->outside);
    feeder->outside.port.ops = &feeder_ops;
    net_port_link(&feeder->outside.port, &bench->net->pair[0].port);
    check_ok(loop_thread_start(bench->machine.env.loop, &thread));
    start(bench, ring_feature(state) | F(VIRTIO_NET_F_MRG_RXBUF));
    add_rx(bench, bench->rx, RING_SIZE - 1, FEED_BUFFER);
    loop_post(bench->machine.env.loop, feed, feeder);

    for (uint32_t i = 0; i < FEED_FRAMES; i++) {
        uint64_t limit = clock_now_ns() + 5 * NSEC_PER_SEC;
        uint16_t id[FEED_BUFFERS];
        uint32_t len[FEED_BUFFERS];
        unsigned seen = 0;
        while (!ring_used(&bench->driver, bench->rx, &id[0], &len[0]))
            assert_true(clock_now_ns() < limit);
        /* At once, before the device could catch up. */
        for (seen = 1; seen < FEED_BUFFERS; seen++)
            if (!ring_used(&bench->driver, bench->rx, &id[seen], &len[seen]))
                break;
        assert_int_equal(seen, FEED_BUFFERS);
        assert_int_equal(gmem_read(bench->machine.env.gmem, bench->rx_gpa[id[0]], got, len[0]), 0);
        assert_int_equal(get_le16(got + 10), FEED_BUFFERS);
        assert_int_equal(get_le32(got + NET_HDR_SIZE + 14), i);
        uint64_t gpa[FEED_BUFFERS];
        for (unsigned b = 0; b < FEED_BUFFERS; b++)
            gpa[b] = bench->rx_gpa[id[b]];
        for (unsigned b = 0; b < FEED_BUFFERS; b++) {
            struct buffer buffer = {gpa[b], FEED_BUFFER};
            id[b] = ring_add(&bench->driver, bench->rx, &buffer, 0, 1, false);
            bench->rx_gpa[id[b]] = gpa[b];
        }
        ring_kick(&bench->driver, bench->rx);
    }
    loop_thread_join(thread);
    assert_int_equal(feeder->next, FEED_FRAMES);
    assert_int_equal(bench->net->pair[0].port.dropped, 0);
    net_port_close(&feeder->outside.port);
    bench_free(bench);
    free(feeder);
}

int main(void)
{
    static int packed = 1;
    const struct CMUnitTest tests[] = {
        BOTH(test_transmit),          BOTH(test_transmit_bad), BOTH(test_transmit_many_pieces),
        BOTH(test_transmit_pressure), BOTH(test_receive),      BOTH(test_receive_pressure),
        BOTH(test_receive_whole),     BOTH(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
