/*
 * NVMe controllers (NVM Express 1.4, NVM command set) over PCI: namespaces over block nodes, an
 * admin queue pair and several I/O queue pairs with PRP lists and shadow doorbells.
 *
 * The builder sets the fields of the first part, then calls device_realize().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_DISK_NVME_H
#define TENON_HW_DISK_NVME_H

#include <pthread.h>

#include "base/log.h"
#include "block/block.h"
#include "hw/pci/pci.h"

#define NVME_QUEUES_MAX 16 /* I/O queue pairs */
#define NVME_NAMESPACES_MAX 16
#define NVME_SERIAL_LEN 20
#define NVME_ENTRIES_MAX 4096
#define NVME_AER_MAX 4
#define NVME_ERRORS_MAX 16
#define NVME_FEATURES 16

struct nvme_request;

/* A submission queue. */
struct nvme_sq {
    struct nvme *nvme;
    uint16_t id;

    bool live;
    uint16_t cq; /* where it completes */
    uint16_t size, head, tail;
    uint64_t base;

    /* Derived. */
    struct loop *loop;
    struct nvme_request *slots, *free; /* owned: `size` of them */
    unsigned slots_touched, in_flight;
    int kick_fd;
    struct loop_fd kick_watch;
    uint64_t doorbell;           /* guest address that rings kick_fd without an exit; 0: none */
    bool starved;                /* commands wait for a free slot */
    struct nvme_request *doomed; /* the command that deletes this queue, while it waits */
};

/* A completion queue. */
struct nvme_cq {
    bool live, interrupts, phase;
    uint16_t size, head, tail, vector;
    uint64_t base;

    /* Derived. */
    unsigned reserved; /* commands in flight that will complete here */
    unsigned users;    /* submission queues */
    bool unsignalled;  /* entries since the last interrupt */
    bool stalled;      /* a submission queue waits for room */
};

struct nvme_error {
    uint64_t count;
    uint16_t sq, cid, status;
    uint64_t lba;
    uint32_t nsid;
};

struct nvme_namespace {
    /* Set before realize. */
    struct block *block; /* borrowed; closed by its owner after the device is freed */

    struct block_info info;
    struct block_queue **queue; /* owned, one a loop */
    struct block_req flush;     /* of a shutdown */
};

struct nvme_loop {
    struct nvme *nvme;
    struct loop *loop;
    unsigned index;
};

struct nvme {
    struct pci_device pci;

    /* Set before realize. */
    struct nvme_namespace ns[NVME_NAMESPACES_MAX]; /* namespace i + 1 */
    unsigned ns_count;
    const char *serial;           /* borrowed until realize returns, cut to 20 bytes; NULL: none */
    unsigned queues;              /* I/O queue pairs; 0: one */
    struct loop *const *io_loops; /* queue i runs on io_loops[i % io_loop_count]; none: env->loop */
    unsigned io_loop_count;

    /* Registers. */
    uint32_t cc, csts, aqa, intms;
    uint64_t asq, acq;
    uint64_t shadow, event_index;    /* doorbell buffers; 0: none */
    uint32_t feature[NVME_FEATURES]; /* by identifier */
    uint32_t queue_count;            /* with the admin queues: elements of sq and cq */
    struct nvme_sq *sq;              /* owned; 0 is the admin queue */
    struct nvme_cq *cq;              /* owned */
    uint16_t aer[NVME_AER_MAX];      /* outstanding event requests: command identifiers */
    uint8_t aer_count;
    uint32_t changed;  /* a bit a namespace whose size changed since the log was read */
    bool changed_told; /* ... and the host was told */
    struct nvme_error error[NVME_ERRORS_MAX];                     /* newest first */
    uint64_t error_count, read_units, write_units, reads, writes; /* for the logs */

    /* The device's own. */
    char serial_text[NVME_SERIAL_LEN + 1];
    uint64_t identity;      /* what is unique of this controller, out of its serial */
    struct nvme_loop *loop; /* owned, `loops` of them */
    unsigned loops;
    unsigned in_flight; /* commands and flushes with the block layer */
    bool quiesced;
    bool disabling;       /* CC.EN was cleared, commands are still in flight */
    bool shutdown_wanted; /* the admin queue's loop is to flush */
    unsigned flushes;     /* of that shutdown, still under way */
    pthread_cond_t idle;  /* in_flight is 0; with the device lock */
    struct log_limit complaints;
};

/* The node of namespace `index` has another size now. Any thread. */
void nvme_resized(struct nvme *nvme, unsigned index);

extern const struct device_class nvme_class;

#endif
