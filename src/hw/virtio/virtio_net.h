/*
 * virtio-net (virtio 1.2, section 5.1): a network card whose peers are network ports.
 *
 * The builder sets the fields of the first part, then calls device_realize(), which links the
 * ports.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_VIRTIO_VIRTIO_NET_H
#define TENON_HW_VIRTIO_VIRTIO_NET_H

#include "hw/virtio/virtio.h"
#include "net/net.h"

#define VIRTIO_NET_PAIRS_MAX 16

struct virtio_net;

/* One pair of receive and transmit queues, and the port that it is to the outside. */
struct virtio_net_pair {
    struct virtio_net *net;
    struct net_port port;
    unsigned index;
    bool rx_waiting; /* the peer got -EAGAIN and wants net_port_ready */
    bool rx_wake;    /* there is something new to try it with */
    bool tx_waiting; /* the peer answered -EAGAIN; its peer_ready goes on */
    bool tx_more;    /* the budget of a round was used up */
    /* Since when the waiting frame finds buffers, but too few; 0: not. */
    uint64_t rx_starved_ns;
};

struct virtio_net {
    struct virtio_device virtio;

    /* Set before realize. */
    uint8_t mac[6];
    uint16_t mtu;   /* offered to the driver; 0: not */
    unsigned pairs; /* 0: one; at most VIRTIO_NET_PAIRS_MAX */
    /* The peer of each pair, on virtio.loop (default env->loop); borrowed, closed by its owner
     * after the device is freed. NULL: nothing is plugged in. */
    struct net_port *peer[VIRTIO_NET_PAIRS_MAX];

    /* The device's own. */
    struct virtio_net_pair pair[VIRTIO_NET_PAIRS_MAX];
    struct loop_timer again; /* goes on with waiting pairs, on the loop */
    struct loop_timer stale; /* looks at starved ones */
    uint8_t mac_now[6];      /* the driver may change it */
    uint32_t pairs_now;      /* that the driver uses */
    uint32_t offload_now;    /* NET_OFFLOAD_* that the driver takes */
    bool link_down;
    bool stopped;               /* between quiesce and resume */
    uint8_t *bounce;            /* for requests in very many pieces */
    struct virtq_req **rx_reqs; /* one frame's buffers while it is written */
    struct log_limit complaints;
};

extern const struct device_class virtio_net_class;

/* Plugs the cable in or out; the driver is told. Takes the device lock. */
void virtio_net_set_link(struct virtio_net *net, bool up);

#endif
