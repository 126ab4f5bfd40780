/*
 * Admin commands of the NVMe controller (NVMe 1.4, chapter 5).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "hw/core/env.h"
#include "hw/disk/nvme_internal.h"

#define CONTIGUOUS 1u /* dword 11 of the commands that create a queue */
#define INTERRUPTS 2u
#define FEATURE_SAVE (1u << 31)
enum select { SELECT_CURRENT, SELECT_DEFAULT, SELECT_SAVED, SELECT_CAPABILITIES };
#define FEATURE_CHANGEABLE 4u
#define NOT_ABORTED 1u
#define RETAIN_EVENT (1u << 15)
#define LOG_CHANGED_NAMESPACES 0x04
/* Dword 0 of a completed event request: a notice, of a changed namespace, and its log page. */
#define EVENT_CHANGED_NAMESPACE (0x02u | LOG_CHANGED_NAMESPACES << 16)

static unsigned create_cq(struct nvme *nvme, const struct nvme_command *command)
{
    unsigned id = command->dw10 & 0xffff, size = (command->dw10 >> 16) + 1;
    unsigned vector = command->dw11 >> 16;
    bool interrupts = command->dw11 & INTERRUPTS;
    if (!id || id >= nvme->queue_count || nvme->cq[id].live)
        return NVME_INVALID_QUEUE_ID;
    if (size < 2 || size > NVME_ENTRIES_MAX || (nvme->cc >> 20 & 15) != 4)
        return NVME_INVALID_QUEUE_SIZE;
    if (!(command->dw11 & CONTIGUOUS))
        return NVME_INVALID_FIELD;
    if (command->prp1 % NVME_PAGE)
        return NVME_INVALID_PRP_OFFSET;
    if (vector >= nvme->pci.msix_count || (interrupts && vector && !pci_msix_enabled(&nvme->pci)))
        return NVME_INVALID_VECTOR;
    nvme_cq_start(&nvme->cq[id], size, command->prp1, vector, interrupts);
    return NVME_OK;
}

static unsigned delete_cq(struct nvme *nvme, const struct nvme_command *command)
{
    unsigned id = command->dw10 & 0xffff;
    if (!id || id >= nvme->queue_count || !nvme->cq[id].live)
        return NVME_INVALID_QUEUE_ID;
    if (nvme->cq[id].users)
        return NVME_INVALID_QUEUE_DELETION;
    nvme_cq_stop(&nvme->cq[id]);
    nvme_intx_update(nvme);
    return NVME_OK;
}

static unsigned create_sq(struct nvme *nvme, const struct nvme_command *command)
{
    unsigned id = command->dw10 & 0xffff, size = (command->dw10 >> 16) + 1;
    unsigned cq = command->dw11 >> 16;
    if (!id || id >= nvme->queue_count || nvme->sq[id].live)
        return NVME_INVALID_QUEUE_ID;
    if (!cq || cq >= nvme->queue_count || !nvme->cq[cq].live)
        return NVME_INVALID_CQ;
    if (size < 2 || size > NVME_ENTRIES_MAX || (nvme->cc >> 16 & 15) != 6)
        return NVME_INVALID_QUEUE_SIZE;
    if (!(command->dw11 & CONTIGUOUS))
        return NVME_INVALID_FIELD;
    if (command->prp1 % NVME_PAGE)
        return NVME_INVALID_PRP_OFFSET;
    return nvme_sq_start(nvme, id, cq, size, command->prp1) ? NVME_OK : NVME_INTERNAL_ERROR;
}

static unsigned delete_sq(struct nvme *nvme, struct nvme_request *request)
{
    unsigned id = request->command.dw10 & 0xffff;
    if (!id || id >= nvme->queue_count || !nvme->sq[id].live || nvme->sq[id].doomed)
        return NVME_INVALID_QUEUE_ID;
    if (nvme->sq[id].in_flight) {
        nvme->sq[id].doomed = request;
        return NVME_PENDING;
    }
    nvme_sq_stop(&nvme->sq[id]);
    return NVME_OK;
}

static unsigned identify(struct nvme *nvme, const struct nvme_command *command)
{
    uint8_t bytes[NVME_IDENTIFY_SIZE] = {0};
    uint8_t cns = command->dw10 & 0xff;
    bool of_namespace = cns == 0x00 || cns == 0x03;
    if (of_namespace && command->nsid != UINT32_MAX && !nvme_namespace(nvme, command->nsid))
        return NVME_INVALID_NAMESPACE;
    if (!nvme_identify(nvme, cns, command->nsid, bytes))
        return NVME_INVALID_FIELD;
    return nvme_copy(nvme, command, bytes, sizeof(bytes), true);
}

static unsigned get_log_page(struct nvme *nvme, const struct nvme_command *command)
{
    uint8_t bytes[NVME_IDENTIFY_SIZE] = {0};
    uint8_t page = command->dw10 & 0xff;
    uint64_t wanted = (((uint64_t)command->dw11 & 0xffff) << 16 | command->dw10 >> 16) * 4 + 4;
    uint64_t offset = command->dw12 | (uint64_t)command->dw13 << 32;
    uint32_t length = nvme_log_page(nvme, page, bytes);
    if (!length)
        return NVME_INVALID_LOG_PAGE;
    if (offset > length || offset % 4)
        return NVME_INVALID_FIELD;
    wanted = MIN(wanted, (uint64_t)sizeof(bytes) - offset);
    unsigned status = nvme_copy(nvme, command, bytes + offset, (uint32_t)wanted, true);
    if (status == NVME_OK && page == LOG_CHANGED_NAMESPACES && !(command->dw10 & RETAIN_EVENT)) {
        nvme->changed = 0;
        nvme->changed_told = false;
    }
    return status;
}

/* The bits of a feature that the host may set; 0: it may only be read. False: no such feature. */
static bool feature_mask(const struct nvme *nvme, unsigned id, uint32_t *mask)
{
    switch ((enum nvme_feature)id) {
    case NVME_FEATURE_ARBITRATION:
    case NVME_FEATURE_COALESCING:
    case NVME_FEATURE_ERROR_RECOVERY:
    case NVME_FEATURE_TEMPERATURE:
        *mask = UINT32_MAX;
        return true;
    case NVME_FEATURE_WRITE_CACHE:
        *mask = 0;
        for (unsigned i = 0; i < nvme->ns_count; i++)
            *mask |= nvme->ns[i].info.write_cache;
        return *mask;
    case NVME_FEATURE_EVENTS:
        *mask = NVME_EVENT_NAMESPACE | 0xff;
        return true;
    case NVME_FEATURE_POWER:  /* there is one power state */
    case NVME_FEATURE_QUEUES: /* the host's wish has no effect */
    case NVME_FEATURE_VECTOR:
    case NVME_FEATURE_ATOMICITY:
        *mask = 0;
        return true;
    }
    return false;
}

static unsigned set_features(struct nvme *nvme, struct nvme_request *request)
{
    const struct nvme_command *command = &request->command;
    unsigned id = command->dw10 & 0xff;
    uint32_t mask;
    if (!feature_mask(nvme, id, &mask))
        return NVME_INVALID_FIELD;
    if (command->dw10 & FEATURE_SAVE)
        return NVME_FEATURE_NOT_SAVEABLE;
    if (id == NVME_FEATURE_QUEUES) {
        if ((command->dw11 & 0xffff) == 0xffff || command->dw11 >> 16 == 0xffff)
            return NVME_INVALID_FIELD;
        request->result = nvme->feature[id];
        return NVME_OK;
    }
    if (!mask)
        return command->dw11 == nvme->feature[id] ? NVME_OK : NVME_FEATURE_NOT_CHANGEABLE;
    nvme->feature[id] = command->dw11 & mask;
    return NVME_OK;
}

static unsigned get_features(struct nvme *nvme, struct nvme_request *request)
{
    const struct nvme_command *command = &request->command;
    unsigned id = command->dw10 & 0xff;
    uint32_t mask;
    if (!feature_mask(nvme, id, &mask))
        return NVME_INVALID_FIELD;
    switch ((enum select)(command->dw10 >> 8 & 7)) {
    case SELECT_CURRENT:
        request->result =
            nvme->feature[id] | (id == NVME_FEATURE_VECTOR ? command->dw11 & 0xffff : 0);
        return NVME_OK;
    case SELECT_CAPABILITIES:
        request->result = mask ? FEATURE_CHANGEABLE : 0;
        return NVME_OK;
    case SELECT_DEFAULT:
    case SELECT_SAVED: /* LPA says that nothing is kept */
        break;
    }
    return NVME_INVALID_FIELD;
}

/* Keeps the identifier; the request itself ends without a completion. */
static unsigned async_event(struct nvme *nvme, const struct nvme_command *command)
{
    if (nvme->aer_count == NVME_AER_MAX)
        return NVME_AER_LIMIT;
    nvme->aer[nvme->aer_count++] = command->cid;
    return NVME_SILENT;
}

void nvme_events(struct nvme *nvme)
{
    if (!nvme_running(nvme) || !nvme->aer_count || !nvme->changed || nvme->changed_told ||
        !(nvme->feature[NVME_FEATURE_EVENTS] & NVME_EVENT_NAMESPACE))
        return;
    if (!nvme_post_admin(nvme, nvme->aer[0], EVENT_CHANGED_NAMESPACE))
        return; /* the admin queue's next doorbell brings us back */
    nvme->aer_count--;
    memmove(nvme->aer, nvme->aer + 1, sizeof(nvme->aer[0]) * nvme->aer_count);
    nvme->changed_told = true;
}

static unsigned doorbell_buffer(struct nvme *nvme, const struct nvme_command *command)
{
    struct gmem *gmem = nvme->pci.device.env->gmem;
    uint32_t word;
    if (!command->prp1 || !command->prp2 || (command->prp1 | command->prp2) % NVME_PAGE ||
        gmem_load_le32(gmem, command->prp1, &word) < 0 ||
        gmem_load_le32(gmem, command->prp2, &word) < 0)
        return NVME_INVALID_FIELD;
    nvme->shadow = command->prp1;
    nvme->event_index = command->prp2;
    nvme_doorbells_update(nvme, false);
    for (unsigned i = 1; i < nvme->queue_count; i++) {
        if (nvme->sq[i].live)
            nvme_wake(&nvme->sq[i]);
    }
    return NVME_OK;
}

unsigned nvme_admin(struct nvme_request *request)
{
    const struct nvme_command *command = &request->command;
    struct nvme *nvme = request->sq->nvme;
    switch ((enum nvme_admin_op)command->opcode) {
    case NVME_DELETE_SQ:
        return delete_sq(nvme, request);
    case NVME_CREATE_SQ:
        return create_sq(nvme, command);
    case NVME_GET_LOG_PAGE:
        return get_log_page(nvme, command);
    case NVME_DELETE_CQ:
        return delete_cq(nvme, command);
    case NVME_CREATE_CQ:
        return create_cq(nvme, command);
    case NVME_IDENTIFY:
        return identify(nvme, command);
    case NVME_ABORT:
        request->result = NOT_ABORTED;
        return NVME_OK;
    case NVME_SET_FEATURES:
        return set_features(nvme, request);
    case NVME_GET_FEATURES:
        return get_features(nvme, request);
    case NVME_ASYNC_EVENT:
        return async_event(nvme, command);
    case NVME_DOORBELL_BUFFER:
        return doorbell_buffer(nvme, command);
    }
    return NVME_INVALID_OPCODE;
}
