/*
 * ATAPI drives (ACS-3, 7.21; ATA/ATAPI-8 chapter on the PACKET feature set): a command descriptor
 * block in a PACKET command, and the drive's answers carried to ATA's registers.
 *
 * The memory of the whole PRD table is the data, as far as it is memory and the segments reach.
 * What lies behind is nobody's business until a command needs it: SeaBIOS describes 4 MiB for a
 * command without data.
 *
 * Device lock throughout.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "hw/disk/ahci_internal.h"
#include "hw/disk/scsi_internal.h"

#define PACKET_SIZE 12
#define FEATURE_DMA 0x01
#define REASON_DONE 0x03 /* interrupt reason: command complete, to the host */

static uint8_t error_of(const struct ahci_port *port)
{
    uint8_t key = port->sense[2] & 0x0f;
    return (uint8_t)(key << 4 | (key == SCSI_KEY_ILLEGAL_REQUEST ? ATA_ERROR_ABORT : 0));
}

/* At once, or later on the I/O loop with the lock taken. */
static void packet_done(struct scsi_task *task)
{
    struct ahci_command *command = container_of(task->unit, struct ahci_port, unit)->command;
    struct ahci_port *port = command->port;
    uint8_t error = 0;
    ahci_unmap(command, task->moved);
    command->moved = task->moved;
    command->task.count = REASON_DONE;
    if (!task->overrun && task->status == SCSI_CHECK_CONDITION) {
        memcpy(port->sense, task->sense, SCSI_SENSE_SIZE);
        error = error_of(port);
    }
    if (task->overrun)
        ahci_bad_memory(command, command->memory ? command->memory : -ENOBUFS);
    else
        ahci_finish(command, error);
    ahci_ended(port);
}

static void packet(struct ahci_command *command)
{
    static const uint16_t lun = 0;
    struct ahci_port *port = command->port;
    struct scsi_task *task = port->task;
    uint64_t mapped;
    command->to_guest = !command->writes;
    command->pio_in = command->to_guest && !(command->task.features & FEATURE_DMA);
    command->memory = ahci_map_all(command, &mapped);
    memset(task->cdb, 0, sizeof(task->cdb));
    memcpy(task->cdb, command->cdb, PACKET_SIZE);
    task->unit = &port->unit;
    task->in = task->out = command->iov;
    task->in_count = command->to_guest ? command->segments : 0;
    task->out_count = command->to_guest ? 0 : command->segments;
    task->in_skip = task->out_skip = 0;
    task->in_len = command->to_guest ? mapped : 0;
    task->out_len = command->to_guest ? 0 : mapped;
    task->luns = &lun;
    task->lun_count = 1;
    task->queue = port->queue;
    task->done = packet_done;
    task->lock = ahci_lock(port);
    port->in_flight++;
    port->ahci->in_flight++;
    if (!scsi_task_answer_sense(task, port->sense))
        scsi_task_start(task);
}

void atapi_start(struct ahci_command *command)
{
    if (command->task.command == ATA_PACKET)
        packet(command);
    else
        ata_start(command);
}
