/*
 * Messages to and from the agent in a guest. See agent.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "agent/agent.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/clock.h"

#define FLUSH 0xff /* no byte of JSON: both sides forget what came before */
#define CHUNK KIB(16)

static struct err *silent(void)
{
    return err_of(ERR_BUSY, "the agent does not answer");
}

/* Waits for the socket; false: the time is over. */
static bool await(const struct agent *agent, short events, uint64_t deadline_ns)
{
    for (;;) {
        uint64_t now = clock_now_ns();
        struct pollfd end = {.fd = agent->fd, .events = events};
        int left_ms = now < deadline_ns ? (int)((deadline_ns - now) / NSEC_PER_MSEC) + 1 : 0;
        int n = poll(&end, 1, left_ms);
        if (n > 0)
            return true;
        if (n == 0 && !left_ms)
            return false;
        if (n < 0 && errno != EINTR)
            return false;
    }
}

static struct err *send_all(const struct agent *agent, const char *bytes, size_t len,
                            uint64_t deadline_ns)
{
    while (len) {
        if (!await(agent, POLLOUT, deadline_ns))
            return silent();
        ssize_t n = send(agent->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0)
            return err_new("the VM has ended");
        bytes += n;
        len -= (size_t)n;
    }
    return NULL;
}

/* More bytes into the buffer. */
static struct err *receive(struct agent *agent, uint64_t deadline_ns)
{
    uint8_t bytes[CHUNK];

    for (;;) {
        if (!await(agent, POLLIN, deadline_ns))
            return silent();
        ssize_t n = recv(agent->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n <= 0)
            return err_new("the VM has ended");
        if (agent->in.len + (size_t)n > AGENT_REPLY_MAX)
            return err_new("the agent's answer is longer than %lu MiB", AGENT_REPLY_MAX / MIB(1));
        buf_append(&agent->in, bytes, (size_t)n);
        return NULL;
    }
}

/* Forgets the first `len` bytes. */
static void consume(struct agent *agent, size_t len)
{
    agent->in.len -= len;
    memmove(agent->in.data, agent->in.data + len, agent->in.len);
}

/* The length of the first line, which the buffer then holds, with its end. */
static struct err *receive_line(struct agent *agent, uint64_t deadline_ns, size_t *len)
{
    size_t seen = 0;

    for (;;) {
        uint8_t *end =
            agent->in.len > seen ? memchr(agent->in.data + seen, '\n', agent->in.len - seen) : NULL;
        if (end) {
            *len = (size_t)(end - agent->in.data) + 1;
            return NULL;
        }
        seen = agent->in.len;
        TRY(receive(agent, deadline_ns));
    }
}

struct err *agent_read_reply(const void *line, size_t len, json_t **result)
{
    json_t *reply = json_loadb(line, len, 0, NULL);
    const json_t *error = json_object_get(reply, "error");
    const char *why = json_string_value(json_object_get(error, "desc"));
    struct err *err = NULL;

    *result = json_incref(json_object_get(reply, "return"));
    if (error)
        err = err_new("the agent says: %s", why ? why : "error");
    else if (!*result)
        err = err_new("what the agent says is no answer");
    if (err) {
        json_decref(*result);
        *result = NULL;
    }
    json_decref(reply);
    return err;
}

static uint64_t deadline(const struct agent *agent)
{
    return clock_now_ns() + agent->timeout_ms * NSEC_PER_MSEC;
}

static struct err *send_command(const struct agent *agent, const char *command,
                                json_t *take_arguments, bool flush, uint64_t deadline_ns)
{
    json_t *request = json_pack("{s:s, s:o*}", "execute", command, "arguments", take_arguments);
    scoped(free_cleanup) char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
    scoped(free_cleanup) char *line = xasprintf("%s%s\n", flush ? "\xff" : "", text ? text : "");

    json_decref(request);
    if (!text)
        return err_of(ERR_USAGE, "%s: the words are not UTF-8", command);
    return send_all(agent, line, strlen(line), deadline_ns);
}

struct err *agent_call(struct agent *agent, const char *command, json_t *take_arguments,
                       json_t **result)
{
    uint64_t end_ns = deadline(agent);
    json_t *value = NULL;
    size_t len;

    TRY(send_command(agent, command, take_arguments, false, end_ns));
    TRY(receive_line(agent, end_ns, &len));
    struct err *err = agent_read_reply(agent->in.data, len, &value);
    consume(agent, len);
    if (result)
        *result = value;
    else
        json_decref(value);
    return err_wrap(err, "%s", command);
}

/* Answers to others come first; they end where our byte comes back. */
struct err *agent_sync(struct agent *agent)
{
    uint64_t end_ns = deadline(agent);
    uint32_t id;

    if (getrandom(&id, sizeof(id), 0) != sizeof(id))
        return err_errno(errno, "cannot get random bytes");
    id >>= 1;
    TRY(send_command(agent, "guest-sync-delimited", json_pack("{s:I}", "id", (json_int_t)id), true,
                     end_ns));
    for (;;) {
        uint8_t *mark;
        size_t len;
        json_t *value;

        while (!agent->in.len || !(mark = memchr(agent->in.data, FLUSH, agent->in.len))) {
            agent->in.len = 0;
            TRY(receive(agent, end_ns));
        }
        consume(agent, (size_t)(mark - agent->in.data) + 1);
        TRY(receive_line(agent, end_ns, &len));
        err_free(agent_read_reply(agent->in.data, len, &value));
        /* Not consumed when it is another's: a second mark may be in it. */
        bool ours = json_is_integer(value) && json_integer_value(value) == (json_int_t)id;
        json_decref(value);
        if (ours) {
            consume(agent, len);
            return NULL;
        }
    }
}

void agent_fini(struct agent *agent)
{
    buf_fini(&agent->in);
}
