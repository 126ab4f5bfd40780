/*
 * What the files of the HTTP server share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DAEMON_HTTP_INTERNAL_H
#define TENON_DAEMON_HTTP_INTERNAL_H

#include <microhttpd.h>

#include "base/list.h"
#include "daemon/http.h"

struct http_server {
    struct http_config config;
    struct MHD_Daemon *daemon;
    struct loop_fd watch; /* the library's epoll descriptor */
    struct loop_timer timer;
    struct list requests, streams, upgrades;
    bool ending, kicked;
};

/* One connection: how long it may still take. */
struct http_connection {
    struct http_server *server;
    struct loop_timer deadline;
    int fd;
    char from[64];  /* who is on the other end, for people */
    char *arriving; /* what a request that is not whole yet asks for; NULL: none has begun */
};

/* A decoded value of the query, kept until the request ends. */
struct http_value {
    struct list link;
    char text[];
};

struct http_request {
    struct list link;
    struct http_server *server;
    struct http_connection *connection;
    struct MHD_Connection *handle;
    char *method, *path;
    struct buf body;
    struct list values;
    bool handled, suspended, too_large;
    struct http_upgrade *upgrade; /* asked for and not given yet */
    struct MHD_Response *response;
    unsigned status;
    char *header[8][2]; /* of the answer */
    unsigned header_count;
};

/* Makes the answer known to the library: now, or when it asks. */
void http_request_ready(struct http_request *request, unsigned status,
                        struct MHD_Response *take_response);
/* The library has something to do that no descriptor tells. */
void http_server_kick(struct http_server *server);
/* http_stream.c: all streams and upgrades of a server end; a client left before its upgrade. */
void http_streams_end(struct http_server *server);
void http_upgrade_lost(struct http_upgrade *upgrade);

#endif
