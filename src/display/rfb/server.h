/*
 * The RFB server of one VM: viewers on sockets, with and without TLS, and the screen that they see,
 * which it shares with tenon-vmm (display/surface.h). On its loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DISPLAY_RFB_SERVER_H
#define TENON_DISPLAY_RFB_SERVER_H

#include "base/err.h"
#include "display/rfb/rfb.h"
#include "loop/loop.h"

struct rfb_server;

struct rfb_server_config {
    struct loop *loop;
    const char *name; /* of the VM; borrowed, as the passwords are */
    struct rfb_access access;
    int certificate_fd, key_fd; /* PEM files; -1: none */
    int screen_fd;              /* to tenon-vmm */
    int listen_fd;              /* -1: none */
    /* SOCK_SEQPACKET; each message is one byte, an enum rfb_right, and a connected socket for a
     * viewer who has that right without a password. -1: none. */
    int clients_fd;
};

/* Takes the descriptors. Viewers are served while the loop runs; it is stopped when the VM has
 * ended, or nobody can come any more and all have gone. */
struct err *rfb_server_new(const struct rfb_server_config *config, struct rfb_server **server);
void rfb_server_free(struct rfb_server *server);

#endif
