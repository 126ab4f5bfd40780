/*
 * NBD transmission: requests, simple and structured replies, block status.
 *
 * A request is judged before it reaches the image, and again there. Data goes through the worker's
 * buffer in pieces, so that what a peer asks for does not decide how much memory it takes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "block/export/nbd_internal.h"

/* Reads below this are not searched for holes: that costs more than it saves. */
#define HOLE_SEARCH KIB(32)
#define EXTENTS_MAX 512u

static enum nbd_error error_of(int result)
{
    switch (-result) {
    case 0:
        return NBD_OK;
    case EROFS:
    case EPERM:
        return NBD_EPERM;
    case ENOSPC:
    case EDQUOT:
        return NBD_ENOSPC;
    case EINVAL:
        return NBD_EINVAL;
    case ENOMEM:
        return NBD_ENOMEM;
    default:
        return NBD_EIO;
    }
}

static bool send_parts(struct nbd_client *client, struct iovec *iov, unsigned count)
{
    lock_take(&client->send);
    bool good = nbd_channel_send(&client->channel, iov, count);
    lock_drop(&client->send);
    return good;
}

static void put_chunk(uint8_t header[20], const struct nbd_request *request, unsigned flags,
                      enum nbd_chunk type, uint32_t length)
{
    put_be32(header, NBD_CHUNK_MAGIC);
    put_be16(header + 4, (uint16_t)flags);
    put_be16(header + 6, (uint16_t)type);
    memcpy(header + 8, request->cookie, 8);
    put_be32(header + 16, length);
}

static void put_simple(uint8_t header[16], const struct nbd_request *request, enum nbd_error error)
{
    put_be32(header, NBD_SIMPLE_REPLY_MAGIC);
    put_be32(header + 4, error);
    memcpy(header + 8, request->cookie, 8);
}

/* A reply without data: success of anything but a read, or failure of anything. */
static bool conclude(struct nbd_client *client, const struct nbd_request *request,
                     enum nbd_error error)
{
    uint8_t header[26] = {0};
    struct iovec iov = {header, 16};
    bool needs_chunk = request->type == NBD_CMD_READ || request->type == NBD_CMD_BLOCK_STATUS;
    if (!client->structured || !needs_chunk) {
        put_simple(header, request, error);
    } else {
        put_chunk(header, request, NBD_CHUNK_DONE, error ? NBD_CHUNK_ERROR : NBD_CHUNK_NONE,
                  error ? 6 : 0);
        put_be32(header + 20, error);
        iov.iov_len = error ? 26 : 20;
    }
    return send_parts(client, &iov, 1);
}

/* --- reads --- */

/* How much from `offset` on is data, or is not: *hole. */
static uint64_t next_stretch(struct image *image, uint64_t offset, uint64_t length, bool *hole)
{
    struct image_extent extent;
    unsigned depth;
    *hole = false;
    if (length < HOLE_SEARCH || image_extent_chain(image, offset, length, &extent, &depth) < 0 ||
        !extent.length)
        return length;
    *hole = !(extent.flags & IMAGE_EXTENT_ALLOCATED) || (extent.flags & IMAGE_EXTENT_ZERO);
    return MIN(length, extent.length);
}

static bool send_hole(struct nbd_client *client, const struct nbd_request *request, unsigned flags,
                      uint64_t offset, uint32_t length)
{
    uint8_t header[32];
    struct iovec iov = {header, sizeof(header)};
    put_chunk(header, request, flags, NBD_CHUNK_OFFSET_HOLE, 12);
    put_be64(header + 20, offset);
    put_be32(header + 28, length);
    return send_parts(client, &iov, 1);
}

static bool send_data(struct nbd_client *client, const struct nbd_request *request, unsigned flags,
                      uint64_t offset, uint8_t *piece, uint32_t length)
{
    uint8_t header[28];
    struct iovec iov[2] = {{header, sizeof(header)}, {piece, length}};
    put_chunk(header, request, flags, NBD_CHUNK_OFFSET_DATA, 8 + length);
    put_be64(header + 20, offset);
    return send_parts(client, iov, 2);
}

static bool read_structured(struct nbd_client *client, const struct nbd_request *request,
                            uint8_t *piece)
{
    struct image *image = client->export->image;
    uint64_t at = request->offset, end = at + request->length;
    while (at < end) {
        bool hole;
        uint64_t length = next_stretch(image, at, end - at, &hole);
        unsigned flags = at + length == end ? NBD_CHUNK_DONE : 0;
        if (!hole) {
            length = MIN(length, NBD_PIECE);
            flags = at + length == end ? NBD_CHUNK_DONE : 0;
            int result = image_read(image, piece, at, length);
            if (result < 0)
                return conclude(client, request, error_of(result));
            if (!send_data(client, request, flags, at, piece, (uint32_t)length))
                return false;
        } else if (!send_hole(client, request, flags, at, (uint32_t)length)) {
            return false;
        }
        at += length;
    }
    return true;
}

/* One header for all of it, so a failure behind the first piece ends the connection. */
static bool read_plain(struct nbd_client *client, const struct nbd_request *request, uint8_t *piece)
{
    struct image *image = client->export->image;
    uint8_t header[28];
    size_t header_size = client->structured ? 28 : 16;
    if (client->structured) {
        put_chunk(header, request, NBD_CHUNK_DONE, NBD_CHUNK_OFFSET_DATA, 8 + request->length);
        put_be64(header + 20, request->offset);
    } else {
        put_simple(header, request, NBD_OK);
    }
    uint32_t done = (uint32_t)MIN((uint64_t)request->length, NBD_PIECE);
    int result = image_read(image, piece, request->offset, done);
    if (result < 0)
        return conclude(client, request, error_of(result));
    struct iovec iov[2] = {{header, header_size}, {piece, done}};
    lock_take(&client->send);
    bool good = nbd_channel_send(&client->channel, iov, 2);
    while (good && done < request->length) {
        uint32_t here = (uint32_t)MIN((uint64_t)(request->length - done), NBD_PIECE);
        iov[0] = (struct iovec){piece, here};
        good = image_read(image, piece, request->offset + done, here) == 0 &&
               nbd_channel_send(&client->channel, iov, 1);
        done += here;
    }
    lock_drop(&client->send);
    return good;
}

static bool answer_read(struct nbd_client *client, const struct nbd_request *request,
                        uint8_t *piece)
{
    if (!request->length)
        return conclude(client, request, NBD_OK);
    if (!client->structured || (request->flags & NBD_CMD_FLAG_DF))
        return read_plain(client, request, piece);
    return read_structured(client, request, piece);
}

/* --- block status --- */

static int allocation_at(struct image *image, uint64_t at, uint64_t length, unsigned *state,
                         uint64_t *run)
{
    struct image_extent extent;
    unsigned depth;
    int result = image_extent_chain(image, at, length, &extent, &depth);
    *state = 0;
    *run = extent.length;
    if (!(extent.flags & IMAGE_EXTENT_ALLOCATED))
        *state = NBD_STATE_HOLE | NBD_STATE_ZERO;
    else if (extent.flags & IMAGE_EXTENT_ZERO)
        *state = NBD_STATE_ZERO | (extent.flags & IMAGE_EXTENT_DATA ? 0 : NBD_STATE_HOLE);
    return result;
}

/* What a context says of `at`, and of how many bytes from there. */
static int state_at(struct image *image, unsigned context, uint64_t at, uint64_t length,
                    unsigned *state, uint64_t *run)
{
    struct image_bitmap bitmap;
    bool dirty = false;
    if (!context)
        return allocation_at(image, at, length, state, run);
    image_bitmap_get(image, context - 1, &bitmap);
    int result = image_bitmap_extent(image, bitmap.name, at, length, &dirty, run);
    *state = dirty ? NBD_STATE_DIRTY : 0;
    return result;
}

/* The stretches of a request as a context tells them, behind room for a chunk's header. */
static int describe(struct image *image, const struct nbd_request *request, unsigned context,
                    uint8_t *piece, unsigned *count)
{
    uint64_t at = request->offset, end = at + request->length, run;
    unsigned most = request->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : EXTENTS_MAX, state;
    uint8_t *entry = piece + 24;
    for (*count = 0; at < end && *count < most; at += run) {
        int result = state_at(image, context, at, end - at, &state, &run);
        if (result < 0)
            return result;
        if (*count && get_be32(entry - 4) == state) {
            put_be32(entry - 8, get_be32(entry - 8) + (uint32_t)run);
        } else {
            put_be32(entry, (uint32_t)run);
            put_be32(entry + 4, state);
            entry += 8;
            ++*count;
        }
    }
    return 0;
}

static bool answer_status(struct nbd_client *client, const struct nbd_request *request,
                          uint8_t *piece)
{
    bool good = true;
    if (!client->contexts || !request->length)
        return conclude(client, request, NBD_EINVAL);
    for (uint64_t left = client->contexts; left && good; left &= left - 1) {
        unsigned context = (unsigned)__builtin_ctzll(left), count;
        int result = describe(client->export->image, request, context, piece, &count);
        if (result < 0)
            return conclude(client, request, error_of(result));
        put_chunk(piece, request, left & (left - 1) ? 0 : NBD_CHUNK_DONE, NBD_CHUNK_BLOCK_STATUS,
                  4 + 8 * count);
        put_be32(piece + 20, context + 1);
        struct iovec iov = {piece, 24 + 8 * (size_t)count};
        good = send_parts(client, &iov, 1);
    }
    return good;
}

/* --- all requests --- */

static bool allowed_flags(const struct nbd_request *request)
{
    static const uint16_t allowed[] = {
        [NBD_CMD_READ] = NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_DF,
        [NBD_CMD_WRITE] = NBD_CMD_FLAG_FUA,
        [NBD_CMD_DISC] = UINT16_MAX,
        [NBD_CMD_FLUSH] = NBD_CMD_FLAG_FUA,
        [NBD_CMD_TRIM] = NBD_CMD_FLAG_FUA,
        [NBD_CMD_CACHE] = 0,
        [NBD_CMD_WRITE_ZEROES] = NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE,
        [NBD_CMD_BLOCK_STATUS] = NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE,
    };
    return request->type < ARRAY_SIZE(allowed) && !(request->flags & ~allowed[request->type]);
}

static enum nbd_error judge(const struct nbd_client *client, const struct nbd_request *request)
{
    struct image *image = client->export->image;
    bool writes = request->type == NBD_CMD_WRITE || request->type == NBD_CMD_TRIM ||
                  request->type == NBD_CMD_WRITE_ZEROES;
    if (!allowed_flags(request) || request->type == NBD_CMD_CACHE)
        return NBD_EINVAL;
    if (writes && !image_writable(image))
        return NBD_EPERM;
    if (request->type == NBD_CMD_FLUSH)
        return NBD_OK;
    if (!range_within(request->offset, request->length, image_size(image)))
        return writes ? NBD_ENOSPC : NBD_EINVAL;
    return request->type == NBD_CMD_READ && request->length > NBD_TRANSFER_MAX ? NBD_EOVERFLOW
                                                                               : NBD_OK;
}

/* A write that is longer than the buffer is carried out while it comes. */
static bool receive_long_write(struct nbd_client *client, struct nbd_request *request,
                               uint8_t *piece)
{
    for (uint32_t done = 0; done < request->length;) {
        uint32_t here = (uint32_t)MIN((uint64_t)(request->length - done), NBD_PIECE);
        if (!nbd_channel_receive(&client->channel, piece, here))
            return false;
        if (!request->error)
            request->error =
                error_of(image_write(client->export->image, piece, request->offset + done, here));
        done += here;
    }
    return true;
}

bool nbd_request_receive(struct nbd_client *client, struct nbd_request *request, uint8_t *piece)
{
    uint8_t header[NBD_REQUEST_SIZE];
    if (!nbd_channel_receive(&client->channel, header, sizeof(header)) ||
        get_be32(header) != NBD_REQUEST_MAGIC)
        return false;
    *request = (struct nbd_request){
        .flags = get_be16(header + 4),
        .type = get_be16(header + 6),
        .offset = get_be64(header + 16),
        .length = get_be32(header + 24),
    };
    memcpy(request->cookie, header + 8, 8);
    if (request->type == NBD_CMD_DISC)
        return false;
    request->error = judge(client, request);
    if (request->type != NBD_CMD_WRITE)
        return true;
    if (request->length > NBD_TRANSFER_MAX)
        return false; /* what to skip may be as long as the peer likes */
    if (request->length > NBD_PIECE)
        return receive_long_write(client, request, piece);
    request->payload = true;
    return nbd_channel_receive(&client->channel, piece, request->length);
}

/* What has an effect on the image. */
static int carry_out(struct image *image, const struct nbd_request *request, const uint8_t *piece)
{
    int result = 0;
    switch ((enum nbd_command)request->type) {
    case NBD_CMD_WRITE:
        if (request->payload && request->length)
            result = image_write(image, piece, request->offset, request->length);
        break;
    case NBD_CMD_TRIM:
        if (request->length)
            result = image_discard(image, request->offset, request->length);
        break;
    case NBD_CMD_WRITE_ZEROES:
        if (request->length)
            result = image_zero(image, request->offset, request->length,
                                !(request->flags & NBD_CMD_FLAG_NO_HOLE));
        break;
    case NBD_CMD_FLUSH:
        return image_flush(image);
    default:
        return -EINVAL;
    }
    if (!result && (request->flags & NBD_CMD_FLAG_FUA))
        result = image_flush(image);
    return result;
}

bool nbd_request_answer(struct nbd_client *client, const struct nbd_request *request,
                        uint8_t *piece)
{
    if (request->error)
        return conclude(client, request, request->error);
    if (request->type == NBD_CMD_READ)
        return answer_read(client, request, piece);
    if (request->type == NBD_CMD_BLOCK_STATUS)
        return answer_status(client, request, piece);
    return conclude(client, request, error_of(carry_out(client->export->image, request, piece)));
}
