/*
 * Ports: links, back pressure, and software offload towards a peer that lacks it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/core/iov.h"
#include "net_frames.h"

/* A port that keeps the frames it gets, and has as much room as the test says. */
struct sink {
    struct net_port port;
    unsigned room, ready;
    unsigned count;
    size_t len[128];
    uint8_t *frame[128];
    uint32_t told;
};

static int sink_send(struct net_port *port, const struct iovec *iov, unsigned count, size_t len)
{
    struct sink *sink = container_of(port, struct sink, port);
    if (!sink->room)
        return -EAGAIN;
    sink->room--;
    assert_true(sink->count < ARRAY_SIZE(sink->frame));
    sink->frame[sink->count] = malloc(len);
    assert_int_equal(net_iov_read(iov, count, 0, sink->frame[sink->count], len), len);
    sink->len[sink->count++] = len;
    return 0;
}

static void sink_offload(struct net_port *port, uint32_t offload)
{
    container_of(port, struct sink, port)->told = offload;
}

static void sink_ready(struct net_port *port)
{
    container_of(port, struct sink, port)->ready++;
}

static const struct net_port_ops sink_ops = {
    .kind = "sink", .send = sink_send, .set_offload = sink_offload, .peer_ready = sink_ready};

static void sink_init(struct sink *sink, uint32_t offload)
{
    *sink = (struct sink){.room = 1000, .port = {.ops = &sink_ops, .offload = offload}};
}

static void sink_fini(struct sink *sink)
{
    for (unsigned i = 0; i < sink->count; i++)
        free(sink->frame[i]);
    net_port_close(&sink->port);
}

static int deliver(struct net_port *port, const struct net_hdr *hdr, struct frame *frame)
{
    uint8_t head[NET_HDR_SIZE];
    net_hdr_put(hdr, head);
    struct iovec iov[3] = {
        {head, sizeof(head)}, {frame->bytes, 7}, {frame->bytes + 7, frame->len - 7}};
    return net_port_deliver(port, iov, 3, sizeof(head) + frame->len);
}

#define ALL (NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN)

static void test_link(void **state)
{
    struct sink a, b;
    sink_init(&a, ALL);
    sink_init(&b, NET_OFFLOAD_CSUM);
    struct frame frame;
    struct net_hdr hdr = {0};
    frame_tcp(&frame, false, 10, FRAME_ACK);
    assert_int_equal(deliver(&a.port, &hdr, &frame), 0);
    assert_int_equal(a.port.dropped, 1);

    net_port_link(&a.port, &b.port);
    assert_int_equal(a.told, NET_OFFLOAD_CSUM);
    assert_int_equal(b.told, ALL);
    assert_int_equal(deliver(&a.port, &hdr, &frame), 0);
    assert_int_equal(b.count, 1);
    assert_int_equal(b.len[0], NET_HDR_SIZE + frame.len);
    assert_memory_equal(b.frame[0] + NET_HDR_SIZE, frame.bytes, frame.len);
    assert_int_equal(a.port.tx_frames, 1);
    assert_int_equal(b.port.rx_bytes, frame.len);

    b.room = 0;
    assert_int_equal(deliver(&a.port, &hdr, &frame), -EAGAIN);
    assert_int_equal(a.port.tx_frames, 1);
    net_port_ready(&b.port);
    assert_int_equal(a.ready, 1);

    net_port_unlink(&b.port);
    assert_null(a.port.peer);
    net_port_ready(&a.port);
    assert_int_equal(deliver(&b.port, &hdr, &frame), 0);
    assert_int_equal(b.port.dropped, 1);
    sink_fini(&a);
    sink_fini(&b);
}

static void test_passes_untouched(void **state)
{
    struct sink a, b;
    sink_init(&a, 0);
    sink_init(&b, ALL);
    net_port_link(&a.port, &b.port);
    struct frame frame;
    struct net_hdr hdr;
    frame_tcp(&frame, false, 60000, FRAME_ACK);
    frame_request_gso(&frame, &hdr, false, 1448);
    assert_int_equal(deliver(&a.port, &hdr, &frame), 0);
    assert_int_equal(b.count, 1);
    assert_memory_equal(b.frame[0] + NET_HDR_SIZE, frame.bytes, frame.len);
    struct net_hdr got;
    net_hdr_get(&got, b.frame[0]);
    assert_memory_equal(&got, &hdr, sizeof(hdr));
    sink_fini(&a);
    sink_fini(&b);
}

static void test_csum_for_peer(void **state)
{
    struct sink a, b;
    sink_init(&a, 0);
    sink_init(&b, 0);
    net_port_link(&a.port, &b.port);
    struct frame frame;
    struct net_hdr hdr;
    frame_tcp(&frame, true, 500, FRAME_ACK);
    frame_request_csum(&frame, &hdr, true);
    assert_int_equal(deliver(&a.port, &hdr, &frame), 0);
    assert_true(frame_tcp_csum_right(b.frame[0] + NET_HDR_SIZE, b.len[0] - NET_HDR_SIZE));
    assert_int_equal(b.frame[0][0], 0);

    hdr = (struct net_hdr){.flags = NET_HDR_F_DATA_VALID};
    assert_int_equal(deliver(&a.port, &hdr, &frame), 0);
    assert_int_equal(b.frame[1][0], 0);
    sink_fini(&a);
    sink_fini(&b);
}

/* A peer without TSO that is full every third segment: each arrives once, in order. */
static void test_segments_for_peer(void **state)
{
    struct sink a, b;
    sink_init(&a, 0);
    sink_init(&b, NET_OFFLOAD_CSUM);
    net_port_link(&a.port, &b.port);
    struct frame frame;
    struct net_hdr hdr;
    frame_tcp(&frame, false, 60000, FRAME_ACK);
    frame_request_gso(&frame, &hdr, false, 1448);
    int result;
    unsigned tries = 0;
    do {
        b.room = 3;
        result = deliver(&a.port, &hdr, &frame);
        assert_true(++tries < 100);
    } while (result == -EAGAIN);
    assert_int_equal(b.count, (60000 + 1447) / 1448);
    for (unsigned i = 0; i < b.count; i++) {
        const uint8_t *segment = b.frame[i] + NET_HDR_SIZE;
        assert_true(frame_tcp_csum_right(segment, b.len[i] - NET_HDR_SIZE));
        assert_int_equal(get_be32(segment + 34 + 4), FRAME_SEQUENCE + i * 1448);
    }

    /* Given up half way, the next frame starts anew. */
    b.room = 3;
    assert_int_equal(deliver(&a.port, &hdr, &frame), -EAGAIN);
    net_port_abandon(&a.port);
    b.room = 1;
    assert_int_equal(deliver(&a.port, &hdr, &frame), -EAGAIN);
    assert_int_equal(get_be32(b.frame[b.count - 1] + NET_HDR_SIZE + 34 + 4), FRAME_SEQUENCE);
    sink_fini(&a);
    sink_fini(&b);
}

static void test_bad_frames(void **state)
{
    struct sink a, b;
    sink_init(&a, 0);
    sink_init(&b, 0);
    net_port_link(&a.port, &b.port);
    struct frame frame;
    struct net_hdr hdr;
    frame_tcp(&frame, false, 5000, FRAME_ACK);
    frame_request_gso(&frame, &hdr, false, 1448);
    frame.bytes[23] = 17;
    assert_int_equal(deliver(&a.port, &hdr, &frame), 0);
    hdr = (struct net_hdr){.flags = 1, .csum_start = 65535, .csum_offset = 9};
    assert_int_equal(deliver(&a.port, &hdr, &frame), 0);
    uint8_t shorter[25] = {0};
    struct iovec iov = {shorter, sizeof(shorter)};
    assert_int_equal(net_port_deliver(&a.port, &iov, 1, sizeof(shorter)), 0);
    assert_int_equal(b.count, 0);
    assert_int_equal(a.port.dropped, 3);
    sink_fini(&a);
    sink_fini(&b);
}

/* The user back end over its socket: frames both ways, back pressure both ways, the other end's
 * end. */
static void test_user(void **state)
{
    struct loop *loop;
    int fds[2];
    struct net_port *user;
    assert_null(loop_new("test", &loop));
    assert_null(net_user_socketpair(fds));
    assert_null(net_user_new(loop, fds[0], &user));
    struct sink sink;
    sink_init(&sink, ALL);
    net_port_link(&sink.port, user);

    struct frame frame;
    struct net_hdr hdr;
    static uint8_t message[NET_FRAME_MAX];
    frame_tcp(&frame, false, 65000, FRAME_ACK);
    frame_request_gso(&frame, &hdr, false, 1448);
    assert_int_equal(deliver(&sink.port, &hdr, &frame), 0);
    assert_int_equal(recv(fds[1], message, sizeof(message), MSG_DONTWAIT),
                     NET_HDR_SIZE + frame.len);
    assert_memory_equal(message + NET_HDR_SIZE, frame.bytes, frame.len);

    /* Until the socket is full; then ready comes when somebody reads. */
    unsigned sent = 0;
    while (deliver(&sink.port, &hdr, &frame) == 0)
        assert_true(++sent < 1000);
    assert_true(sent > 0);
    loop_once(loop, 0);
    assert_int_equal(sink.ready, 0);
    for (unsigned i = 0; i < sent; i++)
        assert_int_equal(recv(fds[1], message, sizeof(message), MSG_DONTWAIT),
                         NET_HDR_SIZE + frame.len);
    loop_once(loop, 0);
    assert_int_equal(sink.ready, 1);

    /* Towards the device, which is full at first: nothing is lost, nothing read meanwhile. */
    net_hdr_put(&hdr, message);
    memcpy(message + NET_HDR_SIZE, frame.bytes, frame.len);
    sink.room = 1;
    for (int i = 0; i < 3; i++)
        assert_true(send(fds[1], message, NET_HDR_SIZE + frame.len, MSG_DONTWAIT) > 0);
    for (int i = 0; i < 5; i++)
        loop_once(loop, 0);
    assert_int_equal(sink.count, 1);
    sink.room = 10;
    net_port_ready(&sink.port);
    assert_int_equal(sink.count, 2);
    loop_once(loop, 0);
    assert_int_equal(sink.count, 3);
    assert_memory_equal(sink.frame[2] + NET_HDR_SIZE, frame.bytes, frame.len);

    /* A header that lies is dropped here. */
    message[0] = 1;
    put_le16(message + 6, 65535);
    assert_true(send(fds[1], message, 100, MSG_DONTWAIT) > 0);
    assert_true(send(fds[1], message, 5, MSG_DONTWAIT) > 0);
    loop_once(loop, 0);
    assert_int_equal(sink.count, 3);
    assert_int_equal(user->dropped, 2);

    /* Its end while the device is full: what was sent still arrives, then sending is dropping. */
    message[0] = 0;
    message[1] = 0;
    sink.room = 0;
    for (int i = 0; i < 3; i++)
        assert_true(send(fds[1], message, 100, MSG_DONTWAIT) > 0);
    close(fds[1]);
    for (int i = 0; i < 5; i++)
        loop_once(loop, 0);
    sink.room = 10;
    net_port_ready(&sink.port);
    for (int i = 0; i < 5; i++)
        loop_once(loop, 0);
    assert_int_equal(sink.count, 6);
    assert_int_equal(deliver(&sink.port, &hdr, &frame), 0);
    assert_int_equal(user->dropped, 3);

    net_port_close(user);
    sink_fini(&sink);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_link),          cmocka_unit_test(test_passes_untouched),
        cmocka_unit_test(test_csum_for_peer), cmocka_unit_test(test_segments_for_peer),
        cmocka_unit_test(test_bad_frames),    cmocka_unit_test(test_user),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
