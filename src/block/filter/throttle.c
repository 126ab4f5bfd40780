/*
 * A filter that lets through no more requests and bytes a second than its group may have.
 *
 * Each limit is a meter: the moment at which all that was let through would have been due at the
 * limit's rate (the "generic cell rate algorithm" of ITU-T I.371). A request moves the meters by
 * what it costs and sleeps until the latest of them, less the burst that is allowed. Requests of
 * several threads and nodes queue up by that.
 *
 * The group's lock (LOCK_LEAF) guards its meters; nobody sleeps under it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/lock.h"
#include "block/filter/filter.h"
#include "block/filter/pass.h"

#define LEAD_NS (NSEC_PER_SEC / 10) /* may always come at once: requests are not spaced evenly */

struct filter_group {
    struct lock lock;
    unsigned references;
    struct filter_limits limits;
    uint64_t ops_due[3], bytes_due[3]; /* the meters: CLOCK_MONOTONIC, ns */
};

/* `amount` at `rate` a second, in ns. */
static uint64_t duration(uint64_t amount, uint64_t rate)
{
    return (uint64_t)MIN((unsigned __int128)amount * NSEC_PER_SEC / rate,
                         (unsigned __int128)UINT64_MAX / 4);
}

/* Moves a meter and says when the request may go. */
static uint64_t charge(uint64_t *due, uint64_t rate, uint64_t amount, uint64_t burst, uint64_t now)
{
    if (!rate)
        return now;
    uint64_t lead = LEAD_NS + duration(burst, rate);
    uint64_t start = now > lead ? now - lead : 0;
    *due = MAX(*due, start) + duration(amount, rate);
    return *due;
}

static void wait_turn(struct image *image, bool write, uint64_t length)
{
    struct filter_group *group = image->state;
    uint64_t now = clock_now_ns(), due = now;
    lock_take(&group->lock);
    const struct filter_limits *limits = &group->limits;
    const unsigned kinds[] = {0, write ? 2 : 1};
    for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++) {
        unsigned i = kinds[k];
        uint64_t ops = charge(&group->ops_due[i], limits->ops[i], 1, limits->burst_ops, now);
        uint64_t bytes =
            charge(&group->bytes_due[i], limits->bytes[i], length, limits->burst_bytes, now);
        due = MAX(due, MAX(ops, bytes));
    }
    lock_drop(&group->lock);
    struct timespec until = {(time_t)(due / NSEC_PER_SEC), (long)(due % NSEC_PER_SEC)};
    while (due > now && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}

static int throttle_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    wait_turn(image, false, length);
    return filter_pread(image, buffer, offset, length);
}

static int throttle_pwrite(struct image *image, const void *buffer, uint64_t offset,
                           uint64_t length)
{
    wait_turn(image, true, length);
    return filter_pwrite(image, buffer, offset, length);
}

static int throttle_zero(struct image *image, uint64_t offset, uint64_t length, bool unmap)
{
    wait_turn(image, true, length);
    return filter_zero(image, offset, length, unmap);
}

static int throttle_discard(struct image *image, uint64_t offset, uint64_t length)
{
    wait_turn(image, true, length);
    return filter_discard(image, offset, length);
}

static int throttle_close(struct image *image)
{
    filter_group_free(image->state);
    return 0;
}

static const struct block_driver driver = {
    .name = "throttle",
    .parallel = true,
    .close = throttle_close,
    .pread = throttle_pread,
    .pwrite = throttle_pwrite,
    .flush = filter_flush,
    .zero = throttle_zero,
    .discard = throttle_discard,
    .extent = filter_extent,
    .truncate = filter_truncate,
    .resize = filter_resize,
};

struct filter_group *filter_group_new(const struct filter_limits *limits)
{
    struct filter_group *group = xcalloc(1, sizeof(*group));
    lock_init(&group->lock, LOCK_LEAF);
    group->references = 1;
    group->limits = *limits;
    return group;
}

void filter_group_set(struct filter_group *group, const struct filter_limits *limits)
{
    lock_take(&group->lock);
    group->limits = *limits;
    for (unsigned i = 0; i < 3; i++) /* what was due by the old rates is forgiven */
        group->ops_due[i] = group->bytes_due[i] = 0;
    lock_drop(&group->lock);
}

void filter_group_free(struct filter_group *group)
{
    lock_take(&group->lock);
    unsigned left = --group->references;
    lock_drop(&group->lock);
    if (left)
        return;
    lock_fini(&group->lock);
    free(group);
}

struct image *filter_throttle_open(struct image *take_below, struct filter_group *group)
{
    lock_take(&group->lock);
    group->references++;
    lock_drop(&group->lock);
    return filter_new(&driver, take_below, group);
}
