/*
 * The log of a VHDX (2.3): a ring of entries, each with whole 4 KiB sectors of metadata. Replay
 * looks for the sequence of entries that ends with the highest number. We write one entry a commit
 * and carry it out at once, so our sequences have one entry each, always at the beginning: when a
 * commit overwrites the last entry, that is stable in its place already. (A ring that wraps right
 * behind an entry makes QEMU 7.2 search for ever.)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "block/format/vhdx.h"

#define LOG_MAX MIB(64)        /* larger ones exist only to hurt */
#define ZEROS_PINNED_MAX 4096u /* pages that a read-only replay may hold as zeros */
#define FILE_MAX (1ull << 47)
#define ENTRY_HEAD 64u
#define DESCRIPTOR 32u

/* Entry header (2.3.1.1). */
enum {
    E_LENGTH = 8,
    E_TAIL = 12,
    E_SEQUENCE = 16,
    E_DESCRIPTORS = 24,
    E_GUID = 32,
    E_FLUSHED = 48,
    E_LAST = 56,
};

/* Descriptors (2.3.1.2, 2.3.1.3). */
enum { P_TRAILING = 4, P_LEADING = 8, P_ZERO_LENGTH = 8, P_OFFSET = 16, P_SEQUENCE = 24 };

/* The log in memory, twice in a row, so that no entry is cut by the end. */
struct log {
    uint8_t *bytes;
    uint32_t length;
    uint64_t budget; /* bytes that checksums may still cost */
};

static uint32_t descriptor_bytes(uint32_t count)
{
    return ALIGN_UP(ENTRY_HEAD + count * DESCRIPTOR, VHDX_LOG_SECTOR);
}

/* Each data descriptor has its sector, with the entry's number; nothing else is in the entry. */
static bool descriptors_good(const uint8_t *entry)
{
    uint32_t count = get_le32(entry + E_DESCRIPTORS), sectors = 0;
    uint32_t room = get_le32(entry + E_LENGTH) - descriptor_bytes(count);
    uint64_t sequence = get_le64(entry + E_SEQUENCE);
    const uint8_t *data = entry + descriptor_bytes(count);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *at = entry + ENTRY_HEAD + (size_t)i * DESCRIPTOR;
        uint64_t offset = get_le64(at + P_OFFSET), zeros = get_le64(at + P_ZERO_LENGTH);
        if (get_le64(at + P_SEQUENCE) != sequence || offset % VHDX_LOG_SECTOR || offset > FILE_MAX)
            return false;
        if (!memcmp(at, "zero", 4)) {
            if (zeros % VHDX_LOG_SECTOR || zeros > FILE_MAX)
                return false;
        } else if (!memcmp(at, "desc", 4) && sectors < room / VHDX_LOG_SECTOR) {
            const uint8_t *sector = data + (size_t)sectors++ * VHDX_LOG_SECTOR;
            if (memcmp(sector, "data", 4) || get_le32(sector + 4) != sequence >> 32 ||
                get_le32(sector + VHDX_LOG_SECTOR - 4) != (uint32_t)sequence)
                return false;
        } else {
            return false;
        }
    }
    return true;
}

static bool entry_good(struct log *log, const struct vhdx *vhdx, uint32_t offset)
{
    uint8_t *entry = log->bytes + offset;
    uint32_t length = get_le32(entry + E_LENGTH), count = get_le32(entry + E_DESCRIPTORS);
    if (memcmp(entry, "loge", 4) || memcmp(entry + E_GUID, vhdx->header + X_LOG_GUID, 16))
        return false;
    if (!length || length % VHDX_LOG_SECTOR || length > log->length ||
        !get_le64(entry + E_SEQUENCE) || get_le32(entry + E_TAIL) % VHDX_LOG_SECTOR)
        return false;
    if (count > log->length / DESCRIPTOR || descriptor_bytes(count) > length)
        return false;
    if (length > log->budget) {
        log->budget = 0;
        return false;
    }
    log->budget -= length;
    return get_le32(entry + X_CHECKSUM) == vhdx_checksum(entry, length) && descriptors_good(entry);
}

/* The entries that follow one another from `start`; false: none. The head's tail must be among
 * them. */
struct sequence {
    uint32_t tail, head, end; /* offsets; end: behind the head, not wrapped */
    uint64_t number;          /* of the head */
    bool valid;
};

static bool follow(struct log *log, const struct vhdx *vhdx, uint32_t start,
                   struct sequence *sequence)
{
    uint64_t number = 0;
    uint32_t at = start, used = 0, head = 0;
    while (used < log->length && entry_good(log, vhdx, at)) {
        const uint8_t *entry = log->bytes + at;
        uint32_t length = get_le32(entry + E_LENGTH);
        if ((number && get_le64(entry + E_SEQUENCE) != number + 1) || length > log->length - used)
            break;
        number = get_le64(entry + E_SEQUENCE);
        head = at;
        used += length;
        at = (at + length) % log->length;
    }
    if (!used)
        return false;
    sequence->head = head;
    sequence->number = number;
    sequence->end = start + used;
    sequence->tail = get_le32(log->bytes + head + E_TAIL);
    sequence->valid = false;
    at = start;
    for (uint32_t passed = 0; passed < used;) {
        if (at == sequence->tail)
            sequence->valid = true;
        uint32_t length = get_le32(log->bytes + at + E_LENGTH);
        passed += length;
        at = (at + length) % log->length;
    }
    return true;
}

static struct err *find_active(struct log *log, const struct vhdx *vhdx, struct sequence *best)
{
    struct sequence found = {0};
    best->valid = false;
    for (uint32_t at = 0; at < log->length;) {
        bool any = follow(log, vhdx, at, &found);
        if (any && found.valid && (!best->valid || found.number > best->number))
            *best = found;
        at = any ? found.end : at + VHDX_LOG_SECTOR;
    }
    if (!log->budget)
        return err_new("vhdx: the log's entries overlap in ways that no writer leaves");
    return NULL;
}

/* One page of an entry, into the file or the cache. */
static int apply_page(struct image *image, struct vhdx *vhdx, uint64_t offset, const uint8_t *page)
{
    if (image->writable)
        return image_write(image->file, page, offset, META_PAGE);
    return metacache_pin(&vhdx->meta, offset / META_PAGE, page);
}

static int apply_zeros(struct image *image, struct vhdx *vhdx, uint64_t offset, uint64_t length,
                       uint32_t *pinned)
{
    static const uint8_t zeros[META_PAGE];
    uint64_t size = image_size(image->file);
    if (image->writable) /* beyond the end there are zeros, once the file is extended */
        return offset < size ? image_zero(image->file, offset, MIN(length, size - offset), false)
                             : 0;
    for (; length; offset += META_PAGE, length -= META_PAGE) {
        if ((*pinned)++ == ZEROS_PINNED_MAX)
            return -E2BIG;
        int status = metacache_pin(&vhdx->meta, offset / META_PAGE, zeros);
        if (status)
            return status;
    }
    return 0;
}

static int apply(struct image *image, struct vhdx *vhdx, const uint8_t *entry, uint32_t *pinned)
{
    uint32_t count = get_le32(entry + E_DESCRIPTORS);
    const uint8_t *data = entry + descriptor_bytes(count);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *at = entry + ENTRY_HEAD + (size_t)i * DESCRIPTOR;
        uint64_t offset = get_le64(at + P_OFFSET);
        int status;
        if (!memcmp(at, "zero", 4)) {
            uint64_t length = get_le64(at + P_ZERO_LENGTH);
            status = length ? apply_zeros(image, vhdx, offset, length, pinned) : 0;
        } else {
            uint8_t page[META_PAGE];
            memcpy(page, at + P_LEADING, 8);
            memcpy(page + 8, data + 8, META_PAGE - 12);
            memcpy(page + META_PAGE - 4, at + P_TRAILING, 4);
            data += VHDX_LOG_SECTOR;
            status = apply_page(image, vhdx, offset, page);
        }
        if (status)
            return status;
    }
    return 0;
}

static struct err *apply_sequence(struct image *image, struct vhdx *vhdx, struct log *log,
                                  const struct sequence *sequence)
{
    uint32_t at = sequence->tail, pinned = 0;
    for (;;) {
        const uint8_t *entry = log->bytes + at;
        uint64_t last = get_le64(entry + E_LAST);
        if (image_size(image->file) < get_le64(entry + E_FLUSHED))
            return err_new("vhdx: the file is shorter than its log says: it was cut");
        if (last > FILE_MAX)
            return err_new("vhdx: the log wants a file of %llu bytes", (unsigned long long)last);
        int status = apply(image, vhdx, entry, &pinned);
        if (!status && image->writable && last > image_size(image->file))
            status = image_truncate(image->file, last);
        if (status == -E2BIG)
            return err_new("vhdx: the log must be replayed first: open the image for writing, or "
                           "let check repair it");
        if (status)
            return err_errno(-status, "vhdx: cannot replay the log");
        if (at == sequence->head)
            return NULL;
        at = (at + get_le32(entry + E_LENGTH)) % log->length;
    }
}

struct err *vhdx_replay(struct image *image, struct vhdx *vhdx)
{
    static const uint8_t nil[16];
    if (!memcmp(vhdx->header + X_LOG_GUID, nil, 16))
        return NULL;
    if (vhdx->log_length > LOG_MAX)
        return err_new("vhdx: a log of %u bytes is not replayed", vhdx->log_length);
    struct log log = {malloc(2 * (size_t)vhdx->log_length), vhdx->log_length,
                      8 * (uint64_t)vhdx->log_length};
    if (!log.bytes)
        return err_errno(ENOMEM, "vhdx: no memory for the log");
    struct sequence sequence = {0};
    struct err *err = NULL;
    int status = image_read(image->file, log.bytes, vhdx->log_offset, log.length);
    if (status)
        err = err_errno(-status, "vhdx: cannot read the log");
    if (!err) {
        memcpy(log.bytes + log.length, log.bytes, log.length);
        err = find_active(&log, vhdx, &sequence);
    }
    if (!err && sequence.valid)
        err = apply_sequence(image, vhdx, &log, &sequence);
    free(log.bytes);
    if (err)
        return err;
    vhdx->log_pending = !image->writable && sequence.valid;
    if (!image->writable)
        return NULL;
    status = image_flush(image->file);
    memset(vhdx->header + X_LOG_GUID, 0, 16);
    if (!status)
        status = vhdx_put_header(vhdx);
    return status ? err_errno(-status, "vhdx: cannot end the replay of the log") : NULL;
}

static void put_entry_head(struct vhdx *vhdx, uint8_t *entry, uint32_t length, unsigned count)
{
    uint64_t size = image_size(vhdx->file);
    memcpy(entry, "loge", 4);
    put_le32(entry + E_LENGTH, length);
    put_le64(entry + E_SEQUENCE, vhdx->log_sequence);
    put_le32(entry + E_DESCRIPTORS, count);
    memcpy(entry + E_GUID, vhdx->header + X_LOG_GUID, 16);
    put_le64(entry + E_FLUSHED, size);
    put_le64(entry + E_LAST, size);
}

static void put_page(struct vhdx *vhdx, const struct meta_page *page, uint8_t *descriptor,
                     uint8_t *sector)
{
    memcpy(descriptor, "desc", 4);
    memcpy(descriptor + P_TRAILING, page->data + META_PAGE - 4, 4);
    memcpy(descriptor + P_LEADING, page->data, 8);
    put_le64(descriptor + P_OFFSET, page->index * META_PAGE);
    put_le64(descriptor + P_SEQUENCE, vhdx->log_sequence);
    memcpy(sector, "data", 4);
    put_le32(sector + 4, (uint32_t)(vhdx->log_sequence >> 32));
    memcpy(sector + 8, page->data + 8, META_PAGE - 12);
    put_le32(sector + VHDX_LOG_SECTOR - 4, (uint32_t)vhdx->log_sequence);
}

int vhdx_journal(void *opaque, struct meta_page **pages, unsigned count)
{
    struct vhdx *vhdx = opaque;
    uint32_t head = descriptor_bytes(count), length = head + count * VHDX_LOG_SECTOR;
    if (length > vhdx->log_length)
        return -EFBIG;
    uint8_t *entry = calloc(1, length);
    if (!entry)
        return -ENOMEM;
    vhdx->log_sequence++;
    put_entry_head(vhdx, entry, length, count);
    for (unsigned i = 0; i < count; i++)
        put_page(vhdx, pages[i], entry + ENTRY_HEAD + (size_t)i * DESCRIPTOR,
                 entry + head + (size_t)i * VHDX_LOG_SECTOR);
    put_le32(entry + X_CHECKSUM, vhdx_checksum(entry, length));
    int status = image_write(vhdx->file, entry, vhdx->log_offset, length);
    free(entry);
    return status ? status : image_flush(vhdx->file);
}
