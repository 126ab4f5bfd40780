/*
 * Tap interfaces of the Linux kernel (tun(4), Documentation/networking/tuntap.rst).
 *
 * The 12-byte virtio_net_hdr passes through unchanged, so checksums and segmentation stay with
 * whoever is at the far end. A queue is one descriptor and one port. Opening needs the permission
 * and happens in the tenon command; the rest runs on the port's loop inside the sandbox, where
 * TUNSETOFFLOAD is the only ioctl left.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "net/backend/fd_port.h"

_Static_assert(NET_OFFLOAD_CSUM == TUN_F_CSUM && NET_OFFLOAD_TSO4 == TUN_F_TSO4 &&
                   NET_OFFLOAD_TSO6 == TUN_F_TSO6 && NET_OFFLOAD_UFO == TUN_F_UFO &&
                   NET_OFFLOAD_ECN == TUN_F_TSO_ECN,
               "offload bits are counted as the kernel does");

static ssize_t tap_read(int fd, void *bytes, size_t len)
{
    ssize_t result = read(fd, bytes, len);
    return result < 0 ? -errno : result;
}

static ssize_t tap_write(int fd, const struct iovec *iov, unsigned count)
{
    ssize_t result = writev(fd, iov, (int)count);
    return result < 0 ? -errno : result;
}

static const struct fd_port_io tap_io = {
    .kind = "tap",
    .read = tap_read,
    .write = tap_write,
};

static void tap_set_offload(struct net_port *port, uint32_t offload)
{
    struct fd_port *tap = container_of(port, struct fd_port, port);
    /* The kernel refuses TSO without checksums, as we would. */
    if (!(offload & NET_OFFLOAD_CSUM))
        offload = 0;
    offload &= NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN;
    if (ioctl(tap->fd, TUNSETOFFLOAD, (unsigned long)offload) != 0)
        log_warn("network: tap offloads stay as they are: %s", strerror(errno));
}

static void tap_close(struct net_port *port)
{
    struct fd_port *tap = container_of(port, struct fd_port, port);
    fd_port_fini(tap);
    free(tap);
}

static const struct net_port_ops tap_ops = {
    .kind = "tap",
    .send = fd_port_send,
    .set_offload = tap_set_offload,
    .peer_ready = fd_port_peer_ready,
    .close = tap_close,
};

struct err *net_tap_new(struct loop *loop, int fd, struct net_port **port)
{
    struct fd_port *tap = xcalloc(1, sizeof(*tap));
    struct err *err = fd_port_init(tap, &tap_io, &tap_ops, loop, fd);
    if (err) {
        tap_close(&tap->port);
        return err_wrap(err, "tap");
    }
    tap->port.offload = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN;
    *port = &tap->port;
    return NULL;
}

static struct err *tap_open_error(const char *ifname, unsigned queues, int number)
{
    switch (number) {
    case EPERM:
    case EACCES:
        return err_of(
            ERR_DENIED,
            "tap '%s': not this user's; make it once with: sudo ip tuntap add dev %s mode "
            "tap user %u%s && sudo ip link set %s up",
            ifname, ifname, geteuid(), queues > 1 ? " multi_queue" : "", ifname);
    case EBUSY:
        return err_of(ERR_BUSY,
                      "tap '%s': in use by another program; give this VM a tap of its own", ifname);
    case EINVAL:
        return err_new("tap '%s': not a tap interface%s%s", ifname,
                       queues > 1 ? ", or made without multi_queue; make it with: sudo ip tuntap "
                                    "add mode tap multi_queue dev "
                                  : "",
                       queues > 1 ? ifname : "");
    default:
        return err_errno(number, "tap '%s'", ifname);
    }
}

static int tap_attach(int fd, const char *ifname, short flags)
{
    struct ifreq request = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | flags)};
    strncpy(request.ifr_name, ifname, IFNAMSIZ - 1);
    return ioctl(fd, TUNSETIFF, &request) == 0 ? 0 : -errno;
}

static struct err *tap_open_queue(const char *ifname, unsigned queues, int *queue_fd)
{
    scoped(fd_cleanup) int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return err_errno(errno, "tap '%s': cannot open /dev/net/tun%s", ifname,
                         errno == ENOENT || errno == ENODEV ? " (sudo modprobe tun makes it)" : "");

    int result = tap_attach(fd, ifname, queues > 1 ? IFF_MULTI_QUEUE : 0);
    /* A persistent interface made with multi_queue is opened in no other way, even for one queue.
     */
    if (result == -EINVAL && queues == 1)
        result = tap_attach(fd, ifname, IFF_MULTI_QUEUE);
    if (result < 0)
        return tap_open_error(ifname, queues, -result);

    int header = NET_HDR_SIZE, little_endian = 1;
    if (ioctl(fd, TUNSETVNETHDRSZ, &header) != 0 || ioctl(fd, TUNSETVNETLE, &little_endian) != 0)
        return err_errno(errno, "tap '%s': cannot set the header format", ifname);
    /* Until a guest's driver says more, frames come whole. */
    if (ioctl(fd, TUNSETOFFLOAD, 0ul) != 0)
        return err_errno(errno, "tap '%s': cannot set offloads", ifname);
    *queue_fd = fd;
    fd = -1;
    return NULL;
}

struct err *net_tap_open(const char *ifname, unsigned queues, int *fds)
{
    size_t len = strlen(ifname);
    if (len == 0 || len >= IFNAMSIZ || strchr(ifname, '/') || strchr(ifname, '%'))
        return err_of(ERR_USAGE, "tap '%s': an interface name has 1 to %d characters", ifname,
                      IFNAMSIZ - 1);
    for (unsigned i = 0; i < queues; i++) {
        struct err *err = tap_open_queue(ifname, queues, &fds[i]);
        if (err) {
            while (i-- > 0)
                close(fds[i]);
            return err;
        }
    }
    return NULL;
}
