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
#define TIMEOUT_S_STANDARD 30

static struct err *read_seconds(const struct option_arg *arg, long least, long *seconds)
{
    char *end = NULL;
    long value = strtol(arg->value, &end, 10);

    if (!*arg->value || *end || value < least || value > SECONDS_MAX)
        return err_of(ERR_USAGE, "--%s is %ld to %d seconds, not '%s'", arg->name, least,
                      SECONDS_MAX, arg->value);
    *seconds = value;
    return NULL;
}

static struct err *take_argument(const struct option_arg *arg, unsigned words_max, const char *hint,
                                 struct agent_arguments *arguments)
{
    if (!arg->spec) {
        if (arguments->words == words_max)
            return err_of(ERR_USAGE, "'%s' is one word too many: %s", arg->value, hint);
        arguments->word[arguments->words++] = arg->value;
        return NULL;
    }
    if (!strcmp(arg->name, "wait"))
        return read_seconds(arg, 0, &arguments->limits.wait_s);
    if (!strcmp(arg->name, "timeout"))
        return read_seconds(arg, 1, &arguments->limits.timeout_s);
    arguments->own = true; /* --help does not come here */
    return NULL;
}

struct err *agent_arguments_read(int argc, char **argv, const struct option_spec *specs,
                                 unsigned words_max, const char *hint,
                                 struct agent_arguments *arguments)
{
    struct err *err = NULL;

    *arguments = (struct agent_arguments){.limits = {.timeout_s = TIMEOUT_S_STANDARD}};
    for (int i = 1; i < argc && !err;) {
        struct option_arg arg;

        if (!strcmp(argv[i], "--")) {
            arguments->command = argv + i + 1;
            break;
        }
        err = option_next(argc, argv, &i, specs, NULL, NULL, &arg);
        if (!err)
            err = take_argument(&arg, words_max, hint, arguments);
        option_arg_fini(&arg);
    }
    return err;
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
