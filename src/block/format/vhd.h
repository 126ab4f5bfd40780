/*
 * VHD inside: the open image, and the parts of the format that opening, data and creation share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_FORMAT_VHD_H
#define TENON_BLOCK_FORMAT_VHD_H

#include "block/format/blockmap.h"
#include "block/format/metacache.h"

#define VHD_FOOTER 512u
#define VHD_HEADER 1024u
#define VHD_SECTORS_MAX 0xff000000ull /* 2040 GiB */
#define VHD_GEOMETRY_MAX (65535ull * 16 * 255)
#define VHD_UNUSED 0xffffffffu /* table entry: no block */

enum { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFFERENCING = 4 };

/* Offsets of footer fields; all are big-endian. */
enum {
    F_COOKIE = 0,
    F_FEATURES = 8,
    F_VERSION = 12,
    F_DATA_OFFSET = 16, /* 64 bits: where the dynamic header is */
    F_TIME = 24,        /* seconds since 2000 */
    F_CREATOR = 28,
    F_CREATOR_VERSION = 32,
    F_CREATOR_HOST = 36,
    F_ORIGINAL_SIZE = 40,
    F_SIZE = 48,
    F_CYLINDERS = 56, /* 16 bits */
    F_HEADS = 58,     /* 8 */
    F_SECTORS = 59,   /* 8 */
    F_TYPE = 60,
    F_CHECKSUM = 64,
    F_UUID = 68,
};

/* ... and of the dynamic header. */
enum {
    D_COOKIE = 0,
    D_DATA_OFFSET = 8,
    D_TABLE = 16,
    D_VERSION = 24,
    D_ENTRIES = 28,
    D_BLOCK_SIZE = 32,
    D_CHECKSUM = 36,
    D_PARENT_UUID = 40,
    D_PARENT_TIME = 56,
    D_PARENT_NAME = 64, /* UTF-16, big-endian */
    D_LOCATORS = 576,   /* 8 of VHD_LOCATOR bytes */
};
#define VHD_PARENT_NAME 512u
#define VHD_LOCATOR 24u
#define VHD_LOCATORS 8u
enum { L_CODE = 0, L_SPACE = 4, L_LENGTH = 8, L_OFFSET = 16 };

struct vhd {
    struct metacache meta;
    uint8_t footer[VHD_FOOTER];
    uint32_t type;
    uint32_t block_size, bitmap_size; /* bytes */
    uint32_t entries;
    uint64_t table;
    uint64_t next;   /* where the next block may go and the footer is now, once `scanned` */
    uint64_t placed; /* the block that place() made and placed() enters; 0: none */
    bool scanned;
    bool footer_missing; /* the file does not end with a good footer */
};

/* The checksum over a footer or dynamic header whose own field is at `field`. */
uint32_t vhd_checksum(const uint8_t *bytes, size_t length, size_t field);
/* What the format calls the geometry of so many sectors. */
void vhd_geometry(uint64_t sectors, uint16_t *cylinders, uint8_t *heads, uint8_t *per_track);
/* Of a dynamic disk whose file does not end with it. */
int vhd_restore_footer(struct image *image);
struct err *vhd_open(struct image *image, const struct image_files *files);
struct err *vhd_create(struct image *file, const struct image_create *create);

#endif
