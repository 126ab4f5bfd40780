/*
 * WebSocket over libwslay. See websocket.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "daemon/websocket.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <wslay/wslay.h>

#include "base/buf.h"
#include "base/clock.h"

struct websocket {
    struct loop *loop;
    struct http_upgrade *upgrade;
    struct loop_fd watch;
    int fd;
    wslay_event_context_ptr context;
    struct buf extra; /* came with the handshake */
    bool ended;
    uint16_t closing; /* the code, once its owner has closed it and bytes still wait */
    struct loop_timer limit;
    const struct websocket_events *events;
    void *opaque;
};

void websocket_accept(const char *key, char accept[WEBSOCKET_ACCEPT_SIZE])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    unsigned char hash[SHA_DIGEST_LENGTH];
    scoped(free_cleanup) char *text = xasprintf("%s%s", key, guid);

    SHA1((const unsigned char *)text, strlen(text), hash);
    EVP_EncodeBlock((unsigned char *)accept, hash, sizeof(hash));
}

bool websocket_handshake(const struct http_request *request, char accept[WEBSOCKET_ACCEPT_SIZE])
{
    const char *upgrade = http_header(request, "Upgrade");
    const char *key = http_header(request, "Sec-WebSocket-Key");
    const char *version = http_header(request, "Sec-WebSocket-Version");

    if (!upgrade || strcasecmp(upgrade, "websocket") != 0 || !key || strlen(key) != 24 ||
        !version || strcmp(version, "13") != 0)
        return false;
    websocket_accept(key, accept);
    return true;
}

/* ---- what the library asks ---- */

static ssize_t io_result(wslay_event_context_ptr context, ssize_t n)
{
    if (n > 0)
        return n;
    wslay_event_set_error(context, n < 0 && (errno == EAGAIN || errno == EINTR)
                                       ? WSLAY_ERR_WOULDBLOCK
                                       : WSLAY_ERR_CALLBACK_FAILURE);
    return -1;
}

static ssize_t on_receive(wslay_event_context_ptr context, uint8_t *bytes, size_t len, int flags,
                          void *opaque)
{
    struct websocket *websocket = opaque;
    struct buf *extra = &websocket->extra;

    if (!extra->len)
        return io_result(context, recv(websocket->fd, bytes, len, MSG_DONTWAIT));
    len = MIN(len, extra->len);
    memcpy(bytes, extra->data, len);
    buf_drop(extra, len);
    return (ssize_t)len;
}

static ssize_t on_send(wslay_event_context_ptr context, const uint8_t *bytes, size_t len, int flags,
                       void *opaque)
{
    const struct websocket *websocket = opaque;

    return io_result(context, send(websocket->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL));
}

static void on_message(wslay_event_context_ptr context,
                       const struct wslay_event_on_msg_recv_arg *message, void *opaque)
{
    const struct websocket *websocket = opaque;

    if (!websocket->ended && !websocket->closing && !wslay_is_ctrl_frame(message->opcode))
        websocket->events->message(websocket->opaque, message->msg, message->msg_length);
}

/* ---- life ---- */

static void destroy(void *opaque)
{
    struct websocket *websocket = opaque;

    loop_fd_remove(&websocket->watch);
    loop_timer_cancel(&websocket->limit);
    wslay_event_context_free(websocket->context);
    http_upgrade_close(websocket->upgrade);
    buf_fini(&websocket->extra);
    free(websocket);
}

/* We may be inside of the library: the rest comes with the loop's next round. */
static void end(struct websocket *websocket)
{
    websocket->ended = true;
    loop_fd_remove(&websocket->watch);
    loop_timer_cancel(&websocket->limit);
    loop_post(websocket->loop, destroy, websocket);
}

/* The library would send a close frame before the messages that wait: they come first. */
static void finish(struct websocket *websocket)
{
    wslay_event_context_ptr context = websocket->context;

    if (wslay_event_send(context) == 0 && wslay_event_want_write(context)) {
        loop_fd_modify(&websocket->watch, EPOLLIN | EPOLLOUT);
        return;
    }
    wslay_event_queue_close(context, websocket->closing, NULL, 0);
    wslay_event_send(context);
    end(websocket);
}

/* The client does not read what waits for it. */
static void on_limit(void *opaque)
{
    end(opaque);
}

static void serve(struct websocket *websocket, bool readable)
{
    wslay_event_context_ptr context = websocket->context;
    bool good = !readable || wslay_event_recv(context) == 0;

    if (websocket->ended)
        return;
    if (websocket->closing) {
        if (good)
            finish(websocket);
        else
            end(websocket);
        return;
    }
    good = good && wslay_event_send(context) == 0 &&
           wslay_event_get_queued_msg_length(context) <= WEBSOCKET_BACKLOG_MAX;
    if (good && (wslay_event_want_read(context) || wslay_event_want_write(context))) {
        loop_fd_modify(&websocket->watch,
                       EPOLLIN | (wslay_event_want_write(context) ? EPOLLOUT : 0));
        if (!wslay_event_want_write(context) && websocket->events->drained)
            websocket->events->drained(websocket->opaque);
        return;
    }
    end(websocket);
    websocket->events->ended(websocket->opaque);
}

static void on_socket(void *opaque, uint32_t events)
{
    serve(opaque, events & (EPOLLIN | EPOLLHUP | EPOLLERR));
}

static void serve_extra(void *opaque)
{
    struct websocket *websocket = opaque;

    if (!websocket->ended)
        serve(websocket, true);
}

struct websocket *websocket_new(struct loop *loop, struct http_upgrade *upgrade, int fd,
                                const char *extra, size_t extra_len,
                                const struct websocket_events *events, void *opaque)
{
    static const struct wslay_event_callbacks callbacks = {
        .recv_callback = on_receive,
        .send_callback = on_send,
        .on_msg_recv_callback = on_message,
    };
    struct websocket *websocket = xcalloc(1, sizeof(*websocket));

    websocket->loop = loop;
    websocket->upgrade = upgrade;
    websocket->fd = fd;
    websocket->events = events;
    websocket->opaque = opaque;
    buf_append(&websocket->extra, extra, extra_len);
    loop_timer_init(loop, &websocket->limit, on_limit, websocket);
    http_upgrade_on_end(upgrade, destroy, websocket);
    wslay_event_context_server_init(&websocket->context, &callbacks, websocket);
    wslay_event_config_set_max_recv_msg_length(websocket->context, WEBSOCKET_MESSAGE_MAX);
    struct err *err = loop_fd_add(loop, &websocket->watch, fd, EPOLLIN, on_socket, websocket);
    if (err) {
        err_free(err);
        end(websocket);
        return NULL;
    }
    if (extra_len)
        loop_post(loop, serve_extra, websocket);
    return websocket;
}

void websocket_send(struct websocket *websocket, const void *bytes, size_t len)
{
    const struct wslay_event_msg message = {WSLAY_BINARY_FRAME, bytes, len};

    if (websocket->ended || websocket->closing ||
        wslay_event_queue_msg(websocket->context, &message) != 0)
        return;
    /* Sent by the loop: several pieces of output become one write, and nothing ends in here. */
    loop_fd_modify(&websocket->watch, EPOLLIN | EPOLLOUT);
}

size_t websocket_backlog(const struct websocket *websocket)
{
    return wslay_event_get_queued_msg_length(websocket->context);
}

void websocket_close(struct websocket *websocket, uint16_t code)
{
    if (websocket->ended)
        return;
    websocket->closing = code;
    loop_timer_arm(&websocket->limit, clock_now_ns() + WEBSOCKET_CLOSE_MS * NSEC_PER_MSEC);
    finish(websocket);
}
