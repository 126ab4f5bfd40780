/*
 * VHDX, the format of Hyper-V: a table of blocks with a state each, in differencing disks with a
 * bitmap that says whose a sector is, and a log in front of every change of metadata
 * (vhdx_log.c).
 *
 * The first write gives the file new identities and a new log; closing empties the log.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/format/vhdx.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/bytes.h"
#include "base/checked.h"

#define STATE(entry) ((unsigned)((entry)&7))
#define PLACE(entry) ((entry) & ~(uint64_t)0xfffff)

static int vhdx_probe(const uint8_t *head, size_t length, uint64_t file_size)
{
    (void)file_size;
    return length >= 8 && !memcmp(head, "vhdxfile", 8) ? 100 : 0;
}

/* Before the first change: others must see that this is no longer the file they knew. */
static int begin(struct vhdx *vhdx)
{
    if (vhdx->begun)
        return 0;
    vhdx_new_guid(vhdx->header + X_FILE_GUID);
    vhdx_new_guid(vhdx->header + X_DATA_GUID);
    if (!vhdx->meta.unordered)
        vhdx_new_guid(vhdx->header + X_LOG_GUID);
    vhdx->log_sequence = 0;
    int status = vhdx_put_header(vhdx);
    vhdx->begun = !status;
    return status;
}

static int vhdx_flush(struct image *image)
{
    struct vhdx *vhdx = image->state;
    int status = metacache_commit(&vhdx->meta);
    return status ? status : image_flush(image->file);
}

static int vhdx_close(struct image *image)
{
    struct vhdx *vhdx = image->state;
    int status = metacache_commit(&vhdx->meta);
    if (!status && vhdx->begun) {
        status = image_flush(image->file);
        memset(vhdx->header + X_LOG_GUID, 0, 16);
        if (!status)
            status = vhdx_put_header(vhdx);
    }
    metacache_fini(&vhdx->meta);
    free(vhdx);
    return status;
}

/* Blocks and, behind each `ratio` of them, the place of their bitmap. */
static uint64_t index_of_block(const struct vhdx *vhdx, uint64_t block)
{
    return block + block / vhdx->ratio;
}

static uint64_t index_of_bitmap(const struct vhdx *vhdx, uint64_t block)
{
    return block / vhdx->ratio * (vhdx->ratio + 1ull) + vhdx->ratio;
}

static int read_entry(struct vhdx *vhdx, uint64_t index, uint64_t *entry)
{
    const uint8_t *bytes;
    int status = metacache_read(&vhdx->meta, vhdx->table + 8 * index, 8, &bytes);
    if (!status)
        *entry = get_le64(bytes);
    return status;
}

static int write_entry(struct vhdx *vhdx, uint64_t index, uint64_t entry)
{
    uint8_t *bytes;
    int status = metacache_write(&vhdx->meta, vhdx->table + 8 * index, 8, &bytes);
    if (!status)
        put_le64(bytes, entry);
    return status;
}

static uint64_t entry_count(const struct image *image)
{
    const struct vhdx *vhdx = image->state;
    return vhdx_entries(image->size, vhdx->block_size, vhdx->ratio, vhdx->has_parent);
}

/* How many bytes of the file a table entry claims. */
static uint64_t claimed(const struct vhdx *vhdx, uint64_t index, uint64_t entry)
{
    if (index % (vhdx->ratio + 1ull) == vhdx->ratio)
        return STATE(entry) == VHDX_PRESENT ? VHDX_UNIT : 0;
    return STATE(entry) == VHDX_PRESENT || STATE(entry) == VHDX_PARTIAL ? vhdx->block_size : 0;
}

static int scan(struct image *image)
{
    struct vhdx *vhdx = image->state;
    uint64_t next = image_size(image->file), count = entry_count(image);
    for (uint64_t index = 0; index < count; index++) {
        uint64_t entry;
        int status = read_entry(vhdx, index, &entry);
        if (status)
            return status;
        uint64_t length = claimed(vhdx, index, entry), end;
        if (!length)
            continue;
        if (!checked_add(PLACE(entry), length, &end) || end > INT64_MAX / 2)
            return -EIO;
        next = MAX(next, end);
    }
    vhdx->next = ALIGN_UP(next, (uint64_t)VHDX_UNIT);
    vhdx->scanned = true;
    return 0;
}

/* `length` zero bytes at the end of the file. */
static int grow(struct image *image, uint64_t length, uint64_t *at)
{
    struct vhdx *vhdx = image->state;
    int status = vhdx->scanned ? 0 : scan(image);
    if (!status)
        status = blockmap_clear(image->file, vhdx->next, length);
    if (status)
        return status;
    *at = vhdx->next;
    vhdx->next += length;
    return 0;
}

/* Where the bit of `offset` is: the file offset of its sector of the bitmap, and the bit in that.
 */
static int find_bit(struct vhdx *vhdx, uint64_t offset, uint64_t *sector, uint32_t *bit)
{
    const uint32_t per_piece = META_SECTOR * 8;
    uint64_t entry, block = offset / vhdx->block_size;
    int status = read_entry(vhdx, index_of_bitmap(vhdx, block), &entry);
    if (status)
        return status;
    if (STATE(entry) != VHDX_PRESENT ||
        !range_within(PLACE(entry), VHDX_UNIT, image_size(vhdx->file)) || !PLACE(entry))
        return -EIO;
    uint64_t number = offset / vhdx->sector_size % (1ull << 23);
    *sector = PLACE(entry) + number / per_piece * META_SECTOR;
    *bit = (uint32_t)(number % per_piece);
    return 0;
}

static int map_sectors(struct vhdx *vhdx, uint64_t offset, struct blockmap_span *span)
{
    uint64_t sector, within = offset % vhdx->sector_size;
    uint32_t bit;
    const uint8_t *bits;
    int status = find_bit(vhdx, offset, &sector, &bit);
    if (!status)
        status = metacache_read(&vhdx->meta, sector, META_SECTOR, &bits);
    if (status)
        return status;
    uint32_t count =
        (uint32_t)MIN((within + span->length + vhdx->sector_size - 1) / vhdx->sector_size,
                      (uint64_t)(META_SECTOR * 8 - bit));
    bool own;
    uint64_t run = blockmap_run(bits, bit, count, false, &own) * (uint64_t)vhdx->sector_size;
    span->length = MIN(span->length, run - within);
    span->kind = own ? BLOCKMAP_DATA : BLOCKMAP_BACKING;
    return 0;
}

static int vhdx_map(struct image *image, uint64_t offset, uint64_t length,
                    struct blockmap_span *span)
{
    struct vhdx *vhdx = image->state;
    uint64_t entry, within = offset % vhdx->block_size;
    int status = read_entry(vhdx, index_of_block(vhdx, offset / vhdx->block_size), &entry);
    if (status)
        return status;
    span->length = MIN(length, vhdx->block_size - within);
    switch (STATE(entry)) {
    case VHDX_NOT_PRESENT:
        span->kind = BLOCKMAP_BACKING;
        return 0;
    case VHDX_UNDEFINED:
    case VHDX_ZERO:
    case VHDX_UNMAPPED:
        span->kind = BLOCKMAP_ZERO;
        return 0;
    case VHDX_PRESENT:
    case VHDX_PARTIAL:
        break;
    default:
        return -EIO;
    }
    if (PLACE(entry) < VHDX_UNIT || PLACE(entry) > INT64_MAX / 2 ||
        PLACE(entry) + within >= image_size(image->file))
        return -EIO;
    span->kind = BLOCKMAP_DATA;
    span->host = PLACE(entry) + within;
    if (STATE(entry) == VHDX_PRESENT)
        return 0;
    return vhdx->has_parent ? map_sectors(vhdx, offset, span) : -EIO;
}

/* The bits of [offset, offset + length), which lies in one block. */
static int mark_sectors(struct vhdx *vhdx, uint64_t offset, uint64_t length, bool own)
{
    uint64_t end = offset + length;
    offset = ALIGN_DOWN(offset, (uint64_t)vhdx->sector_size);
    while (offset < end) {
        uint64_t sector;
        uint32_t bit;
        uint8_t *bits;
        int status = find_bit(vhdx, offset, &sector, &bit);
        if (!status)
            status = metacache_write(&vhdx->meta, sector, META_SECTOR, &bits);
        if (status)
            return status;
        uint32_t count = (uint32_t)MIN((end - offset + vhdx->sector_size - 1) / vhdx->sector_size,
                                       (uint64_t)(META_SECTOR * 8 - bit));
        if (own)
            blockmap_set_bits(bits, bit, count, false);
        else /* a whole block: its bits are whole bytes */
            memset(bits + bit / 8, 0, count / 8);
        offset += (uint64_t)count * vhdx->sector_size;
    }
    return 0;
}

/* The bitmap of the block's chunk exists, and all bits of the block are clear. */
static int prepare_bitmap(struct image *image, uint64_t block)
{
    struct vhdx *vhdx = image->state;
    uint64_t entry, at, index = index_of_bitmap(vhdx, block);
    int status = read_entry(vhdx, index, &entry);
    if (status)
        return status;
    if (STATE(entry) != VHDX_PRESENT) {
        status = grow(image, VHDX_UNIT, &at);
        if (!status)
            status = write_entry(vhdx, index, at | VHDX_PRESENT);
        if (status)
            return status;
    }
    return mark_sectors(vhdx, block * vhdx->block_size, vhdx->block_size, false);
}

static int vhdx_place(struct image *image, uint64_t offset, uint64_t length, uint64_t *host)
{
    struct vhdx *vhdx = image->state;
    uint64_t entry, at, block = offset / vhdx->block_size;
    int status = read_entry(vhdx, index_of_block(vhdx, block), &entry);
    if (status)
        return status;
    bool shared = vhdx->has_parent && STATE(entry) == VHDX_NOT_PRESENT;
    vhdx->placed = 0;
    if (STATE(entry) == VHDX_PARTIAL) {
        at = PLACE(entry);
        shared = true;
    } else {
        status = grow(image, vhdx->block_size, &at);
        if (!status && shared)
            status = prepare_bitmap(image, block);
        vhdx->placed = at | (shared ? VHDX_PARTIAL : VHDX_PRESENT);
    }
    if (status)
        return status;
    *host = at + offset % vhdx->block_size;
    if (shared)
        status = blockmap_edges(image, image->file, vhdx->sector_size, offset, length, *host);
    return status;
}

static int vhdx_placed(struct image *image, uint64_t offset, uint64_t length)
{
    struct vhdx *vhdx = image->state;
    uint64_t index = index_of_block(vhdx, offset / vhdx->block_size), entry;
    int status = 0;
    if (vhdx->placed)
        status = write_entry(vhdx, index, vhdx->placed);
    if (!status)
        status = read_entry(vhdx, index, &entry);
    if (!status && STATE(entry) == VHDX_PARTIAL)
        status = mark_sectors(vhdx, offset, length, true);
    return status;
}

static const struct blockmap_ops ops = {
    .map = vhdx_map,
    .place = vhdx_place,
    .placed = vhdx_placed,
};

static uint32_t block_size(const struct image *image)
{
    return ((const struct vhdx *)image->state)->block_size;
}

static int vhdx_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    return blockmap_read(image, &ops, block_size(image), buffer, offset, length);
}

static int vhdx_pwrite(struct image *image, const void *buffer, uint64_t offset, uint64_t length)
{
    int status = begin(image->state);
    return status ? status : blockmap_write(image, &ops, block_size(image), buffer, offset, length);
}

static int vhdx_zero(struct image *image, uint64_t offset, uint64_t length, bool unmap)
{
    (void)unmap;
    int status = begin(image->state);
    return status ? status : blockmap_zero(image, &ops, block_size(image), offset, length);
}

static int vhdx_extent(struct image *image, uint64_t offset, uint64_t length,
                       struct image_extent *out)
{
    return blockmap_extent(image, &ops, offset, length, out);
}

static void vhdx_info(struct image *image, struct image_info *info)
{
    const struct vhdx *vhdx = image->state;
    info->cluster_size = vhdx->block_size;
    info->dirty = vhdx->log_pending;
    image_info_text(info, "subformat",
                    vhdx->has_parent     ? "differencing"
                    : vhdx->fixed_blocks ? "fixed"
                                         : "dynamic");
    image_info_number(info, "logical sector size", vhdx->sector_size);
    image_info_number(info, "physical sector size", vhdx->physical_size);
    image_info_number(info, "log size", vhdx->log_length);
}

/* One entry: its state, its place, and that nothing else has that place. */
static bool check_entry(struct image *image, struct image_check *check, uint64_t *taken,
                        uint64_t index, uint64_t entry)
{
    const struct vhdx *vhdx = image->state;
    uint64_t length = claimed(vhdx, index, entry), units = image_size(image->file) / VHDX_UNIT;
    unsigned state = STATE(entry);
    if (state == 4 || state == 5 || (state == VHDX_PARTIAL && !vhdx->has_parent)) {
        image_check_say(check, "table entry %llu has the bad state %u", (unsigned long long)index,
                        state);
        return false;
    }
    if (!length)
        return true;
    uint64_t first = PLACE(entry) / VHDX_UNIT, count = length / VHDX_UNIT;
    if (!first || !range_within(first, count, units)) {
        image_check_say(check, "table entry %llu points outside of the file, to %#llx",
                        (unsigned long long)index, (unsigned long long)PLACE(entry));
        return false;
    }
    for (uint64_t unit = first; unit < first + count; unit++) {
        if (bitmap_test(taken, unit)) {
            image_check_say(check, "table entry %llu shares room at %#llx with something else",
                            (unsigned long long)index, (unsigned long long)(unit * VHDX_UNIT));
            return false;
        }
        bitmap_set(taken, unit);
    }
    return true;
}

static void take(uint64_t *taken, uint64_t offset, uint64_t length)
{
    for (uint64_t unit = offset / VHDX_UNIT; unit < (offset + length) / VHDX_UNIT; unit++)
        bitmap_set(taken, unit);
}

static struct err *vhdx_check(struct image *image, bool repair, struct image_check *check)
{
    struct vhdx *vhdx = image->state;
    uint64_t units = image_size(image->file) / VHDX_UNIT + 1, count = entry_count(image);
    uint64_t *taken = units > (1ull << 32) ? NULL : calloc(BITMAP_WORDS(units), sizeof(*taken));
    (void)repair; /* opening for repair has replayed the log */
    if (!taken)
        return err_errno(ENOMEM, "vhdx: no memory for the check");
    take(taken, 0, VHDX_UNIT);
    take(taken, vhdx->log_offset, vhdx->log_length);
    take(taken, vhdx->table, vhdx->table_length);
    take(taken, vhdx->metadata, vhdx->metadata_length);
    int status = 0;
    for (uint64_t index = 0; !status && index < count; index++) {
        uint64_t entry;
        status = read_entry(vhdx, index, &entry);
        if (status)
            break;
        bool is_block = index % (vhdx->ratio + 1ull) != vhdx->ratio;
        if (!check_entry(image, check, taken, index, entry))
            check->corruptions++;
        else if (is_block && claimed(vhdx, index, entry))
            check->allocated_clusters++;
    }
    free(taken);
    check->total_clusters = image->size / vhdx->block_size + (image->size % vhdx->block_size != 0);
    check->end_offset = image_size(image->file);
    if (vhdx->log_pending) {
        image_check_say(check, "the log has entries to replay; repair writes them");
        check->corruptions++;
    }
    return status ? err_errno(-status, "vhdx: cannot read the block table") : NULL;
}

/* Grows as far as the block table has room: up to terabytes with the usual block sizes. */
static struct err *vhdx_resize(struct image *image, uint64_t size)
{
    struct vhdx *vhdx = image->state;
    uint64_t old = image->size, had = entry_count(image);
    if (size < old)
        return err_new("vhdx: an image cannot be made smaller");
    if (vhdx->has_parent || vhdx->fixed_blocks)
        return err_new("vhdx: only dynamic images can be resized");
    if (size % vhdx->sector_size || size > VHDX_DISK_MAX)
        return err_of(ERR_USAGE, "vhdx: a disk is whole sectors, at most 64 TiB");
    uint64_t count = vhdx_entries(size, vhdx->block_size, vhdx->ratio, false);
    if (count > vhdx->table_length / 8)
        return err_new("vhdx: the block table has no room for a disk of %llu bytes; convert to a "
                       "new image instead",
                       (unsigned long long)size);
    uint8_t *bytes;
    int status = begin(vhdx);
    for (uint64_t index = had; !status && index < count; index++)
        status = write_entry(vhdx, index, VHDX_NOT_PRESENT);
    if (!status)
        status = metacache_write(&vhdx->meta, vhdx->size_at, 8, &bytes);
    if (!status) {
        put_le64(bytes, size);
        status = metacache_commit(&vhdx->meta);
    }
    if (status)
        return err_errno(-status, "vhdx: cannot write the metadata");
    image->size = size;
    vhdx->scanned = false;
    /* What the last block had beyond the old end was never the disk's. */
    uint64_t rest = MIN(size, ALIGN_UP(old, (uint64_t)vhdx->block_size)) - old;
    status = rest ? blockmap_zero(image, &ops, vhdx->block_size, old, rest) : 0;
    return status ? err_errno(-status, "vhdx: cannot clear the new end") : NULL;
}

static const char *const create_options[] = {"subformat", "block_size", "log_size",
                                             "block_state_zero", NULL};

const struct block_driver image_vhdx = {
    .name = "vhdx",
    .create_options = create_options,
    .probe = vhdx_probe,
    .open = vhdx_open,
    .create = vhdx_create,
    .close = vhdx_close,
    .pread = vhdx_pread,
    .pwrite = vhdx_pwrite,
    .flush = vhdx_flush,
    .zero = vhdx_zero,
    .extent = vhdx_extent,
    .info = vhdx_info,
    .check = vhdx_check,
    .resize = vhdx_resize,
};
