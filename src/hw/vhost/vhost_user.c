/*
 * vhost-user back end: the device, the socket, and messages as a whole.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/socket.h"
#include "hw/vhost/vhost_user_internal.h"

static void drop_fds(struct vhost_user *vhost)
{
    while (vhost->fd_count)
        close(vhost->fds[--vhost->fd_count]);
    vhost_user_close(&vhost->reply_fd);
}

static void drop_front_end(struct vhost_user *vhost)
{
    if (vhost->fd < 0)
        return;
    loop_fd_remove(&vhost->watch);
    vhost_user_close(&vhost->fd);
    drop_fds(vhost);
    vhost->got = 0;
    vhost_user_forget(vhost);
    loop_fd_modify(&vhost->listen_watch, EPOLLIN);
}

/* The driver's interrupt: of a queue, for there is none for the configuration. */
static void interrupt(struct virtio_device *device, uint16_t vector)
{
    struct vhost_user *vhost = device->pci.device.env->opaque;
    uint64_t one = 1;
    if (vector < vhost->config.queues && vhost->ring[vector].call_fd >= 0)
        (void)!write(vhost->ring[vector].call_fd, &one, sizeof(one));
}

/* --- messages --- */

static bool send_reply(struct vhost_user *vhost, uint32_t request, const uint8_t *payload,
                       uint32_t length)
{
    uint8_t message[VHOST_HEADER + VHOST_PAYLOAD_MAX];
    put_le32(message, request);
    put_le32(message + 4, VHOST_VERSION | VHOST_REPLY);
    put_le32(message + 8, length);
    memcpy(message + VHOST_HEADER, payload, length);
    /* A front end waits for each answer, so there is always room for one. */
    return socket_send_fd(vhost->fd, message, VHOST_HEADER + length, vhost->reply_fd, MSG_DONTWAIT);
}

static bool handle(struct vhost_user *vhost)
{
    uint8_t reply[VHOST_PAYLOAD_MAX];
    uint32_t request = get_le32(vhost->message), flags = get_le32(vhost->message + 4), length;
    bool good = (flags & 3) == VHOST_VERSION && !(flags & VHOST_REPLY) &&
                vhost_user_handle(vhost, (enum vhost_request)request, vhost->message + VHOST_HEADER,
                                  vhost->got - VHOST_HEADER, reply, &length);
    bool wants = (flags & VHOST_NEED_REPLY) && (vhost->protocol >> VHOST_P_REPLY_ACK & 1);
    vhost->got = 0;
    if (good && length) {
        good = send_reply(vhost, request, reply, length);
    } else if (wants) {
        put_le64(reply, !good);
        good = send_reply(vhost, request, reply, 8) && good;
    }
    drop_fds(vhost);
    return good;
}

/* Descriptors that came with some bytes. More than a message can have are closed. */
static void keep_fds(struct vhost_user *vhost, struct msghdr *message)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t at = 0; at + sizeof(int) <= part->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + at, sizeof(fd));
            if (vhost->fd_count < VHOST_FDS_MAX)
                vhost->fds[vhost->fd_count++] = fd;
            else
                close(fd);
        }
    }
}

/* How long the message is, as far as that is known yet. */
static unsigned wanted(const struct vhost_user *vhost)
{
    return vhost->got < VHOST_HEADER ? VHOST_HEADER : VHOST_HEADER + get_le32(vhost->message + 8);
}

static void on_message(void *opaque, uint32_t events)
{
    struct vhost_user *vhost = opaque;
    char control[CMSG_SPACE(sizeof(int) * VHOST_FDS_MAX)];
    struct iovec iov = {vhost->message + vhost->got, wanted(vhost) - vhost->got};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(vhost->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        drop_front_end(vhost);
        return;
    }
    keep_fds(vhost, &message);
    vhost->got += (unsigned)n;
    if (vhost->got >= VHOST_HEADER && get_le32(vhost->message + 8) > VHOST_PAYLOAD_MAX) {
        log_warn("vhost-user: a message of %u bytes: the front end is turned away",
                 get_le32(vhost->message + 8));
        drop_front_end(vhost);
    } else if (vhost->got >= VHOST_HEADER && vhost->got == wanted(vhost) && !handle(vhost)) {
        log_warn("vhost-user: a message that does not fit: the front end is turned away");
        drop_front_end(vhost);
    }
}

static void on_front_end(void *opaque, uint32_t events)
{
    struct vhost_user *vhost = opaque;
    int fd = accept4(vhost->config.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    struct err *err =
        loop_fd_add(vhost->config.loop, &vhost->watch, fd, EPOLLIN, on_message, vhost);
    if (err) {
        err_free(err);
        close(fd);
        return;
    }
    vhost->fd = fd;
    loop_fd_modify(&vhost->listen_watch, 0); /* until this one goes */
}

static void on_stop(void *opaque, uint32_t events)
{
    struct vhost_user *vhost = opaque;
    loop_stop(vhost->config.loop);
}

/* --- life --- */

static struct err *build(struct vhost_user *vhost)
{
    const struct pci_bus_config bus = {
        .env = &vhost->env, .mmio32_base = 0xc0000000, .mmio32_size = 0x10000000};
    vhost->env = (struct hw_env){
        .gmem = gmem_new(),
        .pio = io_bus_new("ports"),
        .mmio = io_bus_new("memory"),
        .loop = vhost->config.loop,
        .opaque = vhost,
    };
    TRY(pci_bus_new(&bus, &vhost->bus));
    vhost->blk = (struct virtio_blk *)device_new(&virtio_blk_class, &vhost->env, "vhost-user");
    vhost->blk->block = vhost->config.block;
    vhost->blk->serial = vhost->config.serial;
    vhost->blk->queues = vhost->config.queues;
    vhost->blk->virtio.interrupt = interrupt;
    /* Resets of single queues and packed rings: not by this protocol. */
    vhost->blk->virtio.features_off = 1ull << VIRTIO_F_RING_RESET | 1ull << VIRTIO_F_RING_PACKED;
    TRY(pci_bus_attach(vhost->bus, &vhost->blk->virtio.pci, -1));
    TRY(device_realize(&vhost->blk->virtio.pci.device));
    TRY(loop_fd_add(vhost->config.loop, &vhost->listen_watch, vhost->config.listen_fd, EPOLLIN,
                    on_front_end, vhost));
    return loop_fd_add(vhost->config.loop, &vhost->stop_watch, vhost->config.stop_fd, EPOLLIN,
                       on_stop, vhost);
}

struct err *vhost_user_new(const struct vhost_user_config *config, struct vhost_user **out)
{
    struct vhost_user *vhost = xcalloc(1, sizeof(*vhost));
    vhost->config = *config;
    vhost->fd = vhost->reply_fd = -1;
    for (unsigned i = 0; i < VIRTIO_BLK_QUEUES_MAX; i++)
        vhost->ring[i] = (struct vhost_ring){.vhost = vhost, .kick_fd = -1, .call_fd = -1};
    struct err *err = build(vhost);
    if (err) {
        vhost_user_free(vhost);
        return err;
    }
    *out = vhost;
    return NULL;
}

void vhost_user_run(struct vhost_user *vhost)
{
    loop_run(vhost->config.loop);
}

void vhost_user_free(struct vhost_user *vhost)
{
    if (!vhost)
        return;
    drop_front_end(vhost);
    loop_fd_remove(&vhost->listen_watch);
    loop_fd_remove(&vhost->stop_watch);
    if (vhost->blk)
        device_free(&vhost->blk->virtio.pci.device);
    if (vhost->bus)
        pci_bus_free(vhost->bus);
    io_bus_free(vhost->env.pio);
    io_bus_free(vhost->env.mmio);
    gmem_free(vhost->env.gmem);
    free(vhost);
}
