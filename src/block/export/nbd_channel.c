/*
 * An NBD connection's bytes. Requests are read in large pieces, so that a peer that sends many at
 * once costs few system calls; data that is wanted whole goes past the buffer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "block/export/nbd_internal.h"

/* At least a byte, 0 at the end, -1. */
static ssize_t receive_some(struct nbd_channel *channel, void *bytes, size_t length)
{
    ssize_t got;
    if (channel->session)
        return nbd_tls_receive(channel, bytes, length);
    do
        got = recv(channel->fd, bytes, length, 0);
    while (got < 0 && errno == EINTR);
    return got;
}

bool nbd_channel_receive(struct nbd_channel *channel, void *bytes, size_t length)
{
    uint8_t *at = bytes;
    while (length) {
        size_t here = MIN(length, channel->end - channel->begin);
        memcpy(at, channel->buffer + channel->begin, here);
        channel->begin += here;
        at += here;
        length -= here;
        if (!length)
            return true;
        bool direct = length >= sizeof(channel->buffer);
        ssize_t got = direct ? receive_some(channel, at, length)
                             : receive_some(channel, channel->buffer, sizeof(channel->buffer));
        if (got <= 0)
            return false;
        if (direct) {
            at += got;
            length -= (size_t)got;
        } else {
            channel->begin = 0;
            channel->end = (size_t)got;
        }
    }
    return true;
}

bool nbd_channel_skip(struct nbd_channel *channel, uint64_t length)
{
    uint8_t nowhere[4096];
    while (length) {
        size_t here = (size_t)MIN(length, (uint64_t)sizeof(nowhere));
        if (!nbd_channel_receive(channel, nowhere, here))
            return false;
        length -= here;
    }
    return true;
}

static ssize_t send_some(struct nbd_channel *channel, struct iovec *iov, unsigned count)
{
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};
    ssize_t sent;
    if (channel->session)
        return nbd_tls_send(channel, iov->iov_base, iov->iov_len);
    do
        sent = sendmsg(channel->fd, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent;
}

bool nbd_channel_send(struct nbd_channel *channel, struct iovec *iov, unsigned count)
{
    while (count) {
        if (!iov->iov_len) {
            iov++;
            count--;
            continue;
        }
        ssize_t sent = send_some(channel, iov, count);
        if (sent <= 0)
            return false;
        while (count && (size_t)sent >= iov->iov_len) {
            sent -= (ssize_t)iov->iov_len;
            iov++;
            count--;
        }
        if (count) {
            iov->iov_base = (uint8_t *)iov->iov_base + sent;
            iov->iov_len -= (size_t)sent;
        }
    }
    return true;
}
