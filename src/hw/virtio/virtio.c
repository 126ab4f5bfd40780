/*
 * Virtio devices (virtio 1.2, chapters 2 and 3): feature negotiation, status, stopping and
 * resetting queues that have requests in flight.
 *
 * A queue is drained on its own loop. A driver's reset therefore does not end inside the register
 * write when queues are live: the loops are woken, the status reads back non-zero until the last
 * queue is empty, and register writes in between are dropped. Quiesce and the machine's reset wait
 * for the same thing.
 *
 * Device lock throughout.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/trace.h"
#include "hw/core/env.h"
#include "hw/virtio/virtq.h"

#define DEFAULT_QUEUE_SIZE 256

/* What our own wishes add to a queue's eventfd; the driver's doorbells add 1. */
#define SIGNAL (1ull << 32)

static struct lock *device_lock(struct virtio_device *device)
{
    return &device->pci.device.lock;
}

struct virtq *virtio_queue(struct virtio_device *device, unsigned index)
{
    return index < device->queue_count ? &device->queues[index] : NULL;
}

struct virtio_device *virtio_from_device(struct device *device)
{
    static const char prefix[] = "virtio-";
    bool is = !strncmp(device->class->name, prefix, strlen(prefix));

    return is ? container_of(device, struct virtio_device, pci.device) : NULL;
}

void virtio_interrupt(struct virtio_device *device, uint16_t vector, uint8_t isr)
{
    if (device->interrupt) {
        device->interrupt(device, vector);
        return;
    }
    if (pci_msix_enabled(&device->pci)) {
        if (vector != VIRTIO_NO_VECTOR)
            pci_msix_notify(&device->pci, vector);
        return;
    }
    device->isr |= isr;
    pci_intx_set(&device->pci, true);
}

void virtio_broken(struct virtio_device *device, const char *format, ...)
{
    char text[200];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    log_guest(&device->complaints, "%s '%s': %s", device->pci.device.class->name,
              device->pci.device.id, text);
    if (device->needs_reset)
        return;
    device->needs_reset = true;
    device->status |= VIRTIO_STATUS_NEEDS_RESET;
    if (device->status & VIRTIO_STATUS_DRIVER_OK)
        virtio_interrupt(device, device->config_vector, 2);
}

void virtio_config_changed(struct virtio_device *device)
{
    device->config_generation++;
    if (device->status & VIRTIO_STATUS_DRIVER_OK)
        virtio_interrupt(device, device->config_vector, 2);
}

bool virtq_running(const struct virtq *queue)
{
    const struct virtio_device *device = queue->device;
    return queue->ring && (device->status & VIRTIO_STATUS_DRIVER_OK) && !device->needs_reset &&
           !device->quiesced && !device->resetting && !queue->drain_wanted;
}

static void wake(struct virtq *queue, uint64_t count)
{
    (void)!write(queue->kick_fd, &count, sizeof(count));
}

void virtq_kick(struct virtq *queue)
{
    wake(queue, 1);
}

void virtq_signal(struct virtq *queue)
{
    wake(queue, SIGNAL);
}

/* Everything but the PCI function itself goes back to its power-on values. */
static void reset_registers(struct virtio_device *device)
{
    for (unsigned i = 0; i < device->queue_count; i++)
        virtq_reset_registers(&device->queues[i]);
    device->accepted = 0;
    device->status = device->isr = 0;
    device->config_vector = VIRTIO_NO_VECTOR;
    device->feature_select = device->driver_feature_select = 0;
    device->queue_select = 0;
    device->needs_reset = device->resetting = false;
    pci_intx_set(&device->pci, false);
    virtio_pci_doorbells(device);
    if (device->ops->reset)
        device->ops->reset(device);
}

/* On the queue's loop: the device gives back what it holds. */
static void drain_here(struct virtq *queue)
{
    struct virtio_device *device = queue->device;
    if (device->ops->queue_drain && queue->ring)
        device->ops->queue_drain(device, queue);
    if (queue->in_flight) {
        /* Our own mistake; the memory that somebody may still use is not freed. */
        log_error("%s '%s': queue %u keeps %u requests after its drain",
                  device->pci.device.class->name, device->pci.device.id, queue->index,
                  queue->in_flight);
        queue->slots = NULL;
        queue->in_flight = queue->descriptors_in_flight = 0;
    }
    virtq_notify(queue);
}

static void reset_one(struct virtq *queue)
{
    struct virtio_device *device = queue->device;
    queue->resetting = false;
    virtq_reset_registers(queue);
    virtio_pci_doorbells(device);
    if (device->ops->queue_reset)
        device->ops->queue_reset(device, queue);
}

static void drain_done(struct virtq *queue)
{
    struct virtio_device *device = queue->device;
    queue->drain_wanted = false;
    if (queue->resetting)
        reset_one(queue);
    if (--device->drains_left)
        return;
    if (device->resetting)
        reset_registers(device);
    pthread_cond_broadcast(&device->drained);
}

/* Asks for a drain on the queue's loop, or does it when this thread is the loop's. */
static void drain_start(struct virtq *queue)
{
    if (!queue->drain_wanted) {
        queue->drain_wanted = true;
        queue->device->drains_left++;
    }
    if (!loop_is_mine(queue->loop)) {
        virtq_signal(queue);
        return;
    }
    drain_here(queue);
    /* drain_here may have dropped the lock, and a kick may have come first. */
    if (queue->drain_wanted)
        drain_done(queue);
}

static void drain_all(struct virtio_device *device)
{
    /* One too many, so that the last queue is not done before all have been asked. */
    device->drains_left++;
    for (unsigned i = 0; i < device->queue_count; i++) {
        struct virtq *queue = &device->queues[i];
        if (queue->ring || queue->drain_wanted)
            drain_start(queue);
    }
    if (--device->drains_left == 0) {
        if (device->resetting)
            reset_registers(device);
        pthread_cond_broadcast(&device->drained);
    }
}

static void drain_wait(struct virtio_device *device)
{
    while (device->drains_left)
        pthread_cond_wait(&device->drained, &device_lock(device)->mutex);
}

/* The queue's loop: doorbell, or one of the wishes above. */
static void kicked(void *opaque, uint32_t events)
{
    struct virtq *queue = opaque;
    struct virtio_device *device = queue->device;
    uint64_t count = 0;
    (void)events;
    (void)!read(queue->kick_fd, &count, sizeof(count));
    lock_take(device_lock(device));
    virtq_count(&queue->stats.kicks, count % SIGNAL);
    TRACE(virtqueue_kick, device->pci.device.id, queue->index, count % SIGNAL);
    if (queue->drain_wanted) {
        drain_start(queue);
    } else if (virtq_running(queue)) {
        queue->turn = 2u * queue->size + 1;
        device->ops->queue_kick(device, queue);
        if (queue->turn == 1)
            virtq_signal(queue);
        queue->turn = 0;
    }
    lock_drop(device_lock(device));
}

void virtq_guest_reset(struct virtq *queue)
{
    if (!queue->enabled || queue->resetting)
        return;
    queue->resetting = true;
    if (queue->ring || queue->drain_wanted) {
        drain_start(queue);
    } else {
        reset_one(queue);
    }
}

static void guest_reset(struct virtio_device *device)
{
    device->resetting = true;
    drain_all(device);
}

static void start(struct virtio_device *device)
{
    if (device->ops->activate)
        device->ops->activate(device);
    virtio_pci_doorbells(device);
    /* What the driver made available before it said DRIVER_OK. */
    for (unsigned i = 0; i < device->queue_count; i++) {
        if (device->queues[i].enabled)
            virtq_signal(&device->queues[i]);
    }
}

void virtio_set_status(struct virtio_device *device, uint8_t status)
{
    if (device->resetting)
        return;
    if (!status) {
        guest_reset(device);
        return;
    }
    uint8_t added = status & ~device->status;
    if (added & VIRTIO_STATUS_FEATURES_OK) {
        bool good =
            (device->accepted >> VIRTIO_F_VERSION_1 & 1) && !(device->accepted & ~device->offered);
        if (!good) {
            log_guest(&device->complaints, "%s '%s': features 0x%llx refused",
                      device->pci.device.class->name, device->pci.device.id,
                      (unsigned long long)device->accepted);
            added &= (uint8_t) ~(VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK);
        }
    }
    if (!((device->status | added) & VIRTIO_STATUS_FEATURES_OK))
        added &= (uint8_t)~VIRTIO_STATUS_DRIVER_OK;
    added &= VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_DRIVER_OK |
             VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_FAILED;
    device->status |= added;
    if (added & VIRTIO_STATUS_DRIVER_OK)
        start(device);
}

static struct err *queue_build(struct virtio_device *device, unsigned index)
{
    struct virtq *queue = &device->queues[index];
    queue->loop = device->queue_loop_count ? device->queue_loops[index % device->queue_loop_count]
                                           : device->loop;
    queue->size_max = device->queue_size;
    queue->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (queue->kick_fd < 0)
        return err_errno(errno, "cannot create a doorbell");
    return loop_fd_add(queue->loop, &queue->kick_watch, queue->kick_fd, EPOLLIN, kicked, queue);
}

struct err *virtio_realize(struct virtio_device *device)
{
    if (!device->queue_size)
        device->queue_size = DEFAULT_QUEUE_SIZE;
    if (!device->loop)
        device->loop = device->pci.device.env->loop;
    if (!device->queue_count || device->queue_count > VIRTIO_QUEUES_MAX ||
        device->queue_size > VIRTQ_SIZE_MAX || (device->queue_size & (device->queue_size - 1)))
        return err_new("%u queues of %u entries", device->queue_count, device->queue_size);
    pthread_cond_init(&device->drained, NULL);
    device->queues = xcalloc(device->queue_count, sizeof(*device->queues));
    for (unsigned i = 0; i < device->queue_count; i++) {
        device->queues[i].device = device;
        device->queues[i].index = i;
        device->queues[i].kick_fd = -1;
    }
    for (unsigned i = 0; i < device->queue_count; i++)
        TRY(queue_build(device, i));
    device->offered = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_F_INDIRECT_DESC |
                      1ull << VIRTIO_F_EVENT_IDX | 1ull << VIRTIO_F_RING_PACKED |
                      1ull << VIRTIO_F_RING_RESET;
    if (device->ops->features)
        device->offered |= device->ops->features(device);
    device->offered &= ~device->features_off;
    virtio_pci_build(device);
    return NULL;
}

void virtio_reset(struct virtio_device *device)
{
    lock_take(device_lock(device));
    device->resetting = true;
    drain_all(device);
    drain_wait(device);
    pci_device_reset(&device->pci);
    virtio_pci_doorbells(device);
    lock_drop(device_lock(device));
}

void virtio_quiesce(struct virtio_device *device)
{
    lock_take(device_lock(device));
    device->quiesced = true;
    drain_all(device);
    drain_wait(device);
    lock_drop(device_lock(device));
}

void virtio_resume(struct virtio_device *device)
{
    lock_take(device_lock(device));
    device->quiesced = false;
    for (unsigned i = 0; i < device->queue_count; i++) {
        if (virtq_running(&device->queues[i]))
            virtq_signal(&device->queues[i]);
    }
    lock_drop(device_lock(device));
}

void virtio_fini(struct virtio_device *device)
{
    if (device->queues) { /* otherwise realize did not get that far */
        virtio_pci_doorbells_off(device);
        for (unsigned i = 0; i < device->queue_count; i++) {
            struct virtq *queue = &device->queues[i];
            virtq_disable(queue);
            loop_fd_remove(&queue->kick_watch);
            fd_cleanup(&queue->kick_fd);
        }
        free(device->queues);
        device->queues = NULL;
        pthread_cond_destroy(&device->drained);
    }
    pci_device_fini(&device->pci);
}

void virtio_post_load(struct virtio_device *device)
{
    device->resetting = false;
    for (unsigned i = 0; i < device->queue_count; i++) {
        struct virtq *queue = &device->queues[i];
        virtq_disable(queue);
        queue->resetting = false;
        if (queue->enabled)
            virtq_enable(queue);
        /* A place outside the ring would be our fault, not the guest's: the stream is hostile. */
        if (queue->ring == &virtq_packed &&
            (queue->avail >= queue->size || queue->used >= queue->size)) {
            virtio_broken(device, "queue %u: the saved place is outside the ring", i);
            virtq_disable(queue);
        }
    }
    virtio_pci_doorbells(device);
}

static struct err *check(const void *staged)
{
    const struct virtio_device *device = staged;
    if (device->accepted & ~device->offered && (device->status & VIRTIO_STATUS_FEATURES_OK))
        return err_new("features 0x%llx are in use that this device does not offer",
                       (unsigned long long)(device->accepted & ~device->offered));
    return NULL;
}

static void post_load(void *object)
{
    virtio_post_load(object);
}

static const struct state_field fields[] = {
    STATE_STRUCT(1, virtio_device, pci, &pci_device_state),
    STATE_U64(2, virtio_device, accepted),
    STATE_U8(3, virtio_device, status),
    STATE_U8(4, virtio_device, isr),
    STATE_U8(5, virtio_device, config_generation),
    STATE_U16(6, virtio_device, config_vector),
    STATE_U32(7, virtio_device, feature_select),
    STATE_U32(8, virtio_device, driver_feature_select),
    STATE_U16(9, virtio_device, queue_select),
    STATE_BOOL(10, virtio_device, needs_reset),
    STATE_ARRAY(11, virtio_device, queues, queue_count, virtq, &virtq_state),
};

const struct state_table virtio_device_state = {
    .name = "virtio-device",
    .version = 1,
    .min_version = 1,
    .size = sizeof(struct virtio_device),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .check = check,
    .post_load = post_load,
};
