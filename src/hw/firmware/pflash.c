/*
 * Flash memory: Intel's basic command set (CFI specification 2.0; Intel StrataFlash 28F640J3
 * datasheet, section 4). One byte wide, blocks of 4 KiB.
 *
 * While the array is read, the guest sees it as ROM and only its writes come here; a command that
 * makes reads answer something else hides the ROM. Nothing takes time: the device is always ready.
 * The file gets what was programmed when the guest reads the array again, which firmware does
 * after each update, and at the end.
 *
 * Lock: the device's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/firmware/pflash.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"

enum pflash_mode {
    READ_ARRAY,
    READ_STATUS,
    READ_ID,
    READ_CFI,
    PROGRAM,      /* the next write is data */
    ERASE,        /* the next write confirms */
    BUFFER_COUNT, /* the next write says how many bytes follow, less one */
    BUFFER_DATA,  /* the next `count` writes are data */
    BUFFER_CONFIRM,
    LOCK, /* the next write says which way; there are no locks */
    MODES
};

#define COMMAND_PROGRAM 0x40
#define COMMAND_PROGRAM_TOO 0x10
#define COMMAND_ERASE 0x20
#define COMMAND_CLEAR_STATUS 0x50
#define COMMAND_LOCK 0x60
#define COMMAND_STATUS 0x70
#define COMMAND_ID 0x90
#define COMMAND_CFI 0x98
#define COMMAND_CONFIRM 0xd0
#define COMMAND_BUFFER 0xe8
#define COMMAND_ARRAY 0xff

#define STATUS_READY 0x80
#define STATUS_ERASE_ERROR 0x20
#define STATUS_PROGRAM_ERROR 0x10

#define ID_MANUFACTURER 0x89
#define ID_DEVICE 0x18

static void store(struct pflash *flash)
{
    uint32_t at = flash->dirty_from;

    while (flash->fd >= 0 && at < flash->dirty_to) {
        ssize_t n = pwrite(flash->fd, flash->bytes + at, flash->dirty_to - at, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            log_error("%s: the variables could not be written: %s", flash->device.id,
                      strerror(errno));
            break;
        }
        at += (uint32_t)n;
    }
    flash->dirty_from = flash->dirty_to = 0;
}

static void enter(struct pflash *flash, enum pflash_mode mode)
{
    struct hw_env *env = flash->device.env;

    flash->mode = (uint8_t)mode;
    if (mode == READ_ARRAY)
        store(flash);
    if (gmem_switch(env->gmem, flash->base, mode == READ_ARRAY ? GMEM_VIEW_ROM : GMEM_VIEW_NONE) &&
        env->ops->memory_changed)
        env->ops->memory_changed(env->opaque);
}

static void changed(struct pflash *flash, uint32_t at, uint32_t len)
{
    bool any = flash->dirty_to > flash->dirty_from;

    flash->dirty_from = any ? MIN(flash->dirty_from, at) : at;
    flash->dirty_to = any ? MAX(flash->dirty_to, at + len) : at + len;
}

/* Programming only clears bits. */
static void program(struct pflash *flash, uint32_t at, uint8_t value)
{
    flash->bytes[at] &= value;
    changed(flash, at, 1);
}

static void erase(struct pflash *flash, uint32_t at)
{
    at &= ~(PFLASH_BLOCK - 1);
    memset(flash->bytes + at, 0xff, PFLASH_BLOCK);
    changed(flash, at, PFLASH_BLOCK);
}

static void command(struct pflash *flash, uint8_t value)
{
    switch (value) {
    case COMMAND_PROGRAM:
    case COMMAND_PROGRAM_TOO:
        enter(flash, PROGRAM);
        break;
    case COMMAND_ERASE:
        enter(flash, ERASE);
        break;
    case COMMAND_CLEAR_STATUS:
        flash->status = 0;
        enter(flash, READ_STATUS);
        break;
    case COMMAND_STATUS:
        enter(flash, READ_STATUS);
        break;
    case COMMAND_ID:
        enter(flash, READ_ID);
        break;
    case COMMAND_CFI:
        enter(flash, READ_CFI);
        break;
    case COMMAND_LOCK:
        enter(flash, LOCK);
        break;
    case COMMAND_BUFFER:
        flash->status |= STATUS_READY;
        enter(flash, BUFFER_COUNT);
        break;
    default: /* and 0xff */
        enter(flash, READ_ARRAY);
    }
}

static void byte_write(struct pflash *flash, uint32_t at, uint8_t value)
{
    switch (flash->mode) {
    case PROGRAM:
        program(flash, at, value);
        flash->status |= STATUS_READY;
        flash->mode = READ_STATUS;
        break;
    case ERASE:
        if (value == COMMAND_CONFIRM)
            erase(flash, at);
        else
            flash->status |= STATUS_ERASE_ERROR | STATUS_PROGRAM_ERROR;
        flash->status |= STATUS_READY;
        flash->mode = READ_STATUS;
        break;
    case BUFFER_COUNT:
        flash->count = value + 1u;
        flash->mode = BUFFER_DATA;
        break;
    case BUFFER_DATA:
        program(flash, at, value);
        if (!--flash->count)
            flash->mode = BUFFER_CONFIRM;
        break;
    case BUFFER_CONFIRM:
        if (value != COMMAND_CONFIRM)
            flash->status |= STATUS_PROGRAM_ERROR;
        flash->status |= STATUS_READY;
        flash->mode = READ_STATUS;
        break;
    case LOCK:
        flash->status |= STATUS_READY;
        flash->mode = READ_STATUS;
        break;
    default:
        command(flash, value);
    }
}

/* CFI query structure: what drivers ask for; the rest reads 0. */
static uint8_t cfi_byte(const struct pflash *flash, uint32_t at)
{
    uint32_t blocks = flash->size / PFLASH_BLOCK;

    switch (at) {
    case 0x10:
        return 'Q';
    case 0x11:
        return 'R';
    case 0x12:
        return 'Y';
    case 0x13: /* Intel's command set */
        return 0x01;
    case 0x1b: /* voltages: 4.5 V to 5.5 V */
        return 0x45;
    case 0x1c:
        return 0x55;
    case 0x27: /* size as a power of two, rounded up */
        return (uint8_t)(32 - __builtin_clz(flash->size - 1));
    case 0x2c: /* one kind of block */
        return 1;
    case 0x2d:
        return (uint8_t)(blocks - 1);
    case 0x2e:
        return (uint8_t)((blocks - 1) >> 8);
    case 0x30: /* block size over 256 */
        return PFLASH_BLOCK >> 16 ? (uint8_t)(PFLASH_BLOCK >> 16) : (uint8_t)(PFLASH_BLOCK >> 8);
    }
    return 0;
}

static uint8_t byte_read(const struct pflash *flash, uint32_t at)
{
    switch (flash->mode) {
    case READ_ARRAY:
        return flash->bytes[at];
    case READ_ID:
        return (at & 0xff) == 0 ? ID_MANUFACTURER : (at & 0xff) == 1 ? ID_DEVICE : 0;
    case READ_CFI:
        return cfi_byte(flash, at & 0xff);
    default:
        return flash->status;
    }
}

static uint64_t flash_read(void *opaque, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)byte_read(opaque, (uint32_t)offset + i) << (8 * i);
    return value;
}

/* The part is one byte wide: a wider command is one command, wider data are several bytes. */
static void flash_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pflash *flash = opaque;
    bool data = flash->mode == PROGRAM || flash->mode == BUFFER_DATA;

    for (unsigned i = 0; i < (data ? size : 1); i++) {
        if (data && flash->mode == READ_STATUS)
            program(flash, (uint32_t)offset + i, (uint8_t)(value >> (8 * i)));
        else
            byte_write(flash, (uint32_t)offset + i, (uint8_t)(value >> (8 * i)));
    }
}

static const struct io_ops ops = {flash_read, flash_write};

static struct err *realize(struct device *device)
{
    struct pflash *flash = (struct pflash *)device;
    const struct gmem_region *memory = gmem_find(device->env->gmem, flash->base);

    if (!memory || memory->gpa != flash->base || memory->size != flash->size || !memory->rom ||
        flash->size % PFLASH_BLOCK)
        return err_new("there is no memory for it");
    flash->bytes = memory->rom;
    flash->region = (struct io_region){
        .name = "pflash", .size = flash->size, .ops = &ops, .opaque = flash, .lock = &device->lock};
    io_bus_add(device->env->mmio, &flash->region, flash->base);
    return NULL;
}

static void reset(struct device *device)
{
    struct pflash *flash = (struct pflash *)device;

    lock_take(&device->lock);
    flash->status = 0;
    flash->count = 0;
    enter(flash, READ_ARRAY);
    lock_drop(&device->lock);
}

static void quiesce(struct device *device)
{
    struct pflash *flash = (struct pflash *)device;

    lock_take(&device->lock);
    store(flash);
    lock_drop(&device->lock);
}

static void fini(struct device *device)
{
    struct pflash *flash = (struct pflash *)device;

    io_bus_remove(&flash->region);
    if (flash->bytes)
        store(flash);
    fd_cleanup(&flash->fd);
}

static struct err *check(const void *staged)
{
    const struct pflash *flash = staged;

    if (flash->mode >= MODES)
        return err_new("the flash memory is in an unknown mode");
    if (flash->count > 256 || (flash->mode == BUFFER_DATA && !flash->count))
        return err_new("the flash memory's buffer is out of range");
    return NULL;
}

/* The contents are the file's, as a disk's are its image's. */
static void post_load(void *object)
{
    struct pflash *flash = object;

    enter(flash, (enum pflash_mode)flash->mode);
}

static const struct state_field fields[] = {
    STATE_U8(1, pflash, mode),
    STATE_U8(2, pflash, status),
    STATE_U32(3, pflash, count),
};

static const struct state_table state = {
    DEVICE_STATE_TABLE("pflash", pflash, fields),
    .check = check,
    .post_load = post_load,
};

const struct device_class pflash_class = {
    .name = "pflash",
    .description = "flash memory for firmware variables",
    .size = sizeof(struct pflash),
    .state = &state,
    .realize = realize,
    .reset = reset,
    .quiesce = quiesce,
    .fini = fini,
};
DEVICE_CLASS(pflash_class);
