/*
 * VMDK, the disks of VMware: a descriptor and extents, each flat or sparse (a directory of tables
 * of grains); streamOptimized ones have compressed grains behind markers.
 *
 * Grain tables are written behind the data (metacache.h). A stream is only ever appended to: its
 * tables are in memory until close writes them with the footer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/format/vmdk.h"

#include <errno.h>
#include <libdeflate.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/bytes.h"
#include "base/checked.h"

#define DEFLATE_LEVEL 5             /* smaller output than zlib at its level 6 */
#define MARKER 12u                  /* in front of a compressed grain: its sector, its length */
#define BLOCK ((uint32_t)MIB(1024)) /* map() bounds runs by itself */
#define GRAIN_ZERO 1u

static int vmdk_probe(const uint8_t *head, size_t length, uint64_t file_size)
{
    static const char text[] = "# Disk DescriptorFile";
    (void)file_size;
    if (length >= 4 && (get_le32(head) == VMDK_MAGIC || get_le32(head) == VMDK_MAGIC_ESX))
        return 100;
    return length >= sizeof(text) && !memcmp(head, text, sizeof(text) - 1) ? 100 : 0;
}

/* The extent that `offset` lies in. The core keeps it below the sum of their lengths. */
static struct vmdk_extent *extent_of(struct vmdk *vmdk, uint64_t offset)
{
    struct vmdk_extent *extent = &vmdk->extent[vmdk->last];
    if (offset >= extent->start && offset - extent->start < extent->length)
        return extent;
    unsigned low = 0, high = vmdk->extents;
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (vmdk->extent[middle].start <= offset)
            low = middle;
        else
            high = middle;
    }
    vmdk->last = low;
    return &vmdk->extent[low];
}

static struct image *vmdk_node(struct image *image, uint64_t offset)
{
    return extent_of(image->state, offset)->file;
}

/* Where the table with the entry of a grain lies; *at 0: there is none. */
static int table_at(struct vmdk_extent *extent, uint64_t directory, uint64_t grain, uint64_t *at)
{
    const uint8_t *bytes;
    int status = metacache_read(&extent->meta, directory + grain / extent->gtes * 4, 4, &bytes);
    if (status)
        return status;
    *at = (uint64_t)get_le32(bytes) * IMAGE_SECTOR;
    if (*at && !range_within(*at, extent->gtes * 4ull, image_size(extent->file)))
        return -EIO;
    return 0;
}

/* A grain's entry: a sector of the file, 0 for none. */
static int read_grain(struct vmdk *vmdk, struct vmdk_extent *extent, uint64_t grain,
                      uint32_t *entry)
{
    uint64_t table;
    const uint8_t *bytes;
    *entry = 0;
    if (vmdk->stream) {
        *entry = vmdk->stream[grain];
        return 0;
    }
    int status = table_at(extent, extent->gd, grain, &table);
    if (status || !table)
        return status;
    status = metacache_read(&extent->meta, table + grain % extent->gtes * 4, 4, &bytes);
    if (!status)
        *entry = get_le32(bytes);
    return status;
}

static int vmdk_map(struct image *image, uint64_t offset, uint64_t length,
                    struct blockmap_span *span)
{
    struct vmdk *vmdk = image->state;
    struct vmdk_extent *extent = extent_of(vmdk, offset);
    uint64_t within = offset - extent->start;
    span->length = MIN(length, extent->length - within);
    span->kind = BLOCKMAP_ZERO;
    if (extent->kind == VMDK_ZERO)
        return 0;
    if (extent->kind == VMDK_FLAT) {
        span->kind = BLOCKMAP_DATA;
        span->host = extent->offset + within;
        return 0;
    }
    uint32_t entry;
    uint64_t in_grain = within % extent->grain;
    int status = read_grain(vmdk, extent, within / extent->grain, &entry);
    if (status)
        return status;
    span->length = MIN(span->length, extent->grain - in_grain);
    span->host = (uint64_t)entry * IMAGE_SECTOR + in_grain;
    if (!entry)
        span->kind = BLOCKMAP_BACKING;
    else if (entry == GRAIN_ZERO && extent->flags & VMDK_FLAG_ZEROED)
        span->kind = BLOCKMAP_ZERO;
    else if (span->host - in_grain >= image_size(extent->file))
        return -EIO;
    else
        span->kind = extent->flags & VMDK_FLAG_COMPRESSED ? BLOCKMAP_PACKED : BLOCKMAP_DATA;
    return 0;
}

/* The grain at `start` of the disk into vmdk->unpacked. */
static int unpack(struct image *image, uint64_t start)
{
    struct vmdk *vmdk = image->state;
    struct vmdk_extent *extent = vmdk->extent;
    uint8_t marker[MARKER];
    uint32_t entry;
    size_t made;
    vmdk->unpacked_good = false;
    int status = read_grain(vmdk, extent, start / extent->grain, &entry);
    if (!status)
        status = image_read(extent->file, marker, (uint64_t)entry * IMAGE_SECTOR, MARKER);
    if (status)
        return status;
    uint32_t length = get_le32(marker + 8);
    uint64_t at = (uint64_t)entry * IMAGE_SECTOR + MARKER;
    if (get_le64(marker) != start / IMAGE_SECTOR || length > 2 * extent->grain ||
        !range_within(at, length, image_size(extent->file)))
        return -EIO;
    status = image_read(extent->file, vmdk->packed, at, length);
    if (status)
        return status;
    if (!vmdk->inflater)
        vmdk->inflater = libdeflate_alloc_decompressor();
    if (!vmdk->inflater)
        return -ENOMEM;
    enum libdeflate_result result = libdeflate_zlib_decompress(
        vmdk->inflater, vmdk->packed, length, vmdk->unpacked, extent->grain, &made);
    if (result != LIBDEFLATE_SUCCESS)
        return -EIO;
    memset(vmdk->unpacked + made, 0, extent->grain - made);
    vmdk->unpacked_at = start;
    vmdk->unpacked_good = true;
    return 0;
}

static int vmdk_unpack(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    struct vmdk *vmdk = image->state;
    uint64_t within = offset % vmdk->grain;
    int status = 0;
    if (!vmdk->unpacked_good || vmdk->unpacked_at != offset - within)
        status = unpack(image, offset - within);
    if (!status)
        memcpy(buffer, vmdk->unpacked + within, length);
    return status;
}

/* The first change gives the content a new identity, so that a child of the old one notices. */
static int begin(struct image *image)
{
    struct vmdk *vmdk = image->state;
    char digits[9];
    uint32_t cid;
    if (vmdk->begun)
        return 0;
    vmdk->begun = true;
    if (!vmdk->cid_at || vmdk->stream || getrandom(&cid, sizeof(cid), 0) != sizeof(cid))
        return 0;
    vmdk->cid = cid == UINT32_MAX ? 1 : cid;
    snprintf(digits, sizeof(digits), "%08x", vmdk->cid);
    return image_write(image->file, digits, vmdk->cid_at, 8);
}

/*
 * Calls `each` for the entries of all tables. Tables that together are longer than the file lie
 * over one another: that is no image, and would be a way to make us count for years.
 */
static int walk(struct image *image, struct vmdk_extent *extent, void *opaque,
                int (*each)(struct image *image, struct vmdk_extent *extent, void *opaque,
                            uint64_t grain, uint32_t entry))
{
    struct vmdk *vmdk = image->state;
    uint64_t room = image_size(extent->file) / (extent->gtes * 4ull) + 1;
    for (uint64_t i = 0; i < extent->tables; i++) {
        uint64_t table = 1;
        int status = vmdk->stream ? 0 : table_at(extent, extent->gd, i * extent->gtes, &table);
        if (!status && table && !vmdk->stream && !room--)
            status = -EIO;
        for (uint32_t k = 0; !status && table && k < extent->gtes; k++) {
            uint32_t entry;
            status = read_grain(vmdk, extent, i * extent->gtes + k, &entry);
            if (!status && entry)
                status = each(image, extent, opaque, i * extent->gtes + k, entry);
        }
        if (status)
            return status;
    }
    return 0;
}

static int highest(struct image *image, struct vmdk_extent *extent, void *opaque, uint64_t grain,
                   uint32_t entry)
{
    uint64_t *next = opaque;
    (void)image;
    (void)grain;
    if (entry > GRAIN_ZERO)
        *next = MAX(*next, (uint64_t)entry * IMAGE_SECTOR + extent->grain);
    return 0;
}

/* Finds the end of what is stored. */
static int scan(struct image *image, struct vmdk_extent *extent)
{
    uint64_t next = image_size(extent->file);
    int status = walk(image, extent, &next, highest);
    extent->next = ALIGN_UP(next, (uint64_t)META_PAGE);
    extent->scanned = !status;
    return status;
}

static int grow(struct image *image, struct vmdk_extent *extent, uint64_t length, uint64_t *at)
{
    int status = extent->scanned ? 0 : scan(image, extent);
    if (!status && (extent->next + length) / IMAGE_SECTOR > UINT32_MAX)
        status = -ENOSPC;
    if (!status)
        status = blockmap_clear(extent->file, extent->next, length);
    if (status)
        return status;
    *at = extent->next;
    extent->next += ALIGN_UP(length, (uint64_t)META_PAGE);
    return 0;
}

static int vmdk_place(struct image *image, uint64_t offset, uint64_t length, uint64_t *host)
{
    struct vmdk *vmdk = image->state;
    struct vmdk_extent *extent = extent_of(vmdk, offset);
    if (extent->kind != VMDK_SPARSE || extent->readonly)
        return -EROFS;
    uint64_t within = offset - extent->start, in_grain = within % extent->grain;
    uint64_t start = offset - in_grain;
    int status = grow(image, extent, extent->grain, &extent->placed);
    if (status)
        return status;
    *host = extent->placed + in_grain;
    struct blockmap_span span;
    status = vmdk_map(image, offset, 1, &span);
    if (!status && span.kind == BLOCKMAP_BACKING)
        status = blockmap_fill(image, extent->file, start,
                               MIN(extent->grain, extent->start + extent->length - start), offset,
                               length, extent->placed);
    return status;
}

/* The entry of a grain through one of the directories, with a table where there is none. */
static int enter(struct image *image, struct vmdk_extent *extent, uint64_t directory,
                 uint64_t grain)
{
    uint64_t table;
    uint8_t *bytes;
    int status = table_at(extent, directory, grain, &table);
    if (!status && !table) {
        status = grow(image, extent, extent->gtes * 4ull, &table);
        for (uint64_t i = 0; !status && i < extent->gtes * 4ull; i += META_SECTOR) {
            status = metacache_write(&extent->meta, table + i, META_SECTOR, &bytes);
            if (!status)
                memset(bytes, 0, META_SECTOR);
        }
        if (!status)
            status =
                metacache_write(&extent->meta, directory + grain / extent->gtes * 4, 4, &bytes);
        if (!status)
            put_le32(bytes, (uint32_t)(table / IMAGE_SECTOR));
    }
    if (!status)
        status = metacache_write(&extent->meta, table + grain % extent->gtes * 4, 4, &bytes);
    if (!status)
        put_le32(bytes, (uint32_t)(extent->placed / IMAGE_SECTOR));
    return status;
}

static int vmdk_placed(struct image *image, uint64_t offset, uint64_t length)
{
    struct vmdk_extent *extent = extent_of(image->state, offset);
    uint64_t grain = (offset - extent->start) / extent->grain;
    (void)length;
    int status = enter(image, extent, extent->gd, grain);
    return !status && extent->rgd ? enter(image, extent, extent->rgd, grain) : status;
}

static const struct blockmap_ops ops = {
    .map = vmdk_map,
    .place = vmdk_place,
    .placed = vmdk_placed,
    .unpack = vmdk_unpack,
    .node = vmdk_node,
};

static uint32_t vmdk_compress_unit(const struct image *image)
{
    const struct vmdk *vmdk = image->state;
    return vmdk->stream ? (uint32_t)vmdk->grain : 0;
}

static int deflate_grain(struct vmdk *vmdk, const void *unit, void *out, size_t room,
                         size_t *length)
{
    void *c = spare_take(&vmdk->compressors);
    if (!c)
        c = libdeflate_alloc_compressor(DEFLATE_LEVEL);
    if (!c)
        return -ENOMEM;
    *length = libdeflate_zlib_compress(c, unit, vmdk->grain, out, room);
    spare_give(&vmdk->compressors, c);
    return 0;
}

static int vmdk_compress(struct image *image, const void *unit, void *out, size_t *out_length)
{
    struct vmdk *vmdk = image->state;
    return deflate_grain(vmdk, unit, out, vmdk->grain - 1, out_length);
}

/* One grain, compressed already, behind the last. */
static int vmdk_write_compressed(struct image *image, uint64_t offset, const void *data,
                                 size_t length)
{
    struct vmdk *vmdk = image->state;
    if (!vmdk->stream || offset % vmdk->grain || vmdk->stream[offset / vmdk->grain] ||
        length > 2 * vmdk->grain - MARKER)
        return -ENOTSUP;
    uint64_t total = ALIGN_UP(MARKER + length, (uint64_t)IMAGE_SECTOR);
    if ((vmdk->stream_next + total) / IMAGE_SECTOR > UINT32_MAX)
        return -ENOSPC;
    uint8_t *record = calloc(1, total);
    if (!record)
        return -ENOMEM;
    put_le64(record, offset / IMAGE_SECTOR);
    put_le32(record + 8, (uint32_t)length);
    memcpy(record + MARKER, data, length);
    int status = image_write(image->file, record, vmdk->stream_next, total);
    free(record);
    if (status)
        return status;
    vmdk->stream[offset / vmdk->grain] = (uint32_t)(vmdk->stream_next / IMAGE_SECTOR);
    vmdk->stream_next += total;
    vmdk->begun = true;
    return 0;
}

/* The grain that plain writes have filled goes behind the last. */
static int put_pending(struct image *image)
{
    struct vmdk *vmdk = image->state;
    size_t length;
    if (!vmdk->pending_used)
        return 0;
    vmdk->pending_used = false;
    int status =
        deflate_grain(vmdk, vmdk->pending, vmdk->packed, 2 * vmdk->grain - MARKER, &length);
    return status ? status : vmdk_write_compressed(image, vmdk->pending_at, vmdk->packed, length);
}

/* Plain writes into a stream: parts of one grain may come one after another. NULL: zeros. */
static int write_stream(struct image *image, const uint8_t *at, uint64_t offset, uint64_t length)
{
    struct vmdk *vmdk = image->state;
    int status = 0;
    for (uint64_t n; !status && length; offset += n, length -= n, at = at ? at + n : NULL) {
        uint64_t start = ALIGN_DOWN(offset, vmdk->grain);
        bool here = vmdk->pending_used && vmdk->pending_at == start;
        n = MIN(length, start + vmdk->grain - offset);
        if (!here && vmdk->stream[start / vmdk->grain])
            return -ENOTSUP;
        if (!here && !at)
            continue; /* what was never written is zero */
        if (!here) {
            status = put_pending(image);
            memset(vmdk->pending, 0, vmdk->grain);
            vmdk->pending_at = start;
            vmdk->pending_used = !status;
        }
        if (at)
            memcpy(vmdk->pending + (offset - start), at, n);
        else
            memset(vmdk->pending + (offset - start), 0, n);
    }
    return status;
}

static int vmdk_pread(struct image *image, void *buffer, uint64_t offset, uint64_t length)
{
    int status = put_pending(image);
    return status ? status : blockmap_read(image, &ops, BLOCK, buffer, offset, length);
}

static int vmdk_pwrite(struct image *image, const void *buffer, uint64_t offset, uint64_t length)
{
    struct vmdk *vmdk = image->state;
    if (vmdk->stream)
        return write_stream(image, buffer, offset, length);
    for (uint64_t at = offset; at < offset + length;) {
        struct vmdk_extent *extent = extent_of(vmdk, at);
        if (extent->readonly || extent->kind == VMDK_ZERO)
            return -EROFS;
        at = extent->start + extent->length;
    }
    int status = begin(image);
    return status ? status : blockmap_write(image, &ops, BLOCK, buffer, offset, length);
}

static int vmdk_zero(struct image *image, uint64_t offset, uint64_t length, bool unmap)
{
    struct vmdk *vmdk = image->state;
    (void)unmap;
    if (vmdk->stream)
        return write_stream(image, NULL, offset, length);
    int status = begin(image);
    return status ? status : blockmap_zero(image, &ops, BLOCK, offset, length);
}

static int vmdk_flush(struct image *image)
{
    struct vmdk *vmdk = image->state;
    int status = 0;
    for (unsigned i = 0; !status && i < vmdk->extents; i++) {
        struct vmdk_extent *extent = &vmdk->extent[i];
        if (extent->kind == VMDK_SPARSE)
            status = metacache_commit(&extent->meta);
        if (!status && extent->file)
            status = image_flush(extent->file);
    }
    return status;
}

static int end_stream(struct image *image, struct vmdk *vmdk)
{
    uint8_t header[VMDK_HEADER];
    int status = put_pending(image);
    if (!status)
        status = image_read(image->file, header, 0, sizeof(header));
    if (status || !vmdk->begun)
        return status;
    return vmdk_end_stream(image->file, header, vmdk->stream, vmdk->extent->tables,
                           vmdk->stream_next);
}

static int vmdk_close(struct image *image)
{
    struct vmdk *vmdk = image->state;
    int status = 0;
    if (vmdk->stream) {
        status = end_stream(image, vmdk);
    } else {
        for (unsigned i = 0; i < vmdk->extents; i++) {
            int result =
                vmdk->extent[i].kind == VMDK_SPARSE ? metacache_commit(&vmdk->extent[i].meta) : 0;
            status = status ? status : result;
        }
    }
    vmdk_free(image, vmdk);
    return status;
}

static int vmdk_extent_at(struct image *image, uint64_t offset, uint64_t length,
                          struct image_extent *out)
{
    int status = put_pending(image);
    return status ? status : blockmap_extent(image, &ops, offset, length, out);
}

static void vmdk_info(struct image *image, struct image_info *info)
{
    const struct vmdk *vmdk = image->state;
    info->cluster_size = (uint32_t)vmdk->grain;
    image_info_number(info, "cid", vmdk->cid);
    image_info_text(info, "create-type", vmdk->create_type);
    image_info_number(info, "extents", vmdk->extents);
}

static int check_grain(struct image *image, struct vmdk_extent *extent, void *opaque,
                       uint64_t grain, uint32_t entry)
{
    struct image_check *check = opaque;
    (void)image;
    check->allocated_clusters++;
    if ((entry == GRAIN_ZERO && extent->flags & VMDK_FLAG_ZEROED) ||
        (uint64_t)entry * IMAGE_SECTOR < image_size(extent->file))
        return 0;
    image_check_say(check, "grain %llu lies outside of the file", (unsigned long long)grain);
    check->corruptions++;
    return 0;
}

static struct err *vmdk_check(struct image *image, bool repair, struct image_check *check)
{
    struct vmdk *vmdk = image->state;
    (void)repair;
    for (unsigned i = 0; i < vmdk->extents; i++) {
        if (vmdk->extent[i].kind != VMDK_SPARSE)
            continue;
        struct vmdk_extent *extent = &vmdk->extent[i];
        check->total_clusters += (extent->length + extent->grain - 1) / extent->grain;
        int status = walk(image, extent, check, check_grain);
        if (status == -EIO) {
            image_check_say(check, "the grain tables lie outside of the file or over one another");
            check->corruptions++;
        } else if (status)
            return err_errno(-status, "vmdk: cannot read the grain tables");
    }
    check->end_offset = image_size(image->file);
    return NULL;
}

static const char *const create_options[] = {"subformat", "adapter_type", "hwversion", NULL};

const struct block_driver image_vmdk = {
    .name = "vmdk",
    .packs = true,
    .create_options = create_options,
    .probe = vmdk_probe,
    .open = vmdk_open,
    .create = vmdk_create,
    .close = vmdk_close,
    .pread = vmdk_pread,
    .pwrite = vmdk_pwrite,
    .flush = vmdk_flush,
    .zero = vmdk_zero,
    .extent = vmdk_extent_at,
    .compress_unit = vmdk_compress_unit,
    .compress = vmdk_compress,
    .write_compressed = vmdk_write_compressed,
    .info = vmdk_info,
    .check = vmdk_check,
};
