/*
 * What the files of the RFB server share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DISPLAY_RFB_SERVER_INTERNAL_H
#define TENON_DISPLAY_RFB_SERVER_INTERNAL_H

#include <gnutls/gnutls.h>

#include "base/list.h"
#include "display/rfb/server.h"

#define RFB_CONNECTIONS_MAX 32

struct rfb_server {
    struct rfb_server_config config;
    struct surface screen;
    gnutls_certificate_credentials_t certificate;
    gnutls_anon_server_credentials_t anonymous;
    struct loop_fd screen_watch, listen_watch, clients_watch;
    struct list connections;
    unsigned connection_count;

    /* Drawing: asked for and not answered; the next one, and how long after the last. */
    bool asked;
    struct loop_timer refresh;
    uint64_t drawn_ns, pause_ns;
};

struct rfb_connection;

/* connection.c: takes `fd`. `access` is copied. */
void rfb_connection_new(struct rfb_server *server, int take_fd, const struct rfb_access *access);
void rfb_connection_free(struct rfb_connection *connection);
struct rfb_connection *rfb_connection_first(struct rfb_server *server);
/* The screen has been drawn and has changed there, or everywhere: who waits is told. */
void rfb_connections_changed(struct rfb_server *server, const struct surface_rect *rects,
                             unsigned count, bool all);
bool rfb_connections_wait(const struct rfb_server *server);

/* server.c: somebody waits for a change; somebody typed, so that one is likely. */
void rfb_server_wanted(struct rfb_server *server);
void rfb_server_key(struct rfb_server *server, uint8_t key, bool down);
void rfb_server_pointer(struct rfb_server *server, uint8_t buttons, int8_t wheel, uint16_t x,
                        uint16_t y);
void rfb_server_gone(struct rfb_server *server);

#endif
