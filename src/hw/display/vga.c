/*
 * The VGA adapter as a device: its memory, its BARs, its state. What its registers mean is in
 * vga_ports.c, vga_planes.c and vbe.c; what it shows in vga_screen.c.
 *
 * BAR 0 is the memory itself, as RAM of the guest. BAR 2 shows the monitor's EDID, the legacy
 * registers from 0x400 on, those of VBE from 0x500 on, and the framebuffer's byte order at 0x604.
 * The legacy ports and the window at 0xa0000 answer whatever the command register says.
 *
 * Lock: the device's. The guest changes the memory in BAR 0 at any time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "hw/chipset/layout.h"
#include "hw/core/env.h"
#include "hw/display/vga_internal.h"

#define VBE_PORT 0x1ce
#define VBE_PORTS 4

#define MMIO_SIZE KIB(4)
#define MMIO_PORTS 0x400u
#define MMIO_PORTS_SIZE 0x20u
#define MMIO_VBE 0x500u
#define MMIO_EXTENDED 0x600u
#define EXTENDED_SIZE 8u /* says the first of two 32-bit registers */
#define LITTLE_ENDIAN_TAG 0x1e1e1e1eu

static uint64_t vram_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct vga *vga = opaque;
    uint8_t bytes[8] = {0};

    memcpy(bytes, vga->vram + offset, size);
    return get_le64(bytes);
}

static void vram_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct vga *vga = opaque;
    uint8_t bytes[8];

    put_le64(bytes, value);
    memcpy(vga->vram + offset, bytes, size);
    gmem_region_written(vga->pci.device.env->gmem, vga->memory, offset, size);
}

static const struct io_ops vram_ops = {vram_read, vram_write};

static uint8_t mmio_byte(struct vga *vga, uint32_t at)
{
    uint32_t extended = at < MMIO_EXTENDED + 4 ? EXTENDED_SIZE : LITTLE_ENDIAN_TAG;

    if (at < sizeof(vga->edid))
        return vga->edid[at];
    if (at - MMIO_PORTS < MMIO_PORTS_SIZE)
        return vga_port_read(vga, VGA_PORT_COLOUR + at - MMIO_PORTS);
    if (at - MMIO_VBE < 2 * VBE_REGISTERS)
        return (uint8_t)(vga_vbe_read(vga, (at - MMIO_VBE) / 2) >> (8 * (at & 1)));
    if (at - MMIO_EXTENDED < EXTENDED_SIZE)
        return (uint8_t)(extended >> (8 * (at & 3)));
    return at < MMIO_PORTS ? 0 : 0xff;
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)mmio_byte(opaque, (uint32_t)offset + i) << (8 * i);
    return value;
}

static void mmio_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct vga *vga = opaque;
    uint32_t at = (uint32_t)offset;

    if (at - MMIO_VBE < 2 * VBE_REGISTERS) {
        for (unsigned i = 0; i + 2 <= size && !(at & 1); i += 2)
            vga_vbe_write(vga, (at + i - MMIO_VBE) / 2, (uint16_t)(value >> (8 * i)));
        return;
    }
    for (unsigned i = 0; i < size; i++) {
        if (at + i - MMIO_PORTS < MMIO_PORTS_SIZE)
            vga_port_write(vga, VGA_PORT_COLOUR + at + i - MMIO_PORTS, (uint8_t)(value >> (8 * i)));
    }
}

static const struct io_ops mmio_ops = {mmio_read, mmio_write};

static uint64_t rom_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct vga *vga = opaque;
    uint8_t bytes[8];

    memset(bytes, 0xff, sizeof(bytes));
    if (offset < vga->rom_size)
        memcpy(bytes, vga->take_rom + offset, MIN((size_t)size, vga->rom_size - offset));
    return get_le64(bytes);
}

static void rom_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
}

static const struct io_ops rom_ops = {rom_read, rom_write};

static uint64_t rom_room(size_t size)
{
    uint64_t room = KIB(2);

    while (room < size)
        room *= 2;
    return room;
}

static void map(struct vga *vga, struct io_bus *bus, struct io_region *region,
                const struct io_ops *ops, uint64_t base, uint64_t size)
{
    *region = (struct io_region){
        .name = "vga", .size = size, .ops = ops, .opaque = vga, .lock = &vga->pci.device.lock};
    io_bus_add(bus, region, base);
}

static struct err *realize(struct device *device)
{
    struct vga *vga = (struct vga *)device;
    struct pci_device *pci = &vga->pci;
    struct hw_env *env = device->env;

    vga->memory = gmem_movable(env->gmem, VGA_MEMORY_NAME);
    if (!vga->memory || vga->memory->size < KIB(256) || vga->memory->size > GIB(1) ||
        vga->memory->size & (vga->memory->size - 1))
        return err_new("there is no memory for it");
    if (vga->rom_size > VGA_ROM_MAX)
        return err_new("its option ROM has %zu bytes, and may have %lu", vga->rom_size,
                       VGA_ROM_MAX);
    vga->vram = vga->memory->ram;
    vga->vram_size = (uint32_t)vga->memory->size;
    vga_edid_build(vga->edid);
    pci_device_identify(pci, 0x1234, 0x1111, 0x030000, 2, 0x1af4, 0x1100);
    pci->bar[0].prefetchable = true;
    pci_bar_add(pci, 0, PCI_BAR_MEM32, vga->vram_size, &vram_ops, vga);
    pci_bar_back(pci, 0, vga->memory);
    pci_bar_add(pci, 2, PCI_BAR_MEM32, MMIO_SIZE, &mmio_ops, vga);
    if (vga->take_rom)
        pci_rom_add(pci, rom_room(vga->rom_size), &rom_ops, vga);
    map(vga, env->pio, &vga->ports, &vga_port_ops, VGA_PORT_FIRST, VGA_PORT_COUNT);
    map(vga, env->pio, &vga->vbe_ports, &vga_vbe_ops, VBE_PORT, VBE_PORTS);
    map(vga, env->mmio, &vga->window, &vga_window_ops, LAYOUT_VIDEO_BASE, LAYOUT_VIDEO_SIZE);
    return NULL;
}

static void reset(struct device *device)
{
    struct vga *vga = (struct vga *)device;

    lock_take(&device->lock);
    pci_device_reset(&vga->pci);
    vga->misc = vga->feature = 0;
    vga->sequencer_index = vga->crtc_index = vga->graphics_index = vga->attribute_index = 0;
    memset(vga->sequencer, 0, sizeof(vga->sequencer));
    memset(vga->crtc, 0, sizeof(vga->crtc));
    memset(vga->graphics, 0, sizeof(vga->graphics));
    memset(vga->attribute, 0, sizeof(vga->attribute));
    memset(vga->dac, 0, sizeof(vga->dac));
    memset(vga->dac_cache, 0, sizeof(vga->dac_cache));
    vga->attribute_data = vga->dac_reading = false;
    vga->dac_mask = 0xff;
    vga->dac_read = vga->dac_write = vga->dac_part = 0;
    vga->latch = 0;
    vga_vbe_reset(vga);
    lock_drop(&device->lock);
}

static void fini(struct device *device)
{
    struct vga *vga = (struct vga *)device;

    io_bus_remove(&vga->ports);
    io_bus_remove(&vga->vbe_ports);
    io_bus_remove(&vga->window);
    pci_device_fini(&vga->pci);
    free(vga->take_rom);
}

static struct err *check(const void *staged)
{
    TRY(vga_ports_check(staged));
    return vga_vbe_check(staged);
}

static const struct state_field fields[] = {
    PCI_DEVICE_STATE(vga, pci),       STATE_U8(2, vga, misc),
    STATE_U8(3, vga, feature),        STATE_U8(4, vga, sequencer_index),
    STATE_BYTES(5, vga, sequencer),   STATE_U8(6, vga, crtc_index),
    STATE_BYTES(7, vga, crtc),        STATE_U8(8, vga, graphics_index),
    STATE_BYTES(9, vga, graphics),    STATE_U8(10, vga, attribute_index),
    STATE_BYTES(11, vga, attribute),  STATE_BOOL(12, vga, attribute_data),
    STATE_BYTES(13, vga, dac),        STATE_U8(14, vga, dac_mask),
    STATE_U8(15, vga, dac_read),      STATE_U8(16, vga, dac_write),
    STATE_U8(17, vga, dac_part),      STATE_BYTES(18, vga, dac_cache),
    STATE_BOOL(19, vga, dac_reading), STATE_U32(20, vga, latch),
    STATE_U16(21, vga, vbe_index),    STATE_U16(22, vga, vbe),
};

static const struct state_table state = {
    DEVICE_STATE_TABLE("vga", vga, fields),
    .check = check,
};

const struct device_class vga_class = {
    .name = "vga",
    .description = "VGA adapter with Bochs VBE and a linear framebuffer",
    .size = sizeof(struct vga),
    .state = &state,
    .realize = realize,
    .reset = reset,
    .fini = fini,
};
DEVICE_CLASS(vga_class);
