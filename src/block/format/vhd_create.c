/*
 * New VHDs: fixed, dynamic, differencing.
 *
 * The creator field says "win ", because it decides for other programs which of two sizes counts:
 * the exact one, not the geometry's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/bytes.h"
#include "block/format/utf16.h"
#include "block/format/vhd.h"

#define SECONDS_TO_2000 946684800
#define BLOCK_SIZE ((uint32_t)MIB(2))
#define LOCATOR_SPACE 4096u /* for a path */

static void make_footer(uint8_t *footer, uint32_t type, uint64_t size)
{
    uint16_t cylinders;
    memset(footer, 0, VHD_FOOTER);
    memcpy(footer, "conectix", 8);
    put_be32(footer + F_FEATURES, 2);
    put_be32(footer + F_VERSION, 0x00010000);
    put_be64(footer + F_DATA_OFFSET, type == VHD_FIXED ? UINT64_MAX : VHD_FOOTER);
    put_be32(footer + F_TIME, (uint32_t)(time(NULL) - SECONDS_TO_2000));
    memcpy(footer + F_CREATOR, "win ", 4);
    put_be32(footer + F_CREATOR_VERSION, 0x000a0000);
    memcpy(footer + F_CREATOR_HOST, "Wi2k", 4);
    put_be64(footer + F_ORIGINAL_SIZE, size);
    put_be64(footer + F_SIZE, size);
    vhd_geometry(size / IMAGE_SECTOR, &cylinders, footer + F_HEADS, footer + F_SECTORS);
    put_be16(footer + F_CYLINDERS, cylinders);
    put_be32(footer + F_TYPE, type);
    if (getrandom(footer + F_UUID, 16, 0) != 16)
        memset(footer + F_UUID, 0x5a, 16);
    put_be32(footer + F_CHECKSUM, vhd_checksum(footer, VHD_FOOTER, F_CHECKSUM));
}

/* The parent's identity is in its footer, which only whoever opens files can reach. */
static struct err *parent_footer(const struct image_create *create, uint8_t *footer)
{
    struct image *file;
    if (!create->files || !create->files->open)
        return err_of(ERR_USAGE, "vhd: the parent of a differencing disk cannot be opened here");
    TRY(create->files->open(create->files->opaque, create->backing_name, false, &file));
    uint64_t size = image_size(file);
    int status =
        size < VHD_FOOTER ? -ENODATA : image_read(file, footer, size - VHD_FOOTER, VHD_FOOTER);
    image_close(file);
    if (status)
        return err_errno(-status, "vhd: cannot read the parent's footer");
    if (memcmp(footer, "conectix", 8) ||
        get_be32(footer + F_CHECKSUM) != vhd_checksum(footer, VHD_FOOTER, F_CHECKSUM))
        return err_of(ERR_USAGE, "vhd: the parent of a differencing disk must be a VHD");
    return NULL;
}

/* Name and path of the parent: in the dynamic header, and in `space` for the file. */
static struct err *name_parent(const struct image_create *create, uint8_t *head, uint8_t *space,
                               uint64_t space_offset)
{
    const char *slash = strrchr(create->backing_name, '/');
    const char *base = slash ? slash + 1 : create->backing_name;
    char *path = create->backing_name[0] == '/' ? xstrdup(create->backing_name)
                                                : xasprintf(".\\%s", create->backing_name);
    for (char *at = path; *at; at++)
        if (*at == '/')
            *at = '\\';
    size_t length = utf16_from_text(path, space, LOCATOR_SPACE, false);
    size_t base_length = utf16_from_text(base, head + D_PARENT_NAME, VHD_PARENT_NAME - 2, true);
    bool absolute = path[0] != '.';
    free(path);
    if (!length || !base_length)
        return err_of(ERR_USAGE, "vhd: the parent's name is too long or not UTF-8");
    uint8_t *locator = head + D_LOCATORS;
    memcpy(locator + L_CODE, absolute ? "W2ku" : "W2ru", 4);
    put_be32(locator + L_SPACE, LOCATOR_SPACE / IMAGE_SECTOR);
    put_be32(locator + L_LENGTH, (uint32_t)length);
    put_be64(locator + L_OFFSET, space_offset);
    return NULL;
}

static struct err *create_dynamic(struct image *file, const struct image_create *create,
                                  uint64_t size)
{
    uint8_t footer[VHD_FOOTER], parent[VHD_FOOTER], head[VHD_HEADER] = "cxsparse";
    uint8_t space[LOCATOR_SPACE] = {0};
    uint32_t entries = (uint32_t)((size + BLOCK_SIZE - 1) / BLOCK_SIZE);
    uint64_t table = VHD_FOOTER + VHD_HEADER;
    uint64_t space_offset = table + ALIGN_UP(4ull * entries, IMAGE_SECTOR);
    uint64_t end = space_offset;
    make_footer(footer, create->backing_name ? VHD_DIFFERENCING : VHD_DYNAMIC, size);
    put_be64(head + D_DATA_OFFSET, UINT64_MAX);
    put_be64(head + D_TABLE, table);
    put_be32(head + D_VERSION, 0x00010000);
    put_be32(head + D_ENTRIES, entries);
    put_be32(head + D_BLOCK_SIZE, BLOCK_SIZE);
    if (create->backing_name) {
        TRY(parent_footer(create, parent));
        if (get_be64(parent + F_SIZE) != size)
            return err_of(ERR_USAGE, "vhd: a differencing disk is as large as its parent");
        memcpy(head + D_PARENT_UUID, parent + F_UUID, 16);
        memcpy(head + D_PARENT_TIME, parent + F_TIME, 4);
        TRY(name_parent(create, head, space, space_offset));
        end += LOCATOR_SPACE;
    }
    put_be32(head + D_CHECKSUM, vhd_checksum(head, VHD_HEADER, D_CHECKSUM));
    int status = image_write(file, footer, 0, VHD_FOOTER);
    if (!status)
        status = image_write(file, head, VHD_FOOTER, VHD_HEADER);
    uint8_t unused[4096];
    memset(unused, 0xff, sizeof(unused));
    for (uint64_t at = table; !status && at < space_offset; at += sizeof(unused))
        status = image_write(file, unused, at, MIN(space_offset - at, (uint64_t)sizeof(unused)));
    if (!status && create->backing_name)
        status = image_write(file, space, space_offset, sizeof(space));
    if (!status)
        status = image_write(file, footer, end, VHD_FOOTER);
    return status ? err_errno(-status, "vhd: cannot write the image") : NULL;
}

static struct err *create_fixed(struct image *file, uint64_t size)
{
    uint8_t footer[VHD_FOOTER];
    make_footer(footer, VHD_FIXED, size);
    int status = image_truncate(file, size);
    if (!status)
        status = image_write(file, footer, size, VHD_FOOTER);
    return status ? err_errno(-status, "vhd: cannot write the image") : NULL;
}

/* The least geometry that holds the disk, for programs that know nothing else. */
static uint64_t round_to_geometry(uint64_t sectors)
{
    for (uint64_t want = sectors; want < VHD_GEOMETRY_MAX; want++) {
        uint16_t cylinders;
        uint8_t heads, track;
        vhd_geometry(want, &cylinders, &heads, &track);
        uint64_t has = (uint64_t)cylinders * heads * track;
        if (has >= sectors)
            return has;
    }
    return sectors;
}

struct err *vhd_create(struct image *file, const struct image_create *create)
{
    const char *subformat = image_create_value(create, "subformat");
    const char *force = image_create_value(create, "force_size");
    bool fixed = subformat && !strcmp(subformat, "fixed");
    if (subformat && !fixed && strcmp(subformat, "dynamic"))
        return err_of(ERR_USAGE, "vhd: subformat is dynamic or fixed, not '%s'", subformat);
    if (force && strcmp(force, "on") && strcmp(force, "off"))
        return err_of(ERR_USAGE, "vhd: force_size is on or off, not '%s'", force);
    if (create->backing_name && fixed)
        return err_of(ERR_USAGE, "vhd: a fixed disk has no backing file");
    if (create->size > VHD_SECTORS_MAX * IMAGE_SECTOR)
        return err_of(ERR_USAGE, "vhd: the format ends at 2040 GiB");
    uint64_t sectors = (create->size + IMAGE_SECTOR - 1) / IMAGE_SECTOR;
    if (force && !strcmp(force, "off") && sectors < VHD_GEOMETRY_MAX)
        sectors = round_to_geometry(sectors);
    uint64_t size = sectors * IMAGE_SECTOR;
    return fixed ? create_fixed(file, size) : create_dynamic(file, create, size);
}
