/*
 * Commands of the NVM command set (NVMe 1.4, chapter 6): to block requests and back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "hw/disk/nvme_internal.h"

#define DW12_FUA (1u << 30)
#define DW12_DEALLOCATE (1u << 25)
#define DW11_DEALLOCATE (1u << 2)
#define RANGE 16u

static unsigned status_of(enum block_op op, int result)
{
    switch (result) {
    case 0:
        return NVME_OK;
    case -ENOSPC:
        return NVME_CAPACITY_EXCEEDED;
    case -EROFS:
        return NVME_WRITE_PROTECTED;
    default:
        return op == BLOCK_READ ? NVME_READ_ERROR : NVME_WRITE_FAULT;
    }
}

static bool writes_through(const struct nvme *nvme)
{
    return !(nvme->feature[NVME_FEATURE_WRITE_CACHE] & 1);
}

static unsigned submit(struct nvme_request *request, enum block_op op)
{
    struct nvme *nvme = request->sq->nvme;
    request->io.op = op;
    request->io.opaque = request;
    if (op != BLOCK_READ && op != BLOCK_FLUSH && writes_through(nvme))
        request->io.flags |= BLOCK_REQ_FUA;
    block_submit(request->ns->queue[nvme_loop_index(nvme, request->sq)], &request->io);
    return NVME_PENDING;
}

static void io_done(struct block_req *io, int result)
{
    struct nvme_request *request = io->opaque;
    struct nvme *nvme = request->sq->nvme;
    struct lock *lock = &nvme->pci.device.lock;
    lock_take(lock);
    nvme_unmap(request);
    if (io->op == BLOCK_READ) {
        nvme->reads++;
        nvme->read_units += io->length;
    } else if (io->op == BLOCK_WRITE) {
        nvme->writes++;
        nvme->write_units += io->length;
    }
    nvme_complete(request, status_of(io->op, result));
    lock_drop(lock);
}

/* From blocks to the bytes of the request; NVME_OK or the status. */
static unsigned locate(struct nvme_request *request, uint64_t lba, uint64_t blocks)
{
    const struct block_info *info = &request->ns->info;
    if (!range_within(lba, blocks, info->size / info->logical_block))
        return NVME_LBA_RANGE;
    request->io.offset = lba * info->logical_block;
    request->io.length = blocks * info->logical_block;
    return NVME_OK;
}

static uint64_t command_lba(const struct nvme_command *command)
{
    return command->dw10 | (uint64_t)command->dw11 << 32;
}

static unsigned transfer(struct nvme_request *request, bool write)
{
    const struct nvme_command *command = &request->command;
    uint64_t blocks = (command->dw12 & 0xffff) + 1ull;
    if (blocks * request->ns->info.logical_block > NVME_TRANSFER_MAX)
        return NVME_INVALID_FIELD;
    unsigned status = locate(request, command_lba(command), blocks);
    if (status == NVME_OK)
        status = nvme_map(request, (uint32_t)request->io.length, !write);
    if (status != NVME_OK)
        return status;
    request->io.iov = request->iov;
    request->io.iov_count = request->segments;
    request->io.flags = write && (command->dw12 & DW12_FUA) ? BLOCK_REQ_FUA : 0;
    return submit(request, write ? BLOCK_WRITE : BLOCK_READ);
}

static unsigned write_zeroes(struct nvme_request *request)
{
    const struct nvme_command *command = &request->command;
    unsigned status = locate(request, command_lba(command), (command->dw12 & 0xffff) + 1ull);
    if (status != NVME_OK)
        return status;
    request->io.flags = (command->dw12 & DW12_DEALLOCATE ? 0 : BLOCK_REQ_NO_UNMAP) |
                        (command->dw12 & DW12_FUA ? BLOCK_REQ_FUA : 0);
    return submit(request, BLOCK_ZERO);
}

static const uint8_t *range_at(const struct nvme_request *request, unsigned index)
{
    return request->list + RANGE * index;
}

static void discard_next(struct nvme_request *request)
{
    const uint8_t *at = range_at(request, request->range++);
    locate(request, get_le64(at + 8), get_le32(at + 4)); /* judged before */
    submit(request, BLOCK_DISCARD);
}

static void discard_done(struct block_req *io, int result)
{
    struct nvme_request *request = io->opaque;
    struct lock *lock = &request->sq->nvme->pci.device.lock;
    lock_take(lock);
    if (result == 0 && request->range < request->ranges)
        discard_next(request);
    else
        nvme_complete(request, status_of(io->op, result));
    lock_drop(lock);
}

static unsigned dataset_management(struct nvme_request *request)
{
    const struct nvme_command *command = &request->command;
    request->ranges = (command->dw10 & 0xff) + 1;
    request->range = 0;
    unsigned status =
        nvme_copy(request->sq->nvme, command, request->list, request->ranges * RANGE, false);
    for (unsigned i = 0; i < request->ranges && status == NVME_OK; i++)
        status =
            locate(request, get_le64(range_at(request, i) + 8), get_le32(range_at(request, i) + 4));
    if (status != NVME_OK)
        return status;
    if (!(command->dw11 & DW11_DEALLOCATE)) /* hints on use: no business of ours */
        return NVME_OK;
    request->io.done = discard_done;
    discard_next(request);
    return NVME_PENDING;
}

unsigned nvme_io(struct nvme_request *request)
{
    const struct nvme_command *command = &request->command;
    struct nvme *nvme = request->sq->nvme;
    enum nvme_io_op op = (enum nvme_io_op)command->opcode;
    bool writes = op == NVME_WRITE || op == NVME_WRITE_ZEROES || op == NVME_DATASET_MANAGEMENT;
    request->io = (struct block_req){.done = io_done};
    request->ns = nvme_namespace(nvme, command->nsid);
    if (!request->ns)
        return NVME_INVALID_NAMESPACE;
    if (writes && request->ns->info.readonly)
        return NVME_WRITE_PROTECTED;
    switch (op) {
    case NVME_FLUSH:
        return submit(request, BLOCK_FLUSH);
    case NVME_WRITE:
        return transfer(request, true);
    case NVME_READ:
        return transfer(request, false);
    case NVME_WRITE_ZEROES:
        return write_zeroes(request);
    case NVME_DATASET_MANAGEMENT:
        return dataset_management(request);
    }
    return NVME_INVALID_OPCODE;
}
