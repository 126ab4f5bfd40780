/*
 * Raw file over a few threads, where io_uring is not permitted, and every format.
 *
 * Lock: `lock` (LOCK_BLOCK) guards the lists between the queue's loop and the threads. The steps
 * are preallocated; a queue that has them all in use makes requests wait.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/core/internal.h"

#define THREADS 4
#define STEPS 128

struct thread_step {
    struct list link;
    struct block_queue *queue;
    struct block_req *req;
    struct block_step step;
    int result;
};

struct threads {
    struct pool *pool;
    struct lock lock;
    pthread_cond_t progress;
    struct list idle, done;
    struct thread_step steps[STEPS];
};

static int carry_out(int fd, const struct block_step *step)
{
    ssize_t result = -1;
    off_t offset = (off_t)step->offset;
    switch (step->call) {
    case BLOCK_CALL_READV:
        result = preadv2(fd, step->iov, (int)step->iov_count, offset, step->flags);
        break;
    case BLOCK_CALL_WRITEV:
        result = pwritev2(fd, step->iov, (int)step->iov_count, offset, step->flags);
        break;
    case BLOCK_CALL_READ:
        result = pread(fd, step->buffer, step->length, offset);
        break;
    case BLOCK_CALL_WRITE: {
        struct iovec whole = {step->buffer, step->length};
        result = pwritev2(fd, &whole, 1, offset, step->flags);
        break;
    }
    case BLOCK_CALL_SYNC:
        result = fdatasync(fd);
        break;
    case BLOCK_CALL_FALLOCATE:
        result = fallocate(fd, step->flags, offset, (off_t)step->length);
        break;
    }
    return result < 0 ? -errno : (int)result;
}

/* On a thread of the pool. */
static void work(void *opaque)
{
    struct thread_step *step = opaque;
    struct block_queue *queue = step->queue;
    struct threads *threads = queue->engine;
    uint64_t one = 1;
    const struct block *block = queue->block;
    struct image *node = block->throttle ? block->throttle : block->image;
    step->result = node ? block_image_step(node, &step->step) : carry_out(block->fd, &step->step);
    /* Signalled under the lock: after it the queue may be drained and freed. */
    lock_take(&threads->lock);
    list_append(&threads->done, &step->link);
    (void)!write(queue->event_fd, &one, sizeof(one));
    pthread_cond_signal(&threads->progress);
    lock_drop(&threads->lock);
}

static struct err *start(struct block_queue *queue)
{
    struct threads *threads = xcalloc(1, sizeof(*threads));
    lock_init(&threads->lock, LOCK_BLOCK);
    pthread_cond_init(&threads->progress, NULL);
    list_init(&threads->idle);
    list_init(&threads->done);
    for (unsigned i = 0; i < STEPS; i++) {
        threads->steps[i].queue = queue;
        list_append(&threads->idle, &threads->steps[i].link);
    }
    queue->engine = threads;
    return pool_new("block", THREADS, &threads->pool);
}

static void stop(struct block_queue *queue)
{
    struct threads *threads = queue->engine;
    pool_free(threads->pool);
    pthread_cond_destroy(&threads->progress);
    lock_fini(&threads->lock);
    free(threads);
    queue->engine = NULL;
}

static bool begin(struct block_queue *queue, struct block_req *req, const struct block_step *step)
{
    struct threads *threads = queue->engine;
    struct thread_step *own = NULL;
    lock_take(&threads->lock);
    if (!list_empty(&threads->idle)) {
        own = list_first(&threads->idle, struct thread_step, link);
        list_remove(&own->link);
    }
    lock_drop(&threads->lock);
    if (!own)
        return false;
    own->req = req;
    own->step = *step;
    pool_submit(threads->pool, work, NULL, NULL, own);
    return true;
}

static void flush(struct block_queue *queue)
{
    (void)queue;
}

static void reap(struct block_queue *queue, bool wait)
{
    struct threads *threads = queue->engine;
    lock_take(&threads->lock);
    while (wait && list_empty(&threads->done))
        pthread_cond_wait(&threads->progress, &threads->lock.mutex);
    while (!list_empty(&threads->done)) {
        struct thread_step *step = list_first(&threads->done, struct thread_step, link);
        struct block_req *req = step->req;
        int result = step->result;
        list_remove(&step->link);
        list_append(&threads->idle, &step->link);
        lock_drop(&threads->lock);
        block_step_done(req, result);
        lock_take(&threads->lock);
    }
    lock_drop(&threads->lock);
}

const struct block_engine_ops block_threads = {
    .name = "threads",
    .start = start,
    .stop = stop,
    .begin = begin,
    .flush = flush,
    .reap = reap,
};
