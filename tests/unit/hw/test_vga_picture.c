/*
 * What the screen of the VGA adapter shows: text, legacy graphics, VBE modes, pictures in files.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vga_host.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        VGA_TEST(text_is_read_and_drawn),
        VGA_TEST(legacy_graphics_are_drawn),
        VGA_TEST(vbe_pictures_of_every_depth),
        VGA_TEST(pictures_become_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
