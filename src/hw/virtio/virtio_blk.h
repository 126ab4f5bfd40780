/*
 * virtio-blk (virtio 1.2, section 5.2): a disk over a block node.
 *
 * The builder sets the fields of the first part, then calls device_realize().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_VIRTIO_VIRTIO_BLK_H
#define TENON_HW_VIRTIO_VIRTIO_BLK_H

#include "block/block.h"
#include "hw/virtio/virtio.h"

#define VIRTIO_BLK_QUEUES_MAX 16
#define VIRTIO_BLK_SERIAL_LEN 20

struct virtio_blk_queue;

struct virtio_blk {
    struct virtio_device virtio;

    /* Set before realize. */
    struct block *block;          /* borrowed; closed by its owner after the device is freed */
    const char *serial;           /* borrowed until realize returns, cut to 20 bytes; NULL: none */
    unsigned queues;              /* 0: one; at most VIRTIO_BLK_QUEUES_MAX */
    struct loop *const *io_loops; /* queue i runs on io_loops[i % io_loop_count]; none: env->loop */
    unsigned io_loop_count;

    /* The device's own. */
    uint8_t serial_bytes[VIRTIO_BLK_SERIAL_LEN];
    struct block_info info;
    struct virtio_blk_queue *queue; /* owned, `queues` of them */
    uint8_t writeback;              /* configuration field: is the cache write-back? */
};

/* The node has another size now. Any thread. */
void virtio_blk_resized(struct virtio_blk *blk);

extern const struct device_class virtio_blk_class;

#endif
