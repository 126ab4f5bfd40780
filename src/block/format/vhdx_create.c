/*
 * New VHDX files: dynamic, fixed, differencing. The order is headers, log, metadata, block table,
 * blocks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "block/format/utf16.h"
#include "block/format/vhdx.h"

#define LOG_SIZE_MAX MIB(64)
#define METADATA_BYTES (VHDX_TABLE_BYTES + (uint32_t)KIB(64))

struct plan {
    uint64_t size, entries, table, table_length, blocks_at;
    uint32_t block_size, log_length, ratio;
    bool fixed, zero;
    const struct image_create *create;
    uint8_t parent_guid[16];
};

/* A number with an optional suffix K, M, G or T. */
static bool parse_size(const char *text, uint64_t *value)
{
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    unsigned shift = 0;
    static const char units[] = "KMGT";
    if (end == text || *text == '-' || errno)
        return false;
    if (*end) {
        const char *unit = strchr(units, *end & ~0x20);
        if (!unit || end[1])
            return false;
        shift = 10 * (unsigned)(unit - units + 1);
    }
    return checked_mul(number, 1ull << shift, value);
}

/* Larger blocks for larger disks, so that the table stays small. */
static uint32_t default_block_size(uint64_t size)
{
    return (uint32_t)(size > (32ull << 40) ? MIB(64)
                      : size > GIB(100)    ? MIB(32)
                      : size > GIB(1)      ? MIB(16)
                                           : MIB(8));
}

static struct err *parse_options(const struct image_create *create, struct plan *plan)
{
    const char *subformat = image_create_value(create, "subformat");
    const char *block = image_create_value(create, "block_size");
    const char *log = image_create_value(create, "log_size");
    const char *zero = image_create_value(create, "block_state_zero");
    uint64_t value;
    plan->create = create;
    plan->fixed = subformat && !strcmp(subformat, "fixed");
    plan->zero = zero && !strcmp(zero, "on");
    if (subformat && !plan->fixed && strcmp(subformat, "dynamic"))
        return err_of(ERR_USAGE, "vhdx: subformat is dynamic or fixed, not '%s'", subformat);
    if (zero && strcmp(zero, "on") && strcmp(zero, "off"))
        return err_of(ERR_USAGE, "vhdx: block_state_zero is on or off, not '%s'", zero);
    if (create->size > VHDX_DISK_MAX)
        return err_of(ERR_USAGE, "vhdx: the format ends at 64 TiB");
    if (create->backing_name && plan->fixed)
        return err_of(ERR_USAGE, "vhdx: a fixed disk has no backing file");
    plan->size = ALIGN_UP(create->size, (uint64_t)IMAGE_SECTOR);
    plan->block_size = default_block_size(plan->size);
    plan->log_length = VHDX_UNIT;
    if (block) {
        if (!parse_size(block, &value) ||
            (value && (!is_power_of_2(value) || value < VHDX_UNIT || value > MIB(256))))
            return err_of(ERR_USAGE, "vhdx: block_size is a power of two from 1M to 256M");
        plan->block_size = value ? (uint32_t)value : plan->block_size;
    }
    if (log) {
        if (!parse_size(log, &value) || value % VHDX_UNIT || value > LOG_SIZE_MAX)
            return err_of(ERR_USAGE, "vhdx: log_size is a multiple of 1M up to 64M");
        plan->log_length = value ? (uint32_t)value : plan->log_length;
    }
    return NULL;
}

static int put_headers(struct image *file, const struct plan *plan)
{
    uint8_t header[VHDX_HEADER_BYTES] = "vhdxfile";
    utf16_from_text("Tenon", header + 8, 512, false);
    int status = image_write(file, header, 0, sizeof(header));
    memset(header, 0, sizeof(header));
    memcpy(header, "head", 4);
    vhdx_new_guid(header + X_FILE_GUID);
    vhdx_new_guid(header + X_DATA_GUID);
    put_le16(header + X_VERSION, 1);
    put_le32(header + X_LOG_LENGTH, plan->log_length);
    put_le64(header + X_LOG_OFFSET, VHDX_UNIT);
    for (unsigned copy = 0; copy < 2 && !status; copy++) {
        put_le64(header + X_SEQUENCE, copy + 1);
        put_le32(header + X_CHECKSUM, 0);
        put_le32(header + X_CHECKSUM, vhdx_checksum(header, sizeof(header)));
        status = image_write(file, header, copy ? VHDX_HEADER_2 : VHDX_HEADER_1, sizeof(header));
    }
    return status;
}

static void put_region(uint8_t *entry, const uint8_t *guid, uint64_t offset, uint64_t length)
{
    memcpy(entry, guid, 16);
    put_le64(entry + 16, offset);
    put_le32(entry + 24, (uint32_t)length);
    put_le32(entry + 28, 1);
}

static int put_regions(struct image *file, const struct plan *plan, uint8_t *table)
{
    memset(table, 0, VHDX_TABLE_BYTES);
    memcpy(table, "regi", 4);
    put_le32(table + 8, 2);
    put_region(table + 16, vhdx_region_table, plan->table, plan->table_length);
    put_region(table + 48, vhdx_region_metadata, VHDX_UNIT + plan->log_length, VHDX_UNIT);
    put_le32(table + X_CHECKSUM, vhdx_checksum(table, VHDX_TABLE_BYTES));
    int status = image_write(file, table, VHDX_REGIONS_1, VHDX_TABLE_BYTES);
    return status ? status : image_write(file, table, VHDX_REGIONS_2, VHDX_TABLE_BYTES);
}

/* Appends an item to the metadata table; the next one starts on 8 bytes. */
static uint8_t *add_item(uint8_t *metadata, const uint8_t *id, uint32_t *at, uint32_t length,
                         uint32_t flags)
{
    uint16_t count = get_le16(metadata + 10);
    uint8_t *entry = metadata + 32 + count * 32u, *item = metadata + *at;
    memcpy(entry, id, 16);
    put_le32(entry + 16, *at);
    put_le32(entry + 20, length);
    put_le32(entry + 24, flags);
    put_le16(metadata + 10, (uint16_t)(count + 1));
    *at = ALIGN_UP(*at + length, 8);
    return item;
}

static void put_pair(uint8_t *locator, uint32_t *at, unsigned index, const char *key,
                     const char *value)
{
    uint8_t *entry = locator + 20 + index * 12u;
    size_t key_length = utf16_from_text(key, locator + *at, 1024, false);
    put_le32(entry, *at);
    put_le16(entry + 8, (uint16_t)key_length);
    *at += (uint32_t)key_length;
    size_t value_length = utf16_from_text(value, locator + *at, 16384, false);
    put_le32(entry + 4, *at);
    put_le16(entry + 10, (uint16_t)value_length);
    *at += (uint32_t)value_length;
}

/* Writes the parent locator; its length, or 0 if the name does not fit. */
static uint32_t put_locator(uint8_t *locator, const struct plan *plan)
{
    const uint8_t *g = plan->parent_guid;
    char guid[48];
    uint32_t at = 20 + 2 * 12;
    if (strlen(plan->create->backing_name) > 4096)
        return 0;
    snprintf(guid, sizeof(guid), "{%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x}", get_le32(g),
             get_le16(g + 4), get_le16(g + 6), g[8], g[9], g[10], g[11], g[12], g[13], g[14],
             g[15]);
    bool absolute = plan->create->backing_name[0] == '/';
    char *path = xasprintf("%s%s", absolute ? "" : ".\\", plan->create->backing_name);
    for (char *c = path; *c; c++)
        if (*c == '/')
            *c = '\\';
    memcpy(locator, vhdx_locator_type, 16);
    put_le16(locator + 18, 2);
    put_pair(locator, &at, 0, "parent_linkage", guid);
    uint32_t before = at;
    put_pair(locator, &at, 1, absolute ? "absolute_win32_path" : "relative_path", path);
    free(path);
    return get_le16(locator + 20 + 12 + 10) && before ? at : 0;
}

static struct err *put_metadata(struct image *file, const struct plan *plan, uint8_t *metadata)
{
    const uint32_t disk = 2, required = 4;
    uint32_t at = VHDX_TABLE_BYTES;
    memset(metadata, 0, METADATA_BYTES);
    memcpy(metadata, "metadata", 8);
    uint8_t *item = add_item(metadata, vhdx_item_parameters, &at, 8, required);
    put_le32(item, plan->block_size);
    put_le32(item + 4, (plan->fixed ? 1 : 0) | (plan->create->backing_name ? 2 : 0));
    item = add_item(metadata, vhdx_item_size, &at, 8, disk | required);
    put_le64(item, plan->size);
    item = add_item(metadata, vhdx_item_page83, &at, 16, disk | required);
    vhdx_new_guid(item);
    item = add_item(metadata, vhdx_item_logical, &at, 4, disk | required);
    put_le32(item, 512);
    item = add_item(metadata, vhdx_item_physical, &at, 4, disk | required);
    put_le32(item, 4096);
    if (plan->create->backing_name) {
        uint32_t length = put_locator(metadata + at, plan);
        if (!length)
            return err_of(ERR_USAGE, "vhdx: the parent's name is too long or not UTF-8");
        add_item(metadata, vhdx_item_parent, &at, length, required);
    }
    int status = image_write(file, metadata, VHDX_UNIT + plan->log_length, METADATA_BYTES);
    return status ? err_errno(-status, "vhdx: cannot write the metadata") : NULL;
}

static int put_table(struct image *file, const struct plan *plan)
{
    uint8_t page[4096];
    uint64_t host = plan->blocks_at;
    if (!plan->fixed && !plan->zero)
        return 0; /* zeros: "not present" */
    for (uint64_t first = 0; first < plan->entries; first += sizeof(page) / 8) {
        memset(page, 0, sizeof(page));
        for (uint64_t i = 0; i < sizeof(page) / 8 && first + i < plan->entries; i++) {
            if ((first + i) % (plan->ratio + 1ull) == plan->ratio)
                continue;
            put_le64(page + 8 * i, plan->fixed ? host | VHDX_PRESENT : VHDX_ZERO);
            host += plan->block_size;
        }
        int status = image_write(file, page, plan->table + 8 * first, sizeof(page));
        if (status)
            return status;
    }
    return 0;
}

/* The parent's identity is in its header, which only whoever opens files can reach. */
static struct err *read_parent(const struct image_create *create, uint8_t *guid)
{
    uint8_t header[VHDX_HEADER_BYTES];
    uint64_t at;
    struct image *file;
    if (!create->files || !create->files->open)
        return err_of(ERR_USAGE, "vhdx: the parent of a differencing disk cannot be opened here");
    TRY(create->files->open(create->files->opaque, create->backing_name, false, &file));
    struct err *err = vhdx_read_header(file, header, &at);
    image_close(file);
    memcpy(guid, header + X_DATA_GUID, 16);
    return err_wrap(err, "parent '%s'", create->backing_name);
}

struct err *vhdx_create(struct image *file, const struct image_create *create)
{
    struct plan plan = {0};
    TRY(parse_options(create, &plan));
    if (create->backing_name)
        TRY(read_parent(create, plan.parent_guid));
    plan.ratio = (uint32_t)((1ull << 23) * 512 / plan.block_size);
    plan.entries =
        vhdx_entries(plan.size, plan.block_size, plan.ratio, create->backing_name != NULL);
    plan.table = 2ull * VHDX_UNIT + plan.log_length;
    plan.table_length = MAX(ALIGN_UP(plan.entries * 8, (uint64_t)VHDX_UNIT), (uint64_t)VHDX_UNIT);
    plan.blocks_at = plan.table + plan.table_length;
    uint64_t blocks = (plan.size + plan.block_size - 1) / plan.block_size;
    uint8_t *buffer = xcalloc(1, METADATA_BYTES);
    int status = image_truncate(file, plan.blocks_at + (plan.fixed ? blocks * plan.block_size : 0));
    if (!status)
        status = put_headers(file, &plan);
    if (!status)
        status = put_regions(file, &plan, buffer);
    if (!status)
        status = put_table(file, &plan);
    struct err *err = status ? err_errno(-status, "vhdx: cannot write the image")
                             : put_metadata(file, &plan, buffer);
    free(buffer);
    return err;
}
