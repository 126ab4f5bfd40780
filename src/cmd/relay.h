/*
 * The relay between the user's standard input and output and the guest's console socket, with the
 * escape key. For a poll(2) loop: relay_want() fills in what to wait for, relay_serve() does what
 * is possible. Never blocks on the guest; see relay.c about standard output.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_RELAY_H
#define TENON_CMD_RELAY_H

#include <poll.h>

#include "base/base.h"
#include "cmd/terminal.h"

#define RELAY_ESCAPE 0x1d /* Ctrl-] */

enum relay_command { RELAY_QUIT = 'q', RELAY_POWER = 'p', RELAY_HELP = '?' };

struct relay {
    struct terminal *terminal;
    int in_fd, out_fd; /* borrowed; -1 once closed or broken */
    int out_own;       /* out_fd when it was opened anew, else -1 */
    int socket;        /* owned; -1: no console here */
    bool escape;       /* the escape key came, its letter has not */
    uint8_t to_guest[4096], to_user[16384];
    size_t to_guest_len, to_user_len;
    void (*command)(void *opaque, int letter);
    void *opaque;
};

#define RELAY_POLL_FDS 3

/* `take_socket` -1: nothing to relay. The terminal's fd decides whether the escape key means
 * something. */
void relay_init(struct relay *relay, struct terminal *terminal, int take_socket, int out_fd,
                void (*command)(void *opaque, int letter), void *opaque);
void relay_fini(struct relay *relay);
/* As if the user had typed it, but for the escape key; nothing when there is no room. */
void relay_type(struct relay *relay, const char *text);
/* Fills RELAY_POLL_FDS entries; unused ones have fd -1. */
void relay_want(const struct relay *relay, struct pollfd *fds);
void relay_serve(struct relay *relay, const struct pollfd *fds);
/* The guest has ended: hands out what is still in the socket, waiting at most `timeout_ms`. */
void relay_drain(struct relay *relay, int timeout_ms);

#endif
