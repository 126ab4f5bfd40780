/*
 * Opening a VHDX: headers (2.2.2), region table (2.2.3), metadata (2.6), parent locator.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "block/format/crc32c.h"
#include "block/format/utf16.h"
#include "block/format/vhdx.h"

#define LOCATOR_MAX KIB(64)

/* GUIDs as the file has them. */
const uint8_t vhdx_region_table[16] = {0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
                                       0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08};
const uint8_t vhdx_region_metadata[16] = {0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
                                          0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e};
const uint8_t vhdx_item_parameters[16] = {0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d,
                                          0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b};
const uint8_t vhdx_item_size[16] = {0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48,
                                    0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8};
const uint8_t vhdx_item_page83[16] = {0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45,
                                      0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46};
const uint8_t vhdx_item_logical[16] = {0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47,
                                       0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f};
const uint8_t vhdx_item_physical[16] = {0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44,
                                        0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56};
const uint8_t vhdx_item_parent[16] = {0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45,
                                      0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c};
const uint8_t vhdx_locator_type[16] = {0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a,
                                       0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13};

void vhdx_new_guid(uint8_t *guid)
{
    if (getrandom(guid, 16, 0) != 16)
        memset(guid, 0x5a, 16);
    guid[7] = (uint8_t)(0x40 | (guid[7] & 0x0f));
    guid[8] = (uint8_t)(0x80 | (guid[8] & 0x3f));
}

uint32_t vhdx_checksum(const uint8_t *bytes, size_t length)
{
    static const uint8_t none[4];
    uint32_t crc = crc32c_update(0, bytes, X_CHECKSUM);
    crc = crc32c_update(crc, none, sizeof(none));
    return crc32c_update(crc, bytes + X_CHECKSUM + 4, length - X_CHECKSUM - 4);
}

int vhdx_put_header(struct vhdx *vhdx)
{
    uint64_t at = vhdx->header_at == VHDX_HEADER_1 ? VHDX_HEADER_2 : VHDX_HEADER_1;
    put_le64(vhdx->header + X_SEQUENCE, get_le64(vhdx->header + X_SEQUENCE) + 1);
    put_le32(vhdx->header + X_CHECKSUM, vhdx_checksum(vhdx->header, VHDX_HEADER_BYTES));
    int status = image_write(vhdx->file, vhdx->header, at, VHDX_HEADER_BYTES);
    if (!status)
        status = image_flush(vhdx->file);
    vhdx->header_at = at;
    return status;
}

static bool header_good(const uint8_t *header)
{
    return !memcmp(header, "head", 4) &&
           get_le32(header + X_CHECKSUM) == vhdx_checksum(header, VHDX_HEADER_BYTES);
}

struct err *vhdx_read_header(struct image *file, uint8_t *header, uint64_t *at)
{
    uint8_t second[VHDX_HEADER_BYTES];
    if (image_size(file) < VHDX_UNIT)
        return err_new("vhdx: the file is too short");
    int status = image_read(file, header, VHDX_HEADER_1, VHDX_HEADER_BYTES);
    if (!status)
        status = image_read(file, second, VHDX_HEADER_2, VHDX_HEADER_BYTES);
    if (status)
        return err_errno(-status, "vhdx: cannot read the headers");
    bool first_good = header_good(header), second_good = header_good(second);
    *at = VHDX_HEADER_1;
    if (second_good &&
        (!first_good || get_le64(second + X_SEQUENCE) > get_le64(header + X_SEQUENCE))) {
        memcpy(header, second, VHDX_HEADER_BYTES);
        *at = VHDX_HEADER_2;
    }
    if (!first_good && !second_good)
        return err_new("vhdx: neither header has a good checksum");
    if (get_le16(header + X_VERSION) != 1)
        return err_new("vhdx: version %u is not supported", get_le16(header + X_VERSION));
    return NULL;
}

static struct err *parse_header(struct vhdx *vhdx)
{
    TRY(vhdx_read_header(vhdx->file, vhdx->header, &vhdx->header_at));
    vhdx->log_length = get_le32(vhdx->header + X_LOG_LENGTH);
    vhdx->log_offset = get_le64(vhdx->header + X_LOG_OFFSET);
    if (get_le16(vhdx->header + X_LOG_VERSION))
        return err_new("vhdx: log version %u is not supported",
                       get_le16(vhdx->header + X_LOG_VERSION));
    if (!vhdx->log_length || vhdx->log_length % VHDX_UNIT || vhdx->log_offset % VHDX_UNIT ||
        vhdx->log_offset < VHDX_UNIT ||
        !range_within(vhdx->log_offset, vhdx->log_length, image_size(vhdx->file)))
        return err_new("vhdx: the log lies at a bad place");
    return NULL;
}

static struct err *parse_region(struct vhdx *vhdx, const uint8_t *entry)
{
    uint64_t offset = get_le64(entry + 16), length = get_le32(entry + 24);
    bool is_table = !memcmp(entry, vhdx_region_table, 16);
    bool is_metadata = !memcmp(entry, vhdx_region_metadata, 16);
    if (!is_table && !is_metadata)
        return get_le32(entry + 28) & 1
                   ? err_new("vhdx: the image needs a region that is not known here")
                   : NULL;
    if (offset < VHDX_UNIT || offset % VHDX_UNIT || !length || length % VHDX_UNIT ||
        !range_within(offset, length, image_size(vhdx->file)) ||
        ranges_overlap(offset, length, vhdx->log_offset, vhdx->log_length))
        return err_new("vhdx: a region lies at a bad place");
    if (is_table ? vhdx->table_length : vhdx->metadata_length)
        return err_new("vhdx: a region is there twice");
    if (is_table) {
        vhdx->table = offset;
        vhdx->table_length = length;
    } else {
        vhdx->metadata = offset;
        vhdx->metadata_length = length;
    }
    return NULL;
}

static struct err *parse_regions(struct vhdx *vhdx)
{
    uint8_t *table = calloc(1, VHDX_TABLE_BYTES);
    if (!table)
        return err_errno(ENOMEM, "vhdx");
    struct err *err = NULL;
    bool good = false;
    for (unsigned copy = 0; copy < 2 && !good && !err; copy++) {
        int status = metacache_copy(&vhdx->meta, table, copy ? VHDX_REGIONS_2 : VHDX_REGIONS_1,
                                    VHDX_TABLE_BYTES);
        if (status)
            err = err_errno(-status, "vhdx: cannot read the region table");
        else
            good = !memcmp(table, "regi", 4) &&
                   get_le32(table + X_CHECKSUM) == vhdx_checksum(table, VHDX_TABLE_BYTES);
    }
    uint32_t count = get_le32(table + 8);
    if (!err && (!good || count > VHDX_TABLE_ENTRIES))
        err = err_new("vhdx: neither region table is good");
    for (uint32_t i = 0; !err && i < count; i++)
        err = parse_region(vhdx, table + 16 + (size_t)i * 32);
    free(table);
    if (err)
        return err;
    if (!vhdx->table_length || !vhdx->metadata_length)
        return err_new("vhdx: the block table or the metadata is missing");
    if (ranges_overlap(vhdx->table, vhdx->table_length, vhdx->metadata, vhdx->metadata_length))
        return err_new("vhdx: the regions overlap");
    return NULL;
}

/* The item of the metadata table, into at most `room` bytes. */
static struct err *read_item(struct vhdx *vhdx, const uint8_t *table, const uint8_t *id,
                             uint8_t *item, size_t room, uint32_t *length, uint64_t *at)
{
    uint32_t count = get_le16(table + 10);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *entry = table + 32 + (size_t)i * 32;
        if (memcmp(entry, id, 16))
            continue;
        uint32_t offset = get_le32(entry + 16);
        *length = get_le32(entry + 20);
        if (offset < VHDX_TABLE_BYTES || *length > room ||
            !range_within(offset, *length, vhdx->metadata_length))
            return err_new("vhdx: a metadata item lies at a bad place");
        *at = vhdx->metadata + offset;
        int status = metacache_copy(&vhdx->meta, item, *at, *length);
        return status ? err_errno(-status, "vhdx: cannot read the metadata") : NULL;
    }
    *length = 0;
    return NULL;
}

static struct err *need_item(struct vhdx *vhdx, const uint8_t *table, const uint8_t *id,
                             const char *what, uint8_t *item, uint32_t want, uint64_t *at)
{
    uint32_t length;
    TRY(read_item(vhdx, table, id, item, want, &length, at));
    return length == want ? NULL : err_new("vhdx: the metadata lacks the %s", what);
}

/* What the image needs and we do not know. */
static struct err *check_required(const uint8_t *table)
{
    static const uint8_t *const known[] = {vhdx_item_parameters, vhdx_item_size,
                                           vhdx_item_page83,     vhdx_item_logical,
                                           vhdx_item_physical,   vhdx_item_parent};
    uint32_t count = get_le16(table + 10);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *entry = table + 32 + (size_t)i * 32;
        bool found = !(get_le32(entry + 24) & 4);
        for (unsigned k = 0; k < ARRAY_SIZE(known); k++)
            found |= !memcmp(entry, known[k], 16);
        if (!found)
            return err_new("vhdx: the image needs a metadata item that is not known here");
    }
    return NULL;
}

static struct err *parse_items(struct image *image, struct vhdx *vhdx, const uint8_t *table)
{
    uint8_t item[8];
    uint64_t at;
    TRY(check_required(table));
    TRY(need_item(vhdx, table, vhdx_item_parameters, "file parameters", item, 8, &at));
    vhdx->block_size = get_le32(item);
    vhdx->fixed_blocks = get_le32(item + 4) & 1;
    vhdx->has_parent = get_le32(item + 4) & 2;
    TRY(need_item(vhdx, table, vhdx_item_size, "disk size", item, 8, &vhdx->size_at));
    image->size = get_le64(item);
    TRY(need_item(vhdx, table, vhdx_item_logical, "sector size", item, 4, &at));
    vhdx->sector_size = get_le32(item);
    TRY(need_item(vhdx, table, vhdx_item_physical, "physical sector size", item, 4, &at));
    vhdx->physical_size = get_le32(item);
    if (!is_power_of_2(vhdx->block_size) || vhdx->block_size < VHDX_UNIT ||
        vhdx->block_size > MIB(256))
        return err_new("vhdx: bad block size %u", vhdx->block_size);
    if (vhdx->sector_size != 512 && vhdx->sector_size != 4096)
        return err_new("vhdx: bad sector size %u", vhdx->sector_size);
    if (image->size % vhdx->sector_size || image->size > VHDX_DISK_MAX)
        return err_new("vhdx: bad disk size %llu", (unsigned long long)image->size);
    if (vhdx->size_at % 8)
        return err_new("vhdx: a metadata item is not aligned");
    vhdx->ratio = (uint32_t)((1ull << 23) * vhdx->sector_size / vhdx->block_size);
    if (vhdx_entries(image->size, vhdx->block_size, vhdx->ratio, vhdx->has_parent) >
        vhdx->table_length / 8)
        return err_new("vhdx: the block table is too small for the disk");
    return NULL;
}

uint64_t vhdx_entries(uint64_t size, uint32_t block_size, uint32_t ratio, bool has_parent)
{
    uint64_t blocks = size / block_size + (size % block_size != 0);
    if (has_parent)
        return (blocks / ratio + (blocks % ratio != 0)) * (ratio + 1);
    return blocks ? blocks + (blocks - 1) / ratio : 0;
}

/* The value of a key of the parent locator, or NULL. */
static char *locator_value(const uint8_t *item, uint32_t length, const char *want)
{
    uint32_t count = get_le16(item + 18);
    for (uint32_t i = 0; i < count && 20 + (i + 1) * 12 <= length; i++) {
        const uint8_t *entry = item + 20 + (size_t)i * 12;
        uint32_t key_at = get_le32(entry), value_at = get_le32(entry + 4);
        uint32_t key_length = get_le16(entry + 8), value_length = get_le16(entry + 10);
        if (!range_within(key_at, key_length, length) ||
            !range_within(value_at, value_length, length))
            continue;
        char *key = utf16_text(item + key_at, key_length, false);
        bool found = key && !strcmp(key, want);
        free(key);
        if (found)
            return utf16_text(item + value_at, value_length, false);
    }
    return NULL;
}

static struct err *parse_parent(struct image *image, struct vhdx *vhdx, const uint8_t *table)
{
    uint32_t length;
    uint64_t at;
    uint8_t *item = calloc(1, LOCATOR_MAX);
    if (!item)
        return err_errno(ENOMEM, "vhdx");
    char *name = NULL;
    struct err *err = read_item(vhdx, table, vhdx_item_parent, item, LOCATOR_MAX, &length, &at);
    if (!err && length >= 20 && !memcmp(item, vhdx_locator_type, 16)) {
        name = locator_value(item, length, "relative_path");
        if (!name)
            name = locator_value(item, length, "absolute_win32_path");
    }
    free(item);
    if (!err && (!name || !*name))
        err = err_new("vhdx: a differencing disk that does not name its parent");
    if (err || !name) {
        free(name);
        return err;
    }
    utf16_tidy_path(name);
    image->backing_name = name;
    image->backing_format = xstrdup("vhdx");
    return NULL;
}

static struct err *parse_metadata(struct image *image, struct vhdx *vhdx)
{
    uint8_t *table = calloc(1, VHDX_TABLE_BYTES);
    if (!table)
        return err_errno(ENOMEM, "vhdx");
    struct err *err = NULL;
    int status = metacache_copy(&vhdx->meta, table, vhdx->metadata, VHDX_TABLE_BYTES);
    if (status)
        err = err_errno(-status, "vhdx: cannot read the metadata");
    else if (memcmp(table, "metadata", 8) || get_le16(table + 10) > VHDX_TABLE_ENTRIES)
        err = err_new("vhdx: the metadata table is bad");
    if (!err)
        err = parse_items(image, vhdx, table);
    if (!err && vhdx->has_parent)
        err = parse_parent(image, vhdx, table);
    free(table);
    return err;
}

struct err *vhdx_open(struct image *image, const struct image_files *files)
{
    (void)files;
    struct vhdx *vhdx = xcalloc(1, sizeof(*vhdx));
    vhdx->file = image->file;
    metacache_init(&vhdx->meta, image->file);
    struct err *err = parse_header(vhdx);
    if (!err)
        err = vhdx_replay(image, vhdx);
    if (!err)
        err = parse_regions(vhdx);
    if (!err)
        err = parse_metadata(image, vhdx);
    if (err) {
        metacache_fini(&vhdx->meta);
        free(vhdx);
        return err;
    }
    vhdx->meta.unordered = image->flags & IMAGE_OPEN_SCRATCH;
    vhdx->meta.journal = vhdx_journal;
    vhdx->meta.opaque = vhdx;
    image->state = vhdx;
    return NULL;
}
