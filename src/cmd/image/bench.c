/*
 * tenon image bench: how fast an image answers requests, several at a time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cmd/image/image.h"

#define TURN 8u /* requests that a thread takes at once */

struct bench {
    const struct image_args *args;
    struct image *image;
    uint64_t count, depth, buffer, step, size;
    uint8_t *data[JOB_WORKERS_MAX];
    int result[JOB_SLOTS_MAX];
    uint64_t last[JOB_SLOTS_MAX]; /* the request that it was about */
};

static int request(const struct bench *b, void *data, uint64_t index)
{
    /* Rounds do not repeat each other's places: as qemu-img wraps. */
    uint64_t places = b->size - b->buffer;
    uint64_t offset = places ? (b->args->start + index * b->step) % places : 0;
    uint64_t interval = b->args->flush_interval;
    int result = b->args->write ? image_write(b->image, data, offset, b->buffer)
                                : image_read(b->image, data, offset, b->buffer);
    if (!result && interval && index % interval == interval - 1)
        result = image_flush(b->image);
    return result;
}

static void turn(void *opaque, unsigned worker, unsigned slot, uint64_t piece)
{
    struct bench *b = opaque;
    uint64_t index = piece * TURN, end = MIN(index + TURN, b->count);
    b->result[slot] = 0;
    for (; index < end && !b->result[slot]; index++)
        b->result[slot] = request(b, b->data[worker], index);
    b->last[slot] = index - 1;
}

static struct err *judge(void *opaque, unsigned slot, uint64_t piece, bool *stop)
{
    const struct bench *b = opaque;
    (void)piece;
    (void)stop;
    if (b->result[slot])
        return err_errno(-b->result[slot], "request %llu failed",
                         (unsigned long long)b->last[slot]);
    return NULL;
}

static struct err *run(struct bench *b)
{
    const struct image_args *args = b->args;
    struct job_parallel job = {.workers = (unsigned)b->depth,
                               .pieces = (b->count + TURN - 1) / TURN,
                               .opaque = b,
                               .work = turn,
                               .finish = judge};
    if (!args->quiet)
        printf("Sending %llu %s requests, %llu bytes each, %llu in parallel (starting at offset "
               "%llu, step size %llu)\n",
               (unsigned long long)b->count, args->write ? "write" : "read",
               (unsigned long long)b->buffer, (unsigned long long)b->depth,
               (unsigned long long)args->start, (unsigned long long)b->step);
    uint64_t started = clock_now_ns();
    TRY(job_parallel_run(&job));
    int result = args->write ? image_flush(b->image) : 0;
    if (result)
        return err_errno(-result, "cannot flush");
    if (!args->quiet)
        printf("Run completed in %.3f seconds.\n",
               (double)(clock_now_ns() - started) / NSEC_PER_SEC);
    return NULL;
}

struct err *image_bench_run(const struct image_args *args, int *status)
{
    struct bench b = {.args = args,
                      .count = args->count ? args->count : 75000,
                      .depth = MIN(args->depth ? args->depth : 64, (uint64_t)JOB_WORKERS_MAX),
                      .buffer = args->buffer ? args->buffer : 4096};
    (void)status;
    b.step = args->step ? args->step : b.buffer;
    if (b.buffer > GIB(1))
        return err_of(ERR_USAGE, "bench: at most 1G a request");
    TRY(image_open_chain(args, args->word[0], args->format, args->write ? IMAGE_OPEN_WRITABLE : 0,
                         &b.image));
    struct err *err = NULL;
    b.size = image_size(b.image);
    if (b.size < b.buffer || args->start > b.size - b.buffer)
        err = err_of(ERR_USAGE, "the image is smaller than the requests reach");
    for (unsigned i = 0; i < b.depth && !err; i++) {
        b.data[i] = malloc(b.buffer);
        if (!b.data[i])
            err = err_new("no memory for buffers");
        else
            memset(b.data[i], (int)args->pattern, b.buffer);
    }
    if (!err)
        err = run(&b);
    for (unsigned i = 0; i < b.depth; i++)
        free(b.data[i]);
    int result = image_close(b.image);
    if (!err && result)
        err = err_errno(-result, "cannot write");
    return err_wrap(err, "'%s'", args->word[0]);
}
