/*
 * SCSI disks (SPC-4, SBC-3) and optical drives (MMC-5): what a logical unit over a block node
 * answers to a command descriptor block. Knows no transport: that brings the command, the segments
 * of its data, and takes status and sense data back.
 *
 * A unit and its tasks belong to the transport's device lock. Reads and writes end later, on the
 * loop of the block queue that the task names; everything else ends inside scsi_task_start().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_DISK_SCSI_H
#define TENON_HW_DISK_SCSI_H

#include "base/lock.h"
#include "base/log.h"
#include "block/block.h"
#include "hw/core/iov_window.h"
#include "state/state.h"

#define SCSI_CDB_MAX 32
#define SCSI_SENSE_SIZE 18
#define SCSI_SERIAL_MAX 20
/* Of one emulated answer or parameter list, and the largest logical block. */
#define SCSI_SCRATCH_SIZE 4096
/* Repetitions of a WRITE SAME's block in one block request. */
#define SCSI_SAME_SEGMENTS 64

enum scsi_status {
    SCSI_GOOD = 0x00,
    SCSI_CHECK_CONDITION = 0x02,
    SCSI_TASK_ABORTED = 0x40,
};

enum scsi_key {
    SCSI_KEY_NONE = 0x0,
    SCSI_KEY_NOT_READY = 0x2,
    SCSI_KEY_MEDIUM_ERROR = 0x3,
    SCSI_KEY_HARDWARE_ERROR = 0x4,
    SCSI_KEY_ILLEGAL_REQUEST = 0x5,
    SCSI_KEY_UNIT_ATTENTION = 0x6,
    SCSI_KEY_DATA_PROTECT = 0x7,
};

/* Additional sense code in the high byte, its qualifier in the low one. */
enum scsi_asc {
    SCSI_ASC_NONE = 0x0000,
    SCSI_ASC_WRITE_ERROR = 0x0c00,
    SCSI_ASC_READ_ERROR = 0x1100,
    SCSI_ASC_LIST_LENGTH = 0x1a00,
    SCSI_ASC_INVALID_OPCODE = 0x2000,
    SCSI_ASC_LBA_RANGE = 0x2100,
    SCSI_ASC_INVALID_FIELD_CDB = 0x2400,
    SCSI_ASC_NO_SUCH_UNIT = 0x2500,
    SCSI_ASC_INVALID_FIELD_LIST = 0x2600,
    SCSI_ASC_WRITE_PROTECTED = 0x2700,
    SCSI_ASC_NO_ROOM = 0x2707,
    SCSI_ASC_POWER_ON = 0x2900,
    SCSI_ASC_BUS_RESET = 0x2902,
    SCSI_ASC_MEDIUM_CHANGED = 0x2800,
    SCSI_ASC_CAPACITY_CHANGED = 0x2a09,
    SCSI_ASC_SAVING_UNSUPPORTED = 0x3900,
    SCSI_ASC_NO_MEDIUM = 0x3a01, /* the tray is closed */
    SCSI_ASC_TRAY_OPEN = 0x3a02,
    SCSI_ASC_REMOVAL_PREVENTED = 0x5302,
};

/* One logical unit. The transport sets the first part, then calls scsi_unit_init(). */
struct scsi_unit {
    struct block *block; /* borrowed */
    const char *id;      /* borrowed, for the log */
    char serial[SCSI_SERIAL_MAX + 1];
    bool optical;
    /* Optical: the guest moved the tray. Optional; with the device lock, on the queue's loop. */
    void (*tray_moved)(void *opaque, bool open);
    void *opaque;

    struct block_info info;
    uint8_t write_cache;    /* caching page, WCE */
    uint16_t attention;     /* enum scsi_asc of the pending unit attention; 0: none */
    bool tray_open, locked; /* optical */
    uint8_t event;          /* optical: enum scsi_media_event that waits to be asked for */
    struct log_limit complaints;
};

void scsi_unit_init(struct scsi_unit *unit);
/* Power-on values; `why` becomes the unit attention. */
void scsi_unit_reset(struct scsi_unit *unit, enum scsi_asc why);
/* The node has another size now. */
void scsi_unit_resized(struct scsi_unit *unit);

/* --- optical drives; with the device lock --- */
enum scsi_media_event {
    SCSI_MEDIA_NOTHING = 0,
    SCSI_MEDIA_EJECT_REQUEST = 1,
    SCSI_MEDIA_NEW = 2,
    SCSI_MEDIA_REMOVED = 3,
};
/* There is something in the drive, and the tray is closed. */
bool scsi_unit_ready(const struct scsi_unit *unit);
/* The node has another medium, or none; the tray is as it is said to be. */
void scsi_unit_medium_changed(struct scsi_unit *unit, bool tray_open);
/* Somebody pressed the button of a locked drive: the guest is asked to let go. */
void scsi_unit_request_eject(struct scsi_unit *unit);
extern const struct state_table scsi_unit_state;

struct scsi_task {
    /* The transport's: set before scsi_task_start(). */
    struct scsi_unit *unit; /* NULL: there is no such unit */
    uint8_t cdb[SCSI_CDB_MAX];
    struct iovec *out, *in;       /* segments to and from the device, */
    unsigned out_count, in_count; /* which may begin with a header ... */
    uint64_t out_skip, in_skip;   /* ... of this size, */
    uint64_t out_len, in_len;     /* and the bytes of data behind it */
    const uint16_t *luns;         /* of all units, for REPORT LUNS */
    unsigned lun_count;
    struct block_queue *queue; /* of the unit's node, for this loop */
    /* Before scsi_task_start() returns, with the device lock; or later on the queue's loop. */
    void (*done)(struct scsi_task *task);
    struct lock *lock; /* taken around a `done` that comes later */

    /* The result. */
    enum scsi_status status;
    bool overrun;   /* the segments have less room than the command moves */
    uint64_t moved; /* bytes of data */
    uint8_t sense[SCSI_SENSE_SIZE];

    /* scsi_disk.c's own. */
    struct iov_window window;
    struct block_req io;
    uint64_t at, left; /* UNMAP, WRITE SAME: what is still to do, bytes */
    unsigned descriptor, descriptors;
    struct iovec same[SCSI_SAME_SEGMENTS];
    uint8_t scratch[SCSI_SCRATCH_SIZE];
};

/* Carries a command out. The fields after `lock` need not be set. Device lock held. */
void scsi_task_start(struct scsi_task *task);
/*
 * For transports that keep the sense data of the last failure: a command that asks for it takes it
 * out of `sense`, and ends. False: it is to be started.
 */
bool scsi_task_answer_sense(struct scsi_task *task, uint8_t sense[SCSI_SENSE_SIZE]);

#endif
