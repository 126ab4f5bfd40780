/*
 * SCSI disks: dispatch of commands, and those that reach the medium (SBC-3 chapter 5).
 *
 * A command descriptor block lies in the task, a copy. Sizes in it are judged against the unit and
 * against the segments before anything moves. Parameter lists are copied before they are judged.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "hw/disk/scsi_internal.h"

#define CDB_FUA 0x08      /* READ and WRITE of 10, 12 and 16 bytes, byte 1 */
#define SAME_UNMAP 0x08   /* WRITE SAME, byte 1 */
#define SAME_NO_DATA 0x01 /* WRITE SAME(16), byte 1: the block is zeros */
#define VERIFY_COMPARE 0x06
#define UNMAP_HEADER 8u
#define UNMAP_DESCRIPTOR 16u

void scsi_unit_init(struct scsi_unit *unit)
{
    block_get_info(unit->block, &unit->info);
    if (unit->optical)
        scsi_optical_init(unit);
    scsi_unit_reset(unit, SCSI_ASC_POWER_ON);
}

void scsi_unit_reset(struct scsi_unit *unit, enum scsi_asc why)
{
    unit->write_cache = unit->info.write_cache;
    unit->attention = (uint16_t)why;
    unit->locked = false;
    unit->event = SCSI_MEDIA_NOTHING;
}

void scsi_unit_resized(struct scsi_unit *unit)
{
    block_get_info(unit->block, &unit->info);
    unit->attention = SCSI_ASC_CAPACITY_CHANGED;
}

void scsi_sense_fill(uint8_t sense[SCSI_SENSE_SIZE], enum scsi_key key, enum scsi_asc asc)
{
    memset(sense, 0, SCSI_SENSE_SIZE);
    sense[0] = 0x70; /* current error, fixed format */
    sense[2] = (uint8_t)key;
    sense[7] = SCSI_SENSE_SIZE - 8;
    put_be16(sense + 12, (uint16_t)asc);
}

void scsi_task_good(struct scsi_task *task)
{
    task->status = SCSI_GOOD;
    task->done(task);
}

void scsi_task_check(struct scsi_task *task, enum scsi_key key, enum scsi_asc asc)
{
    task->status = SCSI_CHECK_CONDITION;
    scsi_sense_fill(task->sense, key, asc);
    task->done(task);
}

void scsi_task_answer(struct scsi_task *task, uint64_t length, uint64_t allocation)
{
    const uint8_t *from = task->scratch;
    length = MIN(MIN(length, allocation), task->in_len);
    iov_window_open(&task->window, task->in, task->in_count, task->in_skip, length);
    for (unsigned i = 0; i < task->window.count; i++) {
        memcpy(task->window.iov[i].iov_base, from, task->window.iov[i].iov_len);
        from += task->window.iov[i].iov_len;
    }
    iov_window_close(&task->window);
    task->moved = length;
    scsi_task_good(task);
}

uint64_t scsi_task_parameters(struct scsi_task *task, uint64_t length)
{
    length = MIN(MIN(length, task->out_len), (uint64_t)SCSI_SCRATCH_SIZE);
    uint8_t *to = task->scratch;
    iov_window_open(&task->window, task->out, task->out_count, task->out_skip, length);
    for (unsigned i = 0; i < task->window.count; i++) {
        memcpy(to, task->window.iov[i].iov_base, task->window.iov[i].iov_len);
        to += task->window.iov[i].iov_len;
    }
    iov_window_close(&task->window);
    __asm__ volatile("" ::: "memory"); /* only the copy counts from here on */
    task->moved = length;
    return length;
}

/* What the block layer says, as sense data. */
static void io_failed(struct scsi_task *task, int error)
{
    bool read = task->io.op == BLOCK_READ;
    if (error == -ENOSPC)
        scsi_task_check(task, SCSI_KEY_DATA_PROTECT, SCSI_ASC_NO_ROOM);
    else if (error == -EROFS)
        scsi_task_check(task, SCSI_KEY_DATA_PROTECT, SCSI_ASC_WRITE_PROTECTED);
    else
        scsi_task_check(task, SCSI_KEY_MEDIUM_ERROR,
                        read ? SCSI_ASC_READ_ERROR : SCSI_ASC_WRITE_ERROR);
}

static void submit(struct scsi_task *task, enum block_op op)
{
    task->io.op = op;
    task->io.opaque = task;
    block_submit(task->queue, &task->io);
}

static bool writes_through(const struct scsi_task *task)
{
    return !task->unit->write_cache;
}

/* --- READ and WRITE --- */

static void transfer_done(struct block_req *io, int result)
{
    struct scsi_task *task = io->opaque;
    lock_take(task->lock);
    iov_window_close(&task->window);
    if (result < 0) {
        io_failed(task, result);
    } else {
        task->moved = io->length;
        scsi_task_good(task);
    }
    lock_drop(task->lock);
}

/* Converts blocks to bytes; false after the task has ended because they are not there. */
static bool locate(struct scsi_task *task, uint64_t lba, uint64_t blocks)
{
    const struct block_info *info = &task->unit->info;
    if (!range_within(lba, blocks, info->size / info->logical_block)) {
        scsi_task_illegal(task, SCSI_ASC_LBA_RANGE);
        return false;
    }
    task->at = lba * info->logical_block;
    task->left = blocks * info->logical_block;
    return true;
}

/* The address and length fields that READ, WRITE, VERIFY and SYNCHRONIZE CACHE have alike. */
static void range_of(const uint8_t *cdb, uint64_t *lba, uint64_t *blocks)
{
    switch (cdb[0] >> 5) {
    case 0:
        *lba = get_be32(cdb) & 0x1fffff;
        *blocks = cdb[4] ? cdb[4] : 256;
        break;
    case 4:
        *lba = get_be64(cdb + 2);
        *blocks = get_be32(cdb + 10);
        break;
    case 5:
        *lba = get_be32(cdb + 2);
        *blocks = get_be32(cdb + 6);
        break;
    default:
        *lba = get_be32(cdb + 2);
        *blocks = get_be16(cdb + 7);
    }
}

static void transfer(struct scsi_task *task, bool write)
{
    uint64_t lba, blocks;
    range_of(task->cdb, &lba, &blocks);
    bool six = task->cdb[0] == SCSI_READ_6 || task->cdb[0] == SCSI_WRITE_6;
    if (!six && (task->cdb[1] & 0xe0)) { /* protection information: we have none */
        scsi_task_illegal(task, SCSI_ASC_INVALID_FIELD_CDB);
        return;
    }
    if (write && task->unit->info.readonly) {
        scsi_task_check(task, SCSI_KEY_DATA_PROTECT, SCSI_ASC_WRITE_PROTECTED);
        return;
    }
    if (!locate(task, lba, blocks))
        return;
    if (task->left > (write ? task->out_len : task->in_len)) {
        task->overrun = true;
        task->done(task);
        return;
    }
    if (write)
        iov_window_open(&task->window, task->out, task->out_count, task->out_skip, task->left);
    else
        iov_window_open(&task->window, task->in, task->in_count, task->in_skip, task->left);
    bool fua = !six && (task->cdb[1] & CDB_FUA);
    task->io = (struct block_req){.offset = task->at,
                                  .length = task->left,
                                  .iov = task->window.iov,
                                  .iov_count = task->window.count,
                                  .flags = fua || writes_through(task) ? BLOCK_REQ_FUA : 0,
                                  .done = transfer_done};
    submit(task, write ? BLOCK_WRITE : BLOCK_READ);
}

/* --- commands without data, and those that repeat --- */

static void simple_done(struct block_req *io, int result)
{
    struct scsi_task *task = io->opaque;
    lock_take(task->lock);
    if (result < 0)
        io_failed(task, result);
    else
        scsi_task_good(task);
    lock_drop(task->lock);
}

static void sync_cache(struct scsi_task *task)
{
    uint64_t lba, blocks;
    range_of(task->cdb, &lba, &blocks);
    if (!locate(task, lba, blocks))
        return;
    task->io = (struct block_req){.done = simple_done};
    submit(task, BLOCK_FLUSH);
}

static void verify(struct scsi_task *task)
{
    uint64_t lba, blocks;
    range_of(task->cdb, &lba, &blocks);
    if (task->cdb[1] & VERIFY_COMPARE)
        scsi_task_illegal(task, SCSI_ASC_INVALID_FIELD_CDB);
    else if (locate(task, lba, blocks))
        scsi_task_good(task);
}

/* The next descriptor of an UNMAP; all have been judged. */
static void unmap_next(struct scsi_task *task)
{
    const uint8_t *at = task->scratch + UNMAP_HEADER + UNMAP_DESCRIPTOR * task->descriptor++;
    uint32_t block = task->unit->info.logical_block;
    task->io.offset = get_be64(at) * block;
    task->io.length = (uint64_t)get_be32(at + 8) * block;
    submit(task, BLOCK_DISCARD);
}

static void unmap_done(struct block_req *io, int result)
{
    struct scsi_task *task = io->opaque;
    lock_take(task->lock);
    if (result < 0)
        io_failed(task, result);
    else if (task->descriptor < task->descriptors)
        unmap_next(task);
    else
        scsi_task_good(task);
    lock_drop(task->lock);
}

static bool unmap_judge(struct scsi_task *task, uint64_t length)
{
    uint64_t most = SCSI_UNMAP_BYTES_MAX / task->unit->info.logical_block, sum = 0;
    uint64_t described = length >= UNMAP_HEADER ? get_be16(task->scratch + 2) : 0;
    if (length < UNMAP_HEADER || described + UNMAP_HEADER > length) {
        scsi_task_illegal(task, SCSI_ASC_LIST_LENGTH);
        return false;
    }
    task->descriptor = 0;
    task->descriptors = (unsigned)(described / UNMAP_DESCRIPTOR);
    if (task->descriptors > SCSI_UNMAP_DESCRIPTORS_MAX) {
        scsi_task_illegal(task, SCSI_ASC_INVALID_FIELD_LIST);
        return false;
    }
    for (unsigned i = 0; i < task->descriptors; i++) {
        const uint8_t *at = task->scratch + UNMAP_HEADER + UNMAP_DESCRIPTOR * i;
        if (!locate(task, get_be64(at), get_be32(at + 8)))
            return false;
        sum += get_be32(at + 8);
    }
    if (sum > most) {
        scsi_task_illegal(task, SCSI_ASC_INVALID_FIELD_LIST);
        return false;
    }
    return true;
}

static void unmap(struct scsi_task *task)
{
    if (!task->unit->info.discard) {
        scsi_task_illegal(task, SCSI_ASC_INVALID_OPCODE);
        return;
    }
    uint64_t wanted = get_be16(task->cdb + 7);
    if (!wanted) {
        scsi_task_good(task);
        return;
    }
    if (!unmap_judge(task, scsi_task_parameters(task, wanted)))
        return;
    if (!task->descriptors) {
        scsi_task_good(task);
        return;
    }
    task->io =
        (struct block_req){.done = unmap_done, .flags = writes_through(task) ? BLOCK_REQ_FUA : 0};
    unmap_next(task);
}

/* The next piece of a WRITE SAME whose block is not zeros: it lies in scratch once, here often. */
static void same_next(struct scsi_task *task)
{
    uint32_t block = task->unit->info.logical_block;
    unsigned count = (unsigned)MIN(task->left / block, (uint64_t)SCSI_SAME_SEGMENTS);
    for (unsigned i = 0; i < count; i++)
        task->same[i] = (struct iovec){task->scratch, block};
    task->io.offset = task->at;
    task->io.length = (uint64_t)count * block;
    task->io.iov = task->same;
    task->io.iov_count = count;
    task->at += task->io.length;
    task->left -= task->io.length;
    submit(task, BLOCK_WRITE);
}

static void same_done(struct block_req *io, int result)
{
    struct scsi_task *task = io->opaque;
    lock_take(task->lock);
    if (result < 0)
        io_failed(task, result);
    else if (task->left)
        same_next(task);
    else
        scsi_task_good(task);
    lock_drop(task->lock);
}

static bool is_zero(const uint8_t *bytes, size_t length)
{
    return !bytes[0] && !memcmp(bytes, bytes + 1, length - 1);
}

static void write_same(struct scsi_task *task)
{
    const struct block_info *info = &task->unit->info;
    uint64_t lba, blocks;
    bool sixteen = task->cdb[0] == SCSI_WRITE_SAME_16;
    bool no_data = sixteen && (task->cdb[1] & SAME_NO_DATA);
    range_of(task->cdb, &lba, &blocks);
    if (info->readonly) {
        scsi_task_check(task, SCSI_KEY_DATA_PROTECT, SCSI_ASC_WRITE_PROTECTED);
        return;
    }
    /* No blocks would mean: to the end of the medium, which our block limits page forbids. */
    if ((task->cdb[1] & (sixteen ? 0xf6 : 0xf7)) || !blocks ||
        blocks > SCSI_SAME_BYTES_MAX / info->logical_block) {
        scsi_task_illegal(task, SCSI_ASC_INVALID_FIELD_CDB);
        return;
    }
    if (!locate(task, lba, blocks))
        return;
    if (!no_data && scsi_task_parameters(task, info->logical_block) < info->logical_block) {
        task->overrun = true;
        task->done(task);
        return;
    }
    task->io = (struct block_req){.flags = writes_through(task) ? BLOCK_REQ_FUA : 0};
    if (no_data || is_zero(task->scratch, info->logical_block)) {
        task->io.offset = task->at;
        task->io.length = task->left;
        task->io.done = simple_done;
        if (!(task->cdb[1] & SAME_UNMAP))
            task->io.flags |= BLOCK_REQ_NO_UNMAP;
        submit(task, BLOCK_ZERO);
    } else {
        task->io.done = same_done;
        same_next(task);
    }
}

/* --- dispatch --- */

static void request_sense(struct scsi_task *task)
{
    struct scsi_unit *unit = task->unit;
    if (task->cdb[1] & 1) { /* descriptor format */
        scsi_task_illegal(task, SCSI_ASC_INVALID_FIELD_CDB);
        return;
    }
    memset(task->scratch, 0, SCSI_SENSE_SIZE);
    if (!unit)
        scsi_sense_fill(task->scratch, SCSI_KEY_ILLEGAL_REQUEST, SCSI_ASC_NO_SUCH_UNIT);
    else if (unit->attention)
        scsi_sense_fill(task->scratch, SCSI_KEY_UNIT_ATTENTION, (enum scsi_asc)unit->attention);
    else
        scsi_sense_fill(task->scratch, SCSI_KEY_NONE, SCSI_ASC_NONE);
    if (unit)
        unit->attention = 0;
    scsi_task_answer(task, SCSI_SENSE_SIZE, task->cdb[4]);
}

bool scsi_task_answer_sense(struct scsi_task *task, uint8_t sense[SCSI_SENSE_SIZE])
{
    if (task->cdb[0] != SCSI_REQUEST_SENSE || !sense[0])
        return false;
    task->moved = 0;
    task->overrun = false;
    memcpy(task->scratch, sense, SCSI_SENSE_SIZE);
    memset(sense, 0, SCSI_SENSE_SIZE);
    scsi_task_answer(task, SCSI_SENSE_SIZE, task->cdb[4]);
    return true;
}

static void refuse_reservation(struct scsi_task *task)
{
    log_guest(&task->unit->complaints,
              "disk '%s': the guest asks for a SCSI reservation (command 0x%02x); this disk has "
              "none, a cluster must fence in another way",
              task->unit->id, task->cdb[0]);
    scsi_task_illegal(task, SCSI_ASC_INVALID_OPCODE);
}

static void good(struct scsi_task *task)
{
    scsi_task_good(task);
}

void scsi_read_blocks(struct scsi_task *task)
{
    transfer(task, false);
}

static void write_blocks(struct scsi_task *task)
{
    transfer(task, true);
}

static const struct {
    uint8_t op;
    void (*run)(struct scsi_task *task);
} commands[] = {
    {SCSI_READ_10, scsi_read_blocks},
    {SCSI_WRITE_10, write_blocks},
    {SCSI_READ_16, scsi_read_blocks},
    {SCSI_WRITE_16, write_blocks},
    {SCSI_SYNC_CACHE_10, sync_cache},
    {SCSI_SYNC_CACHE_16, sync_cache},
    {SCSI_UNMAP, unmap},
    {SCSI_WRITE_SAME_10, write_same},
    {SCSI_WRITE_SAME_16, write_same},
    {SCSI_READ_6, scsi_read_blocks},
    {SCSI_WRITE_6, write_blocks},
    {SCSI_READ_12, scsi_read_blocks},
    {SCSI_WRITE_12, write_blocks},
    {SCSI_TEST_UNIT_READY, good},
    {SCSI_MODE_SELECT_6, scsi_mode_select},
    {SCSI_MODE_SELECT_10, scsi_mode_select},
    {SCSI_MODE_SENSE_6, scsi_mode_sense},
    {SCSI_MODE_SENSE_10, scsi_mode_sense},
    {SCSI_START_STOP, good}, /* a disk in a file neither spins nor leaves */
    {SCSI_PREVENT_REMOVAL, good},
    {SCSI_READ_CAPACITY_10, scsi_read_capacity_10},
    {SCSI_SERVICE_ACTION_IN, scsi_service_action_in},
    {SCSI_VERIFY_10, verify},
    {SCSI_VERIFY_16, verify},
    {SCSI_RESERVE_6, refuse_reservation},
    {SCSI_RELEASE_6, refuse_reservation},
    {SCSI_PERSISTENT_RESERVE_IN, refuse_reservation},
    {SCSI_PERSISTENT_RESERVE_OUT, refuse_reservation},
};

void scsi_task_start(struct scsi_task *task)
{
    struct scsi_unit *unit = task->unit;
    task->moved = 0;
    task->overrun = false;
    task->window.count = 0;
    /* These three answer for units that are not there, and see no unit attention. */
    switch (task->cdb[0]) {
    case SCSI_INQUIRY:
        scsi_inquiry(task);
        return;
    case SCSI_REPORT_LUNS:
        scsi_report_luns(task);
        return;
    case SCSI_REQUEST_SENSE:
        request_sense(task);
        return;
    }
    if (!unit) {
        scsi_task_illegal(task, SCSI_ASC_NO_SUCH_UNIT);
        return;
    }
    if (unit->optical) {
        scsi_optical_start(task);
        return;
    }
    if (unit->attention) {
        enum scsi_asc why = (enum scsi_asc)unit->attention;
        unit->attention = 0;
        scsi_task_check(task, SCSI_KEY_UNIT_ATTENTION, why);
        return;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(commands); i++) {
        if (commands[i].op == task->cdb[0]) {
            commands[i].run(task);
            return;
        }
    }
    scsi_task_illegal(task, SCSI_ASC_INVALID_OPCODE);
}

static struct err *check(const void *staged)
{
    const struct scsi_unit *unit = staged;
    if (unit->write_cache > 1)
        return err_new("its cache mode %u is unknown", unit->write_cache);
    if (unit->event > SCSI_MEDIA_REMOVED)
        return err_new("its media event %u is unknown", unit->event);
    return NULL;
}

static const struct state_field fields[] = {
    STATE_U8(1, scsi_unit, write_cache), STATE_U16(2, scsi_unit, attention),
    STATE_BOOL(3, scsi_unit, tray_open), STATE_BOOL(4, scsi_unit, locked),
    STATE_U8(5, scsi_unit, event),
};

const struct state_table scsi_unit_state = {
    .name = "scsi-unit",
    .version = 1,
    .min_version = 1,
    .size = sizeof(struct scsi_unit),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .check = check,
};
