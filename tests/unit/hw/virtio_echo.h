/*
 * A virtio device for tests: answers each request with its readable bytes, each xor 0x5a. It can
 * hold requests back, or put them back into the ring.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TEST_VIRTIO_ECHO_H
#define TENON_TEST_VIRTIO_ECHO_H

#include "hw/virtio/virtio.h"

#define ECHO_QUEUES 4

struct echo {
    struct virtio_device virtio;
    bool hold, unpop;
    struct list held;
    unsigned held_count, popped, drains, resets, queue_resets, activations;
    void (*on_pop)(void *opaque);
    void *opaque;
    uint8_t config[32];
};

static inline void echo_answer(struct virtq *queue, struct virtq_req *req)
{
    uint8_t bytes[512];
    uint64_t done = 0;
    for (;;) {
        size_t here = virtq_req_read(req, done, bytes, sizeof(bytes));
        for (size_t i = 0; i < here; i++)
            bytes[i] ^= 0x5a;
        size_t put = virtq_req_write(req, done, bytes, here);
        done += put;
        if (put < sizeof(bytes))
            break;
    }
    virtq_push(queue, req, (uint32_t)done);
}

static inline void echo_kick(struct virtio_device *virtio, struct virtq *queue)
{
    struct echo *echo = container_of(virtio, struct echo, virtio);
    struct virtq_req *req;
    while ((req = virtq_pop(queue))) {
        echo->popped++;
        if (echo->on_pop)
            echo->on_pop(echo->opaque);
        if (echo->unpop) {
            virtq_unpop(queue, req);
            break;
        }
        if (echo->hold) {
            list_append(&echo->held, &req->link);
            echo->held_count++;
        } else {
            echo_answer(queue, req);
        }
    }
    virtq_notify(queue);
}

/* Answers what was held of one queue. */
static inline void echo_release(struct echo *echo, struct virtq *queue)
{
    struct virtq_req *req;
    list_for_each (req, &echo->held, link) {
        if (req->queue != queue)
            continue;
        list_remove(&req->link);
        echo->held_count--;
        echo_answer(queue, req);
    }
    virtq_notify(queue);
}

static inline void echo_drain(struct virtio_device *virtio, struct virtq *queue)
{
    struct echo *echo = container_of(virtio, struct echo, virtio);
    echo->drains++;
    echo_release(echo, queue);
}

static inline void echo_virtio_reset(struct virtio_device *virtio)
{
    container_of(virtio, struct echo, virtio)->resets++;
}

static inline void echo_queue_reset(struct virtio_device *virtio, struct virtq *queue)
{
    (void)queue;
    container_of(virtio, struct echo, virtio)->queue_resets++;
}

static inline void echo_activate(struct virtio_device *virtio)
{
    container_of(virtio, struct echo, virtio)->activations++;
}

static inline void echo_config_read(struct virtio_device *virtio, unsigned offset, void *bytes,
                                    unsigned len)
{
    struct echo *echo = container_of(virtio, struct echo, virtio);
    memset(bytes, 0, len);
    for (unsigned i = 0; i < len && offset + i < sizeof(echo->config); i++)
        ((uint8_t *)bytes)[i] = echo->config[offset + i];
}

static inline void echo_config_write(struct virtio_device *virtio, unsigned offset,
                                     const void *bytes, unsigned len)
{
    struct echo *echo = container_of(virtio, struct echo, virtio);
    for (unsigned i = 0; i < len && offset + i < sizeof(echo->config); i++)
        echo->config[offset + i] = ((const uint8_t *)bytes)[i];
}

static const struct virtio_ops echo_ops = {
    .id = 42,
    .pci_class = 0x00ff00,
    .config_read = echo_config_read,
    .config_write = echo_config_write,
    .activate = echo_activate,
    .reset = echo_virtio_reset,
    .queue_reset = echo_queue_reset,
    .queue_kick = echo_kick,
    .queue_drain = echo_drain,
};

static inline struct err *echo_realize(struct device *device)
{
    struct echo *echo = (struct echo *)device;
    list_init(&echo->held);
    echo->virtio.ops = &echo_ops;
    echo->virtio.queue_count = ECHO_QUEUES;
    echo->virtio.request_extra = 24;
    return virtio_realize(&echo->virtio);
}

static inline void echo_reset(struct device *device)
{
    virtio_reset(&((struct echo *)device)->virtio);
}

static inline void echo_quiesce(struct device *device)
{
    virtio_quiesce(&((struct echo *)device)->virtio);
}

static inline void echo_resume(struct device *device)
{
    virtio_resume(&((struct echo *)device)->virtio);
}

static inline void echo_fini(struct device *device)
{
    virtio_fini(&((struct echo *)device)->virtio);
}

static const struct state_field echo_fields[] = {
    STATE_STRUCT(1, echo, virtio, &virtio_device_state),
};

static const struct state_table echo_state = {DEVICE_STATE_TABLE("echo", echo, echo_fields)};

static const struct device_class echo_class = {
    .name = "echo",
    .description = "test device",
    .size = sizeof(struct echo),
    .state = &echo_state,
    .realize = echo_realize,
    .reset = echo_reset,
    .quiesce = echo_quiesce,
    .resume = echo_resume,
    .fini = echo_fini,
};

#endif
