/*
 * What the files of the NVMe controller share: numbers of the specification, and the request.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_DISK_NVME_INTERNAL_H
#define TENON_HW_DISK_NVME_INTERNAL_H

#include "hw/disk/nvme.h"

#define NVME_PAGE 4096u
#define NVME_SQE 64u
#define NVME_CQE 16u
#define NVME_TRANSFER_SHIFT 7 /* MDTS: 2^7 pages */
#define NVME_TRANSFER_MAX (NVME_PAGE << NVME_TRANSFER_SHIFT)
/* A page each, one more for an offset, some for runs that cross from one RAM region to the next. */
#define NVME_SEGMENTS_MAX ((1u << NVME_TRANSFER_SHIFT) + 8)
#define NVME_RANGES_MAX 256u /* of one dataset management command */
#define NVME_IDENTIFY_SIZE 4096u
#define NVME_DOORBELLS 0x1000u

/* Controller registers (section 3.1). */
enum nvme_register {
    NVME_CAP = 0x00,
    NVME_VS = 0x08,
    NVME_INTMS = 0x0c,
    NVME_INTMC = 0x10,
    NVME_CC = 0x14,
    NVME_CSTS = 0x1c,
    NVME_AQA = 0x24,
    NVME_ASQ = 0x28,
    NVME_ACQ = 0x30,
    NVME_REGISTERS_END = 0x50,
};
#define NVME_CC_EN 1u
#define NVME_CC_SHN 0xc000u
#define NVME_CSTS_RDY 1u
#define NVME_CSTS_CFS 2u
#define NVME_CSTS_SHST 0xcu
#define NVME_CSTS_SHST_BUSY 0x4u
#define NVME_CSTS_SHST_DONE 0x8u
#define NVME_VERSION 0x00010400u

enum nvme_admin_op {
    NVME_DELETE_SQ = 0x00,
    NVME_CREATE_SQ = 0x01,
    NVME_GET_LOG_PAGE = 0x02,
    NVME_DELETE_CQ = 0x04,
    NVME_CREATE_CQ = 0x05,
    NVME_IDENTIFY = 0x06,
    NVME_ABORT = 0x08,
    NVME_SET_FEATURES = 0x09,
    NVME_GET_FEATURES = 0x0a,
    NVME_ASYNC_EVENT = 0x0c,
    NVME_DOORBELL_BUFFER = 0x7c,
};

enum nvme_io_op {
    NVME_FLUSH = 0x00,
    NVME_WRITE = 0x01,
    NVME_READ = 0x02,
    NVME_WRITE_ZEROES = 0x08,
    NVME_DATASET_MANAGEMENT = 0x09,
};

/* Status: type in bits 10:8, code in bits 7:0 (section 4.6.1); bit 14: do not retry. */
enum nvme_status {
    NVME_OK = 0x000,
    NVME_INVALID_OPCODE = 0x001,
    NVME_INVALID_FIELD = 0x002,
    NVME_DATA_TRANSFER = 0x004,
    NVME_INTERNAL_ERROR = 0x006,
    NVME_ABORTED_SQ_DELETED = 0x008,
    NVME_INVALID_NAMESPACE = 0x00b,
    NVME_INVALID_PRP_OFFSET = 0x013,
    NVME_WRITE_PROTECTED = 0x020,
    NVME_LBA_RANGE = 0x080,
    NVME_CAPACITY_EXCEEDED = 0x081,
    NVME_INVALID_CQ = 0x100,
    NVME_INVALID_QUEUE_ID = 0x101,
    NVME_INVALID_QUEUE_SIZE = 0x102,
    NVME_AER_LIMIT = 0x105,
    NVME_INVALID_VECTOR = 0x108,
    NVME_INVALID_LOG_PAGE = 0x109,
    NVME_INVALID_QUEUE_DELETION = 0x10c,
    NVME_FEATURE_NOT_SAVEABLE = 0x10d,
    NVME_FEATURE_NOT_CHANGEABLE = 0x10e,
    NVME_WRITE_FAULT = 0x280,
    NVME_READ_ERROR = 0x281,
    NVME_DO_NOT_RETRY = 0x4000,
    NVME_PENDING = 0xffff, /* ours: the command ends later */
    NVME_SILENT = 0xfffe,  /* ours: it ends without a completion */
};

enum nvme_feature {
    NVME_FEATURE_ARBITRATION = 0x01,
    NVME_FEATURE_POWER = 0x02,
    NVME_FEATURE_TEMPERATURE = 0x04,
    NVME_FEATURE_ERROR_RECOVERY = 0x05,
    NVME_FEATURE_WRITE_CACHE = 0x06,
    NVME_FEATURE_QUEUES = 0x07,
    NVME_FEATURE_COALESCING = 0x08,
    NVME_FEATURE_VECTOR = 0x09,
    NVME_FEATURE_ATOMICITY = 0x0a,
    NVME_FEATURE_EVENTS = 0x0b,
};

#define NVME_EVENT_NAMESPACE (1u << 8) /* feature 0bh and OAES: attributes of a namespace */

/* The fields of a submission entry that have fixed places; a copy. */
struct nvme_command {
    uint8_t opcode, flags;
    uint16_t cid;
    uint32_t nsid;
    uint64_t prp1, prp2;
    uint32_t dw10, dw11, dw12, dw13;
};

struct nvme_request {
    struct nvme_sq *sq;
    struct nvme_request *next_free;
    struct nvme_command command;
    uint32_t result; /* dword 0 of the completion */
    struct block_req io;
    struct nvme_namespace *ns;
    bool to_guest;
    unsigned range, ranges; /* dataset management */
    unsigned segments;
    union {
        struct iovec iov[NVME_SEGMENTS_MAX];
        uint8_t list[NVME_RANGES_MAX * 16];
    };
};

/* nvme_queue.c */
struct err *nvme_queues_build(struct nvme *nvme);
void nvme_queues_fini(struct nvme *nvme);
/* Begins with an empty queue; false: no memory. */
bool nvme_sq_start(struct nvme *nvme, unsigned id, unsigned cq, unsigned size, uint64_t base);
/* Nothing of it is in flight. */
void nvme_sq_stop(struct nvme_sq *sq);
void nvme_cq_start(struct nvme_cq *cq, unsigned size, uint64_t base, unsigned vector,
                   bool interrupts);
void nvme_cq_stop(struct nvme_cq *cq);
/* Allocates what a live queue of a loaded state needs. */
bool nvme_sq_restore(struct nvme_sq *sq);
/* The command of a request is through; the request is gone. On its loop. */
void nvme_complete(struct nvme_request *request, unsigned status);
/* A completion of the admin queue that has no request; false: no room. */
bool nvme_post_admin(struct nvme *nvme, uint16_t cid, uint32_t result);
void nvme_doorbell(struct nvme *nvme, uint64_t offset, uint32_t value);
void nvme_wake(struct nvme_sq *sq); /* any thread */
void nvme_doorbells_update(struct nvme *nvme, bool off);
/* Interrupts for what has been posted. */
void nvme_interrupts(struct nvme *nvme);
void nvme_intx_update(struct nvme *nvme);

/* nvme.c */
void nvme_shutdown_begin(struct nvme *nvme);
void nvme_went_idle(struct nvme *nvme);
bool nvme_running(const struct nvme *nvme);
void nvme_log_error(struct nvme *nvme, const struct nvme_request *request, unsigned status);
struct nvme_namespace *nvme_namespace(struct nvme *nvme, uint32_t nsid);
static inline unsigned nvme_loop_index(const struct nvme *nvme, const struct nvme_sq *sq)
{
    return sq->id % nvme->loops;
}

/* nvme_admin.c, nvme_io.c: the status, NVME_PENDING or NVME_SILENT. */
unsigned nvme_admin(struct nvme_request *request);
unsigned nvme_io(struct nvme_request *request);
/* Reports events to the host as far as it has asked for them. */
void nvme_events(struct nvme *nvme);

/* nvme_data.c */
/* Copies between the command's PRPs and a buffer of at most two pages. */
unsigned nvme_copy(struct nvme *nvme, const struct nvme_command *command, void *bytes,
                   uint32_t length, bool to_guest);
/* Borrows the memory that the PRPs describe into request->iov; NVME_OK or the status. */
unsigned nvme_map(struct nvme_request *request, uint32_t length, bool to_guest);
void nvme_unmap(struct nvme_request *request);

/* nvme_identify.c: 4 KiB answers; false: there is no such structure. */
bool nvme_identify(struct nvme *nvme, uint8_t cns, uint32_t nsid, uint8_t *out);
/* The length of the page, 0: there is none. `out` has room for NVME_IDENTIFY_SIZE bytes. */
uint32_t nvme_log_page(struct nvme *nvme, uint8_t page, uint8_t *out);

extern const struct state_table nvme_state;

#endif
