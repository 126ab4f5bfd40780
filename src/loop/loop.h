/*
 * Event loop: descriptors, timers and posted work, served by one thread.
 *
 * A loop is always an explicit parameter. Its callbacks run on the thread inside loop_run(), one at
 * a time. From other threads only these may be called: loop_post(), loop_stop(), loop_timer_arm()
 * and loop_timer_cancel() (a device register written by a vCPU thread arms a timer of the control
 * loop). Everything else belongs to the loop's own thread, or to the set-up before it runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_LOOP_LOOP_H
#define TENON_LOOP_LOOP_H

#include <sys/epoll.h>

#include "base/base.h"
#include "base/err.h"
#include "base/list.h"

struct loop;

struct err *loop_new(const char *name, struct loop **loop);
/* The loop must not be running; posted work that has not run is dropped. */
void loop_free(struct loop *loop);
/* Serves events until loop_stop(). */
void loop_run(struct loop *loop);
/* One round: waits at most `timeout_ms` (-1: for ever), serves what is ready. For tests. */
void loop_once(struct loop *loop, int timeout_ms);
/* Any thread: makes loop_run() return soon. */
void loop_stop(struct loop *loop);
/* Is the caller the thread that runs this loop (or is no thread running it)? */
bool loop_is_mine(const struct loop *loop);

/* A thread of its own that runs the loop until loop_thread_join(), which stops and joins it. */
struct loop_thread;
struct err *loop_thread_start(struct loop *loop, struct loop_thread **thread);
void loop_thread_join(struct loop_thread *thread);

/* Any thread: runs fn(opaque) on the loop's thread, in the order of posting. */
void loop_post(struct loop *loop, void (*fn)(void *opaque), void *opaque);

/*
 * A watched descriptor. Embedded by its owner; `fd` stays the owner's to close, after
 * loop_fd_remove(). `events` are EPOLLIN, EPOLLOUT, EPOLLET...; the callback gets what is ready
 * (EPOLLHUP and EPOLLERR unasked).
 */
struct loop_fd {
    int fd;
    void (*fn)(void *opaque, uint32_t events);
    void *opaque;
    struct loop *loop; /* set while watched */
};

struct err *loop_fd_add(struct loop *loop, struct loop_fd *watch, int fd, uint32_t events,
                        void (*fn)(void *opaque, uint32_t events), void *opaque);
void loop_fd_modify(struct loop_fd *watch, uint32_t events);
/* No callback comes after this returns. Not watched is fine. */
void loop_fd_remove(struct loop_fd *watch);

/* A one-shot timer, embedded by its owner. */
struct loop_timer {
    struct loop *loop;
    void (*fn)(void *opaque);
    void *opaque;
    uint64_t deadline_ns; /* CLOCK_MONOTONIC; UINT64_MAX while idle */
    struct list link;
};

void loop_timer_init(struct loop *loop, struct loop_timer *timer, void (*fn)(void *opaque),
                     void *opaque);
/* Any thread. Arming again moves the deadline; one in the past fires in the next round. */
void loop_timer_arm(struct loop_timer *timer, uint64_t deadline_ns);
/*
 * Any thread. Called on the loop's thread, no callback comes afterwards; called elsewhere, one may
 * be running right now: its owner's lock decides.
 */
void loop_timer_cancel(struct loop_timer *timer);
bool loop_timer_armed(const struct loop_timer *timer);

/* Threads for work that blocks. */
struct pool;
struct err *pool_new(const char *name, unsigned threads, struct pool **pool);
/* Waits for the work that has begun; work that has not is dropped without its `done`. */
void pool_free(struct pool *pool);
/* Any thread: runs work(opaque) on a pool thread, then posts done(opaque) to `loop` (NULL: none).
 */
void pool_submit(struct pool *pool, void (*work)(void *opaque), struct loop *loop,
                 void (*done)(void *opaque), void *opaque);

#endif
