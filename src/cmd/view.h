/*
 * Starting a tenon-view, for `tenon view` and `tenon run --vnc`.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_VIEW_H
#define TENON_CMD_VIEW_H

#include <sys/types.h>

#include "cmd/command.h"

/* What the options say; all borrowed. */
struct view_options {
    const char *where;                    /* NULL: none is wanted */
    const char *password, *look_password; /* files */
    const char *certificate, *key;        /* files */
    bool tls_only, look_only;
};

/* The rows of a command's option table. */
#define VIEW_OPTION_SPECS                                                                          \
    {"vnc", "WHERE",                                                                               \
     "Show the screen to VNC viewers: PORT of 127.0.0.1, ADDRESS:PORT, or path of a unix "         \
     "socket."},                                                                                   \
        {"vnc-password-file", "FILE",                                                              \
         "Viewers need the password in this file's first line. With VNC authentication only 8 "    \
         "characters count; with TLS and a plain password all do."},                               \
        {"vnc-look-password-file", "FILE",                                                         \
         "A second password, whose viewers look and do not "                                       \
         "type."},                                                                                 \
        {"vnc-look-only", NULL, "Viewers without a password do not type."},                        \
        {"vnc-certificate", "FILE", "TLS with this certificate (PEM), instead of anonymous TLS."}, \
        {"vnc-key", "FILE", "The certificate's key (PEM)."},                                       \
    {                                                                                              \
        "vnc-tls-only", NULL, "Send away viewers without TLS."                                     \
    }

/* Takes an option of this table; false: it is another. */
bool view_option(struct view_options *options, const char *name, const char *value);

/* A tenon-view that runs. */
struct view {
    pid_t pid;       /* 0: none */
    int status_fd;   /* for ready_await() */
    int screen_fd;   /* for tenon-vmm's tenon-screen-share */
    char *where;     /* where viewers find it: "127.0.0.1:5900"; owned */
    char *to_unlink; /* path of a unix socket; NULL: none; owned */
};

/* Listens, and starts it. Without options->where it takes the first free port from 5900 on. */
struct err *view_start(const struct view_options *options, const char *vm, int stderr_fd,
                       struct view *view);
/* Ends and forgets it. */
void view_end(struct view *view);

#endif
