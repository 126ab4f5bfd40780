/*
 * The virtio_net_hdr of a frame, and its offloads done in software.
 *
 * Virtio 1.2, section 5.1.6. Used only towards a peer that lacks the feature. Frames and headers
 * are hostile; every function takes lengths and believes none that it finds inside. `frame` always
 * starts at the Ethernet header, without the virtio_net_hdr.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_NET_CORE_HDR_H
#define TENON_NET_CORE_HDR_H

#include "base/base.h"
#include "net/net.h"

#define NET_HDR_F_NEEDS_CSUM 1
#define NET_HDR_F_DATA_VALID 2

#define NET_GSO_NONE 0
#define NET_GSO_TCPV4 1
#define NET_GSO_UDP 3
#define NET_GSO_TCPV6 4
#define NET_GSO_ECN 0x80

struct net_hdr {
    uint8_t flags, gso_type;
    uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};

void net_hdr_get(struct net_hdr *hdr, const uint8_t bytes[NET_HDR_SIZE]);
void net_hdr_put(const struct net_hdr *hdr, uint8_t bytes[NET_HDR_SIZE]);

/*
 * Judges and cleans a header that came from outside, for a frame of `len` bytes: unknown flags and
 * fields without meaning become zero. -EINVAL: the frame must be dropped.
 */
int net_hdr_check(struct net_hdr *hdr, size_t len);
/* The NET_OFFLOAD_* that a receiver of this frame must understand. */
uint32_t net_hdr_offload(const struct net_hdr *hdr);

/* Sum for the Internet checksum over `len` bytes (odd only in the last piece), native byte order.
 */
uint64_t net_csum_add(uint64_t sum, const void *bytes, size_t len);
/* The 16-bit checksum, ready to be stored with memcpy. */
uint16_t net_csum_fold(uint64_t sum);

/* Fills the checksum that the header asks for and clears the request. -EINVAL: outside the frame.
 */
int net_csum_complete(struct net_hdr *hdr, uint8_t *frame, size_t len);

/* Where the headers of a TCP frame lie. */
struct net_tcp_view {
    size_t l3, l4;  /* offsets of the IP and TCP headers */
    size_t headers; /* bytes of all headers together */
    bool v6;
};

/* -EINVAL: not a whole, unfragmented TCP frame over IPv4 or IPv6. */
int net_tcp_parse(struct net_tcp_view *view, const uint8_t *frame, size_t len);

/* All headers of one segment, with the virtio_net_hdr. */
#define NET_SEGMENT_HEAD_MAX 256
/* More segments than this from one frame are an attack. */
#define NET_SEGMENTS_MAX 1024

/* A TCP frame to be cut into segments of at most gso_size bytes of payload. */
struct net_segments {
    const uint8_t *frame; /* borrowed */
    size_t len;
    struct net_tcp_view tcp;
    size_t payload; /* bytes a segment */
    unsigned count;
};

int net_segments_init(struct net_segments *segments, const struct net_hdr *hdr,
                      const uint8_t *frame, size_t len);
/*
 * Segment `index` < count as two pieces: `head` (a zero virtio_net_hdr and the headers, with
 * lengths, identification, sequence number, flags and checksums in place) and a part of the frame.
 */
void net_segments_get(const struct net_segments *segments, unsigned index,
                      uint8_t head[NET_SEGMENT_HEAD_MAX], struct iovec pieces[2]);

/*
 * Makes a TSO frame one plain large TCP frame: lengths and checksums in place, no request left. For
 * a receiver that takes frames larger than the wire.
 */
int net_gso_complete(struct net_hdr *hdr, uint8_t *frame, size_t len);

#endif
