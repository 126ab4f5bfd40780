/*
 * Worker pool: threads for work that blocks, completions posted to a loop.
 *
 * Lock: `mutex` guards the queue; work runs without it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "loop/loop.h"

struct pool_work {
    struct list link;
    void (*work)(void *opaque);
    void (*done)(void *opaque);
    struct loop *loop;
    void *opaque;
};

struct pool {
    char *name;
    pthread_mutex_t mutex;
    pthread_cond_t ready;
    struct list queue;
    bool stop;
    unsigned count;
    pthread_t *threads;
};

static void *pool_main(void *opaque)
{
    struct pool *pool = opaque;
    pthread_setname_np(pthread_self(), pool->name);
    pthread_mutex_lock(&pool->mutex);
    while (!pool->stop) {
        if (list_empty(&pool->queue)) {
            pthread_cond_wait(&pool->ready, &pool->mutex);
            continue;
        }
        struct pool_work *item = list_first(&pool->queue, struct pool_work, link);
        list_remove(&item->link);
        pthread_mutex_unlock(&pool->mutex);
        item->work(item->opaque);
        if (item->loop)
            loop_post(item->loop, item->done, item->opaque);
        free(item);
        pthread_mutex_lock(&pool->mutex);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

struct err *pool_new(const char *name, unsigned threads, struct pool **out)
{
    struct pool *pool = xcalloc(1, sizeof(*pool));
    pool->name = xstrdup(name);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->ready, NULL);
    list_init(&pool->queue);
    pool->threads = xcalloc(threads, sizeof(*pool->threads));
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = 0;
    while (pool->count < threads && !error) {
        error = pthread_create(&pool->threads[pool->count], NULL, pool_main, pool);
        if (!error)
            pool->count++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error) {
        pool_free(pool);
        return err_errno(error, "cannot start the threads of pool '%s'", name);
    }
    *out = pool;
    return NULL;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->mutex);
    pool->stop = true;
    pthread_cond_broadcast(&pool->ready);
    pthread_mutex_unlock(&pool->mutex);
    for (unsigned i = 0; i < pool->count; i++)
        pthread_join(pool->threads[i], NULL);
    struct pool_work *item;
    list_for_each (item, &pool->queue, link)
        free(item);
    pthread_cond_destroy(&pool->ready);
    pthread_mutex_destroy(&pool->mutex);
    free(pool->threads);
    free(pool->name);
    free(pool);
}

void pool_submit(struct pool *pool, void (*work)(void *opaque), struct loop *loop,
                 void (*done)(void *opaque), void *opaque)
{
    struct pool_work *item = xcalloc(1, sizeof(*item));
    item->work = work;
    item->done = done;
    item->loop = done ? loop : NULL;
    item->opaque = opaque;
    pthread_mutex_lock(&pool->mutex);
    list_append(&pool->queue, &item->link);
    pthread_cond_signal(&pool->ready);
    pthread_mutex_unlock(&pool->mutex);
}
