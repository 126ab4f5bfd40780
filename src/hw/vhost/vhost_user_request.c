/*
 * What a vhost-user front end may ask, and what it does to the device.
 *
 * A ring runs when it is placed, has a doorbell and is enabled. Whatever changes below a running
 * ring (memory, its own place) first stops all of them: nothing is in flight afterwards.
 *
 * On the loop; rings and status under the device lock, which nobody else takes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "hw/vhost/vhost_user_internal.h"

#define PROTOCOL_FEATURES                                                                          \
    (1ull << VHOST_P_MQ | 1ull << VHOST_P_REPLY_ACK | 1ull << VHOST_P_CONFIG |                     \
     1ull << VHOST_P_INFLIGHT_SHMFD)
#define NO_FD 0x100u /* in the number that goes with a doorbell: there is none */

static struct virtio_device *device_of(struct vhost_user *vhost)
{
    return &vhost->blk->virtio;
}

static struct lock *lock_of(struct vhost_user *vhost)
{
    return &device_of(vhost)->pci.device.lock;
}

/* The oldest descriptor that came with the message, or -1. */
static int take_fd(struct vhost_user *vhost)
{
    if (!vhost->fd_count)
        return -1;
    int fd = vhost->fds[0];
    memmove(vhost->fds, vhost->fds + 1, sizeof(int) * --vhost->fd_count);
    return fd;
}

/* --- rings --- */

/* From the front end's addresses to its guest's. */
static bool translate(const struct vhost_user *vhost, uint64_t address, uint64_t *gpa)
{
    for (unsigned i = 0; i < vhost->region_count; i++) {
        const struct vhost_region *region = &vhost->region[i];
        if (address < region->address || address - region->address >= region->size)
            continue;
        *gpa = region->gpa + (address - region->address);
        return true;
    }
    return false;
}

static void stop_ring(struct vhost_user *vhost, unsigned index)
{
    struct virtq *queue = virtio_queue(device_of(vhost), index);
    if (!queue->enabled)
        return;
    vhost->ring[index].base = queue->avail;
    virtq_disable(queue);
    queue->enabled = false;
}

/* What has been used, the front end's guest has in its memory. */
static uint16_t used_index(struct vhost_user *vhost, const struct virtq *queue)
{
    uint16_t used = queue->avail;
    (void)gmem_load_le16(vhost->env.gmem, queue->area[2] + 2, &used);
    return used;
}

/* Starts a ring that has all it needs. */
static void start_ring(struct vhost_user *vhost, unsigned index)
{
    struct vhost_ring *ring = &vhost->ring[index];
    struct virtio_device *device = device_of(vhost);
    struct virtq *queue = virtio_queue(device, index);
    bool always = !(device->accepted >> VHOST_F_PROTOCOL_FEATURES & 1);
    if (queue->enabled || !ring->placed || ring->kick_fd < 0 || !(ring->enabled || always))
        return;
    queue->size = (uint16_t)ring->size;
    queue->vector = (uint16_t)index;
    for (unsigned i = 0; i < 3; i++) {
        if (!translate(vhost, ring->area[i], &queue->area[i]))
            return;
    }
    queue->avail = (uint16_t)ring->base;
    queue->used = used_index(vhost, queue);
    device->needs_reset = false;
    device->status |= VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK;
    queue->enabled = virtq_enable(queue) && virtq_inflight_begin(queue);
    if (!queue->enabled)
        virtq_disable(queue); /* one that is placed and yet does not begin keeps no memory */
    else
        virtq_signal(queue); /* what has been made available before */
}

static void for_all_rings(struct vhost_user *vhost,
                          void (*fn)(struct vhost_user *vhost, unsigned index))
{
    lock_take(lock_of(vhost));
    for (unsigned i = 0; i < vhost->config.queues; i++)
        fn(vhost, i);
    lock_drop(lock_of(vhost));
}

/* Nothing is in flight, no ring runs. */
static void stop_all(struct vhost_user *vhost)
{
    virtio_quiesce(device_of(vhost));
    for_all_rings(vhost, stop_ring);
}

static void start_all(struct vhost_user *vhost)
{
    virtio_resume(device_of(vhost));
    for_all_rings(vhost, start_ring);
}

/* The guest's doorbell: the loop hears it, and rings the queue's own. */
static void on_kick(void *opaque, uint32_t events)
{
    struct vhost_ring *ring = opaque;
    uint64_t count;
    if (read(ring->kick_fd, &count, sizeof(count)) < 0)
        return;
    struct vhost_user *vhost = ring->vhost;
    virtq_kick(virtio_queue(device_of(vhost), (unsigned)(ring - vhost->ring)));
}

static void drop_kick(struct vhost_ring *ring)
{
    loop_fd_remove(&ring->kick_watch);
    vhost_user_close(&ring->kick_fd);
}

/* --- memory --- */

static void forget_memory(struct vhost_user *vhost)
{
    gmem_free(vhost->env.gmem);
    vhost->env.gmem = gmem_new();
    vhost->region_count = 0;
}

static bool add_region(struct vhost_user *vhost, const uint8_t *at)
{
    struct vhost_region region = {get_le64(at), get_le64(at + 8), get_le64(at + 16)};
    uint64_t end;
    int fd = take_fd(vhost);
    if (fd < 0 || !checked_add(region.address, region.size, &end)) {
        vhost_user_close(&fd);
        return false;
    }
    struct err *err =
        gmem_add_file(vhost->env.gmem, "guest", region.gpa, region.size, fd, get_le64(at + 24));
    close(fd);
    if (err) {
        log_warn("vhost-user: %s", err_text(err));
        err_free(err);
        return false;
    }
    vhost->region[vhost->region_count++] = region;
    return true;
}

static bool set_memory(struct vhost_user *vhost, const uint8_t *payload, uint32_t size)
{
    uint32_t count = size >= 8 ? get_le32(payload) : 0;
    if (count > VHOST_REGIONS_MAX || size < 8 + 32 * count)
        return false;
    stop_all(vhost);
    forget_memory(vhost);
    bool good = true;
    for (unsigned i = 0; i < count && good; i++)
        good = add_region(vhost, payload + 8 + (size_t)32 * i);
    start_all(vhost);
    return good;
}

/* --- requests --- */

static bool set_features(struct vhost_user *vhost, uint64_t features)
{
    struct virtio_device *device = device_of(vhost);
    if (features & ~(device->offered | 1ull << VHOST_F_PROTOCOL_FEATURES))
        return false;
    stop_all(vhost);
    device->accepted = features;
    start_all(vhost);
    return true;
}

static struct vhost_ring *ring_at(struct vhost_user *vhost, uint64_t index)
{
    return index < vhost->config.queues ? &vhost->ring[index] : NULL;
}

static bool set_doorbell(struct vhost_user *vhost, enum vhost_request request, uint64_t number)
{
    struct vhost_ring *ring = ring_at(vhost, number & 0xff);
    int fd = number & NO_FD ? -1 : take_fd(vhost);
    if (!ring) {
        vhost_user_close(&fd);
        return false;
    }
    if (request == VHOST_SET_VRING_CALL) {
        vhost_user_close(&ring->call_fd);
        ring->call_fd = fd;
    } else if (request == VHOST_SET_VRING_ERR) {
        vhost_user_close(&fd); /* broken rings are logged */
    } else {
        drop_kick(ring);
        ring->kick_fd = fd;
        struct err *err =
            fd < 0 ? NULL
                   : loop_fd_add(vhost->config.loop, &ring->kick_watch, fd, EPOLLIN, on_kick, ring);
        if (err) {
            err_free(err);
            vhost_user_close(&ring->kick_fd);
            return false;
        }
        for_all_rings(vhost, start_ring);
    }
    return true;
}

static bool set_place(struct vhost_user *vhost, const uint8_t *payload)
{
    struct vhost_ring *ring = ring_at(vhost, get_le32(payload));
    if (!ring)
        return false;
    stop_all(vhost);
    ring->area[0] = get_le64(payload + 8);
    ring->area[2] = get_le64(payload + 16);
    ring->area[1] = get_le64(payload + 24);
    ring->placed = true;
    start_all(vhost);
    return true;
}

/* Stops the ring, and says where it stands. */
static bool get_base(struct vhost_user *vhost, uint32_t index, uint8_t *reply, uint32_t *length)
{
    struct vhost_ring *ring = ring_at(vhost, index);
    if (!ring)
        return false;
    stop_all(vhost);
    drop_kick(ring);
    ring->enabled = false;
    start_all(vhost);
    put_le32(reply, index);
    put_le32(reply + 4, ring->base);
    *length = 8;
    return true;
}

static bool ring_number(struct vhost_user *vhost, enum vhost_request request, uint32_t index,
                        uint32_t value)
{
    struct vhost_ring *ring = ring_at(vhost, index);
    if (!ring)
        return false;
    stop_all(vhost);
    if (request == VHOST_SET_VRING_NUM)
        ring->size = value & 0xffff;
    else if (request == VHOST_SET_VRING_BASE)
        ring->base = value & 0xffff;
    else
        ring->enabled = value;
    start_all(vhost);
    return true;
}

/* Configuration space; an answer of no length says that it could not be. */
static bool config(struct vhost_user *vhost, bool set, uint8_t *payload, uint32_t size,
                   uint8_t *reply, uint32_t *length)
{
    struct virtio_device *device = device_of(vhost);
    uint32_t offset = get_le32(payload), bytes = get_le32(payload + 4);
    if (size < VHOST_CONFIG_HEADER || bytes > size - VHOST_CONFIG_HEADER ||
        offset > VHOST_PAYLOAD_MAX)
        return false;
    lock_take(lock_of(vhost));
    if (set) {
        device->ops->config_write(device, offset, payload + VHOST_CONFIG_HEADER, bytes);
    } else {
        memcpy(reply, payload, VHOST_CONFIG_HEADER);
        device->ops->config_read(device, offset, reply + VHOST_CONFIG_HEADER, bytes);
        *length = VHOST_CONFIG_HEADER + bytes;
    }
    lock_drop(lock_of(vhost));
    return true;
}

static bool answer_number(uint64_t number, uint8_t *reply, uint32_t *length)
{
    put_le64(reply, number);
    *length = 8;
    return true;
}

static bool set_inflight(struct vhost_user *vhost, const uint8_t *payload)
{
    stop_all(vhost);
    bool good = vhost_user_inflight_set(vhost, payload, take_fd(vhost));
    start_all(vhost);
    return good;
}

/* How much a request has at least behind its header. */
static uint32_t least_payload(enum vhost_request request)
{
    switch (request) {
    case VHOST_GET_FEATURES:
    case VHOST_SET_OWNER:
    case VHOST_RESET_OWNER:
    case VHOST_GET_PROTOCOL_FEATURES:
    case VHOST_GET_QUEUE_NUM:
        return 0;
    case VHOST_SET_VRING_ADDR:
        return 40;
    case VHOST_GET_CONFIG:
    case VHOST_SET_CONFIG:
        return VHOST_CONFIG_HEADER;
    case VHOST_GET_INFLIGHT_FD:
    case VHOST_SET_INFLIGHT_FD:
        return VHOST_INFLIGHT_PAYLOAD;
    default:
        return 8;
    }
}

bool vhost_user_handle(struct vhost_user *vhost, enum vhost_request request, uint8_t *payload,
                       uint32_t size, uint8_t *reply, uint32_t *length)
{
    *length = 0;
    if (size < least_payload(request))
        return false;
    switch (request) {
    case VHOST_GET_FEATURES:
        return answer_number(device_of(vhost)->offered | 1ull << VHOST_F_PROTOCOL_FEATURES, reply,
                             length);
    case VHOST_SET_FEATURES:
        return set_features(vhost, get_le64(payload));
    case VHOST_SET_OWNER:
    case VHOST_RESET_OWNER:
        return true;
    case VHOST_SET_MEM_TABLE:
        return set_memory(vhost, payload, size);
    case VHOST_SET_VRING_NUM:
    case VHOST_SET_VRING_BASE:
    case VHOST_SET_VRING_ENABLE:
        return ring_number(vhost, request, get_le32(payload), get_le32(payload + 4));
    case VHOST_SET_VRING_ADDR:
        return set_place(vhost, payload);
    case VHOST_GET_VRING_BASE:
        return get_base(vhost, get_le32(payload), reply, length);
    case VHOST_SET_VRING_KICK:
    case VHOST_SET_VRING_CALL:
    case VHOST_SET_VRING_ERR:
        return set_doorbell(vhost, request, get_le64(payload));
    case VHOST_GET_PROTOCOL_FEATURES:
        return answer_number(PROTOCOL_FEATURES, reply, length);
    case VHOST_SET_PROTOCOL_FEATURES:
        vhost->protocol = get_le64(payload);
        return !(vhost->protocol & ~PROTOCOL_FEATURES);
    case VHOST_GET_QUEUE_NUM:
        return answer_number(vhost->config.queues, reply, length);
    case VHOST_GET_CONFIG:
    case VHOST_SET_CONFIG:
        return config(vhost, request == VHOST_SET_CONFIG, payload, size, reply, length);
    case VHOST_GET_INFLIGHT_FD:
        *length = size;
        return vhost_user_inflight_get(vhost, payload, size, reply);
    case VHOST_SET_INFLIGHT_FD:
        return set_inflight(vhost, payload);
    }
    return false;
}

void vhost_user_forget(struct vhost_user *vhost)
{
    struct virtio_device *device = device_of(vhost);
    stop_all(vhost);
    for (unsigned i = 0; i < vhost->config.queues; i++) {
        struct vhost_ring *ring = &vhost->ring[i];
        drop_kick(ring);
        vhost_user_close(&ring->call_fd);
        *ring = (struct vhost_ring){.vhost = vhost, .kick_fd = -1, .call_fd = -1};
    }
    vhost_user_inflight_forget(vhost);
    virtio_reset(device); /* the features too */
    virtio_resume(device);
    forget_memory(vhost);
    vhost->protocol = 0;
}
