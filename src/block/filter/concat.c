/*
 * Nodes one behind the other, as one disk for reading. Each begins at a sector.
 *
 * Any number of threads; the parts never change.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "block/core/driver.h"
#include "block/filter/filter.h"

struct concat {
    unsigned count;
    uint64_t *start; /* of each part, bytes, and of what would come next */
    struct image **part;
};

/* The part that `offset`, which lies within the disk, belongs to. Empty parts have nothing. */
static unsigned part_at(const struct concat *concat, uint64_t offset)
{
    unsigned low = 0, high = concat->count;
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (concat->start[middle] <= offset)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static int concat_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    const struct concat *concat = image->state;
    uint8_t *out = buffer;
    int result = 0;
    for (unsigned i = part_at(concat, offset); length && !result; i++) {
        uint64_t within = offset - concat->start[i], size = image_size(concat->part[i]);
        uint64_t here = MIN(length, concat->start[i + 1] - offset);
        uint64_t have = within < size ? MIN(here, size - within) : 0;
        if (have)
            result = image_read(concat->part[i], out, within, have);
        memset(out + have, 0, here - have); /* to the end of a sector */
        out += here;
        offset += here;
        length -= here;
    }
    return result;
}

static int concat_extent(struct image *image, uint64_t offset, uint64_t length,
                         struct image_extent *out)
{
    const struct concat *concat = image->state;
    unsigned i = part_at(concat, offset), depth;
    uint64_t within = offset - concat->start[i], size = image_size(concat->part[i]);
    if (within >= size) {
        *out = (struct image_extent){.length = MIN(length, concat->start[i + 1] - offset),
                                     .flags = IMAGE_EXTENT_ALLOCATED | IMAGE_EXTENT_ZERO};
        return 0;
    }
    int result =
        image_extent_chain(concat->part[i], within, MIN(length, size - within), out, &depth);
    out->flags |= IMAGE_EXTENT_ALLOCATED;
    out->flags &= ~IMAGE_EXTENT_HOST;
    return result;
}

static int concat_close(struct image *image)
{
    struct concat *concat = image->state;
    int result = 0;
    for (unsigned i = 0; i < concat->count; i++) {
        int closed = image_close(concat->part[i]);
        result = result ? result : closed;
    }
    free(concat->start);
    free(concat->part);
    free(concat);
    return result;
}

static const struct block_driver image_concat = {
    .name = "concatenation",
    .parallel = true,
    .close = concat_close,
    .pread = concat_pread,
    .extent = concat_extent,
};

struct image *filter_concat_open(struct image *const *take_part, unsigned count)
{
    struct concat *concat = xcalloc(1, sizeof(*concat));
    struct image *image = image_new(&image_concat, 0);
    concat->count = count;
    concat->start = xcalloc(count + 1, sizeof(*concat->start));
    concat->part = xcalloc(count, sizeof(struct image *));
    for (unsigned i = 0; i < count; i++) {
        concat->part[i] = take_part[i];
        concat->start[i + 1] =
            concat->start[i] + ALIGN_UP(image_size(take_part[i]), (uint64_t)IMAGE_SECTOR);
    }
    image->state = concat;
    image->size = concat->start[count];
    return image;
}
