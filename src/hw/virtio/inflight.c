/*
 * Requests in flight, in memory that outlives the process that serves them: "Inflight I/O tracking"
 * of QEMU's docs/interop/vhost-user.rst, for split rings. When a back end is killed, the next one
 * finds there which requests were taken and not answered, and takes them again.
 *
 * A ring's region is a header and an entry a descriptor, in the host's byte order. The order of the
 * writes is that of the document, with one used entry at a time, so a kill between any two of them
 * loses nothing and answers nothing twice. Whoever shares the region may write what it wants: what
 * is read is bounded here, and heads are judged like those of the available ring.
 *
 * Device lock, on the queue's loop. virtq_push_many() and virtq_unpop() know nothing of it: devices
 * that use them are not served to others.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "hw/virtio/virtq.h"

#define VERSION 1
#define REGION_ALIGN 64u

/* Offsets of the header, and of an entry, each of 16 bytes. */
enum { R_VERSION = 8, R_ENTRIES = 10, R_LAST_HEAD = 12, R_USED = 14, HEADER = 16 };
enum { E_INFLIGHT = 0, E_NEXT = 6, E_COUNTER = 8, ENTRY = 16 };

size_t virtq_inflight_size(uint16_t entries)
{
    return ALIGN_UP(HEADER + (size_t)entries * ENTRY, (size_t)REGION_ALIGN);
}

static uint16_t load16(const struct virtq *queue, size_t at)
{
    return __atomic_load_n((const uint16_t *)(const void *)(queue->inflight.region + at),
                           __ATOMIC_ACQUIRE);
}

static void store16(struct virtq *queue, size_t at, uint16_t value)
{
    __atomic_store_n((uint16_t *)(void *)(queue->inflight.region + at), value, __ATOMIC_RELEASE);
}

static uint8_t *entry(const struct virtq *queue, uint16_t head)
{
    return queue->inflight.region + HEADER + (size_t)head * ENTRY;
}

static bool marked(const struct virtq *queue, uint16_t head)
{
    return __atomic_load_n(entry(queue, head) + E_INFLIGHT, __ATOMIC_ACQUIRE);
}

static void mark(struct virtq *queue, uint16_t head, bool inflight)
{
    __atomic_store_n(entry(queue, head) + E_INFLIGHT, inflight, __ATOMIC_RELEASE);
}

static uint64_t counter_of(const struct virtq *queue, uint16_t head)
{
    uint64_t counter;
    memcpy(&counter, entry(queue, head) + E_COUNTER, sizeof(counter));
    return counter;
}

void virtq_inflight_take(struct virtq *queue, uint16_t head)
{
    if (!queue->inflight.region)
        return;
    memcpy(entry(queue, head) + E_COUNTER, &queue->inflight.counter, 8);
    queue->inflight.counter++;
    mark(queue, head, true);
}

void virtq_inflight_used(struct virtq *queue, uint16_t head)
{
    if (!queue->inflight.region)
        return;
    uint16_t last = load16(queue, R_LAST_HEAD);
    memcpy(entry(queue, head) + E_NEXT, &last, sizeof(last));
    store16(queue, R_LAST_HEAD, head);
}

void virtq_inflight_shown(struct virtq *queue, uint16_t head)
{
    if (!queue->inflight.region)
        return;
    mark(queue, head, false);
    store16(queue, R_USED, queue->used);
}

unsigned virtq_inflight_left(const struct virtq *queue)
{
    return queue->inflight.again_count - queue->inflight.again_next;
}

uint16_t virtq_inflight_again(struct virtq *queue)
{
    return queue->inflight.again[queue->inflight.again_next++];
}

/* Used entries that were shown, and whose marks the last process had no time to take away. */
static bool unmark_shown(struct virtq *queue)
{
    uint16_t shown = (uint16_t)(queue->used - load16(queue, R_USED));
    uint16_t head = load16(queue, R_LAST_HEAD);
    if (shown > queue->size)
        return false;
    for (; shown; shown--) {
        if (head >= queue->size)
            return false;
        mark(queue, head, false);
        memcpy(&head, entry(queue, head) + E_NEXT, sizeof(head));
    }
    store16(queue, R_USED, queue->used);
    return true;
}

struct waiting {
    uint64_t counter;
    uint16_t head;
};

static int by_age(const void *a, const void *b)
{
    uint64_t one = ((const struct waiting *)a)->counter, two = ((const struct waiting *)b)->counter;
    return one < two ? -1 : one > two;
}

/* What is still marked, the oldest first. */
static bool collect(struct virtq *queue)
{
    struct virtq_inflight *inflight = &queue->inflight;
    struct waiting *list = calloc(queue->size, sizeof(*list));
    unsigned count = 0;
    inflight->again = calloc(queue->size, sizeof(*inflight->again));
    if (!list || !inflight->again) {
        free(list);
        return false;
    }
    for (uint16_t head = 0; head < queue->size; head++)
        if (marked(queue, head))
            list[count++] = (struct waiting){counter_of(queue, head), head};
    qsort(list, count, sizeof(*list), by_age);
    for (unsigned i = 0; i < count; i++)
        inflight->again[i] = list[i].head;
    inflight->counter = count ? list[count - 1].counter + 1 : 0;
    inflight->again_count = count;
    inflight->again_next = 0;
    free(list);
    return true;
}

bool virtq_inflight_begin(struct virtq *queue)
{
    if (!queue->inflight.region)
        return true;
    if (!load16(queue, R_VERSION)) { /* nobody has used it before */
        store16(queue, R_ENTRIES, queue->size);
        store16(queue, R_USED, queue->used);
        store16(queue, R_VERSION, VERSION);
        return true;
    }
    if (load16(queue, R_VERSION) != VERSION || load16(queue, R_ENTRIES) != queue->size ||
        !unmark_shown(queue) || !collect(queue)) {
        virtio_broken(queue->device, "queue %u: what was in flight is not written down in order",
                      queue->index);
        return false;
    }
    /* What had been taken was either answered or is still in flight. */
    queue->avail = (uint16_t)(queue->used + queue->inflight.again_count);
    return true;
}
