/*
 * ATA disks (ACS-3): what a disk over a block node answers to a command FIS. ATAPI drives share
 * the commands that say nothing of a medium.
 *
 * Addresses are LBA only: nobody has spoken cylinders to a SATA disk. Reads and writes go in as
 * many steps as the segments of their memory ask for, in order.
 *
 * Device lock throughout.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "hw/disk/ahci_internal.h"

#define DEVICE_LBA 0x40
#define DEVICE_FUA 0x80 /* queued commands */
#define TRIM 0x0001
#define TRIM_ENTRY 8u
#define FEATURE_WRITE_CACHE_ON 0x02
#define FEATURE_TRANSFER_MODE 0x03
#define FEATURE_LOOK_AHEAD_OFF 0x55
#define FEATURE_WRITE_CACHE_OFF 0x82
#define FEATURE_LOOK_AHEAD_ON 0xaa
#define SMART_KEY 0xc24f00u /* LBA high and middle of every SMART command */

enum smart_command {
    SMART_READ_DATA = 0xd0,
    SMART_READ_THRESHOLDS = 0xd1,
    SMART_AUTOSAVE = 0xd2,
    SMART_READ_LOG = 0xd5,
    SMART_ENABLE = 0xd8,
    SMART_DISABLE = 0xd9,
    SMART_STATUS = 0xda,
};

/* What a row of the table says of its command. */
#define EXT 0x01 /* 48-bit address, 16-bit count */
#define PIO 0x02
#define OUT 0x04 /* to the medium */
#define FUA 0x08
#define DISK 0x10 /* not for optical drives */

struct ata_op {
    uint8_t command, flags;
    void (*run)(struct ahci_command *command, const struct ata_op *op);
};

static struct ata_disk *disk_of(const struct ahci_command *command)
{
    return &command->port->disk;
}

void ata_reset(struct ahci_port *port)
{
    struct ata_disk *disk = &port->disk;
    disk->multiple = 0;
    disk->transfer_mode = 0x45; /* Ultra DMA 5 */
    disk->write_cache = disk->info.write_cache;
    disk->smart = true;
    disk->failed = false;
}

static void abort_command(struct ahci_command *command)
{
    ahci_finish(command, ATA_ERROR_ABORT);
}

static void good(struct ahci_command *command, const struct ata_op *op)
{
    ahci_finish(command, 0);
}

/* --- requests --- */

static uint8_t error_of(enum block_op op, int result)
{
    if (!result)
        return 0;
    return op == BLOCK_READ ? ATA_ERROR_UNCORRECTABLE : ATA_ERROR_ABORT;
}

void ahci_submit(struct ahci_command *command, enum block_op op)
{
    struct ahci_port *port = command->port;
    command->io.op = op;
    command->io.opaque = command;
    port->in_flight++;
    port->ahci->in_flight++;
    block_submit(port->queue, &command->io);
}

void ahci_bad_memory(struct ahci_command *command, int result)
{
    struct ahci_port *port = command->port;
    if (result == -ENOBUFS) {
        port->is |= AHCI_IS_OFS;
        abort_command(command);
        return;
    }
    command->busy = false;
    ahci_port_fatal(port, AHCI_IS_HBFS);
}

static void simple_done(struct block_req *io, int result)
{
    struct ahci_command *command = io->opaque;
    struct ahci_port *port = command->port;
    lock_take(ahci_lock(port));
    ahci_finish(command, error_of(io->op, result));
    ahci_ended(port);
    lock_drop(ahci_lock(port));
}

static void flush(struct ahci_command *command, const struct ata_op *op)
{
    command->io.done = simple_done;
    ahci_submit(command, BLOCK_FLUSH);
}

/* --- reads and writes --- */

static void next_step(struct ahci_command *command, enum block_op op);

static void step_done(struct block_req *io, int result)
{
    struct ahci_command *command = io->opaque;
    struct ahci_port *port = command->port;
    lock_take(ahci_lock(port));
    ahci_unmap(command, io->length);
    if (!result)
        command->moved += io->length;
    if (!result && command->left && !port->stopping && !(command->queued && port->halted))
        next_step(command, io->op);
    else
        ahci_finish(command, error_of(io->op, result));
    ahci_ended(port);
    lock_drop(ahci_lock(port));
}

static void next_step(struct ahci_command *command, enum block_op op)
{
    struct block_req *io = &command->io;
    uint64_t mapped;
    command->to_guest = op == BLOCK_READ;
    int result = ahci_map(command, command->left, disk_of(command)->info.logical_block, &mapped);
    if (result) {
        ahci_bad_memory(command, result);
        return;
    }
    io->offset = command->at;
    io->length = mapped;
    io->iov = command->iov;
    io->iov_count = command->segments;
    io->done = step_done;
    command->at += mapped;
    command->left -= mapped;
    ahci_submit(command, op);
}

/* From sectors to bytes; false after the command has ended because they are not there. */
static bool locate(struct ahci_command *command, uint64_t lba, uint64_t sectors)
{
    const struct block_info *info = &disk_of(command)->info;
    if (!range_within(lba, sectors, info->size / info->logical_block)) {
        ahci_finish(command, ATA_ERROR_NO_ADDRESS | ATA_ERROR_ABORT);
        return false;
    }
    command->at = lba * info->logical_block;
    command->left = sectors * info->logical_block;
    return true;
}

static bool locate_task(struct ahci_command *command, bool ext)
{
    const struct ata_taskfile *task = &command->task;
    if (!(task->device & DEVICE_LBA)) {
        abort_command(command);
        return false;
    }
    if (ext)
        return locate(command, task->lba, task->count ? task->count : 65536);
    uint64_t lba = (task->lba & 0xffffff) | (uint64_t)(task->device & 0x0f) << 24;
    return locate(command, lba, task->count & 0xff ? task->count & 0xff : 256);
}

static void begin_transfer(struct ahci_command *command, bool out, bool fua)
{
    const struct ata_disk *disk = disk_of(command);
    if (out && (fua || !disk->write_cache))
        command->io.flags = BLOCK_REQ_FUA;
    next_step(command, out ? BLOCK_WRITE : BLOCK_READ);
}

static void transfer(struct ahci_command *command, const struct ata_op *op)
{
    bool out = op->flags & OUT;
    command->pio_in = (op->flags & PIO) && !out;
    if (out && disk_of(command)->info.readonly)
        abort_command(command);
    else if (locate_task(command, op->flags & EXT))
        begin_transfer(command, out, op->flags & FUA);
}

static void transfer_queued(struct ahci_command *command, const struct ata_op *op)
{
    const struct ata_taskfile *task = &command->task;
    bool out = op->flags & OUT;
    uint64_t sectors = task->features ? task->features : 65536;
    if ((out && disk_of(command)->info.readonly) || (task->count >> 3 & 31) != command->slot ||
        !(command->port->sact >> command->slot & 1))
        abort_command(command);
    else if (locate(command, task->lba, sectors))
        begin_transfer(command, out, task->device & DEVICE_FUA);
}

static void verify(struct ahci_command *command, const struct ata_op *op)
{
    if (locate_task(command, op->flags & EXT))
        ahci_finish(command, 0);
}

/* --- DATA SET MANAGEMENT --- */

static const uint8_t *range_at(const struct ahci_command *command, unsigned index)
{
    return command->port->list + TRIM_ENTRY * index;
}

static bool locate_range(struct ahci_command *command, unsigned index)
{
    uint64_t entry = get_le64(range_at(command, index));
    return locate(command, entry & ((1ull << 48) - 1), entry >> 48);
}

static void discard_next(struct ahci_command *command)
{
    locate_range(command, command->range++); /* judged before */
    command->io.offset = command->at;
    command->io.length = command->left;
    ahci_submit(command, BLOCK_DISCARD);
}

static void discard_done(struct block_req *io, int result)
{
    struct ahci_command *command = io->opaque;
    struct ahci_port *port = command->port;
    lock_take(ahci_lock(port));
    if (!result && command->range < command->ranges && !port->stopping)
        discard_next(command);
    else
        ahci_finish(command, error_of(io->op, result));
    ahci_ended(port);
    lock_drop(ahci_lock(port));
}

static void data_set_management(struct ahci_command *command, const struct ata_op *op)
{
    const struct block_info *info = &disk_of(command)->info;
    uint32_t length = command->task.count * ATA_SECTOR;
    if (!(command->task.features & TRIM) || !info->discard || !length || length > ATA_LIST_SIZE) {
        abort_command(command);
        return;
    }
    int result = ahci_copy(command, command->port->list, length, false);
    if (result) {
        ahci_bad_memory(command, result);
        return;
    }
    command->range = 0;
    command->ranges = length / TRIM_ENTRY;
    for (unsigned i = 0; i < command->ranges; i++) {
        if (!locate_range(command, i))
            return;
    }
    command->io.done = discard_done;
    discard_next(command);
}

/* --- answers out of tables --- */

void ata_answer(struct ahci_command *command, const void *bytes, uint32_t length)
{
    uint8_t copy[ATA_SECTOR];
    memcpy(copy, bytes, length);
    int result = ahci_copy(command, copy, length, true);
    if (result)
        ahci_bad_memory(command, result);
    else
        ahci_finish(command, 0);
}

/* An optical drive refuses the disk's identification, and the registers say what it is. */
static void identify(struct ahci_command *command, const struct ata_op *op)
{
    struct ahci_port *port = command->port;
    uint8_t answer[ATA_SECTOR];
    bool packet = command->task.command == 0xa1;
    if (packet != port->optical) {
        if (port->optical) {
            command->task.lba = 0xeb1401;
            command->task.count = 1;
        }
        abort_command(command);
        return;
    }
    if (packet)
        ata_identify_optical(port, answer);
    else
        ata_identify_disk(port, answer);
    command->pio_in = true;
    ata_answer(command, answer, sizeof(answer));
}

static void read_log(struct ahci_command *command, const struct ata_op *op)
{
    const struct ata_taskfile *task = &command->task;
    uint8_t answer[ATA_SECTOR];
    uint16_t page = (uint16_t)((task->lba >> 8 & 0xff) | (task->lba >> 32 & 0xff) << 8);
    if (task->count != 1 || !ata_log_page(command->port, (uint8_t)task->lba, page, answer)) {
        abort_command(command);
        return;
    }
    command->pio_in = op->flags & PIO;
    ata_answer(command, answer, sizeof(answer));
}

static void smart(struct ahci_command *command, const struct ata_op *op)
{
    struct ahci_port *port = command->port;
    enum smart_command what = (enum smart_command)(command->task.features & 0xff);
    uint8_t answer[ATA_SECTOR];
    if ((command->task.lba & 0xffff00) != SMART_KEY ||
        (!port->disk.smart && what != SMART_ENABLE)) {
        abort_command(command);
        return;
    }
    switch (what) {
    case SMART_READ_DATA:
    case SMART_READ_THRESHOLDS:
        ata_smart_data(port, what == SMART_READ_THRESHOLDS, answer);
        break;
    case SMART_READ_LOG:
        if ((command->task.count & 0xff) != 1 ||
            !ata_log_page(port, (uint8_t)command->task.lba, 0, answer)) {
            abort_command(command);
            return;
        }
        break;
    case SMART_ENABLE:
    case SMART_DISABLE:
        port->disk.smart = what == SMART_ENABLE;
        ahci_finish(command, 0);
        return;
    case SMART_AUTOSAVE:
    case SMART_STATUS: /* the key unchanged: no threshold is exceeded */
        ahci_finish(command, 0);
        return;
    default:
        abort_command(command);
        return;
    }
    command->pio_in = true;
    ata_answer(command, answer, sizeof(answer));
}

/* --- settings --- */

static void set_features(struct ahci_command *command, const struct ata_op *op)
{
    struct ata_disk *disk = disk_of(command);
    bool optical = command->port->optical;
    switch (command->task.features & 0xff) {
    case FEATURE_TRANSFER_MODE:
        disk->transfer_mode = (uint8_t)command->task.count;
        break;
    case FEATURE_WRITE_CACHE_ON:
    case FEATURE_WRITE_CACHE_OFF:
        if (optical) {
            abort_command(command);
            return;
        }
        disk->write_cache = (command->task.features & 0xff) == FEATURE_WRITE_CACHE_ON;
        if (!disk->write_cache) { /* what it holds goes to the medium first */
            flush(command, op);
            return;
        }
        break;
    case FEATURE_LOOK_AHEAD_ON:
    case FEATURE_LOOK_AHEAD_OFF:
        break;
    default:
        abort_command(command);
        return;
    }
    ahci_finish(command, 0);
}

static void set_multiple(struct ahci_command *command, const struct ata_op *op)
{
    uint8_t sectors = (uint8_t)command->task.count;
    if (sectors > 16 || (sectors & (sectors - 1))) {
        abort_command(command);
        return;
    }
    disk_of(command)->multiple = sectors;
    ahci_finish(command, 0);
}

static void check_power(struct ahci_command *command, const struct ata_op *op)
{
    command->task.count = 0xff; /* active or idle */
    ahci_finish(command, 0);
}

static void read_native_max(struct ahci_command *command, const struct ata_op *op)
{
    const struct block_info *info = &disk_of(command)->info;
    uint64_t last = info->size / info->logical_block - 1;
    if (op->flags & EXT) {
        command->task.lba = last;
    } else {
        last = MIN(last, 0x0fffffffull);
        command->task.lba = last & 0xffffff;
        command->task.device = (uint8_t)(DEVICE_LBA | last >> 24);
    }
    ahci_finish(command, 0);
}

/* DEVICE RESET and EXECUTE DEVICE DIAGNOSTIC: the registers say what the drive is. */
static void show_signature(struct ahci_command *command, const struct ata_op *op)
{
    command->task = (struct ata_taskfile){
        .command = command->task.command, .count = 1, .lba = command->port->optical ? 0xeb1401 : 1};
    ahci_finish(command, 0);
}

/* --- dispatch --- */

static const struct ata_op ops[] = {
    {ATA_READ_QUEUED, DISK, transfer_queued},
    {ATA_WRITE_QUEUED, DISK | OUT, transfer_queued},
    {0x25, DISK | EXT, transfer},                   /* READ DMA EXT */
    {0x35, DISK | EXT | OUT, transfer},             /* WRITE DMA EXT */
    {0x3d, DISK | EXT | OUT | FUA, transfer},       /* WRITE DMA FUA EXT */
    {0xc8, DISK, transfer},                         /* READ DMA */
    {0xca, DISK | OUT, transfer},                   /* WRITE DMA */
    {0x20, DISK | PIO, transfer},                   /* READ SECTORS */
    {0x24, DISK | PIO | EXT, transfer},             /* READ SECTORS EXT */
    {0x29, DISK | PIO | EXT, transfer},             /* READ MULTIPLE EXT */
    {0xc4, DISK | PIO, transfer},                   /* READ MULTIPLE */
    {0x30, DISK | PIO | OUT, transfer},             /* WRITE SECTORS */
    {0x34, DISK | PIO | EXT | OUT, transfer},       /* WRITE SECTORS EXT */
    {0x39, DISK | PIO | EXT | OUT, transfer},       /* WRITE MULTIPLE EXT */
    {0xc5, DISK | PIO | OUT, transfer},             /* WRITE MULTIPLE */
    {0xce, DISK | PIO | EXT | OUT | FUA, transfer}, /* WRITE MULTIPLE FUA EXT */
    {0x40, DISK, verify},                           /* READ VERIFY */
    {0x42, DISK | EXT, verify},                     /* READ VERIFY EXT */
    {0xe7, 0, flush},                               /* FLUSH CACHE */
    {0xea, 0, flush},                               /* FLUSH CACHE EXT */
    {0x06, DISK, data_set_management},              /* DATA SET MANAGEMENT */
    {0xec, 0, identify},                            /* IDENTIFY DEVICE */
    {0xa1, 0, identify},                            /* IDENTIFY PACKET DEVICE */
    {0x2f, DISK | PIO, read_log},                   /* READ LOG EXT */
    {0x47, DISK, read_log},                         /* READ LOG DMA EXT */
    {0xb0, DISK, smart},                            /* SMART */
    {0xef, 0, set_features},                        /* SET FEATURES */
    {0xc6, DISK, set_multiple},                     /* SET MULTIPLE MODE */
    {0x27, DISK | EXT, read_native_max},            /* READ NATIVE MAX ADDRESS EXT */
    {0xf8, DISK, read_native_max},                  /* READ NATIVE MAX ADDRESS */
    {0xe5, 0, check_power},                         /* CHECK POWER MODE */
    {0xe0, 0, flush},                               /* STANDBY IMMEDIATE */
    {0xe1, 0, good},                                /* IDLE IMMEDIATE */
    {0xe2, 0, flush},                               /* STANDBY */
    {0xe3, 0, good},                                /* IDLE */
    {0xe6, 0, flush},                               /* SLEEP */
    {0x08, 0, show_signature},                      /* DEVICE RESET */
    {0x90, 0, show_signature},                      /* EXECUTE DEVICE DIAGNOSTIC */
};

void ata_start(struct ahci_command *command)
{
    bool optical = command->port->optical;
    for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
        if (ops[i].command != command->task.command)
            continue;
        if (optical && (ops[i].flags & DISK))
            break;
        ops[i].run(command, &ops[i]);
        return;
    }
    abort_command(command);
}
