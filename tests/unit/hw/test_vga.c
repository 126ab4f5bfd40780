/*
 * The VGA adapter: planes, write and read modes, VBE, the BARs, state.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vga_host.h"

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
        VGA_TEST(state_survives),
        VGA_TEST(a_state_out_of_range_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
