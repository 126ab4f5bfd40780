/*
 * Disk images: synchronous nodes for tools, and for the virtual machine's disks that are not raw.
 *
 * A node is a file (a descriptor that somebody with the permission opened) or a format over another
 * node. The core entries below are the only way to a driver: they check range, permission and the
 * driver's results once for all. Nothing here opens a path; names that an image contains (backing
 * file, extents) are strings from outside, and only whoever owns the command decides what they
 * mean.
 *
 * Reads, writes, zeroes, discards, flushes and extents of a node may come from any number of
 * threads at once. The calls that change what a node is (check, resize, snapshots) wait until the
 * others are out and keep them out meanwhile; image_open, image_set_backing and image_close are for
 * a node that nobody else uses. Data path: 0 or -errno.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_IMAGE_H
#define TENON_BLOCK_IMAGE_H

#include "base/base.h"
#include "base/err.h"

struct image;
struct block_driver;

#define IMAGE_SECTOR 512u
#define IMAGE_PROBE_SIZE 4096u

/* What a stretch of a node is. */
#define IMAGE_EXTENT_ALLOCATED (1u << 0)  /* this layer decides; clear: its backing does */
#define IMAGE_EXTENT_ZERO (1u << 1)       /* reads as zeros */
#define IMAGE_EXTENT_DATA (1u << 2)       /* takes room in the file */
#define IMAGE_EXTENT_COMPRESSED (1u << 3) /* `host` means nothing */
#define IMAGE_EXTENT_HOST (1u << 4)       /* `host` is where it lies in the child */

struct image_extent {
    uint64_t length; /* bytes from the asked offset, at least 1 */
    uint64_t host;
    unsigned flags;
};

/* What a driver says of an open image beside its size. Strings are owned by the image. */
struct image_info_item {
    const char *name; /* static */
    enum { IMAGE_INFO_TEXT, IMAGE_INFO_NUMBER, IMAGE_INFO_BOOL } kind;
    char text[64];
    uint64_t number;
};

#define IMAGE_INFO_ITEMS 16
struct image_info {
    uint32_t cluster_size; /* bytes; 0: none */
    bool dirty;            /* not closed cleanly */
    bool corrupt;
    bool encrypted;
    unsigned item_count;
    struct image_info_item item[IMAGE_INFO_ITEMS]; /* format-specific, in order */
};
void image_info_text(struct image_info *info, const char *name, const char *text);
void image_info_number(struct image_info *info, const char *name, uint64_t number);
void image_info_bool(struct image_info *info, const char *name, bool value);

struct image_snapshot {
    char id[24], name[256];
    uint64_t vm_state_size; /* bytes */
    uint64_t date_s;        /* since 1970 */
    uint32_t date_ns;
    uint64_t vm_clock_ns;
    uint64_t disk_size;
};

/* The outcome of a check. `say` (may be NULL) gets each finding as a line. */
struct image_check {
    void (*say)(void *opaque, const char *line);
    void *opaque;
    uint64_t corruptions, leaks, errors; /* found and left; errors: could not be checked */
    uint64_t corruptions_fixed, leaks_fixed;
    uint64_t total_clusters, allocated_clusters, compressed_clusters, fragmented_clusters;
    uint64_t end_offset;
};
/* Counts nothing; formats a line for `say`. */
void image_check_say(struct image_check *check, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* What a new image is to be. */
struct image_option {
    const char *name, *value;
};
struct image_create {
    uint64_t size;
    const char *backing_name, *backing_format; /* written into the image; NULL: none */
    const struct image_option *option;         /* -o name=value, checked against create_options */
    unsigned option_count;
    const struct image_files *files; /* for formats of several files; may be NULL */
    const void *key;                 /* passphrase of an encrypted image; borrowed */
    size_t key_length;
};

/* How formats of several files reach the others. The names come from the image: be suspicious. */
struct image_files {
    struct err *(*open)(void *opaque, const char *name, bool writable, struct image **file);
    struct err *(*create)(void *opaque, const char *name, struct image **file);
    void *opaque;
    const char *name; /* base name of the main file, for those that contain it; may be NULL */
};

#define IMAGE_OPEN_WRITABLE (1u << 0)
#define IMAGE_OPEN_CHECK (1u << 1)   /* for check: also when marked dirty or corrupt */
#define IMAGE_OPEN_UNSAFE (1u << 2)  /* flushes do nothing */
#define IMAGE_OPEN_SCRATCH (1u << 3) /* new and nobody's yet: metadata need not be ordered */
#define IMAGE_OPEN_DISCARD (1u << 4) /* pass discards to the file */

/*
 * A file or block device as a node, the bottom of every graph. `fd` is taken, on error too. Reads
 * beyond its end give zeros, writes extend a file. Of a socket, whose other end an NBD server has
 * (block/export/), it is what that server has.
 */
struct err *image_open_fd(int take_fd, unsigned flags, struct image **image);
bool image_fd_is_socket(int fd);
/*
 * A format over `take_file` (taken, on error too). `driver` NULL probes: raw is what nothing else
 * recognises. `files` may be NULL and is borrowed until the call returns.
 */
struct err *image_open(struct image *take_file, const struct block_driver *driver, unsigned flags,
                       const struct image_files *files, struct image **image);
/* The backing node (taken): what the image leaves out is read from it. Before the first read. */
void image_set_backing(struct image *image, struct image *take_backing);
/* Writes what is left and closes, the children too. NULL is fine. The error of the last writes. */
int image_close(struct image *image);

const struct block_driver *image_driver_find(const char *name); /* NULL: unknown */
/* The i-th driver that has a format, or NULL. */
const struct block_driver *image_driver_at(unsigned index);
const char *image_driver_name(const struct block_driver *driver);
/* Which driver recognises the file: never NULL when no error; raw if none does. */
struct err *image_probe(struct image *file, const struct block_driver **driver);
/* The layout of a new qcow2 image with a backing image, if `create` has no options: with extended
   L2 entries (QEMU reads them since 5.2) a small write copies nothing of the backing image. */
void image_overlay_layout(const struct block_driver *driver, struct image_create *create);
/* Writes an empty image into an empty `file`. */
struct err *image_create(struct image *file, const struct block_driver *driver,
                         const struct image_create *create);

/*
 * Bytes. -EINVAL outside of the image, -EROFS when not writable, -ENOSPC for writes beyond it. Of
 * two that overlap and run at the same time, each sector comes from one of them.
 */
int image_read(struct image *image, void *buffer, uint64_t offset, uint64_t length);
int image_write(struct image *image, const void *buffer, uint64_t offset, uint64_t length);
/* Reads as zeros afterwards; `unmap` may free the room. */
int image_zero(struct image *image, uint64_t offset, uint64_t length, bool unmap);
/* Advice: reads as zeros, as before, or as the driver documents. */
int image_discard(struct image *image, uint64_t offset, uint64_t length);
/* All writes that had returned when it was called are stable. */
int image_flush(struct image *image);
/* The extent at `offset`, at most `length` long. */
int image_extent(struct image *image, uint64_t offset, uint64_t length,
                 struct image_extent *extent);
/* The same through the whole chain: ALLOCATED is set if any layer has it; *depth is which. */
int image_extent_chain(struct image *image, uint64_t offset, uint64_t length,
                       struct image_extent *extent, unsigned *depth);
/* Compressed writing, in units of image_compress_unit() (0: the format cannot). */
uint32_t image_compress_unit(const struct image *image);
/* Any thread: `out` has room for a unit; *out_length 0: it does not shrink, write it plain. */
int image_compress(struct image *image, const void *unit, void *out, size_t *out_length);
/* One unit that image_compress() made, for the unit at `offset`. */
int image_write_compressed(struct image *image, uint64_t offset, const void *data, size_t length);

bool image_is_zero(const void *bytes, size_t length);
uint64_t image_size(const struct image *image); /* of the disk, bytes */
bool image_writable(const struct image *image);
const struct block_driver *image_driver(const struct image *image);
struct image *image_backing(const struct image *image);
struct image *image_file(const struct image *image);
/* As the image says, untrusted; NULL: none. */
const char *image_backing_name(const struct image *image);
const char *image_backing_format(const struct image *image);
void image_get_info(struct image *image, struct image_info *info);
/* Bytes that the bottom file takes on its file system. */
uint64_t image_allocated(const struct image *image);
/* The descriptor of a file node, still its own; -1 for others. */
int image_fd(const struct image *image);

struct err *image_check(struct image *image, bool repair, struct image_check *check);
struct err *image_resize(struct image *image, uint64_t size);
unsigned image_snapshot_count(const struct image *image);
void image_snapshot_get(const struct image *image, unsigned index, struct image_snapshot *out);
struct err *image_snapshot_create(struct image *image, const char *name);
struct err *image_snapshot_apply(struct image *image, const char *name_or_id);
struct err *image_snapshot_delete(struct image *image, const char *name_or_id);
/* From now on an image that was opened for reading shows the snapshot. */
struct err *image_snapshot_load(struct image *image, const char *name_or_id);

/*
 * Dirty bitmaps: which pieces of the disk changed, for incremental backups. Any thread; the changes
 * wait until other calls are out of the node. A persistent one is kept in the image by its format.
 */
struct image_bitmap {
    char name[1024];
    uint64_t granularity; /* bytes that a bit stands for */
    uint64_t dirty;       /* bytes */
    bool recording, persistent;
    bool inconsistent; /* not closed cleanly: it can only be removed */
};
unsigned image_bitmap_count(const struct image *image);
void image_bitmap_get(const struct image *image, unsigned index, struct image_bitmap *out);
/* `granularity` 0: 64 KiB. It records from now on. */
struct err *image_bitmap_add(struct image *image, const char *name, uint64_t granularity,
                             bool persistent);
struct err *image_bitmap_remove(struct image *image, const char *name);
struct err *image_bitmap_record(struct image *image, const char *name, bool on);
/* Clean from now on: every piece that the range touches. */
struct err *image_bitmap_clear(struct image *image, const char *name, uint64_t offset,
                               uint64_t length);
/* Dirty, as if it had been written. */
struct err *image_bitmap_set(struct image *image, const char *name, uint64_t offset,
                             uint64_t length);
/* What is dirty in `from` is dirty in `to`, too. */
struct err *image_bitmap_merge(struct image *image, const char *to, const char *from);
/* Whether `offset` is dirty and for how long the same holds. -ENOENT, or -EIO: inconsistent. */
int image_bitmap_extent(struct image *image, const char *name, uint64_t offset, uint64_t length,
                        bool *dirty, uint64_t *run);

/* Encrypted, and nobody has given its passphrase: its bytes answer -ENOKEY. */
bool image_locked(const struct image *image);
struct err *image_unlock(struct image *image, const void *key, size_t length);
/* Would image_create() need a key? */
bool image_wants_key(const struct block_driver *driver, const struct image_create *create);

/* Another backing file's name in the image, NULL: none. The node that is open stays. */
struct err *image_set_backing_name(struct image *image, const char *name, const char *format);
/* Changes options of an image that exists. */
struct err *image_amend(struct image *image, const struct image_option *option, unsigned count);
/* The layer has nothing any more: its backing shows everywhere. Not every format can do that. */
bool image_can_be_emptied(const struct image *image);
struct err *image_empty(struct image *image);

/* What a new image would take in its file. */
struct image_measure {
    uint64_t metadata; /* bytes, with all of the disk allocated */
    uint64_t unit;     /* bytes; in such pieces the disk is allocated; 0: all of it, always */
};
struct err *image_measure(const struct block_driver *driver, const struct image_create *create,
                          struct image_measure *measure);

#endif
