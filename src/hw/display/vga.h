/*
 * A VGA adapter as the "standard VGA" of other machines: PCI function 1234:1111 with the legacy
 * registers and window, the Bochs VBE registers, and a linear framebuffer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_DISPLAY_VGA_H
#define TENON_HW_DISPLAY_VGA_H

#include "display/picture.h"
#include "display/text_screen.h"
#include "hw/pci/pci.h"

#define VGA_MEMORY_NAME "video" /* of the movable memory that the board has added */
#define VGA_MEMORY_SIZE MIB(16)
#define VGA_ROM_MAX KIB(128)

struct vga {
    struct pci_device pci;

    /* Set before realize. */
    uint8_t *take_rom; /* option ROM; NULL: there is none */
    size_t rom_size;

    /* Own. */
    const struct gmem_region *memory;
    uint8_t *vram;
    uint32_t vram_size;
    uint8_t edid[128];
    struct io_region window, ports, vbe_ports;

    uint8_t misc, feature;
    uint8_t sequencer_index, sequencer[8];
    uint8_t crtc_index, crtc[32];
    uint8_t graphics_index, graphics[16];
    uint8_t attribute_index, attribute[32];
    bool attribute_data; /* the next write to 0x3c0 is a register's value */
    uint8_t dac[256 * 3];
    uint8_t dac_mask, dac_read, dac_write, dac_part, dac_cache[3];
    bool dac_reading;
    uint32_t latch; /* plane n is byte n */
    uint16_t vbe_index, vbe[16];
};

extern const struct device_class vga_class;

/* The text that is on the screen; columns is 0 in graphics modes. */
void vga_text(struct vga *vga, struct text_screen *screen);
/* What a monitor would show. The caller owns the picture. */
void vga_picture(struct vga *vga, struct picture *picture);

#endif
