/*
 * A client of QMP that never waits. See link.h; the wire form is QEMU's qmp-spec.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "daemon/link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/socket.h"

#define MESSAGE_MAX MIB(1)
#define ANSWER_NS (30 * NSEC_PER_SEC)

struct command {
    struct list link;
    link_done *done;
    void *opaque;
    uint64_t deadline_ns;
};

struct link {
    struct loop *loop;
    struct loop_fd watch;
    struct loop_timer timer; /* the answer to the first command is overdue */
    int fd;
    bool ready, closed;
    struct buf in;
    struct list commands;             /* sent and not answered, in order */
    const struct link_events *events; /* NULL: freed, and waits for its callers to return */
    void *opaque;
};

struct err *link_connect(int dir_fd, const char *name, int *result)
{
    scoped(free_cleanup) char *path = xasprintf("/proc/self/fd/%d/%s", dir_fd, name);

    *result = socket_connect(path, SOCK_STREAM | SOCK_NONBLOCK);
    return *result < 0 ? err_errno(errno, "cannot connect to '%s'", name) : NULL;
}

static void answer(struct command *command, const json_t *result, const struct err *err)
{
    list_remove(&command->link);
    command->done(command->opaque, result, err);
    free(command);
}

static void fail_all(struct list *commands, const char *why)
{
    struct err *err = err_new("%s", why);

    while (!list_empty(commands))
        answer(list_first(commands, struct command, link), NULL, err);
    err_free(err);
}

static void arm(struct link *link)
{
    if (list_empty(&link->commands))
        loop_timer_cancel(&link->timer);
    else
        loop_timer_arm(&link->timer,
                       list_first(&link->commands, struct command, link)->deadline_ns);
}

static void hang_up(struct link *link, const char *why)
{
    if (link->closed)
        return;
    link->closed = true;
    link->ready = false;
    loop_fd_remove(&link->watch);
    loop_timer_cancel(&link->timer);
    close(link->fd);
    link->fd = -1;
    fail_all(&link->commands, why);
    if (link->events)
        link->events->closed(link->opaque);
}

static void on_timer(void *opaque)
{
    hang_up(opaque, "the VM does not answer");
}

/* ---- messages ---- */

static void on_negotiated(void *opaque, const json_t *result, const struct err *err)
{
    struct link *link = opaque;

    if (err || !link->events)
        return; /* hanging up */
    link->ready = true;
    link->events->ready(link->opaque);
}

static void on_message(struct link *link, const json_t *message)
{
    const json_t *result = json_object_get(message, "return");
    const json_t *error = json_object_get(message, "error");
    const char *event = json_string_value(json_object_get(message, "event"));

    if (event) {
        link->events->event(link->opaque, event, json_object_get(message, "data"));
    } else if (json_object_get(message, "QMP")) {
        link_run(link, "qmp_capabilities", NULL, -1, on_negotiated, link);
    } else if ((result || error) && !list_empty(&link->commands)) {
        const char *text = json_string_value(json_object_get(error, "desc"));
        struct err *err = error ? err_new("%s", text ? text : "the VM refused") : NULL;
        struct command *first = list_first(&link->commands, struct command, link);
        list_remove(&first->link);
        arm(link);
        answer(first, result, err);
        err_free(err);
    }
}

/* Whole lines out of the buffer. */
static void take_lines(struct link *link)
{
    size_t begin = 0;

    while (!link->closed) {
        uint8_t *at = link->in.data + begin;
        uint8_t *end = memchr(at, '\n', link->in.len - begin);
        if (!end)
            break;
        json_t *message = json_loadb((const char *)at, (size_t)(end - at), 0, NULL);
        begin += (size_t)(end - at) + 1;
        if (message)
            on_message(link, message);
        json_decref(message);
    }
    link->in.len -= begin;
    memmove(link->in.data, link->in.data + begin, link->in.len);
}

static void on_socket(void *opaque, uint32_t events)
{
    struct link *link = opaque;
    char bytes[8192];
    ssize_t n = recv(link->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        hang_up(link, "the VM has ended");
    } else if (link->in.len + (size_t)n > MESSAGE_MAX) {
        hang_up(link, "the VM sends nonsense");
    } else {
        buf_append(&link->in, bytes, (size_t)n);
        take_lines(link);
    }
}

/* ---- the owner's side ---- */

struct err *link_new(struct loop *loop, int fd, const struct link_events *events, void *opaque,
                     struct link **result)
{
    struct link *link = xcalloc(1, sizeof(*link));

    link->loop = loop;
    link->fd = fd;
    link->events = events;
    link->opaque = opaque;
    list_init(&link->commands);
    loop_timer_init(loop, &link->timer, on_timer, link);
    struct err *err = loop_fd_add(loop, &link->watch, fd, EPOLLIN, on_socket, link);
    if (err) {
        close(fd);
        free(link);
        return err;
    }
    *result = link;
    return NULL;
}

static void link_destroy(void *opaque)
{
    struct link *link = opaque;

    buf_fini(&link->in);
    free(link);
}

void link_free(struct link *link)
{
    if (!link)
        return;
    link->events = NULL;
    hang_up(link, "the VM has ended");
    loop_post(link->loop, link_destroy, link);
}

bool link_is_ready(const struct link *link)
{
    return link && link->ready;
}

pid_t link_peer(int fd)
{
    struct ucred peer = {0};
    socklen_t len = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0)
        return 0;
    return peer.pid;
}

void link_run(struct link *link, const char *name, json_t *take_arguments, int fd, link_done *done,
              void *opaque)
{
    json_t *request = json_pack("{s:s, s:o*}", "execute", name, "arguments", take_arguments);
    char *text = json_dumps(request, JSON_COMPACT);

    json_decref(request);
    /* Commands are short: a socket that cannot take one has a dead reader, and no time left. */
    bool sent = !link->closed && socket_send_fd(link->fd, text, strlen(text), fd, MSG_DONTWAIT);
    struct command *command = xcalloc(1, sizeof(*command));
    command->done = done;
    command->opaque = opaque;
    command->deadline_ns = sent ? clock_now_ns() + ANSWER_NS : 0;
    list_append(&link->commands, &command->link);
    if (sent)
        arm(link);
    else
        loop_timer_arm(&link->timer, 0);
    free(text);
}
