/*
 * The VMM's end of the socket to tenon-slirp: SOCK_SEQPACKET, one message a frame, each with its
 * 12-byte virtio_net_hdr.
 *
 * tenon-slirp takes every offload and sends large TCP frames with a GSO header, so the common guest
 * pays for one frame where a wire would carry forty. Its headers are checked: it talks to the
 * Internet. Runs on the port's loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/backend/fd_port.h"

/* A message must fit as a whole, with the kernel's own account of it; the kernel may grant less. */
#define SOCKET_BUFFER (1 << 20)

static ssize_t user_read(int fd, void *bytes, size_t len)
{
    struct iovec iov = {bytes, len};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t result = recvmsg(fd, &message, MSG_DONTWAIT);
    return result < 0 ? -errno : result;
}

static ssize_t user_write(int fd, const struct iovec *iov, unsigned count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = count};
    ssize_t result = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    return result < 0 ? -errno : result;
}

static const struct fd_port_io user_io = {
    .kind = "user",
    .read = user_read,
    .write = user_write,
    .zero_ends = true,
    .check_headers = true,
};

static void user_close(struct net_port *port)
{
    struct fd_port *user = container_of(port, struct fd_port, port);
    fd_port_fini(user);
    free(user);
}

static const struct net_port_ops user_ops = {
    .kind = "user",
    .send = fd_port_send,
    .peer_ready = fd_port_peer_ready,
    .close = user_close,
};

struct err *net_user_new(struct loop *loop, int fd, struct net_port **port)
{
    struct fd_port *user = xcalloc(1, sizeof(*user));
    struct err *err = fd_port_init(user, &user_io, &user_ops, loop, fd);
    if (err) {
        user_close(&user->port);
        return err_wrap(err, "user network");
    }
    user->port.offload = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN;
    *port = &user->port;
    return NULL;
}

struct err *net_user_socketpair(int fds[2])
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0)
        return err_errno(errno, "user network: cannot make a socket pair");
    int size = SOCKET_BUFFER;
    for (int i = 0; i < 2; i++)
        if (setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) != 0) {
            int number = errno;
            close(fds[0]);
            close(fds[1]);
            return err_errno(number, "user network: cannot size the socket");
        }
    return NULL;
}
