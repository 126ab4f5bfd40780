/*
 * Fuzz target: a frame with its virtio_net_hdr, as a guest or the far end of a socket may send it,
 * through everything that believes such a header: checks, checksums, segmentation, and the way to
 * and from libslirp.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "net/slirp/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A copy of exactly this size, so that a byte too far is found. */
static uint8_t *copy_of(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ?: 1);
    if (!copy)
        abort();
    memcpy(copy, data, size);
    return copy;
}

/* Every payload byte goes out once, and no segment is larger than asked. */
static void check_segments(const struct net_hdr *hdr, const uint8_t *frame, size_t len)
{
    struct net_segments segments;
    if (net_segments_init(&segments, hdr, frame, len) < 0)
        return;
    const uint8_t *next = frame + segments.tcp.headers;
    for (unsigned i = 0; i < segments.count; i++) {
        uint8_t head[NET_SEGMENT_HEAD_MAX];
        struct iovec pieces[2];
        net_segments_get(&segments, i, head, pieces);
        if (pieces[0].iov_base != head || pieces[0].iov_len != NET_HDR_SIZE + segments.tcp.headers)
            abort();
        if (pieces[1].iov_base != next || pieces[1].iov_len > hdr->gso_size)
            abort();
        next += pieces[1].iov_len;
    }
    if (next != frame + len)
        abort();
}

static void check_message(void *opaque, const struct iovec *iov, unsigned count)
{
    size_t len = 0;
    for (unsigned i = 0; i < count; i++) {
        uint8_t sum = 0;
        for (size_t j = 0; j < iov[i].iov_len; j++)
            sum = (uint8_t)(sum + ((const uint8_t *)iov[i].iov_base)[j]);
        *(volatile uint8_t *)opaque = sum;
        len += iov[i].iov_len;
    }
    struct net_hdr hdr;
    net_hdr_get(&hdr, iov[0].iov_base);
    /* What we make ourselves must pass our own check. */
    if (net_hdr_check(&hdr, len - NET_HDR_SIZE) < 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < NET_HDR_SIZE || size > NET_FRAME_MAX)
        return 0;
    struct net_hdr hdr;
    net_hdr_get(&hdr, data);
    size_t len = size - NET_HDR_SIZE;
    uint8_t *frame = copy_of(data + NET_HDR_SIZE, len);

    check_segments(&hdr, frame, len);
    if (net_hdr_check(&hdr, len) == 0) {
        check_segments(&hdr, frame, len);
        struct net_hdr plain = hdr;
        /* A header that passed has its checksum inside the frame. */
        if (net_csum_complete(&plain, frame, len) < 0 || (plain.flags & NET_HDR_F_NEEDS_CSUM))
            abort();
        plain = hdr;
        if (net_gso_complete(&plain, frame, len) == 0 && net_hdr_offload(&plain))
            abort();
    }
    uint8_t sum;
    slirp_frame_to_guest(frame, len, 1500, check_message, &sum);
    free(frame);

    uint8_t *message = copy_of(data, size);
    ssize_t result = slirp_frame_from_guest(message, size);
    if (result > 0 && (size_t)result != len)
        abort();
    free(message);
    return 0;
}
