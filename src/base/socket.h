/*
 * Unix sockets: connected to by path, and carrying descriptors.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BASE_SOCKET_H
#define TENON_BASE_SOCKET_H

#include <sys/types.h>

#include "base/base.h"

#define SOCKET_FDS_MAX 2

/* The longest path of a unix socket, in bytes (sun_path without its NUL). */
#define SOCKET_PATH_MAX 107

/*
 * Connects to the unix socket `path`; `type` is SOCK_STREAM or SOCK_DGRAM, with SOCK_NONBLOCK or
 * without. The descriptor (the caller's, close-on-exec), or -1 with errno: ENAMETOOLONG for a path
 * that no address holds, and what socket(2) and connect(2) say.
 */
int socket_connect(const char *path, int type);

/*
 * Sends all of `bytes` in one message, with the first `count` of `fds`. False when the other side
 * has gone or, with MSG_DONTWAIT in `flags`, cannot take it now.
 */
bool socket_send_fds(int socket, const void *bytes, size_t length, const int *fds, size_t count,
                     int flags);
/* The same with descriptor `fd` (-1: none). */
bool socket_send_fd(int socket, const void *bytes, size_t length, int fd, int flags);

/*
 * Receives one message of at most `length` bytes. fds[0] to fds[max - 1] are the descriptors that
 * came with it (the caller's), and -1 after the last. What else came is closed. The result is that
 * of recvmsg(2), as are `flags`.
 */
ssize_t socket_receive_fds(int socket, void *bytes, size_t length, int *fds, size_t max, int flags);
/* The same without waiting, for at most one descriptor. */
ssize_t socket_receive_fd(int socket, void *bytes, size_t length, int *fd);

#endif
