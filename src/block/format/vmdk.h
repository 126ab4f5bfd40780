/*
 * VMDK inside ("Virtual Disk Format 5.0"): the open image and its extents, and what opening, data
 * and creation share. All fields of the format are little-endian.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_FORMAT_VMDK_H
#define TENON_BLOCK_FORMAT_VMDK_H

#include "base/spare.h"
#include "block/format/blockmap.h"
#include "block/format/metacache.h"

#define VMDK_MAGIC 0x564d444bu
#define VMDK_MAGIC_ESX 0x44574f43u /* "COWD": the sparse extents of ESX, its snapshots */
#define VMDK_HEADER 512u
#define VMDK_GTES_ESX 4096u
#define VMDK_GRAIN ((uint32_t)KIB(64)) /* of the images that we make */
#define VMDK_GTES 512u
#define VMDK_EXTENTS_MAX 4096u
#define VMDK_DESCRIPTOR_MAX ((uint32_t)KIB(512))
#define VMDK_GD_AT_END UINT64_MAX
#define VMDK_DISK_MAX (64ull << 40)

/* Fields of the sparse extent header. */
enum {
    S_MAGIC = 0,
    S_VERSION = 4,
    S_FLAGS = 8,
    S_CAPACITY = 12, /* this and the next three: sectors, 64 bits */
    S_GRAIN = 20,
    S_DESCRIPTOR = 28,
    S_DESCRIPTOR_SIZE = 36,
    S_GTES = 44,
    S_RGD = 48, /* 64 bits, as the next two */
    S_GD = 56,
    S_OVERHEAD = 64,
    S_UNCLEAN = 72,
    S_NEWLINES = 73,
    S_COMPRESSION = 77, /* 16 bits */
};

/* ... and of the header of ESX: 32 bits, sectors. */
enum { E_VERSION = 4, E_CAPACITY = 12, E_GRAIN = 16, E_GD = 20, E_TABLES = 24 };

#define VMDK_FLAG_NEWLINES (1u << 0)
#define VMDK_FLAG_REDUNDANT (1u << 1)
#define VMDK_FLAG_ZEROED (1u << 2)
#define VMDK_FLAG_COMPRESSED (1u << 16)
#define VMDK_FLAG_MARKERS (1u << 17)

enum vmdk_kind { VMDK_FLAT, VMDK_SPARSE, VMDK_ZERO };

struct vmdk_extent {
    enum vmdk_kind kind;
    uint64_t start, length; /* of the disk, bytes */
    uint64_t offset;        /* FLAT: where it begins in the file */
    struct image *file;     /* image->file, or owned; NULL for ZERO */
    bool readonly;
    /* SPARSE: */
    bool esx;
    struct metacache meta;
    uint32_t flags, gtes;
    uint64_t grain;   /* bytes */
    uint64_t gd, rgd; /* file offsets, bytes; rgd 0: none */
    uint64_t tables;  /* entries of the directory */
    uint64_t next, placed;
    bool scanned;
};

struct vmdk {
    struct vmdk_extent *extent;
    unsigned extents, last; /* last: the one that was asked for last */
    char create_type[32];
    uint32_t cid;
    uint64_t cid_at; /* file offset of its eight digits; 0: none */
    bool begun;
    uint64_t grain; /* bytes; 0: no sparse extent */
    /* Compressed grains: the one unpacked last. */
    uint8_t *packed, *unpacked;
    uint64_t unpacked_at;
    bool unpacked_good;
    void *inflater;
    struct spare compressors;
    /* Writing a stream: all grain tables, in memory until close. */
    uint32_t *stream;
    uint64_t stream_next;
    /* ... and the grain that plain writes are filling. */
    uint8_t *pending;
    uint64_t pending_at;
    bool pending_used;
};

/* A descriptor's lines; strings point into `text`. */
struct vmdk_line {
    bool readonly, none; /* access */
    uint64_t sectors, offset;
    enum vmdk_kind kind;
    char name[256];
};
struct vmdk_descriptor {
    uint32_t cid, parent_cid;
    size_t cid_offset; /* of the digits in the text; 0: none */
    char create_type[32], parent[1024];
    struct vmdk_line *line; /* owned */
    unsigned lines;
};

/* Parses `text` (zero-terminated). The descriptor's lines belong to the caller. */
struct err *vmdk_parse(const char *text, struct vmdk_descriptor *descriptor);
/* Reads the descriptor of a file, embedded or alone, into new memory; *at is where it lies. */
struct err *vmdk_read_descriptor(struct image *file, char **text, uint64_t *at);
struct err *vmdk_open(struct image *image, const struct image_files *files);
struct err *vmdk_create(struct image *file, const struct image_create *create);
void vmdk_free(struct image *image, struct vmdk *vmdk);
/* The end of a stream: tables, directory, footer. `stream` may be NULL: all empty. */
int vmdk_end_stream(struct image *file, const uint8_t *header, const uint32_t *stream,
                    uint64_t tables, uint64_t at);

#endif
