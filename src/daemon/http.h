/*
 * HTTP/1.1 server on a loop, over libmicrohttpd: requests arrive whole, and are answered at once,
 * later, as a stream, or by giving the connection away (Upgrade).
 *
 * A peer is not trusted to be sane: header and body sizes, the time that both may take, and the
 * number of connections are bounded; the library refuses what is not HTTP. Paths are not decoded:
 * nothing that we serve needs an escape.
 *
 * Everything runs on the server's loop. A request lives until it is answered, also when its client
 * has gone: whoever defers one answers it in the end, and needs no cancelling.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DAEMON_HTTP_H
#define TENON_DAEMON_HTTP_H

#include <sys/socket.h>

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "loop/loop.h"

#define HTTP_BODY_MAX MIB(1)
#define HTTP_HEADERS_MAX KIB(32)
#define HTTP_STREAM_BACKLOG_MAX MIB(1)

struct http_server;
struct http_request;
struct http_stream;

/* How long a client may take, in milliseconds. */
struct http_limits {
    unsigned head_ms;  /* from the connection, or the last answer, to the end of the headers */
    unsigned body_ms;  /* from there to the end of the body */
    unsigned reply_ms; /* to read an answer that is no stream */
    unsigned connections;
};
struct http_config {
    struct loop *loop;
    int listen_fd; /* taken */
    bool local;    /* a unix socket: peers have credentials */
    /* PEM texts; NULL: no TLS. Borrowed until http_server_new returns. */
    const char *certificate, *key;
    struct http_limits limits;
    /* A whole request. Answers it, or keeps it for later. */
    void (*handle)(void *opaque, struct http_request *request);
    /* A client took too long to send one: it was answered with status 408. May be NULL. */
    void (*late)(void *opaque, const char *from, const char *path);
    void *opaque;
};

struct err *http_server_new(const struct http_config *config, struct http_server **server);
/* Ends every stream, answers what is deferred with 503, and closes all connections. */
void http_server_free(struct http_server *server);

/* ---- a request ---- */

const char *http_method(const struct http_request *request);
/* As it was sent, up to the '?'. */
const char *http_path(const struct http_request *request);
/* NULL: absent. */
const char *http_header(const struct http_request *request, const char *name);
/* A decoded value of the query; NULL: absent. Lives as long as the request. */
const char *http_query(struct http_request *request, const char *name);
/* Runs `each` for every name in the query. */
void http_query_names(struct http_request *request, void (*each)(void *opaque, const char *name),
                      void *opaque);
const struct buf *http_body(const struct http_request *request);
/* It was dropped, then. */
bool http_body_is_too_large(const struct http_request *request);
bool http_is_local(const struct http_request *request);
bool http_is_tls(const struct http_request *request);
/* Who is on the other end of a unix socket; false: nobody knows. */
bool http_peer(const struct http_request *request, struct ucred *peer);
/* The same for people: "uid 1000 pid 4711", or an address. */
const char *http_from(const struct http_request *request);
struct loop *http_loop(const struct http_request *request);

/* ---- answers: exactly one a request ---- */

/* A header of the answer that follows. */
void http_answer_header(struct http_request *request, const char *name, const char *value);
/* `bytes` are copied; a `type` of "" is none. */
void http_answer(struct http_request *request, unsigned status, const char *type, const void *bytes,
                 size_t len);

/*
 * An answer without an end. `ended` runs once, when the client has gone, does not read, or the
 * stream was closed; the stream is no more after it. Whether a client is there is seen by writing.
 */
struct http_stream *http_answer_stream(struct http_request *request, const char *type,
                                       void (*ended)(void *opaque), void *opaque);
void http_stream_write(struct http_stream *stream, const void *bytes, size_t len);
void http_stream_close(struct http_stream *stream);

/* A connection that speaks another protocol now; http_upgrade_close closes it. */
struct http_upgrade;
/*
 * Status 101. `taken` gets the socket, which is nonblocking and stays http_upgrade_close's to
 * close, and what the client has sent already; or upgrade NULL, when it has gone before.
 */
void http_answer_upgrade(struct http_request *request, const char *protocol,
                         void (*taken)(void *opaque, struct http_upgrade *upgrade, int fd,
                                       const char *extra, size_t extra_len),
                         void *opaque);
/* What closes it when the server ends first. Whoever takes an upgrade says so at once. */
void http_upgrade_on_end(struct http_upgrade *upgrade, void (*end)(void *opaque), void *opaque);
void http_upgrade_close(struct http_upgrade *upgrade);

#endif
