/*
 * What the files of the VGA adapter share. All under the device's lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_DISPLAY_VGA_INTERNAL_H
#define TENON_HW_DISPLAY_VGA_INTERNAL_H

#include "hw/display/vga.h"

/* Legacy ports: one region holds the monochrome and the colour addresses. */
#define VGA_PORT_FIRST 0x3b0
#define VGA_PORT_COUNT 0x30
#define VGA_PORT_COLOUR 0x3c0 /* what BAR 2 shows: 0x3c0 to 0x3df */

enum vga_graphics {
    GRAPHICS_SET_RESET,
    GRAPHICS_ENABLE_SET_RESET,
    GRAPHICS_COMPARE,
    GRAPHICS_ROTATE,
    GRAPHICS_READ_MAP,
    GRAPHICS_MODE,
    GRAPHICS_MISC,
    GRAPHICS_DONT_CARE,
    GRAPHICS_BIT_MASK,
};
#define GRAPHICS_MODE_ODD_EVEN 0x10
#define GRAPHICS_MODE_READ_1 0x08
#define GRAPHICS_MISC_GRAPHICS 0x01

enum vga_sequencer {
    SEQUENCER_RESET,
    SEQUENCER_CLOCKING,
    SEQUENCER_MAP_MASK,
    SEQUENCER_FONTS,
    SEQUENCER_MEMORY,
};
#define CLOCKING_8_DOTS 0x01
#define CLOCKING_HALF 0x08
#define CLOCKING_SCREEN_OFF 0x20
#define MEMORY_SEQUENTIAL 0x04
#define MEMORY_CHAIN_4 0x08

enum vga_vbe {
    VBE_ID,
    VBE_XRES,
    VBE_YRES,
    VBE_BPP,
    VBE_ENABLE,
    VBE_BANK,
    VBE_VIRT_WIDTH,
    VBE_VIRT_HEIGHT,
    VBE_X_OFFSET,
    VBE_Y_OFFSET,
    VBE_MEMORY_64K,
    VBE_REGISTERS,
};
#define VBE_ENABLED 0x01
#define VBE_GETCAPS 0x02
#define VBE_8BIT_DAC 0x20
#define VBE_NOCLEARMEM 0x80
#define VBE_ID_NEWEST 0xb0c5

/* vga_ports.c: one byte of a legacy port. */
uint8_t vga_port_read(struct vga *vga, unsigned port);
void vga_port_write(struct vga *vga, unsigned port, uint8_t value);
/* Are the registers as a guest can set them? */
struct err *vga_ports_check(const struct vga *vga);
extern const struct io_ops vga_port_ops;

/* vga_planes.c: the window at 0xa0000. */
extern const struct io_ops vga_window_ops;

/* vbe.c */
static inline bool vga_vbe_on(const struct vga *vga)
{
    return vga->vbe[VBE_ENABLE] & VBE_ENABLED;
}
void vga_vbe_reset(struct vga *vga);
uint16_t vga_vbe_read(const struct vga *vga, unsigned index);
void vga_vbe_write(struct vga *vga, unsigned index, uint16_t value);
/* Bytes from one line to the next, for bpp 4 of each plane. */
uint32_t vga_vbe_stride(const struct vga *vga);
struct err *vga_vbe_check(const struct vga *vga);
extern const struct io_ops vga_vbe_ops;

/* edid.c */
void vga_edid_build(uint8_t edid[128]);

#endif
