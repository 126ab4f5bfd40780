/*
 * The VGA window at 0xa0000: how a byte of it becomes bytes of the four planes (IBM PS/2 hardware
 * technical reference, video subsystem: memory maps, graphics controller).
 *
 * Byte `a` of plane p is vram[4 * a + p], so that one latch load is one 32-bit word. With VBE on
 * and 8 or more bits a pixel, the window is a bank of the linear framebuffer instead.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "base/bytes.h"
#include "hw/display/vga_internal.h"

#define NOWHERE UINT32_MAX
#define MISC_RAM 0x02
#define BANK KIB(64)

/* Bits of planes as bytes of a word. */
static const uint32_t planes[16] = {
    0x00000000, 0x000000ff, 0x0000ff00, 0x0000ffff, 0x00ff0000, 0x00ff00ff, 0x00ffff00, 0x00ffffff,
    0xff000000, 0xff0000ff, 0xff00ff00, 0xff00ffff, 0xffff0000, 0xffff00ff, 0xffffff00, 0xffffffff};

static void written(struct vga *vga, uint32_t at, uint32_t len)
{
    gmem_region_written(vga->pci.device.env->gmem, vga->memory, at, len);
}

/* The address within the mapped part of the window. */
static uint32_t window_address(const struct vga *vga, uint32_t offset)
{
    if (vga_vbe_on(vga))
        return offset < BANK ? offset + (uint32_t)vga->vbe[VBE_BANK] * BANK : NOWHERE;
    if (!(vga->misc & MISC_RAM))
        return NOWHERE;
    switch (vga->graphics[GRAPHICS_MISC] >> 2 & 3) {
    case 0:
        return offset;
    case 1:
        return offset < 0x10000 ? offset : NOWHERE;
    case 2:
        return offset >= 0x10000 && offset < 0x18000 ? offset - 0x10000 : NOWHERE;
    default:
        return offset >= 0x18000 ? offset - 0x18000 : NOWHERE;
    }
}

static bool is_linear(const struct vga *vga)
{
    return vga_vbe_on(vga) && vga->vbe[VBE_BPP] != 4;
}

/* Where the word of byte `a` of all planes lies; without VBE a plane has 64 KiB. */
static uint32_t word_at(const struct vga *vga, uint32_t a)
{
    if (!vga_vbe_on(vga))
        a &= 0xffff;
    return a < vga->vram_size / 4 ? a * 4 : NOWHERE;
}

static uint8_t compare(const struct vga *vga)
{
    uint32_t wanted = planes[vga->graphics[GRAPHICS_COMPARE]];
    uint32_t different = (vga->latch ^ wanted) & planes[vga->graphics[GRAPHICS_DONT_CARE]];

    different |= different >> 16;
    return (uint8_t) ~(different | different >> 8);
}

static uint8_t byte_read(struct vga *vga, uint32_t offset)
{
    uint32_t a = window_address(vga, offset);
    unsigned plane = vga->graphics[GRAPHICS_READ_MAP];

    if (a == NOWHERE)
        return 0xff;
    if (is_linear(vga))
        return a < vga->vram_size ? vga->vram[a] : 0xff;
    if (vga->sequencer[SEQUENCER_MEMORY] & MEMORY_CHAIN_4) {
        plane = a & 3;
        a &= ~3u;
    } else if (vga->graphics[GRAPHICS_MODE] & GRAPHICS_MODE_ODD_EVEN) {
        plane = (plane & 2) | (a & 1);
        a &= ~1u;
    }
    uint32_t at = word_at(vga, a);
    if (at == NOWHERE)
        return 0xff;
    vga->latch = get_le32(vga->vram + at);
    if (vga->graphics[GRAPHICS_MODE] & GRAPHICS_MODE_READ_1 &&
        !(vga->sequencer[SEQUENCER_MEMORY] & MEMORY_CHAIN_4))
        return compare(vga);
    return (uint8_t)(vga->latch >> (8 * plane));
}

/* What the graphics controller makes of a byte and the latches. */
static uint32_t combine(const struct vga *vga, uint8_t value)
{
    const uint8_t *graphics = vga->graphics;
    unsigned turn = graphics[GRAPHICS_ROTATE] & 7;
    uint8_t turned = (uint8_t)(value >> turn | value << (8 - turn));
    uint8_t bits = graphics[GRAPHICS_BIT_MASK];
    uint32_t data, fixed = planes[graphics[GRAPHICS_SET_RESET]];

    switch (graphics[GRAPHICS_MODE] & 3) {
    case 0: {
        uint32_t enabled = planes[graphics[GRAPHICS_ENABLE_SET_RESET]];
        data = (turned * 0x01010101u & ~enabled) | (fixed & enabled);
        break;
    }
    case 1:
        return vga->latch;
    case 2:
        data = planes[value & 15];
        break;
    default:
        data = fixed;
        bits &= turned;
    }
    switch (graphics[GRAPHICS_ROTATE] >> 3 & 3) {
    case 1:
        data &= vga->latch;
        break;
    case 2:
        data |= vga->latch;
        break;
    case 3:
        data ^= vga->latch;
        break;
    }
    return (data & bits * 0x01010101u) | (vga->latch & ~(bits * 0x01010101u));
}

static void byte_write(struct vga *vga, uint32_t offset, uint8_t value)
{
    uint32_t a = window_address(vga, offset);
    unsigned map = vga->sequencer[SEQUENCER_MAP_MASK];

    if (a == NOWHERE)
        return;
    if (is_linear(vga)) {
        if (a < vga->vram_size) {
            vga->vram[a] = value;
            written(vga, a, 1);
        }
        return;
    }
    if (vga->sequencer[SEQUENCER_MEMORY] & MEMORY_CHAIN_4) {
        map &= 1u << (a & 3);
        a &= ~3u;
    } else if (!(vga->sequencer[SEQUENCER_MEMORY] & MEMORY_SEQUENTIAL)) {
        map &= a & 1 ? 0xau : 0x5u;
        a &= ~1u;
    }
    uint32_t at = word_at(vga, a);
    if (at == NOWHERE || !map)
        return;
    uint32_t before = get_le32(vga->vram + at);
    put_le32(vga->vram + at, (combine(vga, value) & planes[map]) | (before & ~planes[map]));
    written(vga, at, 4);
}

static uint64_t window_read(void *opaque, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)byte_read(opaque, (uint32_t)offset + i) << (8 * i);
    return value;
}

static void window_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    for (unsigned i = 0; i < size; i++)
        byte_write(opaque, (uint32_t)offset + i, (uint8_t)(value >> (8 * i)));
}

const struct io_ops vga_window_ops = {window_read, window_write};
