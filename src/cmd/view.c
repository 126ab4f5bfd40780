/*
 * tenon view: the screen of a running VM for VNC viewers. And what `tenon run --vnc` shares with
 * it.
 *
 * tenon-view gets every descriptor from here: it opens nothing, and what it parses comes from
 * networks. Its socket to the VM carries pixels, keys and pointer, and none of QMP's commands.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/view.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/listen.h"
#include "cmd/ready.h"
#include "cmd/registry.h"
#include "cmd/spawn.h"

#define PORT_FIRST 5900
#define PORT_LAST 5999
#define FDS_MAX 7

/* ---- options ---- */

static const struct option_spec options_table[] = {
    VIEW_OPTION_SPECS,
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

bool view_option(struct view_options *options, const char *name, const char *value)
{
    const struct {
        const char *name;
        const char **value;
    } texts[] = {{"vnc", &options->where},
                 {"vnc-password-file", &options->password},
                 {"vnc-look-password-file", &options->look_password},
                 {"vnc-certificate", &options->certificate},
                 {"vnc-key", &options->key}};

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        if (strcmp(name, texts[i].name))
            continue;
        *texts[i].value = value;
        return true;
    }
    if (!strcmp(name, "vnc-tls-only"))
        return options->tls_only = true;
    if (!strcmp(name, "vnc-look-only"))
        return options->look_only = true;
    return false;
}

/* ---- where viewers come ---- */

/* Whoever reaches the port reaches the screen: from other hosts only with a password. */
static struct err *check_reach(const struct view_options *options, int fd)
{
    struct sockaddr_storage bound;
    socklen_t len = sizeof(bound);
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&bound;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&bound;

    if (options->password || options->look_password)
        return NULL;
    if (getsockname(fd, (struct sockaddr *)&bound, &len) != 0)
        return err_errno(errno, "--vnc");
    if (bound.ss_family == AF_INET ? ntohl(v4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET
                                   : IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr))
        return NULL;
    return err_of(ERR_USAGE, "--vnc: '%s' is reached from other hosts: give --vnc-password-file",
                  options->where);
}

static struct err *listen_free_port(int *fd, char **where)
{
    for (unsigned wanted = PORT_FIRST;; wanted++) {
        unsigned port;
        char text[8];
        snprintf(text, sizeof(text), "%u", wanted);
        struct err *err = listen_tcp(text, fd, &port);
        if (!err)
            *where = xasprintf("127.0.0.1:%u", port);
        if (!err || err_kind(err) != ERR_BUSY || wanted == PORT_LAST)
            return err;
        err_free(err);
    }
}

static struct err *open_door(const struct view_options *options, int *fd, struct view *view)
{
    const char *where = options->where;
    unsigned port;

    if (!where)
        return listen_free_port(fd, &view->where);
    if (strchr(where, '/')) {
        TRY(err_wrap(listen_unix(where, fd), "--vnc"));
        view->where = xstrdup(where);
        view->to_unlink = xstrdup(where);
        return NULL;
    }
    TRY(err_wrap(listen_tcp(where, fd, &port), "--vnc"));
    const char *colon = strrchr(where, ':');
    view->where = colon ? xasprintf("%.*s:%u", (int)(colon - where), where, port)
                        : xasprintf("127.0.0.1:%u", port);
    return check_reach(options, *fd);
}

/* ---- starting ---- */

struct start {
    int fd[FDS_MAX];
    char *argv[FDS_MAX + 6];
    unsigned fds, args;
};

static void add_arg(struct start *start, char *take_text)
{
    start->argv[start->args++] = take_text;
}

static void add_fd(struct start *start, const char *option, int take_fd)
{
    start->fd[start->fds++] = take_fd;
    add_arg(start, xasprintf("--%s=%d", option, take_fd));
}

static struct err *add_file(struct start *start, const char *option, const char *path)
{
    if (!path)
        return NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return err_errno(errno, "cannot read '%s'", path);
    add_fd(start, option, fd);
    return NULL;
}

static struct err *add_files(struct start *start, const struct view_options *options)
{
    if (!options->certificate != !options->key)
        return err_of(ERR_USAGE, "--vnc-certificate and --vnc-key go together");
    TRY(add_file(start, "password-fd", options->password));
    TRY(add_file(start, "look-password-fd", options->look_password));
    TRY(add_file(start, "certificate-fd", options->certificate));
    return add_file(start, "key-fd", options->key);
}

static struct err *prepare(struct start *start, const struct view_options *options, const char *vm,
                           struct view *view)
{
    int pair[2], door = -1;

    add_arg(start, xstrdup("tenon-view"));
    add_arg(start, xasprintf("--name=%s", vm));
    if (options->tls_only)
        add_arg(start, xstrdup("--tls-only"));
    if (options->look_only)
        add_arg(start, xstrdup("--look-only"));
    TRY(add_files(start, options));
    struct err *err = open_door(options, &door, view);
    if (door >= 0)
        add_fd(start, "listen-fd", door);
    TRY(err);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return err_errno(errno, "cannot create a socket pair");
    view->screen_fd = pair[0];
    add_fd(start, "screen-fd", pair[1]);
    if (pipe2(pair, O_CLOEXEC) != 0)
        return err_errno(errno, "cannot create a pipe");
    view->status_fd = pair[0];
    add_fd(start, "status-fd", pair[1]);
    return NULL;
}

struct err *view_start(const struct view_options *options, const char *vm, int stderr_fd,
                       struct view *view)
{
    scoped(free_cleanup) char *path = NULL;
    struct start start = {0};

    *view = (struct view){.status_fd = -1, .screen_fd = -1};
    TRY(spawn_find("tenon-view", &path));
    struct err *err = prepare(&start, options, vm, view);
    if (!err)
        err = spawn(path, start.argv, start.fd, start.fds, stderr_fd, &view->pid);
    for (unsigned i = 0; i < start.fds; i++)
        close(start.fd[i]);
    for (unsigned i = 0; i < start.args; i++)
        free(start.argv[i]);
    if (err) {
        view->pid = 0;
        view_end(view);
    }
    return err;
}

void view_end(struct view *view)
{
    fd_cleanup(&view->status_fd);
    fd_cleanup(&view->screen_fd);
    if (view->pid > 0) {
        kill(view->pid, SIGKILL);
        waitpid(view->pid, NULL, 0);
    }
    if (view->to_unlink)
        unlink(view->to_unlink);
    free(view->to_unlink);
    free(view->where);
    *view = (struct view){.status_fd = -1, .screen_fd = -1};
}

/* ---- the command ---- */

/* The VM's own name, and its end of the socket to it. */
static struct err *connect_vm(struct qmp_client *client, const struct view_options *options,
                              struct view *view)
{
    json_t *name;

    TRY(qmp_client_run(client, "query-name", NULL, -1, &name));
    struct err *err =
        view_start(options, json_string_value(json_object_get(name, "name")), -1, view);
    json_decref(name);
    TRY(err);
    TRY(ready_await(view->status_fd, "tenon-view"));
    return qmp_client_run(client, "tenon-screen-share", NULL, view->screen_fd, NULL);
}

/* Until the VM ends, or somebody ends us. */
static struct err *stay(struct view *view)
{
    sigset_t signals;
    char text[80];
    int number, status = 0;

    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    while (waitpid(view->pid, &status, WNOHANG) == 0) {
        if (sigwait(&signals, &number) == 0 && number != SIGCHLD)
            return NULL;
    }
    view->pid = 0;
    if (WIFEXITED(status) && !WEXITSTATUS(status))
        return NULL;
    spawn_status_text(status, text, sizeof(text));
    return err_new("tenon-view %s", text);
}

static struct err *show(const char *vm, const struct view_options *options)
{
    struct view view = {.status_fd = -1, .screen_fd = -1};
    struct qmp_client client;
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    struct err *err = registry_open(vm, &client);
    if (!err)
        err = connect_vm(&client, options, &view);
    qmp_client_close(&client);
    fd_cleanup(&view.screen_fd);
    if (!err) {
        printf("VNC on %s; Ctrl-C ends it, the VM runs on\n", view.where);
        fflush(stdout);
        err = stay(&view);
    }
    view_end(&view);
    return err;
}

static struct err *command_view_main(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct view_options options = {0};
    const char *vm = NULL;

    for (int i = 1; i < argc;) {
        struct option_arg arg;
        struct err *err = option_next(argc, argv, &i, options_table, NULL, NULL, &arg);
        if (!err && arg.spec)
            view_option(&options, arg.name, arg.value);
        else if (!err && vm)
            err = err_of(ERR_USAGE, "'%s' is one word too many: give one VM", arg.value);
        else if (!err)
            vm = arg.value;
        option_arg_fini(&arg);
        TRY(err);
    }
    if (!vm)
        return err_of(ERR_USAGE, "give a VM: name, PID or control socket");
    return show(vm, &options);
}

const struct command command_view = {
    .name = "view",
    .usage = "view VM [OPTIONS]",
    .summary = "Show a VM's screen to VNC viewers",
    .run = command_view_main,
    .options = options_table,
};
