/*
 * A client of a VM's control socket. See qmp_client.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/qmp_client.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/socket.h"

#define ANSWER_MS 30000 /* a VM that says nothing for so long never will */
#define MESSAGE_MAX MIB(1)

static struct err *connect_to(const char *path, int *fd)
{
    *fd = socket_connect(path, SOCK_STREAM);
    if (*fd >= 0)
        return NULL;
    if (errno == ENAMETOOLONG)
        return err_of(ERR_USAGE, "the path '%s' is longer than the %u bytes of a socket", path,
                      SOCKET_PATH_MAX);
    if (errno == ECONNREFUSED || errno == ENOTSOCK)
        return err_new("no VM listens on '%s': give the socket that `tenon run --qmp` made", path);
    return err_errno(errno, "cannot connect to '%s'", path);
}

/* The next whole line as a message, or NULL with an error. */
static struct err *receive(struct qmp_client *client, json_t **message)
{
    struct buf *in = &client->in;
    uint8_t *end;

    while (!in->len || !(end = memchr(in->data, '\n', in->len))) {
        struct pollfd wait = {.fd = client->fd, .events = POLLIN};
        char bytes[4096];
        ssize_t n = poll(&wait, 1, ANSWER_MS);
        if (n == 0)
            return err_new("the VM does not answer");
        n = n < 0 ? n : recv(client->fd, bytes, sizeof(bytes), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0 || in->len + (size_t)n > MESSAGE_MAX)
            return err_new("the VM has ended");
        buf_append(in, bytes, (size_t)n);
    }
    size_t len = (size_t)(end - in->data);
    *message = json_loadb((const char *)in->data, len, 0, NULL);
    in->len -= len + 1;
    memmove(in->data, end + 1, in->len);
    return *message ? NULL : err_new("what answers is no VM");
}

struct err *qmp_client_run(struct qmp_client *client, const char *command, json_t *take_arguments,
                           int fd, json_t **result)
{
    json_t *request = json_pack("{s:s, s:o*}", "execute", command, "arguments", take_arguments);
    char *text = json_dumps(request, JSON_COMPACT);
    struct err *err =
        socket_send_fd(client->fd, text, strlen(text), fd, 0) ? NULL : err_new("the VM has ended");

    free(text);
    json_decref(request);
    while (!err) {
        json_t *message;
        TRY(receive(client, &message));
        json_t *answer = json_object_get(message, "return");
        json_t *error = json_object_get(message, "error");
        const char *why = json_string_value(json_object_get(error, "desc"));
        if (answer && result)
            *result = json_incref(answer);
        if (error)
            err = err_new("%s", why ? why : "the VM refused");
        json_decref(message);
        if (answer)
            break;
    }
    return err;
}

struct err *qmp_client_open(struct qmp_client *client, const char *path)
{
    json_t *greeting;

    *client = (struct qmp_client){.fd = -1};
    TRY(connect_to(path, &client->fd));
    TRY(receive(client, &greeting));
    bool good = json_object_get(greeting, "QMP") != NULL;
    json_decref(greeting);
    if (!good)
        return err_new("what listens on '%s' is no VM", path);
    return qmp_client_run(client, "qmp_capabilities", NULL, -1, NULL);
}

bool qmp_client_await_end(struct qmp_client *client, uint64_t deadline_ns)
{
    for (uint64_t now = clock_now_ns(); now < deadline_ns; now = clock_now_ns()) {
        struct pollfd wait = {.fd = client->fd, .events = POLLIN};
        char bytes[4096]; /* events; nobody wants them */
        int left_ms = (int)((deadline_ns - now) / NSEC_PER_MSEC) + 1;
        if (poll(&wait, 1, left_ms) > 0 && recv(client->fd, bytes, sizeof(bytes), 0) <= 0)
            return true;
    }
    return false;
}

void qmp_client_close(struct qmp_client *client)
{
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
    buf_fini(&client->in);
}

uint64_t qmp_client_stat(const json_t *providers, const char *name)
{
    const json_t *stats = json_object_get(json_array_get(providers, 0), "stats");

    for (size_t i = 0; i < json_array_size(stats); i++) {
        const json_t *stat = json_array_get(stats, i);
        const char *key = json_string_value(json_object_get(stat, "name"));
        if (key && !strcmp(key, name))
            return (uint64_t)json_integer_value(json_object_get(stat, "value"));
    }
    return 0;
}
