/*
 * Bulk-only mass storage. See usb_storage.h.
 *
 * A command wrapper comes as a packet, its data as packets of any sizes, and a status wrapper goes
 * back. The data of a command is collected in a buffer, since the SCSI task wants it whole, and so
 * no guest memory is held while the medium works. Packets that come early wait.
 *
 * Under the bus's lock, on its loop but for resets.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/usb/usb_storage.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "hw/disk/scsi_internal.h"

#define BULK_IN (USB_IN | 1)
#define BULK_OUT 2
#define REQUEST_RESET 0x21ff
#define REQUEST_MAX_LUN 0xa1fe

#define COMMAND_SIZE 31 /* of a wrapper (5.1) */
#define COMMAND_SIGNATURE 0x43425355
#define STATUS_SIZE 13 /* (5.2) */
#define STATUS_SIGNATURE 0x53425355
#define CDB_MAX 16

enum csw_status { CSW_GOOD, CSW_FAILED, CSW_PHASE_ERROR };

static struct usb_storage *to_storage(struct device *device)
{
    return container_of(device, struct usb_storage, usb.device);
}

static void advance(struct usb_storage *storage);

/* --- commands --- */

static void break_down(struct usb_storage *storage)
{
    storage->phase = USB_STORAGE_BROKEN;
    usb_halt(&storage->usb, BULK_IN);
    usb_halt(&storage->usb, BULK_OUT);
}

static void take_command(struct usb_storage *storage, struct usb_packet *packet)
{
    uint8_t wrapper[COMMAND_SIZE] = {0};
    usb_packet_get(packet, wrapper, sizeof(wrapper));
    unsigned cdb_length = wrapper[14] & 0x1f;
    if (packet->length != COMMAND_SIZE || get_le32(wrapper) != COMMAND_SIGNATURE ||
        wrapper[13] >> 4 || !cdb_length || cdb_length > CDB_MAX) {
        log_guest(&storage->complaints, "usb-storage '%s': %llu bytes that are no command",
                  storage->usb.device.id, (unsigned long long)packet->length);
        break_down(storage);
        usb_done(packet, USB_STALL);
        return;
    }
    storage->tag = get_le32(wrapper + 4);
    storage->expected = get_le32(wrapper + 8);
    storage->to_host = wrapper[12] & 0x80;
    storage->lun = wrapper[13] & 0x0f;
    storage->at = storage->ready = 0;
    memset(storage->cdb, 0, sizeof(storage->cdb));
    memcpy(storage->cdb, wrapper + 15, cdb_length);
    storage->phase =
        storage->expected && !storage->to_host ? USB_STORAGE_DATA_OUT : USB_STORAGE_RUN;
    usb_done(packet, USB_OK);
}

static void take_result(struct usb_storage *storage, const struct scsi_task *task)
{
    storage->ready = task->overrun ? 0 : (uint32_t)task->moved;
    storage->status = CSW_GOOD;
    if (task->overrun && storage->expected > USB_STORAGE_BUFFER) {
        storage->status = CSW_FAILED;
        scsi_sense_fill(storage->sense, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_INVALID_FIELD_CDB);
    } else if (task->overrun) {
        storage->status = CSW_PHASE_ERROR;
    } else if (task->status == SCSI_CHECK_CONDITION) {
        storage->status = CSW_FAILED;
        memcpy(storage->sense, task->sense, SCSI_SENSE_SIZE);
    }
    storage->phase =
        storage->to_host && storage->expected ? USB_STORAGE_DATA_IN : USB_STORAGE_STATUS;
}

/* At once, or later with the lock taken. */
static void task_done(struct scsi_task *task)
{
    struct usb_storage *storage = container_of(task, struct usb_storage, task);
    storage->busy = false;
    pthread_cond_broadcast(&storage->idle);
    if (!storage->dropped) {
        take_result(storage, task);
    }
    storage->dropped = false;
    advance(storage);
}

static void run_command(struct usb_storage *storage)
{
    static const uint16_t lun = 0;
    struct scsi_task *task = &storage->task;
    uint32_t room = MIN(storage->expected, (uint32_t)USB_STORAGE_BUFFER);
    storage->segment = (struct iovec){storage->buffer, room};
    memset(task->cdb, 0, sizeof(task->cdb));
    memcpy(task->cdb, storage->cdb, sizeof(storage->cdb));
    task->unit = storage->lun ? NULL : &storage->unit;
    task->in = task->out = &storage->segment;
    task->in_count = task->out_count = 1;
    task->in_skip = task->out_skip = 0;
    task->in_len = storage->to_host ? room : 0;
    task->out_len = storage->to_host ? 0 : room;
    task->luns = &lun;
    task->lun_count = 1;
    task->queue = storage->queue;
    task->done = task_done;
    task->lock = storage->usb.bus->lock;
    storage->busy = true;
    if (!scsi_task_answer_sense(task, storage->sense))
        scsi_task_start(task);
    block_flush_submissions(storage->queue);
}

/* --- data and status --- */

static void take_data(struct usb_storage *storage, struct usb_packet *packet)
{
    uint32_t left = storage->expected - storage->at;
    uint64_t taken = MIN(packet->length, (uint64_t)left);
    if (storage->at < USB_STORAGE_BUFFER)
        usb_packet_get(packet, (uint8_t *)storage->buffer + storage->at,
                       MIN(taken, USB_STORAGE_BUFFER - storage->at));
    packet->moved = taken; /* also what no command has room for */
    storage->at += (uint32_t)taken;
    if (storage->at == storage->expected)
        storage->phase = USB_STORAGE_RUN;
    usb_done(packet, taken < packet->length ? USB_STALL : USB_OK);
}

/* A packet that is not full tells the host that no more comes. */
static void give_data(struct usb_storage *storage, struct usb_packet *packet)
{
    uint32_t left = storage->ready - storage->at;
    uint64_t given =
        usb_packet_put(packet, (uint8_t *)storage->buffer + storage->at, MIN(packet->length, left));
    storage->at += (uint32_t)given;
    if (given < packet->length || storage->at == storage->expected)
        storage->phase = USB_STORAGE_STATUS;
    usb_done(packet, USB_OK);
}

static void give_status(struct usb_storage *storage, struct usb_packet *packet)
{
    uint8_t wrapper[STATUS_SIZE];
    uint32_t moved = storage->to_host ? storage->at : storage->ready;
    put_le32(wrapper, STATUS_SIGNATURE);
    put_le32(wrapper + 4, storage->tag);
    put_le32(wrapper + 8, storage->expected - MIN(moved, storage->expected));
    wrapper[12] = storage->status;
    usb_packet_put(packet, wrapper, sizeof(wrapper));
    storage->phase = USB_STORAGE_COMMAND;
    usb_done(packet, packet->length < STATUS_SIZE ? USB_BABBLE : USB_OK);
}

/* One step; false: it waits for a packet or the task. */
static bool step(struct usb_storage *storage)
{
    static void (*const serve[])(struct usb_storage *, struct usb_packet *) = {
        [USB_STORAGE_COMMAND] = take_command,
        [USB_STORAGE_DATA_OUT] = take_data,
        [USB_STORAGE_DATA_IN] = give_data,
        [USB_STORAGE_STATUS] = give_status,
    };
    if (storage->phase == USB_STORAGE_BROKEN || storage->busy)
        return false;
    if (storage->phase == USB_STORAGE_RUN) {
        if (storage->quiesced)
            return false;
        run_command(storage);
        return true;
    }
    bool out = storage->phase == USB_STORAGE_COMMAND || storage->phase == USB_STORAGE_DATA_OUT;
    struct usb_packet *packet = usb_kept(&storage->usb, out ? BULK_OUT : BULK_IN);
    if (!packet)
        return false;
    serve[storage->phase](storage, packet);
    return true;
}

static void advance(struct usb_storage *storage)
{
    if (storage->advancing) /* a packet or the task ended while another step was made */
        return;
    storage->advancing = true;
    while (step(storage))
        ;
    storage->advancing = false;
}

/* --- the bus's calls --- */

/* Ready for a command; what the medium still does, it does for nobody. */
static void start_over(struct usb_storage *storage)
{
    storage->dropped = storage->busy;
    storage->phase = USB_STORAGE_COMMAND;
    storage->at = storage->ready = storage->expected = 0;
}

static void storage_reset(struct usb_device *device)
{
    struct usb_storage *storage = to_storage(&device->device);
    start_over(storage);
    memset(storage->sense, 0, sizeof(storage->sense));
    scsi_unit_reset(&storage->unit, SCSI_ASC_POWER_ON);
}

static void storage_control(struct usb_device *device, struct usb_packet *packet)
{
    static const uint8_t last_lun = 0;
    switch (usb_setup_what(packet)) {
    case REQUEST_MAX_LUN:
        usb_answer(packet, &last_lun, 1);
        return;
    case REQUEST_RESET:
        start_over(to_storage(&device->device));
        usb_done(packet, USB_OK);
        return;
    }
    usb_standard_request(device, packet);
}

static void storage_data(struct usb_device *device, struct usb_packet *packet)
{
    if (packet->endpoint != BULK_IN && packet->endpoint != BULK_OUT) {
        usb_done(packet, USB_IO_ERROR);
        return;
    }
    usb_keep(packet);
    advance(to_storage(&device->device));
}

/* Only a reset gets a device going again that was sent nonsense. */
static void storage_halt_cleared(struct usb_device *device, uint8_t endpoint)
{
    if (to_storage(&device->device)->phase == USB_STORAGE_BROKEN)
        usb_halt(device, endpoint);
}

static const struct usb_ops storage_ops = {
    .reset = storage_reset,
    .control = storage_control,
    .data = storage_data,
    .halt_cleared = storage_halt_cleared,
};

/* --- what it says of itself --- */

static const uint8_t device_descriptor[] = {USB_DEVICE_DESCRIPTOR(0x0300, 9)};

/* clang-format off */
static const uint8_t configuration[] = {
    9, USB_DESCRIPTOR_CONFIGURATION, USB_LE16(44), 1, 1, 0, 0xc0, 0, /* powers itself */
    9, USB_DESCRIPTOR_INTERFACE, 0, 0, 2, 8, 6, 0x50, 0,             /* SCSI, bulk-only */
    7, USB_DESCRIPTOR_ENDPOINT, BULK_IN, 2, USB_LE16(1024), 0,
    6, USB_DESCRIPTOR_COMPANION, 15, 0, 0, 0,                        /* bursts of 16 */
    7, USB_DESCRIPTOR_ENDPOINT, BULK_OUT, 2, USB_LE16(1024), 0,
    6, USB_DESCRIPTOR_COMPANION, 15, 0, 0, 0};

static const uint8_t bos[] = {
    5, USB_DESCRIPTOR_BOS, USB_LE16(22), 2,
    7, USB_DESCRIPTOR_CAPABILITY, 2, 0, 0, 0, 0,                     /* USB 2 extension */
    10, USB_DESCRIPTOR_CAPABILITY, 3, 0, USB_LE16(0x0e), 1, 0, USB_LE16(0)}; /* SuperSpeed */
/* clang-format on */

static const struct usb_description description = {.device = device_descriptor,
                                                   .configuration = configuration,
                                                   .bos = bos,
                                                   .configuration_value = 1};

/* --- life --- */

static struct err *storage_realize(struct device *device)
{
    struct usb_storage *storage = to_storage(device);
    struct usb_device *usb = &storage->usb;
    pthread_cond_init(&storage->idle, NULL);
    storage->buffer_pages = USB_STORAGE_BUFFER / USB_STORAGE_PAGE;
    /* Zero pages: only what commands use ever costs memory. */
    storage->buffer = xcalloc(storage->buffer_pages, sizeof(*storage->buffer));
    storage->unit.block = storage->block;
    storage->unit.id = device->id;
    if (storage->serial)
        memcpy(storage->unit.serial, storage->serial, strnlen(storage->serial, SCSI_SERIAL_MAX));
    scsi_unit_init(&storage->unit);
    usb->ops = &storage_ops;
    usb->speed = USB_SPEED_SUPER;
    usb->description = &description;
    usb->string[USB_STRING_MANUFACTURER] = "Tenon";
    usb->string[USB_STRING_PRODUCT] = "Tenon USB disk";
    usb->string[USB_STRING_SERIAL] = storage->unit.serial;
    TRY(block_queue_new(storage->block, usb->bus->loop, &storage->queue));
    return usb_device_plug(usb);
}

static void storage_quiesce(struct device *device)
{
    struct usb_storage *storage = to_storage(device);
    struct lock *lock = storage->usb.bus->lock;
    lock_take(lock);
    storage->quiesced = true;
    if (storage->busy && loop_is_mine(storage->usb.bus->loop)) {
        lock_drop(lock);
        block_drain(storage->queue);
        lock_take(lock);
    }
    while (storage->busy)
        pthread_cond_wait(&storage->idle, &lock->mutex);
    lock_drop(lock);
}

static void kick(void *opaque)
{
    struct usb_storage *storage = opaque;
    struct lock *lock = storage->usb.bus->lock;
    lock_take(lock);
    advance(storage);
    lock_drop(lock);
}

static void storage_resume(struct device *device)
{
    struct usb_storage *storage = to_storage(device);
    struct lock *lock = storage->usb.bus->lock;
    lock_take(lock);
    bool waits = storage->quiesced && storage->phase == USB_STORAGE_RUN;
    storage->quiesced = false;
    lock_drop(lock);
    if (waits)
        loop_post(storage->usb.bus->loop, kick, storage);
}

static void storage_fini(struct device *device)
{
    struct usb_storage *storage = to_storage(device);
    usb_device_unplug(&storage->usb);
    block_queue_free(storage->queue);
    if (storage->buffer)
        pthread_cond_destroy(&storage->idle);
    free(storage->buffer);
    storage->queue = NULL;
    storage->buffer = NULL;
}

void usb_storage_resized(struct usb_storage *storage)
{
    lock_take(storage->usb.bus->lock);
    scsi_unit_resized(&storage->unit);
    lock_drop(storage->usb.bus->lock);
}

/* --- state: saved while quiesced, so the task is not with the block layer --- */

static struct err *check(const void *staged)
{
    const struct usb_storage *storage = staged;
    if (storage->phase > USB_STORAGE_BROKEN || storage->status > CSW_PHASE_ERROR)
        return err_new("phase %u, status %u", storage->phase, storage->status);
    if (storage->at > storage->expected || storage->ready > USB_STORAGE_BUFFER ||
        (storage->phase == USB_STORAGE_DATA_IN && storage->at > storage->ready))
        return err_new("%u bytes of %u, %u are ready", storage->at, storage->expected,
                       storage->ready);
    return NULL;
}

static const struct state_field page_fields[] = {STATE_BYTES(1, usb_storage_page, bytes)};
static const struct state_table page_state = {
    DEVICE_STATE_TABLE("usb-storage-page", usb_storage_page, page_fields)};

static const struct state_field fields[] = {
    USB_DEVICE_STATE(usb_storage, usb),
    STATE_U8(2, usb_storage, phase),
    STATE_U8(3, usb_storage, status),
    STATE_BOOL(4, usb_storage, to_host),
    STATE_U8(5, usb_storage, lun),
    STATE_U32(6, usb_storage, tag),
    STATE_U32(7, usb_storage, expected),
    STATE_U32(8, usb_storage, at),
    STATE_U32(9, usb_storage, ready),
    STATE_BYTES(10, usb_storage, cdb),
    STATE_BYTES(11, usb_storage, sense),
    STATE_STRUCT(12, usb_storage, unit, &scsi_unit_state),
    STATE_ARRAY(13, usb_storage, buffer, buffer_pages, usb_storage_page, &page_state),
};

static const struct state_table state = {
    DEVICE_STATE_TABLE("usb-storage", usb_storage, fields),
    .check = check,
};

const struct device_class usb_storage_class = {
    .name = "usb-storage",
    .description = "USB mass storage",
    .size = sizeof(struct usb_storage),
    .state = &state,
    .realize = storage_realize,
    .quiesce = storage_quiesce,
    .resume = storage_resume,
    .fini = storage_fini,
};
DEVICE_CLASS(usb_storage_class);
