/*
 * The user's terminal (termios(3)).
 *
 * A process that is killed with SIGKILL restores nothing, so a second, tiny process does: the guard
 * waits on a socket whose other end only this process has. When it ends without a good-bye and
 * the terminal was raw, the guard puts the old mode back. It has its own session, so that nothing
 * that is typed, and no signal to our process group, reaches it; from there the kernel lets it set
 * the mode.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "sandbox/sandbox.h"

enum { GUARD_COOKED = 'c', GUARD_RAW = 'r', GUARD_BYE = 'b', GUARD_READY = 'g' };

static void __attribute__((noreturn)) guard_run(int tty, int fd, const struct termios *saved)
{
    const int keep[] = {tty, fd};
    char mode = GUARD_COOKED, byte = GUARD_READY;
    int null_fd;

    setsid();
    null_fd = open("/dev/null", O_RDWR);
    for (int standard = 0; standard <= 2; standard++)
        if (standard != tty && null_fd >= 0)
            dup2(null_fd, standard);
    err_free(sandbox_close_others(keep, ARRAY_SIZE(keep)));
    if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1)
        _exit(0);
    while (mode != GUARD_BYE) {
        ssize_t n = read(fd, &byte, 1);

        if (n == 1)
            mode = byte;
        else if (n == 0 || errno != EINTR)
            break;
    }
    if (mode == GUARD_RAW)
        tcsetattr(tty, TCSANOW, saved);
    _exit(0);
}

static void guard_tell(const struct terminal *terminal, char mode)
{
    ssize_t n;

    do {
        n = send(terminal->guard_fd, &mode, 1, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
}

/* Until the guard is in its own session, a signal to our process group would reach it as well. */
static void guard_await(struct terminal *terminal)
{
    char byte;
    ssize_t n;

    while (!terminal->guarded) {
        n = read(terminal->guard_fd, &byte, 1);
        terminal->guarded = n >= 0 || errno != EINTR;
    }
}

struct err *terminal_init(struct terminal *terminal, int fd)
{
    int pair[2];

    *terminal = (struct terminal){.fd = -1, .guard_fd = -1};
    if (!isatty(fd) || tcgetattr(fd, &terminal->saved) != 0)
        return NULL;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return err_errno(errno, "cannot create a socket pair");
    terminal->guard_pid = fork();
    if (terminal->guard_pid == 0) {
        close(pair[1]);
        guard_run(fd, pair[0], &terminal->saved);
    }
    close(pair[0]);
    if (terminal->guard_pid < 0) {
        close(pair[1]);
        return err_errno(errno, "cannot start the terminal's guard");
    }
    terminal->guard_fd = pair[1];
    terminal->fd = fd;
    return NULL;
}

void terminal_fini(struct terminal *terminal)
{
    if (terminal->fd < 0)
        return;
    terminal_restore(terminal);
    guard_tell(terminal, GUARD_BYE);
    close(terminal->guard_fd);
    waitpid(terminal->guard_pid, NULL, 0);
    terminal->fd = -1;
}

/* tcsetattr from the background would stop us, unless SIGTTOU is blocked. */
static int set_mode(int fd, const struct termios *mode)
{
    sigset_t ttou, before;
    int result;

    sigemptyset(&ttou);
    sigaddset(&ttou, SIGTTOU);
    sigprocmask(SIG_BLOCK, &ttou, &before);
    do {
        result = tcsetattr(fd, TCSADRAIN, mode);
    } while (result != 0 && errno == EINTR);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return result;
}

void terminal_raw(struct terminal *terminal)
{
    struct termios mode;

    if (terminal->fd < 0 || tcgetpgrp(terminal->fd) != getpgrp())
        return;
    mode = terminal->saved;
    cfmakeraw(&mode);
    guard_await(terminal);
    guard_tell(terminal, GUARD_RAW);
    terminal->raw = set_mode(terminal->fd, &mode) == 0;
}

void terminal_restore(struct terminal *terminal)
{
    if (terminal->fd < 0 || !terminal->raw)
        return;
    set_mode(terminal->fd, &terminal->saved);
    terminal->raw = false;
    guard_tell(terminal, GUARD_COOKED);
}

void terminal_continue(struct terminal *terminal)
{
    if (terminal->fd < 0)
        return;
    terminal->raw = false;
    guard_tell(terminal, GUARD_COOKED);
    terminal_raw(terminal);
}

void terminal_say(const struct terminal *terminal, const char *format, ...)
{
    const char *end = terminal->raw ? "\r\n" : "\n";
    char line[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    fprintf(stderr, "%s%s", line, end);
}
