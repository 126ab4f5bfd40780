/*
 * The state of the NVMe controller. Saved while quiesced: no command is in flight, and each
 * completion is in its queue.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>

#include "hw/disk/nvme_internal.h"

static struct err *check_size(bool live, unsigned size, unsigned head, unsigned tail)
{
    if (live && (size < 2 || size > NVME_ENTRIES_MAX || head >= size || tail >= size))
        return err_new("a queue of %u entries is at %u and %u", size, head, tail);
    return NULL;
}

static struct err *sq_check(const void *staged)
{
    const struct nvme_sq *sq = staged;
    return check_size(sq->live, sq->size, sq->head, sq->tail);
}

static struct err *cq_check(const void *staged)
{
    const struct nvme_cq *cq = staged;
    return check_size(cq->live, cq->size, cq->head, cq->tail);
}

static struct err *nvme_check(const void *staged)
{
    const struct nvme *nvme = staged;
    if (nvme->aer_count > NVME_AER_MAX)
        return err_new("%u event requests", nvme->aer_count);
    if ((nvme->shadow | nvme->event_index) & (NVME_PAGE - 1) || !nvme->shadow != !nvme->event_index)
        return err_new("doorbell buffers at 0x%llx and 0x%llx", (unsigned long long)nvme->shadow,
                       (unsigned long long)nvme->event_index);
    return NULL;
}

static void post_load(void *object)
{
    struct nvme *nvme = object;
    bool good = true;
    nvme->disabling = false;
    nvme->shutdown_wanted = (nvme->csts & NVME_CSTS_SHST) == NVME_CSTS_SHST_BUSY;
    for (unsigned i = 0; i < nvme->queue_count; i++) {
        nvme->cq[i].users = nvme->cq[i].reserved = 0;
        nvme->cq[i].unsignalled = nvme->cq[i].live;
        nvme->cq[i].stalled = false;
        if (nvme->cq[i].vector >= nvme->pci.msix_count)
            nvme->cq[i].vector = 0;
    }
    for (unsigned i = 0; i < nvme->queue_count; i++) {
        struct nvme_sq *sq = &nvme->sq[i];
        free(sq->slots);
        sq->slots = sq->free = NULL;
        sq->starved = false;
        sq->doomed = NULL;
        if (!sq->live)
            continue;
        /* A queue of nowhere would be our fault, not the guest's: the stream is hostile. */
        if (sq->cq >= nvme->queue_count || !nvme->cq[sq->cq].live || !nvme_sq_restore(sq)) {
            sq->live = false;
            good = false;
        }
    }
    if ((nvme->csts & NVME_CSTS_RDY) && (!nvme->sq[0].live || !nvme->cq[0].live))
        good = false;
    if (!good)
        nvme->csts |= NVME_CSTS_CFS;
    nvme_doorbells_update(nvme, false);
    nvme_intx_update(nvme);
}

static const struct state_field sq_fields[] = {
    STATE_BOOL(1, nvme_sq, live), STATE_U16(2, nvme_sq, cq),   STATE_U16(3, nvme_sq, size),
    STATE_U16(4, nvme_sq, head),  STATE_U16(5, nvme_sq, tail), STATE_U64(6, nvme_sq, base),
};
static const struct state_field cq_fields[] = {
    STATE_BOOL(1, nvme_cq, live),  STATE_BOOL(2, nvme_cq, interrupts),
    STATE_BOOL(3, nvme_cq, phase), STATE_U16(4, nvme_cq, size),
    STATE_U16(5, nvme_cq, head),   STATE_U16(6, nvme_cq, tail),
    STATE_U16(7, nvme_cq, vector), STATE_U64(8, nvme_cq, base),
};
static const struct state_field error_fields[] = {
    STATE_U64(1, nvme_error, count),  STATE_U16(2, nvme_error, sq),  STATE_U16(3, nvme_error, cid),
    STATE_U16(4, nvme_error, status), STATE_U64(5, nvme_error, lba), STATE_U32(6, nvme_error, nsid),
};

#define TABLE(name_, fields_, check_)                                                              \
    {                                                                                              \
        .name = #name_, .version = 1, .min_version = 1, .size = sizeof(struct name_),              \
        .fields = (fields_), .field_count = ARRAY_SIZE(fields_), .check = (check_)                 \
    }
static const struct state_table sq_state = TABLE(nvme_sq, sq_fields, sq_check);
static const struct state_table cq_state = TABLE(nvme_cq, cq_fields, cq_check);
static const struct state_table error_state = TABLE(nvme_error, error_fields, NULL);

static const struct state_field fields[] = {
    PCI_DEVICE_STATE(nvme, pci),
    STATE_U32(2, nvme, cc),
    STATE_U32(3, nvme, csts),
    STATE_U32(4, nvme, aqa),
    STATE_U32(5, nvme, intms),
    STATE_U64(6, nvme, asq),
    STATE_U64(7, nvme, acq),
    STATE_U64(8, nvme, shadow),
    STATE_U64(9, nvme, event_index),
    STATE_U32(10, nvme, feature),
    STATE_ARRAY(11, nvme, sq, queue_count, nvme_sq, &sq_state),
    STATE_ARRAY(12, nvme, cq, queue_count, nvme_cq, &cq_state),
    STATE_U16(13, nvme, aer),
    STATE_U8(14, nvme, aer_count),
    STATE_U32(15, nvme, changed),
    STATE_BOOL(16, nvme, changed_told),
    STATE_STRUCT(17, nvme, error, &error_state),
    STATE_U64(18, nvme, error_count),
    STATE_U64(19, nvme, read_units),
    STATE_U64(20, nvme, write_units),
    STATE_U64(21, nvme, reads),
    STATE_U64(22, nvme, writes),
};

const struct state_table nvme_state = {
    DEVICE_STATE_TABLE("nvme", nvme, fields),
    .check = nvme_check,
    .post_load = post_load,
};
