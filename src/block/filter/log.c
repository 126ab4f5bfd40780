/*
 * A filter that tells every change of the node below, for replays of power cuts.
 *
 * Its lock (LOCK_LEAF) is held around the sink, so that entries come one at a time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>

#include "base/lock.h"
#include "block/filter/filter.h"
#include "block/filter/pass.h"

struct log {
    struct lock lock;
    void (*sink)(void *opaque, const struct filter_log_entry *entry);
    void *opaque;
};

static void tell(struct image *image, const struct filter_log_entry *entry)
{
    struct log *log = image->state;
    lock_take(&log->lock);
    log->sink(log->opaque, entry);
    lock_drop(&log->lock);
}

/* A change that failed may have happened in part: it is told as well. */
static int log_pwrite(struct image *image, const void *buffer, uint64_t offset, uint64_t length)
{
    int result = filter_pwrite(image, buffer, offset, length);
    tell(image, &(struct filter_log_entry){FILTER_WRITE, offset, length, buffer});
    return result;
}

static int log_zero(struct image *image, uint64_t offset, uint64_t length, bool unmap)
{
    int result = filter_zero(image, offset, length, unmap);
    tell(image, &(struct filter_log_entry){FILTER_ZERO, offset, length, NULL});
    return result;
}

static int log_discard(struct image *image, uint64_t offset, uint64_t length)
{
    int result = filter_discard(image, offset, length);
    tell(image, &(struct filter_log_entry){FILTER_DISCARD, offset, length, NULL});
    return result;
}

static int log_flush(struct image *image)
{
    tell(image, &(struct filter_log_entry){FILTER_FLUSH, 0, 0, NULL});
    return filter_flush(image);
}

static int log_truncate(struct image *image, uint64_t size)
{
    int result = filter_truncate(image, size);
    tell(image, &(struct filter_log_entry){FILTER_TRUNCATE, size, 0, NULL});
    return result;
}

static int log_close(struct image *image)
{
    struct log *log = image->state;
    lock_fini(&log->lock);
    free(log);
    return 0;
}

static const struct block_driver driver = {
    .name = "log",
    .parallel = true,
    .close = log_close,
    .pread = filter_pread,
    .pwrite = log_pwrite,
    .flush = log_flush,
    .zero = log_zero,
    .discard = log_discard,
    .extent = filter_extent,
    .truncate = log_truncate,
};

struct image *filter_log_open(struct image *take_below,
                              void (*sink)(void *opaque, const struct filter_log_entry *entry),
                              void *opaque)
{
    struct log *log = xcalloc(1, sizeof(*log));
    lock_init(&log->lock, LOCK_LEAF);
    log->sink = sink;
    log->opaque = opaque;
    return filter_new(&driver, take_below, log);
}
