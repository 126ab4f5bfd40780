/*
 * Frames between a guest that uses offloads and libslirp, which knows none.
 *
 * Towards libslirp, checksums are completed and a TSO frame becomes one plain large segment: no
 * wire limits it. So that libslirp answers in large segments as well, the MSS that the guest offers
 * when it opens a connection is raised; what comes back is marked for segmentation at the link's
 * size, and the guest takes it as one frame.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_NET_SLIRP_FRAME_H
#define TENON_NET_SLIRP_FRAME_H

#include "base/base.h"
#include "net/core/hdr.h"

/* What libslirp is told of the link: the largest that it takes. */
#define SLIRP_MTU 65520

/*
 * Prepares a message of `len` bytes (header and frame) from the guest in place. Returns the length
 * of the frame at message + NET_HDR_SIZE, or -EINVAL: drop it.
 */
ssize_t slirp_frame_from_guest(uint8_t *message, size_t len);

/*
 * Builds the messages for one frame from libslirp: one, or the fragments of a datagram larger than
 * `mtu`. `send` gets the virtio_net_hdr and the frame in pieces.
 */
typedef void slirp_frame_send_fn(void *opaque, const struct iovec *iov, unsigned count);
void slirp_frame_to_guest(const uint8_t *frame, size_t len, size_t mtu, slirp_frame_send_fn *send,
                          void *opaque);

#endif
