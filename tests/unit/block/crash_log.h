/*
 * A file in memory as a node, the log of its changes, and the states that a power cut may leave of
 * it: everything up to the last flush, and of what came after any choice of sectors.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TESTS_CRASH_LOG_H
#define TENON_TESTS_CRASH_LOG_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/core/driver.h"
#include "block/filter/filter.h"

#define CRASH_PAGE KIB(16)

struct crash_file {
    uint8_t *bytes, *touched; /* a byte a page: changed since the last crash_file_match */
    uint64_t size, room;
};

static inline void crash_file_touch(struct crash_file *file, uint64_t offset, uint64_t length)
{
    if (length)
        memset(file->touched + offset / CRASH_PAGE, 1,
               (offset + length - 1) / CRASH_PAGE - offset / CRASH_PAGE + 1);
}

static inline void crash_file_grow(struct crash_file *file, uint64_t size)
{
    if (size > file->room) {
        uint64_t room = ALIGN_UP(MAX(size, 2 * file->room), CRASH_PAGE);
        file->bytes = xrealloc(file->bytes, room, 1);
        file->touched = xrealloc(file->touched, room / CRASH_PAGE, 1);
        memset(file->touched + file->room / CRASH_PAGE, 0, (room - file->room) / CRASH_PAGE);
        memset(file->bytes + file->room, 0, room - file->room);
        file->room = room;
    }
    file->size = MAX(file->size, size);
}

/* Behind the end there are always zeros in memory. */
static inline void crash_file_truncate(struct crash_file *file, uint64_t size)
{
    if (size < file->size) {
        memset(file->bytes + size, 0, file->size - size);
        crash_file_touch(file, size, file->size - size);
    }
    crash_file_grow(file, size);
    file->size = size;
}

static inline void crash_file_put(struct crash_file *file, uint64_t offset, const void *bytes,
                                  uint64_t length)
{
    crash_file_grow(file, offset + length);
    if (bytes)
        memcpy(file->bytes + offset, bytes, length);
    else
        memset(file->bytes + offset, 0, length);
    crash_file_touch(file, offset, length);
}

/* Makes `to` what `from` is; both were equal the last time. */
static inline void crash_file_match(struct crash_file *to, struct crash_file *from)
{
    crash_file_truncate(to, from->size);
    for (uint64_t at = 0; at < from->size; at += CRASH_PAGE) {
        uint64_t page = at / CRASH_PAGE;
        if (!to->touched[page] && !from->touched[page])
            continue;
        memcpy(to->bytes + at, from->bytes + at, MIN(from->size - at, CRASH_PAGE));
    }
    memset(to->touched, 0, to->room / CRASH_PAGE);
    memset(from->touched, 0, from->room / CRASH_PAGE);
}

static inline void crash_file_fini(struct crash_file *file)
{
    free(file->bytes);
    free(file->touched);
}

static inline int memory_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    const struct crash_file *file = image->state;
    uint64_t have = offset < file->size ? MIN(length, file->size - offset) : 0;
    if (have)
        memcpy(buffer, file->bytes + offset, have);
    memset((uint8_t *)buffer + have, 0, length - have);
    return 0;
}

static inline int memory_pwrite(struct image *image, const void *buffer, uint64_t offset,
                                uint64_t length)
{
    struct crash_file *file = image->state;
    if (offset + length > MIB(512))
        return -EFBIG;
    crash_file_put(file, offset, buffer, length);
    __atomic_store_n(&image->size, file->size, __ATOMIC_RELEASE);
    return 0;
}

static inline int memory_discard(struct image *image, uint64_t offset, uint64_t length)
{
    struct crash_file *file = image->state;
    if (offset < file->size)
        crash_file_put(file, offset, NULL, MIN(length, file->size - offset));
    return 0;
}

static inline int memory_flush(struct image *image)
{
    (void)image;
    return 0;
}

static inline int memory_truncate(struct image *image, uint64_t size)
{
    if (size > MIB(512))
        return -EFBIG;
    crash_file_truncate(image->state, size);
    __atomic_store_n(&image->size, size, __ATOMIC_RELEASE);
    return 0;
}

static inline struct image *crash_file_open(struct crash_file *file, unsigned flags)
{
    static const struct block_driver driver = {
        .name = "memory",
        .pread = memory_pread,
        .pwrite = memory_pwrite,
        .flush = memory_flush,
        .discard = memory_discard,
        .truncate = memory_truncate,
    };
    struct image *image = image_new(&driver, flags);
    image->state = file;
    image->size = file->size;
    image->grows = true;
    return image;
}

/* What happened to a file, in order. */
struct crash_log {
    struct filter_log_entry *entry; /* `data` is owned */
    unsigned count, room;
};

static inline void crash_log_add(void *opaque, const struct filter_log_entry *entry)
{
    struct crash_log *log = opaque;
    if (log->count == log->room) {
        log->room = MAX(2 * log->room, 256u);
        log->entry = xrealloc(log->entry, log->room, sizeof(*log->entry));
    }
    struct filter_log_entry *own = &log->entry[log->count++];
    *own = *entry;
    if (entry->data) {
        void *copy = xcalloc(1, entry->length);
        memcpy(copy, entry->data, entry->length);
        own->data = copy;
    }
}

static inline void crash_log_fini(struct crash_log *log)
{
    for (unsigned i = 0; i < log->count; i++)
        free((void *)log->entry[i].data);
    free(log->entry);
    *log = (struct crash_log){0};
}

/* All of a change, or of its sectors those that the seed chooses. */
static inline void crash_apply(struct crash_file *file, const struct filter_log_entry *entry,
                               unsigned *seed)
{
    unsigned keep = seed ? (unsigned)rand_r(seed) % 4 : 3; /* none, some, some, all */
    if (entry->call == FILTER_FLUSH || !keep)
        return;
    if (entry->call == FILTER_TRUNCATE) {
        crash_file_truncate(file, entry->offset);
        return;
    }
    for (uint64_t at = 0, here; at < entry->length; at += here) {
        uint64_t offset = entry->offset + at;
        here = MIN(entry->length - at, IMAGE_SECTOR - offset % IMAGE_SECTOR);
        if (keep < 3 && rand_r(seed) % 2)
            continue;
        if (entry->call == FILTER_DISCARD && offset + here > file->size)
            continue;
        crash_file_put(file, offset, entry->data ? (const uint8_t *)entry->data + at : NULL, here);
    }
}

#endif
