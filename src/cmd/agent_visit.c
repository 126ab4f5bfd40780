/*
 * A visit to the agent in a guest. See agent_visit.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/agent_visit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "cmd/registry.h"

#define RETRY_US 100000
#define OTHERS_S 60 /* so long for another visitor, whatever the limits are */
#define SECONDS_MAX 86400

struct err *agent_limits_read(const struct option_arg *arg, struct agent_limits *limits,
                              bool *known)
{
    bool wait = !strcmp(arg->spec->name, "wait");
    char *end = NULL;

    *known = wait || !strcmp(arg->spec->name, "timeout");
    if (!*known)
        return NULL;
    long value = strtol(arg->value, &end, 10);
    if (!*arg->value || *end || value < !wait || value > SECONDS_MAX)
        return err_of(ERR_USAGE, "--%s is %d to %d seconds, not '%s'", arg->spec->name, !wait,
                      SECONDS_MAX, arg->value);
    *(wait ? &limits->wait_s : &limits->timeout_s) = value;
    return NULL;
}

/* One attempt. */
static struct err *connect_to(struct agent_visit *visit, bool *connected, bool *listens)
{
    json_t *result = NULL;
    int pair[2];

    fd_cleanup(&visit->fd);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return err_errno(errno, "cannot create a socket pair");
    visit->fd = visit->agent.fd = pair[0];
    struct err *err = qmp_client_run(&visit->client, "tenon-agent-connect", NULL, pair[1], &result);
    close(pair[1]);
    *connected = json_is_true(json_object_get(result, "connected"));
    *listens = json_is_true(json_object_get(result, "frontend-open"));
    json_decref(result);
    return err;
}

static struct err *enter(struct agent_visit *visit, const struct agent_limits *limits)
{
    uint64_t begin_ns = clock_now_ns();
    bool connected = false, listens = false;

    for (;;) {
        TRY(connect_to(visit, &connected, &listens));
        if (connected && listens)
            return agent_sync(&visit->agent);
        uint64_t limit_s = (uint64_t)(listens ? MAX(limits->wait_s, OTHERS_S) : limits->wait_s);
        if (clock_now_ns() - begin_ns >= limit_s * NSEC_PER_SEC)
            break;
        usleep(RETRY_US);
    }
    if (listens)
        return err_of(ERR_BUSY, "another command talks to its agent");
    return err_new("no agent answers in the guest: install the package qemu-guest-agent there, and "
                   "see that it runs");
}

struct err *agent_visit_open(struct agent_visit *visit, const char *vm,
                             const struct agent_limits *limits)
{
    *visit = (struct agent_visit){.fd = -1};
    visit->agent.timeout_ms = (unsigned)limits->timeout_s * 1000;
    TRY(registry_open(vm, &visit->client));
    return err_wrap(enter(visit, limits), "VM '%s'", vm);
}

void agent_visit_close(struct agent_visit *visit)
{
    fd_cleanup(&visit->fd);
    agent_fini(&visit->agent);
    qmp_client_close(&visit->client);
}
