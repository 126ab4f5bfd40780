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
    bool finishing; /* a thread is taking results */
    bool stop;
    struct err *err;
    pthread_mutex_t lock;
    pthread_cond_t room;
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

/*
 * Takes the results that are next in order, unless another thread is at it: whoever made one of
 * them has it in its cache, and no thread sleeps for the others.
 */
static void finish_locked(struct run *run)
{
    const struct job_parallel *job = run->job;
    unsigned slot = (unsigned)(run->finished % run->slots);
    if (run->finishing)
        return;
    run->finishing = true;
    for (; !run->stop && run->ready[slot]; slot = (unsigned)(run->finished % run->slots)) {
        uint64_t piece = run->piece[slot];
        bool stop = false;
        pthread_mutex_unlock(&run->lock);
        struct err *err = job->finish(job->opaque, slot, piece, &stop);
        pthread_mutex_lock(&run->lock);
        run->err = err;
        run->stop = err || stop;
        run->ready[slot] = false;
        run->finished++;
        pthread_cond_broadcast(&run->room);
    }
    run->finishing = false;
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
        finish_locked(run);
    }
    pthread_mutex_unlock(&run->lock);
    return NULL;
}

struct err *job_parallel_run(const struct job_parallel *job)
{
    struct run run = {.job = job, .slots = job_slots(job->workers)};
    struct worker worker[JOB_WORKERS_MAX];
    unsigned started = 1;
    pthread_mutex_init(&run.lock, NULL);
    pthread_cond_init(&run.room, NULL);
    for (unsigned i = 0; i < job->workers; i++)
        worker[i] = (struct worker){.run = &run, .index = i};
    /* Where no more threads are to be had, those that are do the work. */
    while (started < job->workers &&
           !pthread_create(&worker[started].thread, NULL, work, &worker[started]))
        started++;
    work(&worker[0]);
    for (unsigned i = 1; i < started; i++)
        pthread_join(worker[i].thread, NULL);
    pthread_cond_destroy(&run.room);
    pthread_mutex_destroy(&run.lock);
    return run.err;
}
