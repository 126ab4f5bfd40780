/*
 * Copies a stretch of one disk onto another: what convert, dd, commit and rebase have in common.
 *
 * Each worker reads through a chain of its own, so that formats which let one thread in at a time
 * are read in parallel too. Writes go in order, because that is how a format lays its clusters out
 * best; a target whose place for each byte is given is written by the workers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_JOB_COPY_H
#define TENON_BLOCK_JOB_COPY_H

#include "block/image.h"
#include "block/job/parallel.h"

struct copy_job {
    unsigned workers;
    struct image *source[JOB_WORKERS_MAX]; /* one chain a worker */
    /* What the target shows where nothing is written, one chain a worker; NULL: what it has. Units
     * that are equal to it are left out. */
    struct image *base[JOB_WORKERS_MAX];
    struct image *target;
    uint64_t source_offset, length; /* bytes; beyond the end of the source are zeros */
    unsigned depth_min, depth_max;  /* only what these layers of the source decide */
    uint32_t unit;                  /* bytes that are written, left out or compressed as a whole */
    bool compress;
    bool target_zero; /* the target reads as zeros: zeros are left out */
    bool find_zeros;  /* look for zeros in data, too */
    bool write_zeros; /* zeros are data: the target is to have room for all */
    bool offload;     /* between raw files the kernel copies, which does not look for zeros */
    bool salvage;     /* what cannot be read becomes zeros */
    uint64_t rate;    /* bytes a second; 0: no limit */
    void (*progress)(void *opaque, uint64_t done);
    void *opaque;
    const char *source_name, *target_name; /* for errors */
    uint64_t unreadable;                   /* out: bytes that became zeros */
};

/* A job over the whole of `source`, with what suits the target: its unit, zeros found. */
void copy_job_init(struct copy_job *job, struct image *source, struct image *target);
struct err *copy_job_run(struct copy_job *job);

#endif
