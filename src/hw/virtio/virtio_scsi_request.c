/*
 * Commands of virtio-scsi (virtio 1.2, section 5.6.6.1): a request header and the data behind it,
 * a response header and the data behind that. The data goes to the SCSI disk where it lies.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "base/bytes.h"
#include "hw/virtio/virtio_scsi_internal.h"

/* Offsets in the request header; its end depends on cdb_size. */
#define HEADER_TAG 8
#define HEADER_CDB 19
/* Offsets in the response header; its end depends on sense_size. */
#define RESPONSE_SENSE_LENGTH 0
#define RESPONSE_RESIDUAL 4
#define RESPONSE_STATUS 10
#define RESPONSE_CODE 11
#define RESPONSE_SENSE 12

union request {
    struct virtio_scsi_command command;
    struct virtio_scsi_function function;
};

const uint32_t virtio_scsi_request_size = sizeof(union request);

/* `written`: bytes of data behind the response. */
static void respond(struct virtio_scsi *scsi, struct virtq_req *req, const uint8_t *response,
                    uint64_t written)
{
    uint32_t size = RESPONSE_SENSE + scsi->sense_size;
    virtq_req_write(req, 0, response, size);
    virtq_push(req->queue, req, size + (uint32_t)written);
}

static void respond_code(struct virtio_scsi *scsi, struct virtq_req *req,
                         enum virtio_scsi_response code)
{
    uint8_t response[RESPONSE_SENSE + 256] = {[RESPONSE_CODE] = (uint8_t)code};
    respond(scsi, req, response, 0);
}

static void command_done(struct scsi_task *task)
{
    struct virtio_scsi_command *command = container_of(task, struct virtio_scsi_command, task);
    struct virtio_scsi *scsi = command->scsi;
    uint8_t response[RESPONSE_SENSE + 256] = {0};
    uint64_t data = task->in_len + task->out_len;
    list_remove(&command->link);
    if (command->ended_by != VIRTIO_SCSI_S_OK) {
        response[RESPONSE_CODE] = (uint8_t)command->ended_by;
    } else if (task->overrun) {
        response[RESPONSE_CODE] = VIRTIO_SCSI_S_OVERRUN;
    } else {
        response[RESPONSE_STATUS] = (uint8_t)task->status;
        put_le32(response + RESPONSE_RESIDUAL, (uint32_t)(data - task->moved));
        if (task->status == SCSI_CHECK_CONDITION) {
            uint32_t length = MIN(scsi->sense_size, (uint32_t)SCSI_SENSE_SIZE);
            put_le32(response + RESPONSE_SENSE_LENGTH, length);
            memcpy(response + RESPONSE_SENSE, task->sense, length);
        }
    }
    respond(scsi, command->req, response, task->in_len ? task->moved : 0);
    virtio_scsi_command_ended(scsi);
}

/* Fills the task; the copy of the header has been judged. */
static void prepare(struct virtio_scsi *scsi, struct virtio_scsi_command *command,
                    struct virtq_req *req, const uint8_t *header)
{
    struct scsi_task *task = &command->task;
    command->scsi = scsi;
    command->req = req;
    command->tag = get_le64(header + HEADER_TAG);
    command->sequence = scsi->sequence++;
    command->ended_by = VIRTIO_SCSI_S_OK;
    memset(task->cdb, 0, sizeof(task->cdb));
    memcpy(task->cdb, header + HEADER_CDB, scsi->cdb_size);
    task->out = req->out;
    task->out_count = req->out_count;
    task->out_skip = HEADER_CDB + scsi->cdb_size;
    task->out_len = req->out_len - task->out_skip;
    task->in = req->in;
    task->in_count = req->in_count;
    task->in_skip = RESPONSE_SENSE + scsi->sense_size;
    task->in_len = req->in_len - task->in_skip;
    task->luns = scsi->luns;
    task->lun_count = scsi->unit_count;
    task->done = command_done;
    task->lock = &scsi->virtio.pci.device.lock;
}

void virtio_scsi_start(struct virtio_scsi *scsi, struct virtq_req *req)
{
    struct virtio_scsi_command *command = req->device_data;
    uint8_t header[HEADER_CDB + VIRTIO_SCSI_CDB_SIZE];
    uint32_t header_size = HEADER_CDB + scsi->cdb_size;
    struct virtio_scsi_unit *unit = NULL;
    if (virtq_req_read(req, 0, header, header_size) < header_size ||
        req->in_len < RESPONSE_SENSE + scsi->sense_size) {
        virtio_broken(&scsi->virtio, "a request of %llu bytes out and %llu in",
                      (unsigned long long)req->out_len, (unsigned long long)req->in_len);
        virtq_push(req->queue, req, 0);
        return;
    }
    if (virtio_scsi_find(scsi, header, &unit) == VIRTIO_SCSI_NO_TARGET) {
        respond_code(scsi, req, VIRTIO_SCSI_S_BAD_TARGET);
        return;
    }
    prepare(scsi, command, req, header);
    if (command->task.out_len && command->task.in_len) { /* INOUT was not offered */
        respond_code(scsi, req, VIRTIO_SCSI_S_FAILURE);
        return;
    }
    command->task.unit = unit ? &unit->scsi : NULL;
    command->task.queue = unit ? unit->block[virtio_scsi_loop_index(scsi, req->queue)] : NULL;
    list_append(&scsi->tasks, &command->link);
    scsi_task_start(&command->task);
}
