/*
 * What a block node has done: requests, bytes, failures, and how long they took. Counted when a
 * request completes, by the loops of its queues; read by anybody.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "base/clock.h"
#include "base/trace.h"
#include "block/core/internal.h"

#define US 1000ull
#define MS (1000 * US)

const uint64_t block_latency_bound[BLOCK_LATENCY_BOUNDS] = {
    10 * US, 30 * US, 100 * US, 300 * US, MS,        3 * MS,
    10 * MS, 30 * MS, 100 * MS, 300 * MS, 1000 * MS,
};

static void add(uint64_t *counter, uint64_t amount)
{
    __atomic_fetch_add(counter, amount, __ATOMIC_RELAXED);
}

void block_stats_begin(struct block_req *req)
{
    req->started_ns = clock_now_ns();
    add(&req->queue->block->submitted, 1);
    TRACE(block_start, req, req->op, req->offset, req->length);
}

void block_stats_again(const struct block_req *req)
{
    add(&req->queue->block->completed, 1); /* it begins anew */
}

void block_stats_end(const struct block_req *req)
{
    struct block *block = req->queue->block;
    struct block_op_stats *stats = &block->op_stats[req->op > BLOCK_ZERO ? BLOCK_ZERO : req->op];
    uint64_t took_ns = clock_now_ns() - req->started_ns;
    unsigned bin = 0;

    while (bin < BLOCK_LATENCY_BOUNDS && took_ns >= block_latency_bound[bin])
        bin++;
    add(&block->completed, 1);
    TRACE(block_end, req, req->op, req->result, took_ns);
    if (req->result < 0) {
        add(&stats->failures, 1);
        return;
    }
    add(&stats->requests, 1);
    add(&stats->bytes, req->op == BLOCK_FLUSH ? 0 : req->length);
    add(&stats->time_ns, took_ns);
    add(&stats->bin[bin], 1);
}

static uint64_t get(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

void block_get_stats(const struct block *block, enum block_op op, struct block_op_stats *stats)
{
    const struct block_op_stats *from = &block->op_stats[op];

    stats->requests = get(&from->requests);
    stats->bytes = get(&from->bytes);
    stats->failures = get(&from->failures);
    stats->time_ns = get(&from->time_ns);
    for (unsigned i = 0; i < ARRAY_SIZE(stats->bin); i++)
        stats->bin[i] = get(&from->bin[i]);
}

uint64_t block_in_flight(const struct block *block)
{
    /* The younger one first: what completes in between does not make it negative. */
    uint64_t completed = get(&block->completed);

    return get(&block->submitted) - completed;
}
