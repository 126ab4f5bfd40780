/*
 * USB mass storage, bulk-only (Universal Serial Bus Mass Storage Class, Bulk-Only Transport 1.0):
 * one SCSI disk.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_USB_USB_STORAGE_H
#define TENON_HW_USB_USB_STORAGE_H

#include <pthread.h>

#include "hw/disk/scsi.h"
#include "hw/usb/usb.h"

#define USB_STORAGE_PAGE 4096
/* Of one command's data: as much as Linux asks of a USB 3 disk at once; others ask for less. */
#define USB_STORAGE_BUFFER MIB(1)

enum usb_storage_phase {
    USB_STORAGE_COMMAND,
    USB_STORAGE_DATA_OUT,
    USB_STORAGE_RUN, /* the SCSI task is to start, or is under way */
    USB_STORAGE_DATA_IN,
    USB_STORAGE_STATUS,
    USB_STORAGE_BROKEN, /* until the guest resets it: what came was no command (6.6.1) */
};

struct usb_storage_page {
    uint8_t bytes[USB_STORAGE_PAGE];
};

struct usb_storage {
    struct usb_device usb;

    /* Set before realize. */
    struct block *block; /* borrowed */
    const char *serial;  /* borrowed until realize returns; NULL: none */

    /* The command under way. */
    uint8_t phase; /* enum usb_storage_phase */
    uint8_t status;
    bool to_host;
    uint8_t lun;
    uint32_t tag;
    uint32_t expected; /* bytes of data that the host wants to move */
    uint32_t at;       /* ... and has moved */
    uint32_t ready;    /* bytes of answer in the buffer */
    uint8_t cdb[16];
    uint8_t sense[SCSI_SENSE_SIZE]; /* of the last failure, until it is asked for */
    struct scsi_unit unit;
    struct usb_storage_page *buffer; /* owned; the data, between packets and the SCSI task */
    uint32_t buffer_pages;

    /* The device's own. */
    struct block_queue *queue; /* owned */
    struct scsi_task task;
    struct iovec segment;
    bool busy;    /* the task is with the block layer */
    bool dropped; /* ... and nobody waits for it */
    bool advancing;
    bool quiesced;
    pthread_cond_t idle; /* not busy; with the bus's lock */
    struct log_limit complaints;
};

/* Any thread: the node has another size now. */
void usb_storage_resized(struct usb_storage *storage);

extern const struct device_class usb_storage_class;

#endif
