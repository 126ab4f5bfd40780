/*
 * Frames between a guest that uses offloads and libslirp.
 *
 * RFC 9293 section 3.7.1 (MSS option), RFC 791 section 3.2 (fragmentation), virtio 1.2 section
 * 5.1.6. Pure functions.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "net/slirp/frame.h"

#include <errno.h>

#include "base/bytes.h"
#include "base/checked.h"

#define IPV4_HEADER 20
#define TCP_HEADER 20
#define TCP_SYN 0x02
#define OPTION_END 0
#define OPTION_NOP 1
#define OPTION_MSS 2
#define OPTION_MSS_SIZE 4
#define IP_MORE_FRAGMENTS 0x2000
#define IP_DONT_FRAGMENT 0x4000

/* Where the value of the MSS option stands, 0 when there is none. */
static size_t find_mss(const struct net_tcp_view *tcp, const uint8_t *frame)
{
    size_t at = tcp->l4 + TCP_HEADER;
    while (at < tcp->headers) {
        if (frame[at] == OPTION_END)
            return 0;
        if (frame[at] == OPTION_NOP) {
            at++;
            continue;
        }
        if (at + 2 > tcp->headers || frame[at + 1] < 2 || at + frame[at + 1] > tcp->headers)
            return 0;
        if (frame[at] == OPTION_MSS)
            return frame[at + 1] == OPTION_MSS_SIZE ? at + 2 : 0;
        at += frame[at + 1];
    }
    return 0;
}

/* Only called for frames whose checksums are right: they are made anew. */
static void raise_mss(uint8_t *frame, size_t len)
{
    struct net_tcp_view tcp;
    if (net_tcp_parse(&tcp, frame, len) < 0 || tcp.v6 || !(frame[tcp.l4 + 13] & TCP_SYN))
        return;
    /* Padding behind the packet would end up in the checksum; a SYN of that size has none. */
    if (tcp.l3 + get_be16(frame + tcp.l3 + 2) != len)
        return;
    size_t at = find_mss(&tcp, frame);
    if (!at)
        return;
    put_be16(frame + at, SLIRP_MTU - IPV4_HEADER - TCP_HEADER);
    struct net_hdr hdr = {.gso_type = NET_GSO_TCPV4, .gso_size = 1};
    net_gso_complete(&hdr, frame, len);
}

ssize_t slirp_frame_from_guest(uint8_t *message, size_t len)
{
    struct net_hdr hdr;
    if (len < NET_HDR_SIZE)
        return -EINVAL;
    uint8_t *frame = message + NET_HDR_SIZE;
    len -= NET_HDR_SIZE;
    net_hdr_get(&hdr, message);
    int result = net_hdr_check(&hdr, len);
    if (result == 0 && hdr.gso_type != NET_GSO_NONE)
        result = net_gso_complete(&hdr, frame, len);
    else if (result == 0)
        result = net_csum_complete(&hdr, frame, len);
    if (result < 0)
        return result;
    raise_mss(frame, len);
    return (ssize_t)len;
}

/* The checksum field gets the sum of the pseudo header; the receiver does the rest. */
static void put_pseudo_csum(const struct net_tcp_view *tcp, const uint8_t *frame, size_t len,
                            uint8_t *headers)
{
    uint8_t tail[4] = {0, 6};
    put_be16(tail + 2, (uint16_t)(len - tcp->l4));
    uint16_t sum = (uint16_t)~net_csum_fold(
        net_csum_add(net_csum_add(0, frame + tcp->l3 + 12, 8), tail, sizeof(tail)));
    memcpy(headers + tcp->l4 + 16, &sum, sizeof(sum));
}

static void send_tcp(const struct net_tcp_view *tcp, const uint8_t *frame, size_t len, size_t mtu,
                     slirp_frame_send_fn *send, void *opaque)
{
    uint8_t head[NET_SEGMENT_HEAD_MAX];
    struct net_hdr hdr = {.flags = NET_HDR_F_DATA_VALID};
    memcpy(head + NET_HDR_SIZE, frame, tcp->headers);
    if (len - NET_ETH_HDR_SIZE > mtu) {
        hdr = (struct net_hdr){
            .flags = NET_HDR_F_NEEDS_CSUM,
            .gso_type = NET_GSO_TCPV4,
            .hdr_len = (uint16_t)tcp->headers,
            .gso_size = (uint16_t)(mtu - (tcp->headers - tcp->l3)),
            .csum_start = (uint16_t)tcp->l4,
            .csum_offset = 16,
        };
        put_pseudo_csum(tcp, frame, len, head + NET_HDR_SIZE);
    }
    net_hdr_put(&hdr, head);
    struct iovec iov[2] = {
        {head, NET_HDR_SIZE + tcp->headers},
        {(uint8_t *)(uintptr_t)frame + tcp->headers, len - tcp->headers},
    };
    send(opaque, iov, 2);
}

/* An IPv4 datagram larger than the link, as a router in front of the guest would forward it. */
static void send_fragments(const uint8_t *frame, size_t len, size_t mtu, slirp_frame_send_fn *send,
                           void *opaque)
{
    const uint8_t *ip = frame + NET_ETH_HDR_SIZE;
    size_t header = (size_t)(ip[0] & 15) * 4, total = get_be16(ip + 2);
    if (header < IPV4_HEADER || total < header || total > len - NET_ETH_HDR_SIZE ||
        (get_be16(ip + 6) & IP_DONT_FRAGMENT))
        return;
    uint16_t flags = get_be16(ip + 6);
    size_t step = (mtu - header) & ~(size_t)7;
    for (size_t at = 0; at < total - header; at += step) {
        size_t part = MIN(step, total - header - at);
        bool more = at + part < total - header;
        uint8_t head[NET_HDR_SIZE + NET_ETH_HDR_SIZE + 60] = {0};
        uint8_t *out = head + NET_HDR_SIZE + NET_ETH_HDR_SIZE;
        memcpy(head + NET_HDR_SIZE, frame, NET_ETH_HDR_SIZE + header);
        put_be16(out + 2, (uint16_t)(header + part));
        put_be16(out + 6, (uint16_t)((flags + at / 8) | (more ? IP_MORE_FRAGMENTS : 0)));
        memset(out + 10, 0, 2);
        uint16_t csum = net_csum_fold(net_csum_add(0, out, header));
        memcpy(out + 10, &csum, sizeof(csum));
        struct iovec iov[2] = {
            {head, NET_HDR_SIZE + NET_ETH_HDR_SIZE + header},
            {(uint8_t *)(uintptr_t)ip + header + at, part},
        };
        send(opaque, iov, 2);
    }
}

void slirp_frame_to_guest(const uint8_t *frame, size_t len, size_t mtu, slirp_frame_send_fn *send,
                          void *opaque)
{
    if (len < NET_ETH_HDR_SIZE)
        return;
    struct net_tcp_view tcp;
    if (net_tcp_parse(&tcp, frame, len) == 0 && !tcp.v6 &&
        tcp.headers <= NET_SEGMENT_HEAD_MAX - NET_HDR_SIZE) {
        send_tcp(&tcp, frame, len, mtu, send, opaque);
        return;
    }
    if (len - NET_ETH_HDR_SIZE > mtu) {
        if (get_be16(frame + 12) == 0x0800 && len >= NET_ETH_HDR_SIZE + IPV4_HEADER)
            send_fragments(frame, len, mtu, send, opaque);
        return;
    }
    uint8_t head[NET_HDR_SIZE] = {0};
    struct iovec iov[2] = {{head, sizeof(head)}, {(uint8_t *)(uintptr_t)frame, len}};
    send(opaque, iov, 2);
}
