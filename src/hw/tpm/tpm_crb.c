/*
 * TPM 2.0 with a command response buffer. See tpm_crb.h.
 *
 * Lock: the device's. Registers are a vCPU's; replies come on the control loop and take the lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/tpm/tpm_crb.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

enum tpm_crb_register {
    LOC_STATE = 0x00,
    LOC_CTRL = 0x08,
    LOC_STS = 0x0c,
    INTF_ID = 0x30,
    INTF_ID_HIGH = 0x34,
    CTRL_REQ = 0x40,
    CTRL_STS = 0x44,
    CTRL_CANCEL = 0x48,
    CTRL_START = 0x4c,
    CTRL_CMD_SIZE = 0x58,
    CTRL_CMD_LADDR = 0x5c,
    CTRL_RSP_SIZE = 0x64,
    CTRL_RSP_LADDR = 0x68,
};

#define LOC_STATE_NOT_ESTABLISHED 0x01 /* no dynamic launch has happened: none can */
#define LOC_STATE_ASSIGNED 0x02
#define LOC_STATE_VALID 0x80
#define LOC_CTRL_REQUEST 0x01
#define LOC_CTRL_RELINQUISH 0x02
#define LOC_STS_GRANTED 0x01
#define REQ_READY 0x01
#define REQ_IDLE 0x02
#define STS_FAILED 0x01
#define STS_IDLE 0x02

/* CRB, its version 1, locality 0 alone, transfers of 64 bytes, no other interface to choose. */
#define INTF_ID_VALUE (0x1u | 0x1u << 4 | 0x3u << 11 | 0x1u << 14 | 0x1u << 17)
#define INTF_ID_HIGH_VALUE 0x00011014u /* device 1 of vendor 0x1014, whose TPM swtpm is */

#define RC_COMMAND_SIZE 0x142u
#define RC_FAILURE 0x101u
#define TAG_NO_SESSIONS 0x8001u

static uint32_t register_read(const struct tpm_crb *crb, enum tpm_crb_register at)
{
    switch (at) {
    case LOC_STATE:
        return LOC_STATE_VALID | LOC_STATE_NOT_ESTABLISHED |
               (crb->assigned ? LOC_STATE_ASSIGNED : 0);
    case LOC_STS:
        return crb->assigned ? LOC_STS_GRANTED : 0;
    case INTF_ID:
        return INTF_ID_VALUE;
    case INTF_ID_HIGH:
        return INTF_ID_HIGH_VALUE;
    case CTRL_STS:
        return (crb->failed ? STS_FAILED : 0) | (crb->ready ? 0 : STS_IDLE);
    case CTRL_START:
        return crb->started;
    case CTRL_CMD_SIZE:
    case CTRL_RSP_SIZE:
        return TPM_CRB_BUFFER_SIZE;
    case CTRL_CMD_LADDR:
    case CTRL_RSP_LADDR:
        return (uint32_t)(crb->base + TPM_CRB_BUFFER);
    default: /* requests are done at once; above 4 GiB there is nothing */
        return 0;
    }
}

static uint64_t crb_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct tpm_crb *crb = opaque;
    uint64_t value = 0;

    if (offset >= TPM_CRB_BUFFER)
        return get_le(crb->buffer + (offset - TPM_CRB_BUFFER), size);
    for (unsigned i = 0; i < size && offset + i < TPM_CRB_BUFFER; i++) {
        uint32_t word = register_read(crb, (enum tpm_crb_register)((offset + i) & ~3u));
        value |= (uint64_t)(uint8_t)(word >> (8 * ((offset + i) & 3))) << (8 * i);
    }
    return value;
}

/* --- commands --- */

static void respond(struct tpm_crb *crb, uint32_t code)
{
    put_be16(crb->buffer, TAG_NO_SESSIONS);
    put_be32(crb->buffer + 2, TPM_HEADER_SIZE);
    put_be32(crb->buffer + 6, code);
    crb->started = false;
}

static void submit(struct tpm_crb *crb);

static void on_reply(void *opaque, const uint8_t *reply, size_t len)
{
    struct tpm_crb *crb = opaque;

    crb->failed |= !reply;
    if (crb->discard) {
        crb->discard = false;
        if (crb->started)
            submit(crb);
        return;
    }
    if (!reply || len > sizeof(crb->buffer)) {
        respond(crb, RC_FAILURE);
        return;
    }
    memcpy(crb->buffer, reply, len);
    crb->started = false;
}

/* The guest cannot change the buffer while the command runs. */
static void submit(struct tpm_crb *crb)
{
    crb->request = (struct swtpm_request){
        .command = crb->buffer, .len = get_be32(crb->buffer + 2), .done = on_reply, .opaque = crb};
    swtpm_submit(&crb->tpm, &crb->request);
}

static void start(struct tpm_crb *crb)
{
    uint32_t len = get_be32(crb->buffer + 2);

    if (!crb->assigned || !crb->ready || crb->started) {
        log_guest(&crb->log, "%s: the guest starts a command that the TPM is not ready for",
                  crb->device.id);
        return;
    }
    if (len < TPM_HEADER_SIZE || len > sizeof(crb->buffer)) {
        log_guest(&crb->log, "%s: a command of %u bytes", crb->device.id, len);
        respond(crb, RC_COMMAND_SIZE);
        return;
    }
    crb->started = true;
    if (!crb->discard) /* else when the answer of the time before the reset has come */
        submit(crb);
}

static void register_write(struct tpm_crb *crb, enum tpm_crb_register at, uint32_t value)
{
    switch (at) {
    case LOC_CTRL:
        if (value & LOC_CTRL_RELINQUISH)
            crb->assigned = false;
        else if (value & LOC_CTRL_REQUEST)
            crb->assigned = true;
        break;
    case CTRL_REQ:
        if (crb->started)
            break;
        if (value & REQ_READY)
            crb->ready = true;
        else if (value & REQ_IDLE)
            crb->ready = false;
        break;
    case CTRL_CANCEL:
        if (value & 1 && crb->started)
            swtpm_cancel(&crb->tpm);
        break;
    case CTRL_START:
        if (value & 1)
            start(crb);
        break;
    default:
        break;
    }
}

static void crb_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct tpm_crb *crb = opaque;

    if (offset < TPM_CRB_BUFFER) {
        if (!(offset & 3))
            register_write(crb, (enum tpm_crb_register)offset, (uint32_t)value);
    } else if (!crb->started) {
        put_le(crb->buffer + (offset - TPM_CRB_BUFFER), size, value);
    }
}

static const struct io_ops ops = {crb_read, crb_write};

/* --- the host's own commands --- */

struct host_command {
    struct swtpm_request request;
    uint8_t *bytes;
    struct buf *reply; /* NULL: nobody waits any more */
    bool done;
};

static void host_command_free(struct host_command *command)
{
    free(command->bytes);
    free(command);
}

static void on_host_reply(void *opaque, const uint8_t *reply, size_t len)
{
    struct host_command *command = opaque;

    if (!command->reply) {
        host_command_free(command);
        return;
    }
    buf_append(command->reply, reply, len);
    command->done = true;
}

struct err *tpm_crb_execute(struct tpm_crb *crb, const uint8_t *bytes, size_t len,
                            struct buf *reply)
{
    size_t before = reply->len;

    if (!swtpm_command_is_whole(bytes, len))
        return err_new("these %zu bytes are no TPM command", len);
    struct host_command *command = xcalloc(1, sizeof(*command));
    command->bytes = xcalloc(1, len);
    memcpy(command->bytes, bytes, len);
    command->reply = reply;
    command->request = (struct swtpm_request){
        .command = command->bytes, .len = len, .done = on_host_reply, .opaque = command};
    lock_take(&crb->device.lock);
    swtpm_submit(&crb->tpm, &command->request);
    lock_drop(&crb->device.lock);
    swtpm_settle(&crb->tpm, &command->done);

    lock_take(&crb->device.lock);
    bool done = command->done;
    if (!done)
        command->reply = NULL;
    bool ours = done || swtpm_withdraw(&crb->tpm, &command->request);
    lock_drop(&crb->device.lock);
    if (ours)
        host_command_free(command);
    if (!done)
        return err_new("the TPM is busy with another command");
    return reply->len > before ? NULL : err_new("the TPM is out of order: swtpm has ended");
}

/* --- life --- */

static void init(struct device *device)
{
    struct tpm_crb *crb = (struct tpm_crb *)device;

    crb->tpm.control_fd = crb->tpm.command_fd = -1;
}

static struct err *realize(struct device *device)
{
    struct tpm_crb *crb = (struct tpm_crb *)device;

    crb->tpm.name = device->id;
    crb->tpm.loop = device->env->loop;
    crb->tpm.lock = &device->lock;
    TRY(swtpm_open(&crb->tpm));
    crb->region = (struct io_region){
        .name = "tpm-crb", .size = TPM_CRB_SIZE, .ops = &ops, .opaque = crb, .lock = &device->lock};
    io_bus_add(device->env->mmio, &crb->region, crb->base);
    return NULL;
}

static void reset(struct device *device)
{
    struct tpm_crb *crb = (struct tpm_crb *)device;

    lock_take(&device->lock);
    if (crb->started && !crb->discard)
        crb->discard = !swtpm_withdraw(&crb->tpm, &crb->request);
    crb->assigned = crb->ready = crb->started = false;
    memset(crb->buffer, 0, sizeof(crb->buffer));
    swtpm_reset(&crb->tpm);
    lock_drop(&device->lock);
}

static void quiesce(struct device *device)
{
    struct tpm_crb *crb = (struct tpm_crb *)device;

    swtpm_settle(&crb->tpm, NULL);
}

static void fini(struct device *device)
{
    struct tpm_crb *crb = (struct tpm_crb *)device;

    io_bus_remove(&crb->region);
    swtpm_close(&crb->tpm);
}

static struct err *check(const void *staged)
{
    const struct tpm_crb *crb = staged;

    return crb->started ? err_new("a TPM command was under way") : NULL;
}

static const struct state_field fields[] = {
    STATE_BOOL(1, tpm_crb, assigned), STATE_BOOL(2, tpm_crb, ready),
    STATE_BOOL(3, tpm_crb, started),  STATE_BOOL(4, tpm_crb, failed),
    STATE_BYTES(5, tpm_crb, buffer),
};

static const struct state_table state = {
    DEVICE_STATE_TABLE("tpm-crb", tpm_crb, fields),
    .check = check,
};

const struct device_class tpm_crb_class = {
    .name = "tpm-crb",
    .description = "TPM 2.0, command response buffer, in front of swtpm",
    .size = sizeof(struct tpm_crb),
    .state = &state,
    .init = init,
    .realize = realize,
    .reset = reset,
    .quiesce = quiesce,
    .fini = fini,
};
DEVICE_CLASS(tpm_crb_class);
