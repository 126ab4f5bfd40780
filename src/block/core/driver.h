/*
 * The contract between the core of images (image.c) and a format's driver.
 *
 * The core promises: ranges lie within image->size (unless the node `grows`, as files do) and
 * are not empty, writing calls come only to writable images, `open` comes first and `close` last.
 * One thread at a time is inside a driver (but for `compress`, which runs anywhere), unless it sets
 * `parallel`: then several may be in its data calls, and none of them is while a call runs that
 * changes what the node is. Locks go from the top of a graph down. A driver promises: every number
 * from the file is checked before it is used; it reaches its file only through
 * image_read(image->file, ...) and its like; `open` sets image->size and on error frees what it
 * made; data calls return 0 or -errno; nothing that the file contains ends the process. Any byte
 * offset and length may come: no alignment is promised.
 *
 * To add a format: src/block/format/x.c, a line in core/registry.c, a file in meson.build.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_CORE_DRIVER_H
#define TENON_BLOCK_CORE_DRIVER_H

#include <pthread.h>

#include "base/list.h"
#include "block/image.h"

/* A dirty bitmap (image_bitmap.c). */
struct image_bitmap_node {
    struct list link; /* image->bitmaps */
    char *name;
    unsigned granularity_bits;
    bool recording, persistent, inconsistent;
    uint64_t bits, *words;
    uint64_t stored_at, stored_size; /* the format's: where it lies */
};
#define IMAGE_BITMAP_BITS_MAX (1ull << 30) /* 128 MiB of memory: 64 TiB by 64 KiB */

struct image {
    const struct block_driver *driver;
    void *state;           /* the driver's: set by open, freed by close */
    struct image *file;    /* where the bytes lie; owned; NULL for the file node itself */
    struct image *backing; /* what unallocated stretches read as; owned; may be NULL */
    uint64_t size;         /* bytes of the disk; of a file that grows: image_size() */
    pthread_rwlock_t gate; /* the core's: who may be inside the driver */
    bool grows;            /* a file, or a filter over one: writes beyond its end extend it */
    struct list bitmaps;   /* struct image_bitmap_node */
    unsigned flags;        /* IMAGE_OPEN_ */
    bool writable;         /* a driver may clear it in open, with its reason in readonly_why */
    const char *readonly_why;
    char *backing_name, *backing_format; /* set by open; owned; untrusted */
};

struct block_driver {
    const char *name; /* as qemu-img says it: "raw", "qcow2", "vpc", "vhdx", "vmdk", "vdi" */
    bool parallel;    /* data calls may come from several threads at once */
    bool in_place;    /* writes go where they belong: their order does not change the layout */
    bool noise;       /* a new image does not read as zeros */
    bool packs;       /* an image that has compressed units has no others */
    const char *const *create_options; /* names that create understands; NULL-terminated; or NULL */

    /* How sure: 0 no, 100 its magic is there. `head` are the first bytes (up to IMAGE_PROBE_SIZE).
     */
    int (*probe)(const uint8_t *head, size_t length, uint64_t file_size);
    struct err *(*open)(struct image *image, const struct image_files *files);
    /* `file` is empty and writable. A driver without it is read-only. */
    struct err *(*create)(struct image *file, const struct image_create *create);
    /* Writes back what is cached; frees state. */
    int (*close)(struct image *image);

    int (*pread)(struct image *image, void *buffer, uint64_t offset, uint64_t length);
    int (*pwrite)(struct image *image, const void *buffer, uint64_t offset, uint64_t length);
    /* Down to the file: a driver without it holds nothing back, the core flushes the child. */
    int (*flush)(struct image *image);
    /* May be NULL or return -ENOTSUP: the core writes zeros. */
    int (*zero)(struct image *image, uint64_t offset, uint64_t length, bool unmap);
    int (*discard)(struct image *image, uint64_t offset, uint64_t length); /* may be NULL */
    /* The run at `offset`; NULL: all is data. */
    int (*extent)(struct image *image, uint64_t offset, uint64_t length, struct image_extent *out);

    /* Compressed units, all three or none; compress_unit 0: this image cannot. */
    uint32_t (*compress_unit)(const struct image *image);
    int (*compress)(struct image *image, const void *unit, void *out, size_t *out_length);
    int (*write_compressed)(struct image *image, uint64_t offset, const void *data, size_t length);

    void (*info)(struct image *image, struct image_info *info); /* may be NULL */
    struct err *(*check)(struct image *image, bool repair, struct image_check *check);
    struct err *(*resize)(struct image *image, uint64_t size); /* sets image->size */
    int (*truncate)(struct image *image, uint64_t size);       /* of what grows: its length */

    unsigned (*snapshot_count)(const struct image *image);
    void (*snapshot_get)(const struct image *image, unsigned index, struct image_snapshot *out);
    struct err *(*snapshot_create)(struct image *image, const char *name);
    struct err *(*snapshot_apply)(struct image *image, const char *name_or_id);
    struct err *(*snapshot_delete)(struct image *image, const char *name_or_id);
    struct err *(*snapshot_load)(struct image *image, const char *name_or_id);

    bool (*bitmaps_persist)(const struct image *image); /* close stores them; NULL: it cannot */

    /* Encryption (image_change.c); all may be NULL. */
    bool (*locked)(const struct image *image);
    struct err *(*unlock)(struct image *image, const void *key, size_t length);
    bool (*wants_key)(const struct image_create *create);

    /* Changes of an image that exists (image_change.c); each may be NULL. */
    struct err *(*set_backing_name)(struct image *image, const char *name, const char *format);
    struct err *(*amend)(struct image *image, const struct image_option *option, unsigned count);
    struct err *(*empty)(struct image *image);
    struct err *(*measure)(const struct image_create *create, struct image_measure *measure);
};

extern const struct block_driver image_file_driver; /* the bottom: no format */
extern const struct block_driver image_raw, image_qcow2;
extern const struct block_driver *const image_drivers[]; /* registry.c; ends with NULL */

/* A node with nothing in it yet, for what has no file below. */
struct image *image_new(const struct block_driver *driver, unsigned flags);
/* The same of a node that is a part of something else, all zeros so far. */
void image_init(struct image *image, const struct block_driver *driver, unsigned flags);
void image_fini(struct image *image);
/* For drivers that load bitmaps, with the node alone. */
struct err *image_bitmap_new(struct image *image, const char *name, unsigned granularity_bits,
                             struct image_bitmap_node **bitmap);
void image_bitmap_drop(struct image_bitmap_node *bitmap);
uint64_t image_bitmap_bits(const struct image_bitmap_node *bitmap, uint64_t size);
/* The core's: after a change of the disk. */
void image_bitmaps_mark(struct image *image, uint64_t offset, uint64_t length);
void image_bitmaps_resized(struct image *image, bool all_dirty);
/* From the backing image; zeros where there is none or it ends. */
int image_read_backing(struct image *image, void *buffer, uint64_t offset, uint64_t length);
/* The value of a create option, or NULL. */
const char *image_create_value(const struct image_create *create, const char *name);
/* Sets the length of a node that grows; of others only what they have already is possible. */
int image_truncate(struct image *file, uint64_t size);

#endif
