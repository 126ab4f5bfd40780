/*
 * Frames between the rings of virtio-net and its ports (virtio 1.2, sections 5.1.6.1 to 5.1.6.4).
 *
 * Transmit: the segments of the guest's request go to the peer as they are, behind a checked copy
 * of their header; the peer hands them to writev or sendmsg. A request that the peer cannot take is
 * put back into the ring, so that nothing is held between two calls. Receive: the frame is written
 * into as many buffers as it needs, and all of them become visible to the driver at once.
 *
 * On the device's loop, under the device lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "hw/virtio/virtio_net_internal.h"
#include "net/core/hdr.h"
#include "net/core/iov.h"

/* Frames of one queue before others get their turn. */
#define TRANSMIT_BUDGET 128
/* How long a frame waits for buffers that do not become enough. */
#define STARVED_NS (500 * NSEC_PER_MSEC)

/* The offloads that the driver may use when it sends. */
static uint32_t transmit_offload(const struct virtio_net *net)
{
    if (!virtio_has_feature(&net->virtio, VIRTIO_NET_F_CSUM))
        return 0;
    uint32_t offload = NET_OFFLOAD_CSUM;
    if (virtio_has_feature(&net->virtio, VIRTIO_NET_F_HOST_TSO4))
        offload |= NET_OFFLOAD_TSO4;
    if (virtio_has_feature(&net->virtio, VIRTIO_NET_F_HOST_TSO6))
        offload |= NET_OFFLOAD_TSO6;
    if (virtio_has_feature(&net->virtio, VIRTIO_NET_F_HOST_ECN))
        offload |= NET_OFFLOAD_ECN;
    return offload;
}

/* 0 or -EAGAIN; a frame that may not go is dropped. */
static int transmit_one(struct virtio_net_pair *pair, const struct virtq_req *req)
{
    struct virtio_net *net = pair->net;
    uint8_t head[NET_HDR_SIZE];
    struct net_hdr hdr;
    if (req->out_len > NET_FRAME_MAX || virtq_req_read(req, 0, head, sizeof(head)) < sizeof(head)) {
        log_guest(&net->complaints, "virtio-net: a frame of %llu bytes",
                  (unsigned long long)req->out_len);
        pair->port.dropped++;
        return 0;
    }
    size_t len = req->out_len;
    net_hdr_get(&hdr, head);
    if (net_hdr_check(&hdr, len - NET_HDR_SIZE) < 0 ||
        (net_hdr_offload(&hdr) & ~transmit_offload(net))) {
        log_guest(&net->complaints,
                  "virtio-net: a header that makes no sense for its frame of %zu bytes (flags %#x, "
                  "gso %#x, size %u, checksum at %u+%u)",
                  len - NET_HDR_SIZE, head[0], head[1], get_le16(head + 4), get_le16(head + 6),
                  get_le16(head + 8));
        pair->port.dropped++;
        return 0;
    }
    if (net->link_down) {
        pair->port.dropped++;
        return 0;
    }
    /* The driver has no say in this one. */
    hdr.flags &= (uint8_t)~NET_HDR_F_DATA_VALID;
    net_hdr_put(&hdr, head);

    struct iovec iov[64];
    unsigned count = 0;
    iov[count++] = (struct iovec){head, sizeof(head)};
    if (req->out_count < ARRAY_SIZE(iov)) {
        size_t skip = NET_HDR_SIZE;
        for (unsigned i = 0; i < req->out_count; i++) {
            size_t cut = MIN(skip, req->out[i].iov_len);
            skip -= cut;
            if (cut < req->out[i].iov_len)
                iov[count++] = (struct iovec){(uint8_t *)req->out[i].iov_base + cut,
                                              req->out[i].iov_len - cut};
        }
    } else {
        virtq_req_read(req, NET_HDR_SIZE, net->bounce, len - NET_HDR_SIZE);
        iov[count++] = (struct iovec){net->bounce, len - NET_HDR_SIZE};
    }
    return net_port_deliver(&pair->port, iov, count, len);
}

void virtio_net_transmit(struct virtio_net_pair *pair)
{
    struct virtio_net *net = pair->net;
    struct virtq *queue = virtio_queue(&net->virtio, 2 * pair->index + 1);
    if (!virtio_net_running(net) || !virtq_ready(queue) || pair->tx_waiting)
        return;

    bool pushed = false;
    struct virtq_req *req;
    unsigned sent = 0;
    while ((req = virtq_pop(queue))) {
        if (transmit_one(pair, req) == -EAGAIN) {
            virtq_unpop(queue, req);
            pair->tx_waiting = true;
            break;
        }
        virtq_push(queue, req, 0);
        pushed = true;
        if (++sent == TRANSMIT_BUDGET) {
            pair->tx_more = true;
            virtio_net_again(net);
            break;
        }
    }
    if (pushed)
        virtq_notify(queue);
}

/*
 * Takes buffers for `len` bytes into net->rx_reqs. Returns how many, 0 for too few or too small:
 * then the ring was found empty, and its driver will ring when it adds one.
 */
static unsigned receive_gather(struct virtio_net *net, struct virtq *queue, size_t len,
                               bool mergeable, unsigned *seen)
{
    uint64_t room = 0;
    unsigned count = 0;
    while (room < len && count < VIRTQ_SIZE_MAX && (mergeable || count == 0)) {
        struct virtq_req *req = virtq_pop(queue);
        if (!req)
            break;
        net->rx_reqs[count++] = req;
        room += req->in_len;
    }
    *seen = count;
    if (room >= len && count > 0)
        return count;
    while (count > 0)
        virtq_unpop(queue, net->rx_reqs[--count]);
    return 0;
}

/* Copies the frame across the buffers; the first begins with the header. */
static void receive_fill(struct virtio_net *net, struct virtq *queue, unsigned count,
                         const uint8_t head[NET_HDR_SIZE], const struct iovec *iov,
                         unsigned iov_count)
{
    uint32_t written[VIRTQ_SIZE_MAX];
    unsigned piece = 0;
    size_t piece_at = 0, skip = NET_HDR_SIZE;
    for (; piece < iov_count && skip >= iov[piece].iov_len; piece++)
        skip -= iov[piece].iov_len;
    piece_at = skip;

    for (unsigned i = 0; i < count; i++) {
        struct virtq_req *req = net->rx_reqs[i];
        uint64_t at = 0;
        if (i == 0)
            at = virtq_req_write(req, 0, head, NET_HDR_SIZE);
        while (piece < iov_count && at < req->in_len) {
            size_t done = virtq_req_write(req, at, (const uint8_t *)iov[piece].iov_base + piece_at,
                                          iov[piece].iov_len - piece_at);
            at += done;
            piece_at += done;
            if (piece_at == iov[piece].iov_len) {
                piece++;
                piece_at = 0;
            }
        }
        written[i] = (uint32_t)at;
    }
    virtq_push_many(queue, net->rx_reqs, written, count);
    virtq_notify(queue);
}

/*
 * Too few buffers. The driver rings when it adds one; but a ring may be full and yet too small for
 * this frame, so it does not wait for ever and keep the next ones out.
 */
static int receive_starved(struct virtio_net_pair *pair, unsigned seen)
{
    uint64_t now = clock_now_ns();
    if (seen == 0)
        pair->rx_starved_ns = 0;
    else if (pair->rx_starved_ns == 0)
        pair->rx_starved_ns = now;
    else if (now - pair->rx_starved_ns >= STARVED_NS) {
        pair->rx_starved_ns = 0;
        pair->port.dropped++;
        return 0;
    }
    if (seen > 0 && !loop_timer_armed(&pair->net->stale))
        loop_timer_arm(&pair->net->stale, now + STARVED_NS);
    pair->rx_waiting = true;
    return -EAGAIN;
}

static int receive(struct virtio_net_pair *pair, const struct iovec *iov, unsigned count,
                   size_t len)
{
    struct virtio_net *net = pair->net;
    if (!virtio_net_running(net)) {
        pair->rx_waiting = true;
        return -EAGAIN;
    }
    if (net->link_down) {
        pair->port.dropped++;
        return 0;
    }
    struct virtq *queue = virtio_queue(&net->virtio, 2 * (pair->index % net->pairs_now));
    if (!virtq_ready(queue)) {
        pair->rx_waiting = true;
        return -EAGAIN;
    }

    bool mergeable = virtio_has_feature(&net->virtio, VIRTIO_NET_F_MRG_RXBUF);
    unsigned seen = 0;
    unsigned buffers = receive_gather(net, queue, len, mergeable, &seen);
    if (net->virtio.needs_reset) {
        while (buffers > 0)
            virtq_unpop(queue, net->rx_reqs[--buffers]);
        pair->rx_waiting = true;
        return -EAGAIN;
    }
    if (buffers == 0) {
        if (mergeable || seen == 0)
            return receive_starved(pair, seen);
        log_guest(&net->complaints, "virtio-net: a receive buffer is smaller than its frame of %zu",
                  len - NET_HDR_SIZE);
        pair->port.dropped++;
        return 0;
    }
    pair->rx_starved_ns = 0;

    uint8_t head[NET_HDR_SIZE];
    net_iov_read(iov, count, 0, head, sizeof(head));
    put_le16(head + 10, (uint16_t)buffers);
    receive_fill(net, queue, buffers, head, iov, count);
    return 0;
}

static int port_send(struct net_port *port, const struct iovec *iov, unsigned count, size_t len)
{
    struct virtio_net_pair *pair = container_of(port, struct virtio_net_pair, port);
    struct lock *lock = &pair->net->virtio.pci.device.lock;
    lock_take(lock);
    int result = receive(pair, iov, count, len);
    lock_drop(lock);
    return result;
}

static void port_peer_ready(struct net_port *port)
{
    struct virtio_net_pair *pair = container_of(port, struct virtio_net_pair, port);
    struct lock *lock = &pair->net->virtio.pci.device.lock;
    lock_take(lock);
    pair->tx_waiting = false;
    virtio_net_transmit(pair);
    lock_drop(lock);
}

const struct net_port_ops virtio_net_port_ops = {
    .kind = "virtio-net",
    .send = port_send,
    .peer_ready = port_peer_ready,
};
