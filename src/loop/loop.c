/*
 * Event loop over epoll, with an eventfd for other threads and a timerfd for deadlines.
 *
 * Lock: `lock` (LOCK_LOOP) guards the timer list and the posted work; callbacks run without it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/lock.h"
#include "loop/loop.h"

#define EVENTS_MAX 32

struct posted {
    struct list link;
    void (*fn)(void *opaque);
    void *opaque;
};

struct loop {
    char *name;
    int epoll_fd, wake_fd, timer_fd;
    struct lock lock;
    struct list timers; /* sorted by deadline */
    struct list posted;
    uint64_t timer_set_ns; /* what timer_fd is armed for */
    bool stop;             /* under the lock */
    pthread_t thread;
    bool running; /* atomic; `thread` is valid */
    /* The batch that is being served: loop_fd_remove() strikes its watch from it. */
    struct epoll_event events[EVENTS_MAX];
    int event_count;
};

static struct err *watch_raw(struct loop *loop, int fd, void *key)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = key};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        return err_errno(errno, "loop '%s': cannot watch an own descriptor", loop->name);
    return NULL;
}

struct err *loop_new(const char *name, struct loop **out)
{
    struct loop *loop = xcalloc(1, sizeof(*loop));
    loop->name = xstrdup(name);
    loop->timer_set_ns = UINT64_MAX;
    lock_init(&loop->lock, LOCK_LOOP);
    list_init(&loop->timers);
    list_init(&loop->posted);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    struct err *err = NULL;
    if (loop->epoll_fd < 0 || loop->wake_fd < 0 || loop->timer_fd < 0)
        err = err_errno(errno, "loop '%s': cannot create its descriptors", name);
    if (!err)
        err = watch_raw(loop, loop->wake_fd, &loop->wake_fd);
    if (!err)
        err = watch_raw(loop, loop->timer_fd, &loop->timer_fd);
    if (err) {
        loop_free(loop);
        return err;
    }
    *out = loop;
    return NULL;
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    struct posted *work;
    list_for_each (work, &loop->posted, link)
        free(work);
    fd_cleanup(&loop->epoll_fd);
    fd_cleanup(&loop->wake_fd);
    fd_cleanup(&loop->timer_fd);
    lock_fini(&loop->lock);
    free(loop->name);
    free(loop);
}

bool loop_is_mine(const struct loop *loop)
{
    return !__atomic_load_n(&loop->running, __ATOMIC_ACQUIRE) ||
           pthread_equal(loop->thread, pthread_self());
}

static void loop_wake(struct loop *loop)
{
    uint64_t one = 1;
    (void)!write(loop->wake_fd, &one, sizeof(one));
}

void loop_stop(struct loop *loop)
{
    lock_take(&loop->lock);
    loop->stop = true;
    lock_drop(&loop->lock);
    loop_wake(loop);
}

void loop_post(struct loop *loop, void (*fn)(void *opaque), void *opaque)
{
    struct posted *work = xcalloc(1, sizeof(*work));
    work->fn = fn;
    work->opaque = opaque;
    lock_take(&loop->lock);
    bool wake = list_empty(&loop->posted);
    list_append(&loop->posted, &work->link);
    lock_drop(&loop->lock);
    if (wake)
        loop_wake(loop);
}

/* Only what is there at the start: work that posts more work must not starve descriptors. */
static void serve_posted(struct loop *loop)
{
    struct list batch;
    list_init(&batch);
    lock_take(&loop->lock);
    if (!list_empty(&loop->posted)) {
        batch = loop->posted;
        batch.next->prev = &batch;
        batch.prev->next = &batch;
        list_init(&loop->posted);
    }
    lock_drop(&loop->lock);
    struct posted *work;
    list_for_each (work, &batch, link) {
        work->fn(work->opaque);
        free(work);
    }
}

/* Caller holds the lock. */
static void timer_fd_set(struct loop *loop)
{
    uint64_t deadline = UINT64_MAX;
    if (!list_empty(&loop->timers))
        deadline = list_first(&loop->timers, struct loop_timer, link)->deadline_ns;
    if (deadline == loop->timer_set_ns)
        return;
    loop->timer_set_ns = deadline;
    struct itimerspec when = {0};
    if (deadline != UINT64_MAX) {
        /* Zero would disarm: a deadline at the clock's start is one nanosecond later. */
        uint64_t at = MAX(deadline, (uint64_t)1);
        when.it_value.tv_sec = (time_t)(at / NSEC_PER_SEC);
        when.it_value.tv_nsec = (long)(at % NSEC_PER_SEC);
    }
    timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

void loop_timer_init(struct loop *loop, struct loop_timer *timer, void (*fn)(void *opaque),
                     void *opaque)
{
    timer->loop = loop;
    timer->fn = fn;
    timer->opaque = opaque;
    timer->deadline_ns = UINT64_MAX;
    list_init(&timer->link);
}

void loop_timer_arm(struct loop_timer *timer, uint64_t deadline_ns)
{
    struct loop *loop = timer->loop;
    lock_take(&loop->lock);
    list_remove(&timer->link);
    timer->deadline_ns = MIN(deadline_ns, UINT64_MAX - 1);
    /* From the back: a new deadline is mostly a late one. */
    struct list *position = &loop->timers;
    while (position->prev != &loop->timers &&
           list_entry(position->prev, struct loop_timer, link)->deadline_ns > timer->deadline_ns)
        position = position->prev;
    list_insert_before(position, &timer->link);
    timer_fd_set(loop);
    lock_drop(&loop->lock);
}

void loop_timer_cancel(struct loop_timer *timer)
{
    if (!timer->loop)
        return;
    lock_take(&timer->loop->lock);
    list_remove(&timer->link);
    timer->deadline_ns = UINT64_MAX;
    timer_fd_set(timer->loop);
    lock_drop(&timer->loop->lock);
}

bool loop_timer_armed(const struct loop_timer *timer)
{
    return __atomic_load_n(&timer->deadline_ns, __ATOMIC_RELAXED) != UINT64_MAX;
}

static void serve_timers(struct loop *loop)
{
    uint64_t now = clock_now_ns();
    for (;;) {
        lock_take(&loop->lock);
        struct loop_timer *due = NULL;
        if (!list_empty(&loop->timers)) {
            struct loop_timer *first = list_first(&loop->timers, struct loop_timer, link);
            if (first->deadline_ns <= now)
                due = first;
        }
        if (!due) {
            timer_fd_set(loop);
            lock_drop(&loop->lock);
            return;
        }
        list_remove(&due->link);
        due->deadline_ns = UINT64_MAX;
        void (*fn)(void *opaque) = due->fn;
        void *opaque = due->opaque;
        lock_drop(&loop->lock);
        fn(opaque);
    }
}

struct err *loop_fd_add(struct loop *loop, struct loop_fd *watch, int fd, uint32_t events,
                        void (*fn)(void *opaque, uint32_t events), void *opaque)
{
    *watch = (struct loop_fd){.fd = fd, .fn = fn, .opaque = opaque};
    struct epoll_event event = {.events = events, .data.ptr = watch};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        return err_errno(errno, "cannot watch descriptor %d", fd);
    watch->loop = loop;
    return NULL;
}

void loop_fd_modify(struct loop_fd *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    epoll_ctl(watch->loop->epoll_fd, EPOLL_CTL_MOD, watch->fd, &event);
}

void loop_fd_remove(struct loop_fd *watch)
{
    struct loop *loop = watch->loop;
    if (!loop)
        return;
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
    watch->loop = NULL;
    for (int i = 0; i < loop->event_count; i++) {
        if (loop->events[i].data.ptr == watch)
            loop->events[i].data.ptr = NULL;
    }
}

static void drain_counter(int fd)
{
    uint64_t count;
    (void)!read(fd, &count, sizeof(count));
}

void loop_once(struct loop *loop, int timeout_ms)
{
    int count = epoll_wait(loop->epoll_fd, loop->events, EVENTS_MAX, timeout_ms);
    loop->event_count = MAX(count, 0);
    bool timers = false, posted = false;
    for (int i = 0; i < loop->event_count; i++) {
        void *key = loop->events[i].data.ptr;
        if (key == &loop->wake_fd) {
            drain_counter(loop->wake_fd);
            posted = true;
        } else if (key == &loop->timer_fd) {
            drain_counter(loop->timer_fd);
            lock_take(&loop->lock);
            loop->timer_set_ns = UINT64_MAX; /* it fired: it is disarmed now */
            lock_drop(&loop->lock);
            timers = true;
        } else if (key) {
            struct loop_fd *watch = key;
            watch->fn(watch->opaque, loop->events[i].events);
        }
    }
    loop->event_count = 0;
    if (timers)
        serve_timers(loop);
    if (posted)
        serve_posted(loop);
}

void loop_run(struct loop *loop)
{
    loop->thread = pthread_self();
    __atomic_store_n(&loop->running, true, __ATOMIC_RELEASE);
    for (;;) {
        lock_take(&loop->lock);
        bool stop = loop->stop;
        loop->stop = false;
        lock_drop(&loop->lock);
        if (stop)
            break;
        loop_once(loop, -1);
    }
    __atomic_store_n(&loop->running, false, __ATOMIC_RELEASE);
}

struct loop_thread {
    struct loop *loop;
    pthread_t thread;
};

static void *loop_thread_main(void *opaque)
{
    struct loop_thread *thread = opaque;
    pthread_setname_np(pthread_self(), thread->loop->name);
    loop_run(thread->loop);
    return NULL;
}

struct err *loop_thread_start(struct loop *loop, struct loop_thread **out)
{
    struct loop_thread *thread = xcalloc(1, sizeof(*thread));
    thread->loop = loop;
    /* Signals are the main thread's business. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&thread->thread, NULL, loop_thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error) {
        free(thread);
        return err_errno(error, "cannot start the thread of loop '%s'", loop->name);
    }
    *out = thread;
    return NULL;
}

void loop_thread_join(struct loop_thread *thread)
{
    if (!thread)
        return;
    loop_stop(thread->loop);
    pthread_join(thread->thread, NULL);
    free(thread);
}
