/*
 * Character streams: the host side of a console, a serial port, a debug port. A stream is a pair of
 * descriptors (the same one twice for a socket or pty) that somebody handed over.
 *
 * One user (the device) a stream, all on its loop, except stream_write() and stream_rx_ready(),
 * which any thread may call: a UART's registers are accessed by vCPU threads. The process ignores
 * SIGPIPE.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_SHARE_STREAM_H
#define TENON_SHARE_STREAM_H

#include "base/base.h"
#include "base/err.h"
#include "loop/loop.h"

struct stream;

struct stream_events {
    /* Bytes from the host; returns how many it took, the rest comes again after stream_rx_ready. */
    size_t (*input)(void *opaque, const uint8_t *bytes, size_t len);
    /* Output space after a short stream_write. Optional. */
    void (*writable)(void *opaque);
    /* The other side came (true) or went (false). Optional. */
    void (*connected)(void *opaque, bool on);
};

/* Reads `in_fd` and writes `out_fd`; takes both. -1 for a direction that does not exist. */
struct err *stream_new_fds(struct loop *loop, int in_fd, int out_fd, struct stream **stream);
/* Serves one client at a time on a listening socket; takes it. Output without client is dropped. */
struct err *stream_new_listener(struct loop *loop, int listen_fd, struct stream **stream);
/*
 * Somebody seems to be at the other side all the time: whom stream_join() has brought, and between
 * them nobody, whose output is dropped.
 */
struct err *stream_new_steady(struct loop *loop, struct stream **stream);
/* On the loop. Takes a connected socket; ERR_BUSY while another one is there. */
struct err *stream_join(struct stream *stream, int fd);
/* Output is dropped, input never comes. */
struct stream *stream_new_null(struct loop *loop);
void stream_free(struct stream *stream);

/* NULL events detaches. The events' owner detaches before it dies. */
void stream_attach(struct stream *stream, const struct stream_events *events, void *opaque);
/*
 * The input callback can take bytes again. Any thread, any lock held: the callback comes later, on
 * the loop. Costs nothing when no input waits.
 */
void stream_rx_ready(struct stream *stream);
/*
 * Any thread: appends to the stream's bounded buffer (64 KiB) and sends what it can; returns how
 * many bytes were taken. A reader that does not read costs the writer nothing but the bytes.
 */
size_t stream_write(struct stream *stream, const uint8_t *bytes, size_t len);
/* Sends what is buffered, waiting at most `timeout_ms`: before the process ends. */
void stream_drain(struct stream *stream, int timeout_ms);

#endif
