/*
 * Tap interfaces of the real kernel, in a network namespace of the test's own: two taps of one
 * bridge would need more than this, so the kernel itself is the peer, by ARP and by UDP.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/core/iov.h"
#include "net_frames.h"

/* Skips when this user may not have a namespace of its own. */
static bool have_namespace;

static void need_namespace(void)
{
    if (!have_namespace) {
        print_message("skipped: a tap needs root or a user namespace, and /dev/net/tun\n");
        skip();
    }
}

static void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        return;
    if (write(fd, text, strlen(text)) < 0)
        print_message("%s: %s\n", path, strerror(errno));
    close(fd);
}

static int setup(void **state)
{
    char map[40];
    uid_t uid = geteuid();
    if (uid == 0) {
        have_namespace = unshare(CLONE_NEWNET) == 0;
    } else if (unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0) {
        snprintf(map, sizeof(map), "0 %u 1", uid);
        write_text("/proc/self/uid_map", map);
        have_namespace = true;
    }
    if (have_namespace && access("/dev/net/tun", R_OK | W_OK) != 0)
        have_namespace = false;
    return 0;
}

static void bring_up(const char *ifname)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq request = {0};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(0x0a090001)}};
    snprintf(request.ifr_name, IFNAMSIZ, "%s", ifname);
    memcpy(&request.ifr_addr, &address, sizeof(address));
    assert_int_equal(ioctl(fd, SIOCSIFADDR, &request), 0);
    address.sin_addr.s_addr = htonl(0xffffff00);
    memcpy(&request.ifr_netmask, &address, sizeof(address));
    assert_int_equal(ioctl(fd, SIOCSIFNETMASK, &request), 0);
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &request), 0);
    close(fd);
}

struct guest {
    struct net_port port;
    bool full;
    unsigned frames;
    uint8_t last[NET_FRAME_MAX];
    size_t last_len;
    uint16_t wanted; /* EtherType */
};

static int guest_send(struct net_port *port, const struct iovec *iov, unsigned count, size_t len)
{
    struct guest *guest = container_of(port, struct guest, port);
    if (guest->full)
        return -EAGAIN;
    uint8_t type[2] = {0};
    net_iov_read(iov, count, NET_HDR_SIZE + 12, type, 2);
    if (get_be16(type) != guest->wanted)
        return 0;
    guest->frames++;
    guest->last_len = net_iov_read(iov, count, 0, guest->last, sizeof(guest->last));
    return 0;
}

static void guest_ready(struct net_port *port)
{
}

static const struct net_port_ops guest_ops = {
    .kind = "guest", .send = guest_send, .peer_ready = guest_ready};

static void deliver(struct guest *guest, const void *frame, size_t len)
{
    uint8_t head[NET_HDR_SIZE] = {0};
    struct iovec iov[2] = {{head, sizeof(head)}, {(void *)(uintptr_t)frame, len}};
    assert_int_equal(net_port_deliver(&guest->port, iov, 2, sizeof(head) + len), 0);
}

static void wait_frames(struct loop *loop, struct guest *guest, unsigned frames)
{
    for (int i = 0; i < 200 && guest->frames < frames; i++)
        loop_once(loop, 10);
    assert_int_equal(guest->frames, frames);
}

static const uint8_t guest_mac[6] = {0x52, 0x54, 0, 1, 2, 3};

/* ARP for 10.9.0.1, the kernel's address on the tap; its MAC comes back. */
static void ask_arp(struct loop *loop, struct guest *guest, uint8_t mac[6])
{
    uint8_t frame[42] = {0};
    memset(frame, 0xff, 6);
    memcpy(frame + 6, guest_mac, 6);
    put_be16(frame + 12, 0x806);
    memcpy(frame + 14, (uint8_t[]){0, 1, 8, 0, 6, 4, 0, 1}, 8);
    memcpy(frame + 22, guest_mac, 6);
    put_be32(frame + 28, 0x0a090002);
    put_be32(frame + 38, 0x0a090001);
    guest->wanted = 0x806;
    guest->frames = 0;
    deliver(guest, frame, sizeof(frame));
    wait_frames(loop, guest, 1);
    assert_int_equal(get_be16(guest->last + NET_HDR_SIZE + 20), 2);
    memcpy(mac, guest->last + NET_HDR_SIZE + 22, 6);
}

static void test_frames(void **state)
{
    need_namespace();
    int fd;
    struct loop *loop;
    struct net_port *tap;
    struct guest *guest = calloc(1, sizeof(*guest));
    guest->port.ops = &guest_ops;
    assert_null(loop_new("test", &loop));
    struct err *err = net_tap_open("tenon0", 1, &fd);
    if (err)
        fail_msg("%s", err_text(err));
    bring_up("tenon0");
    assert_null(net_tap_new(loop, fd, &tap));
    net_port_link(&guest->port, tap);
    net_port_set_offload(&guest->port, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6);
    net_port_set_offload(&guest->port, 0);
    /* TSO without checksums is no wish that can be granted. */
    net_port_set_offload(&guest->port, NET_OFFLOAD_TSO4);
    net_port_set_offload(&guest->port, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4);

    uint8_t mac[6];
    ask_arp(loop, guest, mac);

    /* A UDP datagram with its checksum left to do reaches a socket: the kernel understood the
     * header. */
    int receiver = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in here = {
        .sin_family = AF_INET, .sin_port = htons(5000), .sin_addr = {htonl(0x0a090001)}};
    assert_int_equal(bind(receiver, (struct sockaddr *)&here, sizeof(here)), 0);
    uint8_t frame[14 + 28 + 5] = {0}, *ip = frame + 14, *udp = ip + 20;
    memcpy(frame, mac, 6);
    memcpy(frame + 6, guest_mac, 6);
    put_be16(frame + 12, 0x800);
    ip[0] = 0x45;
    put_be16(ip + 2, 33);
    ip[8] = 64;
    ip[9] = 17;
    put_be32(ip + 12, 0x0a090002);
    put_be32(ip + 16, 0x0a090001);
    put_be16(ip + 10, (uint16_t)~frame_sum(0, ip, 20));
    put_be16(udp, 6000);
    put_be16(udp + 2, 5000);
    put_be16(udp + 4, 13);
    memcpy(udp + 8, "hello", 5);
    put_be16(udp + 6, (uint16_t)frame_sum(17 + 13, ip + 12, 8));
    struct net_hdr hdr = {.flags = NET_HDR_F_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6};
    uint8_t head[NET_HDR_SIZE], text[10];
    net_hdr_put(&hdr, head);
    struct iovec iov[2] = {{head, sizeof(head)}, {frame, sizeof(frame)}};
    assert_int_equal(net_port_deliver(&guest->port, iov, 2, sizeof(head) + sizeof(frame)), 0);
    struct timeval patience = {.tv_sec = 3};
    setsockopt(receiver, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    struct sockaddr_in from;
    socklen_t from_len = sizeof(from);
    assert_int_equal(recvfrom(receiver, text, sizeof(text), 0, (struct sockaddr *)&from, &from_len),
                     5);
    assert_memory_equal(text, "hello", 5);

    /* And back, while the guest is full at first. */
    guest->wanted = 0x800;
    guest->frames = 0;
    guest->full = true;
    assert_int_equal(sendto(receiver, "reply", 5, 0, (struct sockaddr *)&from, from_len), 5);
    for (int i = 0; i < 10; i++)
        loop_once(loop, 1);
    assert_int_equal(guest->frames, 0);
    guest->full = false;
    net_port_ready(&guest->port);
    /* The kernel asks for the guest's address first when it has forgotten it. */
    wait_frames(loop, guest, 1);
    assert_memory_equal(guest->last + NET_HDR_SIZE + 14 + 28, "reply", 5);

    net_port_close(tap);
    close(receiver);
    free(guest);
    loop_free(loop);
}

static void test_queues(void **state)
{
    need_namespace();
    int fds[4], one;
    struct err *err = net_tap_open("tenon1", 4, fds);
    if (err)
        fail_msg("%s", err_text(err));
    for (int i = 0; i < 4; i++)
        assert_true(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
    /* One queue of an interface with several is fine too. */
    err = net_tap_open("tenon1", 1, &one);
    assert_null(err);
    close(one);
    for (int i = 0; i < 4; i++)
        close(fds[i]);
}

static void expect_error(const char *ifname, unsigned queues, enum err_kind kind, const char *part)
{
    int fds[4];
    struct err *err = net_tap_open(ifname, queues, fds);
    assert_non_null(err);
    assert_int_equal(err_kind(err), kind);
    if (!strstr(err_text(err), part) || !strstr(err_text(err), ifname))
        fail_msg("'%s' lacks '%s'", err_text(err), part);
    err_free(err);
}

static void test_open_errors(void **state)
{
    expect_error("", 1, ERR_USAGE, "1 to 15");
    expect_error("a-name-that-is-long", 1, ERR_USAGE, "1 to 15");
    expect_error("tap%d", 1, ERR_USAGE, "1 to 15");
    need_namespace();
    expect_error("lo", 1, ERR_FAILED, "not a tap");
    int fd, fds[4];
    assert_null(net_tap_open("tenon2", 1, &fd));
    expect_error("tenon2", 1, ERR_BUSY, "in use");
    expect_error("tenon2", 2, ERR_FAILED, "multi_queue");
    close(fd);
    assert_null(net_tap_open("tenon2", 2, fds));
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_queues),
        cmocka_unit_test(test_open_errors),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
