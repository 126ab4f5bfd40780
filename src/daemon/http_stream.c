/*
 * Answers that go on: streams of bytes, and connections that change their protocol. See http.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/http_internal.h"

#define CLOSE_NS NSEC_PER_SEC

struct http_stream {
    struct list link;
    struct http_server *server;
    struct MHD_Connection *handle;
    struct http_connection *connection;
    struct buf out;
    size_t sent;
    bool suspended, closed;
    void (*ended)(void *opaque);
    void *opaque;
};

struct http_upgrade {
    struct list link; /* once it is there */
    struct http_server *server;
    struct MHD_UpgradeResponseHandle *handle;
    void (*taken)(void *opaque, struct http_upgrade *upgrade, int fd, const char *extra,
                  size_t extra_len);
    void *opaque;
    void (*end)(void *opaque);
    void *end_opaque;
};

static ssize_t stream_read(void *opaque, uint64_t position, char *bytes, size_t room)
{
    struct http_stream *stream = opaque;
    size_t len = MIN(stream->out.len - stream->sent, room);

    if (!stream->closed)
        loop_timer_cancel(&stream->connection->deadline);
    if (len) {
        memcpy(bytes, stream->out.data + stream->sent, len);
        stream->sent += len;
        if (stream->sent == stream->out.len)
            stream->sent = stream->out.len = 0;
        return (ssize_t)len;
    }
    if (stream->closed)
        return MHD_CONTENT_READER_END_OF_STREAM;
    stream->suspended = true;
    MHD_suspend_connection(stream->handle);
    return 0;
}

static void stream_resume(struct http_stream *stream)
{
    if (!stream->suspended)
        return;
    stream->suspended = false;
    MHD_resume_connection(stream->handle);
    http_server_kick(stream->server);
}

static void stream_free(void *opaque)
{
    struct http_stream *stream = opaque;

    list_remove(&stream->link);
    if (stream->ended)
        stream->ended(stream->opaque);
    buf_fini(&stream->out);
    free(stream);
}

struct http_stream *http_answer_stream(struct http_request *request, const char *type,
                                       void (*ended)(void *opaque), void *opaque)
{
    struct http_stream *stream = xcalloc(1, sizeof(*stream));
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 4096, stream_read, stream, stream_free);

    stream->server = request->server;
    stream->handle = request->handle;
    stream->connection = request->connection;
    stream->ended = ended;
    stream->opaque = opaque;
    list_append(&request->server->streams, &stream->link);
    MHD_add_response_header(response, "Content-Type", type);
    MHD_add_response_header(response, "Cache-Control", "no-store");
    http_request_ready(request, 200, response);
    return stream;
}

void http_stream_write(struct http_stream *stream, const void *bytes, size_t len)
{
    if (stream->closed)
        return;
    if (stream->out.len - stream->sent + len > HTTP_STREAM_BACKLOG_MAX) {
        stream->out.len = stream->sent = 0;
        http_stream_close(stream);
        return;
    }
    buf_append(&stream->out, bytes, len);
    stream_resume(stream);
}

void http_stream_close(struct http_stream *stream)
{
    if (stream->closed)
        return;
    stream->closed = true;
    /* A client that does not read what is left would keep it for ever. */
    loop_timer_arm(&stream->connection->deadline, clock_now_ns() + CLOSE_NS);
    stream_resume(stream);
}

void http_streams_end(struct http_server *server)
{
    struct http_stream *stream;

    list_for_each (stream, &server->streams, link)
        http_stream_close(stream);
    while (!list_empty(&server->upgrades)) {
        struct http_upgrade *upgrade = list_first(&server->upgrades, struct http_upgrade, link);
        upgrade->end(upgrade->end_opaque);
    }
}

/* ---- other protocols ---- */

static void on_upgrade(void *opaque, struct MHD_Connection *handle, void *context,
                       const char *extra, size_t extra_len, MHD_socket fd,
                       struct MHD_UpgradeResponseHandle *upgrade_handle)
{
    struct http_upgrade *upgrade = opaque;
    struct http_request *request = context;

    request->upgrade = NULL;
    upgrade->handle = upgrade_handle;
    list_append(&upgrade->server->upgrades, &upgrade->link);
    upgrade->taken(upgrade->opaque, upgrade, fd, extra, extra_len);
}

void http_answer_upgrade(struct http_request *request, const char *protocol,
                         void (*taken)(void *opaque, struct http_upgrade *upgrade, int fd,
                                       const char *extra, size_t extra_len),
                         void *opaque)
{
    struct http_upgrade *upgrade = xcalloc(1, sizeof(*upgrade));
    struct MHD_Response *response = MHD_create_response_for_upgrade(on_upgrade, upgrade);

    upgrade->server = request->server;
    upgrade->taken = taken;
    upgrade->opaque = opaque;
    request->upgrade = upgrade;
    MHD_add_response_header(response, "Upgrade", protocol);
    http_request_ready(request, 101, response);
}

void http_upgrade_lost(struct http_upgrade *upgrade)
{
    upgrade->taken(upgrade->opaque, NULL, -1, NULL, 0);
    free(upgrade);
}

void http_upgrade_on_end(struct http_upgrade *upgrade, void (*end)(void *opaque), void *opaque)
{
    upgrade->end = end;
    upgrade->end_opaque = opaque;
}

void http_upgrade_close(struct http_upgrade *upgrade)
{
    struct http_server *server = upgrade->server;

    list_remove(&upgrade->link);
    MHD_upgrade_action(upgrade->handle, MHD_UPGRADE_ACTION_CLOSE);
    free(upgrade);
    http_server_kick(server);
}
