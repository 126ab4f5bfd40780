/*
 * Ports over a descriptor. Runs on the port's loop.
 *
 * Reading stops while the peer holds us off: the kernel's queue fills, and who is behind it learns
 * of the congestion there. A frame that the peer refused waits in `frame`.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "net/backend/fd_port.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/core/hdr.h"

/* Frames in one go, so that other descriptors of the loop get their turn. */
#define FRAMES_A_ROUND 64

static void fd_port_watch(struct fd_port *fd_port)
{
    uint32_t events = 0;
    if (!fd_port->peer_full)
        events |= EPOLLIN;
    if (fd_port->full)
        events |= EPOLLOUT;
    if (fd_port->watch.loop)
        loop_fd_modify(&fd_port->watch, events);
}

static void fd_port_gone(struct fd_port *fd_port)
{
    fd_port->gone = true;
    loop_fd_remove(&fd_port->watch);
    log_warn("network: the %s back end has ended; the guest's network is down", fd_port->io->kind);
    if (fd_port->full) {
        fd_port->full = false;
        net_port_ready(&fd_port->port);
    }
}

/* False: the peer is full. */
static bool fd_port_pass(struct fd_port *fd_port, size_t len)
{
    struct iovec iov = {fd_port->frame, len};
    if (fd_port->io->check_headers) {
        struct net_hdr hdr;
        net_hdr_get(&hdr, fd_port->frame);
        if (len < NET_HDR_SIZE || net_hdr_check(&hdr, len - NET_HDR_SIZE) < 0) {
            fd_port->port.dropped++;
            return true;
        }
        net_hdr_put(&hdr, fd_port->frame);
    }
    if (net_port_deliver(&fd_port->port, &iov, 1, len) != -EAGAIN)
        return true;
    fd_port->held = len;
    fd_port->peer_full = true;
    return false;
}

static void fd_port_read(struct fd_port *fd_port)
{
    for (int i = 0; i < FRAMES_A_ROUND; i++) {
        ssize_t len = fd_port->io->read(fd_port->fd, fd_port->frame, NET_FRAME_MAX);
        if (len == -EAGAIN || len == -EINTR)
            return;
        if (len < 0 || (len == 0 && fd_port->io->zero_ends)) {
            fd_port_gone(fd_port);
            return;
        }
        if (!fd_port_pass(fd_port, (size_t)len)) {
            fd_port_watch(fd_port);
            return;
        }
    }
}

static void fd_port_event(void *opaque, uint32_t events)
{
    struct fd_port *fd_port = opaque;
    if (fd_port->full && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
        fd_port->full = false;
        fd_port_watch(fd_port);
        net_port_ready(&fd_port->port);
    }
    if (fd_port->gone)
        return;
    if (!fd_port->peer_full && (events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
        fd_port_read(fd_port);
    else if (events & (EPOLLERR | EPOLLHUP))
        /* Reported whatever we wait for: stop watching until the peer has room for what is left to
         * read, or the loop would spin. */
        loop_fd_remove(&fd_port->watch);
}

static struct err *fd_port_listen(struct fd_port *fd_port)
{
    return loop_fd_add(fd_port->port.loop, &fd_port->watch, fd_port->fd, EPOLLIN, fd_port_event,
                       fd_port);
}

int fd_port_send(struct net_port *port, const struct iovec *iov, unsigned count, size_t len)
{
    struct fd_port *fd_port = container_of(port, struct fd_port, port);
    if (fd_port->gone) {
        port->dropped++;
        return 0;
    }
    ssize_t result = fd_port->io->write(fd_port->fd, iov, count);
    if (result == -EAGAIN) {
        fd_port->full = true;
        fd_port_watch(fd_port);
        return -EAGAIN;
    }
    /* The interface is down, the other side is gone or refuses this frame: as on a wire, it is
     * lost. */
    if (result < 0) {
        port->dropped++;
        log_guest(&fd_port->complaints, "network: the %s back end refused a frame of %zu bytes: %s",
                  fd_port->io->kind, len - NET_HDR_SIZE, strerror((int)-result));
    }
    return 0;
}

void fd_port_peer_ready(struct net_port *port)
{
    struct fd_port *fd_port = container_of(port, struct fd_port, port);
    if (!fd_port->peer_full)
        return;
    fd_port->peer_full = false;
    if (!fd_port_pass(fd_port, fd_port->held))
        return;
    if (fd_port->watch.loop)
        fd_port_watch(fd_port);
    else if (!fd_port->gone)
        err_free(fd_port_listen(fd_port));
}

struct err *fd_port_init(struct fd_port *fd_port, const struct fd_port_io *io,
                         const struct net_port_ops *ops, struct loop *loop, int take_fd)
{
    fd_port->io = io;
    fd_port->port.ops = ops;
    fd_port->port.loop = loop;
    fd_port->fd = take_fd;
    int flags = fcntl(take_fd, F_GETFL);
    if (flags < 0 || fcntl(take_fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return err_errno(errno, "descriptor %d of the %s back end", take_fd, io->kind);
    fd_port->frame = malloc(NET_FRAME_MAX);
    if (!fd_port->frame)
        return err_errno(ENOMEM, "network");
    return fd_port_listen(fd_port);
}

void fd_port_fini(struct fd_port *fd_port)
{
    loop_fd_remove(&fd_port->watch);
    if (fd_port->fd >= 0)
        close(fd_port->fd);
    free(fd_port->frame);
}
