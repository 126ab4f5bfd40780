/*
 * Consoles of running VMs. See console.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "daemon/console.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "daemon/link.h"

struct console {
    struct loop_fd watch;
    int dir_fd; /* borrowed */
    int fd, log_fd;
    char *log_name;
    uint64_t log_size;
    struct buf recent, typed;
    struct list watchers;
};

/* ---- the log ---- */

static void log_open(struct console *console)
{
    struct stat status;

    console->log_fd = openat(console->dir_fd, console->log_name,
                             O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (console->log_fd >= 0 && fstat(console->log_fd, &status) == 0)
        console->log_size = (uint64_t)status.st_size;
}

/* A disk that is full costs the log, not the console. */
static void log_append(struct console *console, const uint8_t *bytes, size_t len)
{
    if (console->log_size + len > CONSOLE_LOG_MAX) {
        scoped(free_cleanup) char *old = xasprintf("%s.1", console->log_name);
        renameat(console->dir_fd, console->log_name, console->dir_fd, old);
        fd_cleanup(&console->log_fd);
        console->log_size = 0;
        log_open(console);
    }
    ssize_t n = console->log_fd < 0 ? 0 : write(console->log_fd, bytes, len);
    console->log_size += n > 0 ? (size_t)n : 0;
}

/* ---- both directions ---- */

static void remember(struct console *console, const uint8_t *bytes, size_t len)
{
    struct buf *recent = &console->recent;

    /* In steps, so that a byte at a time does not move all of them each time. */
    if (recent->len + len > 2 * CONSOLE_RECENT_MAX) {
        memmove(recent->data, recent->data + recent->len - CONSOLE_RECENT_MAX, CONSOLE_RECENT_MAX);
        recent->len = CONSOLE_RECENT_MAX;
    }
    buf_append(recent, bytes, len);
}

static void flush(struct console *console)
{
    struct buf *typed = &console->typed;

    while (typed->len) {
        ssize_t n = send(console->fd, typed->data, typed->len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        typed->len -= (size_t)n;
        memmove(typed->data, typed->data + n, typed->len);
    }
    loop_fd_modify(&console->watch, typed->len ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void hang_up(struct console *console)
{
    loop_fd_remove(&console->watch);
    close(console->fd);
    console->fd = -1;
}

/* Some of what the guest has written; false when there is nothing, now or for ever. */
static bool take_output(struct console *console)
{
    struct console_watcher *watcher;
    uint8_t bytes[16384];
    ssize_t n = recv(console->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0) {
        hang_up(console);
        return false;
    }
    remember(console, bytes, (size_t)n);
    log_append(console, bytes, (size_t)n);
    list_for_each (watcher, &console->watchers, link)
        watcher->output(watcher->opaque, bytes, (size_t)n);
    return true;
}

static void on_socket(void *opaque, uint32_t events)
{
    struct console *console = opaque;

    if (events & EPOLLOUT)
        flush(console);
    take_output(console);
}

/* ---- the owner's side ---- */

struct err *console_open(struct loop *loop, int dir_fd, const char *id, struct console **result)
{
    scoped(free_cleanup) char *name = xasprintf("console-%s.sock", id);
    struct console *console = xcalloc(1, sizeof(*console));

    console->dir_fd = dir_fd;
    console->fd = console->log_fd = -1;
    list_init(&console->watchers);
    struct err *err = link_connect(dir_fd, name, &console->fd);
    if (!err)
        err = loop_fd_add(loop, &console->watch, console->fd, EPOLLIN, on_socket, console);
    if (err) {
        fd_cleanup(&console->fd);
        free(console);
        return err_wrap(err, "console '%s'", id);
    }
    console->log_name = xasprintf("console-%s.log", id);
    log_open(console);
    *result = console;
    return NULL;
}

void console_close(struct console *console)
{
    if (!console)
        return;
    /* What the VM wrote last may still be in the socket. */
    while (console->fd >= 0 && take_output(console))
        ;
    while (!list_empty(&console->watchers)) {
        struct console_watcher *watcher =
            list_first(&console->watchers, struct console_watcher, link);
        list_remove(&watcher->link);
        watcher->ended(watcher->opaque);
    }
    if (console->fd >= 0)
        hang_up(console);
    fd_cleanup(&console->log_fd);
    buf_fini(&console->recent);
    buf_fini(&console->typed);
    free(console->log_name);
    free(console);
}

bool console_is_connected(const struct console *console)
{
    return console && console->fd >= 0;
}

void console_watch(struct console *console, struct console_watcher *watcher)
{
    size_t len = MIN(console->recent.len, (size_t)CONSOLE_RECENT_MAX);

    if (len)
        watcher->output(watcher->opaque, console->recent.data + console->recent.len - len, len);
    list_append(&console->watchers, &watcher->link);
}

void console_unwatch(struct console_watcher *watcher)
{
    list_remove(&watcher->link);
}

bool console_type(struct console *console, const void *bytes, size_t len)
{
    if (console->fd < 0 || console->typed.len + len > CONSOLE_TYPED_MAX)
        return false;
    buf_append(&console->typed, bytes, len);
    flush(console);
    return true;
}
