/*
 * The VGA adapter: planes, write and read modes, VBE, the framebuffer's BAR, what the screen shows.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
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

static struct vga *vga_new(struct fixture *f, const char *id)
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

static int setup(void **state)
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

static int teardown(void **state)
{
    struct fixture *f = *state;
    device_free(&f->vga->pci.device);
    pci_bus_free(f->bus);
    board_fini(&f->board);
    return 0;
}

static void indexed(struct fixture *f, uint16_t port, unsigned index, unsigned value)
{
    board_out(&f->board, port, 2, index | value << 8);
}

static void sequencer(struct fixture *f, unsigned index, unsigned value)
{
    indexed(f, 0x3c4, index, value);
}

static void graphics(struct fixture *f, unsigned index, unsigned value)
{
    indexed(f, 0x3ce, index, value);
}

static void crtc(struct fixture *f, unsigned index, unsigned value)
{
    indexed(f, 0x3d4, index, value);
}

static void attribute(struct fixture *f, unsigned index, unsigned value)
{
    board_in(&f->board, 0x3da, 1);
    board_out(&f->board, 0x3c0, 1, index);
    board_out(&f->board, 0x3c0, 1, value);
    board_out(&f->board, 0x3c0, 1, 0x20);
}

static void dac(struct fixture *f, unsigned index, unsigned red, unsigned green, unsigned blue)
{
    board_out(&f->board, 0x3c8, 1, index);
    board_out(&f->board, 0x3c9, 1, red);
    board_out(&f->board, 0x3c9, 1, green);
    board_out(&f->board, 0x3c9, 1, blue);
}

static void vbe(struct fixture *f, unsigned index, unsigned value)
{
    board_out(&f->board, 0x1ce, 2, index);
    board_out(&f->board, 0x1cf, 2, value);
}

static unsigned vbe_get(struct fixture *f, unsigned index)
{
    board_out(&f->board, 0x1ce, 2, index);
    return (unsigned)board_in(&f->board, 0x1d0, 2);
}

static uint64_t peek(struct fixture *f, uint64_t at, unsigned size)
{
    return io_bus_read(f->board.env.mmio, at, size);
}

static void poke(struct fixture *f, uint64_t at, unsigned size, uint64_t value)
{
    io_bus_write(f->board.env.mmio, at, size, value);
}

/* All planes at 64 KiB from 0xa0000 on, write mode 0, nothing changed on the way. */
static void planar(struct fixture *f)
{
    board_out(&f->board, 0x3c2, 1, 0x63);
    sequencer(f, 2, 0x0f);
    sequencer(f, 4, 0x06);
    graphics(f, 0, 0);
    graphics(f, 1, 0);
    graphics(f, 3, 0);
    graphics(f, 5, 0);
    graphics(f, 6, 0x05);
    graphics(f, 7, 0x0f);
    graphics(f, 8, 0xff);
}

static uint32_t word(struct fixture *f, uint32_t at)
{
    return get_le32(f->vga->vram + 4 * at);
}

static void write_mode_0_rotates_masks_and_combines(void **state)
{
    struct fixture *f = *state;
    planar(f);
    poke(f, WINDOW + 5, 1, 0x81);
    assert_int_equal(word(f, 5), 0x81818181);
    sequencer(f, 2, 0x5);
    poke(f, WINDOW + 5, 1, 0xff);
    assert_int_equal(word(f, 5), 0x81ff81ff);
    sequencer(f, 2, 0xf);
    graphics(f, 3, 1); /* rotate by one */
    poke(f, WINDOW + 6, 1, 0x01);
    assert_int_equal(word(f, 6), 0x80808080);
    graphics(f, 3, 0);
    graphics(f, 0, 0x2); /* planes 0 and 1 from set/reset */
    graphics(f, 1, 0x3);
    poke(f, WINDOW + 7, 1, 0x55);
    assert_int_equal(word(f, 7), 0x5555ff00);
    graphics(f, 1, 0);
    /* Only what the bit mask lets through; the rest is the latch's, of the last read. */
    peek(f, WINDOW + 7, 1);
    graphics(f, 8, 0x0f);
    poke(f, WINDOW + 8, 1, 0xaa);
    assert_int_equal(word(f, 8), 0x5a5afa0a);
    graphics(f, 8, 0xff);
    static const uint32_t combined[] = {0x0f0f0f0f, 0x05050f00, 0x5f5fff0f, 0x5a5af00f};
    for (unsigned function = 0; function < 4; function++) {
        peek(f, WINDOW + 7, 1);
        graphics(f, 3, function << 3);
        poke(f, WINDOW + 9, 1, 0x0f);
        assert_int_equal(word(f, 9), combined[function]);
    }
}

static void write_modes_1_to_3(void **state)
{
    struct fixture *f = *state;
    planar(f);
    put_le32(f->vga->vram + 4, 0x04030201);
    graphics(f, 5, 1);
    peek(f, WINDOW + 1, 1);
    poke(f, WINDOW + 2, 1, 0xff);
    assert_int_equal(word(f, 2), 0x04030201);
    graphics(f, 5, 2);
    graphics(f, 8, 0xf0);
    poke(f, WINDOW + 3, 1, 0x5);
    assert_int_equal(word(f, 3), 0x04f302f1);
    graphics(f, 5, 3);
    graphics(f, 8, 0xff);
    graphics(f, 0, 0x9);
    poke(f, WINDOW + 4, 1, 0x0f);
    assert_int_equal(word(f, 4), 0x0f00000f | (0x04030201 & 0xf0f0f0f0));
}

static void read_modes(void **state)
{
    struct fixture *f = *state;
    planar(f);
    put_le32(f->vga->vram, 0x44332211);
    for (unsigned plane = 0; plane < 4; plane++) {
        graphics(f, 4, plane);
        assert_int_equal(peek(f, WINDOW, 1), 0x11 * (plane + 1));
    }
    /* Which dots have colour 5? Plane 3 does not matter. */
    put_le32(f->vga->vram, 0xff0ff03fu);
    graphics(f, 5, 0x08);
    graphics(f, 2, 0x5);
    graphics(f, 7, 0x7);
    assert_int_equal(peek(f, WINDOW, 1), 0x0f);
}

static void text_memory_alternates_between_planes(void **state)
{
    struct fixture *f = *state;
    planar(f);
    sequencer(f, 2, 0x3);
    sequencer(f, 4, 0x2);
    graphics(f, 5, 0x10);
    graphics(f, 6, 0x0e);
    poke(f, 0xb8000, 2, 0x1f41);
    assert_int_equal(word(f, 0), 0x1f41);
    assert_int_equal(peek(f, 0xb8000, 2), 0x1f41);
    /* The other places of the window are empty. */
    poke(f, WINDOW, 1, 0x55);
    poke(f, 0xb0000, 1, 0x55);
    assert_int_equal(peek(f, WINDOW, 2), 0xffff);
    assert_int_equal(peek(f, 0xb0000, 4), 0xffffffff);
    assert_int_equal(word(f, 0), 0x1f41);
    graphics(f, 6, 0x0a);
    assert_int_equal(peek(f, 0xb0000, 2), 0x1f41);
    graphics(f, 6, 0x02);
    assert_int_equal(peek(f, WINDOW, 2), 0x1f41);
    board_out(&f->board, 0x3c2, 1, 0x61);
    assert_int_equal(peek(f, WINDOW, 2), 0xffff);
}

static void chain_4_makes_neighbours_of_planes(void **state)
{
    struct fixture *f = *state;
    planar(f);
    sequencer(f, 4, 0x0e);
    poke(f, WINDOW + 4, 4, 0x44332211);
    assert_int_equal(word(f, 4), 0x44332211);
    assert_int_equal(peek(f, WINDOW + 6, 1), 0x33);
}

static void registers_have_their_bits(void **state)
{
    struct fixture *f = *state;
    board_out(&f->board, 0x3c2, 1, 0x63);
    crtc(f, 1, 79);
    crtc(f, 0x11, 0x80); /* protects 0 to 7 */
    crtc(f, 1, 11);
    board_out(&f->board, 0x3d4, 1, 1);
    assert_int_equal(board_in(&f->board, 0x3d5, 1), 79);
    crtc(f, 7, 0xff);
    board_out(&f->board, 0x3d4, 1, 7);
    assert_int_equal(board_in(&f->board, 0x3d5, 1), 0x10);
    /* The monochrome place is empty, and the other way round. */
    assert_int_equal(board_in(&f->board, 0x3b5, 1), 0xff);
    board_out(&f->board, 0x3c2, 1, 0x62);
    assert_int_equal(board_in(&f->board, 0x3d5, 1), 0xff);
    assert_int_equal(board_in(&f->board, 0x3b5, 1), 0x10);
    assert_int_equal(board_in(&f->board, 0x3cc, 1), 0x62);
    graphics(f, 5, 0xff);
    assert_int_equal(board_in(&f->board, 0x3cf, 1), 0x7b);
    dac(f, 7, 1, 2, 3);
    dac(f, 8, 4, 5, 6);
    board_out(&f->board, 0x3c7, 1, 7);
    for (unsigned i = 1; i <= 6; i++)
        assert_int_equal(board_in(&f->board, 0x3c9, 1), i);
    assert_int_equal(board_in(&f->board, 0x3c7, 1), 3);
    attribute(f, 3, 0x2a);
    board_in(&f->board, 0x3da, 1);
    board_in(&f->board, 0x3ba, 1);
    board_out(&f->board, 0x3c0, 1, 3);
    assert_int_equal(board_in(&f->board, 0x3c1, 1), 0x2a);
}

static void retrace_comes_and_goes(void **state)
{
    struct fixture *f = *state;
    uint64_t limit = clock_now_ns() + 5 * NSEC_PER_SEC;
    unsigned seen = 0;
    board_out(&f->board, 0x3c2, 1, 0x63);
    while (seen != 3 && clock_now_ns() < limit)
        seen |= board_in(&f->board, 0x3da, 1) & 8 ? 1 : 2;
    assert_int_equal(seen, 3);
}

static void vbe_sets_modes(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(vbe_get(f, 0), 0xb0c5);
    assert_int_equal(vbe_get(f, 10), MEMORY / KIB(64));
    vbe(f, 4, 2); /* capabilities */
    assert_int_equal(vbe_get(f, 3), 32);
    assert_true(vbe_get(f, 1) >= 1920 && vbe_get(f, 2) >= 1080);
    vbe(f, 4, 0);
    vbe(f, 1, 640);
    vbe(f, 2, 480);
    vbe(f, 3, 32);
    vbe(f, 3, 7); /* no such depth */
    memset(f->vga->vram, 0xee, MEMORY);
    vbe(f, 4, 0x41);
    assert_int_equal(vbe_get(f, 6), 640);
    assert_int_equal(vbe_get(f, 7), MEMORY / 2560);
    assert_int_equal(get_le32(f->vga->vram), 0);
    vbe(f, 1, 800); /* not while it is on */
    assert_int_equal(vbe_get(f, 1), 640);
    /* The window is a bank. */
    vbe(f, 5, 3);
    poke(f, WINDOW + 2, 2, 0xbeef);
    assert_int_equal(get_le16(f->vga->vram + 3 * 65536 + 2), 0xbeef);
    assert_int_equal(peek(f, WINDOW + 0x10000, 1), 0xff);
    vbe(f, 4, 0);
    vbe(f, 4, 0xc1);
    assert_int_equal(get_le16(f->vga->vram + 3 * 65536 + 2), 0xbeef);
}

static void registers_are_in_bar_2_too(void **state)
{
    struct fixture *f = *state;
    uint8_t edid[128], sum = 0;
    for (unsigned i = 0; i < sizeof(edid); i++) {
        edid[i] = (uint8_t)peek(f, REGISTERS + i, 1);
        sum = (uint8_t)(sum + edid[i]);
    }
    assert_memory_equal(edid, "\0\xff\xff\xff\xff\xff\xff\0", 8);
    assert_int_equal(sum, 0);
    /* The preferred timing: 1024x768. */
    assert_int_equal(edid[54 + 2] | (edid[54 + 4] & 0xf0) << 4, 1024);
    assert_int_equal(edid[54 + 5] | (edid[54 + 7] & 0xf0) << 4, 768);
    assert_int_equal(peek(f, REGISTERS + 0x500, 2), 0xb0c5);
    poke(f, REGISTERS + 0x502, 2, 1024);
    assert_int_equal(vbe_get(f, 1), 1024);
    poke(f, REGISTERS + 0x402, 1, 0x63);
    assert_int_equal(board_in(&f->board, 0x3cc, 1), 0x63);
    assert_int_equal(peek(f, REGISTERS + 0x600, 4), 8);
    assert_int_equal(peek(f, REGISTERS + 0x604, 4), 0x1e1e1e1e);
    assert_int_equal(peek(f, REGISTERS + 0x700, 4), 0xffffffff);
}

static void the_framebuffer_moves_with_its_bar(void **state)
{
    struct fixture *f = *state;
    struct gmem *gmem = f->board.env.gmem;
    const struct gmem_region *memory = gmem_movable(gmem, VGA_MEMORY_NAME);
    /* Until nobody can use the old place, registers answer for the memory. */
    assert_null(gmem_find(gmem, FRAMEBUFFER));
    assert_true(gmem_unsettled(gmem));
    poke(f, FRAMEBUFFER + 8, 4, 0x12345678);
    assert_int_equal(get_le32(memory->ram + 8), 0x12345678);
    assert_int_equal(peek(f, FRAMEBUFFER + MEMORY - 4, 4), 0);
    assert_true(gmem_settle(gmem));
    assert_ptr_equal(gmem_find(gmem, FRAMEBUFFER + 4), memory);
    /* Decoding off and on is no move. */
    pci_config_write(&f->vga->pci, PCI_COMMAND, 2, 0);
    assert_null(gmem_find(gmem, FRAMEBUFFER));
    pci_config_write(&f->vga->pci, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_ptr_equal(gmem_find(gmem, FRAMEBUFFER), memory);
    pci_config_write(&f->vga->pci, PCI_BAR0, 4, 0xffffffff);
    assert_int_equal(pci_config_read(&f->vga->pci, PCI_BAR0, 4), (uint32_t) ~(MEMORY - 1) | 8);
    assert_null(gmem_find(gmem, FRAMEBUFFER));
    /* Over RAM: RAM stays. */
    pci_config_write(&f->vga->pci, PCI_BAR0, 4, MEMORY);
    board_ok(gmem_add_ram(gmem, "more", MEMORY, 0x1000));
    assert_false(gmem_settle(gmem));
    device_reset(&f->vga->pci.device);
    assert_false(gmem_unsettled(gmem));
}

static void writes_by_registers_reach_the_dirty_log(void **state)
{
    struct fixture *f = *state;
    struct gmem *gmem = f->board.env.gmem;
    uint64_t bits[MEMORY / 4096 / 64];
    size_t index = gmem_region_count(gmem) - 1;
    gmem_dirty_enable(gmem, true);
    gmem_dirty_take(gmem, index, bits);
    planar(f);
    poke(f, WINDOW + 0x400, 1, 1); /* byte 0x1000 of the memory */
    poke(f, FRAMEBUFFER + 0x5000, 4, 1);
    gmem_dirty_take(gmem, index, bits);
    assert_int_equal(bits[0], 1 << 1 | 1 << 5);
    /* A mode of no size clears nothing. */
    vbe(f, 4, 1);
    gmem_dirty_take(gmem, index, bits);
    assert_int_equal(bits[0], 0);
}

static void the_option_rom_is_behind_its_bar(void **state)
{
    struct fixture *f = *state;
    pci_config_write(&f->vga->pci, PCI_ROM, 4, 0xffffffff);
    assert_int_equal(pci_config_read(&f->vga->pci, PCI_ROM, 4), 0xfffff001);
    pci_config_write(&f->vga->pci, PCI_ROM, 4, ROM);
    assert_int_equal(peek(f, ROM, 2), 0xffff);
    pci_config_write(&f->vga->pci, PCI_ROM, 4, ROM | 1);
    assert_int_equal(peek(f, ROM, 2), 0xaa55);
    assert_int_equal(peek(f, ROM + 2996, 8), 0xffffffff77000000);
    poke(f, ROM, 2, 0);
    assert_int_equal(peek(f, ROM, 2), 0xaa55);
}

/* Mode 3 as a BIOS sets it, two columns and a half wide. */
static void text_mode(struct fixture *f)
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

static uint32_t pixel(const struct picture *picture, unsigned x, unsigned y)
{
    assert_true(x < picture->width && y < picture->height);
    return picture->pixels[y * picture->width + x];
}

static void text_is_read_and_drawn(void **state)
{
    struct fixture *f = *state;
    static struct text_screen screen;
    struct picture picture;
    text_mode(f);
    poke(f, 0xb8000, 2, 0x9541);
    poke(f, 0xb8008, 2, 0x07c4); /* second row */
    f->vga->vram[(0x41 * 32 + 3) * 4 + 2] = 0x81;
    f->vga->vram[(0xc4 * 32 + 4) * 4 + 2] = 0x01;
    vga_text(f->vga, &screen);
    assert_int_equal(screen.columns, 3);
    assert_int_equal(screen.rows, 2);
    assert_int_equal(screen.cell[0][0].code, 0x41);
    assert_int_equal(screen.cell[0][0].attribute, 0x15); /* blinking is no colour */
    assert_int_equal(screen.cell[1][0].code, 0xc4);
    assert_true(screen.cursor && screen.cursor_column == 1 && screen.cursor_row == 1);
    vga_picture(f->vga, &picture);
    assert_int_equal(picture.width, 27);
    assert_int_equal(picture.height, 32);
    assert_int_equal(pixel(&picture, 0, 3), 0x1700ff); /* 5 of 63, widened */
    assert_int_equal(pixel(&picture, 1, 3), 0x0700ff);
    assert_int_equal(pixel(&picture, 7, 3), 0x1700ff);
    assert_int_equal(pixel(&picture, 8, 3), 0x0700ff);
    /* Line graphics go on into the ninth column. */
    assert_int_equal(pixel(&picture, 7, 20), 0x1f00ff);
    assert_int_equal(pixel(&picture, 8, 20), 0x1f00ff);
    picture_fini(&picture);
    /* Half the dots, and nothing on the screen. */
    sequencer(f, 1, 0x09);
    vga_picture(f->vga, &picture);
    assert_int_equal(picture.width, 48);
    picture_fini(&picture);
    sequencer(f, 1, 0x20);
    vga_picture(f->vga, &picture);
    assert_int_equal(pixel(&picture, 0, 3), 0);
    picture_fini(&picture);
    vga_text(f->vga, &screen);
    assert_int_equal(screen.columns, 0);
    assert_int_equal(screen.width, 0);
}

static void legacy_graphics_are_drawn(void **state)
{
    struct fixture *f = *state;
    struct picture picture;
    text_mode(f);
    graphics(f, 6, 0x05);
    graphics(f, 5, 0);
    crtc(f, 0x09, 0x40);
    crtc(f, 0x17, 0xe3);
    put_le32(f->vga->vram, 0x80402010); /* the top left: colours 8, 4, 2, 1 */
    vga_picture(f->vga, &picture);
    assert_int_equal(picture.width, 24);
    for (unsigned x = 0; x < 4; x++)
        assert_int_equal(pixel(&picture, x, 0) >> 18, 8 >> x);
    picture_fini(&picture);
    /* 256 colours, a pixel is two dots, lines twice. */
    graphics(f, 5, 0x40);
    crtc(f, 0x09, 0x41);
    crtc(f, 0x14, 0x40);
    put_le32(f->vga->vram, 0x03020100);
    vga_picture(f->vga, &picture);
    for (unsigned x = 0; x < 8; x++)
        assert_int_equal(pixel(&picture, x, 1) >> 18, x / 2);
    picture_fini(&picture);
    /* CGA: two bits a dot. */
    graphics(f, 5, 0x20);
    crtc(f, 0x14, 0);
    put_le32(f->vga->vram, 0x00001b1b);
    vga_picture(f->vga, &picture);
    for (unsigned x = 0; x < 8; x++)
        assert_int_equal(pixel(&picture, x, 0) >> 18, x % 4);
    picture_fini(&picture);
}

static void vbe_pictures_of_every_depth(void **state)
{
    static const struct {
        unsigned bpp;
        uint32_t value, colour;
    } cases[] = {{8, 2, 0x0800ff},
                 {15, 0x7c1f, 0xff00ff},
                 {16, 0x07e1, 0x00ff08},
                 {24, 0x123456, 0x123456},
                 {32, 0xff123456, 0x123456}};
    struct fixture *f = *state;
    struct picture picture;
    text_mode(f);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        vbe(f, 4, 0);
        vbe(f, 1, 16);
        vbe(f, 2, 8);
        vbe(f, 3, cases[i].bpp);
        vbe(f, 4, 0x41);
        vbe(f, 6, 24); /* wider in memory than on the screen, and a corner of it */
        vbe(f, 8, 2);
        vbe(f, 9, 1);
        put_le32(f->vga->vram + (24 + 2 + 3) * ((cases[i].bpp + 7) / 8), cases[i].value);
        vga_picture(f->vga, &picture);
        assert_int_equal(picture.width, 16);
        assert_int_equal(picture.height, 8);
        assert_int_equal(pixel(&picture, 3, 0), cases[i].colour);
        picture_fini(&picture);
    }
    vbe(f, 4, 0);
    vbe(f, 3, 4);
    vbe(f, 4, 1);
    put_le32(f->vga->vram + 2 * 4, 0x00008000); /* second row: a dot of colour 2 */
    vga_picture(f->vga, &picture);
    assert_int_equal(pixel(&picture, 0, 1), 0x0800ff);
    picture_fini(&picture);
    /* More picture than memory: the rest is black. */
    vbe(f, 4, 0);
    vbe(f, 1, 4096);
    vbe(f, 2, 4096);
    vbe(f, 3, 32);
    vbe(f, 4, 0x41);
    vbe(f, 9, 0xffff);
    vga_picture(f->vga, &picture);
    assert_int_equal(pixel(&picture, 4095, 4095), 0);
    picture_fini(&picture);
}

static void pictures_become_files(void **state)
{
    struct buf out = BUF_INIT;
    struct picture picture;
    picture_init(&picture, 2, 1);
    picture.pixels[1] = 0x010203;
    picture_ppm(&picture, &out);
    assert_int_equal(out.len, 11 + 6);
    assert_memory_equal(out.data, "P6\n2 1\n255\n\0\0\0\1\2\3", out.len);
    buf_fini(&out);
    out = (struct buf)BUF_INIT;
    board_ok(picture_png(&picture, &out));
    assert_memory_equal(out.data, "\x89PNG\r\n\x1a\n", 8);
    buf_fini(&out);
    picture_fini(&picture);
}

static void state_survives(void **state)
{
    struct fixture *f = *state;
    struct vga *fresh = vga_new(f, "vga");
    text_mode(f);
    vbe(f, 1, 640);
    vbe(f, 4, 1);
    board_out(&f->board, 0x3c9, 1, 5);
    put_le32(f->vga->vram, 0x12345678);
    planar(f);
    peek(f, WINDOW, 1);
    board_round_trip(&f->vga->pci.device, &fresh->pci.device);
    assert_int_equal(fresh->vbe[1], 640);
    device_free(&fresh->pci.device);
}

static void a_state_out_of_range_is_refused(void **state)
{
    struct fixture *f = *state;
    struct vga *fresh = vga_new(f, "vga");
    struct state_writer writer;
    uint8_t *const bytes[] = {&f->vga->graphics[0], &f->vga->sequencer[2], &f->vga->dac_part,
                              &f->vga->crtc_index, (uint8_t *)&f->vga->vbe[3]};
    for (unsigned i = 0; i < ARRAY_SIZE(bytes); i++) {
        uint8_t before = *bytes[i];
        *bytes[i] = 0xf3;
        board_save(&f->vga->pci.device, &writer);
        struct err *err = board_load(&fresh->pci.device, &writer.out);
        assert_non_null(err);
        err_free(err);
        state_writer_fini(&writer);
        *bytes[i] = before;
    }
    device_free(&fresh->pci.device);
}

int main(void)
{
#define VGA_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        VGA_TEST(write_mode_0_rotates_masks_and_combines),
        VGA_TEST(write_modes_1_to_3),
        VGA_TEST(read_modes),
        VGA_TEST(text_memory_alternates_between_planes),
        VGA_TEST(chain_4_makes_neighbours_of_planes),
        VGA_TEST(registers_have_their_bits),
        VGA_TEST(retrace_comes_and_goes),
        VGA_TEST(vbe_sets_modes),
        VGA_TEST(registers_are_in_bar_2_too),
        VGA_TEST(the_framebuffer_moves_with_its_bar),
        VGA_TEST(writes_by_registers_reach_the_dirty_log),
        VGA_TEST(the_option_rom_is_behind_its_bar),
        VGA_TEST(text_is_read_and_drawn),
        VGA_TEST(legacy_graphics_are_drawn),
        VGA_TEST(vbe_pictures_of_every_depth),
        VGA_TEST(pictures_become_files),
        VGA_TEST(state_survives),
        VGA_TEST(a_state_out_of_range_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
