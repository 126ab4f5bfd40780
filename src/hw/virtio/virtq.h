/*
 * Inside of a virtqueue: what virtq.c, the two ring layouts and the transport share.
 *
 * Everything is covered by the device lock; pop and push run on the queue's loop besides.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_VIRTIO_VIRTQ_H
#define TENON_HW_VIRTIO_VIRTQ_H

#include "hw/virtio/virtio.h"

/* Reserved feature bits (virtio 1.2, section 6). */
enum virtio_feature {
    VIRTIO_F_INDIRECT_DESC = 28,
    VIRTIO_F_EVENT_IDX = 29,
    VIRTIO_F_VERSION_1 = 32,
    VIRTIO_F_RING_PACKED = 34,
    VIRTIO_F_RING_RESET = 40,
};

enum virtio_status {
    VIRTIO_STATUS_ACKNOWLEDGE = 1,
    VIRTIO_STATUS_DRIVER = 2,
    VIRTIO_STATUS_DRIVER_OK = 4,
    VIRTIO_STATUS_FEATURES_OK = 8,
    VIRTIO_STATUS_NEEDS_RESET = 64,
    VIRTIO_STATUS_FAILED = 128,
};

#define VIRTIO_NO_VECTOR 0xffff

/* Descriptor flags, of both layouts. */
#define VIRTQ_DESC_NEXT 1u
#define VIRTQ_DESC_WRITE 2u
#define VIRTQ_DESC_INDIRECT 4u
#define VIRTQ_DESC_SIZE 16u

/* More host segments than descriptors: a segment that crosses from one RAM region to the next. */
#define VIRTQ_CROSSINGS_MAX 16

/* A request's memory. `next_free` links the free ones. */
struct virtq_slot {
    struct virtq_req req;
    struct virtq_slot *next_free;
    struct iovec iov[];
};

/* A descriptor copied out of guest memory: 16 bytes whose last 4 the layouts read differently. */
struct virtq_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t a, b; /* split: flags, next; packed: id, flags */
};

/* A chain while it is gathered. */
struct virtq_chain {
    struct virtq *queue;
    struct virtq_slot *slot;
    unsigned segments;
    unsigned descriptors; /* including those of an indirect table */
};

/* One ring layout. */
struct virtq_ring {
    /* Bytes of the three areas for this queue's size. */
    void (*area_sizes)(const struct virtq *queue, size_t sizes[3]);
    unsigned alignment[3];
    /* How many chains wait: 0, some, or -1 after virtio_broken(). */
    int (*available)(struct virtq *queue);
    /* Reads the next chain into slot->req and steps over it; false after virtio_broken(). */
    bool (*gather)(struct virtq_chain *chain);
    /* Steps back over the chain that was gathered last. */
    void (*ungather)(struct virtq *queue, const struct virtq_req *req);
    void (*put_used)(struct virtq *queue, const struct virtq_req *req, uint32_t written);
    /* Shows the driver what put_used() added. */
    void (*publish)(struct virtq *queue);
    /* Does the driver want to hear of the last `queue->unsignalled` used entries? */
    bool (*wants_interrupt)(struct virtq *queue);
    void (*set_kicks)(struct virtq *queue, bool on);
};

extern const struct virtq_ring virtq_split, virtq_packed;

/* Requests in flight, written down where another process finds them (inflight.c). */
struct virtq_inflight {
    uint8_t *region; /* borrowed, virtq_inflight_size() bytes; NULL: nobody wants to know */
    uint64_t counter;
    uint16_t *again; /* owned: heads that come once more, oldest first */
    unsigned again_count, again_next;
};

struct virtq {
    struct virtio_device *device;
    struct loop *loop;
    uint32_t index;
    uint16_t size_max;

    /* Registers. */
    uint16_t size, vector;
    bool enabled;
    uint64_t area[3]; /* guest addresses: descriptors, driver area, device area */

    /* Place in the ring. Split: free-running; packed: slot and wrap counter. */
    uint16_t avail, used;
    bool avail_wrap, used_wrap;
    bool held; /* packed: the first used descriptor that publish() is to show */
    uint16_t held_at, held_flags;
    uint16_t unsignalled; /* used entries (packed: descriptors) since the last interrupt decision */

    /* Derived while enabled. */
    const struct virtq_ring *ring;
    uint8_t *host[3]; /* the three areas, borrowed */
    size_t area_size[3];
    bool event_idx, indirect;
    bool kicks_on;      /* what the driver was told */
    bool kicks_refused; /* the device polls */
    unsigned in_flight, descriptors_in_flight;
    unsigned turn; /* pops left for this doorbell, plus one; 0: outside of one */
    unsigned segments_max;

    uint8_t *slots; /* owned: `size` slots */
    size_t slot_stride;
    unsigned slots_touched; /* slots beyond were never used */
    struct virtq_slot *free;

    int kick_fd;
    struct loop_fd kick_watch;
    uint64_t doorbell; /* guest address that rings kick_fd without an exit to us; 0: none */
    bool drain_wanted; /* the queue's loop is to drain it */
    bool resetting;    /* ... and then to reset it */

    struct virtq_inflight inflight;
    struct virtq_stats stats; /* since the machine was built */
};

/* One writer, who holds the device lock; others may look at any time. */
static inline void virtq_count(uint64_t *counter, uint64_t more)
{
    __atomic_store_n(counter, *counter + more, __ATOMIC_RELAXED);
}

/* virtq.c: from the driver's registers to a usable ring; false after virtio_broken(). */
bool virtq_enable(struct virtq *queue);
/* Gives the ring's memory back; the registers stay. No request is in flight. */
void virtq_disable(struct virtq *queue);
void virtq_reset_registers(struct virtq *queue);

/* inflight.c: bytes for a ring of so many entries. */
size_t virtq_inflight_size(uint16_t entries);
/*
 * On a ring that was just enabled: what the region says is in flight comes again, before what is
 * available. False after virtio_broken().
 */
bool virtq_inflight_begin(struct virtq *queue);
void virtq_inflight_take(struct virtq *queue, uint16_t head);
/* Around publish(): the request is among the used ones that are about to be shown; it was shown. */
void virtq_inflight_used(struct virtq *queue, uint16_t head);
void virtq_inflight_shown(struct virtq *queue, uint16_t head);
/* How many are to come again, and the head of the next of them. */
unsigned virtq_inflight_left(const struct virtq *queue);
uint16_t virtq_inflight_again(struct virtq *queue);

/* For the ring layouts. */
struct virtq_desc virtq_desc_copy(const uint8_t *at);
/* Adds one buffer to the chain; false after virtio_broken(). */
bool virtq_chain_add(struct virtq_chain *chain, uint64_t gpa, uint32_t len, bool device_writes);
/* An indirect table: `host` is set when it lies in one region, as every sane one does. */
struct virtq_table {
    uint64_t gpa;
    const uint8_t *host;
    unsigned entries;
};

/* Checks an indirect descriptor and borrows its table; false after virtio_broken(). */
bool virtq_table_open(struct virtq *queue, const struct virtq_desc *desc,
                      struct virtq_table *table);
void virtq_table_close(struct virtq *queue, struct virtq_table *table);
/* Copies entry `index`; false after virtio_broken(). */
bool virtq_table_entry(struct virtq *queue, const struct virtq_table *table, unsigned index,
                       struct virtq_desc *desc);
/* Marks bytes of an area that the device wrote. */
void virtq_wrote(struct virtq *queue, unsigned area, size_t offset, size_t len);

/* Would an event index of `event` be passed by a step from `old` to `now`? (section 2.7.10) */
static inline bool virtq_need_event(uint16_t event, uint16_t now, uint16_t old)
{
    return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

/* virtio.c */
void virtq_kick(struct virtq *queue);   /* the driver's doorbell; any thread */
void virtq_signal(struct virtq *queue); /* wakes the queue's loop otherwise; any thread */
bool virtq_running(const struct virtq *queue);
void virtio_set_status(struct virtio_device *device, uint8_t status);
void virtq_guest_reset(struct virtq *queue);
void virtio_interrupt(struct virtio_device *device, uint16_t vector, uint8_t isr);

/* virtio_pci.c */
void virtio_pci_build(struct virtio_device *device);
void virtio_pci_doorbells(struct virtio_device *device);
void virtio_pci_doorbells_off(struct virtio_device *device);

extern const struct state_table virtq_state;

#endif
