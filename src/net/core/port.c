/*
 * Links between network ports, and software offload towards a peer that lacks the feature.
 *
 * The fast path is one look at the header and a call. Everything runs on the loop that both ports
 * share, except net_port_set_offload.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "net/core/hdr.h"
#include "net/core/iov.h"
#include "net/net.h"

void net_port_link(struct net_port *a, struct net_port *b)
{
    net_port_unlink(a);
    net_port_unlink(b);
    a->peer = b;
    b->peer = a;
    net_port_set_offload(a, a->offload);
    net_port_set_offload(b, b->offload);
}

static void port_forget_frame(struct net_port *port)
{
    free(port->bounce);
    port->bounce = NULL;
    port->segments_done = 0;
}

void net_port_unlink(struct net_port *port)
{
    struct net_port *peer = port->peer;
    if (!peer)
        return;
    port->peer = peer->peer = NULL;
    port_forget_frame(port);
    port_forget_frame(peer);
}

void net_port_abandon(struct net_port *port)
{
    port->segments_done = 0;
}

void net_port_set_offload(struct net_port *port, uint32_t offload)
{
    __atomic_store_n(&port->offload, offload, __ATOMIC_RELAXED);
    struct net_port *peer = port->peer;
    if (peer && peer->ops->set_offload)
        peer->ops->set_offload(peer, offload);
}

static int port_send(struct net_port *port, const struct iovec *iov, unsigned count, size_t len)
{
    struct net_port *peer = port->peer;
    int result = peer->ops->send(peer, iov, count, len);
    if (result == -EAGAIN)
        return result;
    port->tx_frames++;
    port->tx_bytes += len - NET_HDR_SIZE;
    peer->rx_frames++;
    peer->rx_bytes += len - NET_HDR_SIZE;
    return 0;
}

/* Segments that went out before an -EAGAIN are not sent again. */
static int port_send_segments(struct net_port *port, const struct net_hdr *hdr,
                              const uint8_t *frame, size_t len)
{
    struct net_segments segments;
    if (net_segments_init(&segments, hdr, frame, len) < 0) {
        port->dropped++;
        return 0;
    }
    for (unsigned i = port->segments_done; i < segments.count; i++) {
        uint8_t head[NET_SEGMENT_HEAD_MAX];
        struct iovec pieces[2];
        net_segments_get(&segments, i, head, pieces);
        if (port_send(port, pieces, 2, pieces[0].iov_len + pieces[1].iov_len) == -EAGAIN) {
            port->segments_done = i;
            return -EAGAIN;
        }
    }
    port->segments_done = 0;
    return 0;
}

static int port_send_plain(struct net_port *port, struct net_hdr *hdr, const struct iovec *iov,
                           unsigned count, size_t len)
{
    if (!port->bounce)
        port->bounce = malloc(NET_FRAME_MAX);
    if (!port->bounce || len > NET_FRAME_MAX) {
        port->dropped++;
        return 0;
    }
    net_iov_read(iov, count, 0, port->bounce, len);
    uint8_t *frame = port->bounce + NET_HDR_SIZE;
    size_t frame_len = len - NET_HDR_SIZE;
    hdr->flags &= (uint8_t)~NET_HDR_F_DATA_VALID;
    if (hdr->gso_type != NET_GSO_NONE)
        return port_send_segments(port, hdr, frame, frame_len);
    if (net_csum_complete(hdr, frame, frame_len) < 0) {
        port->dropped++;
        return 0;
    }
    net_hdr_put(hdr, port->bounce);
    struct iovec whole = {port->bounce, len};
    return port_send(port, &whole, 1, len);
}

int net_port_deliver(struct net_port *port, const struct iovec *iov, unsigned count, size_t len)
{
    uint8_t bytes[NET_HDR_SIZE];
    if (!port->peer || len < NET_HDR_SIZE + NET_ETH_HDR_SIZE ||
        net_iov_read(iov, count, 0, bytes, sizeof(bytes)) < sizeof(bytes)) {
        port->dropped++;
        return 0;
    }
    struct net_hdr hdr;
    net_hdr_get(&hdr, bytes);
    uint32_t understood = __atomic_load_n(&port->peer->offload, __ATOMIC_RELAXED);
    bool plain = !(understood & NET_OFFLOAD_CSUM) && (hdr.flags & NET_HDR_F_DATA_VALID);
    if (likely(!(net_hdr_offload(&hdr) & ~understood) && !plain))
        return port_send(port, iov, count, len);
    return port_send_plain(port, &hdr, iov, count, len);
}

void net_port_ready(struct net_port *port)
{
    struct net_port *peer = port->peer;
    if (peer)
        peer->ops->peer_ready(peer);
}

void net_port_close(struct net_port *port)
{
    if (!port)
        return;
    net_port_unlink(port);
    port_forget_frame(port);
    if (port->ops->close)
        port->ops->close(port);
}
