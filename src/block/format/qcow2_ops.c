/*
 * qcow2: data calls that are under way, and what they must not do to each other.
 *
 * The tables are looked up and changed under q->lock; data moves outside of it. Two rules make that
 * safe. A cluster that the tables have lost becomes free only after every call that began before
 * (and may still read or write it) has ended. Clusters that are getting a place belong to the call
 * that gives it: others that want to change them wait.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "block/format/qcow2.h"

void qcow2_op_begin(struct qcow2 *q, struct qcow2_op *op)
{
    *op = (struct qcow2_op){.began = ++q->sequence};
    list_append(&q->ops, &op->link);
}

void qcow2_op_end(struct qcow2 *q, struct qcow2_op *op)
{
    list_remove(&op->link);
    if (op->end)
        pthread_cond_broadcast(&q->progress);
}

/* Does another call give places to some of these clusters? */
static bool claimed(struct qcow2 *q, uint64_t first, uint64_t end)
{
    struct qcow2_op *op;
    list_for_each (op, &q->ops, link)
        if (op->first < end && first < op->end)
            return true;
    return false;
}

bool qcow2_wait_for_claims(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    uint64_t first = ALIGN_DOWN(offset, q->cluster_size);
    uint64_t end = ALIGN_UP(offset + length, q->cluster_size);
    bool waited = false;
    while (q->frozen || claimed(q, first, end)) {
        pthread_cond_wait(&q->progress, &q->lock.mutex);
        waited = true;
    }
    return waited;
}

void qcow2_claim(struct qcow2_op *op, uint64_t first, uint64_t length)
{
    op->first = first;
    op->end = first + length;
}

void qcow2_release(struct qcow2 *q, struct qcow2_op *op)
{
    op->first = op->end = 0;
    pthread_cond_broadcast(&q->progress);
}

uint64_t qcow2_oldest_op(const struct qcow2 *q)
{
    return list_empty(&q->ops) ? UINT64_MAX : list_first(&q->ops, struct qcow2_op, link)->began;
}

uint8_t *qcow2_scratch_take(struct qcow2 *q)
{
    return q->scratch_count ? q->scratch[--q->scratch_count] : malloc(q->cluster_size);
}

void qcow2_scratch_give(struct qcow2 *q, uint8_t *take_scratch)
{
    if (q->scratch_count < QCOW2_SPARE_MAX)
        q->scratch[q->scratch_count++] = take_scratch;
    else
        free(take_scratch);
}

int qcow2_bound_gone(struct qcow2 *q)
{
    lock_take(&q->lock);
    bool many = q->gone_count >= QCOW2_GONE_MAX;
    lock_drop(&q->lock);
    return many ? qcow2_flush(q->image) : 0;
}

/* One flush for all that ask while another is under way. */
int qcow2_flush(struct image *image)
{
    struct qcow2 *q = image->state;
    lock_take(&q->lock);
    /* The one under way has begun before our caller's last write may have ended. */
    uint64_t needed = q->flush_begun + 1;
    while (q->flush_ended < needed && q->flushing)
        pthread_cond_wait(&q->progress, &q->lock.mutex);
    int result = q->flush_result;
    if (q->flush_ended < needed) {
        q->flushing = true;
        uint64_t mine = ++q->flush_begun;
        result = qcow2_flush_shared(q);
        q->flush_result = result;
        q->flush_ended = mine;
        q->flushing = false;
        pthread_cond_broadcast(&q->progress);
    }
    lock_drop(&q->lock);
    return result;
}

void qcow2_ops_init(struct qcow2 *q)
{
    lock_init(&q->lock, LOCK_NODE);
    pthread_cond_init(&q->progress, NULL);
    list_init(&q->ops);
}

void qcow2_ops_fini(struct qcow2 *q)
{
    while (q->scratch_count)
        free(q->scratch[--q->scratch_count]);
    free(q->gone);
    pthread_cond_destroy(&q->progress);
    lock_fini(&q->lock);
}
