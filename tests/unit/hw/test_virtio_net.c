/*
 * virtio-net against a hand-written driver, over split and packed rings: frames both ways, back
 * pressure both ways, the control queue, many queues, hostile requests, reset, save and load.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "virtio_driver.h"

#include <errno.h>

#include "hw/virtio/virtio_net_internal.h"
#include "net/core/hdr.h"
#include "net/core/iov.h"

#define RING_SIZE 64
#define BUFFER 1536
#define ALL_OFFLOADS (NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN)
#define CTRL_FEATURES                                                                              \
    (F(VIRTIO_NET_F_CTRL_VQ) | F(VIRTIO_NET_F_CTRL_RX) | F(VIRTIO_NET_F_CTRL_RX_EXTRA) |           \
     F(VIRTIO_NET_F_CTRL_VLAN) | F(VIRTIO_NET_F_CTRL_MAC_ADDR) |                                   \
     F(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS))
#define GUEST_FEATURES                                                                             \
    (F(VIRTIO_NET_F_GUEST_CSUM) | F(VIRTIO_NET_F_GUEST_TSO4) | F(VIRTIO_NET_F_GUEST_TSO6))
#define HOST_FEATURES (F(VIRTIO_NET_F_CSUM) | F(VIRTIO_NET_F_HOST_TSO4) | F(VIRTIO_NET_F_HOST_TSO6))

static const uint8_t mac[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

/* The outside: keeps what it gets, as long as there is room. */
struct outside {
    struct net_port port;
    unsigned room, ready, count;
    uint32_t told;
    size_t len;
    uint8_t last[NET_FRAME_MAX];
    const uint8_t *held; /* a frame that the device refused: tried again when it is ready */
    size_t held_len;
};

static int outside_deliver(struct outside *outside, const uint8_t *frame, size_t len)
{
    /* In two pieces, cut inside the header. */
    struct iovec iov[2] = {{(uint8_t *)(uintptr_t)frame, 5},
                           {(uint8_t *)(uintptr_t)frame + 5, len - 5}};
    return net_port_deliver(&outside->port, iov, 2, len);
}

static int outside_send(struct net_port *port, const struct iovec *iov, unsigned count, size_t len)
{
    struct outside *outside = container_of(port, struct outside, port);
    if (!outside->room)
        return -EAGAIN;
    outside->room--;
    outside->count++;
    outside->len = net_iov_read(iov, count, 0, outside->last, sizeof(outside->last));
    assert_int_equal(outside->len, len);
    return 0;
}

static void outside_offload(struct net_port *port, uint32_t offload)
{
    container_of(port, struct outside, port)->told = offload;
}

static void outside_ready(struct net_port *port)
{
    struct outside *outside = container_of(port, struct outside, port);
    outside->ready++;
    if (outside->held && outside_deliver(outside, outside->held, outside->held_len) == 0)
        outside->held = NULL;
}

static const struct net_port_ops outside_ops = {.kind = "outside",
                                                .send = outside_send,
                                                .set_offload = outside_offload,
                                                .peer_ready = outside_ready};

struct bench {
    struct machine machine;
    struct driver driver;
    struct virtio_net *net;
    unsigned pairs;
    struct outside outside[3];
    struct ring *rx, *tx, *ctrl;
    uint64_t rx_gpa[1024]; /* by id */
    uint64_t scratch;
};

static void outside_init(struct outside *outside)
{
    *outside =
        (struct outside){.room = 1000, .port = {.ops = &outside_ops, .offload = ALL_OFFLOADS}};
}

static struct virtio_net *new_net(struct bench *bench, unsigned pairs, struct outside *outside)
{
    struct virtio_net *net =
        (struct virtio_net *)device_new(&virtio_net_class, &bench->machine.env, "n0");
    memcpy(net->mac, mac, sizeof(mac));
    net->pairs = pairs;
    net->mtu = 1500;
    for (unsigned i = 0; i < pairs; i++)
        net->peer[i] = &outside[i].port;
    machine_add(&bench->machine, &net->virtio.pci.device);
    return net;
}

static struct bench *bench_new(unsigned pairs)
{
    struct bench *bench = calloc(1, sizeof(*bench));
    machine_init(&bench->machine);
    bench->pairs = pairs;
    for (unsigned i = 0; i < ARRAY_SIZE(bench->outside); i++)
        outside_init(&bench->outside[i]);
    bench->net = new_net(bench, pairs, bench->outside);
    driver_find(&bench->driver, &bench->machine, &bench->net->virtio);
    driver_msix_on(&bench->driver);
    bench->scratch = machine_alloc(&bench->machine, 80000, 16);
    return bench;
}

static void bench_free(struct bench *bench)
{
    struct pci_device *pci = &bench->net->virtio.pci;
    pci_bus_detach(pci);
    device_free(&pci->device);
    for (unsigned i = 0; i < ARRAY_SIZE(bench->outside); i++)
        net_port_close(&bench->outside[i].port);
    machine_fini(&bench->machine);
    free(bench);
}

static void start(struct bench *bench, uint64_t features)
{
    features |= F(VIRTIO_F_VERSION_1);
    assert_true(driver_negotiate(&bench->driver, features));
    bench->rx = driver_queue(&bench->driver, 0, RING_SIZE);
    bench->tx = driver_queue(&bench->driver, 1, RING_SIZE);
    for (unsigned i = 1; i < bench->pairs && (features & F(VIRTIO_NET_F_MQ)); i++) {
        driver_queue(&bench->driver, 2 * i, RING_SIZE);
        driver_queue(&bench->driver, 2 * i + 1, RING_SIZE);
    }
    unsigned ctrl = features & F(VIRTIO_NET_F_MQ) ? 2 * bench->pairs : 2;
    bench->ctrl = driver_queue(&bench->driver, ctrl, RING_SIZE);
    driver_start(&bench->driver);
}

static void add_rx(struct bench *bench, struct ring *ring, unsigned count, uint32_t size)
{
    for (unsigned i = 0; i < count; i++) {
        struct buffer buffer = {machine_alloc(&bench->machine, size, 16), size};
        uint16_t id = ring_add(&bench->driver, ring, &buffer, 0, 1, false);
        bench->rx_gpa[id] = buffer.gpa;
    }
    ring_kick(&bench->driver, ring);
}

static void fill(uint8_t *frame, size_t len, unsigned seed)
{
    memset(frame, 0, NET_HDR_SIZE);
    for (size_t i = NET_HDR_SIZE; i < len; i++)
        frame[i] = (uint8_t)(i * 7 + i / 251 + seed);
}

/* Puts a frame into `pieces` descriptors and kicks. */
static void transmit(struct bench *bench, struct ring *ring, const uint8_t *bytes, uint32_t len,
                     unsigned pieces)
{
    struct buffer buffers[40];
    uint64_t at = machine_alloc(&bench->machine, len, 16);
    assert_int_equal(gmem_write(bench->machine.env.gmem, at, bytes, len), 0);
    for (unsigned i = 0; i < pieces; i++) {
        uint32_t from = len * i / pieces, to = len * (i + 1) / pieces;
        buffers[i] = (struct buffer){at + from, to - from};
    }
    ring_add(&bench->driver, ring, buffers, pieces, 0, false);
    ring_kick(&bench->driver, ring);
}

static void expect_used(struct bench *bench, struct ring *ring, uint32_t want_len)
{
    uint16_t id;
    uint32_t len;
    assert_true(ring_wait(&bench->driver, ring, &id, &len));
    assert_int_equal(len, want_len);
}

/* Collects one received frame, header included. */
static size_t collect(struct bench *bench, struct ring *ring, uint8_t *frame)
{
    size_t total = 0;
    unsigned buffers = 1;
    for (unsigned i = 0; i < buffers; i++) {
        uint16_t id;
        uint32_t len;
        /* The first shows that all are there. */
        if (i == 0)
            assert_true(ring_wait(&bench->driver, ring, &id, &len));
        else
            assert_true(ring_used(&bench->driver, ring, &id, &len));
        assert_int_equal(gmem_read(bench->machine.env.gmem, bench->rx_gpa[id], frame + total, len),
                         0);
        total += len;
        if (i == 0)
            buffers = get_le16(frame + 10);
    }
    return total;
}

static uint64_t ring_feature(void **state)
{
    return *state ? F(VIRTIO_F_RING_PACKED) : F(VIRTIO_F_EVENT_IDX);
}

static void test_config(void **state)
{
    struct bench *bench = bench_new(2);
    struct machine *machine = &bench->machine;
    uint64_t at = bench->driver.device_config;
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(mmio_read(machine, at + i, 1), mac[i]);
    assert_int_equal(mmio_read(machine, at + 6, 2), 1);
    assert_int_equal(mmio_read(machine, at + 8, 2), 2);
    assert_int_equal(mmio_read(machine, at + 10, 2), 1500);
    assert_int_equal(mmio_read(machine, at + 12, 4), 0);
    uint64_t offered = driver_offered(&bench->driver);
    uint64_t wanted = CTRL_FEATURES | GUEST_FEATURES | HOST_FEATURES | F(VIRTIO_NET_F_MQ) |
                      F(VIRTIO_NET_F_MTU) | F(VIRTIO_NET_F_MAC) | F(VIRTIO_NET_F_STATUS) |
                      F(VIRTIO_NET_F_MRG_RXBUF) | F(VIRTIO_F_VERSION_1);
    assert_int_equal(offered & wanted, wanted);

    start(bench, F(VIRTIO_NET_F_STATUS));
    virtio_net_set_link(bench->net, false);
    assert_int_equal(mmio_read(machine, at + 6, 2), 0);
    assert_true(machine->message[1] > 0);
    virtio_net_set_link(bench->net, true);
    assert_int_equal(mmio_read(machine, at + 6, 2), 1);
    bench_free(bench);
}

/* A device that cannot be made says why, and goes away without a trace. */
static void test_realize_refused(void **state)
{
    struct machine machine;
    machine_init(&machine);
    for (unsigned i = 0; i < 2; i++) {
        struct virtio_net *net =
            (struct virtio_net *)device_new(&virtio_net_class, &machine.env, "n9");
        struct device *device = &net->virtio.pci.device;
        net->mac[0] = i == 0;
        net->pairs = i == 1 ? VIRTIO_NET_PAIRS_MAX + 1 : 1;
        check_ok(pci_bus_attach(machine.bus, &net->virtio.pci, -1));
        struct err *err = device_realize(device);
        assert_non_null(err);
        assert_int_equal(err_kind(err), ERR_USAGE);
        assert_non_null(strstr(err_text(err), "n9"));
        err_free(err);
        pci_bus_detach(&net->virtio.pci);
        device_free(device);
    }
    machine_fini(&machine);
}

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

static uint8_t ctrl(struct bench *bench, uint8_t class, uint8_t command, const void *data,
                    uint32_t len)
{
    struct machine *machine = &bench->machine;
    uint8_t head[2] = {class, command}, ack = 0xee;
    uint64_t at = bench->scratch;
    assert_int_equal(gmem_write(machine->env.gmem, at, head, 2), 0);
    if (len)
        assert_int_equal(gmem_write(machine->env.gmem, at + 16, data, len), 0);
    assert_int_equal(gmem_write(machine->env.gmem, at + 8, &ack, 1), 0);
    struct buffer with[3] = {{at, 2}, {at + 16, len}, {at + 8, 1}};
    struct buffer without[2] = {{at, 2}, {at + 8, 1}};
    ring_add(&bench->driver, bench->ctrl, len ? with : without, len ? 2 : 1, 1, false);
    ring_kick(&bench->driver, bench->ctrl);
    expect_used(bench, bench->ctrl, 1);
    assert_int_equal(gmem_read(machine->env.gmem, at + 8, &ack, 1), 0);
    return ack;
}

static void test_ctrl(void **state)
{
    struct bench *bench = bench_new(1);
    start(bench, ring_feature(state) | CTRL_FEATURES | GUEST_FEATURES);
    uint8_t on = 1, other[6] = {2, 3, 4, 5, 6, 7}, vlan[2] = {7, 0};
    for (uint8_t command = 0; command < 6; command++)
        assert_int_equal(ctrl(bench, 0, command, &on, 1), 0);
    assert_int_equal(ctrl(bench, 0, 6, &on, 1), 1);
    assert_int_equal(ctrl(bench, 0, 0, other, 2), 1);
    assert_int_equal(ctrl(bench, 0, 0, NULL, 0), 1);

    uint8_t table[4 + 12 + 4 + 6] = {2};
    table[16] = 1;
    assert_int_equal(ctrl(bench, 1, 0, table, sizeof(table)), 0);
    assert_int_equal(ctrl(bench, 1, 0, table, sizeof(table) - 1), 1);
    put_le32(table, 0xffffffff);
    assert_int_equal(ctrl(bench, 1, 0, table, sizeof(table)), 1);
    put_le32(table, 0x2aaaaaab); /* times 6 is 2 in 32 bits */
    assert_int_equal(ctrl(bench, 1, 0, table, sizeof(table)), 1);
    assert_int_equal(ctrl(bench, 1, 1, other, 6), 0);
    assert_int_equal(mmio_read(&bench->machine, bench->driver.device_config + 5, 1), 7);
    assert_int_equal(ctrl(bench, 1, 1, other, 5), 1);

    assert_int_equal(ctrl(bench, 2, 0, vlan, 2), 0);
    assert_int_equal(ctrl(bench, 2, 1, vlan, 2), 0);
    assert_int_equal(ctrl(bench, 2, 2, vlan, 2), 1);
    assert_int_equal(ctrl(bench, 4, 0, vlan, 2), 1);
    assert_int_equal(ctrl(bench, 9, 0, vlan, 2), 1);

    uint8_t offloads[8];
    put_le64(offloads, F(VIRTIO_NET_F_GUEST_CSUM) | F(VIRTIO_NET_F_GUEST_TSO4));
    assert_int_equal(ctrl(bench, 5, 0, offloads, 8), 0);
    assert_int_equal(bench->outside[0].told, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4);
    put_le64(offloads, 0);
    assert_int_equal(ctrl(bench, 5, 0, offloads, 8), 0);
    assert_int_equal(bench->outside[0].told, 0);
    put_le64(offloads, F(VIRTIO_NET_F_GUEST_CSUM) | F(VIRTIO_NET_F_GUEST_ECN));
    assert_int_equal(ctrl(bench, 5, 0, offloads, 8), 1); /* not negotiated */
    assert_int_equal(ctrl(bench, 5, 0, offloads, 7), 1);
    assert_int_equal(ctrl(bench, 5, 1, offloads, 8), 1);

    /* A command of one byte. */
    struct buffer tiny[2] = {{bench->scratch, 1}, {bench->scratch + 8, 1}};
    ring_add(&bench->driver, bench->ctrl, tiny, 1, 1, false);
    ring_kick(&bench->driver, bench->ctrl);
    expect_used(bench, bench->ctrl, 1);
    assert_int_equal(*machine_host(&bench->machine, bench->scratch + 8), 1);

    /* A reset brings the defaults back. */
    driver_reset(&bench->driver);
    assert_int_equal(mmio_read(&bench->machine, bench->driver.device_config + 5, 1), mac[5]);
    assert_int_equal(bench->outside[0].told, 0);

    /* No room for the answer breaks the device, and only it. */
    start(bench, ring_feature(state) | CTRL_FEATURES);
    ring_add(&bench->driver, bench->ctrl, tiny, 2, 0, false);
    ring_kick(&bench->driver, bench->ctrl);
    driver_turn(&bench->driver, 3);
    assert_true(driver_status(&bench->driver) & VIRTIO_STATUS_NEEDS_RESET);
    bench_free(bench);
}

static void test_pairs(void **state)
{
    struct bench *bench = bench_new(3);
    static uint8_t frame[300], got[NET_FRAME_MAX];
    uint8_t pairs[2];
    start(bench, ring_feature(state) | CTRL_FEATURES | F(VIRTIO_NET_F_MQ));
    fill(frame, sizeof(frame), 1);
    struct ring *rx1 = &bench->driver.ring[2], *tx2 = &bench->driver.ring[5];

    /* One pair in use: what comes to the others' ports goes to the first queue. */
    add_rx(bench, bench->rx, 2, BUFFER);
    driver_turn(&bench->driver, 2);
    assert_int_equal(outside_deliver(&bench->outside[1], frame, sizeof(frame)), 0);
    assert_int_equal(collect(bench, bench->rx, got), sizeof(frame));

    put_le16(pairs, 0);
    assert_int_equal(ctrl(bench, 4, 0, pairs, 2), 1);
    put_le16(pairs, 4);
    assert_int_equal(ctrl(bench, 4, 0, pairs, 2), 1);
    put_le16(pairs, 3);
    assert_int_equal(ctrl(bench, 4, 0, pairs, 2), 0);
    bench->outside[1].held = frame;
    bench->outside[1].held_len = sizeof(frame);
    assert_int_equal(outside_deliver(&bench->outside[1], frame, sizeof(frame)), -EAGAIN);
    add_rx(bench, rx1, 1, BUFFER);
    driver_turn(&bench->driver, 3);
    assert_null(bench->outside[1].held);
    assert_int_equal(collect(bench, rx1, got), sizeof(frame));
    transmit(bench, tx2, frame, sizeof(frame), 1);
    expect_used(bench, tx2, 0);
    assert_int_equal(bench->outside[2].count, 1);
    assert_int_equal(bench->outside[0].count, 0);

    /* A driver without MQ finds the control queue third. */
    start(bench, ring_feature(state) | CTRL_FEATURES);
    assert_int_equal(ctrl(bench, 1, 1, mac, 6), 0);
    assert_int_equal(ctrl(bench, 4, 0, pairs, 2), 1);
    transmit(bench, bench->tx, frame, sizeof(frame), 1);
    expect_used(bench, bench->tx, 0);
    assert_int_equal(bench->outside[0].count, 1);
    bench_free(bench);
}

/* Quiesced, the device touches nothing; the loaded one goes on where the first stopped. */
static void test_save_load(void **state)
{
    struct bench *bench = bench_new(1);
    struct machine *machine = &bench->machine;
    static uint8_t frame[5000], got[NET_FRAME_MAX];
    uint8_t other[6] = {2, 3, 4, 5, 6, 7};
    uint16_t id;
    uint32_t len;
    start(bench, ring_feature(state) | CTRL_FEATURES | GUEST_FEATURES | F(VIRTIO_NET_F_MRG_RXBUF));
    assert_int_equal(ctrl(bench, 1, 1, other, 6), 0);
    add_rx(bench, bench->rx, 8, BUFFER);
    bench->outside[0].room = 1;
    fill(frame, sizeof(frame), 1);
    for (unsigned i = 0; i < 3; i++)
        transmit(bench, bench->tx, frame, 1000, 2);
    driver_turn(&bench->driver, 3);
    assert_true(ring_used(&bench->driver, bench->tx, &id, &len));
    assert_int_equal(bench->outside[0].count, 1);

    struct outside *outside = &bench->outside[1];
    struct virtio_net *fresh = new_net(bench, 1, outside);
    round_trip(&bench->net->virtio.pci.device, &fresh->virtio.pci.device);
    assert_int_equal(outside->told, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6);
    assert_memory_equal(fresh->mac_now, other, 6);

    /* Between quiesce and resume the peer is held off. */
    assert_int_equal(outside_deliver(&bench->outside[0], frame, 100), -EAGAIN);
    bench->outside[0].room = 10;
    net_port_ready(&bench->outside[0].port);
    assert_int_equal(bench->outside[0].count, 1);

    pci_bus_detach(&bench->net->virtio.pci);
    device_free(&bench->net->virtio.pci.device);
    bench->net = fresh;
    device_resume(&fresh->virtio.pci.device);
    driver_turn(&bench->driver, 3);
    assert_int_equal(outside->count, 2);
    assert_int_equal(outside->len, 1000);
    assert_int_equal(outside_deliver(outside, frame, 5000), 0);
    bench->driver.config = ECAM + ((uint64_t)fresh->virtio.pci.devfn << 12);
    assert_int_equal(collect(bench, bench->rx, got), 5000);
    (void)machine;
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

/* A driver that lies in every field it can, for a while: nothing but drops and NEEDS_RESET. */
static void test_noise(void **state)
{
    struct bench *bench = bench_new(2);
    struct machine *machine = &bench->machine;
    static uint8_t frame[9000];
    srandom(11);
    fill(frame, sizeof(frame), 5);
    for (unsigned round = 0; round < 60; round++) {
        machine->next = MIB(1) / 4;
        start(bench, ring_feature(state) | CTRL_FEATURES | GUEST_FEATURES | HOST_FEATURES |
                         F(VIRTIO_NET_F_MQ) | (round % 2 ? F(VIRTIO_NET_F_MRG_RXBUF) : 0));
        for (unsigned i = 0; i < 60; i++) {
            struct ring *ring = &bench->driver.ring[random() % 5];
            struct buffer buffers[4];
            unsigned count = 1 + (unsigned)random() % 4;
            unsigned out = (unsigned)random() % (count + 1);
            for (unsigned j = 0; j < count; j++)
                buffers[j] = (struct buffer){bench->scratch + (uint64_t)random() % 3000,
                                             (uint32_t)random() % 2000 + 1};
            if (round % 8 == 7 && i == 50)
                buffers[0].gpa = RAM_SIZE - 3;
            for (unsigned j = 0; j < 40; j++)
                *machine_host(machine, bench->scratch + (uint64_t)random() % 3000) =
                    (uint8_t)random();
            if ((ring->avail - ring->used + RING_SIZE) % RING_SIZE < RING_SIZE - 8)
                ring_add(&bench->driver, ring, buffers, out, count - out, false);
            ring_kick_always(&bench->driver, ring);
            outside_deliver(&bench->outside[random() % 2], frame, 30 + (size_t)random() % 8000);
            driver_turn(&bench->driver, 1);
        }
    }
    bench_free(bench);
}

#define BOTH(test)                                                                                 \
    {#test " split", test, NULL, NULL, NULL},                                                      \
    {                                                                                              \
#test " packed", test, NULL, NULL, &packed                                                 \
    }

int main(void)
{
    static int packed = 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_realize_refused),
        BOTH(test_transmit),
        BOTH(test_transmit_bad),
        BOTH(test_transmit_many_pieces),
        BOTH(test_transmit_pressure),
        BOTH(test_receive),
        BOTH(test_receive_pressure),
        BOTH(test_receive_whole),
        BOTH(test_ctrl),
        BOTH(test_pairs),
        BOTH(test_save_load),
        BOTH(test_threads),
        BOTH(test_noise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
