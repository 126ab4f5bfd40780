/*
 * Reading and writing an image that maps its disk in blocks: the walk over blocks that VDI, VHD,
 * VHDX and VMDK have in common. The format says what lies where and makes room.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_FORMAT_BLOCKMAP_H
#define TENON_BLOCK_FORMAT_BLOCKMAP_H

#include "block/core/driver.h"

enum blockmap_kind {
    BLOCKMAP_BACKING, /* not in this image */
    BLOCKMAP_ZERO,    /* in this image, as zeros without room in the file */
    BLOCKMAP_DATA,    /* at `host` of the file */
    BLOCKMAP_PACKED,  /* compressed: only the format can read it */
};

struct blockmap_span {
    enum blockmap_kind kind;
    uint64_t length; /* bytes from the asked offset, at least 1 */
    uint64_t host;
};

struct blockmap_ops {
    /* The run at `offset`, at most `length` long; may end early. */
    int (*map)(struct image *image, uint64_t offset, uint64_t length, struct blockmap_span *span);
    /*
     * Makes room for [offset, offset + length), which lies in one block and is not data: *host is
     * where it is to be written. The rest of the block must read as before.
     */
    int (*place)(struct image *image, uint64_t offset, uint64_t length, uint64_t *host);
    /* The bytes are written: let the tables say so. */
    int (*placed)(struct image *image, uint64_t offset, uint64_t length);
    /* BLOCKMAP_PACKED; NULL where that does not occur. */
    int (*unpack)(struct image *image, void *buffer, uint64_t offset, uint64_t length);
    /* The node that `host` is an offset of; NULL: image->file. */
    struct image *(*node)(struct image *image, uint64_t offset);
};

int blockmap_read(struct image *image, const struct blockmap_ops *ops, uint32_t block_size,
                  void *buffer, uint64_t offset, uint64_t length);
int blockmap_write(struct image *image, const struct blockmap_ops *ops, uint32_t block_size,
                   const void *buffer, uint64_t offset, uint64_t length);
/* Zeros where there is data; what reads as zeros already stays as it is. */
int blockmap_zero(struct image *image, const struct blockmap_ops *ops, uint32_t block_size,
                  uint64_t offset, uint64_t length);
/* Equal neighbours are joined, up to a bound. */
int blockmap_extent(struct image *image, const struct blockmap_ops *ops, uint64_t offset,
                    uint64_t length, struct image_extent *out);

/* [offset, offset + length) of the file becomes zeros, growing the file where it is shorter. */
int blockmap_clear(struct image *file, uint64_t offset, uint64_t length);
/*
 * The rest of a fresh block: what [start, start + size) of the disk reads as without it, but for
 * [offset, offset + length), goes to `host` of the file. The block reads as zeros there now.
 */
int blockmap_fill(struct image *image, struct image *file, uint64_t start, uint64_t size,
                  uint64_t offset, uint64_t length, uint64_t host);
/*
 * The rest of the units (a power of two, at most 4096 bytes) that [offset, offset + length) touches
 * but does not cover, from the backing to the file; `host` is where `offset` lies.
 */
int blockmap_edges(struct image *image, struct image *file, uint32_t unit, uint64_t offset,
                   uint64_t length, uint64_t host);

/* The value of bit `first` (*value) and how many from it, within `count` bits, are equal. */
uint32_t blockmap_run(const uint8_t *bits, uint32_t first, uint32_t count, bool msb_first,
                      bool *value);
void blockmap_set_bits(uint8_t *bits, uint32_t first, uint32_t count, bool msb_first);

#endif
