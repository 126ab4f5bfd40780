/*
 * QMP server: clients, framing, dispatch, events. Wire form: docs/interop/qmp-spec of QEMU.
 *
 * All on the server's loop. A client can go at any send, also in the middle of a command of another
 * client: it is only marked dead there, and freed when the outermost call into this file ends.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "ctl/qmp.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "ctl/frame.h"

struct qmp_client {
    struct list link;
    struct qmp_server *server;
    struct loop_fd watch;
    int fd;
    bool negotiated, owner, dead;
    struct json_frame frame;
    struct buf in, out;
    size_t sent;          /* of out */
    int fds[QMP_FDS_MAX]; /* that came along, oldest first */
    unsigned fd_count;
    void (*closed)(void *opaque);
    void *opaque;
};

struct qmp_server {
    struct loop *loop;
    const struct qmp_command *commands;
    void *opaque;
    struct list clients;
    unsigned accepted; /* clients of the listener */
    int listen_fd;
    struct loop_fd listen_watch;
    unsigned depth;             /* calls into this file on the stack */
    struct qmp_client *current; /* whose command runs */
};

static void client_drop(struct qmp_client *client)
{
    if (client->dead)
        return;
    client->dead = true;
    loop_fd_remove(&client->watch);
    close(client->fd);
    client->fd = -1;
}

static void client_free(struct qmp_client *client)
{
    list_remove(&client->link);
    while (client->fd_count)
        close(client->fds[--client->fd_count]);
    buf_fini(&client->in);
    buf_fini(&client->out);
    free(client);
}

static void server_enter(struct qmp_server *server)
{
    server->depth++;
}

/* Frees the dead. A `closed` callback may send events, but not free the server. */
static void server_leave(struct qmp_server *server)
{
    struct qmp_client *client;

    if (server->depth > 1) {
        server->depth--;
        return;
    }
again:
    list_for_each (client, &server->clients, link) {
        if (!client->dead)
            continue;
        void (*closed)(void *) = client->closed;
        void *opaque = client->opaque;

        client_free(client);
        if (closed)
            closed(opaque);
        goto again;
    }
    server->depth--;
}

static size_t client_pending(const struct qmp_client *client)
{
    return client->dead ? 0 : client->out.len - client->sent;
}

/* Sends what the socket takes now. */
static void client_flush(struct qmp_client *client)
{
    while (client_pending(client)) {
        ssize_t n = send(client->fd, client->out.data + client->sent,
                         client->out.len - client->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            loop_fd_modify(&client->watch, EPOLLIN | EPOLLOUT);
            return;
        }
        if (n <= 0) {
            client_drop(client);
            return;
        }
        client->sent += (size_t)n;
    }
    if (client->dead)
        return;
    client->sent = client->out.len = 0;
    loop_fd_modify(&client->watch, EPOLLIN);
}

static void client_send_text(struct qmp_client *client, const char *text)
{
    if (client->dead)
        return;
    if (client_pending(client) + strlen(text) > QMP_BACKLOG_MAX) {
        log_warn("control client does not read its answers: closed");
        client_drop(client);
        return;
    }
    buf_text(&client->out, text);
    buf_text(&client->out, "\r\n");
    client_flush(client);
}

static void client_send(struct qmp_client *client, json_t *take_message)
{
    char *text = take_message ? json_dumps(take_message, JSON_COMPACT) : NULL;

    if (text)
        client_send_text(client, text);
    else
        client_drop(client); /* out of memory: an answer may not simply be missing */
    free(text);
    json_decref(take_message);
}

/* ---- answers ---- */

static void answer(struct qmp_client *client, json_t *take_message, json_t *id)
{
    if (take_message && id)
        json_object_set(take_message, "id", id);
    client_send(client, take_message);
}

/* Text with bytes of a client in it, perhaps cut in the middle of a character. */
static json_t *safe_string(const char *text)
{
    json_t *string = json_string(text);

    if (!string) {
        char *copy = xstrdup(text);

        for (char *c = copy; *c; c++)
            *c = *c & 0x80 ? '?' : *c;
        string = json_string(copy);
        free(copy);
    }
    return string;
}

static void answer_error(struct qmp_client *client, const char *class, const char *text, json_t *id)
{
    answer(client, json_pack("{s:{s:s, s:o}}", "error", "class", class, "desc", safe_string(text)),
           id);
}

static json_t *version(void)
{
    int major = 0, minor = 0, micro = 0;
    const char *at = TENON_VERSION;
    char *end;

    major = (int)strtol(at, &end, 10);
    if (*end == '.')
        minor = (int)strtol(end + 1, &end, 10);
    if (*end == '.')
        micro = (int)strtol(end + 1, &end, 10);
    return json_pack("{s:{s:i, s:i, s:i}, s:s}", "qemu", "major", major, "minor", minor, "micro",
                     micro, "package", "tenon " TENON_VERSION);
}

static json_t *command_names(const struct qmp_server *server)
{
    static const char *const own[] = {"qmp_capabilities", "query-version", "query-commands"};
    json_t *names = json_array();

    for (size_t i = 0; i < ARRAY_SIZE(own); i++)
        json_array_append_new(names, json_pack("{s:s}", "name", own[i]));
    for (const struct qmp_command *command = server->commands; command->name; command++)
        json_array_append_new(names, json_pack("{s:s}", "name", command->name));
    return names;
}

/* The only capability that we could offer is oob, and we do not: enabling anything is an error. */
static void negotiate(struct qmp_client *client, const json_t *arguments, json_t *id)
{
    const json_t *enable = json_object_get(arguments, "enable");

    if (client->negotiated && !client->owner) {
        answer_error(client, "CommandNotFound",
                     "Capabilities negotiation is already complete, command ignored", id);
        return;
    }
    if (enable && (!json_is_array(enable) || json_array_size(enable))) {
        answer_error(client, "GenericError", "This server offers no capability to enable", id);
        return;
    }
    client->negotiated = true;
    answer(client, json_pack("{s:{}}", "return"), id);
}

static void run_command(struct qmp_client *client, const char *name, const json_t *arguments,
                        json_t *id)
{
    const struct qmp_command *command = client->server->commands;
    json_t *result = NULL;
    struct err *err;

    if (!strcmp(name, "qmp_capabilities")) {
        negotiate(client, arguments, id);
        return;
    }
    if (!client->negotiated) {
        answer_error(client, "CommandNotFound",
                     "Expecting capabilities negotiation with 'qmp_capabilities'", id);
        return;
    }
    if (!strcmp(name, "query-version")) {
        answer(client, json_pack("{s:o}", "return", version()), id);
        return;
    }
    if (!strcmp(name, "query-commands")) {
        answer(client, json_pack("{s:o}", "return", command_names(client->server)), id);
        return;
    }
    while (command->name && strcmp(command->name, name))
        command++;
    if (!command->name) {
        char text[160];

        snprintf(text, sizeof(text), "The command %.100s has not been found", name);
        answer_error(client, "CommandNotFound", text, id);
        return;
    }
    client->server->current = client;
    err = command->run(client->server->opaque, arguments, &result);
    client->server->current = NULL;
    if (err) {
        json_decref(result);
        answer_error(client, "GenericError", err_text(err), id);
        err_free(err);
        return;
    }
    answer(client, json_pack("{s:o}", "return", result ? result : json_object()), id);
}

/* One whole message; the form is checked as qmp-spec section 2.3 demands. */
static void handle_message(struct qmp_client *client, const char *text, size_t len)
{
    json_error_t where;
    json_t *message = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
    json_t *id, *name, *arguments, *value;
    const char *key;

    if (!message) {
        answer_error(client, "GenericError", "JSON parse error", NULL);
        return;
    }
    id = json_object_get(message, "id");
    name = json_object_get(message, "execute");
    arguments = json_object_get(message, "arguments");
    json_object_foreach(message, key, value)
    {
        if (strcmp(key, "id") && strcmp(key, "execute") && strcmp(key, "arguments")) {
            char note[160];

            snprintf(note, sizeof(note), "QMP input member '%.100s' is unexpected", key);
            answer_error(client, "GenericError", note, id);
            goto out;
        }
    }
    if (!json_is_string(name))
        answer_error(client, "GenericError",
                     name ? "QMP input member 'execute' must be a string"
                          : "QMP input lacks member 'execute'",
                     id);
    else if (arguments && !json_is_object(arguments))
        answer_error(client, "GenericError", "QMP input member 'arguments' must be an object", id);
    else
        run_command(client, json_string_value(name), arguments, id);
out:
    json_decref(message);
}

static void client_input(struct qmp_client *client, const char *bytes, size_t len)
{
    while (len && !client->dead) {
        size_t begin, used;
        enum json_frame_result result = json_frame_scan(&client->frame, bytes, len, &begin, &used);

        if (result == JSON_FRAME_JUNK) {
            answer_error(client, "GenericError", "JSON parse error, a message is an object", NULL);
        } else if (result == JSON_FRAME_DONE || client->frame.length) {
            if (client->in.len + (used - begin) > QMP_MESSAGE_MAX) {
                answer_error(client, "GenericError", "JSON message is too long", NULL);
                client_drop(client);
                return;
            }
            buf_append(&client->in, bytes + begin, used - begin);
        }
        if (result == JSON_FRAME_DONE) {
            handle_message(client, (const char *)client->in.data, client->in.len);
            client->in.len = 0;
        }
        bytes += used;
        len -= used;
    }
}

static void keep_fd(struct qmp_client *client, int fd)
{
    if (client->fd_count < QMP_FDS_MAX)
        client->fds[client->fd_count++] = fd;
    else
        close(fd);
}

int qmp_server_take_fd(struct qmp_server *server)
{
    struct qmp_client *client = server->current;
    int fd = -1;

    if (client && client->fd_count) {
        fd = client->fds[0];
        memmove(client->fds, client->fds + 1, sizeof(int) * --client->fd_count);
    }
    return fd;
}

/* Bytes, and the descriptors that come with them. */
static ssize_t client_receive(struct qmp_client *client, char *bytes, size_t room)
{
    char control[CMSG_SPACE(sizeof(int) * QMP_FDS_MAX)];
    struct iovec iov = {bytes, room};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(client->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    for (struct cmsghdr *part = n < 0 ? NULL : CMSG_FIRSTHDR(&message); part;
         part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t at = 0; at + sizeof(int) <= part->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + at, sizeof(fd));
            keep_fd(client, fd);
        }
    }
    return n;
}

static void on_client(void *opaque, uint32_t events)
{
    struct qmp_client *client = opaque;
    struct qmp_server *server = client->server;

    server_enter(server);
    if (events & EPOLLOUT)
        client_flush(client);
    if (!client->dead && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        char bytes[4096];
        ssize_t n = client_receive(client, bytes, sizeof(bytes));

        if (n > 0)
            client_input(client, bytes, (size_t)n);
        else if (n == 0 || (errno != EAGAIN && errno != EINTR))
            client_drop(client);
    }
    server_leave(server);
}

struct err *qmp_server_add(struct qmp_server *server, int fd, bool owner,
                           void (*closed)(void *opaque), void *opaque)
{
    struct qmp_client *client = xcalloc(1, sizeof(*client));
    struct err *err;

    client->server = server;
    client->fd = fd;
    client->negotiated = client->owner = owner;
    client->closed = closed;
    client->opaque = opaque;
    err = loop_fd_add(server->loop, &client->watch, fd, EPOLLIN, on_client, client);
    if (err) {
        close(fd);
        free(client);
        return err_wrap(err, "control socket");
    }
    list_append(&server->clients, &client->link);
    server_enter(server);
    client_send(client, json_pack("{s:{s:o, s:[]}}", "QMP", "version", version(), "capabilities"));
    server_leave(server);
    return NULL;
}

/* ---- the listener ---- */

static void on_listener_client_closed(void *opaque)
{
    struct qmp_server *server = opaque;

    /* From the limit down: there is room to accept again. */
    if (server->accepted-- == QMP_CLIENTS_MAX)
        loop_fd_modify(&server->listen_watch, EPOLLIN);
}

static void on_listen(void *opaque, uint32_t events)
{
    struct qmp_server *server = opaque;
    struct err *err;
    int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
            log_warn("control socket accepts no more clients: %s", strerror(errno));
            loop_fd_remove(&server->listen_watch);
        }
        return;
    }
    if (++server->accepted == QMP_CLIENTS_MAX)
        loop_fd_modify(&server->listen_watch, 0);
    err = qmp_server_add(server, fd, false, on_listener_client_closed, server);
    if (err) {
        log_warn("%s", err_text(err));
        err_free(err);
        on_listener_client_closed(server);
    }
}

struct err *qmp_server_listen(struct qmp_server *server, int fd)
{
    struct err *err =
        loop_fd_add(server->loop, &server->listen_watch, fd, EPOLLIN, on_listen, server);

    if (err) {
        close(fd);
        return err_wrap(err, "control socket");
    }
    server->listen_fd = fd;
    return NULL;
}

/* ---- the server ---- */

struct qmp_server *qmp_server_new(struct loop *loop, const struct qmp_command *commands,
                                  void *opaque)
{
    struct qmp_server *server = xcalloc(1, sizeof(*server));

    server->loop = loop;
    server->commands = commands;
    server->opaque = opaque;
    server->listen_fd = -1;
    list_init(&server->clients);
    return server;
}

void qmp_server_free(struct qmp_server *server)
{
    struct qmp_client *client;

    if (!server)
        return;
    if (server->listen_fd >= 0) {
        loop_fd_remove(&server->listen_watch);
        close(server->listen_fd);
    }
    list_for_each (client, &server->clients, link) {
        client_flush(client);
        client_drop(client);
        client_free(client);
    }
    free(server);
}

void qmp_server_event(struct qmp_server *server, const char *name, json_t *take_data)
{
    uint64_t now = clock_wall_ns();
    json_t *event = json_pack("{s:s, s:{s:I, s:I}}", "event", name, "timestamp", "seconds",
                              (json_int_t)(now / NSEC_PER_SEC), "microseconds",
                              (json_int_t)(now % NSEC_PER_SEC / 1000));
    char *text;
    struct qmp_client *client;

    if (take_data)
        json_object_set_new(event, "data", take_data);
    text = json_dumps(event, JSON_COMPACT);
    server_enter(server);
    list_for_each (client, &server->clients, link) {
        if (text && client->negotiated)
            client_send_text(client, text);
    }
    server_leave(server);
    free(text);
    json_decref(event);
}

void qmp_server_drain(struct qmp_server *server, int timeout_ms)
{
    uint64_t deadline = clock_now_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;
    struct qmp_client *client;

    server_enter(server);
    list_for_each (client, &server->clients, link) {
        while (client_pending(client)) {
            struct pollfd poll_fd = {.fd = client->fd, .events = POLLOUT};
            uint64_t now = clock_now_ns();

            if (now >= deadline ||
                poll(&poll_fd, 1, (int)((deadline - now) / NSEC_PER_MSEC) + 1) <= 0)
                break;
            client_flush(client);
        }
    }
    server_leave(server);
}
