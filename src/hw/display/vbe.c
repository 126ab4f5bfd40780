/*
 * The Bochs VBE extension: an index and a data port of 16 bits that set any resolution and depth
 * without knowing timings (the dispi interface of Bochs and of the VGA BIOSes for it).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "base/bytes.h"
#include "hw/display/vga_internal.h"

#define XRES_MAX 4096
#define YRES_MAX 4096
#define BPP_MAX 32
#define ID_OLDEST 0xb0c0

void vga_vbe_reset(struct vga *vga)
{
    memset(vga->vbe, 0, sizeof(vga->vbe));
    vga->vbe_index = 0;
    vga->vbe[VBE_ID] = VBE_ID_NEWEST;
    vga->vbe[VBE_BPP] = 8;
}

uint32_t vga_vbe_stride(const struct vga *vga)
{
    uint32_t width = vga->vbe[VBE_VIRT_WIDTH], bpp = vga->vbe[VBE_BPP];

    return bpp == 4 ? width / 8 : width * ((bpp + 7) / 8);
}

uint16_t vga_vbe_read(const struct vga *vga, unsigned index)
{
    if (index == VBE_MEMORY_64K)
        return (uint16_t)(vga->vram_size / KIB(64));
    if (index >= VBE_REGISTERS)
        return 0;
    if (vga->vbe[VBE_ENABLE] & VBE_GETCAPS) {
        if (index == VBE_XRES)
            return XRES_MAX;
        if (index == VBE_YRES)
            return YRES_MAX;
        if (index == VBE_BPP)
            return BPP_MAX;
    }
    return vga->vbe[index];
}

static bool is_depth(uint16_t bpp)
{
    return bpp == 4 || bpp == 8 || bpp == 15 || bpp == 16 || bpp == 24 || bpp == 32;
}

/* As many lines as memory has for the width. */
static void fit_height(struct vga *vga)
{
    uint32_t stride = vga_vbe_stride(vga);
    uint32_t room = vga->vbe[VBE_BPP] == 4 ? vga->vram_size / 4 : vga->vram_size;

    vga->vbe[VBE_VIRT_HEIGHT] = (uint16_t)MIN(stride ? room / stride : 0, (uint32_t)UINT16_MAX);
}

static void enable_write(struct vga *vga, uint16_t value)
{
    bool was_on = vga_vbe_on(vga);

    vga->vbe[VBE_ENABLE] = value & 0xef;
    vga->vbe[VBE_BANK] = 0;
    if (was_on || !vga_vbe_on(vga))
        return;
    vga->vbe[VBE_VIRT_WIDTH] = vga->vbe[VBE_XRES];
    fit_height(vga);
    vga->vbe[VBE_X_OFFSET] = vga->vbe[VBE_Y_OFFSET] = 0;
    if (!(value & VBE_NOCLEARMEM)) {
        uint64_t len = (uint64_t)vga_vbe_stride(vga) * vga->vbe[VBE_YRES];
        len = MIN(vga->vbe[VBE_BPP] == 4 ? 4 * len : len, (uint64_t)vga->vram_size);
        memset(vga->vram, 0, len);
        gmem_region_written(vga->pci.device.env->gmem, vga->memory, 0, len);
    }
}

void vga_vbe_write(struct vga *vga, unsigned index, uint16_t value)
{
    bool on = vga_vbe_on(vga);

    switch (index) {
    case VBE_ID:
        if (value >= ID_OLDEST && value <= VBE_ID_NEWEST)
            vga->vbe[index] = value;
        break;
    case VBE_XRES:
        if (!on && value && value <= XRES_MAX)
            vga->vbe[index] = value & 0xfff8;
        break;
    case VBE_YRES:
        if (!on && value && value <= YRES_MAX)
            vga->vbe[index] = value;
        break;
    case VBE_BPP:
        if (!on && (!value || is_depth(value)))
            vga->vbe[index] = value ? value : 8;
        break;
    case VBE_ENABLE:
        enable_write(vga, value);
        break;
    case VBE_BANK:
        vga->vbe[index] = value & (uint16_t)(vga->vram_size / KIB(64) - 1);
        break;
    case VBE_VIRT_WIDTH:
        if (value >= vga->vbe[VBE_XRES] && value <= 4 * XRES_MAX) {
            vga->vbe[index] = value & 0xfff8;
            fit_height(vga);
        }
        break;
    case VBE_X_OFFSET:
    case VBE_Y_OFFSET:
        vga->vbe[index] = value;
        break;
    }
}

/* The index lies at 0x1ce, the data at 0x1cf, and for those who like even ports at 0x1d0. */
static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct vga *vga = opaque;

    return offset ? vga_vbe_read(vga, vga->vbe_index) : vga->vbe_index;
}

static void ports_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct vga *vga = opaque;

    if (offset)
        vga_vbe_write(vga, vga->vbe_index, (uint16_t)value);
    else
        vga->vbe_index = (uint16_t)value;
}

const struct io_ops vga_vbe_ops = {ports_read, ports_write};

struct err *vga_vbe_check(const struct vga *vga)
{
    if (vga->vbe[VBE_XRES] > XRES_MAX || vga->vbe[VBE_XRES] % 8 || vga->vbe[VBE_YRES] > YRES_MAX ||
        !is_depth(vga->vbe[VBE_BPP]) || vga->vbe[VBE_VIRT_WIDTH] > 4 * XRES_MAX)
        return err_new("the VBE mode is out of range");
    return NULL;
}
