/*
 * What the files of the AHCI controller share: numbers of the specifications, and the command.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_DISK_AHCI_INTERNAL_H
#define TENON_HW_DISK_AHCI_INTERNAL_H

#include "hw/disk/ahci.h"

#define ATA_SECTOR 512u
#define ATAPI_SECTOR 2048u

/* Global registers (section 3.1). */
enum ahci_register {
    AHCI_CAP = 0x00,
    AHCI_GHC = 0x04,
    AHCI_IS = 0x08,
    AHCI_PI = 0x0c,
    AHCI_VS = 0x10,
    AHCI_PORT0 = 0x100,
    AHCI_PORT_SIZE = 0x80,
};
#define AHCI_GHC_HR 1u
#define AHCI_GHC_IE 2u
#define AHCI_GHC_AE (1u << 31)

/* Port registers (section 3.3). */
enum ahci_port_register {
    AHCI_PxCLB = 0x00,
    AHCI_PxCLBU = 0x04,
    AHCI_PxFB = 0x08,
    AHCI_PxFBU = 0x0c,
    AHCI_PxIS = 0x10,
    AHCI_PxIE = 0x14,
    AHCI_PxCMD = 0x18,
    AHCI_PxTFD = 0x20,
    AHCI_PxSIG = 0x24,
    AHCI_PxSSTS = 0x28,
    AHCI_PxSCTL = 0x2c,
    AHCI_PxSERR = 0x30,
    AHCI_PxSACT = 0x34,
    AHCI_PxCI = 0x38,
};
#define AHCI_IS_DHRS (1u << 0)  /* device to host register FIS */
#define AHCI_IS_PSS (1u << 1)   /* PIO setup FIS */
#define AHCI_IS_SDBS (1u << 3)  /* set device bits FIS */
#define AHCI_IS_PCS (1u << 6)   /* the link changed; follows PxSERR */
#define AHCI_IS_PRCS (1u << 22) /* PhyRdy changed; follows PxSERR */
#define AHCI_IS_OFS (1u << 24)  /* more data than the PRD table has room for */
#define AHCI_IS_IFS (1u << 27)  /* interface fatal error */
#define AHCI_IS_HBFS (1u << 29) /* host bus fatal error */
#define AHCI_IS_TFES (1u << 30) /* task file error */
#define AHCI_CMD_ST (1u << 0)
#define AHCI_CMD_SUD (1u << 1)
#define AHCI_CMD_POD (1u << 2)
#define AHCI_CMD_CLO (1u << 3)
#define AHCI_CMD_FRE (1u << 4)
#define AHCI_CMD_CCS 0x1f00u
#define AHCI_CMD_FR (1u << 14)
#define AHCI_CMD_CR (1u << 15)
#define AHCI_CMD_ATAPI (1u << 24)
#define AHCI_SERR_N (1u << 16)
#define AHCI_SERR_X (1u << 26)

/* Received FIS area (section 4.2.1) and FIS types (Serial ATA 3.2, 10.5). */
#define AHCI_RX_PIO_SETUP 0x20u
#define AHCI_RX_REGISTER 0x40u
#define AHCI_RX_DEVICE_BITS 0x58u
#define FIS_HOST_TO_DEVICE 0x27
#define FIS_DEVICE_TO_HOST 0x34
#define FIS_PIO_SETUP 0x5f
#define FIS_DEVICE_BITS 0xa1
#define FIS_INTERRUPT 0x40
#define FIS_TO_HOST 0x20 /* PIO setup: direction */

#define ATA_BUSY 0x80
#define ATA_READY 0x50 /* DRDY, and bit 4 as ever */
#define ATA_DRQ 0x08
#define ATA_ERR 0x01
#define ATA_ERROR_ABORT 0x04
#define ATA_ERROR_NO_ADDRESS 0x10
#define ATA_ERROR_UNCORRECTABLE 0x40

#define ATA_READ_QUEUED 0x60
#define ATA_WRITE_QUEUED 0x61
#define ATA_PACKET 0xa0
#define AHCI_CDB 16u
#define AHCI_SEGMENTS_MAX 264u /* of one step: a sector in the smallest pieces, and some */

/* The registers of a command FIS. */
struct ata_taskfile {
    uint8_t command, device;
    uint16_t features, count;
    uint64_t lba;
};

/* Where a PRD table has been read to. */
struct ahci_cursor {
    uint64_t table;
    uint32_t entries, next;
    uint64_t gpa; /* the rest of the entry before `next` */
    uint32_t left;
};

struct ahci_command {
    struct ahci_port *port;
    bool busy;
    uint8_t slot;
    bool queued;
    bool pio_in; /* ends with a PIO setup FIS */
    bool writes; /* header: towards the device */
    struct ata_taskfile task;
    uint8_t cdb[AHCI_CDB];
    uint64_t header; /* guest address */

    struct ahci_cursor cursor;
    uint64_t at, left; /* of the medium: what is still to do, bytes */
    uint64_t moved;    /* bytes through guest memory */
    struct block_req io;
    bool to_guest; /* segments */
    unsigned segments;
    struct iovec iov[AHCI_SEGMENTS_MAX];
    unsigned range, ranges; /* DATA SET MANAGEMENT */
    int memory;             /* PACKET: what ahci_map_all() said */
};

/* --- ahci.c --- */
/* Work for the I/O loop; any thread. */
void ahci_wake(struct ahci *ahci);
/* Brings GHC's IS, the line and the message up to what the ports ask for. */
void ahci_interrupts(struct ahci *ahci);
/* A command or a flush left the block layer. */
void ahci_ended(struct ahci_port *port);
static inline struct lock *ahci_lock(const struct ahci_port *port)
{
    return &port->ahci->pci.device.lock;
}

/* --- ahci_port.c --- */
uint32_t ahci_port_read(const struct ahci_port *port, unsigned offset);
void ahci_port_write(struct ahci_port *port, unsigned offset, uint32_t value);
/* Power-on state; nothing is in flight. */
void ahci_port_reset(struct ahci_port *port);
/* Begins what can begin. On the I/O loop. */
void ahci_port_serve(struct ahci_port *port);
/* Tells the host of queued commands that have finished. */
void ahci_port_tell_finished(struct ahci_port *port);
/* Nothing is in flight any more. */
void ahci_port_went_idle(struct ahci_port *port);
/* An error of the transport: the port stands until the host restarts it. */
void ahci_port_fatal(struct ahci_port *port, uint32_t cause);
/* Ends a command; `error` is ATA's error register, 0: none. The command is gone. */
void ahci_finish(struct ahci_command *command, uint8_t error);

/* --- ahci_data.c --- */
/*
 * Borrows guest memory for the next `want` bytes of the command, as far as its segments reach, in
 * multiples of `unit`. 0, -EFAULT (no memory there) or -ENOBUFS (the table is too short).
 */
int ahci_map(struct ahci_command *command, uint64_t want, uint32_t unit, uint64_t *mapped);
/*
 * Borrows all that the table describes, as far as the segments reach. The result says what was
 * wrong where it ends: that matters only to who needs more.
 */
int ahci_map_all(struct ahci_command *command, uint64_t *mapped);
/* Gives it back; `written`: how much of it the device wrote. */
void ahci_unmap(struct ahci_command *command, uint64_t written);
/* Copies between the command's memory and `bytes`. The same results; -ENOBUFS: in part. */
int ahci_copy(struct ahci_command *command, void *bytes, uint32_t length, bool to_guest);

/* --- drives: begin a command that ahci_finish() ends, now or later --- */
void ata_start(struct ahci_command *command);
void ata_reset(struct ahci_port *port);
void atapi_start(struct ahci_command *command);
/* Ends a command that reads `length` bytes out of `bytes` by PIO or DMA. */
void ata_answer(struct ahci_command *command, const void *bytes, uint32_t length);
/* Counted until ahci_ended(). */
void ahci_submit(struct ahci_command *command, enum block_op op);
/* The memory of a command is not what it should be: `result` of ahci_map(). */
void ahci_bad_memory(struct ahci_command *command, int result);

/* ata_identify.c: answers of 512 bytes. */
void ata_identify_disk(const struct ahci_port *port, uint8_t out[ATA_SECTOR]);
void ata_identify_optical(const struct ahci_port *port, uint8_t out[ATA_SECTOR]);
/* False: there is no such log. */
bool ata_log_page(struct ahci_port *port, uint8_t log, uint16_t page, uint8_t out[ATA_SECTOR]);
void ata_smart_data(const struct ahci_port *port, bool thresholds, uint8_t out[ATA_SECTOR]);

extern const struct state_table ahci_state;

#endif
