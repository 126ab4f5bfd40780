/*
 * What ports over a descriptor share (tap, tenon-slirp): one frame a read and one a write, back
 * pressure in both directions, on the port's loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_NET_BACKEND_FD_PORT_H
#define TENON_NET_BACKEND_FD_PORT_H

#include "base/log.h"
#include "net/net.h"

struct fd_port {
    struct net_port port;
    const struct fd_port_io *io;
    struct loop_fd watch;
    int fd;         /* owned */
    bool peer_full; /* `frame` holds `held` bytes that the peer could not take */
    bool full;      /* we answered -EAGAIN */
    bool gone;      /* the other side closed */
    size_t held;
    uint8_t *frame; /* NET_FRAME_MAX bytes, owned */
    struct log_limit complaints;
};

/* How one kind moves a frame. Both return bytes or -errno. */
struct fd_port_io {
    const char *kind;
    ssize_t (*read)(int fd, void *bytes, size_t len);
    ssize_t (*write)(int fd, const struct iovec *iov, unsigned count);
    /* Reading 0 bytes means that the other side is gone. */
    bool zero_ends;
    /* Headers from there are checked before they go further. */
    bool check_headers;
};

struct err *fd_port_init(struct fd_port *fd_port, const struct fd_port_io *io,
                         const struct net_port_ops *ops, struct loop *loop, int take_fd);
void fd_port_fini(struct fd_port *fd_port);
/* For the ops of the kind. */
int fd_port_send(struct net_port *port, const struct iovec *iov, unsigned count, size_t len);
void fd_port_peer_ready(struct net_port *port);

#endif
