/*
 * libFuzzer target: what the agent in a guest says, through the socket and each reader of answers.
 *
 * A finding is a crash or a sanitizer's report; an exit status, an address or a number of bytes
 * that no honest agent could mean.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/agent.h"

#define INPUT_MAX 4096 /* fits into a socket's buffer */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_at(const json_t *reply)
{
    struct agent_exec exec = {0};
    json_t *list = agent_read_addresses(reply), *address;
    size_t i;

    err_free(agent_exec_read(reply, &exec));
    if (exec.status < 0 || exec.status > 255)
        abort();
    agent_exec_fini(&exec);
    json_array_foreach(list, i, address)
    {
        struct in6_addr parsed;
        const char *text = json_string_value(address);
        if (inet_pton(AF_INET, text, &parsed) != 1 && inet_pton(AF_INET6, text, &parsed) != 1)
            abort();
    }
    json_decref(list);
}

/* One conversation: a byte chooses it, the rest is what the agent says. */
static void converse(struct agent *agent, uint8_t choice)
{
    struct buf bytes = BUF_INIT;
    json_t *list = NULL;
    struct agent_exec exec = {0};
    unsigned count;

    switch (choice % 5) {
    case 0:
        err_free(agent_sync(agent));
        break;
    case 1:
        err_free(agent_file_read(agent, 1, &bytes));
        if (bytes.len > INPUT_MAX)
            abort();
        break;
    case 2:
        err_free(agent_file_write(agent, 1, "text", 4));
        break;
    case 3:
        err_free(agent_exec_look(agent, 1, &exec));
        break;
    default:
        err_free(agent_freeze(agent, &count));
        err_free(agent_addresses(agent, &list));
    }
    agent_exec_fini(&exec);
    json_decref(list);
    buf_fini(&bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int pair[2];
    json_t *reply;

    if (!size || size > INPUT_MAX || socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        return 0;
    err_free(agent_read_reply(data + 1, size - 1, &reply));
    if (reply)
        look_at(reply);
    json_decref(reply);
    if (write(pair[1], data + 1, size - 1) != (ssize_t)size - 1)
        abort();
    shutdown(pair[1], SHUT_WR);
    struct agent agent = {.fd = pair[0], .timeout_ms = 1000};
    converse(&agent, data[0]);
    agent_fini(&agent);
    close(pair[0]);
    close(pair[1]);
    return 0;
}
