/*
 * The split virtqueue (virtio 1.2, section 2.7): descriptor table, available ring, used ring.
 *
 * `avail` and `used` count without end; the place in a ring is the count modulo its size.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "base/bytes.h"
#include "hw/virtio/virtq.h"

enum area { DESC, AVAIL, USED };

#define AVAIL_NO_INTERRUPT 1u
#define USED_NO_NOTIFY 1u
/* Both rings: flags, index, entries, and the other side's event index. */
#define RING_INDEX 2
#define RING_ENTRIES 4
#define AVAIL_ENTRY 2
#define USED_ENTRY 8

static uint16_t load16(const uint8_t *at)
{
    return le16toh(__atomic_load_n((const uint16_t *)(const void *)at, __ATOMIC_ACQUIRE));
}

static void store16(uint8_t *at, uint16_t value)
{
    __atomic_store_n((uint16_t *)(void *)at, htole16(value), __ATOMIC_RELEASE);
}

static void area_sizes(const struct virtq *queue, size_t sizes[3])
{
    size_t event = queue->event_idx ? 2 : 0;
    sizes[DESC] = (size_t)queue->size * VIRTQ_DESC_SIZE;
    sizes[AVAIL] = RING_ENTRIES + (size_t)queue->size * AVAIL_ENTRY + event;
    sizes[USED] = RING_ENTRIES + (size_t)queue->size * USED_ENTRY + event;
}

static int available(struct virtq *queue)
{
    uint16_t waiting = (uint16_t)(load16(queue->host[AVAIL] + RING_INDEX) - queue->avail);
    if (waiting > queue->size) {
        virtio_broken(queue->device, "queue %u: the available index jumped by %u", queue->index,
                      waiting);
        return -1;
    }
    return waiting + (int)virtq_inflight_left(queue);
}

/* The entries of an indirect table, which are chained within it. */
static bool walk_table(struct virtq_chain *chain, const struct virtq_table *table)
{
    struct virtq *queue = chain->queue;
    unsigned at = 0;
    for (unsigned walked = 0; walked < table->entries; walked++) {
        struct virtq_desc desc;
        if (!virtq_table_entry(queue, table, at, &desc))
            return false;
        if (desc.a & VIRTQ_DESC_INDIRECT) {
            virtio_broken(queue->device, "queue %u: an indirect table in another", queue->index);
            return false;
        }
        if (!virtq_chain_add(chain, desc.addr, desc.len, desc.a & VIRTQ_DESC_WRITE))
            return false;
        if (!(desc.a & VIRTQ_DESC_NEXT))
            return true;
        at = desc.b;
        if (at >= table->entries)
            break;
    }
    virtio_broken(queue->device, "queue %u: an indirect table without end", queue->index);
    return false;
}

static bool gather_table(struct virtq_chain *chain, const struct virtq_desc *pointer)
{
    struct virtq_table table;
    if (!virtq_table_open(chain->queue, pointer, &table))
        return false;
    bool good = walk_table(chain, &table);
    virtq_table_close(chain->queue, &table);
    return good;
}

static bool gather(struct virtq_chain *chain)
{
    struct virtq *queue = chain->queue;
    unsigned place = queue->avail % queue->size;
    bool again = virtq_inflight_left(queue);
    uint16_t head = again ? virtq_inflight_again(queue)
                          : load16(queue->host[AVAIL] + RING_ENTRIES + place * AVAIL_ENTRY);
    uint16_t at = head;
    for (unsigned walked = 0; walked < queue->size; walked++) {
        if (at >= queue->size) {
            virtio_broken(queue->device, "queue %u: descriptor %u of %u", queue->index, at,
                          queue->size);
            return false;
        }
        struct virtq_desc desc = virtq_desc_copy(queue->host[DESC] + at * VIRTQ_DESC_SIZE);
        bool more = desc.a & VIRTQ_DESC_NEXT;
        if (desc.a & VIRTQ_DESC_INDIRECT) {
            if (more) {
                virtio_broken(queue->device, "queue %u: a chain that goes on after a table",
                              queue->index);
                return false;
            }
            if (!gather_table(chain, &desc))
                return false;
        } else if (!virtq_chain_add(chain, desc.addr, desc.len, desc.a & VIRTQ_DESC_WRITE)) {
            return false;
        }
        if (!more) {
            queue->avail += !again;
            chain->slot->req.id = head;
            chain->slot->req.chain_len = 1;
            return true;
        }
        at = desc.b;
    }
    virtio_broken(queue->device, "queue %u: a chain without end", queue->index);
    return false;
}

static void ungather(struct virtq *queue, const struct virtq_req *req)
{
    (void)req;
    queue->avail--;
}

static void put_used(struct virtq *queue, const struct virtq_req *req, uint32_t written)
{
    size_t at = RING_ENTRIES + (size_t)(queue->used % queue->size) * USED_ENTRY;
    put_le32(queue->host[USED] + at, req->id);
    put_le32(queue->host[USED] + at + 4, written);
    virtq_wrote(queue, USED, at, USED_ENTRY);
    queue->used++;
    queue->unsignalled++;
}

static void publish(struct virtq *queue)
{
    store16(queue->host[USED] + RING_INDEX, queue->used);
    virtq_wrote(queue, USED, RING_INDEX, 2);
}

static bool wants_interrupt(struct virtq *queue)
{
    const uint8_t *avail = queue->host[AVAIL];
    if (!queue->event_idx)
        return !(load16(avail) & AVAIL_NO_INTERRUPT);
    uint16_t event = load16(avail + RING_ENTRIES + (size_t)queue->size * AVAIL_ENTRY);
    return virtq_need_event(event, queue->used, (uint16_t)(queue->used - queue->unsignalled));
}

static void set_kicks(struct virtq *queue, bool on)
{
    uint8_t *used = queue->host[USED];
    if (!queue->event_idx) {
        store16(used, on ? 0 : USED_NO_NOTIFY);
        virtq_wrote(queue, USED, 0, 2);
    } else if (on) {
        size_t at = RING_ENTRIES + (size_t)queue->size * USED_ENTRY;
        store16(used + at, queue->avail);
        virtq_wrote(queue, USED, at, 2);
    }
}

const struct virtq_ring virtq_split = {
    .area_sizes = area_sizes,
    .alignment = {16, 2, 4},
    .available = available,
    .gather = gather,
    .ungather = ungather,
    .put_used = put_used,
    .publish = publish,
    .wants_interrupt = wants_interrupt,
    .set_kicks = set_kicks,
};
