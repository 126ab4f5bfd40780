/*
 * Work on a disk in pieces, by several threads.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <pthread.h>
#include <sched.h>

#include "block/job/parallel.h"

struct run {
    const struct job_parallel *job;
    unsigned slots;
    uint64_t next;            /* the first piece that nobody has looked at */
    uint64_t taken, finished; /* pieces that had work, in their order */
    uint64_t piece[JOB_SLOTS_MAX];
    bool ready[JOB_SLOTS_MAX];
    bool stop;
    pthread_mutex_t lock;
    pthread_cond_t room, done;
};

struct worker {
    struct run *run;
    unsigned index;
    pthread_t thread;
};

unsigned job_slots(unsigned workers)
{
    return workers * (JOB_SLOTS_MAX / JOB_WORKERS_MAX);
}

unsigned job_default_workers(void)
{
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
    return (unsigned)MIN(MAX(count, 1), 8);
}

/* The next piece with work for this thread, false if there is none. Under the lock. */
static bool take_locked(struct run *run, unsigned *slot)
{
    const struct job_parallel *job = run->job;
    while (!run->stop && run->next < job->pieces && run->taken >= run->finished + run->slots)
        pthread_cond_wait(&run->room, &run->lock);
    if (!run->stop && run->next < job->pieces && job->skip)
        run->next = job->skip(job->opaque, run->next);
    if (run->stop || run->next >= job->pieces)
        return false;
    *slot = (unsigned)(run->taken++ % run->slots);
    run->piece[*slot] = run->next++;
    return true;
}

static void *work(void *opaque)
{
    struct worker *worker = opaque;
    struct run *run = worker->run;
    const struct job_parallel *job = run->job;
    unsigned slot;
    pthread_mutex_lock(&run->lock);
    while (take_locked(run, &slot)) {
        uint64_t piece = run->piece[slot];
        pthread_mutex_unlock(&run->lock);
        job->work(job->opaque, worker->index, slot, piece);
        pthread_mutex_lock(&run->lock);
        run->ready[slot] = true;
        if (slot == run->finished % run->slots)
            pthread_cond_signal(&run->done);
    }
    pthread_cond_signal(&run->done);
    pthread_mutex_unlock(&run->lock);
    return NULL;
}

/* Waits for the result that is next in order; false: there will be none. */
static bool await(struct run *run, unsigned slot)
{
    pthread_mutex_lock(&run->lock);
    while (!run->ready[slot] && !(run->next >= run->job->pieces && run->finished == run->taken))
        pthread_cond_wait(&run->done, &run->lock);
    bool ready = run->ready[slot];
    pthread_mutex_unlock(&run->lock);
    return ready;
}

static struct err *finish_all(struct run *run)
{
    const struct job_parallel *job = run->job;
    struct err *err = NULL;
    bool stop = false;
    while (!err && !stop) {
        unsigned slot = (unsigned)(run->finished % run->slots);
        if (!await(run, slot))
            break;
        err = job->finish(job->opaque, slot, run->piece[slot], &stop);
        pthread_mutex_lock(&run->lock);
        run->ready[slot] = false;
        run->finished++;
        pthread_cond_broadcast(&run->room);
        pthread_mutex_unlock(&run->lock);
    }
    return err;
}

struct err *job_parallel_run(const struct job_parallel *job)
{
    struct run run = {.job = job, .slots = job_slots(job->workers)};
    struct worker worker[JOB_WORKERS_MAX];
    unsigned started = 0;
    struct err *err = NULL;
    pthread_mutex_init(&run.lock, NULL);
    pthread_cond_init(&run.room, NULL);
    pthread_cond_init(&run.done, NULL);
    for (; started < job->workers && !err; started++) {
        struct worker *one = &worker[started];
        *one = (struct worker){.run = &run, .index = started};
        int error = pthread_create(&one->thread, NULL, work, one);
        if (error) {
            err = err_errno(error, "cannot start a thread");
            break;
        }
    }
    if (!err)
        err = finish_all(&run);
    pthread_mutex_lock(&run.lock);
    run.stop = true;
    pthread_cond_broadcast(&run.room);
    pthread_mutex_unlock(&run.lock);
    for (unsigned i = 0; i < started; i++)
        pthread_join(worker[i].thread, NULL);
    pthread_cond_destroy(&run.done);
    pthread_cond_destroy(&run.room);
    pthread_mutex_destroy(&run.lock);
    return err;
}
