/*
 * virtio-scsi (virtio 1.2, section 5.6): queues, configuration space and life of the controller.
 * Commands are in virtio_scsi_request.c, task management and events in virtio_scsi_control.c.
 *
 * Each unit has a block queue for each loop, where commands start and end. Registers, rings and
 * units under the device lock; the block layer calls back without it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "hw/virtio/virtio_scsi_internal.h"
#include "hw/virtio/virtq.h"

#define PCI_CLASS_SCSI 0x010000
#define CONFIG_SIZE 36
#define CONFIG_SENSE_SIZE 20
#define CONFIG_CDB_SIZE 24
#define SENSE_SIZE_MAX 252
#define EVENT_SIZE 16
#define TRANSFER_SECTORS_MAX 0xffff

static struct virtio_scsi *to_scsi(struct virtio_device *virtio)
{
    return container_of(virtio, struct virtio_scsi, virtio);
}

static uint64_t scsi_features(struct virtio_device *virtio)
{
    (void)virtio;
    /* Units never come or go, but Linux listens to events only where they might. */
    return 1ull << VIRTIO_SCSI_F_CHANGE | 1ull << VIRTIO_SCSI_F_HOTPLUG;
}

static void scsi_config_read(struct virtio_device *virtio, unsigned offset, void *bytes,
                             unsigned len)
{
    const struct virtio_scsi *scsi = to_scsi(virtio);
    uint8_t config[CONFIG_SIZE] = {0};
    put_le32(config, scsi->queues);
    put_le32(config + 4, virtio->queue_size - 2u); /* header and response take one each */
    put_le32(config + 8, TRANSFER_SECTORS_MAX);
    put_le32(config + 12, virtio->queue_size); /* commands a unit */
    put_le32(config + 16, EVENT_SIZE);
    put_le32(config + CONFIG_SENSE_SIZE, scsi->sense_size);
    put_le32(config + CONFIG_CDB_SIZE, scsi->cdb_size);
    put_le32(config + 32, VIRTIO_SCSI_UNITS_MAX - 1); /* channel and target are 0 */
    memset(bytes, 0, len);
    if (offset < sizeof(config))
        memcpy(bytes, config + offset, MIN(len, (unsigned)sizeof(config) - offset));
}

/* The sizes of commands and sense data, which a driver may change before it starts. */
static void scsi_config_write(struct virtio_device *virtio, unsigned offset, const void *bytes,
                              unsigned len)
{
    struct virtio_scsi *scsi = to_scsi(virtio);
    if (len != 4 || (virtio->status & VIRTIO_STATUS_DRIVER_OK))
        return;
    uint32_t value = get_le32(bytes);
    if (offset == CONFIG_SENSE_SIZE && value <= SENSE_SIZE_MAX)
        scsi->sense_size = value;
    if (offset == CONFIG_CDB_SIZE && value && value <= VIRTIO_SCSI_CDB_SIZE)
        scsi->cdb_size = value;
}

static void scsi_reset(struct virtio_device *virtio)
{
    struct virtio_scsi *scsi = to_scsi(virtio);
    scsi->sense_size = VIRTIO_SCSI_SENSE_SIZE;
    scsi->cdb_size = VIRTIO_SCSI_CDB_SIZE;
    for (unsigned i = 0; i < scsi->unit_count; i++) {
        scsi_unit_reset(&scsi->unit[i].scsi, SCSI_ASC_POWER_ON);
        scsi->unit[i].resized = false;
    }
}

unsigned virtio_scsi_loop_index(const struct virtio_scsi *scsi, const struct virtq *queue)
{
    return virtq_index(queue) % scsi->loops;
}

enum virtio_scsi_place virtio_scsi_find(struct virtio_scsi *scsi,
                                        const uint8_t lun[VIRTIO_SCSI_LUN_SIZE],
                                        struct virtio_scsi_unit **unit)
{
    unsigned number = get_be16(lun + 2) & 0x3fff; /* peripheral or flat addressing */
    if (lun[0] != 1 || lun[1] != 0)
        return VIRTIO_SCSI_NO_TARGET;
    if (lun[2] >> 6 > 1 || get_le32(lun + 4) || number >= scsi->unit_count)
        return VIRTIO_SCSI_NO_UNIT;
    *unit = &scsi->unit[number];
    return VIRTIO_SCSI_UNIT;
}

/* Hands to the kernel what all units have collected for this queue's loop. */
static void flush_units(struct virtio_scsi *scsi, struct virtq *virtq)
{
    unsigned loop = virtio_scsi_loop_index(scsi, virtq);
    for (unsigned i = 0; i < scsi->unit_count; i++)
        block_flush_submissions(scsi->unit[i].block[loop]);
}

static void scsi_queue_kick(struct virtio_device *virtio, struct virtq *virtq)
{
    struct virtio_scsi *scsi = to_scsi(virtio);
    struct virtq_req *req;
    if (virtq_index(virtq) == VIRTIO_SCSI_EVENT) {
        virtio_scsi_events(scsi, virtq);
    } else if (virtq_index(virtq) == VIRTIO_SCSI_CONTROL) {
        virtio_scsi_functions_push(scsi, false);
        while ((req = virtq_pop(virtq)))
            virtio_scsi_control(scsi, req);
    } else {
        while ((req = virtq_pop(virtq)))
            virtio_scsi_start(scsi, req);
        /* As in virtio_blk.c: the kernel copies cached data right here. */
        lock_drop(&virtio->pci.device.lock);
        flush_units(scsi, virtq);
        lock_take(&virtio->pci.device.lock);
    }
    virtq_notify(virtq);
}

static void scsi_queue_drain(struct virtio_device *virtio, struct virtq *virtq)
{
    struct virtio_scsi *scsi = to_scsi(virtio);
    unsigned loop = virtio_scsi_loop_index(scsi, virtq);
    /* Completions take the lock themselves. */
    lock_drop(&virtio->pci.device.lock);
    for (unsigned i = 0; i < scsi->unit_count; i++)
        block_drain(scsi->unit[i].block[loop]);
    lock_take(&virtio->pci.device.lock);
    /* Those that wait for another loop's commands cannot: it may be waiting for us. */
    if (virtq_index(virtq) == VIRTIO_SCSI_CONTROL)
        virtio_scsi_functions_push(scsi, true);
}

/* A loop has delivered a batch of completions: one interrupt a queue for all of them. */
static void batch_done(void *opaque)
{
    struct virtio_scsi_loop *from = opaque;
    struct virtio_scsi *scsi = from->scsi;
    struct lock *lock = &scsi->virtio.pci.device.lock;
    lock_take(lock);
    for (unsigned i = VIRTIO_SCSI_REQUEST; i < scsi->virtio.queue_count; i++) {
        struct virtq *queue = virtio_queue(&scsi->virtio, i);
        if (virtio_scsi_loop_index(scsi, queue) == from->index)
            virtq_notify(queue);
    }
    lock_drop(lock);
}

void virtio_scsi_resized(struct virtio_scsi *scsi, unsigned index)
{
    struct lock *lock = &scsi->virtio.pci.device.lock;
    lock_take(lock);
    scsi_unit_resized(&scsi->unit[index].scsi);
    scsi->unit[index].resized = true;
    virtq_signal(virtio_queue(&scsi->virtio, VIRTIO_SCSI_EVENT));
    lock_drop(lock);
}

static const struct virtio_ops scsi_ops = {
    .id = VIRTIO_ID_SCSI,
    .pci_class = PCI_CLASS_SCSI,
    .features = scsi_features,
    .config_read = scsi_config_read,
    .config_write = scsi_config_write,
    .reset = scsi_reset,
    .queue_kick = scsi_queue_kick,
    .queue_drain = scsi_queue_drain,
};

static struct err *build_unit(struct virtio_scsi *scsi, unsigned index)
{
    struct virtio_scsi_unit *unit = &scsi->unit[index];
    const struct virtio_scsi_disk *disk = &scsi->disk[index];
    unit->scsi.block = disk->block;
    unit->scsi.id = disk->id;
    if (disk->serial)
        memcpy(unit->scsi.serial, disk->serial, strnlen(disk->serial, SCSI_SERIAL_MAX));
    scsi_unit_init(&unit->scsi);
    scsi->luns[index] = (uint16_t)index;
    unit->block = xcalloc(scsi->loops, sizeof(struct block_queue *));
    for (unsigned i = 0; i < scsi->loops; i++) {
        TRY(block_queue_new(disk->block, scsi->loop[i].loop, &unit->block[i]));
        block_queue_on_batch(unit->block[i], batch_done, &scsi->loop[i]);
    }
    return NULL;
}

static struct err *scsi_realize(struct device *device)
{
    struct virtio_scsi *scsi = (struct virtio_scsi *)device;
    struct virtio_device *virtio = &scsi->virtio;
    list_init(&scsi->tasks);
    list_init(&scsi->functions);
    if (!scsi->queues)
        scsi->queues = 1;
    if (scsi->queues > VIRTIO_SCSI_QUEUES_MAX || scsi->disk_count > VIRTIO_SCSI_UNITS_MAX)
        return err_of(ERR_USAGE, "%u queues and %u disks, at most %u and %u are possible",
                      scsi->queues, scsi->disk_count, VIRTIO_SCSI_QUEUES_MAX,
                      VIRTIO_SCSI_UNITS_MAX);
    scsi->loops = MAX(scsi->io_loop_count, 1u);
    scsi->loop = xcalloc(scsi->loops, sizeof(*scsi->loop));
    for (unsigned i = 0; i < scsi->loops; i++)
        scsi->loop[i] = (struct virtio_scsi_loop){
            scsi, scsi->io_loop_count ? scsi->io_loops[i] : device->env->loop, i};
    virtio->ops = &scsi_ops;
    virtio->queue_count = VIRTIO_SCSI_REQUEST + scsi->queues;
    virtio->queue_loops = scsi->io_loops;
    virtio->queue_loop_count = scsi->io_loop_count;
    virtio->request_extra = virtio_scsi_request_size;
    TRY(virtio_realize(virtio));
    scsi->unit = xcalloc(MAX(scsi->disk_count, 1u), sizeof(*scsi->unit));
    for (unsigned i = 0; i < scsi->disk_count; i++) {
        scsi->unit_count++;
        TRY(err_wrap(build_unit(scsi, i), "disk '%s'", scsi->disk[i].id));
    }
    return NULL;
}

static void scsi_device_reset(struct device *device)
{
    virtio_reset(&((struct virtio_scsi *)device)->virtio);
}

static void scsi_quiesce(struct device *device)
{
    virtio_quiesce(&((struct virtio_scsi *)device)->virtio);
}

static void scsi_resume(struct device *device)
{
    virtio_resume(&((struct virtio_scsi *)device)->virtio);
}

static void scsi_fini(struct device *device)
{
    struct virtio_scsi *scsi = (struct virtio_scsi *)device;
    virtio_fini(&scsi->virtio);
    for (unsigned i = 0; i < scsi->unit_count; i++) {
        for (unsigned k = 0; k < scsi->loops; k++)
            block_queue_free(scsi->unit[i].block[k]);
        free(scsi->unit[i].block);
    }
    free(scsi->unit);
    free(scsi->loop);
    scsi->unit = NULL;
    scsi->loop = NULL;
    scsi->unit_count = 0;
}

static struct err *check(const void *staged)
{
    const struct virtio_scsi *scsi = staged;
    if (scsi->sense_size > SENSE_SIZE_MAX || !scsi->cdb_size ||
        scsi->cdb_size > VIRTIO_SCSI_CDB_SIZE)
        return err_new("commands of %u bytes and sense data of %u", scsi->cdb_size,
                       scsi->sense_size);
    return NULL;
}

static const struct state_field unit_fields[] = {
    STATE_STRUCT(1, virtio_scsi_unit, scsi, &scsi_unit_state),
    STATE_BOOL(2, virtio_scsi_unit, resized),
};

static const struct state_table unit_state = {
    .name = "virtio-scsi-unit",
    .version = 1,
    .min_version = 1,
    .size = sizeof(struct virtio_scsi_unit),
    .fields = unit_fields,
    .field_count = ARRAY_SIZE(unit_fields),
};

static const struct state_field fields[] = {
    STATE_STRUCT(1, virtio_scsi, virtio, &virtio_device_state),
    STATE_U32(2, virtio_scsi, sense_size),
    STATE_U32(3, virtio_scsi, cdb_size),
    STATE_ARRAY(4, virtio_scsi, unit, unit_count, virtio_scsi_unit, &unit_state),
};

static const struct state_table state = {
    DEVICE_STATE_TABLE("virtio-scsi", virtio_scsi, fields),
    .check = check,
};

const struct device_class virtio_scsi_class = {
    .name = "virtio-scsi",
    .description = "virtio SCSI controller with disks",
    .size = sizeof(struct virtio_scsi),
    .state = &state,
    .realize = scsi_realize,
    .reset = scsi_device_reset,
    .quiesce = scsi_quiesce,
    .resume = scsi_resume,
    .fini = scsi_fini,
};
DEVICE_CLASS(virtio_scsi_class);
