/*
 * The walk over an image's blocks; see blockmap.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/format/blockmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

#define JOIN_MAX 4096u /* runs that one extent joins: a bound on work, not on meaning */

static struct image *node_of(struct image *image, const struct blockmap_ops *ops, uint64_t offset)
{
    return ops->node ? ops->node(image, offset) : image->file;
}

int blockmap_read(struct image *image, const struct blockmap_ops *ops, uint32_t block_size,
                  void *buffer, uint64_t offset, uint64_t length)
{
    uint8_t *at = buffer;
    (void)block_size;
    while (length) {
        struct blockmap_span span;
        int status = ops->map(image, offset, length, &span);
        if (status)
            return status;
        uint64_t n = MIN(span.length, length);
        switch (span.kind) {
        case BLOCKMAP_BACKING:
            status = image_read_backing(image, at, offset, n);
            break;
        case BLOCKMAP_ZERO:
            memset(at, 0, n);
            break;
        case BLOCKMAP_DATA:
            status = image_read(node_of(image, ops, offset), at, span.host, n);
            break;
        case BLOCKMAP_PACKED:
            status = ops->unpack ? ops->unpack(image, at, offset, n) : -EIO;
            break;
        }
        if (status)
            return status;
        at += n;
        offset += n;
        length -= n;
    }
    return 0;
}

int blockmap_write(struct image *image, const struct blockmap_ops *ops, uint32_t block_size,
                   const void *buffer, uint64_t offset, uint64_t length)
{
    const uint8_t *at = buffer;
    while (length) {
        struct blockmap_span span;
        uint64_t n = MIN(length, block_size - offset % block_size);
        int status = ops->map(image, offset, n, &span);
        if (status)
            return status;
        if (span.kind == BLOCKMAP_PACKED)
            return -ENOTSUP;
        bool fresh = span.kind != BLOCKMAP_DATA;
        n = MIN(n, span.length);
        if (fresh)
            status = ops->place(image, offset, n, &span.host);
        if (!status)
            status = image_write(node_of(image, ops, offset), at, span.host, n);
        if (!status && fresh)
            status = ops->placed(image, offset, n);
        if (status)
            return status;
        at += n;
        offset += n;
        length -= n;
    }
    return 0;
}

int blockmap_zero(struct image *image, const struct blockmap_ops *ops, uint32_t block_size,
                  uint64_t offset, uint64_t length)
{
    static const uint8_t zeros[KIB(64)];
    while (length) {
        struct blockmap_span span;
        uint64_t n = MIN(length, block_size - offset % block_size);
        int status = ops->map(image, offset, n, &span);
        if (status)
            return status;
        n = MIN(n, span.length);
        if (span.kind == BLOCKMAP_DATA) {
            status = image_zero(node_of(image, ops, offset), span.host, n, false);
        } else if (span.kind == BLOCKMAP_PACKED ||
                   (span.kind == BLOCKMAP_BACKING && image->backing)) {
            n = MIN(n, sizeof(zeros));
            status = blockmap_write(image, ops, block_size, zeros, offset, n);
        }
        if (status)
            return status;
        offset += n;
        length -= n;
    }
    return 0;
}

static void describe(const struct blockmap_span *span, bool own_file, struct image_extent *out)
{
    static const unsigned flags[] = {
        [BLOCKMAP_BACKING] = 0,
        [BLOCKMAP_ZERO] = IMAGE_EXTENT_ALLOCATED | IMAGE_EXTENT_ZERO,
        [BLOCKMAP_DATA] = IMAGE_EXTENT_ALLOCATED | IMAGE_EXTENT_DATA,
        [BLOCKMAP_PACKED] = IMAGE_EXTENT_ALLOCATED | IMAGE_EXTENT_DATA | IMAGE_EXTENT_COMPRESSED,
    };
    out->length = span->length;
    out->flags = flags[span->kind];
    out->host = 0;
    if (span->kind == BLOCKMAP_DATA && own_file) {
        out->flags |= IMAGE_EXTENT_HOST;
        out->host = span->host;
    }
}

int blockmap_extent(struct image *image, const struct blockmap_ops *ops, uint64_t offset,
                    uint64_t length, struct image_extent *out)
{
    struct blockmap_span span;
    int status = ops->map(image, offset, length, &span);
    if (status)
        return status;
    span.length = MIN(span.length, length);
    describe(&span, node_of(image, ops, offset) == image->file, out);
    for (unsigned joined = 0; joined < JOIN_MAX && out->length < length; joined++) {
        struct image_extent next;
        uint64_t at = offset + out->length;
        /* An error belongs to whoever asks for that place. */
        if (ops->map(image, at, length - out->length, &span))
            break;
        span.length = MIN(span.length, length - out->length);
        describe(&span, node_of(image, ops, at) == image->file, &next);
        if (next.flags != out->flags)
            break;
        if (out->flags & IMAGE_EXTENT_HOST && next.host != out->host + out->length)
            break;
        out->length += next.length;
    }
    return 0;
}

int blockmap_clear(struct image *file, uint64_t offset, uint64_t length)
{
    uint64_t end, size = image_size(file);
    if (!checked_add(offset, length, &end) || end > INT64_MAX)
        return -EFBIG;
    int status = 0;
    if (offset < size)
        status = image_zero(file, offset, MIN(size, end) - offset, true);
    if (!status && end > size)
        status = image_truncate(file, end);
    return status;
}

/* Copies a stretch of the backing; what is zero there is zero here already. */
static int copy_up(struct image *image, struct image *file, uint64_t offset, uint64_t length,
                   uint64_t host)
{
    const size_t step = KIB(64);
    uint8_t *buffer = malloc(step);
    int status = buffer ? 0 : -ENOMEM;
    while (!status && length) {
        size_t n = (size_t)MIN(length, (uint64_t)step);
        status = image_read_backing(image, buffer, offset, n);
        if (!status && !image_is_zero(buffer, n))
            status = image_write(file, buffer, host, n);
        offset += n;
        host += n;
        length -= n;
    }
    free(buffer);
    return status;
}

int blockmap_fill(struct image *image, struct image *file, uint64_t start, uint64_t size,
                  uint64_t offset, uint64_t length, uint64_t host)
{
    if (!image->backing)
        return 0;
    uint64_t end = offset + length;
    size = MIN(size, image->size - start);
    int status = copy_up(image, file, start, offset - start, host);
    if (!status && end < start + size)
        status = copy_up(image, file, end, start + size - end, host + (end - start));
    return status;
}

int blockmap_edges(struct image *image, struct image *file, uint32_t unit, uint64_t offset,
                   uint64_t length, uint64_t host)
{
    uint8_t bytes[4096];
    uint32_t before = (uint32_t)(offset % unit), after = (uint32_t)((offset + length) % unit);
    int status = 0;
    if (before) {
        status = image_read_backing(image, bytes, offset - before, before);
        if (!status)
            status = image_write(file, bytes, host - before, before);
    }
    if (!status && after) {
        status = image_read_backing(image, bytes, offset + length, unit - after);
        if (!status)
            status = image_write(file, bytes, host + length, unit - after);
    }
    return status;
}

static bool bit_at(const uint8_t *bits, uint32_t bit, bool msb_first)
{
    unsigned shift = msb_first ? 7 - bit % 8 : bit % 8;
    return bits[bit / 8] >> shift & 1;
}

uint32_t blockmap_run(const uint8_t *bits, uint32_t first, uint32_t count, bool msb_first,
                      bool *value)
{
    *value = bit_at(bits, first, msb_first);
    uint8_t whole = *value ? 0xff : 0;
    uint32_t at = first + 1, end = first + count;
    while (at < end) {
        if (at % 8 == 0 && end - at >= 8 && bits[at / 8] == whole)
            at += 8;
        else if (bit_at(bits, at, msb_first) == *value)
            at++;
        else
            break;
    }
    return at - first;
}

void blockmap_set_bits(uint8_t *bits, uint32_t first, uint32_t count, bool msb_first)
{
    for (uint32_t bit = first; bit < first + count; bit++)
        bits[bit / 8] |= (uint8_t)(1u << (msb_first ? 7 - bit % 8 : bit % 8));
}
