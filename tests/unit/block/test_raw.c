/*
 * Raw files: every operation on both engines and all cache modes, against a model in memory;
 * refusals; many requests at once; a file that shrinks; locks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <liburing.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "block/core/internal.h"

#define SIZE MIB(4)

struct bed {
    struct loop *loop;
    struct block *block;
    struct block_queue *queue;
    struct block_info info;
    char path[64];
    uint8_t *model;
    unsigned done, batches;
};

struct request {
    struct block_req req;
    struct bed *bed;
    struct iovec iov[2000];
    int result;
    bool finished;
};

static void batch(void *opaque)
{
    ((struct bed *)opaque)->batches++;
}

static void done(struct block_req *req, int result)
{
    struct request *request = req->opaque;
    assert_false(request->finished);
    request->finished = true;
    request->result = result;
    request->bed->done++;
}

static bool bed_open(struct bed *bed, enum block_engine engine, enum block_cache cache,
                     bool readonly)
{
    memset(bed, 0, sizeof(*bed));
    assert_null(loop_new("test", &bed->loop));
    /* The build directory, not /tmp: that may be a tmpfs without direct I/O. */
    strcpy(bed->path, "raw-test-XXXXXX");
    int fd = mkstemp(bed->path);
    assert_true(fd >= 0);
    bed->model = malloc(SIZE);
    for (uint64_t i = 0; i < SIZE; i++)
        bed->model[i] = (uint8_t)(i * 31 + (i >> 9));
    assert_int_equal(pwrite(fd, bed->model, SIZE, 0), SIZE);
    if (readonly) {
        close(fd);
        fd = open(bed->path, O_RDONLY);
    }
    struct block_options options = {.id = "d0",
                                    .fd = fd,
                                    .readonly = readonly,
                                    .cache = cache,
                                    .discard = true,
                                    .engine = engine};
    struct err *err = block_open_raw(&options, &bed->block);
    if (!err)
        err = block_queue_new(bed->block, bed->loop, &bed->queue);
    if (err) {
        print_message("%s\n", err_text(err));
        err_free(err);
        block_close(bed->block);
        loop_free(bed->loop);
        unlink(bed->path);
        free(bed->model);
        return false;
    }
    block_queue_on_batch(bed->queue, batch, bed);
    block_get_info(bed->block, &bed->info);
    return true;
}

static void bed_close(struct bed *bed)
{
    block_queue_free(bed->queue);
    block_close(bed->block);
    loop_free(bed->loop);
    unlink(bed->path);
    free(bed->model);
}

static struct request *start(struct bed *bed, enum block_op op, uint64_t offset, uint64_t length,
                             uint32_t flags)
{
    struct request *request = calloc(1, sizeof(*request));
    request->bed = bed;
    request->req = (struct block_req){.op = op,
                                      .flags = flags,
                                      .offset = offset,
                                      .length = length,
                                      .iov = request->iov,
                                      .done = done,
                                      .opaque = request};
    return request;
}

static int finish(struct bed *bed, struct request *request)
{
    block_submit(bed->queue, &request->req);
    assert_false(request->finished);
    block_flush_submissions(bed->queue);
    for (int i = 0; i < 2000 && !request->finished; i++)
        loop_once(bed->loop, 10);
    assert_true(request->finished);
    int result = request->result;
    free(request);
    return result;
}

static int transfer(struct bed *bed, enum block_op op, uint64_t offset, uint8_t *bytes,
                    uint64_t length, unsigned pieces, uint32_t flags)
{
    struct request *request = start(bed, op, offset, length, flags);
    uint64_t at = 0;
    for (unsigned i = 0; i < pieces; i++) {
        uint64_t here = i + 1 == pieces ? length - at : length / pieces;
        request->iov[i] = (struct iovec){bytes + at, here};
        at += here;
    }
    request->req.iov_count = pieces;
    struct iovec before[2000];
    memcpy(before, request->iov, sizeof(before));
    block_submit(bed->queue, &request->req);
    block_flush_submissions(bed->queue);
    for (int i = 0; i < 2000 && !request->finished; i++)
        loop_once(bed->loop, 10);
    assert_true(request->finished);
    assert_memory_equal(before, request->iov, sizeof(before));
    int result = request->result;
    free(request);
    return result;
}

static void verify(struct bed *bed)
{
    uint8_t *back = aligned_alloc(4096, SIZE);
    memset(back, 0xcc, SIZE);
    assert_int_equal(transfer(bed, BLOCK_READ, 0, back, SIZE, 1, 0), 0);
    assert_memory_equal(back, bed->model, SIZE);
    free(back);
    /* And what the host sees. */
    back = malloc(SIZE);
    int fd = open(bed->path, O_RDONLY);
    assert_int_equal(pread(fd, back, SIZE, 0), SIZE);
    assert_memory_equal(back, bed->model, SIZE);
    close(fd);
    free(back);
}

/* What the node says that it has done. */
static void expect_stats(const struct bed *bed, enum block_op op, uint64_t requests, uint64_t bytes,
                         uint64_t failures)
{
    struct block_op_stats stats;
    uint64_t sum = 0;
    block_get_stats(bed->block, op, &stats);
    assert_int_equal(stats.requests, requests);
    assert_int_equal(stats.bytes, bytes);
    assert_int_equal(stats.failures, failures);
    for (unsigned i = 0; i < ARRAY_SIZE(stats.bin); i++)
        sum += stats.bin[i];
    assert_int_equal(sum, requests);
    assert_true(!requests == !stats.time_ns);
    assert_int_equal(block_in_flight(bed->block), 0);
}

static void exercise(enum block_engine engine, enum block_cache cache)
{
    struct bed bed;
    if (!bed_open(&bed, engine, cache, false)) {
        print_message("engine %d, cache %d is not possible here\n", engine, cache);
        skip();
    }
    assert_string_equal(block_engine_name(bed.queue),
                        engine == BLOCK_ENGINE_THREADS ? "threads" : "io_uring");
    assert_int_equal(bed.info.size, SIZE);
    uint64_t unit = bed.info.logical_block;
    uint8_t *bytes = aligned_alloc(4096, MIB(1));
    for (unsigned i = 0; i < MIB(1); i++)
        bytes[i] = (uint8_t)(i * 7 + 3);
    verify(&bed);

    assert_int_equal(transfer(&bed, BLOCK_WRITE, 4096, bytes, 8192, 2, 0), 0);
    memcpy(bed.model + 4096, bytes, 8192);
    assert_int_equal(transfer(&bed, BLOCK_WRITE, MIB(1), bytes, MIB(1), 256, BLOCK_REQ_FUA), 0);
    memcpy(bed.model + MIB(1), bytes, MIB(1));
    /* Buffers at odd addresses and of odd lengths: O_DIRECT has to bounce, in pieces. */
    assert_int_equal(transfer(&bed, BLOCK_WRITE, MIB(2), bytes + 13, 600 * 1024, 1400, 0), 0);
    memcpy(bed.model + MIB(2), bytes + 13, 600 * 1024);
    memset(bytes, 0, MIB(1));
    assert_int_equal(transfer(&bed, BLOCK_READ, MIB(2) + unit, bytes + 5, 600 * 1024 - 8192, 7, 0),
                     0);
    assert_memory_equal(bytes + 5, bed.model + MIB(2) + unit, 600 * 1024 - 8192);
    /* More segments than one system call takes. */
    assert_int_equal(transfer(&bed, BLOCK_READ, 0, bytes, 1600 * 512, 1600, 0), 0);
    assert_memory_equal(bytes, bed.model, 1600 * 512);
    verify(&bed);

    assert_int_equal(finish(&bed, start(&bed, BLOCK_FLUSH, 0, 0, 0)), 0);
    assert_int_equal(finish(&bed, start(&bed, BLOCK_ZERO, 12288, 65536, 0)), 0);
    memset(bed.model + 12288, 0, 65536);
    assert_int_equal(finish(&bed, start(&bed, BLOCK_ZERO, MIB(1), 700 * 1024,
                                        BLOCK_REQ_NO_UNMAP | BLOCK_REQ_FUA)),
                     0);
    memset(bed.model + MIB(1), 0, 700 * 1024);
    assert_int_equal(finish(&bed, start(&bed, BLOCK_DISCARD, MIB(3), MIB(1), 0)), 0);
    memset(bed.model + MIB(3), 0, MIB(1));
    verify(&bed);
    struct stat status;
    assert_int_equal(stat(bed.path, &status), 0);
    assert_true((uint64_t)status.st_blocks * 512 < SIZE);
    assert_int_equal(status.st_size, SIZE);
    assert_true(bed.batches > 0);
    expect_stats(&bed, BLOCK_WRITE, 3, 8192 + MIB(1) + 600 * 1024, 0);
    expect_stats(&bed, BLOCK_READ, 5, 3 * SIZE + 600 * 1024 - 8192 + 1600 * 512, 0);
    expect_stats(&bed, BLOCK_ZERO, 2, 65536 + 700 * 1024, 0);
    expect_stats(&bed, BLOCK_DISCARD, 1, MIB(1), 0);
    expect_stats(&bed, BLOCK_FLUSH, 1, 0, 0);
    free(bytes);
    bed_close(&bed);
}

static void test_uring_writeback(void **state)
{
    exercise(BLOCK_ENGINE_URING, BLOCK_CACHE_WRITEBACK);
}

static void test_uring_direct(void **state)
{
    exercise(BLOCK_ENGINE_URING, BLOCK_CACHE_NONE);
}

static void test_uring_writethrough(void **state)
{
    exercise(BLOCK_ENGINE_URING, BLOCK_CACHE_WRITETHROUGH);
}

static void test_threads_writeback(void **state)
{
    exercise(BLOCK_ENGINE_THREADS, BLOCK_CACHE_WRITEBACK);
}

static void test_threads_direct(void **state)
{
    exercise(BLOCK_ENGINE_THREADS, BLOCK_CACHE_NONE);
}

static void test_threads_unsafe(void **state)
{
    exercise(BLOCK_ENGINE_THREADS, BLOCK_CACHE_UNSAFE);
}

static void refusals(enum block_engine engine)
{
    struct bed bed;
    uint8_t bytes[1024] = {0};
    if (!bed_open(&bed, engine, BLOCK_CACHE_WRITEBACK, false))
        skip();
    assert_int_equal(transfer(&bed, BLOCK_READ, 1, bytes, 512, 1, 0), -EINVAL);
    assert_int_equal(transfer(&bed, BLOCK_READ, 0, bytes, 100, 1, 0), -EINVAL);
    assert_int_equal(transfer(&bed, BLOCK_READ, SIZE, bytes, 512, 1, 0), -EINVAL);
    assert_int_equal(transfer(&bed, BLOCK_WRITE, SIZE - 512, bytes, 1024, 1, 0), -ENOSPC);
    assert_int_equal(transfer(&bed, BLOCK_WRITE, UINT64_MAX - 511, bytes, 1024, 1, 0), -ENOSPC);
    assert_int_equal(transfer(&bed, BLOCK_WRITE, 0, bytes, 0, 1, 0), 0);
    struct request *request = start(&bed, BLOCK_READ, 0, 512, 0);
    request->iov[0] = (struct iovec){bytes, 1024}; /* the sum does not match */
    request->req.iov_count = 1;
    assert_int_equal(finish(&bed, request), -EINVAL);
    assert_int_equal(finish(&bed, start(&bed, (enum block_op)77, 0, 0, 0)), -EINVAL);
    verify(&bed);
    /* The file is cut behind our back: an error, not a hang. */
    assert_int_equal(truncate(bed.path, 4096), 0);
    assert_int_equal(transfer(&bed, BLOCK_READ, 8192, bytes, 512, 1, 0), -EIO);
    expect_stats(&bed, BLOCK_READ, 1, SIZE, 5);
    expect_stats(&bed, BLOCK_WRITE, 1, 0, 2);
    bed_close(&bed);

    if (!bed_open(&bed, engine, BLOCK_CACHE_WRITEBACK, true))
        skip();
    assert_int_equal(transfer(&bed, BLOCK_WRITE, 0, bytes, 512, 1, 0), -EROFS);
    assert_int_equal(finish(&bed, start(&bed, BLOCK_ZERO, 0, 512, 0)), -EROFS);
    assert_int_equal(finish(&bed, start(&bed, BLOCK_DISCARD, 0, 512, 0)), -EROFS);
    assert_int_equal(finish(&bed, start(&bed, BLOCK_FLUSH, 0, 0, 0)), 0);
    verify(&bed);
    bed_close(&bed);
}

static void test_refusals_uring(void **state)
{
    refusals(BLOCK_ENGINE_URING);
}

static void test_refusals_threads(void **state)
{
    refusals(BLOCK_ENGINE_THREADS);
}

/* More at once than the ring has entries; then drained without the loop. */
static void many(enum block_engine engine, enum block_cache cache)
{
    enum { COUNT = 700 };
    struct bed bed;
    if (!bed_open(&bed, engine, cache, false))
        skip();
    struct request **requests = calloc(COUNT, sizeof(*requests));
    uint8_t *bytes = aligned_alloc(4096, COUNT * 4096);
    for (unsigned i = 0; i < COUNT; i++) {
        memset(bytes + i * 4096, (int)i, 4096);
        memset(bed.model + i * 4096, (int)i, 4096);
        requests[i] = start(&bed, BLOCK_WRITE, i * 4096, 4096, 0);
        /* Some of them odd, so that they queue for the bounce buffer. */
        unsigned cut = i % 3 ? 4096 : 100;
        requests[i]->iov[0] = (struct iovec){bytes + i * 4096, cut};
        requests[i]->iov[1] = (struct iovec){bytes + i * 4096 + cut, 4096 - cut};
        requests[i]->req.iov_count = 2;
        block_submit(bed.queue, &requests[i]->req);
    }
    assert_int_equal(block_in_flight(bed.block), COUNT);
    block_drain(bed.queue);
    assert_int_equal(bed.done, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        assert_int_equal(requests[i]->result, 0);
        free(requests[i]);
    }
    verify(&bed);
    free(bytes);
    free(requests);
    bed_close(&bed);
}

static void test_many_uring(void **state)
{
    many(BLOCK_ENGINE_URING, BLOCK_CACHE_WRITEBACK);
}

static void test_many_uring_direct(void **state)
{
    many(BLOCK_ENGINE_URING, BLOCK_CACHE_NONE);
}

static void test_many_threads(void **state)
{
    many(BLOCK_ENGINE_THREADS, BLOCK_CACHE_NONE);
}

/* The ring does disk I/O on its file and nothing else: a seccomp filter could not see the rest. */
static void test_ring_is_restricted(void **state)
{
    struct bed bed;
    if (!bed_open(&bed, BLOCK_ENGINE_URING, BLOCK_CACHE_WRITEBACK, false))
        skip();
    struct io_uring *ring = bed.queue->engine;
    struct io_uring_cqe *cqe;
    uint8_t bytes[512];
    for (int i = 0; i < 3; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
        if (i == 0)
            io_uring_prep_openat(sqe, AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
        else
            io_uring_prep_read(sqe, i == 1 ? bed.block->fd : 0, bytes, sizeof(bytes), 0);
        if (i == 2) /* the registered file */
            sqe->flags |= IOSQE_FIXED_FILE;
        assert_int_equal(io_uring_submit_and_wait(ring, 1), 1);
        assert_int_equal(io_uring_peek_cqe(ring, &cqe), 0);
        assert_int_equal(cqe->res, i == 2 ? 512 : -EACCES);
        io_uring_cqe_seen(ring, cqe);
    }
    bed_close(&bed);
}

static void test_open_refused(void **state)
{
    struct block *block = NULL;
    struct block_options options = {.id = "d0", .fd = open("/dev/null", O_RDWR)};
    struct err *err = block_open_raw(&options, &block);
    assert_non_null(err);
    assert_string_equal(err_text(err), "it is neither a file nor a block device");
    err_free(err);
    char path[] = "raw-test-XXXXXX";
    options.fd = mkstemp(path);
    err = block_open_raw(&options, &block);
    assert_string_equal(err_text(err), "it is empty");
    err_free(err);
    assert_int_equal(truncate(path, 4096), 0);
    options.fd = open(path, O_RDONLY);
    err = block_open_raw(&options, &block);
    assert_non_null(err);
    err_free(err);
    unlink(path);
}

static void test_locks(void **state)
{
    char path[] = "raw-test-XXXXXX";
    int writer = mkstemp(path);
    int second = open(path, O_RDWR), reader = open(path, O_RDONLY), other = open(path, O_RDONLY);
    assert_null(block_lock_file(writer, path, false));
    struct err *err = block_lock_file(second, path, false);
    assert_non_null(err);
    assert_int_equal(err_kind(err), ERR_BUSY);
    assert_non_null(strstr(err_text(err), "is in use by another VM"));
    assert_non_null(strstr(err_text(err), path));
    err_free(err);
    err = block_lock_file(reader, path, true);
    assert_int_equal(err_kind(err), ERR_BUSY);
    err_free(err);
    close(writer);
    assert_null(block_lock_file(reader, path, true));
    assert_null(block_lock_file(other, path, true));
    err = block_lock_file(second, path, false);
    assert_int_equal(err_kind(err), ERR_BUSY);
    err_free(err);
    close(reader);
    close(other);
    assert_null(block_lock_file(second, path, false));
    close(second);
    unlink(path);
}

/* Another process holds it: the message names it. */
static void test_lock_names_holder(void **state)
{
    char path[] = "raw-test-XXXXXX", expected[64];
    int fd = mkstemp(path);
    int ready[2], end[2];
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(end), 0);
    pid_t child = fork();
    if (!child) {
        char byte = 'r';
        int own = open(path, O_RDWR);
        close(end[1]);
        if (block_lock_file(own, path, false))
            _exit(1);
        (void)!write(ready[1], &byte, 1);
        (void)!read(end[0], &byte, 1);
        _exit(0);
    }
    char byte;
    close(end[0]);
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    struct err *err = block_lock_file(fd, path, true);
    assert_non_null(err);
    snprintf(expected, sizeof(expected), "process %d)", (int)child);
    assert_non_null(strstr(err_text(err), expected));
    err_free(err);
    close(end[1]);
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    assert_null(block_lock_file(fd, path, false));
    close(ready[0]);
    close(fd);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uring_writeback),    cmocka_unit_test(test_uring_direct),
        cmocka_unit_test(test_uring_writethrough), cmocka_unit_test(test_threads_writeback),
        cmocka_unit_test(test_threads_direct),     cmocka_unit_test(test_threads_unsafe),
        cmocka_unit_test(test_refusals_uring),     cmocka_unit_test(test_refusals_threads),
        cmocka_unit_test(test_many_uring),         cmocka_unit_test(test_many_uring_direct),
        cmocka_unit_test(test_many_threads),       cmocka_unit_test(test_ring_is_restricted),
        cmocka_unit_test(test_open_refused),       cmocka_unit_test(test_locks),
        cmocka_unit_test(test_lock_names_holder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
