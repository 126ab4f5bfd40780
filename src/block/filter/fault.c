/*
 * A filter whose calls fail by rule: the n-th of a kind, those of a range, with a chosen error.
 *
 * Its lock (LOCK_LEAF) guards rules and counts.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/lock.h"
#include "block/filter/filter.h"
#include "block/filter/pass.h"

struct fault {
    struct lock lock;
    struct filter_fault rule[FILTER_FAULTS_MAX];
    uint64_t seen[FILTER_FAULTS_MAX]; /* calls that the rule looked at */
    unsigned count;
    uint64_t hits;
};

/* 0, or the error that this call is to have. */
static int judge(struct image *image, unsigned call, uint64_t offset, uint64_t length)
{
    struct fault *fault = image->state;
    int error = 0;
    lock_take(&fault->lock);
    for (unsigned i = 0; i < fault->count && !error; i++) {
        const struct filter_fault *rule = &fault->rule[i];
        if (!(rule->calls & call) ||
            (rule->length && !ranges_overlap(offset, length, rule->offset, rule->length)))
            continue;
        uint64_t number = fault->seen[i]++;
        if (number >= rule->skip && (!rule->count || number - rule->skip < rule->count))
            error = rule->error;
    }
    fault->hits += error != 0;
    lock_drop(&fault->lock);
    return -error;
}

static int fault_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    int error = judge(image, FILTER_READ, offset, length);
    return error ? error : filter_pread(image, buffer, offset, length);
}

static int fault_pwrite(struct image *image, const void *buffer, uint64_t offset, uint64_t length)
{
    int error = judge(image, FILTER_WRITE, offset, length);
    return error ? error : filter_pwrite(image, buffer, offset, length);
}

static int fault_zero(struct image *image, uint64_t offset, uint64_t length, bool unmap)
{
    int error = judge(image, FILTER_ZERO, offset, length);
    return error ? error : filter_zero(image, offset, length, unmap);
}

static int fault_discard(struct image *image, uint64_t offset, uint64_t length)
{
    int error = judge(image, FILTER_DISCARD, offset, length);
    return error ? error : filter_discard(image, offset, length);
}

static int fault_flush(struct image *image)
{
    int error = judge(image, FILTER_FLUSH, 0, UINT64_MAX);
    return error ? error : filter_flush(image);
}

static int fault_truncate(struct image *image, uint64_t size)
{
    int error = judge(image, FILTER_TRUNCATE, size, 1);
    return error ? error : filter_truncate(image, size);
}

static int fault_close(struct image *image)
{
    struct fault *fault = image->state;
    lock_fini(&fault->lock);
    free(fault);
    return 0;
}

static const struct block_driver driver = {
    .name = "fault",
    .parallel = true,
    .close = fault_close,
    .pread = fault_pread,
    .pwrite = fault_pwrite,
    .flush = fault_flush,
    .zero = fault_zero,
    .discard = fault_discard,
    .extent = filter_extent,
    .truncate = fault_truncate,
    .resize = filter_resize,
};

struct image *filter_fault_open(struct image *take_below)
{
    struct fault *fault = xcalloc(1, sizeof(*fault));
    lock_init(&fault->lock, LOCK_LEAF);
    return filter_new(&driver, take_below, fault);
}

void filter_fault_set(struct image *image, const struct filter_fault *rule, unsigned count)
{
    struct fault *fault = image->state;
    lock_take(&fault->lock);
    fault->count = MIN(count, (unsigned)FILTER_FAULTS_MAX);
    for (unsigned i = 0; i < fault->count; i++) {
        fault->rule[i] = rule[i];
        fault->seen[i] = 0;
    }
    fault->hits = 0;
    lock_drop(&fault->lock);
}

uint64_t filter_fault_hits(struct image *image)
{
    struct fault *fault = image->state;
    lock_take(&fault->lock);
    uint64_t hits = fault->hits;
    lock_drop(&fault->lock);
    return hits;
}
