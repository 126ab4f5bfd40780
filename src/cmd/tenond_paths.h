/*
 * Where tenond is, unless somebody says otherwise: for itself and for its clients.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_TENOND_PATHS_H
#define TENON_CMD_TENOND_PATHS_H

#include "base/base.h"

/* The folder of this user's sockets, which may not be there yet; NULL: none. The caller frees it.
 */
char *tenon_runtime_folder(void);

/* $TENON_SOCKET for clients, or the standard place, whose folder is made for a server. NULL: this
 * user has none. The caller frees both. */
char *tenond_socket_path(bool server);
char *tenond_state_path(void);

#endif
