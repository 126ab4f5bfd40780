/*
 * Work on a disk in pieces: several threads, the calling one among them, do the pieces; one after
 * another takes their results in order. A job that needs its pieces' bytes in order (a writer that
 * allocates) writes in `finish`; one that does not writes in `work`.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_JOB_PARALLEL_H
#define TENON_BLOCK_JOB_PARALLEL_H

#include "base/base.h"
#include "base/err.h"

#define JOB_WORKERS_MAX 16
#define JOB_SLOTS_MAX (JOB_WORKERS_MAX * 3)
#define JOB_PIECE MIB(1) /* a stretch that stays in a core's cache */

struct job_parallel {
    unsigned workers; /* at most; 1 to JOB_WORKERS_MAX */
    uint64_t pieces;
    void *opaque;
    /* The first piece from `piece` on that has work; `pieces`: none. One thread at a time, may be
     * NULL. */
    uint64_t (*skip)(void *opaque, uint64_t piece);
    /* Any worker's thread; `slot` (below job_slots()) is the piece's alone until it is finished. */
    void (*work)(void *opaque, unsigned worker, unsigned slot, uint64_t piece);
    /* Any worker's thread, one at a time, piece after piece. An error, or *stop, ends the job. */
    struct err *(*finish)(void *opaque, unsigned slot, uint64_t piece, bool *stop);
};

unsigned job_slots(unsigned workers);
/* As many as there are CPUs to use, within reason. */
unsigned job_default_workers(void);
/* Returns when all threads have ended. */
struct err *job_parallel_run(const struct job_parallel *job);

#endif
