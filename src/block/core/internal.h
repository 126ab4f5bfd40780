/*
 * What the block core and the engines of the raw file share.
 *
 * A request is one or more steps; a step is one system call's worth of work, and an engine's job is
 * to carry a step out and to report its result on the queue's loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_CORE_INTERNAL_H
#define TENON_BLOCK_CORE_INTERNAL_H

#include "base/lock.h"
#include "block/block.h"
#include "block/image.h"

/* A read or write of the bounce buffer or of the zero buffer moves at most this. */
#define BLOCK_BUFFER_SIZE KIB(256)

struct block {
    char *id;
    int fd;
    enum block_cache cache;
    enum block_engine engine;
    struct block_info info;
    uint32_t memory_align;  /* of buffers, for O_DIRECT; 1 otherwise */
    uint8_t *zeros;         /* BLOCK_BUFFER_SIZE, never written: costs one page of nothing */
    struct image *image;    /* a format: threads carry out every step */
    struct block_job *job;  /* what runs on it; `image` is the job's node then */
    struct image *throttle; /* a filter over `image` that is not closed with it; NULL */
    struct filter_group *throttle_group;
    bool hold_errors;
    bool removable; /* `image` may be NULL: no medium */
    void (*failed)(void *opaque, enum block_op op, int error);
    void *failed_opaque;
    struct lock queues_lock; /* LOCK_BLOCK: the list */
    struct list queues;
    /* Learnt from refusals; any queue's loop may set them. */
    bool no_punch, no_zero_range;
    /* stats.c; all atomic. */
    uint64_t submitted, completed;
    struct block_op_stats op_stats[BLOCK_ZERO + 1];
};

/* A request comes, comes once more after it was held back, is done; on its queue's loop. */
void block_stats_begin(struct block_req *req);
void block_stats_again(const struct block_req *req);
void block_stats_end(const struct block_req *req);

/* A step, as an engine sees it. */
enum block_call {
    BLOCK_CALL_READV,
    BLOCK_CALL_WRITEV,
    BLOCK_CALL_READ,
    BLOCK_CALL_WRITE,
    BLOCK_CALL_SYNC,
    BLOCK_CALL_FALLOCATE
};

struct block_step {
    enum block_call call;
    uint64_t offset, length;
    void *buffer;            /* READ, WRITE */
    const struct iovec *iov; /* READV, WRITEV */
    unsigned iov_count;
    int flags; /* RWF_ flags, or fallocate's mode */
};

struct block_engine_ops {
    const char *name;
    struct err *(*start)(struct block_queue *queue);
    void (*stop)(struct block_queue *queue);
    /* Begins a step of `req`; false: no room, try again after a completion. */
    bool (*begin)(struct block_queue *queue, struct block_req *req, const struct block_step *step);
    void (*flush)(struct block_queue *queue);
    /* Calls block_step_done() for what is finished; `wait`: for at least one. */
    void (*reap)(struct block_queue *queue, bool wait);
};

extern const struct block_engine_ops block_uring, block_threads;

struct block_queue {
    struct block *block;
    struct loop *loop;
    const struct block_engine_ops *ops;
    void *engine; /* the engine's own */
    int event_fd; /* signalled by completions */
    struct loop_fd watch;
    bool lost;            /* the engine could not be changed: every request fails */
    unsigned accepted;    /* requests between block_submit and done */
    unsigned begun;       /* steps that an engine is working on */
    struct list waiting;  /* requests whose next step found no room */
    struct list finished; /* requests whose done is to be called */
    struct list held;     /* requests that failed and wait for block_retry() */
    bool draining;        /* none is held back */
    struct list link;     /* in block->queues */
    uint8_t *bounce;      /* BLOCK_BUFFER_SIZE; O_DIRECT only */
    struct block_req *bounce_user;
    struct list bounce_waiting;
    void (*batch)(void *opaque);
    void *batch_opaque;
};

/* On the queue's loop, from reap: bytes, 0 or -errno. */
void block_step_done(struct block_req *req, int result);

/* image_block.c: a step on a format's node, on a thread of the pool. */
int block_image_step(struct image *image, const struct block_step *step);
/* block.c: what all blocks have. */
struct block *block_new(const struct block_options *options);
struct err *block_finish(struct block *take_block, const struct block_options *options,
                         struct err *take_err, struct block **out);

/* live/node.c, quiesced: a raw file becomes a node like a format's. */
struct err *block_to_node(struct block *block);
/* Quiesced: what requests reach from now on. */
void block_set_node(struct block *block, struct image *node);
bool image_same_file(const struct image *a, const struct image *b);

/* file.c: learns size and geometry, sets up O_DIRECT. */
struct err *block_file_open(struct block *block, const struct block_options *options);

#endif
