/*
 * The SATA controller of the ICH9 (Serial ATA AHCI 1.3.1): six ports, each with nothing, an ATA
 * disk or an ATAPI optical drive over a block node.
 *
 * The builder sets the fields of the first part, then calls device_realize().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_DISK_AHCI_H
#define TENON_HW_DISK_AHCI_H

#include <pthread.h>

#include "base/log.h"
#include "block/block.h"
#include "hw/disk/scsi.h"
#include "hw/pci/pci.h"

#define AHCI_DEVFN 0xfa /* 1f.2 */
#define AHCI_PORTS 6
#define AHCI_SLOTS 32
#define ATA_SERIAL_MAX 20
#define ATA_LIST_SIZE 4096 /* of one DATA SET MANAGEMENT */

struct ahci;
struct ahci_command;

/* What an ATA disk keeps beside its medium (ACS-3). */
struct ata_disk {
    uint8_t multiple; /* sectors of one READ MULTIPLE block; 0: not set */
    uint8_t transfer_mode;
    bool write_cache, smart;
    /* The queued command that failed last, for its log. */
    bool failed;
    uint8_t failed_tag, failed_status, failed_error;
    uint64_t failed_lba;

    struct block_info info;
};

struct ahci_port {
    /* Set before realize. */
    struct block *block; /* borrowed; NULL: nothing is connected */
    const char *id;      /* borrowed: of the drive, for the log */
    const char *serial;  /* borrowed until realize returns, cut to 20 bytes; NULL: none */
    bool optical;

    /* Registers (section 3.3). */
    uint64_t clb, fb;
    uint32_t is, ie, cmd, tfd, sig, sctl, serr, sact, ci;
    uint8_t last_slot; /* the slot that was fetched last; the search goes on behind it */
    bool halted;       /* an error waits for the host to clear PxCMD.ST */
    bool signature;    /* the drive's first FIS waits for PxCMD.FRE */
    bool srst;         /* software reset is asserted */

    struct ata_disk disk;
    struct scsi_unit unit; /* optical */
    uint8_t sense[SCSI_SENSE_SIZE];

    /* Derived. */
    struct ahci *ahci;
    unsigned index;
    char serial_text[ATA_SERIAL_MAX + 1];
    struct block_queue *queue;    /* owned */
    struct ahci_command *command; /* owned: 0 for what is not queued, then one a tag */
    uint8_t *list;                /* owned, disk: of the command that is not queued */
    struct scsi_task *task;       /* owned, optical: likewise */
    unsigned in_flight;           /* commands with the block layer */
    uint32_t finished;            /* tags that the host has not been told of yet */
    bool stopping;                /* PxCMD.ST was cleared: what still ends, ends in silence */
    bool serving;
    bool link_wanted; /* the link comes up when nothing is in flight */
};

struct ahci {
    struct pci_device pci;

    /* Set before realize. */
    struct ahci_port port[AHCI_PORTS];
    struct loop *io_loop; /* NULL: env->loop */

    /* Registers (section 3.1). */
    uint32_t ghc, is;

    /* The device's own. */
    struct loop *loop;
    int kick_fd;
    struct loop_fd kick_watch;
    unsigned in_flight;
    bool quiesced;
    bool resetting;      /* GHC.HR is set, commands are still in flight */
    pthread_cond_t idle; /* in_flight is 0; with the device lock */
    struct log_limit complaints;
};

/* Any thread: the node behind a port has another size now. */
void ahci_resized(struct ahci *ahci, unsigned port);
/* Quiesced: the optical drive's node has another medium, or none. */
void ahci_medium_changed(struct ahci *ahci, unsigned port, bool tray_open);
/* Any thread: has the guest locked the drive, is its tray open? */
void ahci_tray(struct ahci *ahci, unsigned port, bool *locked, bool *open);
/* Any thread: asks the guest to let go of the disc. */
void ahci_request_eject(struct ahci *ahci, unsigned port);

extern const struct device_class ahci_class;

#endif
