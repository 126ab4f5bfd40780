/*
 * VHD (qemu-img's "vpc"): fixed disks are raw bytes before a footer; dynamic and differencing ones
 * have a table of blocks, each behind a bitmap with one bit a sector. In a differencing disk the
 * bit says whose the sector is. In a dynamic one every writer sets them all with the block and they
 * are not looked at, as elsewhere.
 *
 * Tables and bitmaps are written behind the data (metacache.h). The footer ends the file; a new
 * block overwrites it, and the next flush puts it behind the block. In between the copy at the
 * beginning of the file is what a reader has.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/format/vhd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/bytes.h"
#include "base/checked.h"

static int vhd_probe(const uint8_t *head, size_t length, uint64_t file_size)
{
    (void)file_size;
    return length >= VHD_FOOTER && !memcmp(head, "conectix", 8) ? 100 : 0;
}

static int read_entry(struct vhd *vhd, uint64_t block, uint32_t *entry)
{
    const uint8_t *bytes;
    int status = metacache_read(&vhd->meta, vhd->table + 4 * block, 4, &bytes);
    if (!status)
        *entry = get_be32(bytes);
    return status;
}

/* Writes the footer where the blocks end. */
static int put_footer(struct image *image)
{
    struct vhd *vhd = image->state;
    int status = image_write(image->file, vhd->footer, vhd->next, VHD_FOOTER);
    if (!status)
        status = image_truncate(image->file, vhd->next + VHD_FOOTER);
    if (!status)
        vhd->footer_missing = false;
    return status;
}

static int write_back(struct image *image)
{
    struct vhd *vhd = image->state;
    int status = metacache_commit(&vhd->meta);
    if (!status && vhd->scanned && vhd->footer_missing)
        status = put_footer(image);
    return status;
}

static int vhd_flush(struct image *image)
{
    int status = write_back(image);
    return status ? status : image_flush(image->file);
}

static int vhd_close(struct image *image)
{
    struct vhd *vhd = image->state;
    int status = write_back(image);
    metacache_fini(&vhd->meta);
    free(vhd);
    return status;
}

/* Finds the end of what is stored. */
static int scan(struct image *image)
{
    struct vhd *vhd = image->state;
    uint64_t size = image_size(image->file);
    uint64_t next = vhd->footer_missing ? ALIGN_UP(size, IMAGE_SECTOR) : size - VHD_FOOTER;
    next = MAX(next, ALIGN_UP(vhd->table + 4ull * vhd->entries, IMAGE_SECTOR));
    for (uint64_t block = 0; block < vhd->entries; block++) {
        uint32_t entry;
        int status = read_entry(vhd, block, &entry);
        if (status)
            return status;
        if (entry != VHD_UNUSED)
            next = MAX(next, (uint64_t)entry * IMAGE_SECTOR + vhd->bitmap_size + vhd->block_size);
    }
    vhd->next = ALIGN_UP(next, IMAGE_SECTOR);
    vhd->scanned = true;
    return 0;
}

int vhd_restore_footer(struct image *image)
{
    int status = scan(image);
    if (!status)
        status = put_footer(image);
    return status ? status : image_flush(image->file);
}

/* How far from `offset` the bitmap of the block at `host` says the same, and what. */
static int map_sectors(struct vhd *vhd, uint64_t offset, uint64_t host, struct blockmap_span *span)
{
    const uint8_t *bits;
    const uint32_t per_piece = META_SECTOR * 8;
    uint32_t sector = (uint32_t)(offset % vhd->block_size / IMAGE_SECTOR);
    uint32_t first = sector % per_piece;
    uint64_t within = offset % IMAGE_SECTOR;
    uint32_t count = (uint32_t)MIN((within + span->length + IMAGE_SECTOR - 1) / IMAGE_SECTOR,
                                   (uint64_t)(per_piece - first));
    int status =
        metacache_read(&vhd->meta, host + sector / per_piece * META_SECTOR, META_SECTOR, &bits);
    if (status)
        return status;
    bool own;
    uint64_t run = (uint64_t)blockmap_run(bits, first, count, true, &own) * IMAGE_SECTOR - within;
    span->length = MIN(span->length, run);
    span->kind = own ? BLOCKMAP_DATA : BLOCKMAP_BACKING;
    return 0;
}

static int vhd_map(struct image *image, uint64_t offset, uint64_t length,
                   struct blockmap_span *span)
{
    struct vhd *vhd = image->state;
    if (vhd->type == VHD_FIXED) {
        *span = (struct blockmap_span){BLOCKMAP_DATA, length, offset};
        return 0;
    }
    uint32_t entry;
    int status = read_entry(vhd, offset / vhd->block_size, &entry);
    if (status)
        return status;
    span->length = MIN(length, vhd->block_size - offset % vhd->block_size);
    span->kind = BLOCKMAP_BACKING;
    if (entry == VHD_UNUSED)
        return 0;
    uint64_t block = (uint64_t)entry * IMAGE_SECTOR;
    if (!entry || !range_within(block, vhd->bitmap_size, image_size(image->file)))
        return -EIO;
    span->kind = BLOCKMAP_DATA;
    span->host = block + vhd->bitmap_size + offset % vhd->block_size;
    if (span->host >= image_size(image->file))
        return -EIO;
    return vhd->type == VHD_DIFFERENCING ? map_sectors(vhd, offset, block, span) : 0;
}

/* A new block at the end: its data on a page boundary, its bitmap full or empty. */
static int new_block(struct image *image, uint64_t *block)
{
    struct vhd *vhd = image->state;
    int status = vhd->scanned ? 0 : scan(image);
    if (status)
        return status;
    uint64_t at = ALIGN_UP(vhd->next + vhd->bitmap_size, META_PAGE) - vhd->bitmap_size;
    uint64_t end = at + vhd->bitmap_size + vhd->block_size;
    if (at / IMAGE_SECTOR >= VHD_UNUSED)
        return -ENOSPC;
    vhd->footer_missing = true;
    status = blockmap_clear(image->file, vhd->next, end - vhd->next);
    if (status)
        return status;
    /* Through the cache, which may have looked at these sectors when they were something else. */
    for (uint32_t i = 0; i < vhd->bitmap_size; i += META_SECTOR) {
        uint8_t *bits;
        status = metacache_write(&vhd->meta, at + i, META_SECTOR, &bits);
        if (status)
            return status;
        memset(bits, vhd->type == VHD_DYNAMIC ? 0xff : 0, META_SECTOR);
    }
    vhd->next = end;
    *block = at;
    return 0;
}

static int vhd_place(struct image *image, uint64_t offset, uint64_t length, uint64_t *host)
{
    struct vhd *vhd = image->state;
    uint32_t entry;
    int status = read_entry(vhd, offset / vhd->block_size, &entry);
    if (status)
        return status;
    uint64_t block = (uint64_t)entry * IMAGE_SECTOR;
    vhd->placed = 0;
    if (entry == VHD_UNUSED) {
        status = new_block(image, &block);
        vhd->placed = block;
    }
    if (status)
        return status;
    *host = block + vhd->bitmap_size + offset % vhd->block_size;
    if (vhd->type == VHD_DIFFERENCING)
        status = blockmap_edges(image, image->file, IMAGE_SECTOR, offset, length, *host);
    return status;
}

static int mark_sectors(struct vhd *vhd, uint64_t block, uint32_t first, uint32_t count)
{
    const uint32_t per_piece = META_SECTOR * 8;
    while (count) {
        uint8_t *bits;
        uint32_t bit = first % per_piece, n = MIN(count, per_piece - bit);
        int status = metacache_write(&vhd->meta, block + first / per_piece * META_SECTOR,
                                     META_SECTOR, &bits);
        if (status)
            return status;
        blockmap_set_bits(bits, bit, n, true);
        first += n;
        count -= n;
    }
    return 0;
}

static int vhd_placed(struct image *image, uint64_t offset, uint64_t length)
{
    struct vhd *vhd = image->state;
    uint64_t index = offset / vhd->block_size, block = vhd->placed;
    uint8_t *bytes;
    int status = 0;
    if (block) {
        status = metacache_write(&vhd->meta, vhd->table + 4 * index, 4, &bytes);
        if (!status)
            put_be32(bytes, (uint32_t)(block / IMAGE_SECTOR));
    } else {
        uint32_t entry;
        status = read_entry(vhd, index, &entry);
        block = (uint64_t)entry * IMAGE_SECTOR;
    }
    if (status || vhd->type != VHD_DIFFERENCING)
        return status;
    uint64_t within = offset % vhd->block_size;
    uint32_t first = (uint32_t)(within / IMAGE_SECTOR);
    uint32_t end = (uint32_t)((within + length + IMAGE_SECTOR - 1) / IMAGE_SECTOR);
    return mark_sectors(vhd, block, first, end - first);
}

static const struct blockmap_ops ops = {
    .map = vhd_map,
    .place = vhd_place,
    .placed = vhd_placed,
};

/* A fixed disk is one block. */
static uint32_t block_size(const struct image *image)
{
    const struct vhd *vhd = image->state;
    return vhd->type == VHD_FIXED ? (uint32_t)MIB(1024) : vhd->block_size;
}

static int vhd_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    return blockmap_read(image, &ops, block_size(image), buffer, offset, length);
}

static int vhd_pwrite(struct image *image, const void *buffer, uint64_t offset, uint64_t length)
{
    return blockmap_write(image, &ops, block_size(image), buffer, offset, length);
}

static int vhd_zero(struct image *image, uint64_t offset, uint64_t length, bool unmap)
{
    (void)unmap;
    return blockmap_zero(image, &ops, block_size(image), offset, length);
}

static int vhd_extent(struct image *image, uint64_t offset, uint64_t length,
                      struct image_extent *out)
{
    return blockmap_extent(image, &ops, offset, length, out);
}

static void vhd_info(struct image *image, struct image_info *info)
{
    const struct vhd *vhd = image->state;
    static const char *const names[] = {"fixed", "dynamic", "differencing"};
    info->cluster_size = vhd->type == VHD_FIXED ? 0 : vhd->block_size;
    image_info_text(info, "subformat", names[vhd->type - VHD_FIXED]);
}

/* Blocks are found in the file's order only by sorting; a table of starts is enough to compare. */
static int compare_starts(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return a < b ? -1 : a > b;
}

static int collect(struct image *image, struct image_check *check, uint32_t *starts,
                   uint32_t *count)
{
    struct vhd *vhd = image->state;
    for (uint32_t block = 0; block < vhd->entries; block++) {
        uint32_t entry;
        int status = read_entry(vhd, block, &entry);
        if (status)
            return status;
        if (entry == VHD_UNUSED)
            continue;
        uint64_t at = (uint64_t)entry * IMAGE_SECTOR, length = vhd->bitmap_size + vhd->block_size;
        starts[(*count)++] = entry;
        if (at < vhd->table + 4ull * vhd->entries && at + length > vhd->table) {
            image_check_say(check, "block %u lies over the block table", block);
            check->corruptions++;
        } else if (!entry || !range_within(at, vhd->bitmap_size, image_size(image->file))) {
            image_check_say(check, "block %u lies beyond the end of the file", block);
            check->corruptions++;
        }
    }
    return 0;
}

static int check_footer(struct image *image, bool repair, struct image_check *check)
{
    struct vhd *vhd = image->state;
    if (!vhd->footer_missing)
        return 0;
    image_check_say(check, "the footer at the end of the file is missing");
    if (!repair) {
        check->corruptions++;
        return 0;
    }
    int status = vhd->scanned ? 0 : scan(image);
    if (!status)
        status = put_footer(image);
    if (!status)
        check->corruptions_fixed++;
    return status;
}

static struct err *vhd_check(struct image *image, bool repair, struct image_check *check)
{
    struct vhd *vhd = image->state;
    if (vhd->type == VHD_FIXED)
        return NULL;
    /* The table lies within the file, so this is bounded by it; a sparse file can still lie. */
    uint32_t *starts = calloc((size_t)vhd->entries + 1, sizeof(*starts));
    if (!starts)
        return err_errno(ENOMEM, "vhd: no memory for the check");
    uint32_t count = 0, length = (vhd->bitmap_size + vhd->block_size) / IMAGE_SECTOR;
    int status = collect(image, check, starts, &count);
    qsort(starts, count, sizeof(*starts), compare_starts);
    for (uint32_t i = 1; i < count; i++) {
        if (starts[i] - starts[i - 1] >= length)
            continue;
        image_check_say(check, "blocks at sectors %u and %u overlap", starts[i - 1], starts[i]);
        check->corruptions++;
    }
    free(starts);
    if (!status)
        status = check_footer(image, repair, check);
    check->total_clusters = vhd->entries;
    check->allocated_clusters = count;
    check->end_offset = image_size(image->file);
    return status ? err_errno(-status, "vhd: cannot check the block table") : NULL;
}

/* Fixed disks: the footer moves. */
static struct err *vhd_resize(struct image *image, uint64_t size)
{
    struct vhd *vhd = image->state;
    uint16_t cylinders;
    if (vhd->type != VHD_FIXED)
        return err_new("vhd: only fixed disks can be resized; convert to a new image instead");
    if (size % IMAGE_SECTOR || size > VHD_SECTORS_MAX * IMAGE_SECTOR)
        return err_of(ERR_USAGE, "vhd: a disk is whole sectors, at most 2040 GiB");
    vhd_geometry(size / IMAGE_SECTOR, &cylinders, vhd->footer + F_HEADS, vhd->footer + F_SECTORS);
    put_be16(vhd->footer + F_CYLINDERS, cylinders);
    memcpy(vhd->footer + F_CREATOR, "win ", 4); /* whose size field counts */
    put_be64(vhd->footer + F_SIZE, size);
    put_be32(vhd->footer + F_CHECKSUM, vhd_checksum(vhd->footer, VHD_FOOTER, F_CHECKSUM));
    /* The old footer must not become guest data. */
    uint64_t old = image_size(image->file) - VHD_FOOTER;
    int status = 0;
    if (size > old)
        status = blockmap_clear(image->file, old, size - old);
    if (!status)
        status = image_write(image->file, vhd->footer, size, VHD_FOOTER);
    if (!status)
        status = image_truncate(image->file, size + VHD_FOOTER);
    if (status)
        return err_errno(-status, "vhd: cannot move the footer");
    image->size = size;
    return NULL;
}

static const char *const create_options[] = {"subformat", "force_size", NULL};

const struct block_driver image_vhd = {
    .name = "vpc",
    .create_options = create_options,
    .probe = vhd_probe,
    .open = vhd_open,
    .create = vhd_create,
    .close = vhd_close,
    .pread = vhd_pread,
    .pwrite = vhd_pwrite,
    .flush = vhd_flush,
    .zero = vhd_zero,
    .extent = vhd_extent,
    .info = vhd_info,
    .check = vhd_check,
    .resize = vhd_resize,
};
