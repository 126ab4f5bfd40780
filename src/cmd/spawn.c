/*
 * Starting the programs beside `tenon`.
 *
 * A child that outlives its parent would be a VM that nobody can reach, so the child asks for
 * SIGKILL at the parent's death (prctl(2), PR_SET_PDEATHSIG) before exec, and looks then whether
 * the parent has died in the meantime.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

struct err *spawn_find(const char *program, char **path)
{
    char self[4096];
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    int folder = 0;

    self[MAX(len, 0)] = 0;
    if (len > 0)
        folder = (int)(strrchr(self, '/') - self);
    char *const candidates[] = {
        xasprintf("%.*s/%s", folder, self, program), xasprintf("%s/%s", TENON_LIBEXECDIR, program),
        xasprintf("%.*s/../bin/%s", folder, self, program), /* tenond, in sbin, looks for tenon */
    };

    *path = NULL;
    for (unsigned i = 0; i < ARRAY_SIZE(candidates); i++) {
        if (!*path && access(candidates[i], X_OK) == 0)
            *path = candidates[i];
        else
            free(candidates[i]);
    }
    return *path ? NULL
                 : err_new("the program %s is missing: it is neither in the folder of this one nor "
                           "in %s",
                           program, TENON_LIBEXECDIR);
}

struct child {
    const char *path;
    char *const *argv;
    const int *keep;
    size_t keep_count;
    int null_fd, stderr_fd, error_fd;
    pid_t parent;          /* 0: lives on without it */
    const char *directory; /* NULL: ours */
};

/* Between fork and exec; the errno of a failure goes up the pipe. */
static void __attribute__((noreturn)) child_run(const struct child *child)
{
    sigset_t none;
    int error;

    setsid();
    if (child->parent && prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        goto fail;
    if (child->parent && getppid() != child->parent)
        _exit(ERR_FAILED);
    if (child->directory && chdir(child->directory) != 0)
        goto fail;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(child->null_fd, 0) < 0 || dup2(child->null_fd, 1) < 0 ||
        (child->stderr_fd >= 0 && dup2(child->stderr_fd, 2) < 0))
        goto fail;
    for (size_t i = 0; i < child->keep_count; i++)
        if (child->keep[i] >= 0 && fcntl(child->keep[i], F_SETFD, 0) != 0)
            goto fail;
    execve(child->path, child->argv, environ);
fail:
    error = errno;
    if (write(child->error_fd, &error, sizeof(error)) < 0)
        _exit(ERR_FAILED);
    _exit(ERR_FAILED);
}

static struct err *start(struct child *child, pid_t *pid)
{
    scoped(fd_cleanup) int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    int pipe_fds[2], error = 0;
    ssize_t n;

    if (null_fd < 0)
        return err_errno(errno, "cannot open /dev/null");
    if (pipe2(pipe_fds, O_CLOEXEC) != 0)
        return err_errno(errno, "cannot create a pipe");
    child->null_fd = null_fd;
    child->error_fd = pipe_fds[1];
    *pid = fork();
    if (*pid == 0)
        child_run(child);
    error = errno;
    close(pipe_fds[1]);
    if (*pid < 0) {
        close(pipe_fds[0]);
        return err_errno(error, "cannot start %s", child->path);
    }
    /* Returns at exec, which closes the other end, or with what went wrong. */
    do {
        n = read(pipe_fds[0], &error, sizeof(error));
    } while (n < 0 && errno == EINTR);
    close(pipe_fds[0]);
    if (n == (ssize_t)sizeof(error)) {
        waitpid(*pid, NULL, 0);
        return err_errno(error, "cannot start %s", child->path);
    }
    return NULL;
}

struct err *spawn(const char *path, char *const argv[], const int *keep, size_t keep_count,
                  int stderr_fd, pid_t *pid)
{
    struct child child = {.path = path,
                          .argv = argv,
                          .keep = keep,
                          .keep_count = keep_count,
                          .stderr_fd = stderr_fd,
                          .parent = getpid()};

    return start(&child, pid);
}

struct err *spawn_detached(const char *path, char *const argv[], const char *directory,
                           int stderr_fd, pid_t *pid)
{
    struct child child = {
        .path = path, .argv = argv, .stderr_fd = stderr_fd, .directory = directory};

    return start(&child, pid);
}

void spawn_status_text(int status, char *text, size_t size)
{
    if (WIFSIGNALED(status))
        snprintf(text, size, "was killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(text, size, "ended with status %d", WEXITSTATUS(status));
}
