/*
 * A function's configuration space: identity, writable bits, BARs, capabilities, INTx (PCI local
 * bus 3.0, chapter 6; PCI Express base 4.0, 7.5).
 *
 * The guest writes any byte at any time: each byte has a mask of bits that it may change,
 * everything else is ignored. The device lock covers all of it; mapping a BAR takes LOCK_BUS
 * inside.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "hw/core/env.h"
#include "hw/pci/internal.h"

#define BAR_FLAGS_IO 0x1u
#define BAR_FLAGS_MEM64 0x4u
#define BAR_FLAGS_PREFETCH 0x8u
#define FIRST_CAPABILITY 0x40
#define ROM_ENABLE 0x1u
#define ROM_SIZE_MIN 0x800u

void pci_device_identify(struct pci_device *pci, uint16_t vendor, uint16_t device,
                         uint32_t class_code, uint8_t revision, uint16_t subsystem_vendor,
                         uint16_t subsystem)
{
    uint8_t *config = pci->config;
    put_le16(config + PCI_VENDOR_ID, vendor);
    put_le16(config + PCI_DEVICE_ID, device);
    config[PCI_REVISION] = revision;
    config[PCI_CLASS] = (uint8_t)class_code;
    put_le16(config + PCI_CLASS + 1, (uint16_t)(class_code >> 8));
    put_le16(config + PCI_SUBSYSTEM_VENDOR, subsystem_vendor);
    put_le16(config + PCI_SUBSYSTEM_ID, subsystem);
    put_le16(pci->writable + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
                                              PCI_COMMAND_PARITY | PCI_COMMAND_SERR |
                                              PCI_COMMAND_INTX_DISABLE);
    pci->writable[0x0c] = 0xff; /* cache line size: kept, means nothing */
    pci->writable[PCI_INTERRUPT_LINE] = 0xff;
    pci->clear_on_1[PCI_STATUS + 1] = 0xf9; /* error bits, which we never set */
}

void pci_intx_add(struct pci_device *pci)
{
    pci->config[PCI_INTERRUPT_PIN] = 1;
}

unsigned pci_capability_add(struct pci_device *pci, uint8_t id, unsigned len)
{
    unsigned at = pci->next_free ? pci->next_free : FIRST_CAPABILITY;
    at = ALIGN_UP(at, 4u);
    pci->config[at] = id;
    pci->config[at + 1] = 0;
    if (pci->last_capability)
        pci->config[pci->last_capability + 1] = (uint8_t)at;
    else
        pci->config[PCI_CAPABILITIES] = (uint8_t)at;
    pci->config[PCI_STATUS] |= PCI_STATUS_CAPABILITIES;
    pci->last_capability = (uint16_t)at;
    pci->next_free = (uint16_t)(at + len);
    return at;
}

void pci_express_add(struct pci_device *pci)
{
    unsigned at = pci_capability_add(pci, PCI_CAP_ID_EXPRESS, 0x3c);
    /* Version 2, root complex integrated endpoint: it has no link. */
    put_le16(pci->config + at + 2, 0x0002 | 0x9 << 4);
    put_le32(pci->config + at + 4, 1u << 15);    /* role-based error reporting */
    put_le16(pci->writable + at + 8, 0x7fff);    /* device control, without function-level reset */
    put_le16(pci->writable + at + 0x28, 0x001f); /* device control 2: completion time-out */
}

static void bar_describe(struct pci_device *pci, struct pci_bar *bar, enum pci_bar_kind kind,
                         uint64_t size, const struct io_ops *ops, void *opaque)
{
    bar->kind = (uint8_t)kind;
    bar->size = size;
    bar->region = (struct io_region){
        .name = pci->device.class->name,
        .size = size,
        .ops = ops,
        .opaque = opaque,
        .lock = &pci->device.lock,
    };
}

void pci_bar_add(struct pci_device *pci, unsigned index, enum pci_bar_kind kind, uint64_t size,
                 const struct io_ops *ops, void *opaque)
{
    struct pci_bar *bar = &pci->bar[index];
    uint8_t *config = pci->config + PCI_BAR0 + 4 * index;
    uint8_t *writable = pci->writable + PCI_BAR0 + 4 * index;
    uint32_t flags = kind == PCI_BAR_IO      ? BAR_FLAGS_IO
                     : kind == PCI_BAR_MEM64 ? BAR_FLAGS_MEM64
                                             : 0;
    if (bar->prefetchable)
        flags |= BAR_FLAGS_PREFETCH;
    bar_describe(pci, bar, kind, size, ops, opaque);
    put_le32(config, flags);
    put_le32(writable, (uint32_t) ~(size - 1));
    if (kind == PCI_BAR_MEM64)
        put_le32(writable + 4, (uint32_t)(~(size - 1) >> 32));
}

void pci_bar_back(struct pci_device *pci, unsigned index, const struct gmem_region *memory)
{
    pci->bar[index].memory = memory;
}

void pci_rom_add(struct pci_device *pci, uint64_t size, const struct io_ops *ops, void *opaque)
{
    bar_describe(pci, &pci->rom, PCI_BAR_MEM32, size, ops, opaque);
    put_le32(pci->writable + PCI_ROM, (uint32_t) ~(size - 1) | ROM_ENABLE);
}

uint64_t pci_bar_address(const struct pci_device *pci, unsigned index)
{
    const struct pci_bar *bar = &pci->bar[index];
    uint64_t address = get_le32(pci->config + PCI_BAR0 + 4 * index);
    if (bar->kind == PCI_BAR_MEM64)
        address |= (uint64_t)get_le32(pci->config + PCI_BAR0 + 4 * index + 4) << 32;
    return address & ~(bar->size - 1);
}

void pci_bar_set_address(struct pci_device *pci, unsigned index, uint64_t address)
{
    const struct pci_bar *bar = &pci->bar[index];
    uint8_t *config = pci->config + PCI_BAR0 + 4 * index;
    uint32_t flags = get_le32(config) & (uint32_t)(bar->size - 1);
    put_le32(config, (uint32_t)(address & ~(bar->size - 1)) | flags);
    if (bar->kind == PCI_BAR_MEM64)
        put_le32(config + 4, (uint32_t)(address >> 32));
}

/* Where the BAR is to be mapped now; 0 for nowhere. */
static uint64_t bar_wanted(const struct pci_device *pci, unsigned index)
{
    const struct pci_bar *bar = &pci->bar[index];
    uint16_t command = get_le16(pci->config + PCI_COMMAND);
    if (bar->kind == PCI_BAR_NONE ||
        !(command & (bar->kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
        return 0;
    uint64_t address = pci_bar_address(pci, index);
    uint64_t limit = bar->kind == PCI_BAR_IO      ? 0x10000
                     : bar->kind == PCI_BAR_MEM32 ? GIB(4)
                                                  : UINT64_MAX;
    return range_within(address, bar->size, limit) ? address : 0;
}

static uint64_t rom_wanted(const struct pci_device *pci)
{
    uint32_t value = get_le32(pci->config + PCI_ROM);
    uint64_t address = value & ~(ROM_SIZE_MIN - 1);
    if (pci->rom.kind == PCI_BAR_NONE || !(value & ROM_ENABLE) ||
        !(get_le16(pci->config + PCI_COMMAND) & PCI_COMMAND_MEMORY))
        return 0;
    return range_within(address, pci->rom.size, GIB(4)) ? address : 0;
}

/* Maps the BAR at `wanted`, or nowhere for 0; true when its memory has moved. */
static bool bar_move(struct pci_device *pci, struct pci_bar *bar, uint64_t wanted)
{
    struct hw_env *env = pci->device.env;
    if (bar->region.bus && bar->region.base != wanted)
        io_bus_remove(&bar->region);
    if (wanted && !bar->region.bus)
        io_bus_add(bar->kind == PCI_BAR_IO ? env->pio : env->mmio, &bar->region, wanted);
    return bar->memory && gmem_move(env->gmem, bar->memory, wanted);
}

void pci_bars_update(struct pci_device *pci)
{
    struct hw_env *env = pci->device.env;
    bool moved = false;
    for (unsigned i = 0; i < PCI_BARS; i++)
        moved |= bar_move(pci, &pci->bar[i], bar_wanted(pci, i));
    bar_move(pci, &pci->rom, rom_wanted(pci));
    if (moved && env->ops->memory_changed)
        env->ops->memory_changed(env->opaque);
}

static void intx_update(struct pci_device *pci, bool quietly)
{
    uint16_t command = get_le16(pci->config + PCI_COMMAND);
    if (pci->intx_level)
        pci->config[PCI_STATUS] |= PCI_STATUS_INTX;
    else
        pci->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTX;
    bool level =
        pci->intx_level && pci->config[PCI_INTERRUPT_PIN] && !(command & PCI_COMMAND_INTX_DISABLE);
    if (level != pci->intx_driven) {
        pci->intx_driven = level;
        pci_bus_intx(pci, level, quietly);
    }
}

void pci_intx_set(struct pci_device *pci, bool level)
{
    if (pci->intx_level != level) {
        pci->intx_level = level;
        intx_update(pci, false);
    }
}

bool pci_master_enabled(const struct pci_device *pci)
{
    return get_le16(pci->config + PCI_COMMAND) & PCI_COMMAND_MASTER;
}

uint32_t pci_config_read(struct pci_device *pci, unsigned offset, unsigned size)
{
    uint32_t value = UINT32_MAX;
    if (offset >= PCI_CONFIG_SIZE || size > 4)
        return value;
    unsigned inside = MIN(size, PCI_CONFIG_SIZE - offset);
    lock_take(&pci->device.lock);
    if (pci->config_read)
        pci->config_read(pci, offset, inside);
    uint8_t bytes[4] = {0xff, 0xff, 0xff, 0xff};
    memcpy(bytes, pci->config + offset, inside);
    lock_drop(&pci->device.lock);
    value = get_le32(bytes);
    return size < 4 ? value & ((1u << (8 * size)) - 1) : value;
}

void pci_config_write(struct pci_device *pci, unsigned offset, unsigned size, uint32_t value)
{
    if (offset >= PCI_CONFIG_SIZE || size > 4)
        return;
    size = MIN(size, PCI_CONFIG_SIZE - offset);
    lock_take(&pci->device.lock);
    uint16_t msix_before =
        pci->msix_capability ? get_le16(pci->config + pci->msix_capability + PCI_MSIX_CONTROL) : 0;
    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)(value >> (8 * i)), mask = pci->writable[offset + i];
        uint8_t *at = &pci->config[offset + i];
        *at = (uint8_t)((*at & ~mask) | (byte & mask));
        *at &= (uint8_t) ~(byte & pci->clear_on_1[offset + i]);
    }
    if (ranges_overlap(offset, size, PCI_BAR0, 4 * PCI_BARS) ||
        ranges_overlap(offset, size, PCI_ROM, 4) || ranges_overlap(offset, size, PCI_COMMAND, 2)) {
        pci_bars_update(pci);
        intx_update(pci, false);
    }
    if (pci->msix_capability &&
        ranges_overlap(offset, size, pci->msix_capability + PCI_MSIX_CONTROL, 2u))
        pci_msix_control_written(pci, msix_before);
    if (pci->config_written)
        pci->config_written(pci, offset, size);
    lock_drop(&pci->device.lock);
}

void pci_device_reset(struct pci_device *pci)
{
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
        pci->config[i] &= (uint8_t)~pci->writable[i];
    pci_bars_update(pci);
    pci->intx_level = false;
    intx_update(pci, false);
    pci_msix_reset(pci);
}

void pci_device_fini(struct pci_device *pci)
{
    for (unsigned i = 0; i < PCI_BARS; i++)
        io_bus_remove(&pci->bar[i].region);
    io_bus_remove(&pci->rom.region);
    pci_bus_detach(pci);
    free(pci->msix);
    pci->msix = NULL;
    pci->msix_count = 0;
    pci->msix_capability = 0;
}

static void pre_save(void *object)
{
    struct pci_device *pci = object;
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
        pci->saved[i] = pci->config[i] & pci->writable[i];
}

/* Read-only bits come from the device itself: a stream cannot change what a function is. */
static void merge(void *object)
{
    struct pci_device *pci = object;
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
        pci->config[i] =
            (uint8_t)((pci->config[i] & ~pci->writable[i]) | (pci->saved[i] & pci->writable[i]));
    pci_device_post_load(pci);
}

void pci_device_post_load(struct pci_device *pci)
{
    pci_bars_update(pci);
    /* The interrupt controller restores the level of its inputs by itself. */
    intx_update(pci, true);
}

static const struct state_field fields[] = {
    STATE_BYTES(1, pci_device, saved),
    STATE_BOOL(2, pci_device, intx_level),
    STATE_ARRAY(3, pci_device, msix, msix_count, pci_msix_vector, &pci_msix_vector_state),
};

const struct state_table pci_device_state = {
    DEVICE_STATE_TABLE("pci-function", pci_device, fields),
    .pre_save = pre_save,
    .post_load = merge,
};
