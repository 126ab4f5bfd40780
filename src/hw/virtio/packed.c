/*
 * The packed virtqueue (virtio 1.2, section 2.8): one ring of descriptors that both sides write,
 * each side with a wrap counter that tells this round's entries from the last one's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "base/bytes.h"
#include "hw/virtio/virtq.h"

enum area { RING, DRIVER_EVENT, DEVICE_EVENT };

#define FLAG_AVAIL (1u << 7)
#define FLAG_USED (1u << 15)
#define EVENT_SIZE 4
/* An event area is one 32-bit word: place and wrap counter, then what is wanted. */
#define EVENT_ENABLE 0u
#define EVENT_DISABLE 1u
#define EVENT_AT_PLACE 2u
#define EVENT_WRAP (1u << 15)

static void area_sizes(const struct virtq *queue, size_t sizes[3])
{
    sizes[RING] = (size_t)queue->size * VIRTQ_DESC_SIZE;
    sizes[DRIVER_EVENT] = EVENT_SIZE;
    sizes[DEVICE_EVENT] = EVENT_SIZE;
}

static uint8_t *entry(const struct virtq *queue, unsigned place)
{
    return queue->host[RING] + (size_t)place * VIRTQ_DESC_SIZE;
}

static uint16_t load_flags(const struct virtq *queue, unsigned place)
{
    const void *at = entry(queue, place) + 14;
    return le16toh(__atomic_load_n((const uint16_t *)at, __ATOMIC_ACQUIRE));
}

static void advance(const struct virtq *queue, uint16_t *place, bool *wrap, unsigned steps)
{
    unsigned next = *place + steps;
    if (next >= queue->size) {
        next -= queue->size;
        *wrap = !*wrap;
    }
    *place = (uint16_t)next;
}

static int available(struct virtq *queue)
{
    uint16_t flags = load_flags(queue, queue->avail);
    bool avail = flags & FLAG_AVAIL, used = flags & FLAG_USED;
    return avail == queue->avail_wrap && used != queue->avail_wrap;
}

/* The entries of a table stand in order; only their direction flag means something. */
static bool gather_table(struct virtq_chain *chain, const struct virtq_desc *pointer)
{
    struct virtq_table table;
    struct virtq_desc desc;
    bool good = true;
    if (!virtq_table_open(chain->queue, pointer, &table))
        return false;
    for (unsigned i = 0; i < table.entries && good; i++)
        good = virtq_table_entry(chain->queue, &table, i, &desc) &&
               virtq_chain_add(chain, desc.addr, desc.len, desc.b & VIRTQ_DESC_WRITE);
    virtq_table_close(chain->queue, &table);
    return good;
}

static bool gather(struct virtq_chain *chain)
{
    struct virtq *queue = chain->queue;
    struct virtq_req *req = &chain->slot->req;
    unsigned limit = queue->size - queue->descriptors_in_flight;
    uint16_t place = queue->avail;
    bool wrap = queue->avail_wrap;
    for (unsigned walked = 1; walked <= limit; walked++) {
        struct virtq_desc desc = virtq_desc_copy(entry(queue, place));
        bool more = desc.b & VIRTQ_DESC_NEXT;
        if (desc.b & VIRTQ_DESC_INDIRECT) {
            if (more || walked > 1) {
                virtio_broken(queue->device, "queue %u: a table within a chain", queue->index);
                return false;
            }
            if (!gather_table(chain, &desc))
                return false;
        } else if (!virtq_chain_add(chain, desc.addr, desc.len, desc.b & VIRTQ_DESC_WRITE)) {
            return false;
        }
        advance(queue, &place, &wrap, 1);
        if (!more) {
            queue->avail = place;
            queue->avail_wrap = wrap;
            req->id = desc.a;
            req->chain_len = (uint16_t)walked;
            return true;
        }
    }
    virtio_broken(queue->device, "queue %u: a chain longer than the free part of the ring",
                  queue->index);
    return false;
}

static void ungather(struct virtq *queue, const struct virtq_req *req)
{
    if (queue->avail < req->chain_len) {
        queue->avail = (uint16_t)(queue->avail + queue->size);
        queue->avail_wrap = !queue->avail_wrap;
    }
    queue->avail = (uint16_t)(queue->avail - req->chain_len);
}

static void put_used(struct virtq *queue, const struct virtq_req *req, uint32_t written)
{
    uint8_t *at = entry(queue, queue->used);
    uint16_t flags = (uint16_t)((queue->used_wrap ? FLAG_AVAIL | FLAG_USED : 0) |
                                (req->in_count ? VIRTQ_DESC_WRITE : 0));
    put_le32(at + 8, written);
    put_le16(at + 12, req->id);
    if (queue->held) {
        __atomic_store_n((uint16_t *)(void *)(at + 14), htole16(flags), __ATOMIC_RELEASE);
    } else {
        queue->held = true;
        queue->held_at = queue->used;
        queue->held_flags = flags;
    }
    virtq_wrote(queue, RING, (size_t)queue->used * VIRTQ_DESC_SIZE, VIRTQ_DESC_SIZE);
    advance(queue, &queue->used, &queue->used_wrap, req->chain_len);
    queue->unsignalled = (uint16_t)MIN((unsigned)queue->unsignalled + req->chain_len, 0xffffu);
}

/* The driver looks at used descriptors in order: all wait for the first one's flags. */
static void publish(struct virtq *queue)
{
    if (!queue->held)
        return;
    queue->held = false;
    __atomic_store_n((uint16_t *)(void *)(entry(queue, queue->held_at) + 14),
                     htole16(queue->held_flags), __ATOMIC_RELEASE);
    virtq_wrote(queue, RING, (size_t)queue->held_at * VIRTQ_DESC_SIZE, VIRTQ_DESC_SIZE);
}

static bool wants_interrupt(struct virtq *queue)
{
    uint32_t word = le32toh(__atomic_load_n(
        (const uint32_t *)(const void *)queue->host[DRIVER_EVENT], __ATOMIC_ACQUIRE));
    unsigned wish = word >> 16 & 3;
    if (wish != EVENT_AT_PLACE || !queue->event_idx)
        return wish != EVENT_DISABLE;
    if (queue->unsignalled >= queue->size)
        return true;
    /* Places of the round before count below zero. */
    uint16_t event = word & (EVENT_WRAP - 1);
    if (!!(word & EVENT_WRAP) != queue->used_wrap)
        event = (uint16_t)(event - queue->size);
    return virtq_need_event(event, queue->used, (uint16_t)(queue->used - queue->unsignalled));
}

static void set_kicks(struct virtq *queue, bool on)
{
    uint32_t word = on ? EVENT_ENABLE << 16 : EVENT_DISABLE << 16;
    if (on && queue->event_idx)
        word = queue->avail | (queue->avail_wrap ? EVENT_WRAP : 0) | EVENT_AT_PLACE << 16;
    else if (!on && queue->event_idx)
        return;
    __atomic_store_n((uint32_t *)(void *)queue->host[DEVICE_EVENT], htole32(word),
                     __ATOMIC_RELEASE);
    virtq_wrote(queue, DEVICE_EVENT, 0, EVENT_SIZE);
}

const struct virtq_ring virtq_packed = {
    .area_sizes = area_sizes,
    .alignment = {16, 4, 4},
    .available = available,
    .gather = gather,
    .ungather = ungather,
    .put_used = put_used,
    .publish = publish,
    .wants_interrupt = wants_interrupt,
    .set_kicks = set_kicks,
};
