/*
 * A viewer's connection: socket, TLS, and the session above them. See server.h.
 *
 * While output waits for the viewer, nothing of it is read: who does not take what it asked for
 * cannot ask for more, and memory stays bounded.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "display/rfb/server_internal.h"

#define LOGIN_NS (30 * NSEC_PER_SEC) /* to be let in */
#define REFUSE_NS (1 * NSEC_PER_SEC) /* until a wrong password is told */
#define ROUNDS_MAX 16                /* then others get their turn */
#define PRIORITIES_ANONYMOUS "NORMAL:-VERS-TLS1.3:+ANON-ECDH:+ANON-DH"
#define PRIORITIES_CERTIFICATE "NORMAL"

struct rfb_connection {
    struct list link;
    struct rfb_server *server;
    struct rfb_access access;
    struct rfb_session *session;
    struct loop_fd watch;
    struct loop_timer timer;
    int fd;
    gnutls_session_t tls; /* NULL: plain */
    bool handshaking, refused;
    struct buf in;
};

void rfb_connection_free(struct rfb_connection *connection)
{
    struct rfb_server *server = connection->server;

    list_remove(&connection->link);
    server->connection_count--;
    rfb_session_free(connection->session);
    loop_timer_cancel(&connection->timer);
    loop_fd_remove(&connection->watch);
    if (connection->tls)
        gnutls_deinit(connection->tls);
    close(connection->fd);
    buf_fini(&connection->in);
    free(connection);
}

struct rfb_connection *rfb_connection_first(struct rfb_server *server)
{
    return list_empty(&server->connections)
               ? NULL
               : list_first(&server->connections, struct rfb_connection, link);
}

/* ---- bytes ---- */

/* As recv(2) and send(2): -EAGAIN waits, 0 and other errors end. */
static ssize_t tls_result(ssize_t n)
{
    return n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED ? -EAGAIN : n < 0 ? -EPROTO : n;
}

static ssize_t receive(struct rfb_connection *connection, void *bytes, size_t len)
{
    if (connection->tls)
        return tls_result(gnutls_record_recv(connection->tls, bytes, len));
    ssize_t n = recv(connection->fd, bytes, len, MSG_DONTWAIT);
    return n < 0 ? (errno == EINTR ? -EAGAIN : -errno) : n;
}

static ssize_t transmit(struct rfb_connection *connection, const void *bytes, size_t len)
{
    if (connection->tls)
        return tls_result(gnutls_record_send(connection->tls, bytes, len));
    ssize_t n = send(connection->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    return n < 0 ? (errno == EINTR ? -EAGAIN : -errno) : n;
}

/* Sends what the session has to say; false: the viewer has gone. */
static bool flush(struct rfb_connection *connection)
{
    struct buf *out = rfb_session_output(connection->session);
    size_t sent = 0;
    ssize_t n = 0;

    while (sent < out->len) {
        n = transmit(connection, out->data + sent, out->len - sent);
        if (n <= 0)
            break;
        sent += (size_t)n;
    }
    out->len -= sent;
    memmove(out->data, out->data + sent, out->len);
    return n >= 0 || n == -EAGAIN;
}

/* ---- TLS ---- */

static struct err *begin_tls(struct rfb_connection *connection)
{
    struct rfb_server *server = connection->server;
    bool certificate = connection->access.certificate;

    /* What came before the handshake was not protected: nobody may have put it there. */
    if (connection->in.len)
        return err_new("it did not wait for TLS");
    if (gnutls_init(&connection->tls, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) < 0)
        return err_new("no TLS session");
    int result = gnutls_priority_set_direct(
        connection->tls, certificate ? PRIORITIES_CERTIFICATE : PRIORITIES_ANONYMOUS, NULL);
    if (result == 0 && certificate)
        result =
            gnutls_credentials_set(connection->tls, GNUTLS_CRD_CERTIFICATE, server->certificate);
    else if (result == 0)
        result = gnutls_credentials_set(connection->tls, GNUTLS_CRD_ANON, server->anonymous);
    if (result < 0)
        return err_new("TLS: %s", gnutls_strerror(result));
    gnutls_transport_set_int(connection->tls, connection->fd);
    connection->handshaking = true;
    return NULL;
}

static struct err *shake_hands(struct rfb_connection *connection)
{
    int result = gnutls_handshake(connection->tls);

    if (result == GNUTLS_E_SUCCESS) {
        connection->handshaking = false;
        return rfb_session_has_tls(connection->session);
    }
    return gnutls_error_is_fatal(result) ? err_new("TLS: %s", gnutls_strerror(result)) : NULL;
}

/* ---- serving ---- */

static void watch(struct rfb_connection *connection)
{
    bool sending = rfb_session_output(connection->session)->len;

    if (connection->handshaking)
        sending = gnutls_record_get_direction(connection->tls);
    loop_fd_modify(&connection->watch, sending ? EPOLLOUT : EPOLLIN);
}

/* One round: handshake or messages, and the answers. *again: more may be there already. */
static struct err *serve(struct rfb_connection *connection, bool *again)
{
    struct rfb_session *session = connection->session;
    uint8_t bytes[4096];

    *again = false;
    if (!flush(connection))
        return err_new("it has gone");
    if (rfb_session_output(session)->len)
        return NULL;
    if (rfb_session_wants_tls(session) && !connection->tls)
        TRY(begin_tls(connection));
    if (connection->handshaking) {
        TRY(shake_hands(connection));
        *again = !connection->handshaking;
        return NULL;
    }
    ssize_t n = receive(connection, bytes, sizeof(bytes));
    if (n == -EAGAIN)
        return NULL;
    if (n <= 0)
        return err_new("it has gone");
    *again = true;
    buf_append(&connection->in, bytes, (size_t)n);
    TRY(rfb_session_input(session, &connection->in));
    if (rfb_session_right(session))
        loop_timer_cancel(&connection->timer);
    return NULL;
}

/* What is left to say; false: the viewer is no more. */
static bool send_rest(struct rfb_connection *connection)
{
    if (flush(connection)) {
        watch(connection);
        return true;
    }
    rfb_connection_free(connection);
    return false;
}

/* Guessing passwords takes its time. */
static void end(struct rfb_connection *connection, struct err *take_err)
{
    log_debug("a viewer was sent away: %s", err_text(take_err));
    connection->refused = err_kind(take_err) == ERR_DENIED;
    err_free(take_err);
    if (connection->refused) {
        loop_fd_modify(&connection->watch, 0);
        loop_timer_arm(&connection->timer, clock_now_ns() + REFUSE_NS);
        return;
    }
    flush(connection);
    rfb_connection_free(connection);
}

static void on_socket(void *opaque, uint32_t events)
{
    struct rfb_connection *connection = opaque;
    struct rfb_server *server = connection->server;
    bool again = !(connection->refused && events);

    if (!again) { /* it hung up instead of waiting for the answer */
        rfb_connection_free(connection);
        rfb_server_gone(server);
        return;
    }
    for (unsigned i = 0; again && i < ROUNDS_MAX; i++) {
        struct err *err = serve(connection, &again);
        if (err) {
            end(connection, err);
            rfb_server_gone(server);
            return;
        }
    }
    if (!send_rest(connection))
        rfb_server_gone(server);
    else if (again)
        loop_fd_modify(&connection->watch, EPOLLIN | EPOLLOUT); /* TLS may have the rest */
    rfb_server_wanted(server);
}

static void on_timer(void *opaque)
{
    struct rfb_connection *connection = opaque;
    struct rfb_server *server = connection->server;

    flush(connection);
    rfb_connection_free(connection);
    rfb_server_gone(server);
}

/* ---- the server's side ---- */

static void on_key(void *opaque, uint8_t key, bool down)
{
    struct rfb_connection *connection = opaque;
    rfb_server_key(connection->server, key, down);
}

static void on_pointer(void *opaque, uint8_t buttons, int8_t wheel, uint16_t x, uint16_t y)
{
    struct rfb_connection *connection = opaque;
    rfb_server_pointer(connection->server, buttons, wheel, x, y);
}

static const struct rfb_events session_events = {on_key, on_pointer};

void rfb_connection_new(struct rfb_server *server, int take_fd, const struct rfb_access *access)
{
    struct rfb_connection *connection;
    int on = 1;

    if (server->connection_count == RFB_CONNECTIONS_MAX) {
        log_warn("a viewer was sent away: there are %d already", RFB_CONNECTIONS_MAX);
        close(take_fd);
        return;
    }
    connection = xcalloc(1, sizeof(*connection));
    connection->server = server;
    connection->fd = take_fd;
    connection->access = *access;
    connection->session = rfb_session_new(&connection->access, &server->screen, server->config.name,
                                          &session_events, connection);
    list_append(&server->connections, &connection->link);
    server->connection_count++;
    setsockopt(take_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* unix sockets have no delay */
    loop_timer_init(server->config.loop, &connection->timer, on_timer, connection);
    loop_timer_arm(&connection->timer, clock_now_ns() + LOGIN_NS);
    struct err *err = loop_fd_add(server->config.loop, &connection->watch, take_fd,
                                  EPOLLIN | EPOLLOUT, on_socket, connection);
    if (err) {
        log_warn("%s", err_text(err));
        err_free(err);
        rfb_connection_free(connection);
    }
}

void rfb_connections_changed(struct rfb_server *server, const struct surface_rect *rects,
                             unsigned count, bool all)
{
    struct rfb_connection *connection;

    list_for_each (connection, &server->connections, link) {
        if (all)
            rfb_session_changed(connection->session, NULL);
        for (unsigned i = 0; i < count; i++)
            rfb_session_changed(connection->session, &rects[i]);
        if (connection->handshaking || connection->refused)
            continue;
        /* Who has not taken the last one gets no other. */
        if (!rfb_session_output(connection->session)->len)
            rfb_session_update(connection->session);
        send_rest(connection);
    }
}

bool rfb_connections_wait(const struct rfb_server *server)
{
    struct rfb_connection *connection;

    list_for_each (connection, &server->connections, link)
        if (rfb_session_is_waiting(connection->session))
            return true;
    return false;
}
