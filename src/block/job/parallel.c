/*
 * Work on a disk in pieces, by several threads.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#include "base/clock.h"
#include "block/job/parallel.h"

#define LOOK_NS (4 * NSEC_PER_MSEC)

struct run;

struct worker {
    struct run *run;
    unsigned index;
    pthread_t thread;
    uint64_t looked, busy; /* ns: the last look at what this thread does with its time */
};

struct run {
    const struct job_parallel *job;
    struct worker worker[JOB_WORKERS_MAX];
    unsigned started; /* workers */
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

/* What this thread has run, and waited for a CPU, in ns. False: the kernel does not tell. */
static bool busy_ns(uint64_t *ns)
{
    unsigned long long waited; /* the run time beside it is as of the last tick */
    FILE *file = fopen("/proc/thread-self/schedstat", "re");
    if (!file)
        return false;
    bool known = fscanf(file, "%*u %llu", &waited) == 1;
    fclose(file);
    if (known)
        *ns = clock_thread_ns() + waited;
    return known;
}

/* Could more threads be had? */
static bool may_grow(const struct run *run)
{
    return __atomic_load_n(&run->started, __ATOMIC_RELAXED) < run->job->workers;
}

/*
 * Has this thread slept for most of the time since the last look, for a disk, a peer, a lock? Then
 * another one may use its CPU. More threads than CPUs that do not sleep only get in each other's
 * way.
 */
static bool sleeps(struct worker *worker)
{
    uint64_t now = clock_now_ns(), passed = now - worker->looked, busy;
    if (passed < LOOK_NS || !may_grow(worker->run))
        return false;
    bool known = busy_ns(&busy);
    bool slept = !known || (busy - worker->busy) * 2 < passed;
    worker->looked = now;
    worker->busy = known ? busy : 0;
    return slept;
}

static void *work(void *opaque);

/* Under the lock. Where no more threads are to be had, those that are there do the work. */
static void start_workers(struct run *run, unsigned count)
{
    while (run->started < count) {
        struct worker *worker = &run->worker[run->started];
        *worker = (struct worker){.run = run, .index = run->started};
        if (pthread_create(&worker->thread, NULL, work, worker))
            return;
        __atomic_store_n(&run->started, run->started + 1, __ATOMIC_RELAXED);
    }
}

static void *work(void *opaque)
{
    struct worker *worker = opaque;
    struct run *run = worker->run;
    const struct job_parallel *job = run->job;
    unsigned slot;
    worker->looked = clock_now_ns();
    if (may_grow(run))
        busy_ns(&worker->busy);
    pthread_mutex_lock(&run->lock);
    while (take_locked(run, &slot)) {
        uint64_t piece = run->piece[slot];
        pthread_mutex_unlock(&run->lock);
        job->work(job->opaque, worker->index, slot, piece);
        bool slept = sleeps(worker);
        pthread_mutex_lock(&run->lock);
        run->ready[slot] = true;
        if (slept && !run->stop && run->next < job->pieces)
            start_workers(run, MIN(job->workers, run->started + 1));
        finish_locked(run);
    }
    pthread_mutex_unlock(&run->lock);
    return NULL;
}

struct err *job_parallel_run(const struct job_parallel *job)
{
    struct run run = {.job = job, .slots = job_slots(job->workers), .started = 1};
    pthread_mutex_init(&run.lock, NULL);
    pthread_cond_init(&run.room, NULL);
    run.worker[0] = (struct worker){.run = &run};
    pthread_mutex_lock(&run.lock);
    start_workers(&run, MIN(job->workers, job_default_workers()));
    pthread_mutex_unlock(&run.lock);
    work(&run.worker[0]);
    /* Nobody starts another one any more: there are no pieces left. */
    for (unsigned i = 1; i < run.started; i++)
        pthread_join(run.worker[i].thread, NULL);
    pthread_cond_destroy(&run.room);
    pthread_mutex_destroy(&run.lock);
    return run.err;
}
