/*
 * Jobs that copy a disk while a guest uses it.
 *
 * While a job is there, a node of its own is the disk's. Reads pass through it. A write takes its
 * range, does what it has to on the source and, for a mirror, on the target too, and gives the
 * range back; the job's thread takes the range of each piece in the same way before it copies it.
 * So a piece is copied either before or after an overlapping write, and the target is as new as the
 * source from the moment that the last piece is through. A backup keeps what was: a write waits
 * until the units that it touches have been copied (backup.c).
 *
 * Lock: `lock` (LOCK_LEAF) covers the ranges and the job's status.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/lock.h"
#include "block/core/driver.h"
#include "block/core/internal.h"
#include "block/live.h"
#include "block/live/backup.h"

#define PIECE MIB(1)

struct range {
    struct list link;
    uint64_t offset, length;
};

struct block_job {
    struct block *block;
    struct image node;     /* what the disk's queues call; `file` is the source */
    struct image *target;  /* owned; NULL for a stream */
    struct image *lender;  /* the target has its backing, while the job is there; may be NULL */
    struct backup *backup; /* NULL: another kind of job */
    unsigned depth_below;  /* layers of the source from this depth on are left out */
    void (*changed)(void *opaque);
    void *opaque;
    pthread_t thread;

    struct lock lock;
    pthread_cond_t freed; /* a range, or a wish of the owner's */
    struct list ranges;
    struct block_job_status status;
    uint64_t speed;
    bool cancelled;
    bool behind; /* a write reached the source and not the target; read without the lock, too */
};

/* --- ranges --- */

static bool taken(struct block_job *job, uint64_t offset, uint64_t length)
{
    struct range *range;
    list_for_each (range, &job->ranges, link) {
        if (offset < range->offset + range->length && range->offset < offset + length)
            return true;
    }
    return false;
}

static void take(struct block_job *job, struct range *range, uint64_t offset, uint64_t length)
{
    range->offset = offset;
    range->length = length;
    lock_take(&job->lock);
    while (taken(job, offset, length))
        pthread_cond_wait(&job->freed, &job->lock.mutex);
    list_append(&job->ranges, &range->link);
    lock_drop(&job->lock);
}

static void give(struct block_job *job, struct range *range)
{
    lock_take(&job->lock);
    list_remove(&range->link);
    pthread_cond_broadcast(&job->freed);
    lock_drop(&job->lock);
}

/* --- the node that guest requests go through --- */

static struct block_job *job_of(struct image *image)
{
    return container_of(image, struct block_job, node);
}

/* What the source has, the target must have: otherwise it is worth nothing. The guest goes on. */
static int mirrored(struct block_job *job, int source_result, int target_result)
{
    bool worthless = job->target && !job->backup && source_result;
    if (!worthless && !target_result)
        return source_result;
    lock_take(&job->lock);
    bool news = !job->behind;
    __atomic_store_n(&job->behind, true, __ATOMIC_RELAXED);
    if (!job->status.error)
        job->status.error = target_result ? target_result : source_result;
    lock_drop(&job->lock);
    if (news)
        job->changed(job->opaque);
    return source_result;
}

static int node_read(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    return image_read(image->file, buffer, offset, length);
}

/* Before a change of the source: its range is this call's, and a backup has what it needs of it. */
static void begin_change(struct block_job *job, struct range *range, uint64_t offset,
                         uint64_t length)
{
    uint64_t unit = job->backup ? backup_unit(job->backup) : 1;
    uint64_t first = ALIGN_DOWN(offset, unit), end = ALIGN_UP(offset + length, unit);
    take(job, range, first, end - first);
    if (job->backup && !__atomic_load_n(&job->behind, __ATOMIC_RELAXED))
        mirrored(job, 0, backup_copy(job->backup, first, end - first));
}

/* What a change does to the target, too. */
static bool follows(const struct block_job *job, int result)
{
    return !result && job->target && !job->backup;
}

static int node_write(struct image *image, const void *buffer, uint64_t offset, uint64_t length)
{
    struct block_job *job = job_of(image);
    struct range range;
    begin_change(job, &range, offset, length);
    int result = image_write(image->file, buffer, offset, length);
    result = mirrored(job, result,
                      follows(job, result) ? image_write(job->target, buffer, offset, length) : 0);
    give(job, &range);
    return result;
}

static int node_zero(struct image *image, uint64_t offset, uint64_t length, bool unmap)
{
    struct block_job *job = job_of(image);
    struct range range;
    begin_change(job, &range, offset, length);
    int result = image_zero(image->file, offset, length, unmap);
    result = mirrored(job, result,
                      follows(job, result) ? image_zero(job->target, offset, length, unmap) : 0);
    give(job, &range);
    return result;
}

static int node_flush(struct image *image)
{
    struct block_job *job = job_of(image);
    int result = image_flush(image->file);
    return job->target && !job->backup ? mirrored(job, result, image_flush(job->target)) : result;
}

static int node_extent(struct image *image, uint64_t offset, uint64_t length,
                       struct image_extent *extent)
{
    unsigned depth;
    return image_extent_chain(image->file, offset, length, extent, &depth);
}

static const struct block_driver job_driver = {
    .name = "job",
    .parallel = true,
    .pread = node_read,
    .pwrite = node_write,
    .zero = node_zero,
    .flush = node_flush,
    .extent = node_extent,
};

/* --- copying --- */

/* One stretch that the source's layers treat alike. */
static int copy_stretch(struct block_job *job, uint8_t *buffer, uint64_t offset,
                        struct image_extent *extent, unsigned depth)
{
    struct image *source = job->node.file;
    struct image *to = job->target ? job->target : source;
    bool allocated = extent->flags & IMAGE_EXTENT_ALLOCATED;
    bool zero = !allocated || (extent->flags & IMAGE_EXTENT_ZERO);
    if (!job->target && (!allocated || depth == 0))
        return 0; /* a stream leaves alone what the first layer has, and what nobody has */
    if (job->target &&
        (depth >= job->depth_below || (!allocated && job->depth_below != UINT32_MAX)))
        return 0;
    if (zero)
        return image_zero(to, offset, extent->length, true);
    int result = image_read(source, buffer, offset, extent->length);
    return result ? result : image_write(to, buffer, offset, extent->length);
}

static int copy_piece(struct block_job *job, uint8_t *buffer, uint64_t offset, uint64_t length)
{
    struct range range;
    int result = 0;
    take(job, &range, offset, length);
    if (job->backup) {
        result = backup_copy(job->backup, offset, length);
        give(job, &range);
        return result;
    }
    for (uint64_t at = offset; at < offset + length && !result;) {
        struct image_extent extent;
        unsigned depth;
        result = image_extent_chain(job->node.file, at, offset + length - at, &extent, &depth);
        if (!result)
            result = copy_stretch(job, buffer, at, &extent, depth);
        at += extent.length;
    }
    give(job, &range);
    return result;
}

/* Waits as long as the speed wants, or until the job is cancelled. */
static bool may_go_on(struct block_job *job, uint64_t started_ns)
{
    lock_take(&job->lock);
    while (!job->cancelled && job->speed) {
        uint64_t due = started_ns +
                       (uint64_t)((unsigned __int128)job->status.done * NSEC_PER_SEC / job->speed);
        uint64_t now = clock_now_ns();
        struct timespec until;
        if (now >= due)
            break;
        /* The condition counts by the wall clock: a step of it costs a wrong pause at most. */
        clock_gettime(CLOCK_REALTIME, &until);
        uint64_t ns = (uint64_t)until.tv_nsec + MIN(due - now, NSEC_PER_SEC / 10);
        until.tv_sec += (time_t)(ns / NSEC_PER_SEC);
        until.tv_nsec = (long)(ns % NSEC_PER_SEC);
        pthread_cond_timedwait(&job->freed, &job->lock.mutex, &until);
    }
    bool go_on = !job->cancelled && !job->behind;
    lock_drop(&job->lock);
    return go_on;
}

static void conclude(struct block_job *job, int result)
{
    lock_take(&job->lock);
    if (!result && job->cancelled)
        result = -ECANCELED;
    if (!result)
        result = job->status.error;
    job->status.error = result;
    job->status.state = result                        ? BLOCK_JOB_FAILED
                        : job->target && !job->backup ? BLOCK_JOB_READY
                                                      : BLOCK_JOB_DONE;
    lock_drop(&job->lock);
    job->changed(job->opaque);
}

static void *work(void *opaque)
{
    struct block_job *job = opaque;
    uint64_t length = job->status.length, started_ns = clock_now_ns();
    uint64_t piece = job->backup ? MAX(PIECE, backup_unit(job->backup)) : PIECE;
    uint8_t *buffer = malloc(PIECE);
    int result = buffer ? 0 : -ENOMEM;
    for (uint64_t at = 0; at < length && !result && may_go_on(job, started_ns); at += piece) {
        uint64_t here = MIN(piece, length - at);
        result = copy_piece(job, buffer, at, here);
        lock_take(&job->lock);
        job->status.done = at + here;
        lock_drop(&job->lock);
    }
    if (!result)
        result = image_flush(job->target ? job->target : job->node.file);
    free(buffer);
    conclude(job, result);
    return NULL;
}

/* --- the owner's side --- */

/* The layer of the disk that the target of a commit is; *depth: how far down. */
static struct image *find_layer(struct image *source, const struct image *target, unsigned *depth)
{
    struct image *layer = image_backing(source);
    for (*depth = 1; layer && !image_same_file(layer, target); layer = image_backing(layer))
        ++*depth;
    return layer;
}

/* What the target leaves out shows through from where it does today. */
static struct err *lend_backing(struct block_job *job)
{
    struct image *backing = job->lender ? image_backing(job->lender) : NULL;
    if (!image_backing_name(job->target) != !backing)
        return err_new(backing ? "the target names no backing file, and there are layers below"
                               : "the target names a backing file, which it would not have");
    job->target->backing = backing;
    return NULL;
}

static struct err *judge(struct block_job *job, const struct block_job_options *options)
{
    struct image *source = job->block->image;
    job->depth_below = UINT32_MAX;
    if (options->kind == BLOCK_JOB_STREAM)
        return image_backing(source) ? NULL : err_new("it has no layer below");
    if (!image_writable(job->target))
        return err_new("the target is not writable");
    if (options->kind == BLOCK_JOB_COMMIT) {
        job->lender = find_layer(source, job->target, &job->depth_below);
        if (!job->lender)
            return err_new("the target is no layer of the disk");
    } else if (options->top_only) {
        job->lender = source;
        job->depth_below = 1;
    }
    if (options->kind != BLOCK_JOB_BACKUP)
        TRY(lend_backing(job));
    if (image_size(job->target) < image_size(source))
        TRY(image_resize(job->target, image_size(source)));
    return options->kind == BLOCK_JOB_BACKUP
               ? backup_begin(source, job->target, options->bitmap, &job->backup)
               : NULL;
}

/* The target goes, and what it was lent stays. */
static int close_target(struct block_job *job)
{
    if (job->target && job->lender)
        job->target->backing = NULL;
    return image_close(job->target);
}

static void job_free(struct block_job *job)
{
    image_fini(&job->node);
    pthread_cond_destroy(&job->freed);
    lock_fini(&job->lock);
    free(job);
}

static struct block_job *job_new(struct block *block, const struct block_job_options *options)
{
    struct block_job *job = xcalloc(1, sizeof(*job));
    job->block = block;
    job->target = options->target;
    job->changed = options->changed;
    job->opaque = options->opaque;
    job->speed = options->speed;
    job->status.kind = options->kind;
    lock_init(&job->lock, LOCK_LEAF);
    pthread_cond_init(&job->freed, NULL);
    list_init(&job->ranges);
    image_init(&job->node, &job_driver, IMAGE_OPEN_WRITABLE);
    return job;
}

static struct err *put_on_top(struct block_job *job)
{
    struct block *block = job->block;
    job->node.file = block->image;
    job->node.size = job->status.length = image_size(block->image);
    int error = pthread_create(&job->thread, NULL, work, job);
    if (error)
        return err_errno(error, "no thread for a job");
    block->job = job;
    block_set_node(block, &job->node);
    return NULL;
}

struct err *block_job_start(struct block *block, const struct block_job_options *options,
                            struct block_job **out)
{
    struct block_job *job = job_new(block, options);
    struct err *err = block_to_node(block);
    if (!err && block->job)
        err = err_of(ERR_BUSY, "a job runs on it already");
    if (!err && block->info.readonly)
        err = err_of(ERR_DENIED, "it is read-only");
    if (!err)
        err = judge(job, options);
    if (!err)
        err = put_on_top(job);
    if (err) {
        close_target(job);
        backup_end(job->backup, false);
        job_free(job);
        return err;
    }
    *out = job;
    return NULL;
}

void block_job_status(struct block_job *job, struct block_job_status *status)
{
    lock_take(&job->lock);
    *status = job->status;
    if (job->behind) /* since it was ready */
        status->state = BLOCK_JOB_FAILED;
    lock_drop(&job->lock);
}

void block_job_set_speed(struct block_job *job, uint64_t speed)
{
    lock_take(&job->lock);
    job->speed = speed;
    pthread_cond_broadcast(&job->freed);
    lock_drop(&job->lock);
}

void block_job_cancel(struct block_job *job)
{
    lock_take(&job->lock);
    job->cancelled = true;
    pthread_cond_broadcast(&job->freed);
    lock_drop(&job->lock);
}

/* The disk stands on its first layer alone from now on. */
static struct err *drop_below(struct image *image)
{
    TRY(image_set_backing_name(image, NULL, NULL));
    image_set_backing(image, NULL); /* closes them */
    return NULL;
}

/* The target is the disk from now on. A failed flush leaves the source in its place. */
static struct err *pivot(struct block_job *job)
{
    int result = image_flush(job->target);
    if (result)
        return err_errno(result, "the target cannot be made stable");
    struct image *source = job->node.file;
    if (job->lender)
        job->lender->backing = NULL; /* the target's now */
    block_set_node(job->block, job->target);
    job->target = NULL;
    result = image_close(source);
    return result ? err_errno(result, "what the disk was before could not be closed well") : NULL;
}

struct err *block_job_end(struct block_job *job, bool keep)
{
    struct block_job_status status;
    struct err *err = NULL;
    pthread_join(job->thread, NULL);
    block_job_status(job, &status);
    block_set_node(job->block, job->node.file);
    job->block->job = NULL;
    if (keep && status.state == BLOCK_JOB_READY)
        err = pivot(job);
    else if (keep && status.state == BLOCK_JOB_DONE)
        err = job->backup ? NULL : drop_below(job->node.file);
    else if (keep)
        err = err_errno(status.error ? -status.error : EBUSY, "the job has not come to its end");
    int closed = close_target(job);
    if (closed && !err && status.state != BLOCK_JOB_FAILED)
        err = err_errno(-closed, "the target could not be closed well");
    backup_end(job->backup, keep && !err);
    job_free(job);
    return err;
}
