/*
 * virtio_net_hdr: checks, checksum completion, segmentation and the frames for libslirp.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "net/core/hdr.h"
#include "net_frames.h"

static void test_get_put(void **state)
{
    uint8_t bytes[NET_HDR_SIZE], again[NET_HDR_SIZE];
    struct net_hdr hdr;
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 19 + 3);
    net_hdr_get(&hdr, bytes);
    assert_int_equal(hdr.flags, 3);
    assert_int_equal(hdr.gso_size, get_le16(bytes + 4));
    net_hdr_put(&hdr, again);
    assert_memory_equal(bytes, again, sizeof(bytes));
}

static void test_check(void **state)
{
    static const struct {
        struct net_hdr hdr;
        size_t len;
        int result;
    } cases[] = {
        {{0}, 60, 0},
        {{0}, 13, -EINVAL},
        {{0}, NET_FRAME_MAX, -EINVAL},
        {{.flags = 1, .csum_start = 34, .csum_offset = 16}, 54, 0},
        {{.flags = 1, .csum_start = 34, .csum_offset = 16}, 52, 0},
        {{.flags = 1, .csum_start = 34, .csum_offset = 16}, 51, -EINVAL},
        {{.flags = 1, .csum_start = 13, .csum_offset = 16}, 60, -EINVAL},
        {{.flags = 1, .csum_start = 65535, .csum_offset = 65535}, 60, -EINVAL},
        {{.flags = 1, .csum_start = 65535, .csum_offset = 3}, 60, -EINVAL},
        {{.flags = 1, .gso_type = 1, .gso_size = 1460, .csum_start = 34, .csum_offset = 16},
         5000,
         0},
        {{.flags = 1, .gso_type = 1, .gso_size = 0, .csum_start = 34, .csum_offset = 16},
         5000,
         -EINVAL},
        {{.flags = 0, .gso_type = 1, .gso_size = 1460}, 5000, -EINVAL},
        {{.flags = 1, .gso_type = 3, .gso_size = 1460, .csum_start = 34, .csum_offset = 6},
         5000,
         -EINVAL},
        {{.flags = 1, .gso_type = 5, .gso_size = 1460, .csum_start = 34, .csum_offset = 6},
         5000,
         -EINVAL},
        {{.flags = 1, .gso_type = 0x80, .gso_size = 1460, .csum_start = 34, .csum_offset = 16},
         5000,
         -EINVAL},
        {{.flags = 1, .gso_type = 0x84, .gso_size = 1440, .csum_start = 54, .csum_offset = 16},
         5000,
         0},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct net_hdr hdr = cases[i].hdr;
        if (net_hdr_check(&hdr, cases[i].len) != cases[i].result)
            fail_msg("case %u", i);
    }
    struct net_hdr lies = {.flags = 0xfe,
                           .hdr_len = 9,
                           .gso_size = 7,
                           .csum_start = 5,
                           .csum_offset = 6,
                           .num_buffers = 8};
    assert_int_equal(net_hdr_check(&lies, 60), 0);
    struct net_hdr clean = {.flags = NET_HDR_F_DATA_VALID};
    assert_memory_equal(&lies, &clean, sizeof(clean));
    struct net_hdr hint = {.flags = 1,
                           .gso_type = 1,
                           .gso_size = 1000,
                           .hdr_len = 6000,
                           .csum_start = 34,
                           .csum_offset = 16};
    assert_int_equal(net_hdr_check(&hint, 5000), 0);
    assert_int_equal(hint.hdr_len, 0);
}

static void test_offload(void **state)
{
    struct net_hdr hdr = {.flags = NET_HDR_F_NEEDS_CSUM, .gso_type = NET_GSO_TCPV6 | NET_GSO_ECN};
    assert_int_equal(net_hdr_offload(&hdr), NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN);
    hdr = (struct net_hdr){.flags = NET_HDR_F_DATA_VALID};
    assert_int_equal(net_hdr_offload(&hdr), 0);
}

/* Sixteen bits at a time, the way RFC 1071 tells it. */
static uint16_t plain_csum(const uint8_t *bytes, size_t len)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < len; i++)
        sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static void test_csum(void **state)
{
    uint8_t bytes[2000];
    srandom(1);
    for (unsigned round = 0; round < 500; round++) {
        size_t len = (size_t)random() % sizeof(bytes);
        for (size_t i = 0; i < len; i++)
            bytes[i] = round % 7 ? (uint8_t)random() : 0xff;
        uint16_t csum = net_csum_fold(net_csum_add(0, bytes, len));
        assert_int_equal(be16toh(csum), plain_csum(bytes, len));
    }
}

static void test_csum_complete(void **state)
{
    for (int v6 = 0; v6 < 2; v6++) {
        struct frame frame;
        struct net_hdr hdr;
        frame_tcp(&frame, v6, 999, FRAME_ACK);
        frame_request_csum(&frame, &hdr, v6);
        assert_false(frame_tcp_csum_right(frame.bytes, frame.len));
        assert_int_equal(net_csum_complete(&hdr, frame.bytes, frame.len), 0);
        assert_true(frame_tcp_csum_right(frame.bytes, frame.len));
        assert_int_equal(hdr.flags, 0);
    }
    uint8_t small[40] = {0};
    struct net_hdr outside = {.flags = 1, .csum_start = 30, .csum_offset = 9};
    assert_int_equal(net_csum_complete(&outside, small, sizeof(small)), -EINVAL);
    outside = (struct net_hdr){.flags = 1, .csum_start = 65535, .csum_offset = 65535};
    assert_int_equal(net_csum_complete(&outside, small, sizeof(small)), -EINVAL);
    struct net_hdr zero = {.flags = 1, .csum_start = 14, .csum_offset = 6};
    memset(small, 0xff, sizeof(small));
    memset(small + 20, 0, 2);
    assert_int_equal(net_csum_complete(&zero, small, sizeof(small)), 0);
    assert_int_equal(get_be16(small + 20), 0xffff);
}

/* All segments, put together again, are the frame; each is right by itself. */
static void segment_and_check(bool v6, size_t payload, uint16_t mss, bool vlan)
{
    struct frame frame;
    struct net_hdr hdr;
    frame_tcp(&frame, v6, payload, FRAME_ACK | FRAME_PSH | FRAME_FIN | FRAME_CWR);
    if (vlan)
        frame_add_vlan(&frame);
    frame_request_gso(&frame, &hdr, v6, mss);
    struct net_segments segments;
    assert_int_equal(net_segments_init(&segments, &hdr, frame.bytes, frame.len), 0);
    assert_int_equal(segments.count, payload ? (payload + mss - 1) / mss : 1);

    size_t at = 0;
    for (unsigned i = 0; i < segments.count; i++) {
        uint8_t head[NET_SEGMENT_HEAD_MAX], whole[70000];
        struct iovec pieces[2];
        net_segments_get(&segments, i, head, pieces);
        size_t len = pieces[0].iov_len - NET_HDR_SIZE + pieces[1].iov_len;
        memcpy(whole, head + NET_HDR_SIZE, pieces[0].iov_len - NET_HDR_SIZE);
        memcpy(whole + pieces[0].iov_len - NET_HDR_SIZE, pieces[1].iov_base, pieces[1].iov_len);
        static const uint8_t zero[NET_HDR_SIZE];
        assert_memory_equal(head, zero, NET_HDR_SIZE);
        assert_true(frame_ip_right(whole, len));
        assert_true(frame_tcp_csum_right(whole, len));

        struct net_tcp_view view;
        assert_int_equal(net_tcp_parse(&view, whole, len), 0);
        size_t part = len - view.headers;
        assert_true(part <= mss && (part == mss || i + 1 == segments.count));
        assert_int_equal(get_be32(whole + view.l4 + 4), FRAME_SEQUENCE + (uint32_t)at);
        assert_memory_equal(whole + view.headers, frame.bytes + view.headers + at, part);
        bool last = i + 1 == segments.count;
        uint8_t flags = whole[view.l4 + 13];
        assert_int_equal(!!(flags & FRAME_FIN), last);
        assert_int_equal(!!(flags & FRAME_PSH), last);
        assert_int_equal(!!(flags & FRAME_CWR), i == 0);
        if (!v6)
            assert_int_equal(get_be16(whole + view.l3 + 4), (FRAME_IDENT + i) & 0xffff);
        at += part;
    }
    assert_int_equal(at, payload);
}

static void test_segments(void **state)
{
    static const size_t payloads[] = {0, 1, 999, 1000, 1001, 14600, 61000, 65000};
    for (unsigned i = 0; i < ARRAY_SIZE(payloads); i++)
        for (int v6 = 0; v6 < 2; v6++) {
            segment_and_check(v6, payloads[i], 1000, false);
            segment_and_check(v6, payloads[i], 1447, true);
        }
}

static void test_segments_refused(void **state)
{
    struct frame frame;
    struct net_hdr hdr;
    struct net_segments segments;
    frame_tcp(&frame, false, 5000, FRAME_ACK);
    frame_request_gso(&frame, &hdr, false, 1000);
#define REFUSED(change)                                                                            \
    do {                                                                                           \
        struct frame copy = frame;                                                                 \
        struct net_hdr h = hdr;                                                                    \
        uint8_t *f = copy.bytes;                                                                   \
        (void)f;                                                                                   \
        change;                                                                                    \
        assert_int_equal(net_segments_init(&segments, &h, copy.bytes, copy.len), -EINVAL);         \
    } while (0)
    REFUSED(h.gso_size = 0);
    REFUSED(h.gso_size = 4); /* 1250 segments */
    REFUSED(h.gso_type = NET_GSO_TCPV6);
    REFUSED(h.gso_type = NET_GSO_UDP);
    REFUSED(f[14] = 0x44);            /* IP header of 16 bytes */
    REFUSED(f[14] = 0x65);            /* version */
    REFUSED(f[14 + 9] = 17);          /* UDP */
    REFUSED(f[14 + 6] = 0x20);        /* more fragments */
    REFUSED(f[14 + 7] = 1);           /* fragment offset */
    REFUSED(f[34 + 12] = 0x40);       /* TCP header of 16 bytes */
    REFUSED(put_be16(f + 12, 0x806)); /* ARP */
    REFUSED(copy.len = 33);
    REFUSED(copy.len = 53);
    REFUSED(copy.len = 13);
#undef REFUSED
}

static void test_gso_complete(void **state)
{
    for (int v6 = 0; v6 < 2; v6++) {
        struct frame frame;
        struct net_hdr hdr;
        frame_tcp(&frame, v6, 60000, FRAME_ACK);
        frame_request_gso(&frame, &hdr, v6, 1448);
        /* Some drivers leave the length out. */
        put_be16(frame.bytes + 14 + (v6 ? 4 : 2), 0);
        assert_int_equal(net_gso_complete(&hdr, frame.bytes, frame.len), 0);
        assert_true(frame_ip_right(frame.bytes, frame.len));
        assert_true(frame_tcp_csum_right(frame.bytes, frame.len));
        assert_int_equal(net_hdr_offload(&hdr), 0);
    }
}

/* Noise in headers and frames: no crash, no access outside (sanitizers watch). */
static void test_noise(void **state)
{
    srandom(7);
    for (unsigned round = 0; round < 20000; round++) {
        struct frame frame;
        struct net_hdr hdr;
        bool v6 = round % 2;
        frame_tcp(&frame, v6, (size_t)random() % 3000, FRAME_ACK);
        frame_request_gso(&frame, &hdr, v6, (uint16_t)(random() % 1500));
        for (unsigned i = 0; i < 1 + round % 3; i++)
            frame.bytes[random() % 90 % frame.len] = (uint8_t)random();
        frame.len = round % 5 ? frame.len : (size_t)random() % frame.len;
        uint8_t *exact = malloc(frame.len ?: 1);
        memcpy(exact, frame.bytes, frame.len);
        struct net_segments segments;
        if (net_segments_init(&segments, &hdr, exact, frame.len) == 0)
            for (unsigned i = 0; i < segments.count; i++) {
                uint8_t head[NET_SEGMENT_HEAD_MAX];
                struct iovec pieces[2];
                net_segments_get(&segments, i, head, pieces);
                assert_true(pieces[0].iov_len <= sizeof(head));
            }
        if (net_hdr_check(&hdr, frame.len) == 0)
            net_csum_complete(&hdr, exact, frame.len);
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get_put),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_offload),
        cmocka_unit_test(test_csum),
        cmocka_unit_test(test_csum_complete),
        cmocka_unit_test(test_segments),
        cmocka_unit_test(test_segments_refused),
        cmocka_unit_test(test_gso_complete),
        cmocka_unit_test(test_noise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
