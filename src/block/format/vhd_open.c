/*
 * Opening a VHD ("Virtual Hard Disk Image Format Specification" 1.0): footer, dynamic header, the
 * parent's name. The footer at the end counts; the copy at the beginning serves when that is gone.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "block/format/utf16.h"
#include "block/format/vhd.h"

#define LOCATOR_BYTES_MAX 4096u

uint32_t vhd_checksum(const uint8_t *bytes, size_t length, size_t field)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < length; i++)
        if (i < field || i >= field + 4)
            sum += bytes[i];
    return ~sum;
}

void vhd_geometry(uint64_t sectors, uint16_t *cylinders, uint8_t *heads, uint8_t *per_track)
{
    uint64_t tracks;
    unsigned head_count, track;
    sectors = MIN(sectors, VHD_GEOMETRY_MAX);
    if (sectors >= 65535ull * 16 * 63) {
        track = 255;
        head_count = 16;
        tracks = sectors / track;
    } else {
        track = 17;
        tracks = sectors / track;
        head_count = (unsigned)MAX((tracks + 1023) / 1024, (uint64_t)4);
        if (tracks >= head_count * 1024ull || head_count > 16) {
            track = 31;
            head_count = 16;
            tracks = sectors / track;
        }
        if (tracks >= head_count * 1024ull) {
            track = 63;
            head_count = 16;
            tracks = sectors / track;
        }
    }
    *cylinders = (uint16_t)(tracks / head_count);
    *heads = (uint8_t)head_count;
    *per_track = (uint8_t)track;
}

static bool footer_good(const uint8_t *footer)
{
    return !memcmp(footer, "conectix", 8) &&
           get_be32(footer + F_CHECKSUM) == vhd_checksum(footer, VHD_FOOTER, F_CHECKSUM);
}

static struct err *read_footer(struct image *image, struct vhd *vhd)
{
    uint64_t size = image_size(image->file);
    if (size < VHD_FOOTER)
        return err_new("vhd: the file is too short for a footer");
    int status = image_read(image->file, vhd->footer, size - VHD_FOOTER, VHD_FOOTER);
    if (!status && footer_good(vhd->footer))
        return NULL;
    vhd->footer_missing = true;
    if (!status)
        status = image_read(image->file, vhd->footer, 0, VHD_FOOTER);
    if (status)
        return err_errno(-status, "vhd: cannot read the footer");
    if (memcmp(vhd->footer, "conectix", 8))
        return err_new("vhd: no VHD footer");
    if (!footer_good(vhd->footer))
        return err_new("vhd: the footer's checksum is wrong");
    return NULL;
}

/*
 * Virtual PC and QEMU's first kind of image mean the geometry, everybody else the size field. At
 * the largest geometry the two part ways and the size counts.
 */
static uint64_t disk_size(const uint8_t *footer)
{
    uint64_t chs = (uint64_t)get_be16(footer + F_CYLINDERS) * footer[F_HEADS] * footer[F_SECTORS];
    bool by_geometry = !memcmp(footer + F_CREATOR, "vpc ", 4) ||
                       !memcmp(footer + F_CREATOR, "vs  ", 4) ||
                       !memcmp(footer + F_CREATOR, "qemu", 4);
    if (by_geometry && chs && chs < VHD_GEOMETRY_MAX)
        return chs * IMAGE_SECTOR;
    return get_be64(footer + F_SIZE);
}

static struct err *parse_footer(struct image *image, struct vhd *vhd)
{
    const uint8_t *footer = vhd->footer;
    if (get_be32(footer + F_VERSION) >> 16 != 1)
        return err_new("vhd: version %u.%u is not supported", get_be32(footer + F_VERSION) >> 16,
                       get_be32(footer + F_VERSION) & 0xffff);
    vhd->type = get_be32(footer + F_TYPE);
    if (vhd->type < VHD_FIXED || vhd->type > VHD_DIFFERENCING)
        return err_new("vhd: disk type %u is not known", vhd->type);
    image->size = disk_size(footer);
    if (image->size > VHD_SECTORS_MAX * IMAGE_SECTOR)
        return err_new("vhd: a disk of %llu bytes is beyond the format's limit",
                       (unsigned long long)image->size);
    if (vhd->type != VHD_FIXED)
        return NULL;
    if (vhd->footer_missing)
        return err_new("vhd: a fixed disk without its footer at the end of the file");
    if (image->size > image_size(image->file) - VHD_FOOTER)
        return err_new("vhd: the disk has %llu bytes, but the file ends before",
                       (unsigned long long)image->size);
    return NULL;
}

static struct err *parse_header(struct image *image, struct vhd *vhd, const uint8_t *head)
{
    if (memcmp(head, "cxsparse", 8))
        return err_new("vhd: no dynamic header");
    if (get_be32(head + D_CHECKSUM) != vhd_checksum(head, VHD_HEADER, D_CHECKSUM))
        return err_new("vhd: the dynamic header's checksum is wrong");
    if (get_be32(head + D_VERSION) >> 16 != 1)
        return err_new("vhd: version %#x of the dynamic header is not supported",
                       get_be32(head + D_VERSION));
    vhd->block_size = get_be32(head + D_BLOCK_SIZE);
    if (!is_power_of_2(vhd->block_size) || vhd->block_size < IMAGE_SECTOR ||
        vhd->block_size > MIB(256))
        return err_new("vhd: bad block size %u", vhd->block_size);
    vhd->bitmap_size = ALIGN_UP((vhd->block_size / IMAGE_SECTOR + 7) / 8, IMAGE_SECTOR);
    vhd->entries = get_be32(head + D_ENTRIES);
    vhd->table = get_be64(head + D_TABLE);
    if (image->size > (uint64_t)vhd->entries * vhd->block_size)
        return err_new("vhd: the disk of %llu bytes does not fit %u blocks of %u",
                       (unsigned long long)image->size, vhd->entries, vhd->block_size);
    if (vhd->entries > VHD_SECTORS_MAX)
        return err_new("vhd: the block table has %u entries", vhd->entries);
    if (vhd->table % IMAGE_SECTOR || vhd->table < VHD_FOOTER)
        return err_new("vhd: bad offset of the block table");
    if (!range_within(vhd->table, 4ull * vhd->entries, image_size(image->file)))
        return err_new("vhd: the file ends within the block table");
    return NULL;
}

static struct err *read_locator(struct image *image, const uint8_t *locator, char **name)
{
    uint32_t length = get_be32(locator + L_LENGTH);
    uint64_t offset = get_be64(locator + L_OFFSET);
    uint8_t bytes[LOCATOR_BYTES_MAX];
    if (length > sizeof(bytes) || !range_within(offset, length, image_size(image->file)))
        return err_new("vhd: a parent locator lies outside of the file");
    int status = length ? image_read(image->file, bytes, offset, length) : 0;
    if (status)
        return err_errno(-status, "vhd: cannot read a parent locator");
    *name = utf16_text(bytes, length, false);
    if (!*name)
        return err_new("vhd: a parent locator is no text");
    return NULL;
}

/* The relative path, or else the absolute one, or else the bare name. */
static struct err *parse_parent(struct image *image, const uint8_t *head)
{
    static const uint32_t codes[] = {0x57327275 /* W2ru */, 0x57326b75 /* W2ku */};
    char *name = NULL;
    for (unsigned c = 0; c < ARRAY_SIZE(codes) && !name; c++) {
        for (unsigned i = 0; i < VHD_LOCATORS && !name; i++) {
            const uint8_t *locator = head + D_LOCATORS + i * VHD_LOCATOR;
            if (get_be32(locator + L_CODE) == codes[c])
                TRY(read_locator(image, locator, &name));
        }
    }
    if (!name)
        name = utf16_text(head + D_PARENT_NAME, VHD_PARENT_NAME, true);
    if (!name || !*name) {
        free(name);
        return err_new("vhd: a differencing disk that does not name its parent");
    }
    utf16_tidy_path(name);
    image->backing_name = name;
    image->backing_format = xstrdup("vpc");
    return NULL;
}

static struct err *open_dynamic(struct image *image, struct vhd *vhd)
{
    uint8_t head[VHD_HEADER];
    uint64_t offset = get_be64(vhd->footer + F_DATA_OFFSET);
    if (!range_within(offset, VHD_HEADER, image_size(image->file)))
        return err_new("vhd: the dynamic header lies outside of the file");
    int status = image_read(image->file, head, offset, VHD_HEADER);
    if (status)
        return err_errno(-status, "vhd: cannot read the dynamic header");
    TRY(parse_header(image, vhd, head));
    return vhd->type == VHD_DIFFERENCING ? parse_parent(image, head) : NULL;
}

struct err *vhd_open(struct image *image, const struct image_files *files)
{
    (void)files;
    struct vhd *vhd = xcalloc(1, sizeof(*vhd));
    struct err *err = read_footer(image, vhd);
    if (!err)
        err = parse_footer(image, vhd);
    if (!err && vhd->type != VHD_FIXED)
        err = open_dynamic(image, vhd);
    if (err) {
        free(vhd);
        return err;
    }
    metacache_init(&vhd->meta, image->file);
    vhd->meta.unordered = image->flags & IMAGE_OPEN_SCRATCH;
    image->state = vhd;
    /* A writer ended between a new block and the footer behind it. */
    const unsigned untouched = IMAGE_OPEN_CHECK | IMAGE_OPEN_SCRATCH;
    if (vhd->footer_missing && image->writable && !(image->flags & untouched)) {
        int status = vhd_restore_footer(image);
        if (status)
            return err_errno(-status, "vhd: cannot write the footer that is missing");
    }
    return NULL;
}
