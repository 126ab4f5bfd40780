/*
 * The host side of the consoles: this terminal, new pseudo-terminals, listening sockets and files.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "cmd/listen.h"
#include "cmd/registry.h"
#include "cmd/run.h"

static struct err *open_stdio(struct run *run, struct vm_console *console)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return err_errno(errno, "cannot create a socket pair");
    run->console_fd = pair[0];
    console->in_fd = console->out_fd = pair[1];
    return NULL;
}

static struct err *open_pty(struct run *run, unsigned index, struct vm_console *console)
{
    struct termios mode;
    char path[128];
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave;

    if (master < 0)
        return err_errno(errno, "cannot create a pseudo-terminal");
    console->in_fd = console->out_fd = master;
    if (grantpt(master) != 0 || unlockpt(master) != 0 || ptsname_r(master, path, sizeof(path)) != 0)
        return err_errno(errno, "cannot set up a pseudo-terminal");
    slave = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        return err_errno(errno, "cannot open %s", path);
    run->pty_slave_fd[index] = slave;
    run->pty_path[index] = xstrdup(path);
    /* Raw: the guest's own terminal driver edits and echoes. */
    if (tcgetattr(slave, &mode) == 0) {
        cfmakeraw(&mode);
        tcsetattr(slave, TCSANOW, &mode);
    }
    return NULL;
}

struct err *run_listen(struct run *run, const char *what, const char *path, int *result)
{
    TRY(err_wrap(listen_unix(path, result), "%s", what));
    run->socket_path[run->socket_count++] = xstrdup(path);
    return NULL;
}

static struct err *open_file(struct vm_console *console)
{
    struct stat status;
    int fd = open(console->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0644);

    if (fd < 0 && errno == EISDIR)
        return err_new("'%s' is a directory: give a file", console->path);
    if (fd < 0)
        return err_errno(errno, "cannot write '%s'", console->path);
    console->out_fd = fd;
    if (fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode))
        return err_new("'%s' is a socket: use backend=socket", console->path);
    return NULL;
}

static struct err *open_console(struct run *run, unsigned index)
{
    struct vm_console *console = &run->launch.config.console[index];

    switch (console->backend) {
    case VM_BACKEND_STDIO:
        return open_stdio(run, console);
    case VM_BACKEND_PTY:
        return open_pty(run, index, console);
    case VM_BACKEND_SOCKET:
        return run_listen(run, "socket", console->path, &console->in_fd);
    case VM_BACKEND_FILE:
        return open_file(console);
    case VM_BACKEND_NULL:
        break;
    }
    return NULL;
}

/* A place with a '/' is a path; without, PORT and ADDRESS:PORT are TCP, and the rest is a path. */
static bool is_tcp(const char *where)
{
    return !strchr(where, '/') &&
           (strchr(where, ':') || strspn(where, "0123456789") == strlen(where));
}

static struct err *open_gdb(struct run *run)
{
    unsigned port;

    if (!is_tcp(run->gdb_where))
        return run_listen(run, "--gdb", run->gdb_where, &run->launch.gdb_fd);
    return err_wrap(listen_tcp(run->gdb_where, &run->launch.gdb_fd, &port), "--gdb");
}

/*
 * The control socket: in the registry, so that `tenon ps` finds it; with --qmp there, and the
 * registry has a link. A registry that cannot be written costs nothing but that.
 */
static struct err *open_control(struct run *run)
{
    scoped(free_cleanup) char *entry = registry_path(run->launch.config.name);
    scoped(free_cleanup) char *target = NULL;

    if (!run->qmp_path) {
        if (entry)
            err_free(run_listen(run, "control", entry, &run->launch.listen_fd));
        return NULL;
    }
    TRY(run_listen(run, "--qmp", run->qmp_path, &run->launch.listen_fd));
    target = realpath(run->qmp_path, NULL);
    if (entry && target && symlink(target, entry) == 0)
        run->socket_path[run->socket_count++] = xstrdup(entry);
    return NULL;
}

struct err *run_open_consoles(struct run *run)
{
    struct vm_config *config = &run->launch.config;

    for (unsigned i = 0; i < config->console_count; i++)
        TRY(err_wrap(open_console(run, i), "console '%s'", config->console[i].id));
    TRY(open_control(run));
    return run->gdb_where ? open_gdb(run) : NULL;
}
