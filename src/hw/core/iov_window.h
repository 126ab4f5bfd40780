/*
 * A stretch of somebody's segments, as segments: the data between a request's header and its
 * status, without a copy of the vector. The first and the last segment are cut in place.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_CORE_IOV_WINDOW_H
#define TENON_HW_CORE_IOV_WINDOW_H

#include <sys/uio.h>

#include "base/base.h"

struct iov_window {
    struct iovec *iov; /* the segments of the stretch */
    unsigned count;
    struct iovec first, last; /* as they were; `last` is unused with one segment */
};

/* Opens on [skip, skip + length), which lies within the segments. */
static inline void iov_window_open(struct iov_window *window, struct iovec *iov, unsigned count,
                                   uint64_t skip, uint64_t length)
{
    unsigned from = 0, to;
    while (from < count && skip >= iov[from].iov_len)
        skip -= iov[from++].iov_len;
    window->iov = iov + from;
    window->count = 0;
    if (!length)
        return;
    window->first = iov[from];
    iov[from].iov_base = (uint8_t *)iov[from].iov_base + skip;
    iov[from].iov_len -= skip;
    for (to = from; length > iov[to].iov_len; to++)
        length -= iov[to].iov_len;
    if (to != from)
        window->last = iov[to];
    iov[to].iov_len = length;
    window->count = to - from + 1;
}

/* Puts the segments back as they were. */
static inline void iov_window_close(struct iov_window *window)
{
    if (window->count > 1)
        window->iov[window->count - 1] = window->last;
    if (window->count)
        window->iov[0] = window->first;
    window->count = 0;
}

#endif
