/*
 * TCP frames for tests, and judges of them that share no code with what is tested.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TEST_NET_FRAMES_H
#define TENON_TEST_NET_FRAMES_H

#include <string.h>

#include "base/bytes.h"
#include "net/core/hdr.h"

#define FRAME_FIN 0x01
#define FRAME_SYN 0x02
#define FRAME_PSH 0x08
#define FRAME_ACK 0x10
#define FRAME_CWR 0x80
#define FRAME_SEQUENCE 0xffffff00u
#define FRAME_IDENT 0xfffe

struct frame {
    uint8_t bytes[70000];
    size_t len;
};

static inline uint32_t frame_sum(uint32_t sum, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

static inline size_t frame_l3(const uint8_t *frame)
{
    return get_be16(frame + 12) == 0x8100 ? 18 : 14;
}

/* Sum of the pseudo header for a TCP part of `len` bytes. */
static inline uint32_t frame_pseudo(const uint8_t *frame, size_t len)
{
    const uint8_t *ip = frame + frame_l3(frame);
    bool v6 = ip[0] >> 4 == 6;
    uint32_t sum = frame_sum(6, v6 ? ip + 8 : ip + 12, v6 ? 32 : 8);
    return frame_sum(sum + (uint32_t)len / 65536 + (uint32_t)len % 65536, NULL, 0);
}

static inline size_t frame_l4(const uint8_t *frame)
{
    size_t l3 = frame_l3(frame);
    return l3 + (frame[l3] >> 4 == 6 ? 40u : (frame[l3] & 15u) * 4);
}

static inline bool frame_tcp_csum_right(const uint8_t *frame, size_t len)
{
    size_t l4 = frame_l4(frame);
    return frame_sum(frame_pseudo(frame, len - l4), frame + l4, len - l4) == 0xffff;
}

static inline bool frame_ip_right(const uint8_t *frame, size_t len)
{
    size_t l3 = frame_l3(frame);
    const uint8_t *ip = frame + l3;
    if (ip[0] >> 4 == 6)
        return get_be16(ip + 4) == len - l3 - 40;
    return get_be16(ip + 2) == len - l3 && frame_sum(0, ip, (ip[0] & 15u) * 4) == 0xffff;
}

/* Ethernet, IP and TCP with 12 bytes of options and a payload that shows its place. */
static inline void frame_tcp(struct frame *frame, bool v6, size_t payload, uint8_t flags)
{
    memset(frame->bytes, 0, 200);
    uint8_t *ip = frame->bytes + 14, *tcp = ip + (v6 ? 40 : 20);
    size_t tcp_len = 32 + payload;
    memset(frame->bytes, 0x52, 12);
    put_be16(frame->bytes + 12, v6 ? 0x86dd : 0x0800);
    if (v6) {
        ip[0] = 0x60;
        put_be16(ip + 4, (uint16_t)tcp_len);
        ip[6] = 6;
        ip[7] = 64;
        for (int i = 8; i < 40; i++)
            ip[i] = (uint8_t)(i * 7);
    } else {
        ip[0] = 0x45;
        put_be16(ip + 2, (uint16_t)(20 + tcp_len));
        put_be16(ip + 4, FRAME_IDENT);
        put_be16(ip + 6, 0x4000);
        ip[8] = 64;
        ip[9] = 6;
        put_be32(ip + 12, 0x0a00020f);
        put_be32(ip + 16, 0x0a000202);
        put_be16(ip + 10, (uint16_t)~frame_sum(0, ip, 20));
    }
    put_be16(tcp, 40000);
    put_be16(tcp + 2, 80);
    put_be32(tcp + 4, FRAME_SEQUENCE);
    put_be32(tcp + 8, 0x01020304);
    tcp[12] = 8 << 4;
    tcp[13] = flags;
    put_be16(tcp + 14, 0xfaf0);
    memset(tcp + 20, 1, 12);
    for (size_t i = 0; i < payload; i++)
        tcp[32 + i] = (uint8_t)(i ^ i >> 8);
    frame->len = (size_t)(tcp - frame->bytes) + tcp_len;
    uint16_t csum = (uint16_t)~frame_sum(frame_pseudo(frame->bytes, tcp_len), tcp, tcp_len);
    put_be16(tcp + 16, csum);
}

static inline void frame_add_vlan(struct frame *frame)
{
    memmove(frame->bytes + 16, frame->bytes + 12, frame->len - 12);
    put_be16(frame->bytes + 12, 0x8100);
    put_be16(frame->bytes + 14, 42);
    frame->len += 4;
}

/* As a driver leaves it: the pseudo header's sum in the field. */
static inline void frame_request_csum(struct frame *frame, struct net_hdr *hdr, bool v6)
{
    size_t l4 = frame_l4(frame->bytes);
    put_be16(frame->bytes + l4 + 16, (uint16_t)frame_pseudo(frame->bytes, frame->len - l4));
    *hdr = (struct net_hdr){
        .flags = NET_HDR_F_NEEDS_CSUM, .csum_start = (uint16_t)l4, .csum_offset = 16};
}

static inline void frame_request_gso(struct frame *frame, struct net_hdr *hdr, bool v6,
                                     uint16_t mss)
{
    frame_request_csum(frame, hdr, v6);
    hdr->gso_type = v6 ? NET_GSO_TCPV6 : NET_GSO_TCPV4;
    hdr->gso_size = mss;
    hdr->hdr_len = (uint16_t)(frame_l4(frame->bytes) + 32);
}

#endif
