/*
 * Virtqueues (virtio 1.2, sections 2.6 to 2.8): requests between a ring and a device.
 *
 * The ring's three areas are looked up once, when the driver enables the queue; guest addresses in
 * descriptors are looked up for each request. A descriptor is copied before it is judged, so what
 * the driver changes afterwards has no effect. Every walk is bounded: by the ring, by the indirect
 * table, by the segments that a request can hold.
 *
 * Device lock, on the queue's loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/trace.h"
#include "hw/core/env.h"
#include "hw/virtio/virtq.h"

static struct gmem *queue_gmem(const struct virtq *queue)
{
    return queue->device->pci.device.env->gmem;
}

struct virtq_desc virtq_desc_copy(const uint8_t *at)
{
    uint8_t bytes[VIRTQ_DESC_SIZE];
    memcpy(bytes, at, sizeof(bytes));
    /* The driver may write there at any time: from here on only the copy counts. */
    __asm__ volatile("" ::: "memory");
    return (struct virtq_desc){get_le64(bytes), get_le32(bytes + 8), get_le16(bytes + 12),
                               get_le16(bytes + 14)};
}

bool virtq_table_open(struct virtq *queue, const struct virtq_desc *desc, struct virtq_table *table)
{
    size_t mapped = 0;
    if (!queue->indirect) {
        virtio_broken(queue->device, "queue %u: an indirect descriptor was not negotiated",
                      queue->index);
        return false;
    }
    table->gpa = desc->addr;
    table->entries = desc->len / VIRTQ_DESC_SIZE;
    if (!desc->len || desc->len % VIRTQ_DESC_SIZE || table->entries > queue->segments_max) {
        virtio_broken(queue->device, "queue %u: an indirect table of %u bytes", queue->index,
                      desc->len);
        return false;
    }
    table->host = gmem_map(queue_gmem(queue), desc->addr, desc->len, GMEM_READ, &mapped);
    if (mapped < desc->len)
        table->host = NULL;
    return true;
}

void virtq_table_close(struct virtq *queue, struct virtq_table *table)
{
    if (table->host)
        gmem_unmap(queue_gmem(queue), (void *)(uintptr_t)table->host,
                   (size_t)table->entries * VIRTQ_DESC_SIZE, GMEM_READ, 0);
}

bool virtq_table_entry(struct virtq *queue, const struct virtq_table *table, unsigned index,
                       struct virtq_desc *desc)
{
    uint8_t bytes[VIRTQ_DESC_SIZE];
    uint64_t gpa;
    if (table->host) {
        *desc = virtq_desc_copy(table->host + (size_t)index * VIRTQ_DESC_SIZE);
        return true;
    }
    if (!checked_add(table->gpa, (uint64_t)index * VIRTQ_DESC_SIZE, &gpa) ||
        gmem_read(queue_gmem(queue), gpa, bytes, sizeof(bytes)) < 0) {
        virtio_broken(queue->device, "queue %u: an indirect table at 0x%llx outside RAM",
                      queue->index, (unsigned long long)table->gpa);
        return false;
    }
    *desc = virtq_desc_copy(bytes);
    return true;
}

bool virtq_chain_add(struct virtq_chain *chain, uint64_t gpa, uint32_t len, bool device_writes)
{
    struct virtq *queue = chain->queue;
    struct virtq_req *req = &chain->slot->req;
    if (++chain->descriptors > queue->segments_max) {
        virtio_broken(queue->device, "queue %u: a chain of more than %u descriptors", queue->index,
                      queue->segments_max);
        return false;
    }
    if (!device_writes && req->in_count) {
        virtio_broken(queue->device, "queue %u: a readable buffer after a writable one",
                      queue->index);
        return false;
    }
    if (req->out_len + req->in_len + len > UINT32_MAX) {
        virtio_broken(queue->device, "queue %u: a chain of 4 GiB or more", queue->index);
        return false;
    }
    while (len) {
        size_t mapped;
        void *host =
            gmem_map(queue_gmem(queue), gpa, len, device_writes ? GMEM_WRITE : GMEM_READ, &mapped);
        if (!host || chain->segments == queue->segments_max + VIRTQ_CROSSINGS_MAX) {
            virtio_broken(queue->device, "queue %u: a buffer of %u bytes at 0x%llx outside RAM",
                          queue->index, len, (unsigned long long)gpa);
            return false;
        }
        chain->slot->iov[chain->segments++] = (struct iovec){host, mapped};
        if (device_writes) {
            req->in_count++;
            req->in_len += mapped;
        } else {
            req->out_count++;
            req->out_len += mapped;
        }
        gpa += mapped;
        len -= (uint32_t)mapped;
    }
    return true;
}

static struct virtq_slot *slot_take(struct virtq *queue)
{
    struct virtq_slot *slot = queue->free;
    if (slot) {
        queue->free = slot->next_free;
    } else if (queue->slots_touched < queue->size) {
        slot = (struct virtq_slot *)(void *)(queue->slots +
                                             queue->slot_stride * queue->slots_touched++);
        slot->req.queue = queue;
        slot->req.device_data = (uint8_t *)slot + queue->slot_stride -
                                ALIGN_UP((size_t)queue->device->request_extra, (size_t)16);
    }
    return slot;
}

static void slot_give(struct virtq *queue, struct virtq_slot *slot)
{
    slot->next_free = queue->free;
    queue->free = slot;
}

/* `written`: of the device-writable bytes, from the start. */
static void return_segments(struct virtq *queue, struct virtq_req *req, uint64_t written)
{
    struct gmem *gmem = queue_gmem(queue);
    for (unsigned i = 0; i < req->out_count; i++)
        gmem_unmap(gmem, req->out[i].iov_base, req->out[i].iov_len, GMEM_READ, 0);
    for (unsigned i = 0; i < req->in_count; i++) {
        size_t here = MIN(written, (uint64_t)req->in[i].iov_len);
        gmem_unmap(gmem, req->in[i].iov_base, req->in[i].iov_len, GMEM_WRITE, here);
        written -= here;
    }
}

static void set_kicks(struct virtq *queue, bool on)
{
    queue->kicks_on = on;
    queue->ring->set_kicks(queue, on);
    if (on) /* the driver must see this before we look for what it added meanwhile */
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Like ring->available(), asking for a doorbell when there is nothing. */
static int available(struct virtq *queue)
{
    int count = queue->ring->available(queue);
    if (count == 0 && !queue->kicks_refused) {
        set_kicks(queue, true);
        count = queue->ring->available(queue);
    }
    return count;
}

struct virtq_req *virtq_pop(struct virtq *queue)
{
    /* At the end of its turn the queue's loop comes back by itself, so no doorbell is asked for. */
    if (!virtq_running(queue) || queue->turn == 1 || available(queue) <= 0)
        return NULL;
    if (queue->turn)
        queue->turn--;
    /* With an event index the driver stops by itself once it has passed the index. */
    if (queue->kicks_on && !queue->event_idx)
        set_kicks(queue, false);
    queue->kicks_on = false;
    struct virtq_slot *slot = slot_take(queue);
    if (!slot) {
        virtio_broken(queue->device, "queue %u: more requests than the ring holds", queue->index);
        return NULL;
    }
    struct virtq_req *req = &slot->req;
    req->out_count = req->in_count = 0;
    req->out_len = req->in_len = 0;
    struct virtq_chain chain = {.queue = queue, .slot = slot};
    bool good = queue->ring->gather(&chain);
    req->out = slot->iov;
    req->in = slot->iov + req->out_count;
    if (!good) {
        return_segments(queue, req, 0);
        slot_give(queue, slot);
        return NULL;
    }
    queue->in_flight++;
    queue->descriptors_in_flight += req->chain_len;
    virtq_inflight_take(queue, req->id);
    return req;
}

static size_t copy_segments(const struct iovec *iov, unsigned count, uint64_t offset, void *bytes,
                            size_t len, bool to_guest)
{
    uint8_t *at = bytes;
    size_t done = 0;
    for (unsigned i = 0; i < count && done < len; i++) {
        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        size_t here = MIN(len - done, iov[i].iov_len - offset);
        uint8_t *guest = (uint8_t *)iov[i].iov_base + offset;
        if (to_guest)
            memcpy(guest, at + done, here);
        else
            memcpy(at + done, guest, here);
        done += here;
        offset = 0;
    }
    return done;
}

size_t virtq_req_read(const struct virtq_req *req, uint64_t offset, void *bytes, size_t len)
{
    size_t done = copy_segments(req->out, req->out_count, offset, bytes, len, false);
    __asm__ volatile("" ::: "memory"); /* only the copy counts from here on */
    return done;
}

size_t virtq_req_write(struct virtq_req *req, uint64_t offset, const void *bytes, size_t len)
{
    return copy_segments(req->in, req->in_count, offset, (void *)(uintptr_t)bytes, len, true);
}

static void complete(struct virtq *queue, const struct virtq_req *req, uint32_t written)
{
    queue->ring->put_used(queue, req, written);
    TRACE(virtqueue_complete, queue->device->pci.device.id, queue->index, req->id, written);
}

static void release(struct virtq *queue, struct virtq_req *req)
{
    queue->in_flight--;
    queue->descriptors_in_flight -= req->chain_len;
    slot_give(queue, container_of(req, struct virtq_slot, req));
}

void virtq_push(struct virtq *queue, struct virtq_req *req, uint32_t written)
{
    if (!queue->ring)
        return; /* the device kept it beyond a drain, which has been logged */
    written = (uint32_t)MIN((uint64_t)written, req->in_len);
    return_segments(queue, req, written);
    complete(queue, req, written);
    virtq_inflight_used(queue, req->id);
    queue->ring->publish(queue);
    virtq_inflight_shown(queue, req->id);
    virtq_count(&queue->stats.requests, 1);
    release(queue, req);
}

void virtq_push_many(struct virtq *queue, struct virtq_req *const *reqs, const uint32_t *written,
                     unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint32_t len = (uint32_t)MIN((uint64_t)written[i], reqs[i]->in_len);
        return_segments(queue, reqs[i], len);
        complete(queue, reqs[i], len);
        release(queue, reqs[i]);
    }
    if (count)
        queue->ring->publish(queue);
    virtq_count(&queue->stats.requests, count);
}

void virtq_unpop(struct virtq *queue, struct virtq_req *req)
{
    return_segments(queue, req, 0);
    queue->ring->ungather(queue, req);
    release(queue, req);
}

void virtq_notify(struct virtq *queue)
{
    if (!queue->unsignalled || !queue->ring)
        return;
    /* The used entries must be visible before the driver's wish is read. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    bool wanted = queue->ring->wants_interrupt(queue);
    queue->unsignalled = 0;
    if (!wanted)
        return;
    virtq_count(&queue->stats.interrupts, 1);
    virtio_interrupt(queue->device, queue->vector, 1);
}

void virtq_get_stats(const struct virtq *queue, struct virtq_stats *stats)
{
    *stats = (struct virtq_stats){
        .kicks = __atomic_load_n(&queue->stats.kicks, __ATOMIC_RELAXED),
        .requests = __atomic_load_n(&queue->stats.requests, __ATOMIC_RELAXED),
        .interrupts = __atomic_load_n(&queue->stats.interrupts, __ATOMIC_RELAXED),
    };
}

void virtq_kicks_enable(struct virtq *queue, bool on)
{
    queue->kicks_refused = !on;
    if (queue->ring && virtq_running(queue) && (on || !queue->event_idx))
        set_kicks(queue, on);
}

bool virtq_empty(struct virtq *queue)
{
    return !virtq_running(queue) || queue->ring->available(queue) <= 0;
}

unsigned virtq_index(const struct virtq *queue)
{
    return queue->index;
}

bool virtq_ready(const struct virtq *queue)
{
    return queue->enabled;
}

struct virtio_device *virtq_device(const struct virtq *queue)
{
    return queue->device;
}

void virtq_wrote(struct virtq *queue, unsigned area, size_t offset, size_t len)
{
    gmem_mark_written(queue_gmem(queue), queue->area[area] + offset, len);
}

/* Borrows the ring's areas. */
static bool map_areas(struct virtq *queue)
{
    static const char *const names[] = {"descriptors", "driver area", "device area"};
    queue->ring->area_sizes(queue, queue->area_size);
    for (unsigned i = 0; i < 3; i++) {
        size_t mapped = 0;
        /* Descriptors of a packed ring are written back, so all areas of it are writable. */
        bool writes = i == 2 || (i == 0 && queue->ring == &virtq_packed);
        queue->host[i] = gmem_map(queue_gmem(queue), queue->area[i], queue->area_size[i],
                                  writes ? GMEM_WRITE : GMEM_READ, &mapped);
        if (!queue->host[i] || mapped < queue->area_size[i] ||
            queue->area[i] % queue->ring->alignment[i]) {
            virtio_broken(queue->device, "queue %u: the %s at 0x%llx, not an aligned place in RAM",
                          queue->index, names[i], (unsigned long long)queue->area[i]);
            return false;
        }
    }
    return true;
}

static bool allocate_slots(struct virtq *queue)
{
    size_t extra = ALIGN_UP((size_t)queue->device->request_extra, (size_t)16);
    size_t iov = (queue->segments_max + VIRTQ_CROSSINGS_MAX) * sizeof(struct iovec);
    queue->slot_stride = ALIGN_UP(sizeof(struct virtq_slot) + iov, (size_t)16) + extra;
    /* Zero pages: only the slots that are in flight together ever cost memory. */
    queue->slots = calloc(queue->size, queue->slot_stride);
    queue->slots_touched = 0;
    queue->free = NULL;
    return queue->slots != NULL;
}

bool virtq_enable(struct virtq *queue)
{
    struct virtio_device *device = queue->device;
    bool packed = virtio_has_feature(device, VIRTIO_F_RING_PACKED);
    virtq_disable(queue);
    queue->ring = packed ? &virtq_packed : &virtq_split;
    queue->event_idx = virtio_has_feature(device, VIRTIO_F_EVENT_IDX);
    queue->indirect = virtio_has_feature(device, VIRTIO_F_INDIRECT_DESC);
    /* Drivers put more entries into an indirect table than a small ring has. */
    queue->segments_max = MAX(queue->size_max, (uint16_t)256);
    if (!queue->size || queue->size > queue->size_max || (!packed && !is_power_of_2(queue->size))) {
        virtio_broken(device, "queue %u: a ring of %u entries", queue->index, queue->size);
        queue->ring = NULL;
        return false;
    }
    if (!map_areas(queue)) {
        queue->ring = NULL;
        return false;
    }
    if (!allocate_slots(queue)) {
        queue->ring = NULL;
        virtio_broken(device, "queue %u: no memory for its requests", queue->index);
        return false;
    }
    queue->in_flight = queue->descriptors_in_flight = 0;
    queue->kicks_on = queue->kicks_refused = false;
    return true;
}

void virtq_disable(struct virtq *queue)
{
    if (!queue->ring)
        return;
    for (unsigned i = 0; i < 3; i++)
        gmem_unmap(queue_gmem(queue), queue->host[i], queue->area_size[i],
                   i == 2 ? GMEM_WRITE : GMEM_READ, 0);
    free(queue->slots);
    free(queue->inflight.again);
    queue->inflight.again = NULL;
    queue->inflight.again_count = queue->inflight.again_next = 0;
    queue->slots = NULL;
    queue->free = NULL;
    queue->ring = NULL;
    queue->in_flight = queue->descriptors_in_flight = 0;
}

void virtq_reset_registers(struct virtq *queue)
{
    virtq_disable(queue);
    queue->size = queue->size_max;
    queue->vector = VIRTIO_NO_VECTOR;
    queue->enabled = false;
    memset(queue->area, 0, sizeof(queue->area));
    queue->avail = queue->used = queue->unsignalled = 0;
    /* The counters of a packed ring begin at 1; a split ring has none. */
    queue->avail_wrap = queue->used_wrap = true;
}

static struct err *check(const void *staged)
{
    const struct virtq *queue = staged;
    /* Until it is enabled the guest may have any number in the register. */
    if (queue->enabled && queue->size > queue->size_max)
        return err_new("queue %u has a ring of %u entries, more than %u", queue->index, queue->size,
                       queue->size_max);
    return NULL;
}

static const struct state_field fields[] = {
    STATE_U16(1, virtq, size),        STATE_U16(2, virtq, vector),
    STATE_BOOL(3, virtq, enabled),    STATE_U64(4, virtq, area),
    STATE_U16(5, virtq, avail),       STATE_U16(6, virtq, used),
    STATE_BOOL(7, virtq, avail_wrap), STATE_BOOL(8, virtq, used_wrap),
    STATE_U16(9, virtq, unsignalled),
};

const struct state_table virtq_state = {
    .name = "virtqueue",
    .version = 1,
    .min_version = 1,
    .size = sizeof(struct virtq),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .check = check,
};
