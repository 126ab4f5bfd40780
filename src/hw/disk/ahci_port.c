/*
 * One port of the AHCI controller (AHCI 1.3.1, sections 3.3 and 5.3): registers, command slots,
 * the FISes that the host receives, resets of the drive.
 *
 * A header and its table are copied when a slot is fetched; only the copies are judged. A block
 * request cannot be called back, so PxCMD.CR, which the host waits for before it takes memory away,
 * stays set until the last one has ended. What ends then, ends in silence.
 *
 * Device lock throughout.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "hw/core/env.h"
#include "hw/disk/ahci_internal.h"

#define HEADER_SIZE 32u
#define TABLE_PRDT 0x80u
#define TABLE_CDB 0x40u
#define TABLE_FETCHED (TABLE_CDB + AHCI_CDB)
#define FIS_COMMAND 0x80 /* host to device: a command, not a control */
#define FIS_WORDS 5u
#define CONTROL_SRST 0x04
#define HEADER_WRITE (1u << 6)

/* ST, FRE, ATAPI, DLAE, ALPE, ASP. */
#define CMD_WRITABLE 0x0f000011u
#define IS_WRITABLE 0xfd8000afu /* the rest follows other registers */
#define SCTL_WRITABLE 0x00000fffu
#define SCTL_DET 0xfu
#define SSTS_LINK_UP 0x123u /* active, 3 Gbit/s, communicating */
#define TFD_NO_DRIVE 0x7fu
#define SIGNATURE_NONE 0xffffffffu
#define SIGNATURE_DISK 0x00000101u
#define SIGNATURE_OPTICAL 0xeb140101u

/* --- FISes to the host --- */

static void post_fis(struct ahci_port *port, unsigned offset, const uint8_t *fis, size_t size)
{
    struct ahci *ahci = port->ahci;
    if ((port->cmd & AHCI_CMD_FRE) &&
        gmem_write(ahci->pci.device.env->gmem, port->fb + offset, fis, size) < 0)
        log_guest(&ahci->complaints, "ahci '%s': FISes of port %u go to 0x%llx, which is no memory",
                  ahci->pci.device.id, port->index, (unsigned long long)port->fb);
}

static void put_registers(uint8_t *fis, const struct ata_taskfile *task)
{
    put_le32(fis + 4, (uint32_t)(task->lba & 0xffffff) | (uint32_t)task->device << 24);
    put_le32(fis + 8, (uint32_t)(task->lba >> 24 & 0xffffff));
    put_le16(fis + 12, task->count);
}

static void post_register(struct ahci_port *port, const struct ata_taskfile *task, bool interrupt)
{
    uint8_t fis[20] = {FIS_DEVICE_TO_HOST, interrupt ? FIS_INTERRUPT : 0, (uint8_t)port->tfd,
                       (uint8_t)(port->tfd >> 8)};
    put_registers(fis, task);
    post_fis(port, AHCI_RX_REGISTER, fis, sizeof(fis));
    if (interrupt)
        port->is |= AHCI_IS_DHRS;
}

/* The data has moved already: one FIS stands for those of all its blocks. */
static void post_pio_setup(struct ahci_command *command)
{
    struct ahci_port *port = command->port;
    uint8_t fis[20] = {FIS_PIO_SETUP, FIS_INTERRUPT | FIS_TO_HOST, ATA_READY | ATA_DRQ, 0};
    put_registers(fis, &command->task);
    fis[15] = (uint8_t)port->tfd;
    put_le16(fis + 16, (uint16_t)command->moved);
    post_fis(port, AHCI_RX_PIO_SETUP, fis, sizeof(fis));
    port->is |= AHCI_IS_PSS;
}

static void post_device_bits(struct ahci_port *port, uint32_t tags)
{
    uint8_t fis[8] = {FIS_DEVICE_BITS, FIS_INTERRUPT, (uint8_t)port->tfd & 0x77,
                      (uint8_t)(port->tfd >> 8)};
    put_le32(fis + 4, tags);
    post_fis(port, AHCI_RX_DEVICE_BITS, fis, sizeof(fis));
    port->is |= AHCI_IS_SDBS;
}

/* --- link and resets --- */

static bool link_up(const struct ahci_port *port)
{
    return port->block && !port->link_wanted && !(port->sctl & SCTL_DET);
}

/* The drive's first FIS, as soon as the host has a place for it. */
static void give_signature(struct ahci_port *port)
{
    struct ata_taskfile task = {.count = 1, .lba = port->optical ? 0xeb1401 : 1};
    if (!port->signature || !link_up(port) || !(port->cmd & AHCI_CMD_FRE))
        return;
    port->signature = false;
    port->sig = port->optical ? SIGNATURE_OPTICAL : SIGNATURE_DISK;
    port->tfd = (port->optical ? 0u : ATA_READY) | 1u << 8; /* diagnostics passed */
    post_register(port, &task, false);
}

static void reset_drive(struct ahci_port *port, enum scsi_asc why)
{
    if (port->optical)
        scsi_unit_reset(&port->unit, why);
    else
        ata_reset(port);
    memset(port->sense, 0, sizeof(port->sense));
    port->srst = false;
    port->signature = true;
    give_signature(port);
}

static void connect(struct ahci_port *port, enum scsi_asc why)
{
    port->link_wanted = false;
    port->serr |= AHCI_SERR_N | AHCI_SERR_X;
    port->tfd = ATA_BUSY;
    reset_drive(port, why);
}

/* Nothing goes on; what is in flight ends in silence. */
static void drop_commands(struct ahci_port *port)
{
    port->ci = port->sact = port->finished = 0;
    port->stopping = port->in_flight;
}

static void write_sctl(struct ahci_port *port, uint32_t value)
{
    bool was_off = port->sctl & SCTL_DET;
    port->sctl = value & SCTL_WRITABLE;
    bool off = port->sctl & SCTL_DET;
    if (!port->block || off == was_off)
        return;
    if (off) {
        drop_commands(port);
        port->signature = port->link_wanted = false;
        port->tfd = TFD_NO_DRIVE;
        port->sig = SIGNATURE_NONE;
    } else {
        port->link_wanted = true;
        if (!port->in_flight)
            connect(port, SCSI_ASC_BUS_RESET);
    }
}

void ahci_port_reset(struct ahci_port *port)
{
    drop_commands(port);
    port->clb = port->fb = 0;
    port->is = port->ie = port->sctl = port->serr = 0;
    port->cmd = AHCI_CMD_SUD | AHCI_CMD_POD;
    port->tfd = TFD_NO_DRIVE;
    port->sig = SIGNATURE_NONE;
    port->last_slot = AHCI_SLOTS - 1;
    port->halted = port->signature = port->srst = false;
    if (port->block)
        connect(port, SCSI_ASC_POWER_ON);
}

/* --- registers --- */

static void start(struct ahci_port *port)
{
    port->halted = false;
    port->last_slot = AHCI_SLOTS - 1;
    if (!port->stopping)
        port->cmd |= AHCI_CMD_CR;
}

static void stop(struct ahci_port *port)
{
    drop_commands(port);
    port->cmd &= ~AHCI_CMD_CCS;
    if (!port->stopping)
        port->cmd &= ~AHCI_CMD_CR;
}

static void write_cmd(struct ahci_port *port, uint32_t value)
{
    uint32_t before = port->cmd;
    port->cmd = (before & ~CMD_WRITABLE) | (value & CMD_WRITABLE);
    port->cmd &= ~AHCI_CMD_FR;
    if (port->cmd & AHCI_CMD_FRE)
        port->cmd |= AHCI_CMD_FR;
    if (value & AHCI_CMD_CLO)
        port->tfd &= ~(uint32_t)(ATA_BUSY | ATA_DRQ);
    if (~before & port->cmd & AHCI_CMD_ST)
        start(port);
    if (before & ~port->cmd & AHCI_CMD_ST)
        stop(port);
    give_signature(port);
}

static uint32_t interrupt_status(const struct ahci_port *port)
{
    return port->is | (port->serr & AHCI_SERR_X ? AHCI_IS_PCS : 0) |
           (port->serr & AHCI_SERR_N ? AHCI_IS_PRCS : 0);
}

uint32_t ahci_port_read(const struct ahci_port *port, unsigned offset)
{
    switch ((enum ahci_port_register)offset) {
    case AHCI_PxCLB:
        return (uint32_t)port->clb;
    case AHCI_PxCLBU:
        return (uint32_t)(port->clb >> 32);
    case AHCI_PxFB:
        return (uint32_t)port->fb;
    case AHCI_PxFBU:
        return (uint32_t)(port->fb >> 32);
    case AHCI_PxIS:
        return interrupt_status(port);
    case AHCI_PxIE:
        return port->ie;
    case AHCI_PxCMD:
        return port->cmd;
    case AHCI_PxTFD:
        return port->tfd;
    case AHCI_PxSIG:
        return port->sig;
    case AHCI_PxSSTS:
        return link_up(port) ? SSTS_LINK_UP : (port->sctl & SCTL_DET) == 4 ? 4 : 0;
    case AHCI_PxSCTL:
        return port->sctl;
    case AHCI_PxSERR:
        return port->serr;
    case AHCI_PxSACT:
        return port->sact;
    case AHCI_PxCI:
        return port->ci;
    }
    return 0;
}

static void set_half(uint64_t *whole, bool high, uint32_t value)
{
    unsigned shift = high ? 32 : 0;
    *whole = (*whole & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
}

void ahci_port_write(struct ahci_port *port, unsigned offset, uint32_t value)
{
    bool started = port->cmd & AHCI_CMD_ST;
    switch ((enum ahci_port_register)offset) {
    case AHCI_PxCLB:
    case AHCI_PxCLBU:
        set_half(&port->clb, offset == AHCI_PxCLBU, offset == AHCI_PxCLB ? value & ~0x3ffu : value);
        break;
    case AHCI_PxFB:
    case AHCI_PxFBU:
        set_half(&port->fb, offset == AHCI_PxFBU, offset == AHCI_PxFB ? value & ~0xffu : value);
        break;
    case AHCI_PxIS:
        port->is &= ~(value & IS_WRITABLE);
        break;
    case AHCI_PxIE:
        port->ie = value & (IS_WRITABLE | AHCI_IS_PCS | AHCI_IS_PRCS);
        break;
    case AHCI_PxCMD:
        write_cmd(port, value);
        break;
    case AHCI_PxSCTL:
        write_sctl(port, value);
        break;
    case AHCI_PxSERR:
        port->serr &= ~value;
        break;
    case AHCI_PxSACT:
        if (started)
            port->sact |= value;
        break;
    case AHCI_PxCI:
        if (started)
            port->ci |= value;
        break;
    default:
        break;
    }
}

/* --- command slots --- */

void ahci_port_fatal(struct ahci_port *port, uint32_t cause)
{
    struct ahci *ahci = port->ahci;
    log_guest(&ahci->complaints,
              "ahci '%s': the command in slot %u of port %u lies where no memory is, or is none",
              ahci->pci.device.id, port->last_slot, port->index);
    port->is |= cause;
    port->halted = true;
    ahci_interrupts(ahci);
}

void ahci_port_tell_finished(struct ahci_port *port)
{
    uint32_t tags = port->finished;
    if (!tags)
        return;
    port->finished = 0;
    port->sact &= ~tags;
    post_device_bits(port, tags);
    ahci_interrupts(port->ahci);
}

/* The drive forgets its other queued commands after an error; the host issues them again. */
static void fail_queued(struct ahci_command *command, uint8_t error)
{
    struct ahci_port *port = command->port;
    struct ata_disk *disk = &port->disk;
    ahci_port_tell_finished(port);
    port->tfd = ATA_READY | ATA_ERR | (uint32_t)error << 8;
    disk->failed = true;
    disk->failed_tag = command->slot;
    disk->failed_status = (uint8_t)port->tfd;
    disk->failed_error = error;
    disk->failed_lba = command->task.lba;
    post_device_bits(port, 0);
    port->is |= AHCI_IS_TFES;
    port->halted = true;
    ahci_interrupts(port->ahci);
}

void ahci_finish(struct ahci_command *command, uint8_t error)
{
    struct ahci_port *port = command->port;
    command->busy = false;
    if (port->stopping || (command->queued && port->halted))
        return;
    if (command->queued && error) {
        fail_queued(command, error);
        return;
    }
    if (command->queued) {
        port->finished |= 1u << command->slot;
        return;
    }
    port->tfd = ATA_READY | (error ? ATA_ERR : 0u) | (uint32_t)error << 8;
    gmem_store_le32(port->ahci->pci.device.env->gmem, command->header + 4,
                    (uint32_t)command->moved);
    bool pio_in = command->pio_in && command->moved && !error;
    if (pio_in)
        post_pio_setup(command);
    if (!pio_in || command->task.command == ATA_PACKET)
        post_register(port, &command->task, true);
    if (error) {
        port->is |= AHCI_IS_TFES; /* the slot stays issued: it is the one that failed */
        port->halted = true;
    } else {
        port->ci &= ~(1u << command->slot);
    }
    ahci_interrupts(port->ahci);
}

void ahci_port_went_idle(struct ahci_port *port)
{
    if (port->stopping) {
        port->stopping = false;
        if (!(port->cmd & AHCI_CMD_ST))
            port->cmd &= ~AHCI_CMD_CR;
        else
            port->cmd |= AHCI_CMD_CR;
        if (link_up(port) && !port->signature)
            port->tfd = ATA_READY;
    }
    if (port->link_wanted)
        connect(port, SCSI_ASC_BUS_RESET);
}

/* A FIS that only carries the control register: software reset begins or ends. */
static void control(struct ahci_port *port, unsigned slot, uint8_t value)
{
    bool srst = value & CONTROL_SRST;
    port->ci &= ~(1u << slot);
    if (srst)
        port->tfd = ATA_BUSY;
    if (port->srst && !srst)
        reset_drive(port, SCSI_ASC_BUS_RESET);
    port->srst = srst;
}

static void decode(struct ata_taskfile *task, const uint8_t *fis)
{
    *task = (struct ata_taskfile){
        .command = fis[2],
        .device = fis[7],
        .features = (uint16_t)(fis[3] | fis[11] << 8),
        .count = get_le16(fis + 12),
        .lba = (get_le32(fis + 4) & 0xffffff) | (uint64_t)(get_le32(fis + 8) & 0xffffff) << 24,
    };
}

static bool is_queued(const struct ahci_port *port, const struct ata_taskfile *task)
{
    return !port->optical &&
           (task->command == ATA_READ_QUEUED || task->command == ATA_WRITE_QUEUED);
}

static void prepare(struct ahci_command *command, unsigned slot, const uint8_t *header,
                    const uint8_t *table)
{
    struct ahci_port *port = command->port;
    uint32_t flags = get_le32(header);
    command->busy = true;
    command->slot = (uint8_t)slot;
    command->pio_in = false;
    command->writes = flags & HEADER_WRITE;
    command->header = port->clb + HEADER_SIZE * slot;
    command->moved = command->left = 0;
    command->segments = 0;
    command->io = (struct block_req){0};
    memcpy(command->cdb, table + TABLE_CDB, AHCI_CDB);
    command->cursor = (struct ahci_cursor){.table = (get_le64(header + 8) & ~0x7full) + TABLE_PRDT,
                                           .entries = flags >> 16};
}

/* False: what is under way has to end before. */
static bool begin(struct ahci_port *port, unsigned slot)
{
    struct gmem *gmem = port->ahci->pci.device.env->gmem;
    uint8_t header[HEADER_SIZE], table[TABLE_FETCHED];
    struct ata_taskfile task;
    if (gmem_read(gmem, port->clb + HEADER_SIZE * slot, header, sizeof(header)) < 0 ||
        gmem_read(gmem, get_le64(header + 8) & ~0x7full, table, sizeof(table)) < 0) {
        port->last_slot = (uint8_t)slot;
        ahci_port_fatal(port, AHCI_IS_HBFS);
        return true;
    }
    decode(&task, table);
    bool queued = is_queued(port, &task);
    if (!queued && port->in_flight)
        return false;
    port->last_slot = (uint8_t)slot;
    port->cmd = (port->cmd & ~AHCI_CMD_CCS) | slot << 8;
    if ((get_le32(header) & 0x1f) < FIS_WORDS || table[0] != FIS_HOST_TO_DEVICE) {
        ahci_port_fatal(port, AHCI_IS_IFS);
        return true;
    }
    if (!(table[1] & FIS_COMMAND)) {
        control(port, slot, table[15]);
        return true;
    }
    struct ahci_command *command = &port->command[queued ? 1 + slot : 0];
    if (command->busy) /* its tag is in use: the host breaks the queueing protocol */
        return false;
    prepare(command, slot, header, table);
    command->task = task;
    command->queued = queued;
    if (queued)
        port->ci &= ~(1u << slot);
    else
        port->tfd = ATA_READY | ATA_BUSY;
    if (port->optical)
        atapi_start(command);
    else
        ata_start(command);
    return true;
}

static bool can_begin(const struct ahci_port *port)
{
    const uint32_t on = AHCI_CMD_ST | AHCI_CMD_CR | AHCI_CMD_FRE;
    return port->ci && (port->cmd & on) == on && link_up(port) && !port->halted &&
           !port->stopping && !port->command[0].busy && !port->ahci->quiesced &&
           !port->ahci->resetting;
}

void ahci_port_serve(struct ahci_port *port)
{
    if (port->serving) /* a command ended while another began */
        return;
    port->serving = true;
    while (can_begin(port)) {
        unsigned slot = (port->last_slot + 1u) % AHCI_SLOTS;
        while (!(port->ci >> slot & 1))
            slot = (slot + 1) % AHCI_SLOTS;
        if (!begin(port, slot))
            break;
    }
    port->serving = false;
}
