/*
 * Requests of virtio-blk (virtio 1.2, section 5.2.6): a 16-byte header in front, a status byte at
 * the end, and between them the data, which goes to the block layer where it lies.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "hw/core/iov_window.h"
#include "hw/virtio/virtio_blk_internal.h"

#define SECTOR 512u
#define HEADER_SIZE 16
#define RANGE_SIZE 16
#define RANGE_SECTORS_MAX 0x400000u

enum type {
    TYPE_READ = 0,
    TYPE_WRITE = 1,
    TYPE_FLUSH = 4,
    TYPE_GET_ID = 8,
    TYPE_DISCARD = 11,
    TYPE_WRITE_ZEROES = 13,
};

enum status { STATUS_OK, STATUS_IOERR, STATUS_UNSUPP };

#define RANGE_UNMAP 1u

struct request {
    struct block_req io;
    struct virtio_blk_queue *queue;
    struct virtq_req *req;
    struct iov_window data;
    unsigned range, ranges;
    bool write_zeroes;
};

const uint32_t virtio_blk_request_size = sizeof(struct request);

static void complete(struct request *request, enum status status)
{
    struct virtq_req *req = request->req;
    uint8_t byte = (uint8_t)status;
    iov_window_close(&request->data);
    virtq_req_write(req, req->in_len - 1, &byte, 1);
    virtq_push(req->queue, req, (uint32_t)req->in_len);
}

/* The bytes between header and status go where they lie. */
static void set_data(struct request *request, struct iovec *iov, unsigned count, uint64_t skip,
                     uint64_t length)
{
    iov_window_open(&request->data, iov, count, skip, length);
    request->io.iov = request->data.iov;
    request->io.iov_count = request->data.count;
    request->io.length = length;
}

/* Must a write be stable when it completes? (section 5.2.6.2) */
static bool write_through(const struct virtio_blk *blk)
{
    const struct virtio_device *virtio = &blk->virtio;
    if (!virtio_has_feature(virtio, VIRTIO_BLK_F_FLUSH))
        return true;
    return virtio_has_feature(virtio, VIRTIO_BLK_F_CONFIG_WCE) && !blk->writeback;
}

static void submit(struct request *request, enum block_op op)
{
    request->io.op = op;
    if (op != BLOCK_READ && op != BLOCK_FLUSH && write_through(request->queue->blk))
        request->io.flags |= BLOCK_REQ_FUA;
    block_submit(request->queue->block, &request->io);
}

static void transfer(struct request *request, uint64_t sector, bool write)
{
    struct virtq_req *req = request->req;
    if (write)
        set_data(request, req->out, req->out_count, HEADER_SIZE, req->out_len - HEADER_SIZE);
    else
        set_data(request, req->in, req->in_count, 0, req->in_len - 1);
    if (!checked_mul(sector, SECTOR, &request->io.offset)) {
        complete(request, STATUS_IOERR);
        return;
    }
    submit(request, write ? BLOCK_WRITE : BLOCK_READ);
}

/* Begins the next range of a discard or write-zeroes request. */
static void next_range(struct request *request)
{
    uint8_t bytes[RANGE_SIZE];
    uint64_t at = HEADER_SIZE + (uint64_t)request->range++ * RANGE_SIZE;
    virtq_req_read(request->req, at, bytes, sizeof(bytes));
    uint64_t sector = get_le64(bytes);
    uint32_t sectors = get_le32(bytes + 8), flags = get_le32(bytes + 12);
    if (flags & ~(request->write_zeroes ? RANGE_UNMAP : 0)) {
        complete(request, STATUS_UNSUPP);
        return;
    }
    if (sectors > RANGE_SECTORS_MAX || !checked_mul(sector, SECTOR, &request->io.offset)) {
        complete(request, STATUS_IOERR);
        return;
    }
    request->io.length = (uint64_t)sectors * SECTOR;
    request->io.flags = flags & RANGE_UNMAP ? 0 : BLOCK_REQ_NO_UNMAP;
    submit(request, request->write_zeroes ? BLOCK_ZERO : BLOCK_DISCARD);
}

static void ranges(struct request *request, bool write_zeroes)
{
    uint64_t bytes = request->req->out_len - HEADER_SIZE;
    if (!bytes || bytes % RANGE_SIZE || bytes / RANGE_SIZE > VIRTIO_BLK_RANGES_MAX) {
        complete(request, STATUS_IOERR);
        return;
    }
    request->write_zeroes = write_zeroes;
    request->range = 0;
    request->ranges = (unsigned)(bytes / RANGE_SIZE);
    next_range(request);
}

/* From the block layer, on the queue's loop, without the lock. */
static void io_done(struct block_req *io, int result)
{
    struct request *request = io->opaque;
    struct lock *lock = &request->queue->blk->virtio.pci.device.lock;
    lock_take(lock);
    if (result < 0)
        complete(request, STATUS_IOERR);
    else if (request->range < request->ranges)
        next_range(request);
    else
        complete(request, STATUS_OK);
    lock_drop(lock);
}

void virtio_blk_start(struct virtio_blk_queue *queue, struct virtq_req *req)
{
    struct virtio_blk *blk = queue->blk;
    struct virtio_device *virtio = &blk->virtio;
    struct request *request = req->device_data;
    uint8_t header[HEADER_SIZE];
    if (virtq_req_read(req, 0, header, sizeof(header)) < sizeof(header) || !req->in_len) {
        virtio_broken(virtio, "a request of %llu bytes out and %llu in",
                      (unsigned long long)req->out_len, (unsigned long long)req->in_len);
        virtq_push(req->queue, req, 0);
        return;
    }
    *request =
        (struct request){.queue = queue, .req = req, .io = {.done = io_done, .opaque = request}};
    uint64_t sector = get_le64(header + 8);
    switch (get_le32(header)) {
    case TYPE_READ:
        transfer(request, sector, false);
        break;
    case TYPE_WRITE:
        if (blk->info.readonly)
            complete(request, STATUS_IOERR);
        else
            transfer(request, sector, true);
        break;
    case TYPE_FLUSH:
        submit(request, BLOCK_FLUSH);
        break;
    case TYPE_GET_ID:
        if (req->in_len < VIRTIO_BLK_SERIAL_LEN + 1) {
            complete(request, STATUS_IOERR);
        } else {
            virtq_req_write(req, 0, blk->serial_bytes, VIRTIO_BLK_SERIAL_LEN);
            complete(request, STATUS_OK);
        }
        break;
    case TYPE_DISCARD:
    case TYPE_WRITE_ZEROES: {
        bool zeroes = get_le32(header) == TYPE_WRITE_ZEROES;
        if (virtio_has_feature(virtio, zeroes ? VIRTIO_BLK_F_WRITE_ZEROES : VIRTIO_BLK_F_DISCARD))
            ranges(request, zeroes);
        else
            complete(request, STATUS_UNSUPP);
        break;
    }
    default:
        complete(request, STATUS_UNSUPP);
    }
}
