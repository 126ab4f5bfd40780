/*
 * tenon agent: what the agent in a guest says of it; its file systems frozen while a command runs
 * here; its clock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "cmd/agent_visit.h"

static const struct option_spec options[] = {
    {"json", NULL, "An object instead of lines."},
    AGENT_OPTIONS,
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

static void help_more(struct buf *out)
{
    buf_text(out, "\nACTION: info (the default) says what runs in the guest, and its addresses.\n"
                  "freeze -- COMMAND... freezes its file systems while COMMAND runs here, which\n"
                  "makes a snapshot; they are thawed whatever happens, and the exit status is the\n"
                  "command's. thaw thaws what an agent still holds. set-time sets the guest's\n"
                  "clock by this host's, after a pause or a restore.\n");
}

/* ---- info ---- */

/* A text of the guest, for a terminal: printable, and not long. */
static void print_line(const char *what, const char *text)
{
    printf("%-10s ", what);
    for (unsigned n = 0; text && text[n] && n < 200; n++)
        putchar(iscntrl((unsigned char)text[n]) ? '?' : text[n]);
    putchar('\n');
}

/* A member of what a command answers; what an agent does not know is left out. */
static json_t *ask(struct agent *agent, const char *command, const char *member)
{
    json_t *reply = NULL;

    err_free(agent_call(agent, command, NULL, &reply));
    json_t *value = json_object_get(reply, member);
    json_t *text = json_is_string(value) ? json_incref(value) : NULL;
    json_decref(reply);
    return text;
}

static struct err *describe(struct agent *agent, json_t **object)
{
    json_t *addresses = NULL;
    int64_t time_ns;

    TRY(agent_get_time(agent, &time_ns));
    double ahead_s = (double)(time_ns - (int64_t)clock_wall_ns()) / 1e9;
    err_free(agent_addresses(agent, &addresses));
    *object = json_pack("{s:o*, s:o*, s:o*, s:o*, s:f, s:o*}", "agent",
                        ask(agent, "guest-info", "version"), "system",
                        ask(agent, "guest-get-osinfo", "pretty-name"), "kernel",
                        ask(agent, "guest-get-osinfo", "kernel-release"), "host-name",
                        ask(agent, "guest-get-host-name", "host-name"), "clock-ahead-seconds",
                        ahead_s, "addresses", addresses);
    return NULL;
}

static void print_description(const json_t *object)
{
    static const char *const member[] = {"agent", "system", "kernel", "host-name"};
    size_t i;
    json_t *address;

    for (i = 0; i < ARRAY_SIZE(member); i++) {
        const json_t *text = json_object_get(object, member[i]);
        if (text)
            print_line(member[i], json_string_value(text));
    }
    printf("%-10s %+.3f s\n", "clock",
           json_real_value(json_object_get(object, "clock-ahead-seconds")));
    json_array_foreach(json_object_get(object, "addresses"), i, address)
        print_line("address", json_string_value(address));
}

static struct err *info(struct agent *agent, bool json)
{
    json_t *object;

    TRY(describe(agent, &object));
    if (json) {
        char *text = json_dumps(object, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        printf("%s\n", text);
        free(text);
    } else {
        print_description(object);
    }
    json_decref(object);
    return fflush(stdout) == 0 ? NULL : err_errno(errno, "cannot write to standard output");
}

/* ---- freeze ---- */

static struct err *run_here(char *const argv[], int *status)
{
    int ended;
    pid_t pid = fork();

    if (pid < 0)
        return err_errno(errno, "cannot start a process");
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        execvp(argv[0], argv);
        fprintf(stderr, "tenon: cannot run '%s': %s\n", argv[0], strerror(errno));
        _exit(errno == ENOENT ? 127 : 126);
    }
    while (waitpid(pid, &ended, 0) < 0 && errno == EINTR) {
    }
    *status = WIFEXITED(ended) ? WEXITSTATUS(ended) : 128 + WTERMSIG(ended);
    return NULL;
}

/* Signals wait: a guest must not stay frozen because somebody pressed Ctrl-C. */
static struct err *frozen(struct agent *agent, char *const argv[], int *status)
{
    sigset_t all, before;
    unsigned count, thawed;

    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    struct err *err = agent_freeze(agent, &count);
    if (!err)
        err = run_here(argv, status);
    struct err *late = agent_thaw(agent, &thawed);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (!err && !late && !count)
        err = err_new("the agent froze no file system");
    if (err)
        err_free(late);
    return err ? err : late;
}

static struct err *thaw(struct agent *agent)
{
    unsigned count;

    TRY(agent_thaw(agent, &count));
    printf("%u file systems thawed\n", count);
    return NULL;
}

static struct err *act(const struct agent_arguments *arguments, const char *action,
                       struct agent *agent, int *status)
{
    if (!strcmp(action, "freeze"))
        return frozen(agent, arguments->command, status);
    if (!strcmp(action, "thaw"))
        return thaw(agent);
    if (!strcmp(action, "set-time"))
        return agent_set_time(agent);
    return info(agent, arguments->own);
}

static struct err *check(const struct agent_arguments *arguments, const char *action)
{
    static const char *const names[] = {"info", "freeze", "thaw", "set-time", NULL};
    bool known = false, freeze;

    if (!arguments->words)
        return err_of(ERR_USAGE, "give a VM: its name or PID, see `tenon ps`");
    for (unsigned i = 0; names[i]; i++)
        known |= !strcmp(action, names[i]);
    if (!known)
        return err_of(ERR_USAGE, "the actions are info, freeze, thaw and set-time, not '%s'",
                      action);
    freeze = !strcmp(action, "freeze");
    if (freeze != (arguments->command && arguments->command[0]))
        return err_of(ERR_USAGE, freeze ? "give the command to run meanwhile: tenon agent web "
                                          "freeze -- COMMAND..."
                                        : "a command behind -- is for freeze");
    return NULL;
}

static struct err *agent(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct agent_arguments arguments;
    struct agent_visit visit;

    TRY(agent_arguments_read(argc, argv, options, 2, "give a VM and an action", &arguments));
    const char *action = arguments.words == 2 ? arguments.word[1] : "info";
    TRY(check(&arguments, action));
    struct err *err = agent_visit_open(&visit, arguments.word[0], &arguments.limits);
    if (!err)
        err = err_wrap(act(&arguments, action, &visit.agent, status), "VM '%s'", arguments.word[0]);
    agent_visit_close(&visit);
    return err;
}

const struct command command_agent = {
    .name = "agent",
    .usage = "agent VM [ACTION] [OPTIONS]",
    .summary = "Ask the agent in a guest",
    .run = agent,
    .options = options,
    .help_more = help_more,
};
