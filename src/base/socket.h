/*
 * Unix sockets that carry descriptors.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BASE_SOCKET_H
#define TENON_BASE_SOCKET_H

#include <sys/types.h>

#include "base/base.h"

/*
 * Sends all of `bytes` in one message, with descriptor `fd` (-1: none). False when the other side
 * has gone or, with MSG_DONTWAIT in `flags`, cannot take it now.
 */
bool socket_send_fd(int socket, const void *bytes, size_t length, int fd, int flags);

/*
 * Receives one message of at most `length` bytes without waiting; *fd is the descriptor that came
 * with it (the caller's), or -1. What else came is closed. The result is that of recvmsg(2).
 */
ssize_t socket_receive_fd(int socket, void *bytes, size_t length, int *fd);

#endif
