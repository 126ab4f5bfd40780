/*
 * What an agent is asked for, and what its answers mean. See agent.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <arpa/inet.h>
#include <gnutls/gnutls.h>
#include <string.h>

#include "agent/agent.h"
#include "base/clock.h"

#define ADDRESSES_MAX 64

static struct err *nonsense(const char *command)
{
    return err_new("%s: what the agent answers makes no sense", command);
}

/* ---- bytes ---- */

static json_t *encode(const void *bytes, size_t len)
{
    const gnutls_datum_t data = {(unsigned char *)(uintptr_t)bytes, (unsigned)len};
    gnutls_datum_t text;

    if (!len)
        return json_string("");
    if (gnutls_base64_encode2(&data, &text) < 0)
        return NULL;
    json_t *value = json_stringn((const char *)text.data, text.size);
    gnutls_free(text.data);
    return value;
}

/* Appends what a member of an answer holds; a missing one holds nothing. */
static bool decode(const json_t *reply, const char *member, struct buf *bytes)
{
    const json_t *value = json_object_get(reply, member);
    const gnutls_datum_t text = {(unsigned char *)(uintptr_t)json_string_value(value),
                                 (unsigned)json_string_length(value)};
    gnutls_datum_t data;

    if (!value || (json_is_string(value) && !text.size))
        return true;
    if (!text.data || gnutls_base64_decode2(&text, &data) < 0)
        return false;
    buf_append(bytes, data.data, data.size);
    gnutls_free(data.data);
    return true;
}

/* A call whose answer is a number from 0 on. */
static struct err *call_number(struct agent *agent, const char *command, json_t *take_arguments,
                               json_int_t *number)
{
    json_t *reply;

    TRY(agent_call(agent, command, take_arguments, &reply));
    *number = json_integer_value(reply);
    bool good = json_is_integer(reply) && *number >= 0;
    json_decref(reply);
    return good ? NULL : nonsense(command);
}

/* ---- programs ---- */

struct err *agent_exec_start(struct agent *agent, char *const argv[], const struct buf *input,
                             json_int_t *pid)
{
    json_t *words = json_array(), *arguments;
    json_t *reply;

    for (size_t i = 1; argv[i]; i++) {
        if (json_array_append_new(words, json_string(argv[i]))) {
            json_decref(words);
            return err_of(ERR_USAGE, "the word '%s' is not UTF-8", argv[i]);
        }
    }
    arguments = json_pack("{s:s, s:o, s:b, s:o*}", "path", argv[0], "arg", words, "capture-output",
                          1, "input-data", input->len ? encode(input->data, input->len) : NULL);
    TRY(agent_call(agent, "guest-exec", arguments, &reply));
    const json_t *value = json_object_get(reply, "pid");
    bool good = json_is_integer(value);
    *pid = json_integer_value(value);
    json_decref(reply);
    return good ? NULL : nonsense("guest-exec");
}

struct err *agent_exec_read(const json_t *reply, struct agent_exec *exec)
{
    const json_t *code = json_object_get(reply, "exitcode");
    const json_t *signal = json_object_get(reply, "signal");

    exec->ended = json_is_true(json_object_get(reply, "exited"));
    if (!exec->ended)
        return json_is_false(json_object_get(reply, "exited")) ? NULL
                                                               : nonsense("guest-exec-status");
    exec->truncated = json_is_true(json_object_get(reply, "out-truncated")) ||
                      json_is_true(json_object_get(reply, "err-truncated"));
    exec->status = (int)(json_is_integer(code) ? json_integer_value(code) & 0xff
                                               : 128 + (json_integer_value(signal) & 0x7f));
    if ((!json_is_integer(code) && !json_is_integer(signal)) ||
        !decode(reply, "out-data", &exec->out) || !decode(reply, "err-data", &exec->err))
        return nonsense("guest-exec-status");
    return NULL;
}

struct err *agent_exec_look(struct agent *agent, json_int_t pid, struct agent_exec *exec)
{
    json_t *reply;

    TRY(agent_call(agent, "guest-exec-status", json_pack("{s:I}", "pid", pid), &reply));
    struct err *err = agent_exec_read(reply, exec);
    json_decref(reply);
    return err;
}

void agent_exec_fini(struct agent_exec *exec)
{
    buf_fini(&exec->out);
    buf_fini(&exec->err);
}

/* ---- files ---- */

struct err *agent_file_open(struct agent *agent, const char *path, const char *mode,
                            json_int_t *handle)
{
    return call_number(agent, "guest-file-open",
                       json_pack("{s:s, s:s}", "path", path, "mode", mode), handle);
}

struct err *agent_file_read(struct agent *agent, json_int_t handle, struct buf *bytes)
{
    size_t before = bytes->len;
    json_t *reply;

    TRY(agent_call(agent, "guest-file-read",
                   json_pack("{s:I, s:i}", "handle", handle, "count", (int)AGENT_CHUNK), &reply));
    bool good = decode(reply, "buf-b64", bytes) && bytes->len - before <= AGENT_CHUNK;
    json_decref(reply);
    return good ? NULL : nonsense("guest-file-read");
}

struct err *agent_file_write(struct agent *agent, json_int_t handle, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;

    while (len) {
        json_t *reply;
        TRY(agent_call(agent, "guest-file-write",
                       json_pack("{s:I, s:o*}", "handle", handle, "buf-b64",
                                 encode(at, MIN(len, AGENT_CHUNK))),
                       &reply));
        json_int_t count = json_integer_value(json_object_get(reply, "count"));
        json_decref(reply);
        if (count <= 0 || (size_t)count > MIN(len, AGENT_CHUNK))
            return nonsense("guest-file-write");
        at += count;
        len -= (size_t)count;
    }
    return NULL;
}

struct err *agent_file_close(struct agent *agent, json_int_t handle)
{
    return agent_call(agent, "guest-file-close", json_pack("{s:I}", "handle", handle), NULL);
}

/* ---- file systems, clock, network ---- */

struct err *agent_freeze(struct agent *agent, unsigned *count)
{
    json_int_t number;

    TRY(call_number(agent, "guest-fsfreeze-freeze", NULL, &number));
    *count = (unsigned)number;
    return NULL;
}

struct err *agent_thaw(struct agent *agent, unsigned *count)
{
    json_int_t number;

    TRY(call_number(agent, "guest-fsfreeze-thaw", NULL, &number));
    *count = (unsigned)number;
    return NULL;
}

struct err *agent_get_time(struct agent *agent, int64_t *time_ns)
{
    json_int_t number;

    TRY(call_number(agent, "guest-get-time", NULL, &number));
    *time_ns = number;
    return NULL;
}

struct err *agent_set_time(struct agent *agent)
{
    return agent_call(agent, "guest-set-time",
                      json_pack("{s:I}", "time", (json_int_t)clock_wall_ns()), NULL);
}

static bool is_address(const json_t *value)
{
    const char *text = json_string_value(value);
    struct in6_addr address;

    return text &&
           (inet_pton(AF_INET, text, &address) == 1 || inet_pton(AF_INET6, text, &address) == 1);
}

json_t *agent_read_addresses(const json_t *interfaces)
{
    json_t *list = json_array();
    size_t i, j;
    json_t *interface, *address;

    json_array_foreach(interfaces, i, interface)
    {
        const char *name = json_string_value(json_object_get(interface, "name"));
        if (!name || !strcmp(name, "lo"))
            continue;
        json_array_foreach(json_object_get(interface, "ip-addresses"), j, address)
        {
            json_t *text = json_object_get(address, "ip-address");
            if (is_address(text) && json_array_size(list) < ADDRESSES_MAX)
                json_array_append(list, text);
        }
    }
    return list;
}

struct err *agent_addresses(struct agent *agent, json_t **list)
{
    json_t *reply;

    TRY(agent_call(agent, "guest-network-get-interfaces", NULL, &reply));
    *list = agent_read_addresses(reply);
    json_decref(reply);
    return NULL;
}
