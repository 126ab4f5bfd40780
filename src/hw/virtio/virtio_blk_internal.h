/*
 * What the two files of virtio-blk share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_VIRTIO_VIRTIO_BLK_INTERNAL_H
#define TENON_HW_VIRTIO_VIRTIO_BLK_INTERNAL_H

#include "hw/virtio/virtio_blk.h"

enum virtio_blk_feature {
    VIRTIO_BLK_F_SIZE_MAX = 1,
    VIRTIO_BLK_F_SEG_MAX = 2,
    VIRTIO_BLK_F_RO = 5,
    VIRTIO_BLK_F_BLK_SIZE = 6,
    VIRTIO_BLK_F_FLUSH = 9,
    VIRTIO_BLK_F_TOPOLOGY = 10,
    VIRTIO_BLK_F_CONFIG_WCE = 11,
    VIRTIO_BLK_F_MQ = 12,
    VIRTIO_BLK_F_DISCARD = 13,
    VIRTIO_BLK_F_WRITE_ZEROES = 14,
};

/* Ranges in one discard or write-zeroes request. */
#define VIRTIO_BLK_RANGES_MAX 64u

struct virtio_blk_queue {
    struct virtio_blk *blk;
    unsigned index;
    struct block_queue *block;
};

/* Memory that each request needs at its device_data. */
extern const uint32_t virtio_blk_request_size;

/* Carries out a popped request; it ends, now or later, with a push. Queue's loop, device lock. */
void virtio_blk_start(struct virtio_blk_queue *queue, struct virtq_req *req);

#endif
