/*
 * What the files of the vhost-user back end share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_VHOST_VHOST_USER_INTERNAL_H
#define TENON_HW_VHOST_VHOST_USER_INTERNAL_H

#include "block/proto/vhost_protocol.h"
#include "hw/core/env.h"
#include "hw/pci/pci.h"
#include "hw/vhost/vhost_user.h"
#include "hw/virtio/virtio_blk.h"
#include "hw/virtio/virtq.h"

#define VHOST_REGIONS_MAX 8
#define VHOST_FDS_MAX VHOST_REGIONS_MAX
#define VHOST_PAYLOAD_MAX 512u

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
 * GET makes it (reply_fd) and answers as much as it was asked, SET maps it; `payload` has
 * VHOST_INFLIGHT_PAYLOAD bytes or more.
 */
#define VHOST_INFLIGHT_PAYLOAD 20u
bool vhost_user_inflight_get(struct vhost_user *vhost, const uint8_t *payload, uint32_t length,
                             uint8_t *reply);
bool vhost_user_inflight_set(struct vhost_user *vhost, const uint8_t *payload, int take_fd);
void vhost_user_inflight_forget(struct vhost_user *vhost);

#endif
