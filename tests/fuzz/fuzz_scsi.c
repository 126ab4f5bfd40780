/*
 * Fuzz target: SCSI commands to a disk. The input is a list of commands: a descriptor block, sizes
 * of the data buffers, and data. Each must end, with as many bytes as the buffers have at most.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "hw/disk/scsi_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DISK_SIZE KIB(256)
#define COMMANDS_MAX 64
#define HEADER 20 /* of a command in the input: 16 bytes of block, sizes of its data */

struct target {
    struct loop *loop;
    struct block *block;
    struct block_queue *queue;
    struct scsi_unit unit;
    struct lock lock;
    uint8_t data[8192];
    bool done;
};

static void must(struct err *err)
{
    if (err)
        abort();
}

static void no_log(void *opaque, const struct log_record *record)
{
}

static struct target *target_open(void)
{
    struct target *target = xcalloc(1, sizeof(*target));
    int fd = memfd_create("disk", 0);
    log_set_sink(no_log, NULL);
    if (fd < 0 || ftruncate(fd, DISK_SIZE) != 0)
        abort();
    must(loop_new("fuzz", &target->loop));
    struct block_options options = {
        .id = "d0", .fd = fd, .discard = true, .engine = BLOCK_ENGINE_THREADS};
    must(block_open_raw(&options, &target->block));
    must(block_queue_new(target->block, target->loop, &target->queue));
    lock_init(&target->lock, LOCK_DEVICE);
    return target;
}

static struct target *the_target; /* scsi_task has no room for it */

static void done(struct scsi_task *task)
{
    the_target->done = true;
}

/* One command; the guest's memory keeps what the last one left there. */
static void run(struct target *target, struct scsi_task *task, const uint8_t *header)
{
    static const uint16_t luns[] = {0, 1};
    uint64_t out = get_le16(header + 16) & 0xfff, in = get_le16(header + 18) & 0xfff;
    struct iovec outs[2] = {{target->data, out / 3}, {target->data + out / 3, out - out / 3}};
    struct iovec ins[2] = {{target->data, in / 2}, {target->data + in / 2, in - in / 2}};
    memset(task->cdb, 0, sizeof(task->cdb));
    memcpy(task->cdb, header, 16);
    task->unit = header[17] & 0x80 ? NULL : &target->unit;
    task->out = outs;
    task->in = ins;
    task->out_count = task->in_count = 2;
    task->out_skip = MIN(out, (uint64_t)5);
    task->in_skip = MIN(in, (uint64_t)3);
    task->out_len = out - task->out_skip;
    task->in_len = in - task->in_skip;
    task->luns = luns;
    task->lun_count = ARRAY_SIZE(luns);
    task->queue = target->queue;
    task->done = done;
    task->lock = &target->lock;
    target->done = false;
    lock_take(&target->lock);
    scsi_task_start(task);
    lock_drop(&target->lock);
    block_drain(target->queue);
    if (!target->done || (!task->overrun && task->moved > task->in_len + task->out_len))
        abort();
    /* Cut segments are whole again. */
    if (outs[0].iov_len + outs[1].iov_len != out || ins[0].iov_len + ins[1].iov_len != in)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct scsi_task task;
    if (!the_target)
        the_target = target_open();
    struct target *target = the_target;
    target->unit = (struct scsi_unit){.block = target->block, .id = "d0", .serial = "fuzz"};
    scsi_unit_init(&target->unit);
    for (unsigned i = 0; i < COMMANDS_MAX && size >= HEADER; i++) {
        const uint8_t *header = data;
        data += HEADER;
        size -= HEADER;
        size_t body = MIN(MIN(size, (size_t)(get_le16(header + 16) & 0xfff)), (size_t)256);
        memcpy(target->data, data, body);
        data += body;
        size -= body;
        run(target, &task, header);
    }
    return 0;
}
