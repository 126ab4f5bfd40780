/*
 * Live operations on the disk of a running machine: another size, a layer on top, and jobs that
 * copy while the guest writes (mirror, commit, stream, backup).
 *
 * The calls that exchange a disk's node want the devices quiesced: nothing is in flight on any
 * queue of the block. A job runs on a thread of its own, behind a node that it puts on top of the
 * disk: the guest's writes pass through it, and wait only for the piece that is being copied right
 * then.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_LIVE_H
#define TENON_BLOCK_LIVE_H

#include "block/block.h"
#include "block/filter/filter.h"
#include "block/image.h"

/* The disk's node, without a job's; NULL: a raw file that io_uring serves. */
struct image *block_node(const struct block *block);
/* Quiesced. Bytes, a multiple of the logical block. Devices learn of it from whoever calls. */
struct err *block_resize(struct block *block, uint64_t size);
/* Quiesced. Limits of rate from now on, instead of those that are. */
struct err *block_limit(struct block *block, const struct filter_limits *limits);
/* Quiesced. The disk's node becomes the backing of `overlay` (taken, on error too). */
struct err *block_put_overlay(struct block *block, struct image *take_overlay);

/* Quiesced: another medium (taken, on error too) into a removable drive; NULL: none. */
struct err *block_set_medium(struct block *block, struct image *take_medium);

/* Quiesced. A dirty bitmap of the disk's node; see image_bitmap_add() and its like. */
struct block_bitmap_change {
    enum { BLOCK_BITMAP_ADD, BLOCK_BITMAP_REMOVE, BLOCK_BITMAP_CLEAR } what;
    const char *name;
    uint64_t granularity; /* of a new one, bytes; 0: the usual */
    bool persistent;      /* a new one is kept in the image */
};
struct err *block_change_bitmap(struct block *block, const struct block_bitmap_change *change);

enum block_job_kind {
    BLOCK_JOB_MIRROR, /* all of the disk (or `top_only`: its first layer) to a target */
    BLOCK_JOB_COMMIT, /* what the layers above the target decide, into it */
    BLOCK_JOB_STREAM, /* what the layers below decide, into the first one */
    BLOCK_JOB_BACKUP, /* the disk as it is now, or what a bitmap calls dirty, to a target */
};
enum block_job_state {
    BLOCK_JOB_RUNNING,
    BLOCK_JOB_READY, /* mirror, commit: the target has it all and every further write */
    BLOCK_JOB_DONE,  /* stream: nothing is needed from below any more; backup: it is there */
    BLOCK_JOB_FAILED,
};

struct block_job_options {
    enum block_job_kind kind;
    struct image *target; /* mirror, commit, backup; taken, on error too */
    bool top_only;        /* mirror */
    const char *bitmap;   /* backup: only what it calls dirty; then it is clean. NULL: all */
    uint64_t speed;       /* bytes a second; 0: no limit */
    /* On the job's thread: the state is another. */
    void (*changed)(void *opaque);
    void *opaque;
};

struct block_job_status {
    enum block_job_kind kind;
    enum block_job_state state;
    uint64_t done, length; /* bytes */
    int error;             /* -errno of a failed job */
};

struct block_job;
/* Quiesced. */
struct err *block_job_start(struct block *block, const struct block_job_options *options,
                            struct block_job **job);
/* Any thread. */
void block_job_status(struct block_job *job, struct block_job_status *status);
void block_job_set_speed(struct block_job *job, uint64_t speed);
/* Asks the thread to end: state FAILED with -ECANCELED, unless it had finished. Any thread. */
void block_job_cancel(struct block_job *job);
/*
 * Quiesced, and the thread has nothing left to do (or was cancelled: this waits for it). Takes the
 * job's node away; frees the job. With `keep` a READY target becomes the disk's node, a DONE stream
 * drops the layers below, and a DONE backup is complete. A backup that is not leaves its bitmap as
 * dirty as it was, and what was written since. An error leaves the disk as it was.
 */
struct err *block_job_end(struct block_job *job, bool keep);

#endif
