/*
 * Network ports: NICs, taps, NAT and (later) switch ports are peers of each other.
 *
 * A frame travels with a virtio_net_hdr from end to end: checksum and segmentation are left to
 * whoever must have them done, never split inside Tenon, only towards a peer that lacks the
 * feature.
 *
 * Both ends of a link live on one loop, and frames move on its thread. A send never calls back into
 * the sender before it returned: a device may hold its lock around net_port_deliver().
 *
 * Back pressure: a port that is full answers -EAGAIN, and the sender keeps the frame, stops reading
 * from where it came, and tries again when its peer_ready is called. Nothing is lost, nobody spins.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_NET_NET_H
#define TENON_NET_NET_H

#include <sys/uio.h>

#include "base/base.h"
#include "base/err.h"
#include "loop/loop.h"

/* struct virtio_net_hdr_v1 (virtio 1.2, section 5.1.6.1): always this 12-byte form. */
#define NET_HDR_SIZE 12
/* Largest frame with header: 64 KiB of TSO plus headers. */
#define NET_FRAME_MAX (65536 + 64)
#define NET_ETH_HDR_SIZE 14

/* What the receiver of frames understands, as TUN_F_* bits count them. */
#define NET_OFFLOAD_CSUM (1u << 0)
#define NET_OFFLOAD_TSO4 (1u << 1)
#define NET_OFFLOAD_TSO6 (1u << 2)
#define NET_OFFLOAD_ECN (1u << 3)
#define NET_OFFLOAD_UFO (1u << 4)

struct net_port;

struct net_port_ops {
    const char *kind; /* "tap", "user", "virtio-net" */
    /*
     * The peer sends a frame to this port: header first, then the frame, in `count` segments.
     * Returns 0 (taken or dropped) or -EAGAIN: full, net_port_ready() will follow.
     */
    int (*send)(struct net_port *port, const struct iovec *iov, unsigned count, size_t len);
    /* What the peer understands has changed: frames that this port sends need no more. Any thread.
     * Optional: the core does in software what the peer lacks. */
    void (*set_offload)(struct net_port *port, uint32_t offload);
    /* The peer has room again after its -EAGAIN. */
    void (*peer_ready)(struct net_port *port);
    /* Unlinked already; releases the port. NULL: embedded in its owner, who does that. */
    void (*close)(struct net_port *port);
};

/* Embedded by each kind of port. */
struct net_port {
    const struct net_port_ops *ops;
    struct net_port *peer;
    struct loop *loop;
    uint32_t offload; /* what this port itself understands when frames are sent to it */
    uint64_t tx_frames, tx_bytes, rx_frames, rx_bytes, dropped;
    /* The core's own: a frame that is being split for a peer without the offload. */
    uint8_t *bounce;
    unsigned segments_done;
};

/* Joins two ports; either may be unjoined again with net_port_unlink. */
void net_port_link(struct net_port *a, struct net_port *b);
void net_port_unlink(struct net_port *port);
/*
 * Hands a frame from `port` to its peer: as ops->send of the peer; no peer: dropped. The header
 * must have passed net_hdr_check() if it came from outside. After -EAGAIN the same frame comes
 * again, or net_port_abandon() says that it does not.
 */
int net_port_deliver(struct net_port *port, const struct iovec *iov, unsigned count, size_t len);
void net_port_abandon(struct net_port *port);
/* After -EAGAIN from this port: tells the peer that there is room. */
void net_port_ready(struct net_port *port);
/* Any thread: changes what `port` understands, and tells its peer. */
void net_port_set_offload(struct net_port *port, uint32_t offload);
/* Unlinks and closes; NULL is fine. */
void net_port_close(struct net_port *port);

/* A tap descriptor opened and configured (IFF_VNET_HDR) by whoever had the permission; taken. */
struct err *net_tap_new(struct loop *loop, int fd, struct net_port **port);
/*
 * The VMM's end of a seqpacket or stream socket to tenon-slirp, one frame with its header a
 * message; taken.
 */
struct err *net_user_new(struct loop *loop, int fd, struct net_port **port);

/*
 * Opens `queues` queues of a tap interface, for the side that has the permission (the tenon
 * command). An interface that was made for this user needs no privilege; one that does not exist is
 * created (and goes away with its last descriptor) if the caller has CAP_NET_ADMIN. fds[] are the
 * caller's.
 */
struct err *net_tap_open(const char *ifname, unsigned queues, int *fds);

/*
 * A pair of sockets for tenon-slirp and net_user_new(), with room for 64 KiB frames. Both are
 * close-on-exec.
 */
struct err *net_user_socketpair(int fds[2]);

#endif
