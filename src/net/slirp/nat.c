/*
 * libslirp between a frame socket and the host's sockets.
 *
 * Frames that the VMM has no room for wait here, and while they do, the host's sockets are not
 * read: back pressure reaches the far end of each connection. Bounded all the same, since the
 * guest's own traffic makes answers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "net/slirp/nat.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "net/slirp/frame.h"

#define GUEST_MTU 1500
/* Messages from the guest between two looks at the host's sockets. */
#define MESSAGES_A_ROUND 64
#define QUEUE_BYTES_MAX (8u << 20)

struct nat_message {
    struct list link;
    size_t len;
    uint8_t bytes[];
};

struct nat_timer {
    struct list link;
    struct nat *nat;
    SlirpTimerId id;
    void *cb_opaque;
    int64_t expire_ms; /* INT64_MAX: not armed */
};

struct nat {
    Slirp *slirp;
    struct nat_config config;
    int fd;
    bool ended;
    bool asked; /* this round's poll covers the host's sockets */
    struct pollfd *polls;
    size_t poll_count, poll_capacity;
    struct list queue; /* struct nat_message, to the guest */
    size_t queue_bytes;
    struct list timers; /* struct nat_timer */
    uint8_t *message;   /* NET_FRAME_MAX bytes, from the guest */
    struct log_limit complaints;
};

/* 0, -EAGAIN, or another -errno for a message that can never go. */
static int nat_send_now(struct nat *nat, const struct iovec *iov, unsigned count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = count};
    if (sendmsg(nat->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
        return 0;
    return errno == EWOULDBLOCK || errno == EINTR || errno == ENOBUFS ? -EAGAIN : -errno;
}

static void nat_flush(struct nat *nat)
{
    struct nat_message *message;
    list_for_each (message, &nat->queue, link) {
        struct iovec iov = {message->bytes, message->len};
        if (nat_send_now(nat, &iov, 1) == -EAGAIN)
            return;
        list_remove(&message->link);
        nat->queue_bytes -= message->len;
        free(message);
    }
}

static void nat_send(void *opaque, const struct iovec *iov, unsigned count)
{
    struct nat *nat = opaque;
    if (list_empty(&nat->queue) && nat_send_now(nat, iov, count) != -EAGAIN)
        return;
    size_t len = 0;
    for (unsigned i = 0; i < count; i++)
        len += iov[i].iov_len;
    if (nat->queue_bytes + len > QUEUE_BYTES_MAX)
        return;
    struct nat_message *message = malloc(sizeof(*message) + len);
    if (!message)
        return;
    message->len = len;
    size_t at = 0;
    for (unsigned i = 0; i < count; i++) {
        memcpy(message->bytes + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    list_append(&nat->queue, &message->link);
    nat->queue_bytes += len;
}

static ssize_t on_packet(const void *frame, size_t len, void *opaque)
{
    slirp_frame_to_guest(frame, len, GUEST_MTU, nat_send, opaque);
    return (ssize_t)len;
}

static void on_guest_error(const char *text, void *opaque)
{
    struct nat *nat = opaque;
    log_guest(&nat->complaints, "the guest's network traffic: %s", text);
}

static int64_t on_clock(void *opaque)
{
    return (int64_t)clock_now_ns();
}

static void *on_timer_new(SlirpTimerId id, void *cb_opaque, void *opaque)
{
    struct nat *nat = opaque;
    struct nat_timer *timer = xcalloc(1, sizeof(*timer));
    *timer =
        (struct nat_timer){.nat = nat, .id = id, .cb_opaque = cb_opaque, .expire_ms = INT64_MAX};
    list_append(&nat->timers, &timer->link);
    return timer;
}

static void on_timer_free(void *opaque_timer, void *opaque)
{
    struct nat_timer *timer = opaque_timer;
    list_remove(&timer->link);
    free(timer);
}

static void on_timer_mod(void *opaque_timer, int64_t expire_ms, void *opaque)
{
    struct nat_timer *timer = opaque_timer;
    timer->expire_ms = expire_ms;
}

/* The descriptors are collected before each poll(). */
static void on_poll_fd(int fd, void *opaque)
{
}

static void on_notify(void *opaque)
{
}

static const SlirpCb callbacks = {
    .send_packet = on_packet,
    .guest_error = on_guest_error,
    .clock_get_ns = on_clock,
    .timer_free = on_timer_free,
    .timer_mod = on_timer_mod,
    .register_poll_fd = on_poll_fd,
    .unregister_poll_fd = on_poll_fd,
    .notify = on_notify,
    .timer_new_opaque = on_timer_new,
};

struct err *nat_new(const struct nat_config *config, int take_fd, struct nat **result)
{
    struct nat *nat = xcalloc(1, sizeof(*nat));
    nat->fd = take_fd;
    nat->config = *config;
    list_init(&nat->queue);
    list_init(&nat->timers);
    nat->message = malloc(NET_FRAME_MAX);
    SlirpConfig slirp_config = {
        .version = 4,
        .restricted = config->restricted,
        .in_enabled = true,
        .vnetwork = config->network,
        .vnetmask = config->mask,
        .vhost = config->gateway,
        .vhostname = config->hostname,
        .vdhcp_start = config->dhcp_start,
        .vnameserver = config->dns,
        .if_mtu = SLIRP_MTU,
        .if_mru = SLIRP_MTU,
        .disable_host_loopback = config->no_host,
    };
    if (nat->message)
        nat->slirp = slirp_new(&slirp_config, &callbacks, nat);
    if (!nat->slirp) {
        nat_free(nat);
        return err_new("libslirp %s did not start", slirp_version_string());
    }
    *result = nat;
    return NULL;
}

void nat_free(struct nat *nat)
{
    if (!nat)
        return;
    if (nat->slirp)
        slirp_cleanup(nat->slirp);
    struct nat_message *message;
    list_for_each (message, &nat->queue, link) {
        free(message);
    }
    if (nat->fd >= 0)
        close(nat->fd);
    free(nat->message);
    free(nat->polls);
    free(nat);
}

struct err *nat_forward(struct nat *nat, const struct nat_forward *forward)
{
    if (slirp_add_hostfwd(nat->slirp, forward->udp, forward->host_address, forward->host_port,
                          forward->guest_address, forward->guest_port) == 0)
        return NULL;
    int number = errno;
    char address[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &forward->host_address, address, sizeof(address));
    const char *protocol = forward->udp ? "UDP" : "TCP";
    switch (number) {
    case EADDRINUSE:
        return err_of(ERR_BUSY,
                      "port forward: %s port %u of %s is in use by another program; stop that or "
                      "forward another port",
                      protocol, forward->host_port, address);
    case EACCES:
    case EPERM:
        return err_of(ERR_DENIED,
                      "port forward: %s port %u of %s needs privileges; use a port from 1024 on",
                      protocol, forward->host_port, address);
    case EADDRNOTAVAIL:
        return err_new("port forward: %s is not an address of this host; use one of `ip addr`, or "
                       "127.0.0.1",
                       address);
    default:
        return err_errno(number, "port forward: %s port %u of %s", protocol, forward->host_port,
                         address);
    }
}

static int add_poll(int fd, int events, void *opaque)
{
    struct nat *nat = opaque;
    if (nat->poll_count == nat->poll_capacity) {
        nat->poll_capacity = nat->poll_capacity * 2 ?: 64;
        nat->polls = xrealloc(nat->polls, nat->poll_capacity, sizeof(*nat->polls));
    }
    short wanted = 0;
    if (events & SLIRP_POLL_IN)
        wanted |= POLLIN;
    if (events & SLIRP_POLL_OUT)
        wanted |= POLLOUT;
    if (events & SLIRP_POLL_PRI)
        wanted |= POLLPRI;
    nat->polls[nat->poll_count] = (struct pollfd){.fd = fd, .events = wanted};
    return (int)nat->poll_count++;
}

static int get_revents(int index, void *opaque)
{
    struct nat *nat = opaque;
    if (!nat->asked || index < 0 || (size_t)index >= nat->poll_count)
        return 0;
    short ready = nat->polls[index].revents;
    int events = 0;
    if (ready & POLLIN)
        events |= SLIRP_POLL_IN;
    if (ready & POLLOUT)
        events |= SLIRP_POLL_OUT;
    if (ready & POLLPRI)
        events |= SLIRP_POLL_PRI;
    if (ready & POLLERR)
        events |= SLIRP_POLL_ERR;
    if (ready & POLLHUP)
        events |= SLIRP_POLL_HUP;
    return events;
}

void nat_prime_dns(struct nat *nat)
{
    /* An IPv4 UDP packet without payload from the guest's address to the DNS server's. */
    uint8_t frame[NET_ETH_HDR_SIZE + 28] = {0};
    uint8_t *ip = frame + NET_ETH_HDR_SIZE;
    memset(frame, 0x52, 6);
    memset(frame + 6, 0x52, 6);
    put_be16(frame + 12, 0x0800);
    ip[0] = 0x45;
    put_be16(ip + 2, 28);
    ip[8] = 64;
    ip[9] = IPPROTO_UDP;
    memcpy(ip + 12, &nat->config.dhcp_start, 4);
    memcpy(ip + 16, &nat->config.dns, 4);
    uint16_t csum = net_csum_fold(net_csum_add(0, ip, 20));
    memcpy(ip + 10, &csum, sizeof(csum));
    put_be16(ip + 20, 1024);
    put_be16(ip + 22, 53);
    put_be16(ip + 24, 8);
    /* The first reading leaves the file's time stamp out; the second, by a later clock, notes it,
     * and only then does libslirp see that the file is still the same. */
    for (int i = 0; i < 2; i++) {
        slirp_input(nat->slirp, frame, sizeof(frame));
        nat->asked = false;
        slirp_pollfds_poll(nat->slirp, 0, get_revents, nat);
    }
}

static void nat_read_guest(struct nat *nat)
{
    for (int i = 0; i < MESSAGES_A_ROUND; i++) {
        ssize_t len = recv(nat->fd, nat->message, NET_FRAME_MAX, MSG_DONTWAIT | MSG_TRUNC);
        if (len < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (len <= 0) {
            nat->ended = true;
            return;
        }
        if (len > NET_FRAME_MAX)
            continue;
        len = slirp_frame_from_guest(nat->message, (size_t)len);
        if (len > 0)
            slirp_input(nat->slirp, nat->message + NET_HDR_SIZE, (int)len);
        else
            log_guest(&nat->complaints, "a frame whose offload header makes no sense");
    }
}

static void nat_run_timers(struct nat *nat)
{
    int64_t now = (int64_t)(clock_now_ns() / NSEC_PER_MSEC);
    struct nat_timer *timer;
    list_for_each (timer, &nat->timers, link) {
        if (timer->expire_ms > now)
            continue;
        timer->expire_ms = INT64_MAX;
        slirp_handle_timer(nat->slirp, timer->id, timer->cb_opaque);
    }
}

static int nat_timeout(struct nat *nat, uint32_t timeout_ms)
{
    int64_t now = (int64_t)(clock_now_ns() / NSEC_PER_MSEC);
    int64_t wait = timeout_ms == UINT32_MAX ? INT64_MAX : timeout_ms;
    struct nat_timer *timer;
    list_for_each (timer, &nat->timers, link) {
        wait = MIN(wait, MAX(timer->expire_ms - now, (int64_t)0));
    }
    return wait > INT32_MAX ? -1 : (int)wait;
}

void nat_run(struct nat *nat)
{
    while (!nat->ended) {
        bool congested = !list_empty(&nat->queue);
        nat->poll_count = 0;
        add_poll(nat->fd, SLIRP_POLL_IN | (congested ? SLIRP_POLL_OUT : 0), nat);
        uint32_t timeout = UINT32_MAX;
        slirp_pollfds_fill(nat->slirp, &timeout, add_poll, nat);
        nat->asked = !congested;
        int ready = poll(nat->polls, congested ? 1 : nat->poll_count, nat_timeout(nat, timeout));
        if (ready < 0 && errno != EINTR) {
            log_error("poll: %s", strerror(errno));
            return;
        }
        slirp_pollfds_poll(nat->slirp, ready < 0, get_revents, nat);
        nat_run_timers(nat);
        nat_flush(nat);
        if (ready > 0 && (nat->polls[0].revents & (POLLIN | POLLHUP | POLLERR)))
            nat_read_guest(nat);
    }
}
