/*
 * Opening a VMDK: the descriptor, its extents, the headers of sparse ones.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <libdeflate.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "block/format/vmdk.h"

static void release_compressor(void *compressor)
{
    libdeflate_free_compressor(compressor);
}

void vmdk_free(struct image *image, struct vmdk *vmdk)
{
    for (unsigned i = 0; i < vmdk->extents; i++) {
        struct vmdk_extent *extent = &vmdk->extent[i];
        if (extent->kind == VMDK_SPARSE)
            metacache_fini(&extent->meta);
        if (extent->file && extent->file != image->file)
            image_close(extent->file);
    }
    spare_fini(&vmdk->compressors);
    if (vmdk->inflater)
        libdeflate_free_decompressor(vmdk->inflater);
    free(vmdk->extent);
    free(vmdk->packed);
    free(vmdk->unpacked);
    free(vmdk->stream);
    free(vmdk->pending);
    free(vmdk);
}

/* A stream's header says nothing of its directory; the footer, two sectors before the end, does. */
static struct err *read_footer(struct image *file, uint8_t *header)
{
    uint64_t size = image_size(file);
    if (size < 4 * VMDK_HEADER)
        return err_new("vmdk: the stream has no footer");
    int status = image_read(file, header, size - 2 * VMDK_HEADER, VMDK_HEADER);
    if (status)
        return err_errno(-status, "vmdk: cannot read the footer");
    if (get_le32(header) != VMDK_MAGIC || get_le64(header + S_GD) == VMDK_GD_AT_END)
        return err_new("vmdk: the stream has no footer: it was cut");
    return NULL;
}

static struct err *parse_sparse(struct vmdk_extent *extent, const uint8_t *header,
                                uint64_t *capacity)
{
    uint32_t version = get_le32(header + S_VERSION);
    extent->flags = get_le32(header + S_FLAGS);
    extent->gtes = get_le32(header + S_GTES);
    if (get_le32(header) != VMDK_MAGIC)
        return err_new("vmdk: an extent without the header of a sparse one");
    if (!version || version > 3)
        return err_new("vmdk: version %u is not supported", version);
    if (extent->flags & VMDK_FLAG_NEWLINES && memcmp(header + S_NEWLINES, "\n \r\n", 4))
        return err_new("vmdk: the header's line ends were converted: the file is damaged");
    if (get_le64(header + S_GRAIN) < 1 || get_le64(header + S_GRAIN) > MIB(16) / IMAGE_SECTOR ||
        !is_power_of_2(get_le64(header + S_GRAIN)))
        return err_new("vmdk: bad grain size");
    extent->grain = get_le64(header + S_GRAIN) * IMAGE_SECTOR;
    if (!is_power_of_2(extent->gtes) || extent->gtes > VMDK_GTES)
        return err_new("vmdk: bad size of grain tables, %u", extent->gtes);
    if (get_le64(header + S_CAPACITY) > VMDK_DISK_MAX / IMAGE_SECTOR)
        return err_new("vmdk: the capacity is beyond any disk's");
    *capacity = get_le64(header + S_CAPACITY) * IMAGE_SECTOR;
    if (extent->flags & VMDK_FLAG_COMPRESSED &&
        (get_le16(header + S_COMPRESSION) != 1 || !(extent->flags & VMDK_FLAG_MARKERS)))
        return err_new("vmdk: the compression is not known");
    uint64_t per_table = extent->grain * extent->gtes, size = image_size(extent->file);
    extent->tables = (*capacity + per_table - 1) / per_table;
    if (!checked_mul(get_le64(header + S_GD), IMAGE_SECTOR, &extent->gd) ||
        !range_within(extent->gd, extent->tables * 4, size) || !extent->gd)
        return err_new("vmdk: the grain directory lies outside of the file");
    if (extent->flags & VMDK_FLAG_REDUNDANT && get_le64(header + S_RGD) &&
        (!checked_mul(get_le64(header + S_RGD), IMAGE_SECTOR, &extent->rgd) ||
         !range_within(extent->rgd, extent->tables * 4, size)))
        return err_new("vmdk: the second grain directory lies outside of the file");
    return NULL;
}

/* What ESX makes for a snapshot: no second directory, no compression, tables as they are needed. */
static struct err *parse_esx(struct vmdk_extent *extent, const uint8_t *header, uint64_t *capacity)
{
    uint32_t grain = get_le32(header + E_GRAIN);
    extent->esx = true;
    extent->gtes = VMDK_GTES_ESX;
    if (get_le32(header + E_VERSION) != 1)
        return err_new("vmdk: version %u of ESX's extents is not supported",
                       get_le32(header + E_VERSION));
    if (!is_power_of_2(grain) || grain > MIB(16) / IMAGE_SECTOR)
        return err_new("vmdk: bad grain size");
    extent->grain = (uint64_t)grain * IMAGE_SECTOR;
    *capacity = (uint64_t)get_le32(header + E_CAPACITY) * IMAGE_SECTOR;
    uint64_t per_table = extent->grain * extent->gtes;
    extent->tables = (*capacity + per_table - 1) / per_table;
    extent->gd = (uint64_t)get_le32(header + E_GD) * IMAGE_SECTOR;
    if (extent->tables > get_le32(header + E_TABLES) || !extent->gd ||
        !range_within(extent->gd, extent->tables * 4, image_size(extent->file)))
        return err_new("vmdk: the grain directory lies outside of the file");
    return NULL;
}

static struct err *open_sparse(struct vmdk_extent *extent, unsigned flags, uint64_t *capacity)
{
    uint8_t header[VMDK_HEADER];
    int status = image_size(extent->file) < sizeof(header)
                     ? -ENODATA
                     : image_read(extent->file, header, 0, sizeof(header));
    if (status)
        return err_errno(-status, "vmdk: cannot read the header of an extent");
    if (get_le32(header) == VMDK_MAGIC && get_le64(header + S_GD) == VMDK_GD_AT_END)
        TRY(read_footer(extent->file, header));
    TRY(get_le32(header) == VMDK_MAGIC_ESX ? parse_esx(extent, header, capacity)
                                           : parse_sparse(extent, header, capacity));
    metacache_init(&extent->meta, extent->file);
    extent->meta.unordered = flags & IMAGE_OPEN_SCRATCH;
    extent->kind = VMDK_SPARSE; /* from here on it has a cache to free */
    return NULL;
}

static struct err *open_extent(struct image *image, struct vmdk *vmdk,
                               const struct image_files *files, const struct vmdk_line *line)
{
    struct vmdk_extent *extent = &vmdk->extent[vmdk->extents++];
    uint64_t capacity;
    extent->kind = line->kind == VMDK_ZERO ? VMDK_ZERO : VMDK_FLAT;
    extent->start = image->size;
    extent->length = line->sectors * IMAGE_SECTOR;
    extent->offset = line->offset;
    extent->readonly = line->readonly;
    image->size += extent->length;
    if (line->kind == VMDK_ZERO)
        return NULL;
    if (!files || !files->open)
        return err_new("vmdk: the image has its data in other files, which cannot be opened here");
    TRY(err_wrap(
        files->open(files->opaque, line->name, image->writable && !line->readonly, &extent->file),
        "vmdk: extent '%s'", line->name));
    if (line->kind == VMDK_FLAT) {
        if (!range_within(extent->offset, extent->length, image_size(extent->file)))
            return err_new("vmdk: extent '%s' is shorter than the descriptor says", line->name);
        return NULL;
    }
    TRY(open_sparse(extent, image->flags, &capacity));
    if (extent->flags & VMDK_FLAG_COMPRESSED)
        return err_new("vmdk: compressed extents in files of their own are not supported");
    if (vmdk->grain && extent->grain != vmdk->grain)
        return err_new("vmdk: extents of different grain sizes are not supported");
    vmdk->grain = extent->grain;
    return capacity < extent->length
               ? err_new("vmdk: extent '%s' is shorter than the descriptor says", line->name)
               : NULL;
}

static struct err *open_extents(struct image *image, struct vmdk *vmdk,
                                const struct image_files *files,
                                const struct vmdk_descriptor *descriptor)
{
    image->size = 0;
    if (!descriptor->lines)
        return err_new("vmdk: the descriptor names no extent");
    vmdk->extent = xcalloc(descriptor->lines, sizeof(*vmdk->extent));
    for (unsigned i = 0; i < descriptor->lines; i++) {
        if (image->size > VMDK_DISK_MAX)
            return err_new("vmdk: the extents are larger than any disk");
        TRY(open_extent(image, vmdk, files, &descriptor->line[i]));
    }
    return NULL;
}

static struct err *open_single(struct image *image, struct vmdk *vmdk)
{
    vmdk->extent = xcalloc(1, sizeof(*vmdk->extent));
    vmdk->extents = 1;
    struct vmdk_extent *extent = vmdk->extent;
    extent->kind = VMDK_FLAT; /* until it has a cache */
    extent->file = image->file;
    TRY(open_sparse(extent, image->flags, &extent->length));
    image->size = extent->length;
    vmdk->grain = extent->grain;
    return NULL;
}

/* A stream is written once, from empty; later it is for reading. */
static struct err *prepare_stream(struct image *image, struct vmdk *vmdk)
{
    struct vmdk_extent *extent = vmdk->extent;
    vmdk->packed = calloc(1, 2 * extent->grain);
    vmdk->unpacked = calloc(1, extent->grain);
    if (!vmdk->packed || !vmdk->unpacked)
        return err_errno(ENOMEM, "vmdk");
    if (!image->writable)
        return NULL;
    for (uint64_t i = 0; i < extent->tables; i++) {
        const uint8_t *bytes;
        int status = metacache_read(&extent->meta, extent->gd + 4 * i, 4, &bytes);
        if (status)
            return err_errno(-status, "vmdk: cannot read the grain directory");
        if (!get_le32(bytes))
            continue;
        image->writable = false;
        image->readonly_why = "a streamOptimized image is written once";
        return NULL;
    }
    if (extent->tables * extent->gtes < (1u << 28))
        vmdk->stream = calloc(extent->tables * extent->gtes + 1, sizeof(*vmdk->stream));
    vmdk->pending = calloc(1, extent->grain);
    if (!vmdk->stream || !vmdk->pending)
        return err_errno(ENOMEM, "vmdk: no memory for the tables of a stream");
    uint8_t header[VMDK_HEADER];
    int status = image_read(image->file, header, 0, sizeof(header));
    if (status)
        return err_errno(-status, "vmdk: cannot read the header");
    vmdk->stream_next = get_le64(header + S_OVERHEAD) * IMAGE_SECTOR;
    if (vmdk->stream_next < VMDK_HEADER || vmdk->stream_next > image_size(image->file))
        return err_new("vmdk: the header's overhead is bad");
    return NULL;
}

static struct err *open_all(struct image *image, struct vmdk *vmdk, const struct image_files *files)
{
    scoped(free_cleanup) char *text = NULL;
    struct vmdk_descriptor descriptor = {.parent_cid = UINT32_MAX};
    uint8_t magic[4] = {0};
    uint64_t at = 0;
    TRY(vmdk_read_descriptor(image->file, &text, &at));
    if (text)
        TRY(vmdk_parse(text, &descriptor));
    int status = image_read(image->file, magic, 0, 4);
    struct err *err = status ? err_errno(-status, "vmdk: cannot read its beginning") : NULL;
    if (!err && (get_le32(magic) == VMDK_MAGIC || get_le32(magic) == VMDK_MAGIC_ESX))
        err = open_single(image, vmdk);
    else if (!err)
        err = open_extents(image, vmdk, files, &descriptor);
    free(descriptor.line);
    if (err)
        return err;
    snprintf(vmdk->create_type, sizeof(vmdk->create_type), "%s",
             *descriptor.create_type ? descriptor.create_type : "monolithicSparse");
    vmdk->cid = descriptor.cid;
    vmdk->cid_at = descriptor.cid_offset ? at + descriptor.cid_offset : 0;
    if (descriptor.parent_cid != UINT32_MAX && *descriptor.parent) {
        image->backing_name = xstrdup(descriptor.parent);
        image->backing_format = xstrdup("vmdk");
    }
    for (unsigned i = 0; i < vmdk->extents && image->writable; i++)
        if (vmdk->extent[i].kind == VMDK_SPARSE && vmdk->extent[i].esx) {
            image->writable = false;
            image->readonly_why = "the extents of an ESX snapshot are for reading: convert them";
        }
    if (vmdk->extent[0].kind == VMDK_SPARSE && vmdk->extent[0].flags & VMDK_FLAG_COMPRESSED)
        return prepare_stream(image, vmdk);
    return NULL;
}

struct err *vmdk_open(struct image *image, const struct image_files *files)
{
    struct vmdk *vmdk = xcalloc(1, sizeof(*vmdk));
    spare_init(&vmdk->compressors, release_compressor);
    struct err *err = open_all(image, vmdk, files);
    if (err) {
        vmdk_free(image, vmdk);
        return err;
    }
    image->state = vmdk;
    return NULL;
}
