/*
 * Block nodes, seen from devices and tools: byte-addressed storage with asynchronous requests.
 *
 * A node is opened from a description and a descriptor that somebody with the permission handed
 * over: nothing here opens a path. The core checks range, alignment, permission and request limits,
 * so that no driver has to. Requests complete on the loop that submitted them, in any order; a
 * flush covers the writes that had completed when it was submitted.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_BLOCK_H
#define TENON_BLOCK_BLOCK_H

#include <sys/uio.h>

#include "base/base.h"
#include "base/err.h"
#include "base/list.h"
#include "loop/loop.h"

struct block;

enum block_cache {
    BLOCK_CACHE_WRITEBACK,    /* host page cache; flush is fdatasync */
    BLOCK_CACHE_NONE,         /* O_DIRECT; flush is fdatasync */
    BLOCK_CACHE_WRITETHROUGH, /* every write is stable before it completes */
    BLOCK_CACHE_UNSAFE,       /* flush does nothing: throw-away guests */
};

/* How a file's requests reach the kernel. */
enum block_engine {
    BLOCK_ENGINE_AUTO, /* io_uring, or threads where the host does not permit it */
    BLOCK_ENGINE_URING,
    BLOCK_ENGINE_THREADS,
};

struct block_options {
    const char *id; /* for the log; errors leave the disk's name to the caller */
    int fd;         /* raw file or block device, locked by whoever opened it; taken */
    bool readonly;
    enum block_cache cache; /* NONE wants the fd opened with O_DIRECT */
    bool discard;           /* punch holes; otherwise discards are ignored */
    enum block_engine engine;
    uint32_t
        logical_block; /* what devices show as the smallest unit, bytes; 0: what the file has */
    /*
     * Requests that fail for want of room or by the medium are held back instead of being
     * completed, until block_retry(); a drain completes them.
     */
    bool hold_errors;
    /* Of each layer from the top, separated by dots: "qcow2.raw"; NULL: "raw". */
    const char *formats;
    const int *backing_fds; /* of the layers below the top, read only, ended by -1; taken */
};

struct block_info {
    uint64_t size;          /* bytes */
    uint32_t logical_block; /* smallest unit of access, bytes */
    uint32_t physical_block;
    bool readonly;
    bool discard;
    bool write_cache; /* completed writes may need a flush */
};

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_ZERO };

#define BLOCK_REQ_FUA (1u << 0)      /* write: stable before completion */
#define BLOCK_REQ_NO_UNMAP (1u << 1) /* zero: keep the blocks allocated */

/* Embedded by the submitter; untouched by it until `done`. */
struct block_req {
    enum block_op op;
    uint32_t flags;
    uint64_t offset, length; /* bytes; reads and writes: the sum of iov */
    struct iovec *iov;       /* borrowed until done */
    unsigned iov_count;
    /* On the submitting loop: 0 or -errno. A short transfer never happens. */
    void (*done)(struct block_req *req, int result);
    void *opaque;

    /* The node's, until done. */
    struct list link;
    struct block_queue *queue;
    uint64_t started_ns;
    uint64_t moved;      /* bytes of the current step that are through */
    struct iovec held;   /* the original of the segment that a short transfer cut in two */
    unsigned held_index; /* ... and its place in iov; iov_count: none is cut */
    uint8_t step;
    uint8_t retries;
    bool bounced;
    int result;
};

/* Opens a node of any format. On error the descriptors are closed. */
struct err *block_open(const struct block_options *options, struct block **block);
/* Opens a raw node: `formats` and `backing_fds` are not looked at. */
struct err *block_open_raw(const struct block_options *options, struct block **block);
/*
 * A drive whose medium comes and goes (block_set_medium() of block/live.h): fd -1 is an empty one,
 * of size 0. Threads serve it.
 */
struct err *block_open_removable(const struct block_options *options, struct block **block);
/* No request is in flight. */
void block_close(struct block *block);
void block_get_info(const struct block *block, struct block_info *info);

/* What a node has done with requests of one kind since it was opened. */
#define BLOCK_LATENCY_BOUNDS 11
struct block_op_stats {
    uint64_t requests, bytes; /* that went well */
    uint64_t failures;
    uint64_t time_ns; /* of those that went well, from their submission on */
    /* How many took less than block_latency_bound[i], and not less than the one before; then the
     * rest. */
    uint64_t bin[BLOCK_LATENCY_BOUNDS + 1];
};
extern const uint64_t block_latency_bound[BLOCK_LATENCY_BOUNDS]; /* ns */
/* Any thread. */
void block_get_stats(const struct block *block, enum block_op op, struct block_op_stats *stats);
/* Requests that are not done yet. */
uint64_t block_in_flight(const struct block *block);
/*
 * With hold_errors: `fn` hears of each request that is held back, with -errno, on its queue's loop.
 * Before the first request.
 */
void block_on_error(struct block *block, void (*fn)(void *opaque, enum block_op op, int error),
                    void *opaque);
/* Any thread: what is held back is tried again, on its loop. */
void block_retry(struct block *block);

/*
 * A queue of one loop onto a node: its io_uring, its requests. Several queues of several loops may
 * use a node together (multi-queue devices).
 */
struct block_queue;
struct err *block_queue_new(struct block *block, struct loop *loop, struct block_queue **queue);
/* No request is in flight. */
void block_queue_free(struct block_queue *queue);
/*
 * Optional: called on the queue's loop after each batch of `done` calls, block_drain's included.
 * Set before the first request.
 */
void block_queue_on_batch(struct block_queue *queue, void (*fn)(void *opaque), void *opaque);
/*
 * On the queue's loop. `done` is never called from here: also an invalid request completes later,
 * with -EINVAL, -EROFS (node is read-only) or -ENOSPC (write beyond the end).
 */
void block_submit(struct block_queue *queue, struct block_req *req);
/* Hands the collected submissions to the kernel: once after a batch. */
void block_flush_submissions(struct block_queue *queue);
/* On the queue's loop: serves completions until none of its requests is in flight. */
void block_drain(struct block_queue *queue);

/*
 * File locks against a second writer, for whoever opens the files (the tenon command): an open file
 * description lock on one byte, shared for readers, exclusive for a writer; it lives as long as the
 * descriptor and its duplicates. A VM that was killed may still be on its way out in the kernel,
 * and its lock with it: a lock that is held for longer than that is a living VM's. ERR_BUSY names
 * the file and says that another VM uses it.
 */
struct err *block_lock_file(int fd, const char *path, bool readonly);
/* Gives it back although the kernel keeps the description open: an io_uring does for a while. */
void block_unlock_file(int fd);

/* "io_uring" or "threads". */
const char *block_engine_name(const struct block_queue *queue);

#endif
