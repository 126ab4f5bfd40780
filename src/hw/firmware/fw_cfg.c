/*
 * fw_cfg. See fw_cfg.h. Lock: the device's.
 *
 * Ports: selector at 0x510 (16 bits), data at 0x511 (bytes), the address of a DMA control structure
 * at 0x514 (big-endian, high half first; the low half starts the transfer).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/firmware/fw_cfg.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "hw/chipset/layout.h"

#define PORT_SELECT 0
#define PORT_DATA 1
#define PORTS 2
#define DMA_PORTS 8

#define ID_TRADITIONAL 1u
#define ID_DMA 2u
#define DMA_SIGNATURE 0x51454d5520434647ull /* "QEMU CFG" */

/* Control structure in guest memory, all big-endian: control (key in the high half), length,
 * address. */
#define CONTROL_SIZE 16
#define CONTROL_ERROR 0x01u
#define CONTROL_READ 0x02u
#define CONTROL_SKIP 0x04u
#define CONTROL_SELECT 0x08u
#define CONTROL_WRITE 0x10u
#define DIRECTORY_ENTRY 64

static struct fw_cfg_item *find(struct fw_cfg *cfg, uint16_t key)
{
    for (unsigned i = 0; i < cfg->item_count; i++) {
        if (cfg->item[i].key == key)
            return &cfg->item[i];
    }
    return NULL;
}

static struct fw_cfg_item *find_file(struct fw_cfg *cfg, const char *name)
{
    for (unsigned i = 0; i < cfg->item_count; i++) {
        if (cfg->item[i].name[0] && !strcmp(cfg->item[i].name, name))
            return &cfg->item[i];
    }
    return NULL;
}

static struct fw_cfg_item *append(struct fw_cfg *cfg, uint16_t key, const void *bytes, size_t len)
{
    if (cfg->item_count == FW_CFG_ITEMS_MAX)
        return NULL; /* the board adds a few dozen */
    struct fw_cfg_item *item = &cfg->item[cfg->item_count++];
    item->key = key;
    buf_append(&item->bytes, bytes, len);
    return item;
}

void fw_cfg_add(struct fw_cfg *cfg, enum fw_cfg_key key, const void *bytes, size_t len)
{
    append(cfg, (uint16_t)key, bytes, len);
}

void fw_cfg_add_number(struct fw_cfg *cfg, enum fw_cfg_key key, unsigned size, uint64_t value)
{
    uint8_t bytes[8];

    put_le64(bytes, value);
    append(cfg, (uint16_t)key, bytes, size);
}

/* The directory: a count, then size, key and name of each file. */
static void list_files(struct fw_cfg *cfg)
{
    struct fw_cfg_item *directory = find(cfg, FW_CFG_DIRECTORY);
    uint32_t count = 0;

    directory->bytes.len = 0;
    buf_extend(&directory->bytes, 4);
    for (unsigned i = 0; i < cfg->item_count; i++) {
        const struct fw_cfg_item *item = &cfg->item[i];
        if (!item->name[0])
            continue;
        uint8_t *entry = buf_extend(&directory->bytes, DIRECTORY_ENTRY);
        put_be32(entry, (uint32_t)item->bytes.len);
        put_be16(entry + 4, item->key);
        memcpy(entry + 8, item->name, FW_CFG_NAME_SIZE);
        count++;
    }
    put_be32(directory->bytes.data, count);
}

void fw_cfg_add_file(struct fw_cfg *cfg, const char *name, const void *bytes, size_t len)
{
    uint16_t key = FW_CFG_FILE_FIRST;

    for (unsigned i = 0; i < cfg->item_count; i++)
        key += cfg->item[i].name[0] != 0;
    struct fw_cfg_item *item = append(cfg, key, bytes, len);
    if (item)
        snprintf(item->name, sizeof(item->name), "%s", name);
    list_files(cfg);
}

void fw_cfg_replace(struct fw_cfg *cfg, const char *name, const void *bytes, size_t len)
{
    struct fw_cfg_item *item = find_file(cfg, name);

    if (!item || len > item->bytes.len)
        return;
    memset(item->bytes.data, 0, item->bytes.len);
    memcpy(item->bytes.data, bytes, len);
}

/* --- the guest's side --- */

static void select_item(struct fw_cfg *cfg, uint16_t key)
{
    const struct fw_cfg_item *item = find(cfg, key);

    cfg->selected = key;
    cfg->offset = 0;
    if (item && item->name[0] && cfg->refresh)
        cfg->refresh(cfg->opaque);
}

/* The next `len` bytes of the selected item; behind its end there are zeroes. */
static const uint8_t *next_bytes(struct fw_cfg *cfg, uint32_t len, uint32_t *have)
{
    const struct fw_cfg_item *item = find(cfg, cfg->selected);
    uint32_t size = item ? (uint32_t)item->bytes.len : 0;
    uint32_t at = MIN(cfg->offset, size);

    *have = MIN(len, size - at);
    cfg->offset = at + *have;
    return item ? item->bytes.data + at : NULL;
}

static bool read_to_guest(struct fw_cfg *cfg, uint64_t gpa, uint32_t len)
{
    struct gmem *gmem = cfg->device.env->gmem;
    uint32_t have;
    const uint8_t *bytes = next_bytes(cfg, len, &have);

    return !gmem_write(gmem, gpa, bytes, have) && !gmem_fill(gmem, gpa + have, 0, len - have);
}

static void dma_transfer(struct fw_cfg *cfg, uint64_t at)
{
    struct gmem *gmem = cfg->device.env->gmem;
    uint8_t bytes[CONTROL_SIZE];
    uint32_t have;

    if (gmem_read(gmem, at, bytes, sizeof(bytes))) {
        log_guest(&cfg->log, "fw_cfg: no control structure at 0x%llx", (unsigned long long)at);
        return;
    }
    uint32_t control = get_be32(bytes), len = get_be32(bytes + 4);
    bool good = true;
    if (control & CONTROL_SELECT)
        select_item(cfg, (uint16_t)(control >> 16));
    if (control & CONTROL_READ)
        good = read_to_guest(cfg, get_be64(bytes + 8), len);
    else if (control & CONTROL_WRITE)
        good = false; /* no item may be written */
    else if (control & CONTROL_SKIP)
        next_bytes(cfg, len, &have);
    put_be32(bytes, good ? 0 : CONTROL_ERROR);
    gmem_write(gmem, at, bytes, 4);
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    struct fw_cfg *cfg = opaque;
    uint32_t have;

    if (offset != PORT_DATA || size != 1)
        return UINT64_MAX;
    const uint8_t *byte = next_bytes(cfg, 1, &have);
    return have ? *byte : 0;
}

static void port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    if (offset == PORT_SELECT && size == 2)
        select_item(opaque, (uint16_t)value);
}

static uint64_t dma_read(void *opaque, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (DMA_SIGNATURE >> (56 - 8 * (offset + i)) & 0xff) << (8 * i);
    return value;
}

static void dma_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct fw_cfg *cfg = opaque;
    uint64_t start;

    if (size == 4 && offset == 0) {
        cfg->dma = (uint64_t)__builtin_bswap32((uint32_t)value) << 32;
        return;
    }
    if (size == 4 && offset == 4)
        start = cfg->dma | __builtin_bswap32((uint32_t)value);
    else if (size == 8 && offset == 0)
        start = __builtin_bswap64(value);
    else
        return;
    cfg->dma = 0;
    dma_transfer(cfg, start);
}

static const struct io_ops port_ops = {port_read, port_write};
static const struct io_ops dma_ops = {dma_read, dma_write};

/* --- life --- */

static void init(struct device *device)
{
    struct fw_cfg *cfg = (struct fw_cfg *)device;

    fw_cfg_add(cfg, FW_CFG_SIGNATURE, "QEMU", 4);
    fw_cfg_add_number(cfg, FW_CFG_ID, 4, ID_TRADITIONAL | ID_DMA);
    fw_cfg_add_number(cfg, FW_CFG_DIRECTORY, 4, 0);
}

static struct err *realize(struct device *device)
{
    struct fw_cfg *cfg = (struct fw_cfg *)device;

    if (cfg->item_count == FW_CFG_ITEMS_MAX)
        return err_new("too many items for firmware");
    cfg->ports = (struct io_region){
        .name = "fw-cfg", .size = PORTS, .ops = &port_ops, .opaque = cfg, .lock = &device->lock};
    cfg->dma_ports = (struct io_region){.name = "fw-cfg-dma",
                                        .size = DMA_PORTS,
                                        .ops = &dma_ops,
                                        .opaque = cfg,
                                        .lock = &device->lock};
    io_bus_add(device->env->pio, &cfg->ports, LAYOUT_PORT_FW_CFG);
    io_bus_add(device->env->pio, &cfg->dma_ports, LAYOUT_PORT_FW_CFG_DMA);
    return NULL;
}

static void reset(struct device *device)
{
    struct fw_cfg *cfg = (struct fw_cfg *)device;

    lock_take(&device->lock);
    cfg->selected = 0;
    cfg->offset = 0;
    cfg->dma = 0;
    lock_drop(&device->lock);
}

static void fini(struct device *device)
{
    struct fw_cfg *cfg = (struct fw_cfg *)device;

    io_bus_remove(&cfg->ports);
    io_bus_remove(&cfg->dma_ports);
    for (unsigned i = 0; i < cfg->item_count; i++)
        buf_fini(&cfg->item[i].bytes);
}

static const struct state_field fields[] = {
    STATE_U16(1, fw_cfg, selected),
    STATE_U32(2, fw_cfg, offset),
    STATE_U64(3, fw_cfg, dma),
};

static const struct state_table state = {DEVICE_STATE_TABLE("fw-cfg", fw_cfg, fields)};

const struct device_class fw_cfg_class = {
    .name = "fw-cfg",
    .description = "configuration items for firmware",
    .size = sizeof(struct fw_cfg),
    .state = &state,
    .init = init,
    .realize = realize,
    .reset = reset,
    .fini = fini,
};
DEVICE_CLASS(fw_cfg_class);
