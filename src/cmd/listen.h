/*
 * Listening sockets of the tenon command.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_LISTEN_H
#define TENON_CMD_LISTEN_H

#include "base/base.h"
#include "base/err.h"

/*
 * A unix socket at `path`, for its owner alone; one that nobody listens on any more is replaced.
 * The caller unlinks it.
 */
struct err *listen_unix(const char *path, int *fd);
/* TCP at "PORT" (of 127.0.0.1), "ADDRESS:PORT" or "[ADDRESS]:PORT"; *port is what 0 became. */
struct err *listen_tcp(const char *where, int *fd, unsigned *port);

#endif
