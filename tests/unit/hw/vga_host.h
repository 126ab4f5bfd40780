/*
 * A host of the VGA adapter for its tests: its registers by their names.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TEST_VGA_HOST_H
#define TENON_TEST_VGA_HOST_H

#include <stdlib.h>

#include "base/bytes.h"
#include "board_env.h"
#include "hw/display/vga.h"

#define WINDOW 0xa0000u
#define FRAMEBUFFER 0xd0000000u
#define REGISTERS 0xd2000000u
#define ROM 0xd3000000u
#define MEMORY MIB(2)

struct fixture {
    struct board_env board;
    struct pci_bus *bus;
    struct vga *vga;
};

static inline struct vga *vga_new(struct fixture *f, const char *id)
{
    struct vga *vga = (struct vga *)device_new(&vga_class, &f->board.env, id);
    vga->rom_size = 3000;
    vga->take_rom = xcalloc(1, vga->rom_size);
    put_le16(vga->take_rom, 0xaa55);
    vga->take_rom[2999] = 0x77;
    board_ok(pci_bus_attach(f->bus, &vga->pci, -1));
    board_ok(device_realize(&vga->pci.device));
    return vga;
}

static inline int setup(void **state)
{
    static struct fixture f;
    board_init(&f.board);
    board_ok(gmem_add_movable(f.board.env.gmem, VGA_MEMORY_NAME, MEMORY));
    struct pci_bus_config config = {.env = &f.board.env, .ecam_base = 0xb0000000, .ecam_buses = 1};
    board_ok(pci_bus_new(&config, &f.bus));
    f.vga = vga_new(&f, "vga");
    pci_config_write(&f.vga->pci, PCI_BAR0, 4, FRAMEBUFFER);
    pci_config_write(&f.vga->pci, PCI_BAR0 + 8, 4, REGISTERS);
    pci_config_write(&f.vga->pci, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
    *state = &f;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;
    device_free(&f->vga->pci.device);
    pci_bus_free(f->bus);
    board_fini(&f->board);
    return 0;
}

static inline void indexed(struct fixture *f, uint16_t port, unsigned index, unsigned value)
{
    board_out(&f->board, port, 2, index | value << 8);
}

static inline void sequencer(struct fixture *f, unsigned index, unsigned value)
{
    indexed(f, 0x3c4, index, value);
}

static inline void graphics(struct fixture *f, unsigned index, unsigned value)
{
    indexed(f, 0x3ce, index, value);
}

static inline void crtc(struct fixture *f, unsigned index, unsigned value)
{
    indexed(f, 0x3d4, index, value);
}

static inline void attribute(struct fixture *f, unsigned index, unsigned value)
{
    board_in(&f->board, 0x3da, 1);
    board_out(&f->board, 0x3c0, 1, index);
    board_out(&f->board, 0x3c0, 1, value);
    board_out(&f->board, 0x3c0, 1, 0x20);
}

static inline void dac(struct fixture *f, unsigned index, unsigned red, unsigned green,
                       unsigned blue)
{
    board_out(&f->board, 0x3c8, 1, index);
    board_out(&f->board, 0x3c9, 1, red);
    board_out(&f->board, 0x3c9, 1, green);
    board_out(&f->board, 0x3c9, 1, blue);
}

static inline void vbe(struct fixture *f, unsigned index, unsigned value)
{
    board_out(&f->board, 0x1ce, 2, index);
    board_out(&f->board, 0x1cf, 2, value);
}

static inline unsigned vbe_get(struct fixture *f, unsigned index)
{
    board_out(&f->board, 0x1ce, 2, index);
    return (unsigned)board_in(&f->board, 0x1d0, 2);
}

/* Mode 3 as a BIOS sets it, two columns and a half wide. */
static inline void text_mode(struct fixture *f)
{
    board_out(&f->board, 0x3c2, 1, 0x67);
    sequencer(f, 1, 0);
    sequencer(f, 2, 0x3);
    sequencer(f, 4, 0x2);
    graphics(f, 5, 0x10);
    graphics(f, 6, 0x0e);
    graphics(f, 8, 0xff);
    crtc(f, 0x11, 0);
    crtc(f, 0x01, 2);  /* 3 columns */
    crtc(f, 0x12, 31); /* 32 lines */
    crtc(f, 0x07, 0x10);
    crtc(f, 0x09, 0x4f); /* of 16 */
    crtc(f, 0x18, 0xff);
    crtc(f, 0x13, 2); /* 4 cells from row to row */
    crtc(f, 0x17, 0xa3);
    crtc(f, 0x0a, 13);
    crtc(f, 0x0b, 14);
    crtc(f, 0x0f, 5);
    for (unsigned i = 0; i < 16; i++) {
        attribute(f, i, i);
        dac(f, i, i, 0, 63);
    }
    attribute(f, 0x10, 0x0c);
    attribute(f, 0x12, 0x0f);
}

static inline uint64_t peek(struct fixture *f, uint64_t at, unsigned size)
{
    return io_bus_read(f->board.env.mmio, at, size);
}

static inline void poke(struct fixture *f, uint64_t at, unsigned size, uint64_t value)
{
    io_bus_write(f->board.env.mmio, at, size, value);
}

#define VGA_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
