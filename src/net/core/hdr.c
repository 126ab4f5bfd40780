/*
 * virtio_net_hdr: validation, checksum completion and TCP segmentation in software.
 *
 * Virtio 1.2, section 5.1.6; RFC 1071 (checksum), RFC 9293 (TCP), RFC 791 and RFC 8200 (IP),
 * RFC 3168 (CWR belongs to the first segment only). Pure functions, any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "net/core/hdr.h"

#include <errno.h>

#include "base/bytes.h"
#include "base/checked.h"

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_QINQ 0x88a8
#define IP_TCP 6
#define TCP_FIN 0x01
#define TCP_PSH 0x08
#define TCP_CWR 0x80
#define TCP_CSUM_OFFSET 16

void net_hdr_get(struct net_hdr *hdr, const uint8_t bytes[NET_HDR_SIZE])
{
    *hdr = (struct net_hdr){
        .flags = bytes[0],
        .gso_type = bytes[1],
        .hdr_len = get_le16(bytes + 2),
        .gso_size = get_le16(bytes + 4),
        .csum_start = get_le16(bytes + 6),
        .csum_offset = get_le16(bytes + 8),
        .num_buffers = get_le16(bytes + 10),
    };
}

void net_hdr_put(const struct net_hdr *hdr, uint8_t bytes[NET_HDR_SIZE])
{
    bytes[0] = hdr->flags;
    bytes[1] = hdr->gso_type;
    put_le16(bytes + 2, hdr->hdr_len);
    put_le16(bytes + 4, hdr->gso_size);
    put_le16(bytes + 6, hdr->csum_start);
    put_le16(bytes + 8, hdr->csum_offset);
    put_le16(bytes + 10, hdr->num_buffers);
}

static bool csum_within(const struct net_hdr *hdr, size_t len)
{
    return hdr->csum_start >= NET_ETH_HDR_SIZE &&
           (size_t)hdr->csum_start + hdr->csum_offset + 2 <= len;
}

int net_hdr_check(struct net_hdr *hdr, size_t len)
{
    if (len < NET_ETH_HDR_SIZE || len > NET_FRAME_MAX - NET_HDR_SIZE)
        return -EINVAL;

    hdr->flags &= NET_HDR_F_NEEDS_CSUM | NET_HDR_F_DATA_VALID;
    hdr->num_buffers = 0;
    if (!(hdr->flags & NET_HDR_F_NEEDS_CSUM))
        hdr->csum_start = hdr->csum_offset = 0;
    else if (!csum_within(hdr, len))
        return -EINVAL;

    if (hdr->gso_type == NET_GSO_NONE) {
        hdr->gso_size = hdr->hdr_len = 0;
        return 0;
    }
    switch (hdr->gso_type & ~NET_GSO_ECN) {
    case NET_GSO_TCPV4:
    case NET_GSO_TCPV6:
        break;
    default:
        return -EINVAL;
    }
    if (hdr->gso_size == 0 || !(hdr->flags & NET_HDR_F_NEEDS_CSUM))
        return -EINVAL;
    /* Only a hint, and the kernel drops a frame whose hint lies beyond its end: better none. */
    if (hdr->hdr_len > len)
        hdr->hdr_len = 0;
    return 0;
}

uint32_t net_hdr_offload(const struct net_hdr *hdr)
{
    uint32_t offload = hdr->flags & NET_HDR_F_NEEDS_CSUM ? NET_OFFLOAD_CSUM : 0;
    switch (hdr->gso_type & ~NET_GSO_ECN) {
    case NET_GSO_TCPV4:
        offload |= NET_OFFLOAD_TSO4;
        break;
    case NET_GSO_TCPV6:
        offload |= NET_OFFLOAD_TSO6;
        break;
    case NET_GSO_UDP:
        offload |= NET_OFFLOAD_UFO;
        break;
    }
    if (hdr->gso_type & NET_GSO_ECN)
        offload |= NET_OFFLOAD_ECN;
    return offload;
}

uint64_t net_csum_add(uint64_t sum, const void *bytes, size_t len)
{
    /* 32-bit words into a 64-bit sum: no carry to handle for any frame length. Words of the host's
     * order are fine, because the end-around carry makes the sum independent of it. */
    const uint8_t *at = bytes;
    for (; len >= 16; at += 16, len -= 16) {
        uint32_t word[4];
        memcpy(word, at, sizeof(word));
        sum += (uint64_t)word[0] + word[1] + word[2] + word[3];
    }
    for (; len >= 2; at += 2, len -= 2) {
        uint16_t word;
        memcpy(&word, at, sizeof(word));
        sum += word;
    }
    if (len) {
        uint16_t word = 0;
        memcpy(&word, at, 1);
        sum += word;
    }
    return sum;
}

uint16_t net_csum_fold(uint64_t sum)
{
    sum = (sum & UINT32_MAX) + (sum >> 32);
    while (sum >> 16)
        sum = (sum & UINT16_MAX) + (sum >> 16);
    return (uint16_t)~sum;
}

int net_csum_complete(struct net_hdr *hdr, uint8_t *frame, size_t len)
{
    if (!(hdr->flags & NET_HDR_F_NEEDS_CSUM))
        return 0;
    if (!csum_within(hdr, len))
        return -EINVAL;
    uint16_t csum = net_csum_fold(net_csum_add(0, frame + hdr->csum_start, len - hdr->csum_start));
    /* UDP says "no checksum" with zero; its other form of zero is right for all protocols. */
    if (csum == 0)
        csum = UINT16_MAX;
    memcpy(frame + hdr->csum_start + hdr->csum_offset, &csum, sizeof(csum));
    hdr->flags &= (uint8_t)~NET_HDR_F_NEEDS_CSUM;
    hdr->csum_start = hdr->csum_offset = 0;
    return 0;
}

/* The offset of the TCP header behind an IPv6 header and its extensions, 0 when there is none. */
static size_t ipv6_find_tcp(const uint8_t *frame, size_t len, size_t l3)
{
    size_t at = l3 + 40;
    if (at > len || frame[l3] >> 4 != 6)
        return 0;
    uint8_t next = frame[l3 + 6];
    while (next != IP_TCP) {
        /* Hop-by-hop options, routing, destination options; no fragments. */
        if ((next != 0 && next != 43 && next != 60) || at + 8 > len)
            return 0;
        next = frame[at];
        at += ((size_t)frame[at + 1] + 1) * 8;
    }
    return at;
}

static size_t ipv4_find_tcp(const uint8_t *frame, size_t len, size_t l3)
{
    if (l3 + 20 > len || frame[l3] >> 4 != 4)
        return 0;
    size_t header = (size_t)(frame[l3] & 15) * 4;
    bool fragment = get_be16(frame + l3 + 6) & 0x3fff;
    if (header < 20 || fragment || frame[l3 + 9] != IP_TCP)
        return 0;
    return l3 + header;
}

int net_tcp_parse(struct net_tcp_view *view, const uint8_t *frame, size_t len)
{
    size_t type_at = 12;
    if (len < NET_ETH_HDR_SIZE)
        return -EINVAL;
    uint16_t type = get_be16(frame + type_at);
    for (int tags = 0; tags < 2 && (type == ETHERTYPE_VLAN || type == ETHERTYPE_QINQ); tags++) {
        type_at += 4;
        if (type_at + 2 > len)
            return -EINVAL;
        type = get_be16(frame + type_at);
    }

    view->l3 = type_at + 2;
    view->v6 = type == ETHERTYPE_IPV6;
    if (type == ETHERTYPE_IPV4)
        view->l4 = ipv4_find_tcp(frame, len, view->l3);
    else if (type == ETHERTYPE_IPV6)
        view->l4 = ipv6_find_tcp(frame, len, view->l3);
    else
        return -EINVAL;
    if (view->l4 == 0 || !range_within(view->l4, 20, len))
        return -EINVAL;

    size_t tcp_header = (size_t)(frame[view->l4 + 12] >> 4) * 4;
    if (tcp_header < 20 || !range_within(view->l4, tcp_header, len))
        return -EINVAL;
    view->headers = view->l4 + tcp_header;
    return 0;
}

int net_segments_init(struct net_segments *segments, const struct net_hdr *hdr,
                      const uint8_t *frame, size_t len)
{
    *segments = (struct net_segments){.frame = frame, .len = len, .payload = hdr->gso_size};
    int result = net_tcp_parse(&segments->tcp, frame, len);
    if (result < 0)
        return result;
    uint8_t type = hdr->gso_type & (uint8_t)~NET_GSO_ECN;
    if (type != (segments->tcp.v6 ? NET_GSO_TCPV6 : NET_GSO_TCPV4) || hdr->gso_size == 0)
        return -EINVAL;
    if (segments->tcp.headers > NET_SEGMENT_HEAD_MAX - NET_HDR_SIZE)
        return -EINVAL;
    size_t payload = len - segments->tcp.headers;
    size_t count = MAX((payload + segments->payload - 1) / segments->payload, (size_t)1);
    if (count > NET_SEGMENTS_MAX)
        return -EINVAL;
    segments->count = (unsigned)count;
    return 0;
}

/* Length fields and the IPv4 identification and checksum; returns the sum of the pseudo header. */
static uint64_t finish_ip(const struct net_tcp_view *tcp, uint8_t *headers, size_t payload,
                          unsigned index)
{
    uint8_t *ip = headers + tcp->l3;
    size_t tcp_len = tcp->headers - tcp->l4 + payload;
    uint8_t tail[8] = {0};
    if (tcp->v6) {
        put_be16(ip + 4, (uint16_t)(tcp->headers - tcp->l3 - 40 + payload));
        put_be32(tail, (uint32_t)tcp_len);
        tail[7] = IP_TCP;
        return net_csum_add(net_csum_add(0, ip + 8, 32), tail, 8);
    }
    put_be16(ip + 2, (uint16_t)(tcp->headers - tcp->l3 + payload));
    put_be16(ip + 4, (uint16_t)(get_be16(ip + 4) + index));
    memset(ip + 10, 0, 2);
    uint16_t csum = net_csum_fold(net_csum_add(0, ip, tcp->l4 - tcp->l3));
    memcpy(ip + 10, &csum, sizeof(csum));
    tail[1] = IP_TCP;
    put_be16(tail + 2, (uint16_t)tcp_len);
    return net_csum_add(net_csum_add(0, ip + 12, 8), tail, 4);
}

void net_segments_get(const struct net_segments *segments, unsigned index,
                      uint8_t head[NET_SEGMENT_HEAD_MAX], struct iovec pieces[2])
{
    const struct net_tcp_view *tcp = &segments->tcp;
    size_t from = tcp->headers + index * segments->payload;
    size_t payload = MIN(segments->payload, segments->len - from);
    bool last = index + 1 == segments->count;

    memset(head, 0, NET_HDR_SIZE);
    uint8_t *headers = head + NET_HDR_SIZE;
    memcpy(headers, segments->frame, tcp->headers);
    uint8_t *th = headers + tcp->l4;
    put_be32(th + 4, get_be32(th + 4) + (uint32_t)(index * segments->payload));
    if (!last)
        th[13] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
    if (index)
        th[13] &= (uint8_t)~TCP_CWR;

    uint64_t sum = finish_ip(tcp, headers, payload, index);
    memset(th + TCP_CSUM_OFFSET, 0, 2);
    sum = net_csum_add(sum, th, tcp->headers - tcp->l4);
    uint16_t csum = net_csum_fold(net_csum_add(sum, segments->frame + from, payload));
    memcpy(th + TCP_CSUM_OFFSET, &csum, sizeof(csum));

    pieces[0] = (struct iovec){head, NET_HDR_SIZE + tcp->headers};
    pieces[1] = (struct iovec){(uint8_t *)(uintptr_t)segments->frame + from, payload};
}

int net_gso_complete(struct net_hdr *hdr, uint8_t *frame, size_t len)
{
    struct net_segments whole;
    struct net_hdr one = *hdr;
    one.gso_size = UINT16_MAX;
    int result = net_segments_init(&whole, &one, frame, len);
    if (result < 0)
        return result;
    if (whole.count != 1 || len - whole.tcp.l3 > UINT16_MAX)
        return -EINVAL;
    uint8_t head[NET_SEGMENT_HEAD_MAX];
    struct iovec pieces[2];
    net_segments_get(&whole, 0, head, pieces);
    memcpy(frame, head + NET_HDR_SIZE, whole.tcp.headers);
    *hdr = (struct net_hdr){0};
    return 0;
}
