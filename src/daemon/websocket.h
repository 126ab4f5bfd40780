/*
 * The server's side of a WebSocket (RFC 6455) over libwslay: messages of bytes in both directions.
 * On the loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DAEMON_WEBSOCKET_H
#define TENON_DAEMON_WEBSOCKET_H

#include "base/base.h"
#include "daemon/http.h"
#include "loop/loop.h"

#define WEBSOCKET_MESSAGE_MAX KIB(64)
#define WEBSOCKET_BACKLOG_MAX MIB(1)
/* How long a client that reads slowly is waited for after websocket_close(). */
#define WEBSOCKET_CLOSE_MS 5000
#define WEBSOCKET_ACCEPT_SIZE 29

struct websocket;

struct websocket_events {
    void (*message)(void *opaque, const uint8_t *bytes, size_t len);
    /* The client has gone or must go; the websocket is no more after it. */
    void (*ended)(void *opaque);
    /* The client has taken everything; may be NULL. */
    void (*drained)(void *opaque);
};

/* Sec-WebSocket-Accept for a Sec-WebSocket-Key. */
void websocket_accept(const char *key, char accept[WEBSOCKET_ACCEPT_SIZE]);
/* Is this a handshake? Then Sec-WebSocket-Accept for the answer. */
bool websocket_handshake(const struct http_request *request, char accept[WEBSOCKET_ACCEPT_SIZE]);
/* On what http_answer_upgrade() gives; takes `upgrade`. */
struct websocket *websocket_new(struct loop *loop, struct http_upgrade *upgrade, int fd,
                                const char *extra, size_t extra_len,
                                const struct websocket_events *events, void *opaque);
/* A message of bytes. A client that does not read is dropped. */
void websocket_send(struct websocket *websocket, const void *bytes, size_t len);
/* Bytes that the client has not taken yet. */
size_t websocket_backlog(const struct websocket *websocket);
/*
 * Nothing new goes out and no callback comes any more. What was sent before still reaches a client
 * that reads, then a close frame; one that does not read is cut off after WEBSOCKET_CLOSE_MS.
 */
void websocket_close(struct websocket *websocket, uint16_t code);

#endif
