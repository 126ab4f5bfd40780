/*
 * HTTP/1.1 (RFC 9112) over libmicrohttpd. See http.h.
 *
 * The library runs without threads: its epoll descriptor is one of our loop's. A request whose
 * answer takes time is suspended meanwhile. The library bounds idleness only, so each connection
 * has a deadline of ours: at its end the socket is shut down, which the library sees as the end of
 * the client.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "daemon/http.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/http_internal.h"

#define IDLE_S 60 /* the library's own, behind our deadlines */

/* ---- the loop ---- */

static void server_run(struct http_server *server)
{
    MHD_UNSIGNED_LONG_LONG timeout_ms;

    server->kicked = false;
    MHD_run(server->daemon);
    if (server->kicked) /* by a handler: after the library looked at what was resumed */
        loop_timer_arm(&server->timer, 0);
    else if (MHD_get_timeout(server->daemon, &timeout_ms) == MHD_YES)
        loop_timer_arm(&server->timer, clock_now_ns() + timeout_ms * NSEC_PER_MSEC);
    else
        loop_timer_cancel(&server->timer);
}

static void on_epoll(void *opaque, uint32_t events)
{
    server_run(opaque);
}

static void on_timer(void *opaque)
{
    server_run(opaque);
}

void http_server_kick(struct http_server *server)
{
    if (server->kicked || server->ending)
        return;
    server->kicked = true;
    loop_timer_arm(&server->timer, 0);
}

/* ---- connections ---- */

/* At its start: a peer that has gone has no address. */
static void note_peer(struct http_connection *connection)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof(address), peer_len = sizeof(struct ucred);
    char name[48];
    struct ucred peer;

    if (connection->server->config.local &&
        getsockopt(connection->fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_len) == 0)
        snprintf(connection->from, sizeof(connection->from), "uid %u pid %d", (unsigned)peer.uid,
                 (int)peer.pid);
    else if (getpeername(connection->fd, (struct sockaddr *)&address, &len) == 0 &&
             getnameinfo((struct sockaddr *)&address, len, name, sizeof(name), NULL, 0,
                         NI_NUMERICHOST) == 0)
        snprintf(connection->from, sizeof(connection->from), "%s", name);
    else
        snprintf(connection->from, sizeof(connection->from), "unknown");
}

/* The library cannot answer half a request. Through TLS nobody can but the library. */
static void answer_late(struct http_connection *connection)
{
    static const char answer[] = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n"
                                 "Content-Type: application/problem+json\r\n\r\n"
                                 "{\"type\":\"about:blank\",\"title\":\"Request Timeout\","
                                 "\"status\":408,\"detail\":\"the request took too long\"}";
    const struct http_config *config = &connection->server->config;

    if (!config->certificate)
        send(connection->fd, answer, sizeof(answer) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (config->late)
        config->late(config->opaque, connection->from, connection->arriving);
}

static void on_deadline(void *opaque)
{
    struct http_connection *connection = opaque;

    if (connection->arriving)
        answer_late(connection);
    shutdown(connection->fd, SHUT_RDWR);
}

static void connection_allow(struct http_connection *connection, unsigned ms)
{
    if (ms)
        loop_timer_arm(&connection->deadline, clock_now_ns() + ms * NSEC_PER_MSEC);
    else
        loop_timer_cancel(&connection->deadline);
}

static void on_connection(void *opaque, struct MHD_Connection *handle, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http_server *server = opaque;
    struct http_connection *connection = *context;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(handle, MHD_CONNECTION_INFO_CONNECTION_FD);
        connection = xcalloc(1, sizeof(*connection));
        connection->server = server;
        connection->fd = info->connect_fd;
        note_peer(connection);
        loop_timer_init(server->config.loop, &connection->deadline, on_deadline, connection);
        connection_allow(connection, server->config.limits.head_ms);
        *context = connection;
    } else if (connection) {
        loop_timer_cancel(&connection->deadline);
        free(connection->arriving);
        free(connection);
    }
}

static struct http_connection *connection_of(struct MHD_Connection *handle)
{
    return MHD_get_connection_info(handle, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

/* The first line of a request is there. */
static void *on_first_line(void *opaque, const char *path, struct MHD_Connection *handle)
{
    struct http_connection *connection = connection_of(handle);

    free(connection->arriving);
    connection->arriving = xasprintf("%.200s", path);
    return NULL;
}

static void connection_arrived(struct http_connection *connection)
{
    connection_allow(connection, 0);
    free(connection->arriving);
    connection->arriving = NULL;
}

/* ---- requests ---- */

static struct http_request *request_new(struct http_server *server, struct MHD_Connection *handle,
                                        const char *method, const char *path)
{
    struct http_request *request = xcalloc(1, sizeof(*request));

    request->server = server;
    request->handle = handle;
    request->connection = connection_of(handle);
    request->method = xstrdup(method);
    request->path = xstrdup(path);
    list_init(&request->values);
    list_append(&server->requests, &request->link);
    return request;
}

static void request_free(struct http_request *request)
{
    list_remove(&request->link);
    while (!list_empty(&request->values)) {
        struct http_value *value = list_first(&request->values, struct http_value, link);
        list_remove(&value->link);
        free(value);
    }
    while (request->header_count) {
        char **header = request->header[--request->header_count];
        free(header[0]);
        free(header[1]);
    }
    if (request->response)
        MHD_destroy_response(request->response);
    buf_fini(&request->body);
    free(request->method);
    free(request->path);
    free(request);
}

static enum MHD_Result queue(struct http_request *request)
{
    struct MHD_Response *response = request->response;

    for (unsigned i = 0; i < request->header_count; i++)
        MHD_add_response_header(response, request->header[i][0], request->header[i][1]);
    request->response = NULL;
    if (!request->upgrade)
        connection_allow(request->connection, request->server->config.limits.reply_ms);
    enum MHD_Result result = MHD_queue_response(request->handle, request->status, response);
    MHD_destroy_response(response);
    return result;
}

void http_request_ready(struct http_request *request, unsigned status,
                        struct MHD_Response *take_response)
{
    request->status = status;
    request->response = take_response;
    if (!request->suspended)
        return;
    request->suspended = false;
    MHD_resume_connection(request->handle);
    http_server_kick(request->server);
}

static bool announces_too_much(const struct http_request *request)
{
    const char *length = http_header(request, "Content-Length");

    return length && (strlen(length) > 9 || strtoull(length, NULL, 10) > HTTP_BODY_MAX);
}

static void take_body(struct http_request *request, const char *bytes, size_t len)
{
    request->too_large |= request->body.len + len > HTTP_BODY_MAX;
    if (!request->too_large)
        buf_append(&request->body, bytes, len);
}

/*
 * The library calls this once with the headers, then with each piece of the body, then at its end,
 * and again after a suspension.
 */
static enum MHD_Result on_access(void *opaque, struct MHD_Connection *handle, const char *path,
                                 const char *method, const char *version, const char *bytes,
                                 size_t *len, void **context)
{
    struct http_server *server = opaque;
    struct http_request *request = *context;

    if (!request) {
        *context = request = request_new(server, handle, method, path);
        connection_allow(request->connection, server->config.limits.body_ms);
        request->too_large = announces_too_much(request);
        if (!request->too_large)
            return MHD_YES;
    }
    if (*len) {
        take_body(request, bytes, *len);
        *len = 0;
        return MHD_YES;
    }
    if (!request->handled) {
        request->handled = true;
        connection_arrived(request->connection);
        server->config.handle(server->config.opaque, request);
    }
    if (request->response)
        return queue(request);
    request->suspended = true;
    MHD_suspend_connection(handle);
    return MHD_YES;
}

static void on_completed(void *opaque, struct MHD_Connection *handle, void **context,
                         enum MHD_RequestTerminationCode code)
{
    struct http_request *request = *context;

    if (!request)
        return;
    connection_allow(request->connection, request->server->config.limits.head_ms);
    if (request->upgrade)
        http_upgrade_lost(request->upgrade);
    request_free(request);
    *context = NULL;
}

/* Values are decoded by those who want them. */
static size_t leave_escaped(void *opaque, struct MHD_Connection *handle, char *text)
{
    return strlen(text);
}

static void on_library_log(void *opaque, const char *format, va_list args)
{
    char text[300];

    vsnprintf(text, sizeof(text), format, args);
    text[strcspn(text, "\n")] = 0;
    log_debug("http: %s", text);
}

/* ---- what a request says ---- */

const char *http_method(const struct http_request *request)
{
    return request->method;
}

const char *http_path(const struct http_request *request)
{
    return request->path;
}

const char *http_header(const struct http_request *request, const char *name)
{
    return MHD_lookup_connection_value(request->handle, MHD_HEADER_KIND, name);
}

const char *http_query(struct http_request *request, const char *name)
{
    const char *text = MHD_lookup_connection_value(request->handle, MHD_GET_ARGUMENT_KIND, name);

    if (!text)
        return NULL;
    struct http_value *value = xcalloc(1, sizeof(*value) + strlen(text) + 1);
    strcpy(value->text, text);
    MHD_http_unescape(value->text);
    list_append(&request->values, &value->link);
    return value->text;
}

struct query_each {
    void (*each)(void *opaque, const char *name);
    void *opaque;
};

static enum MHD_Result on_query(void *opaque, enum MHD_ValueKind kind, const char *name,
                                const char *value)
{
    const struct query_each *each = opaque;

    each->each(each->opaque, name);
    return MHD_YES;
}

void http_query_names(struct http_request *request, void (*each)(void *opaque, const char *name),
                      void *opaque)
{
    struct query_each query = {each, opaque};

    MHD_get_connection_values(request->handle, MHD_GET_ARGUMENT_KIND, on_query, &query);
}

const struct buf *http_body(const struct http_request *request)
{
    return &request->body;
}

bool http_body_is_too_large(const struct http_request *request)
{
    return request->too_large;
}

bool http_is_local(const struct http_request *request)
{
    return request->server->config.local;
}

bool http_is_tls(const struct http_request *request)
{
    return request->server->config.certificate != NULL;
}

bool http_peer(const struct http_request *request, struct ucred *peer)
{
    socklen_t len = sizeof(*peer);

    return request->server->config.local &&
           getsockopt(request->connection->fd, SOL_SOCKET, SO_PEERCRED, peer, &len) == 0;
}

const char *http_from(const struct http_request *request)
{
    return request->connection->from;
}

struct loop *http_loop(const struct http_request *request)
{
    return request->server->config.loop;
}

/* ---- answers ---- */

void http_answer_header(struct http_request *request, const char *name, const char *value)
{
    if (request->header_count == ARRAY_SIZE(request->header))
        return;
    char **header = request->header[request->header_count++];
    header[0] = xstrdup(name);
    header[1] = xstrdup(value);
}

void http_answer(struct http_request *request, unsigned status, const char *type, const void *bytes,
                 size_t len)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        len, (void *)(uintptr_t)(len ? bytes : ""), MHD_RESPMEM_MUST_COPY);

    if (*type)
        MHD_add_response_header(response, "Content-Type", type);
    http_request_ready(request, status, response);
}

/* ---- the server ---- */

struct err *http_server_new(const struct http_config *config, struct http_server **result)
{
    struct http_server *server = xcalloc(1, sizeof(*server));
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE |
                     MHD_USE_ERROR_LOG | (config->certificate ? MHD_USE_TLS : 0);
    const struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)config->certificate},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)config->key},
        {MHD_OPTION_END, 0, NULL},
    };

    server->config = *config;
    list_init(&server->requests);
    list_init(&server->streams);
    list_init(&server->upgrades);
    loop_timer_init(config->loop, &server->timer, on_timer, server);
    server->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_access, server, MHD_OPTION_EXTERNAL_LOGGER, on_library_log, NULL,
        MHD_OPTION_LISTEN_SOCKET, config->listen_fd, MHD_OPTION_CONNECTION_LIMIT,
        config->limits.connections, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_HEADERS_MAX, MHD_OPTION_STRICT_FOR_CLIENT,
        1, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, NULL,
        MHD_OPTION_URI_LOG_CALLBACK, on_first_line, server, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, server, MHD_OPTION_NOTIFY_CONNECTION, on_connection, server, MHD_OPTION_ARRAY,
        config->certificate ? tls : tls + 2, MHD_OPTION_END);
    if (!server->daemon) {
        close(config->listen_fd);
        free(server);
        return config->certificate
                   ? err_of(ERR_USAGE, "cannot serve TLS: certificate and key do not fit together")
                   : err_new("cannot start the HTTP server");
    }
    int epoll_fd = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    struct err *err =
        loop_fd_add(config->loop, &server->watch, epoll_fd, EPOLLIN, on_epoll, server);
    if (err) {
        http_server_free(server);
        return err;
    }
    *result = server;
    return NULL;
}

void http_server_free(struct http_server *server)
{
    struct http_request *request;

    if (!server)
        return;
    http_streams_end(server);
    list_for_each (request, &server->requests, link)
        if (request->suspended)
            http_answer(request, 503, "text/plain", "tenond ends\n", 12);
    server->ending = true;
    /* What was resumed must be out before the library may stop. */
    for (int round = 0; round < 3; round++)
        MHD_run(server->daemon);
    loop_fd_remove(&server->watch);
    loop_timer_cancel(&server->timer);
    MHD_stop_daemon(server->daemon);
    free(server);
}
