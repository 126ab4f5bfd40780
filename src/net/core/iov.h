/*
 * Bytes out of scattered segments.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_NET_CORE_IOV_H
#define TENON_NET_CORE_IOV_H

#include <string.h>
#include <sys/uio.h>

#include "base/base.h"

/* Copies up to `len` bytes from `offset` on; returns how many there were. */
static inline size_t net_iov_read(const struct iovec *iov, unsigned count, size_t offset,
                                  void *bytes, size_t len)
{
    size_t done = 0;
    for (unsigned i = 0; i < count && done < len; i++) {
        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        size_t part = MIN(iov[i].iov_len - offset, len - done);
        memcpy((uint8_t *)bytes + done, (const uint8_t *)iov[i].iov_base + offset, part);
        done += part;
        offset = 0;
    }
    return done;
}

#endif
