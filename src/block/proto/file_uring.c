/*
 * Raw file over io_uring: one ring a queue, on the queue's loop.
 *
 * A ring can do far more than disk I/O, and a seccomp filter does not see what it does. So it is
 * created disabled, restricted to the few operations below on the one registered file, and only
 * then enabled: whoever takes over this process cannot open a file through it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "block/core/internal.h"

#define RING_ENTRIES 256
#define FILE_SLOT 0

static const uint8_t allowed[] = {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_READ,
                                  IORING_OP_WRITE, IORING_OP_FSYNC,  IORING_OP_FALLOCATE};

/* By system call: the library's version 2.3 declares its wrappers for these two without having
 * them. */
static int register_call(const struct io_uring *ring, unsigned what, const void *data,
                         unsigned count)
{
    long result = syscall(__NR_io_uring_register, ring->ring_fd, what, data, count);
    return result < 0 ? -errno : 0;
}

static int restrict_ring(struct io_uring *ring)
{
    struct io_uring_restriction rules[ARRAY_SIZE(allowed) + 2] = {0};
    unsigned count = 0;
    for (; count < ARRAY_SIZE(allowed); count++) {
        rules[count].opcode = IORING_RESTRICTION_SQE_OP;
        rules[count].sqe_op = allowed[count];
    }
    rules[count].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
    rules[count++].sqe_flags = IOSQE_FIXED_FILE;
    rules[count].opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
    rules[count++].sqe_flags = IOSQE_FIXED_FILE;
    return register_call(ring, IORING_REGISTER_RESTRICTIONS, rules, count);
}

static int build(struct block_queue *queue, struct io_uring *ring)
{
    int error = io_uring_queue_init(RING_ENTRIES, ring,
                                    IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN);
    if (error == -EINVAL)
        error = io_uring_queue_init(RING_ENTRIES, ring, IORING_SETUP_R_DISABLED);
    if (error)
        return error;
    error = io_uring_register_files(ring, &queue->block->fd, 1);
    if (!error)
        error = io_uring_register_eventfd(ring, queue->event_fd);
    if (!error)
        error = restrict_ring(ring);
    if (!error)
        error = register_call(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    if (error)
        io_uring_queue_exit(ring);
    return error;
}

static struct err *start(struct block_queue *queue)
{
    struct io_uring *ring = xcalloc(1, sizeof(*ring));
    int error = build(queue, ring);
    if (error) {
        free(ring);
        return err_errno(-error, "io_uring is not available");
    }
    queue->engine = ring;
    return NULL;
}

static void stop(struct block_queue *queue)
{
    io_uring_queue_exit(queue->engine);
    free(queue->engine);
    queue->engine = NULL;
}

static bool begin(struct block_queue *queue, struct block_req *req, const struct block_step *step)
{
    struct io_uring *ring = queue->engine;
    /* No more than the completion ring holds (twice the entries): the kernel never has to queue. */
    if (queue->begun >= RING_ENTRIES)
        return false;
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    if (!sqe) {
        io_uring_submit(ring);
        sqe = io_uring_get_sqe(ring);
        if (!sqe)
            return false;
    }
    switch (step->call) {
    case BLOCK_CALL_READV:
        io_uring_prep_readv2(sqe, FILE_SLOT, step->iov, step->iov_count, step->offset, step->flags);
        break;
    case BLOCK_CALL_WRITEV:
        io_uring_prep_writev2(sqe, FILE_SLOT, step->iov, step->iov_count, step->offset,
                              step->flags);
        break;
    case BLOCK_CALL_READ:
        io_uring_prep_read(sqe, FILE_SLOT, step->buffer, (unsigned)step->length, step->offset);
        break;
    case BLOCK_CALL_WRITE:
        io_uring_prep_write(sqe, FILE_SLOT, step->buffer, (unsigned)step->length, step->offset);
        sqe->rw_flags = step->flags;
        break;
    case BLOCK_CALL_SYNC:
        io_uring_prep_fsync(sqe, FILE_SLOT, IORING_FSYNC_DATASYNC);
        break;
    case BLOCK_CALL_FALLOCATE:
        io_uring_prep_fallocate(sqe, FILE_SLOT, step->flags, step->offset, step->length);
        break;
    }
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data(sqe, req);
    return true;
}

static void flush(struct block_queue *queue)
{
    struct io_uring *ring = queue->engine;
    while (io_uring_sq_ready(ring)) {
        int submitted = io_uring_submit(ring);
        if (submitted > 0 || submitted == -EINTR)
            continue;
        /* Out of kernel memory: the entries stay, and the loop comes back for them. */
        uint64_t one = 1;
        (void)!write(queue->event_fd, &one, sizeof(one));
        return;
    }
}

static void reap(struct block_queue *queue, bool wait)
{
    struct io_uring *ring = queue->engine;
    struct io_uring_cqe *cqe;
    if (wait)
        io_uring_submit_and_wait(ring, 1);
    while (io_uring_peek_cqe(ring, &cqe) == 0) {
        struct block_req *req = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(ring, cqe);
        block_step_done(req, result);
    }
}

const struct block_engine_ops block_uring = {
    .name = "io_uring",
    .start = start,
    .stop = stop,
    .begin = begin,
    .flush = flush,
    .reap = reap,
};
