/*
 * The client of swtpm. See swtpm.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/tpm/swtpm.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"

/* Longer than the longest command of a loaded host (a key of 3072 bits), and any driver's wait. */
#define SILENCE_NS (300 * NSEC_PER_SEC)
#define SETTLE_NS (5 * NSEC_PER_SEC)

static void advance(struct swtpm *tpm);

static bool busy(const struct swtpm *tpm)
{
    return tpm->running || tpm->resetting;
}

static void answer(struct swtpm *tpm, struct swtpm_request *request, const uint8_t *reply,
                   size_t len)
{
    if (request == tpm->running)
        tpm->running = NULL;
    request->done(request->opaque, reply, len);
}

static void give_up(struct swtpm *tpm, const char *why)
{
    if (tpm->gone)
        return;
    log_error("%s: swtpm %s: the guest's TPM is out of order until the VM starts anew", tpm->name,
              why);
    tpm->gone = true;
    tpm->resetting = tpm->reset_wanted = false;
    loop_timer_cancel(&tpm->silence);
    if (tpm->running)
        answer(tpm, tpm->running, NULL, 0);
    while (!list_empty(&tpm->waiting)) {
        struct swtpm_request *request = list_first(&tpm->waiting, struct swtpm_request, link);
        list_remove(&request->link);
        answer(tpm, request, NULL, 0);
    }
}

/* Messages are far smaller than a socket's buffer: one that does not fit has no reader. */
static bool send_all(struct swtpm *tpm, int fd, const uint8_t *bytes, size_t len)
{
    ssize_t n;

    do {
        n = send(fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n == (ssize_t)len)
        return true;
    give_up(tpm, n < 0 && errno != EAGAIN ? "has ended" : "does not read");
    return false;
}

static void send_reset(struct swtpm *tpm)
{
    uint8_t message[8] = {0};

    put_be32(message, SWTPM_INIT);
    tpm->reset_wanted = false;
    tpm->resetting = true;
    send_all(tpm, tpm->control_fd, message, sizeof(message));
}

static void send_command(struct swtpm *tpm)
{
    struct swtpm_request *request = list_first(&tpm->waiting, struct swtpm_request, link);

    list_remove(&request->link);
    tpm->running = request;
    tpm->reply_len = 0;
    send_all(tpm, tpm->command_fd, request->command, request->len);
}

/* The next thing to do, if the last is done. */
static void advance(struct swtpm *tpm)
{
    if (tpm->gone || busy(tpm))
        return;
    if (tpm->reset_wanted)
        send_reset(tpm);
    else if (!list_empty(&tpm->waiting))
        send_command(tpm);
    if (busy(tpm))
        loop_timer_arm(&tpm->silence, clock_now_ns() + SILENCE_NS);
    else
        loop_timer_cancel(&tpm->silence);
}

/* --- what comes --- */

/* Reads once; 0 when there is nothing. */
static size_t take(struct swtpm *tpm, int fd, uint8_t *to, size_t room)
{
    ssize_t n = recv(fd, to, room, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0) {
        give_up(tpm, "has ended");
        return 0;
    }
    return (size_t)n;
}

static void control_ready(struct swtpm *tpm)
{
    tpm->control_len += (unsigned)take(tpm, tpm->control_fd, tpm->control + tpm->control_len,
                                       sizeof(tpm->control) - tpm->control_len);
    if (tpm->gone || tpm->control_len < sizeof(tpm->control))
        return;
    tpm->control_len = 0;
    if (tpm->cancels) {
        tpm->cancels--; /* too late to cancel is no error */
    } else if (!tpm->resetting) {
        give_up(tpm, "answers what nobody asked");
    } else if (get_be32(tpm->control)) {
        give_up(tpm, "cannot start the TPM (see the log in its state folder)");
    } else {
        tpm->resetting = false;
        advance(tpm);
    }
}

bool swtpm_command_is_whole(const uint8_t *command, size_t len)
{
    return len >= TPM_HEADER_SIZE && len <= TPM_MESSAGE_MAX && get_be32(command + 2) == len;
}

static void command_ready(struct swtpm *tpm)
{
    size_t n = take(tpm, tpm->command_fd, tpm->reply + tpm->reply_len,
                    sizeof(tpm->reply) - tpm->reply_len);

    if (!n)
        return;
    tpm->reply_len += n;
    if (!tpm->running) {
        give_up(tpm, "answers what nobody asked");
        return;
    }
    if (tpm->reply_len < TPM_HEADER_SIZE)
        return;
    uint32_t len = get_be32(tpm->reply + 2);
    if (len < TPM_HEADER_SIZE || len > sizeof(tpm->reply) || tpm->reply_len > len) {
        give_up(tpm, "sends a reply of a wrong length");
        return;
    }
    if (tpm->reply_len < len)
        return;
    answer(tpm, tpm->running, tpm->reply, len);
    advance(tpm);
}

static void on_control(void *opaque, uint32_t events)
{
    struct swtpm *tpm = opaque;

    lock_take(tpm->lock);
    if (tpm->gone)
        loop_fd_remove(&tpm->control_watch);
    else
        control_ready(tpm);
    lock_drop(tpm->lock);
}

static void on_command(void *opaque, uint32_t events)
{
    struct swtpm *tpm = opaque;

    lock_take(tpm->lock);
    if (tpm->gone)
        loop_fd_remove(&tpm->command_watch);
    else
        command_ready(tpm);
    lock_drop(tpm->lock);
}

static void on_silence(void *opaque)
{
    struct swtpm *tpm = opaque;

    lock_take(tpm->lock);
    if (busy(tpm))
        give_up(tpm, "has not answered for five minutes");
    lock_drop(tpm->lock);
}

/* --- for the device --- */

struct err *swtpm_open(struct swtpm *tpm)
{
    list_init(&tpm->waiting);
    loop_timer_init(tpm->loop, &tpm->silence, on_silence, tpm);
    if (tpm->control_fd < 0 || tpm->command_fd < 0)
        return err_new("there is no swtpm behind it");
    TRY(loop_fd_add(tpm->loop, &tpm->control_watch, tpm->control_fd, EPOLLIN, on_control, tpm));
    return loop_fd_add(tpm->loop, &tpm->command_watch, tpm->command_fd, EPOLLIN, on_command, tpm);
}

void swtpm_close(struct swtpm *tpm)
{
    if (tpm->silence.loop)
        loop_timer_cancel(&tpm->silence);
    loop_fd_remove(&tpm->control_watch);
    loop_fd_remove(&tpm->command_watch);
    fd_cleanup(&tpm->control_fd);
    fd_cleanup(&tpm->command_fd);
    tpm->gone = true;
}

void swtpm_submit(struct swtpm *tpm, struct swtpm_request *request)
{
    if (tpm->gone) {
        answer(tpm, request, NULL, 0);
        return;
    }
    list_append(&tpm->waiting, &request->link);
    advance(tpm);
}

bool swtpm_withdraw(struct swtpm *tpm, struct swtpm_request *request)
{
    struct swtpm_request *other;

    list_for_each (other, &tpm->waiting, link) {
        if (other == request) {
            list_remove(&request->link);
            return true;
        }
    }
    return false;
}

void swtpm_cancel(struct swtpm *tpm)
{
    uint8_t message[4];

    /* One at a time: a guest may ask without end. */
    if (tpm->gone || !tpm->running || tpm->cancels)
        return;
    put_be32(message, SWTPM_CANCEL);
    tpm->cancels++;
    send_all(tpm, tpm->control_fd, message, sizeof(message));
}

void swtpm_reset(struct swtpm *tpm)
{
    if (tpm->gone || tpm->resetting)
        return;
    tpm->reset_wanted = true;
    advance(tpm);
}

void swtpm_settle(struct swtpm *tpm, const bool *enough)
{
    uint64_t end = clock_now_ns() + SETTLE_NS, now;

    lock_take(tpm->lock);
    while (busy(tpm) && !tpm->gone && !(enough && *enough) && (now = clock_now_ns()) < end) {
        struct pollfd fds[] = {{.fd = tpm->control_fd, .events = POLLIN},
                               {.fd = tpm->command_fd, .events = POLLIN}};

        lock_drop(tpm->lock);
        poll(fds, 2, (int)((end - now) / NSEC_PER_MSEC) + 1);
        lock_take(tpm->lock);
        if (fds[0].revents && !tpm->gone)
            control_ready(tpm);
        if (fds[1].revents && !tpm->gone)
            command_ready(tpm);
    }
    lock_drop(tpm->lock);
}
