/*
 * VHDX inside ([MS-VHDX] "Virtual Hard Disk v2 File Format"): the open image, and what its parts
 * share. All fields of the format are little-endian.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_FORMAT_VHDX_H
#define TENON_BLOCK_FORMAT_VHDX_H

#include "block/format/blockmap.h"
#include "block/format/metacache.h"

#define VHDX_UNIT ((uint32_t)MIB(1)) /* everything is aligned to it */
#define VHDX_HEADER_1 KIB(64)
#define VHDX_HEADER_2 KIB(128)
#define VHDX_HEADER_BYTES 4096u
#define VHDX_REGIONS_1 KIB(192)
#define VHDX_REGIONS_2 KIB(256)
#define VHDX_TABLE_BYTES ((uint32_t)KIB(64)) /* region table, metadata table */
#define VHDX_TABLE_ENTRIES 2047u
#define VHDX_DISK_MAX (64ull << 40)
#define VHDX_LOG_SECTOR 4096u

/* Header (2.2.2). */
enum {
    X_CHECKSUM = 4, /* of the log entries too */
    X_SEQUENCE = 8,
    X_FILE_GUID = 16,
    X_DATA_GUID = 32,
    X_LOG_GUID = 48,
    X_LOG_VERSION = 64, /* 16 bits */
    X_VERSION = 66,     /* 16 bits */
    X_LOG_LENGTH = 68,
    X_LOG_OFFSET = 72, /* 64 bits */
};

/* States of a table entry (2.5.1). */
enum {
    VHDX_NOT_PRESENT = 0,
    VHDX_UNDEFINED = 1,
    VHDX_ZERO = 2,
    VHDX_UNMAPPED = 3,
    VHDX_PRESENT = 6,
    VHDX_PARTIAL = 7,
};

struct vhdx {
    struct metacache meta;
    struct image *file;
    uint8_t header[VHDX_HEADER_BYTES]; /* the current one */
    uint64_t header_at;
    uint64_t log_offset;
    uint32_t log_length;
    uint64_t log_sequence;
    uint64_t table, table_length, metadata, metadata_length;
    uint64_t size_at; /* where the metadata has the disk's size */
    uint32_t block_size, sector_size, physical_size;
    uint32_t ratio; /* blocks a sector bitmap serves */
    bool has_parent;
    bool fixed_blocks; /* "leave blocks allocated" */
    bool log_pending;  /* read-only, with a log that was replayed in memory */
    bool begun;        /* the header says that somebody writes */
    bool scanned;
    uint64_t next;   /* end of what is stored, once `scanned` */
    uint64_t placed; /* of place() for placed(): the entry's new value, or 0 */
};

extern const uint8_t vhdx_region_table[16], vhdx_region_metadata[16];
extern const uint8_t vhdx_item_parameters[16], vhdx_item_size[16], vhdx_item_page83[16],
    vhdx_item_logical[16], vhdx_item_physical[16], vhdx_item_parent[16], vhdx_locator_type[16];

void vhdx_new_guid(uint8_t *guid);
uint32_t vhdx_checksum(const uint8_t *bytes, size_t length);
/* Writes vhdx->header, with the next sequence number, where the older one is. Flushes. */
int vhdx_put_header(struct vhdx *vhdx);
/* Reads the current header of a file into `header`; *at is where it lies. */
struct err *vhdx_read_header(struct image *file, uint8_t *header, uint64_t *at);
struct err *vhdx_open(struct image *image, const struct image_files *files);
struct err *vhdx_create(struct image *file, const struct image_create *create);
/* Carries out what the log holds: into the file, or into the page cache of a read-only image. */
struct err *vhdx_replay(struct image *image, struct vhdx *vhdx);
/* The page cache's journal: one log entry with these pages, stable. */
int vhdx_journal(void *opaque, struct meta_page **pages, unsigned count);
/* How many table entries a disk needs. */
uint64_t vhdx_entries(uint64_t size, uint32_t block_size, uint32_t ratio, bool has_parent);

#endif
