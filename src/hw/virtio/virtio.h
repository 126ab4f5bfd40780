/*
 * Virtio 1.2 devices and their queues, seen from a device model.
 *
 * A device never sees a ring: it pops requests, reads and writes their bytes, and pushes them back.
 * Split and packed rings, indirect tables, event index and the transport lie behind this header. A
 * chain is bounded and loop-checked once, when it is popped; a bad ring sets DEVICE_NEEDS_RESET and
 * pops nothing more.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_VIRTIO_VIRTIO_H
#define TENON_HW_VIRTIO_VIRTIO_H

#include <pthread.h>
#include <sys/uio.h>

#include "base/base.h"
#include "base/log.h"
#include "hw/core/device.h"
#include "hw/pci/pci.h"

#define VIRTQ_SIZE_MAX 1024
#define VIRTIO_QUEUES_MAX 66

/* Device types (virtio 1.2, section 5). */
enum virtio_id {
    VIRTIO_ID_NET = 1,
    VIRTIO_ID_BLOCK = 2,
    VIRTIO_ID_CONSOLE = 3,
    VIRTIO_ID_RNG = 4,
    VIRTIO_ID_SCSI = 8,
};

struct virtq;
struct virtio_device;

/*
 * One request: a descriptor chain. Owned by the queue; the device holds it from virtq_pop to
 * virtq_push. The segments are borrowed guest memory: bytes there may change at any time, so the
 * device copies headers with virtq_req_read and validates the copy.
 */
struct virtq_req {
    struct virtq *queue;
    uint16_t id;              /* head index or buffer id */
    uint16_t chain_len;       /* descriptors that it used (packed rings) */
    unsigned out_count;       /* device-readable segments */
    unsigned in_count;        /* device-writable segments */
    struct iovec *out, *in;   /* host addresses, borrowed from guest memory */
    uint64_t out_len, in_len; /* bytes in each direction */
    void *device_data; /* the device's own: request_extra bytes of this slot, kept over reuse */
    struct list link;  /* the device's own, while it holds the request */
};

/* Next request, or NULL: none there, or the queue is broken. On the queue's loop. */
struct virtq_req *virtq_pop(struct virtq *queue);
/* Copies from the device-readable bytes at `offset`; returns how many there were. */
size_t virtq_req_read(const struct virtq_req *req, uint64_t offset, void *bytes, size_t len);
/* Copies to the device-writable bytes at `offset`; returns how many fitted. */
size_t virtq_req_write(struct virtq_req *req, uint64_t offset, const void *bytes, size_t len);
/* Completes the request: `written` device-writable bytes from the start were filled. Frees `req`.
 */
void virtq_push(struct virtq *queue, struct virtq_req *req, uint32_t written);
/*
 * The same for several requests that the driver must see all at once: the buffers of one received
 * frame.
 */
void virtq_push_many(struct virtq *queue, struct virtq_req *const *reqs, const uint32_t *written,
                     unsigned count);
/* Puts the most recent popped request back, as if it had not been popped. */
void virtq_unpop(struct virtq *queue, struct virtq_req *req);
/* Interrupts the driver if it wants it, after one or many pushes. */
void virtq_notify(struct virtq *queue);
/* Asks for (or renounces) doorbells: a device that polls switches them off. */
void virtq_kicks_enable(struct virtq *queue, bool on);
/* Anything available? */
bool virtq_empty(struct virtq *queue);
unsigned virtq_index(const struct virtq *queue);
bool virtq_ready(const struct virtq *queue);
struct virtio_device *virtq_device(const struct virtq *queue);

/* What a kind of device provides. All run under the device lock. */
struct virtio_ops {
    uint16_t id;        /* enum virtio_id */
    uint32_t pci_class; /* 0xCCSSPP */
    /* Features that the device offers, besides those of ring and transport. */
    uint64_t (*features)(struct virtio_device *device);
    /* Device configuration space, any offset and size; bytes past the end read zero. */
    void (*config_read)(struct virtio_device *device, unsigned offset, void *bytes, unsigned len);
    void (*config_write)(struct virtio_device *device, unsigned offset, const void *bytes,
                         unsigned len); /* optional */
    /* DRIVER_OK was set: queues may be used. Optional. */
    void (*activate)(struct virtio_device *device);
    /* The device was reset, its queues are drained: back to the configuration's defaults. Optional.
     */
    void (*reset)(struct virtio_device *device);
    /*
     * The driver rang the doorbell of a queue that is ready. On the queue's loop, lock held. Pops
     * until there is nothing more; a driver that adds faster than that is cut off after two rounds
     * of the ring, and served again after the loop's other work.
     */
    void (*queue_kick)(struct virtio_device *device, struct virtq *queue);
    /* A single queue was reset by the driver, after its drain. Optional. */
    void (*queue_reset)(struct virtio_device *device, struct virtq *queue);
    /*
     * One queue is about to be reset, or (device reset, quiesce) all in turn: when it returns the
     * device holds no request of that queue. On the queue's loop, lock held; it may drop the lock
     * while it waits and take it again. virtq_pop() returns nothing meanwhile. Optional for a
     * device that completes every request before queue_kick returns.
     */
    void (*queue_drain)(struct virtio_device *device, struct virtq *queue);
};

/* First member of every virtio device; itself starts with a PCI function. */
struct virtio_device {
    struct pci_device pci;
    const struct virtio_ops *ops;
    unsigned queue_count; /* set before virtio_realize */
    uint16_t queue_size;  /* largest size of each ring, default 256 */
    struct virtq *queues; /* owned */
    struct loop *loop;    /* where queue_kick runs; set before virtio_realize, default env->loop */
    /* Set before virtio_realize, optional: queue i runs on queue_loops[i % queue_loop_count]. */
    struct loop *const *queue_loops;
    unsigned queue_loop_count;
    /*
     * Set before virtio_realize, optional: the driver is reached in another way than by PCI; gets
     * the vector of a queue, or VIRTIO_NO_VECTOR for the configuration.
     */
    void (*interrupt)(struct virtio_device *device, uint16_t vector);
    uint32_t request_extra; /* set before virtio_realize: bytes at each request's device_data */
    uint64_t
        features_off; /* set before virtio_realize: not to be offered, ring features included */

    uint64_t offered, accepted; /* feature bits */
    uint8_t status;
    uint8_t isr;
    uint8_t config_generation;
    uint16_t config_vector;
    uint32_t feature_select, driver_feature_select;
    uint16_t queue_select;
    bool needs_reset;
    struct log_limit complaints;

    /* virtio.c: work that stops or goes on. */
    bool quiesced;          /* between quiesce and resume: nothing is popped */
    bool resetting;         /* the driver wrote 0 to the status, requests are still in flight */
    unsigned drains_left;   /* queues whose loops have been asked to drain */
    pthread_cond_t drained; /* with the device lock */
    unsigned window;        /* offset of the configuration access capability */
};

/*
 * From the device's realize, after ops and queue_count are set. Builds the PCI function. The loops
 * of the queues must not run during realize and fini.
 *
 * virtio_reset, virtio_quiesce and virtio_resume take the device lock. They wait for the loops of
 * other threads, so these must still run (or run no more: then the caller does their part).
 */
struct err *virtio_realize(struct virtio_device *device);
void virtio_reset(struct virtio_device *device);
void virtio_quiesce(struct virtio_device *device);
void virtio_resume(struct virtio_device *device);
void virtio_fini(struct virtio_device *device);
/* Embedded in each device's table; call virtio_post_load from the table's post_load. */
extern const struct state_table virtio_device_state;
void virtio_post_load(struct virtio_device *device);

static inline bool virtio_has_feature(const struct virtio_device *device, unsigned bit)
{
    return device->accepted >> bit & 1;
}

struct virtq *virtio_queue(struct virtio_device *device, unsigned index);

/* What has gone through a queue. */
struct virtq_stats {
    uint64_t kicks;      /* doorbells of the driver that have been served */
    uint64_t requests;   /* given back to the driver */
    uint64_t interrupts; /* that the driver was sent for them */
};
/* Any thread. */
void virtq_get_stats(const struct virtq *queue, struct virtq_stats *stats);
/* The virtio device that this is, or NULL. */
struct virtio_device *virtio_from_device(struct device *device);

/* The driver broke a rule: NEEDS_RESET, a configuration interrupt and a rate-limited log line. */
void virtio_broken(struct virtio_device *device, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The configuration space changed: interrupt. */
void virtio_config_changed(struct virtio_device *device);

#endif
