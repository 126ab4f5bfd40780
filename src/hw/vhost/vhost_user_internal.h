/*
 * What the files of the vhost-user back end share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_VHOST_VHOST_USER_INTERNAL_H
#define TENON_HW_VHOST_VHOST_USER_INTERNAL_H

#include "hw/core/env.h"
#include "hw/pci/pci.h"
#include "hw/vhost/vhost_user.h"
#include "hw/virtio/virtio_blk.h"
#include "hw/virtio/virtq.h"

#define VHOST_REGIONS_MAX 8
#define VHOST_FDS_MAX VHOST_REGIONS_MAX
#define VHOST_HEADER 12u
#define VHOST_PAYLOAD_MAX 512u

/* Message numbers of the front end. */
enum vhost_request {
    VHOST_GET_FEATURES = 1,
    VHOST_SET_FEATURES = 2,
    VHOST_SET_OWNER = 3,
    VHOST_RESET_OWNER = 4,
    VHOST_SET_MEM_TABLE = 5,
    VHOST_SET_VRING_NUM = 8,
    VHOST_SET_VRING_ADDR = 9,
    VHOST_SET_VRING_BASE = 10,
    VHOST_GET_VRING_BASE = 11,
    VHOST_SET_VRING_KICK = 12,
    VHOST_SET_VRING_CALL = 13,
    VHOST_SET_VRING_ERR = 14,
    VHOST_GET_PROTOCOL_FEATURES = 15,
    VHOST_SET_PROTOCOL_FEATURES = 16,
    VHOST_GET_QUEUE_NUM = 17,
    VHOST_SET_VRING_ENABLE = 18,
    VHOST_GET_CONFIG = 24,
    VHOST_SET_CONFIG = 25,
    VHOST_GET_INFLIGHT_FD = 31,
    VHOST_SET_INFLIGHT_FD = 32,
};

#define VHOST_VERSION 1u
#define VHOST_REPLY (1u << 2)
#define VHOST_NEED_REPLY (1u << 3)
#define VHOST_F_PROTOCOL_FEATURES 30
enum vhost_protocol_feature {
    VHOST_P_MQ = 0,
    VHOST_P_REPLY_ACK = 3,
    VHOST_P_CONFIG = 9,
    VHOST_P_INFLIGHT_SHMFD = 12,
};

struct vhost_region {
    uint64_t gpa, size, address; /* `address`: where the front end has it in its own memory */
};

/* What the front end has said of a ring. */
struct vhost_ring {
    struct vhost_user *vhost;
    uint32_t size, base;
    uint64_t area[3]; /* front end's addresses: descriptors, driver area, device area */
    bool placed;      /* `area` is set */
    bool enabled;
    int kick_fd, call_fd; /* owned; -1: none */
    struct loop_fd kick_watch;
};

struct vhost_user {
    struct vhost_user_config config;
    struct hw_env env;
    struct pci_bus *bus;
    struct virtio_blk *blk;
    struct loop_fd listen_watch, stop_watch;

    /* Of the front end. */
    int fd; /* -1: there is none */
    struct loop_fd watch;
    uint64_t protocol; /* features */
    struct vhost_region region[VHOST_REGIONS_MAX];
    unsigned region_count;
    struct vhost_ring ring[VIRTIO_BLK_QUEUES_MAX];
    uint8_t *inflight; /* mapped: what the rings have in flight; NULL: not written down */
    size_t inflight_size;

    /* The message that is coming. */
    uint8_t message[VHOST_HEADER + VHOST_PAYLOAD_MAX];
    unsigned got;
    int fds[VHOST_FDS_MAX]; /* owned until a request takes them */
    unsigned fd_count;
    int reply_fd; /* owned: goes along with the answer; -1: none does */
};

static inline void vhost_user_close(int *fd)
{
    fd_cleanup(fd);
    *fd = -1;
}

/*
 * vhost_user_request.c: a whole message, with its descriptors in vhost->fds. *reply becomes the
 * payload to answer with, of *length bytes, 0: none. False: the front end is to go.
 */
bool vhost_user_handle(struct vhost_user *vhost, enum vhost_request request, uint8_t *payload,
                       uint32_t size, uint8_t *reply, uint32_t *length);
/* To the state before any front end. */
void vhost_user_forget(struct vhost_user *vhost);

/*
 * vhost_user_inflight.c: the memory that tells another process what was in flight. No ring runs.
 * GET makes it (reply_fd), SET maps it; `payload` has VHOST_INFLIGHT_PAYLOAD bytes.
 */
#define VHOST_INFLIGHT_PAYLOAD 20u
bool vhost_user_inflight_get(struct vhost_user *vhost, const uint8_t *payload, uint8_t *reply,
                             uint32_t *length);
bool vhost_user_inflight_set(struct vhost_user *vhost, const uint8_t *payload, int take_fd);
void vhost_user_inflight_forget(struct vhost_user *vhost);

#endif
