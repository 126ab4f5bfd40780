/*
 * Frames on their way to and from libslirp.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "net/core/iov.h"
#include "net/slirp/frame.h"
#include "net_frames.h"

static uint8_t message[NET_FRAME_MAX];

static size_t build(const struct net_hdr *hdr, const struct frame *frame)
{
    net_hdr_put(hdr, message);
    memcpy(message + NET_HDR_SIZE, frame->bytes, frame->len);
    return NET_HDR_SIZE + frame->len;
}

static void test_from_guest(void **state)
{
    struct frame frame;
    struct net_hdr hdr;
    frame_tcp(&frame, false, 60000, FRAME_ACK);
    frame_request_gso(&frame, &hdr, false, 1448);
    assert_int_equal(slirp_frame_from_guest(message, build(&hdr, &frame)), frame.len);
    assert_true(frame_ip_right(message + NET_HDR_SIZE, frame.len));
    assert_true(frame_tcp_csum_right(message + NET_HDR_SIZE, frame.len));

    frame_tcp(&frame, false, 100, FRAME_ACK);
    frame_request_csum(&frame, &hdr, false);
    assert_int_equal(slirp_frame_from_guest(message, build(&hdr, &frame)), frame.len);
    assert_true(frame_tcp_csum_right(message + NET_HDR_SIZE, frame.len));

    hdr.csum_start = 65000;
    assert_int_equal(slirp_frame_from_guest(message, build(&hdr, &frame)), -EINVAL);
    assert_int_equal(slirp_frame_from_guest(message, 11), -EINVAL);
    assert_int_equal(slirp_frame_from_guest(message, 20), -EINVAL);
}

/* Options at the end of a SYN: what is there in `options` is found or is not. */
static uint16_t syn_mss(const uint8_t options[12], size_t at)
{
    struct frame frame;
    struct net_hdr hdr = {0};
    frame_tcp(&frame, false, 0, FRAME_SYN);
    memcpy(frame.bytes + 34 + 20, options, 12);
    assert_int_equal(slirp_frame_from_guest(message, build(&hdr, &frame)), frame.len);
    return get_be16(message + NET_HDR_SIZE + 34 + 20 + at);
}

static void test_mss(void **state)
{
    uint16_t raised = SLIRP_MTU - 40;
    assert_int_equal(syn_mss((uint8_t[12]){2, 4, 5, 0xb4}, 2), raised);
    assert_true(frame_tcp_csum_right(message + NET_HDR_SIZE, 14 + 20 + 32));
    assert_int_equal(syn_mss((uint8_t[12]){1, 3, 3, 7, 2, 4, 5, 0xb4}, 6), raised);
    assert_int_equal(syn_mss((uint8_t[12]){1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 5, 0xb4}, 10), raised);
    assert_int_equal(syn_mss((uint8_t[12]){0, 1, 2, 4, 5, 0xb4}, 4), 0x5b4);
    assert_int_equal(syn_mss((uint8_t[12]){3, 0, 2, 4, 5, 0xb4}, 4), 0x5b4);
    assert_int_equal(syn_mss((uint8_t[12]){2, 3, 5, 0xb4}, 2), 0x5b4);
    assert_int_equal(syn_mss((uint8_t[12]){1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4}, 10), 0x204);
    assert_int_equal(syn_mss((uint8_t[12]){1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2}, 10), 0x102);
    /* Only a SYN speaks of it. */
    struct frame frame;
    struct net_hdr hdr = {0};
    frame_tcp(&frame, false, 0, FRAME_ACK);
    memcpy(frame.bytes + 54, (uint8_t[4]){2, 4, 5, 0xb4}, 4);
    slirp_frame_from_guest(message, build(&hdr, &frame));
    assert_int_equal(get_be16(message + NET_HDR_SIZE + 56), 0x5b4);
}

struct sent {
    unsigned count;
    uint8_t bytes[64][70000];
    size_t len[64];
};

static struct sent sent;

static void keep(void *opaque, const struct iovec *iov, unsigned count)
{
    assert_true(sent.count < ARRAY_SIZE(sent.len));
    sent.len[sent.count] = net_iov_read(iov, count, 0, sent.bytes[sent.count], 70000);
    sent.count++;
}

static void test_to_guest_tcp(void **state)
{
    struct frame frame;
    struct net_hdr hdr;
    frame_tcp(&frame, false, 1400, FRAME_ACK);
    sent.count = 0;
    slirp_frame_to_guest(frame.bytes, frame.len, 1500, keep, NULL);
    assert_int_equal(sent.count, 1);
    net_hdr_get(&hdr, sent.bytes[0]);
    assert_int_equal(hdr.flags, NET_HDR_F_DATA_VALID);
    assert_int_equal(hdr.gso_type, NET_GSO_NONE);
    assert_memory_equal(sent.bytes[0] + NET_HDR_SIZE, frame.bytes, frame.len);

    /* A large one, cut by the core as a receiver would: right segments of the link's size. */
    frame_tcp(&frame, false, 60000, FRAME_ACK | FRAME_PSH);
    sent.count = 0;
    slirp_frame_to_guest(frame.bytes, frame.len, 1500, keep, NULL);
    assert_int_equal(sent.count, 1);
    net_hdr_get(&hdr, sent.bytes[0]);
    size_t len = sent.len[0] - NET_HDR_SIZE;
    assert_int_equal(net_hdr_check(&hdr, len), 0);
    assert_int_equal(net_hdr_offload(&hdr), NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4);
    struct net_hdr whole = {
        .flags = hdr.flags, .csum_start = hdr.csum_start, .csum_offset = hdr.csum_offset};
    struct net_segments segments;
    assert_int_equal(net_segments_init(&segments, &hdr, sent.bytes[0] + NET_HDR_SIZE, len), 0);
    uint8_t head[NET_SEGMENT_HEAD_MAX];
    struct iovec pieces[2];
    net_segments_get(&segments, 0, head, pieces);
    assert_int_equal(pieces[0].iov_len - NET_HDR_SIZE - 14 + pieces[1].iov_len, 1500);
    assert_int_equal(net_csum_complete(&whole, sent.bytes[0] + NET_HDR_SIZE, len), 0);
    assert_memory_equal(sent.bytes[0] + NET_HDR_SIZE, frame.bytes, frame.len);
}

static void test_to_guest_fragments(void **state)
{
    struct frame frame;
    frame_tcp(&frame, false, 8000, 0);
    uint8_t *ip = frame.bytes + 14;
    ip[9] = 17;
    put_be16(ip + 6, 0);
    put_be16(ip + 10, 0);
    put_be16(ip + 10, (uint16_t)~frame_sum(0, ip, 20));
    sent.count = 0;
    slirp_frame_to_guest(frame.bytes, frame.len, 1500, keep, NULL);
    size_t at = 0;
    for (unsigned i = 0; i < sent.count; i++) {
        const uint8_t *piece = sent.bytes[i] + NET_HDR_SIZE;
        size_t len = sent.len[i] - NET_HDR_SIZE;
        bool last = i + 1 == sent.count;
        assert_true(len <= 1514 && frame_ip_right(piece, len));
        assert_int_equal(get_be16(piece + 14 + 6), at / 8 | (last ? 0 : 0x2000));
        assert_memory_equal(piece + 34, frame.bytes + 34 + at, len - 34);
        at += len - 34;
    }
    assert_int_equal(at, frame.len - 34);

    /* With "don't fragment" it cannot go; another protocol neither. */
    sent.count = 0;
    put_be16(ip + 6, 0x4000);
    slirp_frame_to_guest(frame.bytes, frame.len, 1500, keep, NULL);
    put_be16(frame.bytes + 12, 0x88cc);
    slirp_frame_to_guest(frame.bytes, frame.len, 1500, keep, NULL);
    slirp_frame_to_guest(frame.bytes, 13, 1500, keep, NULL);
    assert_int_equal(sent.count, 0);
    slirp_frame_to_guest(frame.bytes, 60, 1500, keep, NULL);
    assert_int_equal(sent.count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_from_guest),
        cmocka_unit_test(test_mss),
        cmocka_unit_test(test_to_guest_tcp),
        cmocka_unit_test(test_to_guest_fragments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
