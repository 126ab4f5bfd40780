/*
 * Task management, notification queries and events of virtio-scsi (virtio 1.2, sections 5.6.6.2
 * and 5.6.6.3).
 *
 * A block request cannot be called back. A function that aborts commands therefore marks them, so
 * that they end as aborted, and completes when the last of them has ended: from then on none of
 * them changes the medium or the guest's memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "base/bytes.h"
#include "hw/virtio/virtio_scsi_internal.h"
#include "hw/virtio/virtq.h"

#define FUNCTION_SIZE 24 /* type, subtype, unit, tag */
#define QUERY_SIZE 16    /* type, unit, events; and 5 bytes back */

enum control_type { CONTROL_FUNCTION, CONTROL_QUERY, CONTROL_SUBSCRIBE };

enum subtype {
    ABORT_TASK,
    ABORT_TASK_SET,
    CLEAR_ACA,
    CLEAR_TASK_SET,
    NEXUS_RESET,
    UNIT_RESET,
    QUERY_TASK,
    QUERY_TASK_SET,
};

#define EVENT_SIZE 16
#define EVENT_PARAMETERS_CHANGED 3u

static void answer(struct virtq_req *req, enum virtio_scsi_response code)
{
    uint8_t byte = (uint8_t)code;
    virtq_req_write(req, 0, &byte, 1);
    virtq_push(req->queue, req, 1);
}

static bool concerns(const struct virtio_scsi_function *function,
                     const struct virtio_scsi_command *command)
{
    return command->sequence < function->sequence &&
           (!function->unit || function->unit == command->task.unit) &&
           (!function->by_tag || function->tag == command->tag);
}

static bool waits(const struct virtio_scsi *scsi, const struct virtio_scsi_function *function)
{
    struct virtio_scsi_command *command;
    list_for_each (command, &scsi->tasks, link) {
        if (concerns(function, command))
            return true;
    }
    return false;
}

void virtio_scsi_functions_push(struct virtio_scsi *scsi, bool all)
{
    struct virtio_scsi_function *function;
    list_for_each (function, &scsi->functions, link) {
        bool through = !waits(scsi, function);
        if (!through && !all)
            continue;
        list_remove(&function->link);
        answer(function->req, through ? VIRTIO_SCSI_S_OK : VIRTIO_SCSI_S_FAILURE);
    }
}

void virtio_scsi_command_ended(struct virtio_scsi *scsi)
{
    struct virtio_scsi_function *function;
    list_for_each (function, &scsi->functions, link) {
        if (!waits(scsi, function)) { /* answered where its queue lives */
            virtq_signal(virtio_queue(&scsi->virtio, VIRTIO_SCSI_CONTROL));
            return;
        }
    }
}

/* Marks what the function concerns; it waits until all of that has ended. */
static void abort_commands(struct virtio_scsi *scsi, struct virtio_scsi_function *function,
                           enum virtio_scsi_response why)
{
    struct virtio_scsi_command *command;
    list_for_each (command, &scsi->tasks, link) {
        if (concerns(function, command))
            command->ended_by = why;
    }
    list_append(&scsi->functions, &function->link);
    virtio_scsi_functions_push(scsi, false);
}

static void run_function(struct virtio_scsi *scsi, struct virtq_req *req, const uint8_t *bytes)
{
    struct virtio_scsi_function *function = req->device_data;
    struct virtio_scsi_unit *unit = NULL;
    enum subtype subtype = (enum subtype)get_le32(bytes + 4);
    enum virtio_scsi_place place = virtio_scsi_find(scsi, bytes + 8, &unit);
    if (place == VIRTIO_SCSI_NO_TARGET) {
        answer(req, VIRTIO_SCSI_S_BAD_TARGET);
        return;
    }
    if (place == VIRTIO_SCSI_NO_UNIT && subtype != NEXUS_RESET) {
        answer(req, VIRTIO_SCSI_S_INCORRECT_LUN);
        return;
    }
    *function = (struct virtio_scsi_function){
        .req = req,
        .unit = subtype == NEXUS_RESET ? NULL : &unit->scsi,
        .tag = get_le64(bytes + 16),
        .by_tag = subtype == ABORT_TASK || subtype == QUERY_TASK,
        .sequence = scsi->sequence,
    };
    switch (subtype) {
    case ABORT_TASK:
    case ABORT_TASK_SET:
    case CLEAR_TASK_SET:
        abort_commands(scsi, function, VIRTIO_SCSI_S_ABORTED);
        return;
    case UNIT_RESET:
        scsi_unit_reset(&unit->scsi, SCSI_ASC_BUS_RESET);
        abort_commands(scsi, function, VIRTIO_SCSI_S_RESET);
        return;
    case NEXUS_RESET:
        for (unsigned i = 0; i < scsi->unit_count; i++)
            scsi_unit_reset(&scsi->unit[i].scsi, SCSI_ASC_BUS_RESET);
        abort_commands(scsi, function, VIRTIO_SCSI_S_RESET);
        return;
    case QUERY_TASK:
    case QUERY_TASK_SET:
        answer(req, waits(scsi, function) ? VIRTIO_SCSI_S_FUNCTION_SUCCEEDED : VIRTIO_SCSI_S_OK);
        return;
    case CLEAR_ACA: /* there is never one: NACA is not supported */
        break;
    }
    answer(req, VIRTIO_SCSI_S_FUNCTION_REJECTED);
}

void virtio_scsi_control(struct virtio_scsi *scsi, struct virtq_req *req)
{
    uint8_t bytes[FUNCTION_SIZE] = {0};
    size_t got = virtq_req_read(req, 0, bytes, sizeof(bytes));
    enum control_type type = (enum control_type)get_le32(bytes);
    bool query = type == CONTROL_QUERY || type == CONTROL_SUBSCRIBE;
    if (type == CONTROL_FUNCTION && got == FUNCTION_SIZE && req->in_len >= 1) {
        run_function(scsi, req, bytes);
    } else if (query && got >= QUERY_SIZE && req->in_len >= 5) {
        uint8_t none[5] = {[4] = VIRTIO_SCSI_S_OK}; /* no asynchronous notifications of media */
        virtq_req_write(req, 0, none, sizeof(none));
        virtq_push(req->queue, req, sizeof(none));
    } else {
        virtio_broken(&scsi->virtio, "a control request of type %u with %llu bytes out, %llu in",
                      (unsigned)type, (unsigned long long)req->out_len,
                      (unsigned long long)req->in_len);
        virtq_push(req->queue, req, 0);
    }
}

void virtio_scsi_events(struct virtio_scsi *scsi, struct virtq *queue)
{
    for (unsigned i = 0; i < scsi->unit_count; i++) {
        if (!scsi->unit[i].resized || !virtio_has_feature(&scsi->virtio, VIRTIO_SCSI_F_CHANGE))
            continue;
        struct virtq_req *req = virtq_pop(queue);
        if (!req)
            return; /* the driver's next doorbell brings us back */
        uint8_t event[EVENT_SIZE] = {0};
        put_le32(event, EVENT_PARAMETERS_CHANGED);
        event[4] = 1;
        event[6] = (uint8_t)(scsi->luns[i] >> 8);
        event[7] = (uint8_t)scsi->luns[i];
        /* Additional sense code in the low byte, its qualifier above: capacity has changed. */
        put_le32(event + 12, SCSI_ASC_CAPACITY_CHANGED >> 8 | (SCSI_ASC_CAPACITY_CHANGED & 0xff)
                                                                  << 8);
        size_t written = virtq_req_write(req, 0, event, sizeof(event));
        virtq_push(queue, req, (uint32_t)written);
        scsi->unit[i].resized = false;
    }
}
