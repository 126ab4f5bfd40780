/*
 * tenon exec: runs a command in a guest, by the guest's agent.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cmd/agent_visit.h"

#define STATUS_NOT_RUN 125 /* as env(1) and others have it */
#define INPUT_MAX MIB(16)
#define LOOK_US_FIRST 10000
#define LOOK_US_MAX 500000u

static const struct option_spec options[] = {
    {"stdin", NULL, "Give the command what standard input has, up to its end (at most 16 MiB)."},
    AGENT_OPTIONS,
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

static void help_more(struct buf *out)
{
    buf_text(out,
             "\nThe command's output comes when it has ended. Exit status: the command's; 128\n"
             "and the signal when one killed it; 125 when it could not be run.\n");
}

static struct err *read_arguments(int argc, char **argv, struct agent_arguments *arguments)
{
    TRY(agent_arguments_read(argc, argv, options, 1, "the command comes behind --", arguments));
    if (!arguments->words || !arguments->command || !arguments->command[0])
        return err_of(ERR_USAGE, "give a VM and a command: tenon exec web -- ls -l /");
    return NULL;
}

static struct err *read_input(struct buf *input)
{
    char bytes[KIB(16)];
    ssize_t n;

    while ((n = read(STDIN_FILENO, bytes, sizeof(bytes))) != 0) {
        if (n < 0 && errno != EINTR)
            return err_errno(errno, "cannot read standard input");
        if (n > 0)
            buf_append(input, bytes, (size_t)n);
        if (input->len > INPUT_MAX)
            return err_new("standard input has more than 16 MiB: copy it with tenon cp");
    }
    return NULL;
}

static struct err *start(const struct agent_arguments *arguments, json_int_t *pid)
{
    struct buf input = BUF_INIT;
    struct agent_visit visit = {.fd = -1};
    struct err *err = arguments->own ? read_input(&input) : NULL;

    if (!err) {
        err = agent_visit_open(&visit, arguments->word[0], &arguments->limits);
        if (!err)
            err = err_wrap(agent_exec_start(&visit.agent, arguments->command, &input, pid),
                           "VM '%s'", arguments->word[0]);
        agent_visit_close(&visit);
    }
    buf_fini(&input);
    return err;
}

/* A visit each time: a command may take days, and others want the agent as well. */
static struct err *await_end(const struct agent_arguments *arguments, json_int_t pid,
                             struct agent_exec *exec)
{
    useconds_t pause_us = LOOK_US_FIRST;

    for (;;) {
        struct agent_visit visit;
        struct err *err = agent_visit_open(&visit, arguments->word[0], &arguments->limits);
        if (!err)
            err = err_wrap(agent_exec_look(&visit.agent, pid, exec), "VM '%s'", arguments->word[0]);
        agent_visit_close(&visit);
        if (err || exec->ended)
            return err;
        usleep(pause_us);
        pause_us = MIN(pause_us * 3 / 2, LOOK_US_MAX);
    }
}

static struct err *print(const struct buf *bytes, FILE *to, const char *name)
{
    if (fwrite(bytes->data, 1, bytes->len, to) == bytes->len && fflush(to) == 0)
        return NULL;
    return err_errno(errno, "cannot write to %s", name);
}

static struct err *run_command(const struct agent_arguments *arguments, int *status)
{
    struct agent_exec exec = {0};
    json_int_t pid;
    struct err *err = start(arguments, &pid);

    if (!err)
        err = await_end(arguments, pid, &exec);
    if (!err)
        err = print(&exec.out, stdout, "standard output");
    if (!err)
        err = print(&exec.err, stderr, "standard error");
    if (!err && exec.truncated)
        fprintf(stderr, "tenon: the agent kept the first 16 MiB of the output; the rest is lost\n");
    *status = exec.status;
    agent_exec_fini(&exec);
    return err;
}

static struct err *exec(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct agent_arguments arguments;

    TRY(read_arguments(argc, argv, &arguments));
    struct err *err = run_command(&arguments, status);
    if (err) {
        command_say_error("tenon", err);
        err_free(err);
        *status = STATUS_NOT_RUN;
    }
    return NULL;
}

const struct command command_exec = {
    .name = "exec",
    .usage = "exec VM [OPTIONS] -- COMMAND...",
    .summary = "Run a command in a guest, by its agent",
    .run = exec,
    .options = options,
    .help_more = help_more,
};
