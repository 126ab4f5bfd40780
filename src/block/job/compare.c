/*
 * Do two disks hold the same bytes?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "block/job/compare.h"

#define CHUNK KIB(128) /* both sides of it stay in a core's cache */

struct outcome {
    int result;      /* of reading */
    unsigned failed; /* which disk */
    bool differ;
    uint64_t offset;
};

struct comparing {
    struct compare_job *job;
    uint64_t end;
    uint8_t *data[JOB_WORKERS_MAX]; /* two chunks */
    struct outcome outcome[JOB_SLOTS_MAX];
};

/* Do both say that this stretch is zero? Sets how long their answer holds. */
static bool both_zero(struct image *const image[2], uint64_t at, uint64_t *length)
{
    bool zero = true;
    for (unsigned i = 0; i < 2; i++) {
        struct image_extent extent;
        unsigned depth;
        uint64_t size = image_size(image[i]);
        if (at >= size)
            continue;
        if (image_extent_chain(image[i], at, MIN(*length, size - at), &extent, &depth))
            return false; /* reading will say why */
        *length = extent.length;
        zero = zero && extent.flags & IMAGE_EXTENT_ZERO;
    }
    return zero;
}

static int read_chunk(struct image *image, uint8_t *data, uint64_t at, uint64_t length)
{
    uint64_t size = image_size(image);
    uint64_t have = at < size ? MIN(length, size - at) : 0;
    memset(data + have, 0, length - have);
    return have ? image_read(image, data, at, have) : 0;
}

static void compare_chunk(struct comparing *c, struct image *const image[2], unsigned worker,
                          struct outcome *outcome, uint64_t at, uint64_t length)
{
    uint8_t *data[2] = {c->data[worker], c->data[worker] + CHUNK};
    for (unsigned i = 0; i < 2 && !outcome->result; i++) {
        outcome->result = read_chunk(image[i], data[i], at, length);
        outcome->failed = i;
        outcome->offset = at;
    }
    if (outcome->result || !memcmp(data[0], data[1], length))
        return;
    uint64_t same = 0;
    while (data[0][same] == data[1][same])
        same++;
    outcome->differ = true;
    outcome->offset = at + same;
}

/* Long stretches of nothing in both are passed over at once. */
static uint64_t skip(void *opaque, uint64_t piece)
{
    struct comparing *c = opaque;
    struct image *const image[2] = {c->job->image[0][0], c->job->image[1][0]};
    uint64_t at = piece * JOB_PIECE, length = c->end - at;
    while (at < c->end && both_zero(image, at, &length) &&
           (length >= JOB_PIECE || at + length == c->end)) {
        at = at + length == c->end ? c->end : ALIGN_DOWN(at + length, JOB_PIECE);
        length = c->end - at;
    }
    return (at + JOB_PIECE - 1) / JOB_PIECE;
}

static void work(void *opaque, unsigned worker, unsigned slot, uint64_t piece)
{
    struct comparing *c = opaque;
    struct outcome *outcome = &c->outcome[slot];
    struct image *const image[2] = {c->job->image[0][worker], c->job->image[1][worker]};
    uint64_t at = piece * JOB_PIECE, end = MIN(at + JOB_PIECE, c->end), length;
    *outcome = (struct outcome){0};
    for (; at < end && !outcome->result && !outcome->differ; at += length) {
        length = end - at;
        if (both_zero(image, at, &length))
            continue;
        length = MIN(length, CHUNK);
        compare_chunk(c, image, worker, outcome, at, length);
    }
}

static struct err *finish(void *opaque, unsigned slot, uint64_t piece, bool *stop)
{
    struct comparing *c = opaque;
    const struct outcome *outcome = &c->outcome[slot];
    if (outcome->result)
        return err_errno(-outcome->result, "cannot read '%s' near byte %llu",
                         c->job->name[outcome->failed], (unsigned long long)outcome->offset);
    *stop = c->job->differ = outcome->differ;
    c->job->offset = outcome->offset;
    if (c->job->progress && !outcome->differ)
        c->job->progress(c->job->opaque, MIN((piece + 1) * JOB_PIECE, c->end));
    return NULL;
}

struct err *compare_job_run(struct compare_job *job)
{
    struct comparing c = {.job = job,
                          .end = MAX(image_size(job->image[0][0]), image_size(job->image[1][0]))};
    struct job_parallel parallel = {.workers = job->workers,
                                    .pieces = (c.end + JOB_PIECE - 1) / JOB_PIECE,
                                    .opaque = &c,
                                    .skip = skip,
                                    .work = work,
                                    .finish = finish};
    struct err *err = NULL;
    for (unsigned i = 0; i < job->workers && !err; i++) {
        c.data[i] = malloc(2 * CHUNK);
        if (!c.data[i])
            err = err_new("no memory for buffers");
    }
    if (!err)
        err = job_parallel_run(&parallel);
    for (unsigned i = 0; i < job->workers; i++)
        free(c.data[i]);
    return err;
}
