/*
 * The block core: checks requests, splits them into steps, continues short transfers, bounces
 * buffers that O_DIRECT cannot take, falls back where the host lacks an operation.
 *
 * A queue and its requests belong to one loop and need no lock. Nothing is allocated per request.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <limits.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/log.h"
#include "block/core/driver.h"
#include "block/core/internal.h"
#include "block/filter/filter.h"

#define RETRIES_MAX 100

enum step { STEP_TRANSFER, STEP_PUNCH, STEP_ZERO_RANGE, STEP_WRITE_ZEROS, STEP_SYNC };

struct block *block_new(const struct block_options *options)
{
    struct block *block = xcalloc(1, sizeof(*block));
    block->id = xstrdup(options->id ? options->id : "?");
    block->fd = options->fd;
    block->cache = options->cache;
    block->engine = options->engine;
    block->info.readonly = options->readonly;
    block->info.discard = options->discard && !options->readonly;
    block->info.write_cache = options->cache != BLOCK_CACHE_WRITETHROUGH;
    block->hold_errors = options->hold_errors;
    lock_init(&block->queues_lock, LOCK_BLOCK);
    list_init(&block->queues);
    return block;
}

/* The geometry that devices show may be coarser than the file's, never finer. */
static struct err *set_geometry(struct block *block, uint32_t logical)
{
    struct block_info *info = &block->info;
    if (!logical)
        return NULL;
    if (!is_power_of_2(logical) || logical < info->logical_block)
        return err_of(ERR_USAGE, "blocks of %u bytes, and the disk has %u", logical,
                      info->logical_block);
    if (info->size % logical)
        return err_of(ERR_USAGE, "its size, %llu bytes, is no multiple of %u",
                      (unsigned long long)info->size, logical);
    info->logical_block = logical;
    info->physical_block = MAX(info->physical_block, logical);
    return NULL;
}

struct err *block_finish(struct block *block, const struct block_options *options, struct err *err,
                         struct block **out)
{
    if (!err)
        err = set_geometry(block, options->logical_block);
    if (!err) {
        block->zeros = mmap(NULL, BLOCK_BUFFER_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block->zeros == MAP_FAILED) {
            block->zeros = NULL;
            err = err_errno(errno, "cannot map a buffer");
        }
    }
    if (err) {
        block_close(block);
        return err;
    }
    *out = block;
    return NULL;
}

struct err *block_open_raw(const struct block_options *options, struct block **out)
{
    struct block *block = block_new(options);
    return block_finish(block, options, block_file_open(block, options), out);
}

void block_close(struct block *block)
{
    if (!block)
        return;
    if (block->zeros)
        munmap(block->zeros, BLOCK_BUFFER_SIZE);
    if (block->throttle) {
        block->throttle->file = NULL; /* `image`, which follows */
        image_close(block->throttle);
        filter_group_free(block->throttle_group);
    }
    if (block->image && image_close(block->image))
        log_error("disk '%s': its last metadata could not be written", block->id);
    if (block->fd >= 0)
        block_unlock_file(block->fd);
    fd_cleanup(&block->fd);
    lock_fini(&block->queues_lock);
    free(block->id);
    free(block);
}

void block_get_info(const struct block *block, struct block_info *info)
{
    *info = block->info;
}

static void wake(struct block_queue *queue)
{
    uint64_t one = 1;
    (void)!write(queue->event_fd, &one, sizeof(one));
}

/* `done` is called when the queue is served next: never from inside block_submit(). */
static void finish(struct block_req *req, int result)
{
    struct block_queue *queue = req->queue;
    req->result = result;
    if (list_empty(&queue->finished))
        wake(queue);
    list_append(&queue->finished, &req->link);
}

static bool stable(const struct block_req *req)
{
    enum block_cache cache = req->queue->block->cache;
    return cache == BLOCK_CACHE_WRITETHROUGH ||
           ((req->flags & BLOCK_REQ_FUA) && cache != BLOCK_CACHE_UNSAFE);
}

/* Puts back the segment that the last step had cut. */
static void iov_restore(struct block_req *req)
{
    if (req->held_index < req->iov_count)
        req->iov[req->held_index] = req->held;
    req->held_index = req->iov_count;
}

/* The segments after `moved` bytes, the first one cut in place. */
static void iov_rest(struct block_req *req, struct block_step *step)
{
    uint64_t skip = req->moved;
    unsigned i = 0;
    while (i < req->iov_count && skip >= req->iov[i].iov_len)
        skip -= req->iov[i++].iov_len;
    if (skip) {
        req->held = req->iov[i];
        req->held_index = i;
        req->iov[i].iov_base = (uint8_t *)req->iov[i].iov_base + skip;
        req->iov[i].iov_len -= skip;
    }
    step->iov = req->iov + i;
    step->iov_count = MIN(req->iov_count - i, (unsigned)IOV_MAX);
}

/* Between the bounce buffer and the request's segments. */
static void bounce_copy(struct block_req *req, uint64_t len, bool to_request)
{
    uint8_t *bounce = req->queue->bounce;
    uint64_t skip = req->moved;
    for (unsigned i = 0; i < req->iov_count && len; i++) {
        if (skip >= req->iov[i].iov_len) {
            skip -= req->iov[i].iov_len;
            continue;
        }
        uint64_t here = MIN(len, (uint64_t)req->iov[i].iov_len - skip);
        uint8_t *at = (uint8_t *)req->iov[i].iov_base + skip;
        if (to_request)
            memcpy(at, bounce, here);
        else
            memcpy(bounce, at, here);
        bounce += here;
        len -= here;
        skip = 0;
    }
}

static void describe_transfer(struct block_req *req, struct block_step *step)
{
    bool write = req->op == BLOCK_WRITE;
    step->flags = write && stable(req) ? RWF_DSYNC : 0;
    if (!req->bounced) {
        step->call = write ? BLOCK_CALL_WRITEV : BLOCK_CALL_READV;
        iov_rest(req, step);
        return;
    }
    step->call = write ? BLOCK_CALL_WRITE : BLOCK_CALL_READ;
    step->buffer = req->queue->bounce;
    step->length = MIN(step->length, BLOCK_BUFFER_SIZE);
    if (write)
        bounce_copy(req, step->length, false);
}

static void describe(struct block_req *req, struct block_step *step)
{
    *step =
        (struct block_step){.offset = req->offset + req->moved, .length = req->length - req->moved};
    switch ((enum step)req->step) {
    case STEP_TRANSFER:
        describe_transfer(req, step);
        break;
    case STEP_PUNCH:
        step->call = BLOCK_CALL_FALLOCATE;
        step->flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        break;
    case STEP_ZERO_RANGE:
        step->call = BLOCK_CALL_FALLOCATE;
        step->flags = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
        break;
    case STEP_WRITE_ZEROS:
        step->call = BLOCK_CALL_WRITE;
        step->buffer = req->queue->block->zeros;
        step->length = MIN(step->length, BLOCK_BUFFER_SIZE);
        break;
    case STEP_SYNC:
        step->call = BLOCK_CALL_SYNC;
        break;
    }
}

/* Begins the request's current step, or lets it wait for room. */
static void begin(struct block_req *req)
{
    struct block_queue *queue = req->queue;
    if (req->bounced && queue->bounce_user != req) {
        if (queue->bounce_user) {
            list_append(&queue->bounce_waiting, &req->link);
            return;
        }
        queue->bounce_user = req;
    }
    struct block_step step;
    describe(req, &step);
    if (queue->ops->begin(queue, req, &step)) {
        queue->begun++;
    } else {
        iov_restore(req);
        list_append(&queue->waiting, &req->link);
    }
}

static void bounce_release(struct block_queue *queue)
{
    queue->bounce_user = NULL;
    if (list_empty(&queue->bounce_waiting))
        return;
    struct block_req *next = list_first(&queue->bounce_waiting, struct block_req, link);
    list_remove(&next->link);
    begin(next);
}

/* Is this the host's trouble, which may pass, and is somebody there to see to it? */
static bool holds(const struct block_queue *queue, int result)
{
    return queue->block->hold_errors && !queue->draining &&
           (result == -ENOSPC || result == -EDQUOT || result == -EIO || result == -ENOLINK);
}

static void complete(struct block_req *req, int result)
{
    struct block_queue *queue = req->queue;
    bool bounced = req->bounced;
    if (holds(queue, result)) {
        req->result = result;
        list_append(&queue->held, &req->link);
        if (queue->block->failed)
            queue->block->failed(queue->block->failed_opaque, req->op, result);
    } else {
        finish(req, result);
    }
    if (bounced)
        bounce_release(queue);
}

static void next_step(struct block_req *req, enum step step)
{
    req->step = (uint8_t)step;
    req->moved = 0;
    begin(req);
}

/* The data is where it belongs; make it stable if that was wanted and the calls did not. */
static void data_done(struct block_req *req)
{
    bool zeroing = req->op == BLOCK_ZERO || req->op == BLOCK_DISCARD;
    if (zeroing && stable(req))
        next_step(req, STEP_SYNC);
    else
        complete(req, 0);
}

static void transferred(struct block_req *req, uint64_t bytes)
{
    if (!bytes) { /* the file is shorter than it was */
        complete(req, -EIO);
        return;
    }
    if (req->bounced && req->op == BLOCK_READ)
        bounce_copy(req, MIN(bytes, req->length - req->moved), true);
    req->moved += MIN(bytes, req->length - req->moved);
    req->retries = 0;
    if (req->moved < req->length)
        begin(req);
    else
        data_done(req);
}

static bool unsupported(int result)
{
    return result == -EOPNOTSUPP || result == -ENOSYS || result == -EINVAL || result == -ENOTTY ||
           result == -ENODEV;
}

static void zeroed(struct block_req *req, int result)
{
    struct block *block = req->queue->block;
    bool punch = req->step == STEP_PUNCH;
    if (result == 0) {
        data_done(req);
    } else if (!unsupported(result)) {
        complete(req, result);
    } else {
        __atomic_store_n(punch ? &block->no_punch : &block->no_zero_range, true, __ATOMIC_RELAXED);
        if (req->op == BLOCK_DISCARD)
            complete(req, 0); /* a discard is advice */
        else
            next_step(req, punch && !block->no_zero_range ? STEP_ZERO_RANGE : STEP_WRITE_ZEROS);
    }
}

void block_step_done(struct block_req *req, int result)
{
    req->queue->begun--;
    iov_restore(req);
    if ((result == -EINTR || result == -EAGAIN) && req->retries++ < RETRIES_MAX) {
        begin(req);
        return;
    }
    switch ((enum step)req->step) {
    case STEP_TRANSFER:
    case STEP_WRITE_ZEROS:
        if (result < 0)
            complete(req, result);
        else
            transferred(req, (uint64_t)result);
        break;
    case STEP_PUNCH:
    case STEP_ZERO_RANGE:
        zeroed(req, result);
        break;
    case STEP_SYNC:
        complete(req, result < 0 ? result : 0);
        break;
    }
}

static int validate(const struct block *block, const struct block_req *req)
{
    const struct block_info *info = &block->info;
    bool writes = req->op != BLOCK_READ && req->op != BLOCK_FLUSH;
    if (req->op > BLOCK_ZERO)
        return -EINVAL;
    if (req->op == BLOCK_FLUSH)
        return 0;
    if (writes && info->readonly)
        return -EROFS;
    if (!range_within(req->offset, req->length, info->size))
        return writes ? -ENOSPC : -EINVAL;
    if ((req->offset | req->length) % info->logical_block)
        return -EINVAL;
    if (req->op == BLOCK_READ || req->op == BLOCK_WRITE) {
        uint64_t sum = 0;
        for (unsigned i = 0; i < req->iov_count; i++) {
            if (!checked_add(sum, req->iov[i].iov_len, &sum))
                return -EINVAL;
        }
        if (sum != req->length)
            return -EINVAL;
    }
    return 0;
}

static bool misaligned(const struct block *block, const struct block_req *req)
{
    uintptr_t bits = 0;
    for (unsigned i = 0; i < req->iov_count; i++) {
        bits |= (uintptr_t)req->iov[i].iov_base % block->memory_align;
        /* Each segment is transferred by itself: its length counts like an offset. */
        bits |= req->iov[i].iov_len % MAX(block->info.logical_block, block->memory_align);
    }
    return bits != 0;
}

/*
 * The node may have been exchanged while nothing was in flight (live/node.c): what is no plain file
 * any more wants threads. Without them there is no way to it.
 */
static void follow_node(struct block_queue *queue)
{
    if (!queue->block->image || queue->ops == &block_threads || queue->accepted)
        return;
    queue->ops->stop(queue);
    queue->ops = &block_threads;
    struct err *err = queue->ops->start(queue);
    if (err)
        log_error("disk '%s': %s", queue->block->id, err_text(err));
    queue->lost = err;
    err_free(err);
}

void block_submit(struct block_queue *queue, struct block_req *req)
{
    const struct block *block = queue->block;
    follow_node(queue);
    req->queue = queue;
    req->moved = 0;
    req->held_index = req->iov_count;
    req->retries = 0;
    req->bounced = false;
    queue->accepted++;
    block_stats_begin(req);
    int error = queue->lost ? -EIO : validate(block, req);
    if (error) {
        finish(req, error);
        return;
    }
    switch (req->op) {
    case BLOCK_READ:
    case BLOCK_WRITE:
        if (!req->length) {
            finish(req, 0);
            return;
        }
        req->bounced = queue->bounce && misaligned(block, req);
        next_step(req, STEP_TRANSFER);
        return;
    case BLOCK_FLUSH:
        if (block->cache == BLOCK_CACHE_UNSAFE || block->info.readonly)
            finish(req, 0);
        else
            next_step(req, STEP_SYNC);
        return;
    case BLOCK_DISCARD:
        if (!req->length || !block->info.discard || block->no_punch)
            finish(req, 0);
        else
            next_step(req, STEP_PUNCH);
        return;
    case BLOCK_ZERO:
        if (!req->length)
            finish(req, 0);
        else if (!(req->flags & BLOCK_REQ_NO_UNMAP) && block->info.discard && !block->no_punch)
            next_step(req, STEP_PUNCH);
        else
            next_step(req, block->no_zero_range ? STEP_WRITE_ZEROS : STEP_ZERO_RANGE);
        return;
    }
}

void block_flush_submissions(struct block_queue *queue)
{
    queue->ops->flush(queue);
}

static void serve(struct block_queue *queue, bool wait)
{
    queue->ops->reap(queue, wait);
    struct list again;
    list_init(&again);
    while (!list_empty(&queue->waiting)) {
        struct block_req *req = list_first(&queue->waiting, struct block_req, link);
        list_remove(&req->link);
        list_append(&again, &req->link);
    }
    while (!list_empty(&again)) {
        struct block_req *req = list_first(&again, struct block_req, link);
        list_remove(&req->link);
        begin(req);
    }
    bool any = false;
    /* `done` may submit again; what finishes at once meanwhile comes in this round too. */
    while (!list_empty(&queue->finished)) {
        struct block_req *req = list_first(&queue->finished, struct block_req, link);
        list_remove(&req->link);
        queue->accepted--;
        any = true;
        block_stats_end(req);
        req->done(req, req->result);
    }
    queue->ops->flush(queue);
    if (any && queue->batch)
        queue->batch(queue->batch_opaque);
}

static void ready(void *opaque, uint32_t events)
{
    struct block_queue *queue = opaque;
    uint64_t count;
    (void)events;
    (void)!read(queue->event_fd, &count, sizeof(count));
    serve(queue, false);
}

void block_on_error(struct block *block, void (*fn)(void *opaque, enum block_op op, int error),
                    void *opaque)
{
    block->failed = fn;
    block->failed_opaque = opaque;
}

static void retry(void *opaque)
{
    struct block_queue *queue = opaque;
    struct list again;
    list_init(&again);
    while (!list_empty(&queue->held)) {
        struct block_req *req = list_first(&queue->held, struct block_req, link);
        list_remove(&req->link);
        list_append(&again, &req->link);
    }
    while (!list_empty(&again)) {
        struct block_req *req = list_first(&again, struct block_req, link);
        list_remove(&req->link);
        queue->accepted--; /* it is not new */
        block_stats_again(req);
        block_submit(queue, req);
    }
    queue->ops->flush(queue);
}

void block_retry(struct block *block)
{
    struct block_queue *queue;
    lock_take(&block->queues_lock);
    list_for_each (queue, &block->queues, link)
        loop_post(queue->loop, retry, queue);
    lock_drop(&block->queues_lock);
}

void block_drain(struct block_queue *queue)
{
    struct block_req *req;
    queue->draining = true;
    list_for_each (req, &queue->held, link) {
        list_remove(&req->link);
        finish(req, req->result);
    }
    queue->ops->flush(queue);
    while (queue->accepted)
        serve(queue, list_empty(&queue->finished) && queue->begun);
    queue->draining = false;
}

void block_queue_on_batch(struct block_queue *queue, void (*fn)(void *opaque), void *opaque)
{
    queue->batch = fn;
    queue->batch_opaque = opaque;
}

const char *block_engine_name(const struct block_queue *queue)
{
    return queue->ops->name;
}

static struct err *start_engine(struct block_queue *queue)
{
    enum block_engine engine = queue->block->image ? BLOCK_ENGINE_THREADS : queue->block->engine;
    if (engine != BLOCK_ENGINE_THREADS) {
        queue->ops = &block_uring;
        struct err *err = queue->ops->start(queue);
        if (!err || engine == BLOCK_ENGINE_URING)
            return err;
        /* Containers often forbid it: threads do the same, at a higher cost. */
        log_info("disk '%s': %s; threads do its work", queue->block->id, err_text(err));
        err_free(err);
    }
    queue->ops = &block_threads;
    return queue->ops->start(queue);
}

static struct err *queue_build(struct block_queue *queue)
{
    queue->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (queue->event_fd < 0)
        return err_errno(errno, "cannot create an event descriptor");
    if (queue->block->cache == BLOCK_CACHE_NONE &&
        posix_memalign((void **)&queue->bounce, 4096, BLOCK_BUFFER_SIZE) != 0)
        return err_new("no memory for a bounce buffer");
    TRY(start_engine(queue));
    return loop_fd_add(queue->loop, &queue->watch, queue->event_fd, EPOLLIN, ready, queue);
}

struct err *block_queue_new(struct block *block, struct loop *loop, struct block_queue **out)
{
    struct block_queue *queue = xcalloc(1, sizeof(*queue));
    queue->block = block;
    queue->loop = loop;
    list_init(&queue->waiting);
    list_init(&queue->finished);
    list_init(&queue->bounce_waiting);
    list_init(&queue->held);
    lock_take(&block->queues_lock);
    list_append(&block->queues, &queue->link);
    lock_drop(&block->queues_lock);
    struct err *err = queue_build(queue);
    if (err) {
        block_queue_free(queue);
        return err;
    }
    *out = queue;
    return NULL;
}

void block_queue_free(struct block_queue *queue)
{
    if (!queue)
        return;
    lock_take(&queue->block->queues_lock);
    list_remove(&queue->link);
    lock_drop(&queue->block->queues_lock);
    loop_fd_remove(&queue->watch);
    if (queue->engine)
        queue->ops->stop(queue);
    fd_cleanup(&queue->event_fd);
    free(queue->bounce);
    free(queue);
}
