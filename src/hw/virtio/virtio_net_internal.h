/*
 * What the files of virtio-net share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_VIRTIO_VIRTIO_NET_INTERNAL_H
#define TENON_HW_VIRTIO_VIRTIO_NET_INTERNAL_H

#include "hw/virtio/virtio_net.h"

/* Feature bits (section 5.1.3). */
#define VIRTIO_NET_F_CSUM 0
#define VIRTIO_NET_F_GUEST_CSUM 1
#define VIRTIO_NET_F_CTRL_GUEST_OFFLOADS 2
#define VIRTIO_NET_F_MTU 3
#define VIRTIO_NET_F_MAC 5
#define VIRTIO_NET_F_GUEST_TSO4 7
#define VIRTIO_NET_F_GUEST_TSO6 8
#define VIRTIO_NET_F_GUEST_ECN 9
#define VIRTIO_NET_F_HOST_TSO4 11
#define VIRTIO_NET_F_HOST_TSO6 12
#define VIRTIO_NET_F_HOST_ECN 13
#define VIRTIO_NET_F_MRG_RXBUF 15
#define VIRTIO_NET_F_STATUS 16
#define VIRTIO_NET_F_CTRL_VQ 17
#define VIRTIO_NET_F_CTRL_RX 18
#define VIRTIO_NET_F_CTRL_VLAN 19
#define VIRTIO_NET_F_CTRL_RX_EXTRA 20
#define VIRTIO_NET_F_MQ 22
#define VIRTIO_NET_F_CTRL_MAC_ADDR 23

#define NET_STATUS_DRIVER_OK 4

static inline bool virtio_net_running(const struct virtio_net *net)
{
    return !net->stopped && !net->virtio.needs_reset && (net->virtio.status & NET_STATUS_DRIVER_OK);
}

/* Where the control queue is: behind the pairs that the driver knows of. */
static inline unsigned virtio_net_ctrl_index(const struct virtio_net *net)
{
    return virtio_has_feature(&net->virtio, VIRTIO_NET_F_MQ) ? 2 * net->pairs : 2;
}

/* What the driver may take by its features, as NET_OFFLOAD_*. */
uint32_t virtio_net_guest_offload(const struct virtio_net *net);
/* Tells all ports what the driver takes now. Device lock held. */
void virtio_net_apply_offload(struct virtio_net *net, uint32_t offload);
/* Goes on with what waits, soon and on the loop. Any thread. */
void virtio_net_again(struct virtio_net *net);

/* virtio_net_ctrl.c: serves the control queue. Device lock held. */
void virtio_net_ctrl(struct virtio_net *net, struct virtq *queue);

/* virtio_net_io.c */
extern const struct net_port_ops virtio_net_port_ops;
/* Sends what the driver queued. On the loop, device lock held. */
void virtio_net_transmit(struct virtio_net_pair *pair);

#endif
