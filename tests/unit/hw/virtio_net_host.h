/*
 * A driver of virtio-net for its tests: frames in its queues, and a port as the network outside.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TEST_VIRTIO_NET_HOST_H
#define TENON_TEST_VIRTIO_NET_HOST_H

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

static inline int outside_deliver(struct outside *outside, const uint8_t *frame, size_t len)
{
    /* In two pieces, cut inside the header. */
    struct iovec iov[2] = {{(uint8_t *)(uintptr_t)frame, 5},
                           {(uint8_t *)(uintptr_t)frame + 5, len - 5}};
    return net_port_deliver(&outside->port, iov, 2, len);
}

static inline int outside_send(struct net_port *port, const struct iovec *iov, unsigned count,
                               size_t len)
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

static inline void outside_offload(struct net_port *port, uint32_t offload)
{
    container_of(port, struct outside, port)->told = offload;
}

static inline void outside_ready(struct net_port *port)
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

static inline void outside_init(struct outside *outside)
{
    *outside =
        (struct outside){.room = 1000, .port = {.ops = &outside_ops, .offload = ALL_OFFLOADS}};
}

static inline struct virtio_net *new_net(struct bench *bench, unsigned pairs,
                                         struct outside *outside)
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

static inline struct bench *bench_new(unsigned pairs)
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

static inline void bench_free(struct bench *bench)
{
    struct pci_device *pci = &bench->net->virtio.pci;
    pci_bus_detach(pci);
    device_free(&pci->device);
    for (unsigned i = 0; i < ARRAY_SIZE(bench->outside); i++)
        net_port_close(&bench->outside[i].port);
    machine_fini(&bench->machine);
    free(bench);
}

static inline void start(struct bench *bench, uint64_t features)
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

static inline void add_rx(struct bench *bench, struct ring *ring, unsigned count, uint32_t size)
{
    for (unsigned i = 0; i < count; i++) {
        struct buffer buffer = {machine_alloc(&bench->machine, size, 16), size};
        uint16_t id = ring_add(&bench->driver, ring, &buffer, 0, 1, false);
        bench->rx_gpa[id] = buffer.gpa;
    }
    ring_kick(&bench->driver, ring);
}

static inline void fill(uint8_t *frame, size_t len, unsigned seed)
{
    memset(frame, 0, NET_HDR_SIZE);
    for (size_t i = NET_HDR_SIZE; i < len; i++)
        frame[i] = (uint8_t)(i * 7 + i / 251 + seed);
}

/* Puts a frame into `pieces` descriptors and kicks. */
static inline void transmit(struct bench *bench, struct ring *ring, const uint8_t *bytes,
                            uint32_t len, unsigned pieces)
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

static inline void expect_used(struct bench *bench, struct ring *ring, uint32_t want_len)
{
    uint16_t id;
    uint32_t len;
    assert_true(ring_wait(&bench->driver, ring, &id, &len));
    assert_int_equal(len, want_len);
}

/* Collects one received frame, header included. */
static inline size_t collect(struct bench *bench, struct ring *ring, uint8_t *frame)
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

static inline uint64_t ring_feature(void **state)
{
    return *state ? F(VIRTIO_F_RING_PACKED) : F(VIRTIO_F_EVENT_IDX);
}

/* A test over both ring kinds; `packed` is the caller's. */
#define BOTH(test)                                                                                 \
    {#test " split", test, NULL, NULL, NULL},                                                      \
    {                                                                                              \
#test " packed", test, NULL, NULL, &packed                                                 \
    }

#endif
