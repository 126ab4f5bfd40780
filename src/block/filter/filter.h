/*
 * Filters: nodes over one other node that they pass everything on to, and change or watch it; and
 * one over several.
 *
 * Each takes the node below and is closed like any node. A filter over a file grows
 * like a file, so that a format can lie over it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_FILTER_FILTER_H
#define TENON_BLOCK_FILTER_FILTER_H

#include "block/image.h"

/* concat.c: `count` nodes (taken), at least one, behind each other; for reading. */
struct image *filter_concat_open(struct image *const *take_part, unsigned count);

/* fault.c: calls that fail on purpose, for tests. */
#define FILTER_READ (1u << 0)
#define FILTER_WRITE (1u << 1)
#define FILTER_ZERO (1u << 2)
#define FILTER_DISCARD (1u << 3)
#define FILTER_FLUSH (1u << 4)
#define FILTER_TRUNCATE (1u << 5)

struct filter_fault {
    unsigned calls;          /* FILTER_ bits that the rule looks at */
    uint64_t offset, length; /* bytes; only calls that touch them; length 0: all */
    uint64_t skip;           /* so many of them pass before ... */
    uint64_t count;          /* ... so many fail; 0: all that come */
    int error;               /* EIO, ENOSPC: positive */
};
#define FILTER_FAULTS_MAX 8

struct image *filter_fault_open(struct image *take_below);
/* Other rules, which count from now on. Any thread. At most FILTER_FAULTS_MAX. */
void filter_fault_set(struct image *fault, const struct filter_fault *rule, unsigned count);
/* How many calls failed by the rules. */
uint64_t filter_fault_hits(struct image *fault);

/* log.c: what changes the node below, with its data, for those who replay it. */
struct filter_log_entry {
    unsigned call;           /* FILTER_WRITE, _ZERO, _DISCARD, _FLUSH or _TRUNCATE */
    uint64_t offset, length; /* truncate: offset is the new length */
    const void *data;        /* of a write */
};
/*
 * `sink` gets one entry at a time: a change when it has returned, a flush when it begins. So what
 * lies before a flush is what that flush makes stable.
 */
struct image *filter_log_open(struct image *take_below,
                              void (*sink)(void *opaque, const struct filter_log_entry *entry),
                              void *opaque);

/* throttle.c: limits of rate. A group may have several nodes, which share its limits. */
struct filter_limits {
    /* A second; 0: no limit. Index 0 for all, 1 for reads, 2 for writes, zeroes and discards. */
    uint64_t ops[3], bytes[3];
    /* What may come at once after a pause, beyond a tenth of a second's worth; 0: nothing. */
    uint64_t burst_ops, burst_bytes;
};
struct filter_group;
struct filter_group *filter_group_new(const struct filter_limits *limits);
/* Any thread; holds from the next request on. */
void filter_group_set(struct filter_group *group, const struct filter_limits *limits);
/* Drops the caller's reference; its nodes have their own. */
void filter_group_free(struct filter_group *group);
struct image *filter_throttle_open(struct image *take_below, struct filter_group *group);

#endif
