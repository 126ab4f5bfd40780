/*
 * REST: the screen, as a WebSocket that carries RFB.
 *
 * A tenon-view of its own, in its sandbox, serves each caller; the daemon relays its bytes and
 * looks at none. The VM is asked first, so that one without a screen is told in a sentence.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/socket.h"
#include "daemon/api.h"
#include "daemon/websocket.h"
#include "display/rfb/rfb.h"

#define TYPED_MAX KIB(64)    /* typed, and not yet taken */
#define BACKLOG_MAX KIB(256) /* shown, and not yet taken: then the screen waits */

struct screen_viewer {
    struct session session;
    struct websocket *websocket;
    struct loop_fd watch;
    int fd; /* to tenon-view */
    struct buf typed;
};

/* A tenon-view that runs; it ends by itself when its viewer or its VM has gone. */
struct view_process {
    struct process process;
    struct daemon *daemon;
};

static void on_view_end(void *opaque, uint32_t events)
{
    struct view_process *view = opaque;
    pid_t pid = view->process.pid;

    process_forget(&view->process);
    view->daemon->config.reap(view->daemon->config.opaque, pid);
    free(view);
}

/* ---- one who looks ---- */

static void viewer_free(struct screen_viewer *viewer)
{
    loop_fd_remove(&viewer->watch);
    fd_cleanup(&viewer->fd);
    session_end(&viewer->session);
    buf_fini(&viewer->typed);
    free(viewer);
}

/* The right to it, or the VM, has ended. */
static void hang_up(void *opaque)
{
    struct screen_viewer *viewer = opaque;

    websocket_close(viewer->websocket, 1001);
    viewer_free(viewer);
}

static void watch(struct screen_viewer *viewer)
{
    bool room = websocket_backlog(viewer->websocket) < BACKLOG_MAX;

    loop_fd_modify(&viewer->watch, (room ? EPOLLIN : 0) | (viewer->typed.len ? EPOLLOUT : 0));
}

static void flush_typed(struct screen_viewer *viewer)
{
    struct buf *typed = &viewer->typed;
    ssize_t n = send(viewer->fd, typed->data, typed->len, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n <= 0)
        return; /* its end is seen by reading */
    typed->len -= (size_t)n;
    memmove(typed->data, typed->data + n, typed->len);
}

static void on_message(void *opaque, const uint8_t *bytes, size_t len)
{
    struct screen_viewer *viewer = opaque;

    if (viewer->typed.len + len > TYPED_MAX + WEBSOCKET_MESSAGE_MAX)
        return; /* tenon-view is stuck: nothing that is typed helps */
    buf_append(&viewer->typed, bytes, len);
    flush_typed(viewer);
    watch(viewer);
}

static void on_client_gone(void *opaque)
{
    viewer_free(opaque);
}

static void on_drained(void *opaque)
{
    watch(opaque);
}

static const struct websocket_events websocket_events = {on_message, on_client_gone, on_drained};

static void on_view(void *opaque, uint32_t events)
{
    struct screen_viewer *viewer = opaque;
    uint8_t bytes[32768];

    if (events & EPOLLOUT && viewer->typed.len)
        flush_typed(viewer);
    ssize_t n = recv(viewer->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        hang_up(viewer);
        return;
    }
    if (n > 0)
        websocket_send(viewer->websocket, bytes, (size_t)n);
    watch(viewer);
}

/* ---- opening ---- */

static void on_upgraded(void *opaque, struct http_upgrade *upgrade, int fd, const char *extra,
                        size_t extra_len)
{
    struct api_call *call = opaque;
    struct loop *loop = call->daemon->loop;

    if (upgrade) {
        struct screen_viewer *viewer = xcalloc(1, sizeof(*viewer));
        viewer->fd = call->fd;
        call->fd = -1;
        session_begin(&viewer->session, loop, &call->daemon->sessions, &call->who, hang_up, viewer);
        viewer->websocket =
            websocket_new(loop, upgrade, fd, extra, extra_len, &websocket_events, viewer);
        struct err *err = loop_fd_add(loop, &viewer->watch, viewer->fd, EPOLLIN, on_view, viewer);
        if (!viewer->websocket)
            viewer_free(viewer);
        else if (err)
            hang_up(viewer);
        err_free(err);
    }
    api_answered(call, 101);
}

static struct err *socket_pair(int type, int pair[2])
{
    return socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0
               ? NULL
               : err_errno(errno, "cannot create a socket pair");
}

/* Gives the viewer's socket to a new tenon-view, which gets no other. */
static struct err *start_view(struct api_call *call, int screen_fd, int viewer_fd)
{
    struct daemon *daemon = call->daemon;
    const uint8_t right = call->who.role >= ROLE_OPERATOR ? RFB_CONTROL : RFB_LOOK;
    struct view_process *view;
    int clients[2];
    pid_t pid;

    TRY(socket_pair(SOCK_SEQPACKET, clients));
    struct err *err = socket_send_fd(clients[0], &right, 1, viewer_fd, 0)
                          ? NULL
                          : err_new("cannot hand a viewer over");
    close(clients[0]);
    if (!err)
        err = daemon->config.start_view(daemon->config.opaque, call->argument[0], screen_fd,
                                        clients[1], &pid);
    close(clients[1]);
    TRY(err);
    view = xcalloc(1, sizeof(*view));
    view->daemon = daemon;
    if (!process_watch(&view->process, daemon->loop, pid, 0, on_view_end, view)) {
        /* It has ended already: the viewer's socket says so. */
        daemon->config.reap(daemon->config.opaque, pid);
        free(view);
    }
    return NULL;
}

static void on_shared(void *opaque, const json_t *result, const struct err *err)
{
    struct api_call *call = opaque;

    if (err)
        api_answer_error(call, 409, err_new("VM '%s': %s", call->argument[0], err_text(err)));
    else
        http_answer_upgrade(call->request, "websocket", on_upgraded, call);
}

static struct err *open_screen(struct api_call *call)
{
    char accept[WEBSOCKET_ACCEPT_SIZE];
    int screen[2], viewer[2];

    if (!link_is_ready(call->vm->qmp))
        return err_of(ERR_BUSY, "VM '%s' is %s", call->vm->name, instance_state_text(call->vm));
    if (!websocket_handshake(call->request, accept))
        return err_of(ERR_USAGE, "a screen is a WebSocket of version 13");
    TRY(socket_pair(SOCK_STREAM, viewer));
    call->fd = viewer[0];
    struct err *err = socket_pair(SOCK_SEQPACKET, screen);
    if (!err) {
        err = start_view(call, screen[1], viewer[1]);
        close(screen[1]);
        if (!err) {
            http_answer_header(call->request, "Sec-WebSocket-Accept", accept);
            link_run(call->vm->qmp, "tenon-screen-share", NULL, screen[0], on_shared, call);
        }
        close(screen[0]);
    }
    close(viewer[1]);
    return err;
}

const struct api_handler api_screen_handlers[] = {
    {"openScreen", open_screen},
    {NULL, NULL},
};
