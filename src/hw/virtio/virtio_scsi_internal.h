/*
 * What the files of virtio-scsi share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_VIRTIO_VIRTIO_SCSI_INTERNAL_H
#define TENON_HW_VIRTIO_VIRTIO_SCSI_INTERNAL_H

#include "hw/disk/scsi.h"
#include "hw/virtio/virtio_scsi.h"

enum virtio_scsi_feature {
    VIRTIO_SCSI_F_INOUT = 0,
    VIRTIO_SCSI_F_HOTPLUG = 1,
    VIRTIO_SCSI_F_CHANGE = 2,
    VIRTIO_SCSI_F_T10_PI = 3,
};

/* Queues of the device. */
enum { VIRTIO_SCSI_CONTROL, VIRTIO_SCSI_EVENT, VIRTIO_SCSI_REQUEST };

/* Response codes (sections 5.6.6.1.1 and 5.6.6.2). */
enum virtio_scsi_response {
    VIRTIO_SCSI_S_OK = 0, /* and FUNCTION_COMPLETE */
    VIRTIO_SCSI_S_OVERRUN = 1,
    VIRTIO_SCSI_S_ABORTED = 2,
    VIRTIO_SCSI_S_BAD_TARGET = 3,
    VIRTIO_SCSI_S_RESET = 4,
    VIRTIO_SCSI_S_FAILURE = 9,
    VIRTIO_SCSI_S_FUNCTION_SUCCEEDED = 10,
    VIRTIO_SCSI_S_FUNCTION_REJECTED = 11,
    VIRTIO_SCSI_S_INCORRECT_LUN = 12,
};

#define VIRTIO_SCSI_CDB_SIZE 32
#define VIRTIO_SCSI_SENSE_SIZE 96
#define VIRTIO_SCSI_LUN_SIZE 8

struct virtio_scsi_unit {
    struct scsi_unit scsi;
    struct block_queue **block; /* owned, one a loop */
    bool resized;               /* the driver has not been told yet */
};

/* What the block layer's batches need to know: which loop they come from. */
struct virtio_scsi_loop {
    struct virtio_scsi *scsi;
    struct loop *loop;
    unsigned index;
};

/* A command in flight, in its request's memory. */
struct virtio_scsi_command {
    struct scsi_task task;
    struct virtio_scsi *scsi;
    struct virtq_req *req;
    struct list link;
    uint64_t tag, sequence;
    enum virtio_scsi_response ended_by; /* a task management function; OK: none */
};

/*
 * A task management function that waits, in its request's memory: for the older commands of `unit`
 * (NULL: of all), with `by_tag` only for that with `tag`.
 */
struct virtio_scsi_function {
    struct virtq_req *req;
    struct list link;
    struct scsi_unit *unit;
    uint64_t tag, sequence;
    bool by_tag;
};

/* Bytes that each request needs at its device_data. */
extern const uint32_t virtio_scsi_request_size;

/* The loop of a queue, as a place in unit->block. */
unsigned virtio_scsi_loop_index(const struct virtio_scsi *scsi, const struct virtq *queue);

enum virtio_scsi_place { VIRTIO_SCSI_UNIT, VIRTIO_SCSI_NO_UNIT, VIRTIO_SCSI_NO_TARGET };
/* Reads an 8-byte address; VIRTIO_SCSI_UNIT sets *unit. */
enum virtio_scsi_place virtio_scsi_find(struct virtio_scsi *scsi,
                                        const uint8_t lun[VIRTIO_SCSI_LUN_SIZE],
                                        struct virtio_scsi_unit **unit);

/* virtio_scsi_request.c: carries a popped command out; it ends, now or later, with a push. */
void virtio_scsi_start(struct virtio_scsi *scsi, struct virtq_req *req);

/* virtio_scsi_control.c, on the loop of the control and event queues. */
void virtio_scsi_control(struct virtio_scsi *scsi, struct virtq_req *req);
/* A command has ended: functions that waited for it may be through. Any queue's loop. */
void virtio_scsi_command_ended(struct virtio_scsi *scsi);
/* Pushes the functions that are through; `all`: the others too, as failed. */
void virtio_scsi_functions_push(struct virtio_scsi *scsi, bool all);
void virtio_scsi_events(struct virtio_scsi *scsi, struct virtq *queue);

#endif
