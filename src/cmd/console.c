/*
 * tenon console: a terminal at a console of one of tenond's VMs. Bytes go to and from tenond in a
 * WebSocket (RFC 6455, over libwslay); the relay of `tenon run`, with its escape key, has the other
 * end of a socket pair.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <limits.h>
#include <openssl/evp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>
#include <wslay/wslay.h>

#include "base/socket.h"
#include "cmd/relay.h"
#include "cmd/rest.h"
#include "cmd/tenond_paths.h"
#include "daemon/websocket.h"

#define HEAD_MAX KIB(8)
#define OUTPUT_MAX KIB(64) /* came, and the relay has not taken it */
#define DRAIN_MS 1000      /* a terminal may be held by Ctrl-S; a pipe is waited for */

static const struct option_spec console_options[] = {
    {"console", "ID", "Which one. Default: the first."},
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

struct client {
    const char *vm, *console;
    struct terminal terminal;
    struct relay relay;
    int pair;          /* our end of the relay's socket */
    int fd;            /* to tenond */
    struct buf extra;  /* came with the handshake */
    struct buf output; /* for the relay */
    wslay_event_context_ptr context;
    bool left; /* the user has */
};

/* ---- which console ---- */

static struct err *choose(const char *vm, const char *wanted, char **console)
{
    scoped(free_cleanup) char *path = xasprintf("/v1/vms/%s", vm);
    json_t *reply;

    TRY(rest_call("GET", path, NULL, &reply));
    const char *state = json_string_value(json_object_get(reply, "state"));
    const json_t *first = json_array_get(json_object_get(reply, "consoles"), 0);
    const char *id = wanted ? wanted : json_string_value(json_object_get(first, "id"));
    struct err *err = NULL;

    if (!state || (strcmp(state, "running") != 0 && strcmp(state, "paused") != 0))
        err = err_of(ERR_BUSY, "VM '%s' does not run: start it with tenon start %s", vm, vm);
    else if (!id)
        err = err_new("VM '%s' has no console that tenond holds", vm);
    else
        *console = xstrdup(id);
    json_decref(reply);
    return err;
}

/* ---- the handshake ---- */

static struct err *connect_tenond(int *fd)
{
    scoped(free_cleanup) char *path = tenond_socket_path(false);
    if (!path || strlen(path) > SOCKET_PATH_MAX)
        return err_of(ERR_USAGE, "where is tenond? Set TENON_SOCKET to its socket");
    *fd = socket_connect(path, SOCK_STREAM);
    return *fd < 0 ? err_errno(errno, "cannot reach tenond on '%s'", path) : NULL;
}

/* The head of the answer, ended by a NUL; what came behind it goes to `extra`. */
static struct err *read_head(struct client *client, char head[HEAD_MAX + 1])
{
    size_t len = 0;
    char *end = NULL;

    while (!end) {
        ssize_t n = recv(client->fd, head + len, HEAD_MAX - len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_new("tenond has hung up");
        len += (size_t)n;
        head[len] = 0;
        end = strstr(head, "\r\n\r\n");
    }
    end += 4;
    buf_append(&client->extra, end, len - (size_t)(end - head));
    *end = 0;
    return NULL;
}

static struct err *upgrade(struct client *client)
{
    unsigned char random[16];
    char key[25], accept[WEBSOCKET_ACCEPT_SIZE], head[HEAD_MAX + 1];
    int status = 0;

    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return err_errno(errno, "cannot get random bytes");
    EVP_EncodeBlock((unsigned char *)key, random, sizeof(random));
    websocket_accept(key, accept);
    TRY(connect_tenond(&client->fd));
    scoped(free_cleanup) char *request = xasprintf(
        "GET /v1/vms/%s/consoles/%s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n",
        client->vm, client->console, key);
    /* Far smaller than the socket's buffer. */
    if (send(client->fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request))
        return err_errno(errno, "tenond does not listen");
    TRY(read_head(client, head));
    if (sscanf(head, "HTTP/1.1 %d", &status) == 1 && status != 101)
        return err_of(status == 403 ? ERR_DENIED : ERR_FAILED,
                      "tenond refuses console '%s' of VM '%s' (status %d)", client->console,
                      client->vm, status);
    return strstr(head, accept) ? NULL : err_new("what answers is no tenond");
}

/* ---- the WebSocket ---- */

static ssize_t io_result(wslay_event_context_ptr context, ssize_t n)
{
    bool later = n < 0 && (errno == EAGAIN || errno == EINTR);

    if (n <= 0)
        wslay_event_set_error(context, later ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
    return n > 0 ? n : -1;
}

static ssize_t on_receive(wslay_event_context_ptr context, uint8_t *bytes, size_t len, int flags,
                          void *opaque)
{
    struct client *client = opaque;

    if (!client->extra.len)
        return io_result(context, recv(client->fd, bytes, len, MSG_DONTWAIT));
    len = MIN(len, client->extra.len);
    memcpy(bytes, client->extra.data, len);
    buf_drop(&client->extra, len);
    return (ssize_t)len;
}

static ssize_t on_send(wslay_event_context_ptr context, const uint8_t *bytes, size_t len, int flags,
                       void *opaque)
{
    const struct client *client = opaque;

    return io_result(context, send(client->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL));
}

static int on_mask(wslay_event_context_ptr context, uint8_t *bytes, size_t len, void *opaque)
{
    return getrandom(bytes, len, 0) == (ssize_t)len ? 0 : -1;
}

static void on_message(wslay_event_context_ptr context,
                       const struct wslay_event_on_msg_recv_arg *message, void *opaque)
{
    struct client *client = opaque;

    if (!wslay_is_ctrl_frame(message->opcode))
        buf_append(&client->output, message->msg, message->msg_length);
}

static const struct wslay_event_callbacks callbacks = {.recv_callback = on_receive,
                                                       .send_callback = on_send,
                                                       .genmask_callback = on_mask,
                                                       .on_msg_recv_callback = on_message};

/* ---- back and forth ---- */

/* What the user has typed becomes a message. */
static void take_typed(struct client *client)
{
    uint8_t bytes[4096];
    ssize_t n = recv(client->pair, bytes, sizeof(bytes), MSG_DONTWAIT);
    const struct wslay_event_msg message = {WSLAY_BINARY_FRAME, bytes, n > 0 ? (size_t)n : 0};

    if (n > 0)
        wslay_event_queue_msg(client->context, &message);
}

static void give_output(struct client *client)
{
    struct buf *output = &client->output;
    ssize_t n = send(client->pair, output->data, output->len, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n > 0)
        buf_drop(output, (size_t)n);
}

/* False: it has ended. */
static bool serve_websocket(struct client *client, short ready)
{
    if (ready & (POLLIN | POLLHUP | POLLERR) && wslay_event_recv(client->context) != 0)
        return false;
    if (wslay_event_want_write(client->context) && wslay_event_send(client->context) != 0)
        return false;
    return !wslay_event_get_close_received(client->context);
}

static void serve(struct client *client)
{
    enum { PAIR = RELAY_POLL_FDS, TENOND, COUNT };
    bool open = serve_websocket(client, client->extra.len ? POLLIN : 0);

    /* What came last still has to find room. */
    while ((open || client->output.len) && !client->left) {
        struct pollfd fds[COUNT];
        bool room = client->output.len < OUTPUT_MAX;
        bool sends = wslay_event_want_write(client->context);
        relay_want(&client->relay, fds);
        fds[PAIR] = (struct pollfd){
            client->pair,
            (short)((sends || !open ? 0 : POLLIN) | (client->output.len ? POLLOUT : 0)), 0};
        /* A hang-up may wait until there is room. */
        fds[TENOND] = (struct pollfd){open && (room || sends) ? client->fd : -1,
                                      (short)((room ? POLLIN : 0) | (sends ? POLLOUT : 0)), 0};
        if (poll(fds, COUNT, -1) < 0)
            continue;
        relay_serve(&client->relay, fds);
        if (fds[PAIR].revents & POLLIN)
            take_typed(client);
        if (fds[PAIR].revents & POLLOUT)
            give_output(client);
        open = open && serve_websocket(client, fds[TENOND].revents);
    }
    if (client->left)
        return;
    shutdown(client->pair, SHUT_WR);
    relay_drain(&client->relay, client->terminal.fd >= 0 ? DRAIN_MS : INT_MAX);
}

static void on_command(void *opaque, int letter)
{
    struct client *client = opaque;

    if (letter == RELAY_QUIT)
        client->left = true;
    else
        terminal_say(&client->terminal,
                     "tenon: Ctrl-] then: q leaves the console, Ctrl-] is the guest's");
}

static struct err *talk(struct client *client)
{
    int pair[2];

    if (wslay_event_context_client_init(&client->context, &callbacks, client) != 0)
        return err_new("no memory for a WebSocket");
    TRY(terminal_init(&client->terminal, STDIN_FILENO));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return err_errno(errno, "cannot create a socket pair");
    client->pair = pair[1];
    relay_init(&client->relay, &client->terminal, pair[0], STDOUT_FILENO, on_command, client);
    if (client->terminal.fd >= 0)
        terminal_say(&client->terminal, "tenon: console '%s' of VM '%s'; Ctrl-] q leaves it",
                     client->console, client->vm);
    terminal_raw(&client->terminal);
    serve(client);
    relay_fini(&client->relay);
    bool ended = !client->left && client->terminal.fd >= 0;
    terminal_fini(&client->terminal);
    if (ended)
        fprintf(stderr, "tenon: the console has ended\n");
    return NULL;
}

static struct err *console(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct client client = {.fd = -1, .pair = -1};
    struct rest_arguments arguments;
    scoped(free_cleanup) char *id = NULL;

    TRY(rest_arguments(argc, argv, console_options, 1, 1, "a VM", &arguments));
    TRY(rest_check_name(arguments.word[0]));
    if (arguments.console)
        TRY(rest_check_name(arguments.console));
    TRY(choose(arguments.word[0], arguments.console, &id));
    client.vm = arguments.word[0];
    client.console = id;
    struct err *err = upgrade(&client);
    if (!err)
        err = talk(&client);
    if (client.context)
        wslay_event_context_free(client.context);
    fd_cleanup(&client.fd);
    fd_cleanup(&client.pair);
    buf_fini(&client.extra);
    buf_fini(&client.output);
    return err;
}

const struct command command_console = {.name = "console",
                                        .usage = "console VM [OPTIONS]",
                                        .summary =
                                            "Use the console of a VM of tenond from this terminal",
                                        .run = console,
                                        .options = console_options};
