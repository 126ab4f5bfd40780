/*
 * tenon stop: ends a VM, by its power button or at once.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>

#include "base/clock.h"
#include "cmd/command.h"
#include "cmd/registry.h"

#define WAIT_S_STANDARD 60
#define WAIT_S_MAX 86400

static const struct option_spec options[] = {
    {"now", NULL, "End it without asking the guest, as if the power failed."},
    {"wait", "SECONDS", "How long the guest may take (default 60; 0: do not wait)."},
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

static struct err *read_arguments(int argc, char **argv, const char **vm, bool *now, long *wait_s)
{
    for (int i = 1; i < argc;) {
        struct option_arg arg;
        char *end = NULL;
        struct err *err = option_next(argc, argv, &i, options, NULL, NULL, &arg);
        if (!err && arg.spec && !arg.value) {
            *now = true; /* --help does not come here */
        } else if (!err && arg.spec) {
            *wait_s = strtol(arg.value, &end, 10);
            if (!*arg.value || *end || *wait_s < 0 || *wait_s > WAIT_S_MAX)
                err =
                    err_of(ERR_USAGE, "--wait is 0 to %d seconds, not '%s'", WAIT_S_MAX, arg.value);
        } else if (!err && *vm) {
            err = err_of(ERR_USAGE, "'%s' is one word too many: give one VM", arg.value);
        } else if (!err) {
            *vm = arg.value;
        }
        option_arg_fini(&arg);
        TRY(err);
    }
    return *vm ? NULL : err_of(ERR_USAGE, "give a VM: its name or PID, see `tenon ps`");
}

static struct err *stop(int argc, char **argv, uint64_t started_ns, int *status)
{
    const char *vm = NULL;
    struct qmp_client client;
    bool now = false;
    long wait_s = WAIT_S_STANDARD;

    TRY(read_arguments(argc, argv, &vm, &now, &wait_s));
    struct err *err = registry_open(vm, &client);
    if (!err)
        err = qmp_client_run(&client, now ? "quit" : "system_powerdown", NULL, -1, NULL);
    if (!err && wait_s &&
        !qmp_client_await_end(&client, clock_now_ns() + (uint64_t)wait_s * NSEC_PER_SEC))
        err = err_new("the guest of '%s' still runs after %ld s: `tenon stop --now %s` ends it", vm,
                      wait_s, vm);
    qmp_client_close(&client);
    return err;
}

const struct command command_stop = {
    .name = "stop",
    .usage = "stop VM [OPTIONS]",
    .summary = "End a VM",
    .run = stop,
    .options = options,
};
