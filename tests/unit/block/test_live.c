/*
 * Live operations on a disk that is written to: jobs that copy beside writers, their pivot, their
 * failure and their end; layers on top; sizes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../test.h"
#include "base/clock.h"
#include "base/log.h"
#include "block/live.h"

#define SIZE MIB(8)
#define UNIT 4096u

static void fails(struct err *err, const char *words)
{
    assert_non_null(err);
    if (!strstr(err_text(err), words))
        fail_msg("'%s' does not say '%s'", err_text(err), words);
    err_free(err);
}

static void no_log(void *opaque, const struct log_record *record)
{
}

static int file_of(uint64_t size)
{
    int fd = memfd_create("disk", MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    return fd;
}

/* A new image in memory. */
static int made(const char *format, uint64_t size, const char *backing)
{
    struct image *file;
    int fd = memfd_create("image", 0);
    struct image_create create = {
        .size = size, .backing_name = backing, .backing_format = backing ? "raw" : NULL};
    assert_ok(image_open_fd(dup(fd), IMAGE_OPEN_WRITABLE, &file));
    assert_ok(image_create(file, image_driver_find(format), &create));
    assert_int_equal(image_close(file), 0);
    return fd;
}

static struct image *opened(int fd, const char *format)
{
    struct image *file, *image;
    assert_ok(image_open_fd(dup(fd), IMAGE_OPEN_WRITABLE, &file));
    assert_ok(image_open(file, image_driver_find(format), IMAGE_OPEN_WRITABLE, NULL, &image));
    return image;
}

/* A disk, its queue, and a model of what it holds. */
struct bed {
    struct loop *loop;
    struct block *block;
    struct block_queue *queue;
    uint8_t *model;
    uint32_t seed;
    unsigned news; /* calls of changed(); atomic */
};

static void bed_open(struct bed *bed, int fd, const char *formats, int backing)
{
    int backings[2] = {backing, -1};
    struct block_options options = {.id = "d0",
                                    .fd = fd,
                                    .discard = true,
                                    .formats = formats,
                                    .backing_fds = backing >= 0 ? backings : NULL};
    *bed = (struct bed){.seed = 5};
    log_set_sink(no_log, NULL);
    bed->model = calloc(1, SIZE * 2);
    assert_ok(loop_new("test", &bed->loop));
    assert_ok(block_open(&options, &bed->block));
    assert_ok(block_queue_new(bed->block, bed->loop, &bed->queue));
}

static void bed_close(struct bed *bed)
{
    block_queue_free(bed->queue);
    block_close(bed->block);
    loop_free(bed->loop);
    free(bed->model);
}

static void changed(void *opaque)
{
    struct bed *bed = opaque;
    __atomic_fetch_add(&bed->news, 1, __ATOMIC_SEQ_CST);
}

static uint32_t draw(struct bed *bed)
{
    bed->seed = bed->seed * 1664525 + 1013904223;
    return bed->seed >> 8;
}

struct one {
    struct block_req req;
    struct iovec iov;
    uint8_t data[4 * UNIT];
    int result;
};

static void done(struct block_req *req, int result)
{
    ((struct one *)req->opaque)->result = result;
}

/* Some requests at once, at places that do not overlap; the model follows. */
static void churn(struct bed *bed)
{
    static struct one ones[8];
    uint64_t units = SIZE / UNIT / ARRAY_SIZE(ones);
    for (unsigned i = 0; i < ARRAY_SIZE(ones); i++) {
        struct one *one = &ones[i];
        uint64_t count = 1 + draw(bed) % 4, at = i * units + draw(bed) % (units - 4);
        uint8_t fill = (uint8_t)draw(bed);
        bool zero = draw(bed) % 4 == 0;
        memset(one->data, fill, sizeof(one->data));
        one->iov = (struct iovec){one->data, count * UNIT};
        one->result = 1;
        one->req = (struct block_req){.op = zero ? BLOCK_ZERO : BLOCK_WRITE,
                                      .offset = at * UNIT,
                                      .length = count * UNIT,
                                      .iov = &one->iov,
                                      .iov_count = 1,
                                      .done = done,
                                      .opaque = one};
        memset(bed->model + at * UNIT, zero ? 0 : fill, count * UNIT);
        block_submit(bed->queue, &one->req);
    }
    block_drain(bed->queue);
    for (unsigned i = 0; i < ARRAY_SIZE(ones); i++)
        assert_int_equal(ones[i].result, 0);
}

static void verify(struct bed *bed, uint64_t size)
{
    uint8_t *back = malloc(size);
    struct one one = {.iov = {back, size}, .result = 1};
    one.req = (struct block_req){.op = BLOCK_READ,
                                 .length = size,
                                 .iov = &one.iov,
                                 .iov_count = 1,
                                 .done = done,
                                 .opaque = &one};
    block_submit(bed->queue, &one.req);
    block_drain(bed->queue);
    assert_int_equal(one.result, 0);
    assert_memory_equal(back, bed->model, size);
    free(back);
}

static enum block_job_state state_of(struct block_job *job)
{
    struct block_job_status status;
    block_job_status(job, &status);
    return status.state;
}

/* Writes beside the job until it is no longer running. */
static void churn_beside(struct bed *bed, struct block_job *job)
{
    uint64_t limit = clock_now_ns() + 60 * NSEC_PER_SEC;
    do
        churn(bed);
    while (state_of(job) == BLOCK_JOB_RUNNING && clock_now_ns() < limit);
    for (unsigned i = 0; i < 20; i++)
        churn(bed);
}

static struct block_job *begin(struct bed *bed, enum block_job_kind kind, struct image *target,
                               bool top_only)
{
    struct block_job *job;
    struct block_job_options options = {
        .kind = kind, .target = target, .top_only = top_only, .changed = changed, .opaque = bed};
    assert_ok(block_job_start(bed->block, &options, &job));
    return job;
}

/* A job's state is seen before the call that tells of it has been made. */
static unsigned news_of(struct bed *bed)
{
    uint64_t limit = clock_now_ns() + 60 * NSEC_PER_SEC;
    unsigned news;
    while (!(news = __atomic_load_n(&bed->news, __ATOMIC_SEQ_CST)) && clock_now_ns() < limit)
        usleep(1000);
    return news;
}

static void test_mirror(void **state)
{
    static const char *const formats[] = {"raw", "qcow2"};
    for (unsigned i = 0; i < 2; i++) {
        struct bed bed;
        /* A raw disk begins on io_uring: it becomes a node. */
        bed_open(&bed, i ? made("qcow2", SIZE, NULL) : file_of(SIZE), formats[i], -1);
        for (unsigned k = 0; k < 50; k++)
            churn(&bed);
        int target = made(formats[!i], SIZE, NULL);
        struct block_job *job = begin(&bed, BLOCK_JOB_MIRROR, opened(target, formats[!i]), false);
        churn_beside(&bed, job);
        assert_int_equal(state_of(job), BLOCK_JOB_READY);
        assert_int_equal(news_of(&bed), 1);
        fails(block_resize(bed.block, 2 * SIZE), "a job runs");
        assert_ok(block_job_end(job, true));
        assert_string_equal(image_driver_name(image_driver(block_node(bed.block))), formats[!i]);
        verify(&bed, SIZE);
        churn(&bed);
        verify(&bed, SIZE);
        assert_ok(block_resize(bed.block, 2 * SIZE));
        verify(&bed, 2 * SIZE);
        bed_close(&bed);
        struct image *after = opened(target, formats[!i]);
        uint8_t *back = malloc(2 * SIZE);
        assert_int_equal(image_read(after, back, 0, SIZE), 0);
        close(target);
        free(back);
        image_close(after);
    }
}

/* Without a pivot, and cancelled in the middle: the disk is what it was. */
static void test_cancel(void **state)
{
    for (unsigned early = 0; early < 2; early++) {
        struct bed bed;
        bed_open(&bed, file_of(SIZE), "raw", -1);
        int target = file_of(SIZE);
        struct block_job *job = begin(&bed, BLOCK_JOB_MIRROR, opened(target, "raw"), false);
        if (early) {
            block_job_set_speed(job, 1);
            block_job_cancel(job);
        }
        churn_beside(&bed, job);
        assert_ok(block_job_end(job, false));
        if (!early) {
            uint8_t *back = malloc(SIZE);
            assert_int_equal(pread(target, back, SIZE, 0), SIZE);
            assert_memory_equal(back, bed.model, SIZE);
            free(back);
        }
        churn(&bed);
        verify(&bed, SIZE);
        close(target);
        bed_close(&bed);
    }
}

/* The target refuses a write: the guest hears nothing of it, the job fails, there is no pivot. */
static void test_target_fails(void **state)
{
    for (unsigned late = 0; late < 2; late++) {
        struct bed bed;
        bed_open(&bed, file_of(SIZE), "raw", -1);
        int target = file_of(SIZE);
        churn(&bed);
        if (!late)
            assert_int_equal(fcntl(target, F_ADD_SEALS, F_SEAL_WRITE), 0);
        struct block_job *job = begin(&bed, BLOCK_JOB_MIRROR, opened(target, "raw"), false);
        churn_beside(&bed, job);
        if (late) {
            assert_int_equal(state_of(job), BLOCK_JOB_READY);
            assert_int_equal(fcntl(target, F_ADD_SEALS, F_SEAL_WRITE), 0);
            churn(&bed);
        }
        assert_int_equal(state_of(job), BLOCK_JOB_FAILED);
        assert_true(news_of(&bed) >= 1);
        fails(block_job_end(job, true), "the job has not come to its end");
        churn(&bed);
        verify(&bed, SIZE);
        close(target);
        bed_close(&bed);
    }
}

static void fill_base(struct bed *bed, int base)
{
    for (uint64_t i = 0; i < SIZE / 2; i++)
        bed->model[i] = (uint8_t)(i * 7 + (i >> 12));
    assert_int_equal(pwrite(base, bed->model, SIZE / 2, 0), SIZE / 2);
}

/* Down into the base, and up out of it. */
static void test_commit_and_stream(void **state)
{
    for (unsigned stream = 0; stream < 2; stream++) {
        struct bed bed;
        int base = file_of(SIZE), top = made("qcow2", SIZE, "base.raw");
        bed_open(&bed, dup(top), "qcow2.raw", dup(base));
        fill_base(&bed, base);
        for (unsigned k = 0; k < 20; k++)
            churn(&bed);
        verify(&bed, SIZE);
        struct block_job *job = stream ? begin(&bed, BLOCK_JOB_STREAM, NULL, false)
                                       : begin(&bed, BLOCK_JOB_COMMIT, opened(base, "raw"), false);
        churn_beside(&bed, job);
        assert_int_equal(state_of(job), stream ? BLOCK_JOB_DONE : BLOCK_JOB_READY);
        assert_ok(block_job_end(job, true));
        assert_null(image_backing(block_node(bed.block)));
        if (stream) /* nothing of it is needed any more */
            assert_int_equal(ftruncate(base, 0), 0);
        verify(&bed, SIZE);
        churn(&bed);
        verify(&bed, SIZE);
        bed_close(&bed);
        close(base);
        close(top);
    }
}

/* A layer on top, its mirror with the same backing, and what is refused. */
/* A backup of the disk as it is now, while the disk is written to. */
static void back_up(struct bed *bed, int fd, const char *format, const char *bitmap)
{
    struct block_job *job;
    struct block_job_options options = {.kind = BLOCK_JOB_BACKUP,
                                        .target = opened(fd, format),
                                        .bitmap = bitmap,
                                        .changed = changed,
                                        .opaque = bed};
    assert_ok(block_job_start(bed->block, &options, &job));
    churn_beside(bed, job);
    assert_int_equal(state_of(job), BLOCK_JOB_DONE);
    assert_ok(block_job_end(job, true));
    verify(bed, SIZE);
}

/* The images of a chain, the lowest first, read as the model was then. */
static void restores(const int *fd, const char *const *format, unsigned count, const uint8_t *then)
{
    struct image *chain = NULL;
    uint8_t *back = malloc(SIZE);
    for (unsigned i = 0; i < count; i++) {
        struct image *layer = opened(fd[i], format[i]);
        if (chain)
            image_set_backing(layer, chain);
        chain = layer;
    }
    assert_int_equal(image_read(chain, back, 0, SIZE), 0);
    assert_memory_equal(back, then, SIZE);
    image_close(chain);
    free(back);
}

static struct image_bitmap only_bitmap(struct bed *bed)
{
    struct image_bitmap bitmap;
    assert_int_equal(image_bitmap_count(block_node(bed->block)), 1);
    image_bitmap_get(block_node(bed->block), 0, &bitmap);
    return bitmap;
}

/* A backup that runs out of room: the guest goes on, and its bitmap has all that it had. */
static void fail_to_back_up(struct bed *bed)
{
    uint64_t before = only_bitmap(bed).dirty;
    int fd = file_of(SIZE);
    struct block_job *job;
    struct block_job_options options = {.kind = BLOCK_JOB_BACKUP,
                                        .target = opened(fd, "raw"),
                                        .bitmap = "b",
                                        .changed = changed,
                                        .opaque = bed};
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
    assert_ok(block_job_start(bed->block, &options, &job));
    churn_beside(bed, job);
    assert_int_equal(state_of(job), BLOCK_JOB_FAILED);
    fails(block_job_end(job, true), "has not come to its end");
    verify(bed, SIZE);
    assert_true(only_bitmap(bed).dirty >= before);
    close(fd);
}

static void test_backup(void **state)
{
    static const char *const formats[] = {"raw", "qcow2", "qcow2"};
    for (unsigned i = 0; i < 2; i++) {
        const struct block_bitmap_change add = {.name = "b", .granularity = 4096 << 6 * i};
        const struct block_bitmap_change clear = {.what = BLOCK_BITMAP_CLEAR, .name = "b"};
        const struct block_bitmap_change drop = {.what = BLOCK_BITMAP_REMOVE, .name = "b"};
        struct bed bed;
        uint8_t *then = malloc(SIZE);
        int fd[3] = {file_of(0), made("qcow2", SIZE, "the one before"),
                     made("qcow2", SIZE, "the one before")};
        bed_open(&bed, i ? made("qcow2", SIZE, NULL) : file_of(SIZE), formats[i], -1);
        for (unsigned k = 0; k < 50; k++)
            churn(&bed);
        assert_ok(block_change_bitmap(bed.block, &add));
        fails(block_change_bitmap(bed.block, &add), "already");
        churn(&bed);
        assert_ok(block_change_bitmap(bed.block, &clear));
        assert_int_equal(only_bitmap(&bed).dirty, 0);
        memcpy(then, bed.model, SIZE);
        back_up(&bed, fd[0], "raw", NULL);
        restores(fd, formats, 1, then);
        fail_to_back_up(&bed);
        for (unsigned k = 1; k < 3; k++) {
            assert_true(only_bitmap(&bed).dirty > 0);
            memcpy(then, bed.model, SIZE);
            back_up(&bed, fd[k], "qcow2", "b");
            restores(fd, formats, k + 1, then);
            churn(&bed);
        }
        assert_ok(block_change_bitmap(bed.block, &drop));
        bed_close(&bed);
        for (unsigned k = 0; k < 3; k++)
            close(fd[k]);
        free(then);
    }
}

static void test_overlay(void **state)
{
    struct bed bed;
    bed_open(&bed, file_of(SIZE), "raw", -1);
    churn(&bed);
    int plain = made("qcow2", SIZE, NULL), small = made("qcow2", SIZE / 2, "x"),
        good = made("qcow2", SIZE, "x"), place = made("qcow2", SIZE, "x");
    fails(block_put_overlay(bed.block, opened(plain, "qcow2")), "names no backing");
    fails(block_put_overlay(bed.block, opened(small, "qcow2")), "bytes");
    verify(&bed, SIZE);
    assert_ok(block_put_overlay(bed.block, opened(good, "qcow2")));
    churn(&bed);
    verify(&bed, SIZE);
    struct block_job *job;
    struct block_job_options options = {
        .kind = BLOCK_JOB_MIRROR, .target = opened(plain, "qcow2"), .top_only = true};
    fails(block_job_start(bed.block, &options, &job), "names no backing");
    options =
        (struct block_job_options){.kind = BLOCK_JOB_COMMIT, .target = opened(plain, "qcow2")};
    fails(block_job_start(bed.block, &options, &job), "no layer");
    job = begin(&bed, BLOCK_JOB_MIRROR, opened(place, "qcow2"), true);
    churn_beside(&bed, job);
    assert_ok(block_job_end(job, true));
    assert_non_null(image_backing(block_node(bed.block)));
    verify(&bed, SIZE);
    churn(&bed);
    verify(&bed, SIZE);
    bed_close(&bed);
    close(plain);
    close(small);
    close(good);
    close(place);
}

static void test_resize(void **state)
{
    struct bed bed;
    bed_open(&bed, file_of(SIZE), "raw", -1);
    churn(&bed);
    fails(block_resize(bed.block, SIZE - 512), "shrink");
    fails(block_resize(bed.block, SIZE + 1), "multiple");
    fails(block_resize(bed.block, 0), "multiple");
    fails(block_resize(bed.block, ~511ull), "multiple");
    assert_ok(block_resize(bed.block, 2 * SIZE));
    verify(&bed, 2 * SIZE);
    bed_close(&bed);
}

struct heard {
    unsigned count;
    enum block_op op;
    int error;
};

static void hear(void *opaque, enum block_op op, int error)
{
    struct heard *heard = opaque;
    *heard = (struct heard){heard->count + 1, op, error};
}

/* A file that became short cannot be read: the request waits until it is long again. */
static void test_errors_wait(void **state)
{
    struct bed bed = {0};
    struct heard heard = {0};
    int fd = file_of(SIZE);
    struct block_options options = {.id = "d0", .fd = dup(fd), .hold_errors = true};
    struct one one = {.iov = {one.data, UNIT}, .result = 1};
    one.req = (struct block_req){.op = BLOCK_READ,
                                 .length = UNIT,
                                 .iov = &one.iov,
                                 .iov_count = 1,
                                 .done = done,
                                 .opaque = &one};
    assert_ok(loop_new("test", &bed.loop));
    assert_ok(block_open(&options, &bed.block));
    assert_ok(block_queue_new(bed.block, bed.loop, &bed.queue));
    block_on_error(bed.block, hear, &heard);
    for (unsigned drained = 0; drained < 2; drained++) {
        uint64_t limit = clock_now_ns() + 10 * NSEC_PER_SEC;
        assert_int_equal(ftruncate(fd, 0), 0);
        one.result = 1;
        heard.count = 0;
        block_submit(bed.queue, &one.req);
        block_flush_submissions(bed.queue);
        while (!heard.count && clock_now_ns() < limit)
            loop_once(bed.loop, 10);
        assert_int_equal(heard.op, BLOCK_READ);
        assert_int_equal(heard.error, -EIO);
        assert_int_equal(one.result, 1);
        if (drained) { /* a reset does not wait for anybody */
            block_drain(bed.queue);
            assert_int_equal(one.result, -EIO);
            continue;
        }
        block_retry(bed.block); /* too early */
        while (heard.count < 2 && clock_now_ns() < limit)
            loop_once(bed.loop, 10);
        assert_int_equal(one.result, 1);
        assert_int_equal(ftruncate(fd, SIZE), 0);
        block_retry(bed.block);
        while (one.result == 1 && clock_now_ns() < limit)
            loop_once(bed.loop, 10);
        assert_int_equal(one.result, 0);
    }
    /* A request that is wrong in itself is not held. */
    one.req.offset = SIZE;
    block_submit(bed.queue, &one.req);
    block_drain(bed.queue);
    assert_int_equal(one.result, -EINVAL);
    close(fd);
    bed_close(&bed);
}

/* So many requests take at least so long; the limit stays on top when the node is exchanged. */
static void test_limits(void **state)
{
    struct bed bed;
    struct filter_limits limits = {.ops = {200}};
    bed_open(&bed, file_of(SIZE), "raw", -1);
    int overlay = made("qcow2", SIZE, "x");
    assert_ok(block_limit(bed.block, &limits));
    for (unsigned layer = 0; layer < 2; layer++) {
        uint64_t from = clock_now_ns();
        for (unsigned i = 0; i < 10; i++)
            churn(&bed); /* 8 requests */
        assert_true(clock_now_ns() - from >= NSEC_PER_SEC / 5);
        if (!layer)
            assert_ok(block_put_overlay(bed.block, opened(overlay, "qcow2")));
    }
    limits.ops[0] = 0;
    assert_ok(block_limit(bed.block, &limits));
    verify(&bed, SIZE);
    assert_ok(block_resize(bed.block, 2 * SIZE));
    verify(&bed, 2 * SIZE);
    bed_close(&bed);
    close(overlay);
}

static void test_block_size(void **state)
{
    struct block_info info;
    struct block *block;
    struct block_options options = {.id = "d0", .fd = file_of(SIZE), .logical_block = 4096};
    assert_ok(block_open(&options, &block));
    block_get_info(block, &info);
    assert_int_equal(info.logical_block, 4096);
    assert_true(info.physical_block >= 4096);
    block_close(block);
    options.fd = file_of(SIZE - 512);
    fails(block_open(&options, &block), "no multiple of 4096");
    options.fd = file_of(SIZE);
    options.logical_block = 1000;
    fails(block_open(&options, &block), "blocks of 1000 bytes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mirror),
        cmocka_unit_test(test_backup),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_target_fails),
        cmocka_unit_test(test_commit_and_stream),
        cmocka_unit_test(test_overlay),
        cmocka_unit_test(test_resize),
        cmocka_unit_test(test_errors_wait),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_block_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
