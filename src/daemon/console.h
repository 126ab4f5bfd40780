/*
 * A console of a running VM, held by tenond: what the guest writes goes to a log file and to
 * everybody who watches, what they type goes to the guest. On the loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DAEMON_CONSOLE_H
#define TENON_DAEMON_CONSOLE_H

#include "base/base.h"
#include "base/err.h"
#include "base/list.h"
#include "loop/loop.h"

#define CONSOLE_RECENT_MAX KIB(64) /* what a new watcher sees first */
#define CONSOLE_LOG_MAX MIB(4)     /* then the file becomes ID.log.1 */
#define CONSOLE_TYPED_MAX KIB(64)  /* typed, and not yet taken by the guest */

struct console;

struct console_watcher {
    struct list link;
    void (*output)(void *opaque, const uint8_t *bytes, size_t len);
    /* The console is no more; the watcher is off its list. */
    void (*ended)(void *opaque);
    void *opaque;
};

/* Connects to "console-ID.sock" in the folder; its log is "console-ID.log" there. */
struct err *console_open(struct loop *loop, int dir_fd, const char *id, struct console **console);
/* NULL is fine. */
void console_close(struct console *console);

/* Is the VM on the other end? */
bool console_is_connected(const struct console *console);
/* The recent output first, then what comes. */
void console_watch(struct console *console, struct console_watcher *watcher);
void console_unwatch(struct console_watcher *watcher);
/* Types; false: not all of it, the guest does not read. */
bool console_type(struct console *console, const void *bytes, size_t len);

#endif
