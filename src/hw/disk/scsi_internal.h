/*
 * What the files of SCSI disks and optical drives share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_DISK_SCSI_INTERNAL_H
#define TENON_HW_DISK_SCSI_INTERNAL_H

#include "hw/disk/scsi.h"

/* Operation codes (SPC-4 annex E.3.1). */
enum scsi_op {
    SCSI_TEST_UNIT_READY = 0x00,
    SCSI_REQUEST_SENSE = 0x03,
    SCSI_READ_6 = 0x08,
    SCSI_WRITE_6 = 0x0a,
    SCSI_INQUIRY = 0x12,
    SCSI_MODE_SELECT_6 = 0x15,
    SCSI_RESERVE_6 = 0x16,
    SCSI_RELEASE_6 = 0x17,
    SCSI_MODE_SENSE_6 = 0x1a,
    SCSI_START_STOP = 0x1b,
    SCSI_PREVENT_REMOVAL = 0x1e,
    SCSI_READ_CAPACITY_10 = 0x25,
    SCSI_READ_10 = 0x28,
    SCSI_WRITE_10 = 0x2a,
    SCSI_VERIFY_10 = 0x2f,
    SCSI_SEEK_10 = 0x2b,
    SCSI_SYNC_CACHE_10 = 0x35,
    SCSI_WRITE_SAME_10 = 0x41,
    SCSI_UNMAP = 0x42,
    SCSI_READ_TOC = 0x43,
    SCSI_GET_CONFIGURATION = 0x46,
    SCSI_GET_EVENT_STATUS = 0x4a,
    SCSI_READ_DISC_INFORMATION = 0x51,
    SCSI_READ_TRACK_INFORMATION = 0x52,
    SCSI_MODE_SELECT_10 = 0x55,
    SCSI_MODE_SENSE_10 = 0x5a,
    SCSI_PERSISTENT_RESERVE_IN = 0x5e,
    SCSI_PERSISTENT_RESERVE_OUT = 0x5f,
    SCSI_READ_16 = 0x88,
    SCSI_WRITE_16 = 0x8a,
    SCSI_VERIFY_16 = 0x8f,
    SCSI_SYNC_CACHE_16 = 0x91,
    SCSI_WRITE_SAME_16 = 0x93,
    SCSI_SERVICE_ACTION_IN = 0x9e,
    SCSI_REPORT_LUNS = 0xa0,
    SCSI_READ_12 = 0xa8,
    SCSI_WRITE_12 = 0xaa,
    SCSI_SET_SPEED = 0xbb,
    SCSI_MECHANISM_STATUS = 0xbd,
};

/* INQUIRY's names, each padded with spaces. */
#define SCSI_VENDOR "TENON   "
#define SCSI_REVISION "1.0 "

/* Of one UNMAP and of one WRITE SAME command; block limits page. */
#define SCSI_UNMAP_DESCRIPTORS_MAX 64u
#define SCSI_UNMAP_BYTES_MAX GIB(2)
#define SCSI_SAME_BYTES_MAX MIB(256)

/* Ends with GOOD; the task is gone afterwards. */
void scsi_task_good(struct scsi_task *task);
/* Ends with CHECK CONDITION. */
void scsi_task_check(struct scsi_task *task, enum scsi_key key, enum scsi_asc asc);
static inline void scsi_task_illegal(struct scsi_task *task, enum scsi_asc asc)
{
    scsi_task_check(task, SCSI_KEY_ILLEGAL_REQUEST, asc);
}
/* Ends with GOOD and the first `length` bytes of scratch, as far as `allocation` lets them. */
void scsi_task_answer(struct scsi_task *task, uint64_t length, uint64_t allocation);
/* Copies the data-out buffer into scratch; how much that was. */
uint64_t scsi_task_parameters(struct scsi_task *task, uint64_t length);

/* scsi_disk.c: also an optical drive's. */
void scsi_read_blocks(struct scsi_task *task);
/* scsi_optical.c: all but INQUIRY's vital data, REPORT LUNS and REQUEST SENSE. */
void scsi_optical_start(struct scsi_task *task);
void scsi_optical_inquiry(struct scsi_task *task);
void scsi_optical_init(struct scsi_unit *unit);

/* scsi_pages.c: commands that are answered out of tables. They end the task. */
void scsi_inquiry(struct scsi_task *task);
void scsi_mode_sense(struct scsi_task *task);
void scsi_mode_select(struct scsi_task *task);
void scsi_read_capacity_10(struct scsi_task *task);
void scsi_service_action_in(struct scsi_task *task);
void scsi_report_luns(struct scsi_task *task);
void scsi_sense_fill(uint8_t sense[SCSI_SENSE_SIZE], enum scsi_key key, enum scsi_asc asc);

#endif
