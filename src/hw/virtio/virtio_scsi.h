/*
 * virtio-scsi (virtio 1.2, section 5.6): a controller with one target, whose logical units are
 * SCSI disks (hw/disk/scsi.h).
 *
 * The builder sets the fields of the first part, then calls device_realize().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_VIRTIO_VIRTIO_SCSI_H
#define TENON_HW_VIRTIO_VIRTIO_SCSI_H

#include "block/block.h"
#include "hw/virtio/virtio.h"

#define VIRTIO_SCSI_QUEUES_MAX 16
#define VIRTIO_SCSI_UNITS_MAX 64

struct virtio_scsi_unit;
struct virtio_scsi_loop;

struct virtio_scsi_disk {
    struct block *block; /* borrowed; closed by its owner after the device is freed */
    const char *id;      /* borrowed */
    const char *serial;  /* borrowed, cut to 20 bytes; NULL: none */
};

struct virtio_scsi {
    struct virtio_device virtio;

    /* Set before realize. */
    struct virtio_scsi_disk disk[VIRTIO_SCSI_UNITS_MAX]; /* logical unit i */
    unsigned disk_count;
    unsigned queues;              /* request queues; 0: one; at most VIRTIO_SCSI_QUEUES_MAX */
    struct loop *const *io_loops; /* queue i runs on io_loops[i % io_loop_count]; none: env->loop */
    unsigned io_loop_count;

    /* The device's own. */
    uint32_t unit_count;
    struct virtio_scsi_unit *unit; /* owned */
    struct virtio_scsi_loop *loop; /* owned, `loops` of them */
    unsigned loops;
    uint16_t luns[VIRTIO_SCSI_UNITS_MAX];
    uint32_t sense_size, cdb_size; /* configuration fields */
    struct list tasks;             /* commands in flight */
    struct list functions;         /* task management that waits for commands */
    uint64_t sequence;             /* of the next command */
};

/* The node of unit `index` has another size now. Any thread. */
void virtio_scsi_resized(struct virtio_scsi *scsi, unsigned index);

extern const struct device_class virtio_scsi_class;

#endif
