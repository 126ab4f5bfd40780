/*
 * The launcher of tenond. See launcher.h. One request and one reply at a time, each a message on a
 * SOCK_SEQPACKET pair; what a program works with comes as descriptors, so that there is no path
 * to judge.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/launcher.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/socket.h"
#include "cmd/spawn.h"
#include "sandbox/sandbox.h"

enum operation { LAUNCH_KEEPER, LAUNCH_VIEW, LAUNCH_REAP, LAUNCH_REMOVE };

struct request {
    enum operation operation;
    pid_t pid;
    char vm[80];
};

struct reply {
    enum err_kind failed; /* 0: done */
    pid_t pid;
    int status;
    char sentence[512];
};

/* ---- the launcher's side ---- */

struct service {
    const struct launcher_config *config;
    char *tenon; /* path of the program */
    int fd;
};

static struct err *start_keeper(const struct service *service, const int fd[2], pid_t *pid)
{
    scoped(free_cleanup) char *format = xasprintf("--log-format=%s", service->config->log_format);
    scoped(free_cleanup) char *folder = xasprintf("/proc/self/fd/%d", fd[0]);
    char *const argv[] = {"tenon",    "run",      "vm.yaml",     "--paused", "--quiet", "--qmp",
                          "qmp.sock", "--report", "report.json", format,     NULL};

    return spawn_detached(service->tenon, argv, folder, fd[1], pid);
}

static struct err *start_view(const char *vm, const int fd[2], pid_t *pid)
{
    scoped(free_cleanup) char *path = NULL;
    scoped(free_cleanup) char *name = xasprintf("--name=%s", vm);
    scoped(free_cleanup) char *screen = xasprintf("--screen-fd=%d", fd[0]);
    scoped(free_cleanup) char *clients = xasprintf("--clients-fd=%d", fd[1]);
    char *const argv[] = {"tenon-view", name, screen, clients, NULL};

    TRY(spawn_find("tenon-view", &path));
    return spawn(path, argv, fd, 2, -1, pid);
}

/* Of our own children alone. */
static int reap(pid_t pid)
{
    siginfo_t info;
    int status = 0;

    if (pid <= 0 || waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0)
        return 0;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return status;
}

static void serve(const struct service *service, struct request *request, const int fd[2])
{
    struct reply reply = {0};
    struct err *err = NULL;

    request->vm[sizeof(request->vm) - 1] = 0;
    if (request->operation == LAUNCH_KEEPER && fd[1] >= 0)
        err = start_keeper(service, fd, &reply.pid);
    else if (request->operation == LAUNCH_VIEW && fd[1] >= 0)
        err = start_view(request->vm, fd, &reply.pid);
    else if (request->operation == LAUNCH_REAP)
        reply.status = reap(request->pid);
    else if (request->operation == LAUNCH_REMOVE && service->config->remove)
        unlink(service->config->remove);
    if (err) {
        reply.failed = err_kind(err);
        snprintf(reply.sentence, sizeof(reply.sentence), "%s", err_text(err));
        err_free(err);
    }
    socket_send_fds(service->fd, &reply, sizeof(reply), NULL, 0,
                    0); /* else the next read ends us */
}

static void __attribute__((noreturn)) run(const struct service *service)
{
    struct request request;
    int fd[2];

    /* No signal of the terminal, and none for tenond, ends it before tenond does; nobody who is
     * not root looks into it. What it starts has neither. */
    setsid();
    prctl(PR_SET_DUMPABLE, 0);
    prctl(PR_SET_NAME, "tenond-launcher");
    err_free(sandbox_close_others(&service->fd, 1));
    while (socket_receive_fds(service->fd, &request, sizeof(request), fd, 2, 0) ==
           (ssize_t)sizeof(request)) {
        serve(service, &request, fd);
        fd_cleanup(&fd[0]);
        fd_cleanup(&fd[1]);
    }
    _exit(0);
}

/* ---- tenond's side ---- */

struct err *launcher_start(const struct launcher_config *config, struct launcher *launcher)
{
    struct service service = {.config = config};
    int pair[2];

    TRY(spawn_find("tenon", &service.tenon));
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        free(service.tenon);
        return err_errno(errno, "cannot create a socket pair");
    }
    launcher->pid = fork();
    if (launcher->pid == 0) {
        service.fd = pair[1];
        run(&service);
    }
    free(service.tenon);
    close(pair[1]);
    launcher->fd = pair[0];
    return launcher->pid < 0 ? err_errno(errno, "cannot start the launcher") : NULL;
}

static struct err *call(struct launcher *launcher, const struct request *request, const int *fds,
                        size_t count, struct reply *reply)
{
    if (!socket_send_fds(launcher->fd, request, sizeof(*request), fds, count, 0) ||
        recv(launcher->fd, reply, sizeof(*reply), 0) != (ssize_t)sizeof(*reply))
        return err_new("the launcher has ended");
    reply->sentence[sizeof(reply->sentence) - 1] = 0;
    return reply->failed ? err_of(reply->failed, "%s", reply->sentence) : NULL;
}

static struct err *launch(struct launcher *launcher, const struct request *request, const int fd[2],
                          pid_t *pid)
{
    struct reply reply;

    TRY(call(launcher, request, fd, 2, &reply));
    *pid = reply.pid;
    return NULL;
}

struct err *launcher_keeper(struct launcher *launcher, int directory_fd, int log_fd, pid_t *pid)
{
    const struct request request = {.operation = LAUNCH_KEEPER};

    return launch(launcher, &request, (int[]){directory_fd, log_fd}, pid);
}

struct err *launcher_view(struct launcher *launcher, const char *vm, int screen_fd, int clients_fd,
                          pid_t *pid)
{
    struct request request = {.operation = LAUNCH_VIEW};

    snprintf(request.vm, sizeof(request.vm), "%s", vm);
    return launch(launcher, &request, (int[]){screen_fd, clients_fd}, pid);
}

int launcher_reap(struct launcher *launcher, pid_t pid)
{
    const struct request request = {.operation = LAUNCH_REAP, .pid = pid};
    struct reply reply = {0};

    err_free(call(launcher, &request, NULL, 0, &reply));
    return reply.status;
}

void launcher_end(struct launcher *launcher, bool remove)
{
    const struct request request = {.operation = LAUNCH_REMOVE};
    struct reply reply;

    if (launcher->pid <= 0)
        return;
    if (remove)
        err_free(call(launcher, &request, NULL, 0, &reply));
    fd_cleanup(&launcher->fd);
    waitpid(launcher->pid, NULL, 0);
    launcher->pid = 0;
}
