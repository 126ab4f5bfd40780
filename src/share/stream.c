/*
 * Character streams over descriptors: terminal, pty, pipe, file, socket, one client at a time of a
 * listening socket, and one guest at a time that is brought in.
 *
 * Output: the writer appends to a ring and sends what the descriptor takes at once; the rest goes
 * out when the loop hears EPOLLOUT. The watches are edge-triggered and stay armed, so a writer of
 * another thread never has to touch the loop: a send that met EAGAIN is followed by an edge.
 * Input: read on the loop, offered to the owner; what it refuses waits here until
 * stream_rx_ready(). Files cannot be watched: they are written directly and read when there is
 * room.
 *
 * Lock: `lock` (LOCK_STREAM) guards out_fd and the ring; all else belongs to the loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/lock.h"
#include "base/log.h"
#include "share/stream.h"

#define RING_SIZE KIB(64)
#define INPUT_CHUNK 4096
/* Input served in one go before other descriptors of the loop get their turn. */
#define INPUT_TURN KIB(64)

/* How a descriptor wants to be treated. */
enum end_kind {
    END_NONE,   /* this direction does not exist */
    END_PLAIN,  /* file: never blocks for long, cannot be watched */
    END_POLLED, /* pipe, terminal */
    END_MASTER, /* pty master: EIO means that nobody has the other side open now */
    END_SOCKET,
};

struct end {
    int fd;
    enum end_kind kind;
    bool restore_flags; /* O_NONBLOCK was set here and is shared with others */
    struct loop_fd watch;
};

struct stream {
    struct loop *loop;
    struct lock lock;
    struct end in, out;
    int listen_fd, kick_fd;
    struct loop_fd listen_watch, kick_watch;

    const struct stream_events *events;
    void *opaque;
    bool connected; /* somebody is there */
    bool announce;  /* tell the newly attached owner */
    bool steady;    /* the owner does not hear of connections */
    bool gone;      /* the client left, but not all that it sent has been taken */
    bool stalled;   /* atomic: the owner refused input */
    uint8_t input[INPUT_CHUNK];
    size_t input_at, input_len;

    bool want_writable; /* under the lock: a writer got less than it wanted */
    bool complained;
    size_t head, used;
    uint8_t ring[RING_SIZE];
};

/* Wakes the loop to look at this stream again. Any thread. */
static void kick(struct stream *stream)
{
    uint64_t one = 1;
    (void)!write(stream->kick_fd, &one, sizeof(one));
}

/*
 * O_NONBLOCK belongs to the open file, which a shell may share: opening it once more gives us one
 * of our own. Where that is not possible the flag is set and taken back in the end.
 */
static void make_nonblocking(struct end *end, bool write)
{
    char path[40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", end->fd);
    int own = -1;
    if (end->kind == END_POLLED)
        own = open(path, (write ? O_WRONLY : O_RDONLY) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (own >= 0) {
        close(end->fd);
        end->fd = own;
        return;
    }
    int flags = fcntl(end->fd, F_GETFL);
    if (flags >= 0 && !(flags & O_NONBLOCK))
        end->restore_flags = fcntl(end->fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

static void end_open(struct end *end, int fd, bool write)
{
    struct stat status;
    unsigned pty;
    end->fd = fd;
    end->kind = END_NONE;
    if (fd < 0)
        return;
    if (fstat(fd, &status) < 0)
        status.st_mode = S_IFREG;
    if (S_ISSOCK(status.st_mode))
        end->kind = END_SOCKET;
    else if (S_ISREG(status.st_mode) || S_ISBLK(status.st_mode))
        end->kind = END_PLAIN;
    else if (S_ISCHR(status.st_mode) && ioctl(fd, TIOCGPTN, &pty) == 0)
        end->kind = END_MASTER;
    else
        end->kind = END_POLLED;
    if (end->kind == END_POLLED || end->kind == END_MASTER)
        make_nonblocking(end, write);
}

static void end_close(struct end *end)
{
    loop_fd_remove(&end->watch);
    if (end->fd >= 0 && end->restore_flags)
        fcntl(end->fd, F_SETFL, fcntl(end->fd, F_GETFL) & ~O_NONBLOCK);
    fd_cleanup(&end->fd);
    end->kind = END_NONE;
    end->restore_flags = false;
}

/* One attempt to send the ring. Returns bytes sent, 0 for "later", -errno. Caller holds the lock.
 */
static ssize_t send_once_locked(struct stream *stream)
{
    size_t first = MIN(stream->used, RING_SIZE - stream->head);
    struct iovec iov[2] = {{stream->ring + stream->head, first},
                           {stream->ring, stream->used - first}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = stream->used > first ? 2 : 1};
    ssize_t sent;
    do {
        if (stream->out.kind == END_SOCKET)
            sent = sendmsg(stream->out.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        else
            sent = writev(stream->out.fd, iov, (int)message.msg_iovlen);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return errno == EAGAIN ? 0 : -errno;
    return sent;
}

/* Caller holds the lock. A receiver that is gone must not stop the writer: its bytes are dropped.
 */
static void flush_locked(struct stream *stream)
{
    while (stream->used) {
        ssize_t sent = stream->out.kind == END_NONE ? -EPIPE : send_once_locked(stream);
        if (sent == 0)
            return;
        if (sent < 0) {
            if (stream->out.kind == END_PLAIN && !stream->complained) {
                stream->complained = true;
                log_warn("a console's output file cannot be written: %s", strerror((int)-sent));
            }
            sent = (ssize_t)stream->used;
        }
        stream->head = (stream->head + (size_t)sent) % RING_SIZE;
        stream->used -= (size_t)sent;
    }
}

size_t stream_write(struct stream *stream, const uint8_t *bytes, size_t len)
{
    size_t taken = 0;
    lock_take(&stream->lock);
    if (stream->out.kind == END_NONE) {
        lock_drop(&stream->lock);
        return len;
    }
    for (;;) {
        size_t room = MIN(RING_SIZE - stream->used, len - taken);
        size_t tail = (stream->head + stream->used) % RING_SIZE;
        size_t first = MIN(room, RING_SIZE - tail);
        memcpy(stream->ring + tail, bytes + taken, first);
        memcpy(stream->ring, bytes + taken + first, room - first);
        stream->used += room;
        taken += room;
        flush_locked(stream);
        if (taken == len || stream->used == RING_SIZE)
            break;
    }
    if (taken < len)
        stream->want_writable = true;
    lock_drop(&stream->lock);
    return taken;
}

/* After room appeared; on the loop. */
static void tell_writable(struct stream *stream)
{
    lock_take(&stream->lock);
    bool tell = stream->want_writable && stream->used < RING_SIZE;
    if (tell)
        stream->want_writable = false;
    lock_drop(&stream->lock);
    if (tell && stream->events && stream->events->writable)
        stream->events->writable(stream->opaque);
}

static void out_ready(void *opaque, uint32_t events)
{
    struct stream *stream = opaque;
    (void)events;
    lock_take(&stream->lock);
    flush_locked(stream);
    lock_drop(&stream->lock);
    tell_writable(stream);
}

static void set_connected(struct stream *stream, bool on)
{
    if (stream->connected == on || stream->steady)
        return;
    stream->connected = on;
    if (stream->events && stream->events->connected && !stream->announce)
        stream->events->connected(stream->opaque, on);
}

/* The other side is gone for good, or (listener) until the next client. */
static void hang_up(struct stream *stream)
{
    bool socket = stream->in.kind == END_SOCKET;
    end_close(&stream->in);
    if (!socket)
        return; /* the end of a pipe or file as input says nothing about the output */
    lock_take(&stream->lock);
    end_close(&stream->out);
    stream->used = 0;
    stream->gone = false;
    lock_drop(&stream->lock);
    set_connected(stream, false);
    tell_writable(stream);
    if (stream->listen_fd >= 0)
        loop_fd_modify(&stream->listen_watch, EPOLLIN);
}

/* Fills the input buffer; false: nothing now. */
static bool read_input(struct stream *stream)
{
    ssize_t got;
    do {
        if (stream->in.kind == END_SOCKET)
            got = recv(stream->in.fd, stream->input, INPUT_CHUNK, MSG_DONTWAIT);
        else
            got = read(stream->in.fd, stream->input, INPUT_CHUNK);
    } while (got < 0 && errno == EINTR);
    if (got > 0) {
        stream->input_at = 0;
        stream->input_len = (size_t)got;
        if (stream->in.kind == END_MASTER)
            set_connected(stream, true);
        return true;
    }
    if (got < 0 && errno == EAGAIN)
        return false;
    if (got < 0 && errno == EIO && stream->in.kind == END_MASTER)
        set_connected(stream, false);
    else
        hang_up(stream);
    return false;
}

static void pump_input(struct stream *stream)
{
    size_t served = 0;
    while (stream->events && stream->events->input) {
        if (stream->input_at == stream->input_len) {
            if (served >= INPUT_TURN) {
                kick(stream);
                return;
            }
            if (stream->in.kind == END_NONE || !read_input(stream))
                return;
        }
        /* Set first: stream_rx_ready() may come from another thread before the call returns. */
        __atomic_store_n(&stream->stalled, true, __ATOMIC_SEQ_CST);
        size_t left = stream->input_len - stream->input_at;
        size_t took = stream->events->input(stream->opaque, stream->input + stream->input_at, left);
        took = MIN(took, left);
        stream->input_at += took;
        served += took;
        if (took < left)
            return;
        __atomic_store_n(&stream->stalled, false, __ATOMIC_SEQ_CST);
    }
}

void stream_rx_ready(struct stream *stream)
{
    if (__atomic_exchange_n(&stream->stalled, false, __ATOMIC_SEQ_CST))
        kick(stream);
}

static void in_ready(void *opaque, uint32_t events)
{
    struct stream *stream = opaque;
    pump_input(stream);
    if ((events & EPOLLHUP) && stream->in.kind == END_SOCKET && stream->listen_fd >= 0) {
        stream->gone = true;
        loop_fd_modify(&stream->listen_watch, EPOLLIN);
    }
}

static void kicked(void *opaque, uint32_t events)
{
    struct stream *stream = opaque;
    uint64_t count;
    (void)events;
    (void)!read(stream->kick_fd, &count, sizeof(count));
    if (stream->announce) {
        stream->announce = false;
        if (stream->connected && stream->events && stream->events->connected)
            stream->events->connected(stream->opaque, true);
    }
    pump_input(stream);
}

void stream_attach(struct stream *stream, const struct stream_events *events, void *opaque)
{
    stream->events = events;
    stream->opaque = opaque;
    stream->announce = events != NULL;
    __atomic_store_n(&stream->stalled, false, __ATOMIC_SEQ_CST);
    if (events)
        kick(stream);
}

static void watch_end(struct stream *stream, struct end *end, uint32_t events,
                      void (*fn)(void *opaque, uint32_t events))
{
    if (end->kind == END_NONE || end->kind == END_PLAIN)
        return;
    struct err *err = loop_fd_add(stream->loop, &end->watch, end->fd, events | EPOLLET, fn, stream);
    if (err) /* a device without poll, such as /dev/null */
        end->kind = END_PLAIN;
    err_free(err);
}

/* Takes both; the same descriptor twice becomes two, because each has a watch of its own. */
static struct err *connect_ends(struct stream *stream, int in_fd, int out_fd)
{
    if (in_fd >= 0 && in_fd == out_fd) {
        out_fd = fcntl(in_fd, F_DUPFD_CLOEXEC, 3);
        if (out_fd < 0) {
            int number = errno;
            close(in_fd);
            return err_errno(number, "cannot duplicate a console's descriptor");
        }
    }
    struct end out = {.fd = -1};
    end_open(&stream->in, in_fd, false);
    end_open(&out, out_fd, true);
    lock_take(&stream->lock);
    stream->out = out;
    watch_end(stream, &stream->out, EPOLLOUT, out_ready);
    lock_drop(&stream->lock);
    watch_end(stream, &stream->in, EPOLLIN | EPOLLRDHUP, in_ready);
    stream->input_at = stream->input_len = 0;
    return NULL;
}

static void accept_ready(void *opaque, uint32_t events)
{
    struct stream *stream = opaque;
    (void)events;
    int fd = accept4(stream->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (stream->gone)
        hang_up(stream);
    struct err *err = connect_ends(stream, fd, fd);
    if (err) {
        log_warn("%s", err_text(err));
        err_free(err);
        return;
    }
    loop_fd_modify(&stream->listen_watch, 0);
    stream->gone = false;
    __atomic_store_n(&stream->stalled, false, __ATOMIC_SEQ_CST);
    set_connected(stream, true);
    kick(stream);
}

static struct err *stream_new(struct loop *loop, struct stream **out)
{
    struct stream *stream = xcalloc(1, sizeof(*stream));
    stream->loop = loop;
    stream->in.fd = stream->out.fd = stream->listen_fd = -1;
    lock_init(&stream->lock, LOCK_STREAM);
    stream->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct err *err = NULL;
    if (stream->kick_fd < 0)
        err = err_errno(errno, "cannot create an event descriptor");
    else
        err = loop_fd_add(loop, &stream->kick_watch, stream->kick_fd, EPOLLIN, kicked, stream);
    if (err) {
        stream_free(stream);
        return err;
    }
    *out = stream;
    return NULL;
}

struct err *stream_new_fds(struct loop *loop, int in_fd, int out_fd, struct stream **out)
{
    struct stream *stream;
    struct err *err = stream_new(loop, &stream);
    if (err) {
        fd_cleanup(&in_fd);
        if (out_fd != in_fd)
            fd_cleanup(&out_fd);
        return err;
    }
    err = connect_ends(stream, in_fd, out_fd);
    if (err) {
        stream_free(stream);
        return err;
    }
    stream->connected = true;
    *out = stream;
    return NULL;
}

struct err *stream_new_listener(struct loop *loop, int listen_fd, struct stream **out)
{
    struct stream *stream;
    struct err *err = stream_new(loop, &stream);
    if (err) {
        close(listen_fd);
        return err;
    }
    stream->listen_fd = listen_fd;
    int flags = fcntl(listen_fd, F_GETFL);
    if (flags < 0 || fcntl(listen_fd, F_SETFL, flags | O_NONBLOCK) < 0)
        err = err_errno(errno, "cannot set up a console's socket");
    else
        err = loop_fd_add(loop, &stream->listen_watch, listen_fd, EPOLLIN, accept_ready, stream);
    if (err) {
        stream_free(stream);
        return err;
    }
    *out = stream;
    return NULL;
}

struct err *stream_new_steady(struct loop *loop, struct stream **out)
{
    TRY(stream_new(loop, out));
    (*out)->steady = (*out)->connected = true;
    return NULL;
}

struct err *stream_join(struct stream *stream, int fd)
{
    struct pollfd end = {.fd = stream->in.fd};
    struct stat status;

    if (fstat(fd, &status) < 0 || !S_ISSOCK(status.st_mode)) {
        close(fd);
        return err_new("it is no socket");
    }
    /* The hang-up of one whose bytes nobody has taken is not heard otherwise. */
    if (stream->in.kind != END_NONE && poll(&end, 1, 0) > 0 && end.revents & POLLHUP)
        hang_up(stream);
    if (stream->in.kind != END_NONE) {
        close(fd);
        return err_of(ERR_BUSY, "somebody else is connected");
    }
    TRY(connect_ends(stream, fd, fd));
    __atomic_store_n(&stream->stalled, false, __ATOMIC_SEQ_CST);
    kick(stream);
    return NULL;
}

struct stream *stream_new_null(struct loop *loop)
{
    struct stream *stream = xcalloc(1, sizeof(*stream));
    stream->loop = loop;
    stream->in.fd = stream->out.fd = stream->listen_fd = stream->kick_fd = -1;
    lock_init(&stream->lock, LOCK_STREAM);
    stream->connected = true;
    return stream;
}

void stream_free(struct stream *stream)
{
    if (!stream)
        return;
    end_close(&stream->in);
    end_close(&stream->out);
    loop_fd_remove(&stream->listen_watch);
    loop_fd_remove(&stream->kick_watch);
    fd_cleanup(&stream->listen_fd);
    fd_cleanup(&stream->kick_fd);
    lock_fini(&stream->lock);
    free(stream);
}

void stream_drain(struct stream *stream, int timeout_ms)
{
    uint64_t end = clock_now_ns() + (uint64_t)MAX(timeout_ms, 0) * NSEC_PER_MSEC;
    for (;;) {
        lock_take(&stream->lock);
        flush_locked(stream);
        size_t left = stream->used;
        struct pollfd ready = {.fd = stream->out.fd, .events = POLLOUT};
        lock_drop(&stream->lock);
        uint64_t now = clock_now_ns();
        if (!left || now >= end)
            return;
        poll(&ready, 1, (int)((end - now) / NSEC_PER_MSEC) + 1);
    }
}
