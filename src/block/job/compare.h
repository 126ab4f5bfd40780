/*
 * Do two disks hold the same bytes? The shorter one counts as if zeros followed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_JOB_COMPARE_H
#define TENON_BLOCK_JOB_COMPARE_H

#include "block/image.h"
#include "block/job/parallel.h"

struct compare_job {
    unsigned workers;
    struct image *image[2][JOB_WORKERS_MAX]; /* of either disk, one chain a worker */
    const char *name[2];
    void (*progress)(void *opaque, uint64_t done);
    void *opaque;
    bool differ;     /* out */
    uint64_t offset; /* out: of the first byte that differs */
};

struct err *compare_job_run(struct compare_job *job);

#endif
