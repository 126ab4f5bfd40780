/*
 * fw_cfg: named items that firmware reads (QEMU docs/specs/fw_cfg): numbers, files, DMA.
 *
 * Firmware made for QEMU's machines learns here what no bus tells it: memory map, ACPI and SMBIOS
 * tables, boot order. Items are read-only for the guest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_FIRMWARE_FW_CFG_H
#define TENON_HW_FIRMWARE_FW_CFG_H

#include "base/buf.h"
#include "base/log.h"
#include "hw/core/device.h"

/* Items with a number of their own. */
enum fw_cfg_key {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NOGRAPHIC = 0x04,
    FW_CFG_CPUS = 0x05,
    FW_CFG_KERNEL_SIZE = 0x08,
    FW_CFG_INITRD_SIZE = 0x0b,
    FW_CFG_BOOT_MENU = 0x0e,
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_KERNEL_DATA = 0x11,
    FW_CFG_INITRD_DATA = 0x12,
    FW_CFG_COMMAND_LINE_SIZE = 0x14,
    FW_CFG_COMMAND_LINE = 0x15,
    FW_CFG_SETUP_SIZE = 0x17,
    FW_CFG_SETUP_DATA = 0x18,
    FW_CFG_DIRECTORY = 0x19,
    FW_CFG_FILE_FIRST = 0x20,
    FW_CFG_IRQ0_OVERRIDE = 0x8002,
};

#define FW_CFG_ITEMS_MAX 64
#define FW_CFG_NAME_SIZE 56

struct fw_cfg_item {
    uint16_t key;
    char name[FW_CFG_NAME_SIZE]; /* empty: not a file */
    struct buf bytes;
};

struct fw_cfg {
    struct device device;

    /*
     * Set before realize, optional: brings the contents of the files up to date that depend on what
     * the guest has set up; called when it selects a file. Sizes must not change.
     */
    void (*refresh)(void *opaque);
    void *opaque;

    /* Own. */
    struct io_region ports, dma_ports;
    struct log_limit log;
    struct fw_cfg_item item[FW_CFG_ITEMS_MAX];
    unsigned item_count;
    uint16_t selected;
    uint32_t offset; /* in the selected item */
    uint64_t dma;    /* address of the control structure, as far as it was written */
};

extern const struct device_class fw_cfg_class;

/* Before the machine runs. Bytes are copied. */
void fw_cfg_add(struct fw_cfg *cfg, enum fw_cfg_key key, const void *bytes, size_t len);
void fw_cfg_add_number(struct fw_cfg *cfg, enum fw_cfg_key key, unsigned size, uint64_t value);
/* Files get their keys in the order of adding, and are listed so. */
void fw_cfg_add_file(struct fw_cfg *cfg, const char *name, const void *bytes, size_t len);
/* New contents for a file; what is missing to its old length is zero. From `refresh` too. */
void fw_cfg_replace(struct fw_cfg *cfg, const char *name, const void *bytes, size_t len);

#endif
