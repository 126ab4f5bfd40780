/*
 * The relay between standard input and output and the guest's console.
 *
 * Standard input and output are shared with other programs, so they never become non-blocking: poll
 * says when a read or a small write can go on. Only a terminal may block in the middle of a write;
 * it is opened anew for output, where that is possible, with O_NONBLOCK of its own.
 *
 * The end of standard input ends nothing: a VM started with /dev/null runs on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

enum { POLL_IN, POLL_OUT, POLL_SOCKET };

void relay_init(struct relay *relay, struct terminal *terminal, int take_socket, int out_fd,
                void (*command)(void *opaque, int letter), void *opaque)
{
    memset(relay, 0, sizeof(*relay));
    relay->terminal = terminal;
    relay->socket = take_socket;
    relay->in_fd = take_socket >= 0 ? STDIN_FILENO : -1;
    relay->out_fd = take_socket >= 0 ? out_fd : -1;
    relay->out_own = -1;
    relay->command = command;
    relay->opaque = opaque;
    if (relay->out_fd >= 0 && isatty(relay->out_fd)) {
        char path[64];

        snprintf(path, sizeof(path), "/proc/self/fd/%d", relay->out_fd);
        relay->out_own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (relay->out_own >= 0)
            relay->out_fd = relay->out_own;
    }
}

void relay_fini(struct relay *relay)
{
    if (relay->socket >= 0)
        close(relay->socket);
    if (relay->out_own >= 0)
        close(relay->out_own);
    relay->socket = relay->out_own = relay->in_fd = relay->out_fd = -1;
}

void relay_want(const struct relay *relay, struct pollfd *fds)
{
    bool open = relay->socket >= 0;

    /* A terminal that another process group has would answer a read with SIGTTIN. */
    bool input = open && relay->in_fd >= 0 && !relay->to_guest_len &&
                 (relay->terminal->fd < 0 || relay->terminal->raw);

    fds[POLL_IN] = (struct pollfd){.fd = input ? relay->in_fd : -1, .events = POLLIN};
    fds[POLL_OUT] =
        (struct pollfd){.fd = relay->to_user_len ? relay->out_fd : -1, .events = POLLOUT};
    fds[POLL_SOCKET] = (struct pollfd){.fd = relay->socket};
    if (relay->to_user_len < sizeof(relay->to_user))
        fds[POLL_SOCKET].events |= POLLIN;
    if (relay->to_guest_len)
        fds[POLL_SOCKET].events |= POLLOUT;
    if (!fds[POLL_SOCKET].events)
        fds[POLL_SOCKET].fd = -1; /* a hang-up may wait until there is room */
}

static void to_guest(struct relay *relay, uint8_t byte)
{
    relay->to_guest[relay->to_guest_len++] = byte;
}

void relay_type(struct relay *relay, const char *text)
{
    size_t len = strlen(text);

    if (relay->socket < 0 || len > sizeof(relay->to_guest) - relay->to_guest_len)
        return;
    memcpy(relay->to_guest + relay->to_guest_len, text, len);
    relay->to_guest_len += len;
}

/* Without a terminal every byte is the guest's. */
static void input_byte(struct relay *relay, uint8_t byte)
{
    if (relay->terminal->fd < 0) {
        to_guest(relay, byte);
    } else if (!relay->escape) {
        if (byte == RELAY_ESCAPE)
            relay->escape = true;
        else
            to_guest(relay, byte);
    } else {
        relay->escape = false;
        if (byte == RELAY_ESCAPE)
            to_guest(relay, byte);
        else
            relay->command(relay->opaque, byte);
    }
}

static void read_user(struct relay *relay)
{
    uint8_t bytes[sizeof(relay->to_guest)];
    ssize_t n = read(relay->in_fd, bytes, sizeof(bytes));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        relay->in_fd = -1;
        return;
    }
    for (ssize_t i = 0; i < n; i++)
        input_byte(relay, bytes[i]);
}

static void close_socket(struct relay *relay)
{
    close(relay->socket);
    relay->socket = -1;
    relay->to_guest_len = 0;
}

static void write_guest(struct relay *relay)
{
    ssize_t n =
        send(relay->socket, relay->to_guest, relay->to_guest_len, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n > 0) {
        relay->to_guest_len -= (size_t)n;
        memmove(relay->to_guest, relay->to_guest + n, relay->to_guest_len);
    } else if (n < 0 && errno != EINTR && errno != EAGAIN) {
        relay->to_guest_len = 0; /* the reading side will notice the end */
    }
}

static void read_guest(struct relay *relay)
{
    size_t room = sizeof(relay->to_user) - relay->to_user_len;
    ssize_t n = recv(relay->socket, relay->to_user + relay->to_user_len, room, MSG_DONTWAIT);

    if (n > 0) {
        if (relay->out_fd >= 0)
            relay->to_user_len += (size_t)n;
    } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
        close_socket(relay);
    }
}

static void write_user(struct relay *relay)
{
    /* poll promises room for PIPE_BUF bytes of a pipe, and for that many a write does not block. */
    size_t len =
        relay->out_own >= 0 ? relay->to_user_len : MIN(relay->to_user_len, (size_t)PIPE_BUF);
    ssize_t n = write(relay->out_fd, relay->to_user, len);

    if (n > 0) {
        relay->to_user_len -= (size_t)n;
        memmove(relay->to_user, relay->to_user + n, relay->to_user_len);
    } else if (n < 0 && errno != EINTR && errno != EAGAIN) {
        relay->out_fd = -1; /* nobody reads: the guest goes on, its output is dropped */
        relay->to_user_len = 0;
    }
}

void relay_serve(struct relay *relay, const struct pollfd *fds)
{
    const short readable = POLLIN | POLLHUP | POLLERR;

    if (fds[POLL_OUT].fd >= 0 && fds[POLL_OUT].revents)
        write_user(relay);
    if (fds[POLL_IN].fd >= 0 && fds[POLL_IN].revents)
        read_user(relay);
    if (fds[POLL_SOCKET].fd >= 0 && fds[POLL_SOCKET].revents & POLLOUT)
        write_guest(relay);
    if (fds[POLL_SOCKET].fd >= 0 && fds[POLL_SOCKET].revents & readable &&
        relay->to_user_len < sizeof(relay->to_user))
        read_guest(relay);
}

void relay_drain(struct relay *relay, int timeout_ms)
{
    uint64_t deadline = clock_now_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;

    relay->in_fd = -1;
    while (relay->socket >= 0 || relay->to_user_len) {
        struct pollfd fds[RELAY_POLL_FDS];
        uint64_t now = clock_now_ns();

        relay_want(relay, fds);
        if (now >= deadline ||
            poll(fds, RELAY_POLL_FDS, (int)((deadline - now) / NSEC_PER_MSEC) + 1) <= 0)
            break;
        relay_serve(relay, fds);
    }
}
