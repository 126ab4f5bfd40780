/*
 * What the VGA adapter shows: the CRT controller's walk through memory, the attribute controller
 * and the DAC (IBM PS/2 hardware technical reference, video subsystem), or a VBE mode's pixels.
 *
 * A picture has the monitor's dots: a mode of 320 pixels a line has 640. Blinking things are shown;
 * a picture of the same screen is always the same.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "base/bytes.h"
#include "hw/display/vga_internal.h"

#define ATTRIBUTE_MODE 0x10
#define ATTRIBUTE_MODE_LINE_GRAPHICS 0x04
#define ATTRIBUTE_MODE_BLINK 0x08
#define ATTRIBUTE_MODE_PALETTE_SELECT 0x80
#define ATTRIBUTE_PLANES 0x12
#define ATTRIBUTE_COLOUR_SELECT 0x14
#define ATTRIBUTE_INDEX_SHOW 0x20
#define UNDERLINE_CELL 0x07 /* attribute & 0x77 of an underlined cell */

/* The CRT controller's registers, as numbers. */
struct crtc {
    unsigned columns, lines; /* characters a line, scan lines */
    unsigned cell_width, cell_height;
    bool double_scan, half_clock;
    uint32_t start, stride; /* addresses, in character clocks */
    uint32_t line_compare;
    bool cursor;
    uint32_t cursor_at;
    unsigned cursor_first, cursor_last;
};

static bool is_text(const struct vga *vga)
{
    return !vga_vbe_on(vga) && !(vga->graphics[GRAPHICS_MISC] & GRAPHICS_MISC_GRAPHICS);
}

static bool is_blank(const struct vga *vga)
{
    return !(vga->attribute_index & ATTRIBUTE_INDEX_SHOW) ||
           vga->sequencer[SEQUENCER_CLOCKING] & CLOCKING_SCREEN_OFF;
}

static struct crtc crtc_read(const struct vga *vga)
{
    const uint8_t *r = vga->crtc;
    bool nine = is_text(vga) && !(vga->sequencer[SEQUENCER_CLOCKING] & CLOCKING_8_DOTS);

    return (struct crtc){
        .columns = r[0x01] + 1u,
        .lines = (r[0x12] | (r[0x07] & 0x02) << 7 | (r[0x07] & 0x40) << 3) + 1u,
        .cell_width = nine ? 9 : 8,
        .cell_height = (r[0x09] & 0x1fu) + 1,
        .double_scan = r[0x09] & 0x80,
        .half_clock = vga->sequencer[SEQUENCER_CLOCKING] & CLOCKING_HALF,
        .start = (uint32_t)r[0x0c] << 8 | r[0x0d],
        .stride = r[0x13] * 2u,
        .line_compare = r[0x18] | (uint32_t)(r[0x07] & 0x10) << 4 | (uint32_t)(r[0x09] & 0x40) << 3,
        .cursor = !(r[0x0a] & 0x20),
        .cursor_at = (uint32_t)r[0x0e] << 8 | r[0x0f],
        .cursor_first = r[0x0a] & 0x1f,
        .cursor_last = r[0x0b] & 0x1f,
    };
}

/* The word of all planes that the CRT controller fetches at a character clock. */
static uint32_t fetch(const struct vga *vga, uint32_t counter, unsigned row_scan)
{
    const uint8_t *r = vga->crtc;
    uint32_t a = counter & 0xffff;

    if (r[0x14] & 0x40)
        a = a << 2 | (a >> 14 & 3);
    else if (!(r[0x17] & 0x40))
        a = a << 1 | (r[0x17] & 0x20 ? a >> 15 & 1 : a >> 13 & 1);
    /* What CGA and Hercules modes do with lines of one row. */
    if (!(r[0x17] & 0x01))
        a = (a & ~0x2000u) | (row_scan & 1) << 13;
    if (!(r[0x17] & 0x02))
        a = (a & ~0x4000u) | (row_scan >> 1 & 1) << 14;
    return get_le32(vga->vram + (a & 0xffff) * 4);
}

/* --- colours --- */

/* The DAC's 6 bits become 8 by repeating the lowest. */
static uint8_t widen(const struct vga *vga, uint8_t value)
{
    if (vga->vbe[VBE_ENABLE] & VBE_8BIT_DAC)
        return value;
    value &= 0x3f;
    return (uint8_t)(value << 2 | (value & 1) * 3);
}

static uint32_t dac_colour(const struct vga *vga, unsigned index)
{
    const uint8_t *entry = vga->dac + 3 * (index & 0xff & vga->dac_mask);

    return (uint32_t)widen(vga, entry[0]) << 16 | (uint32_t)widen(vga, entry[1]) << 8 |
           widen(vga, entry[2]);
}

/* The 16 colours of the attribute controller's palette. */
static void palette_16(const struct vga *vga, uint32_t colours[16])
{
    const uint8_t *r = vga->attribute;
    unsigned select = r[ATTRIBUTE_COLOUR_SELECT];

    for (unsigned i = 0; i < 16; i++) {
        unsigned index = r[i] & 0x3f;
        if (r[ATTRIBUTE_MODE] & ATTRIBUTE_MODE_PALETTE_SELECT)
            index = (index & 0x0f) | (select & 0x0f) << 4;
        else
            index |= (select & 0x0c) << 4;
        colours[i] = dac_colour(vga, index);
    }
}

static void palette_256(const struct vga *vga, uint32_t colours[256])
{
    for (unsigned i = 0; i < 256; i++)
        colours[i] = dac_colour(vga, i);
}

/* --- text --- */

/* With blinking, the background's highest bit means that instead. */
static uint8_t shown_attribute(const struct vga *vga, uint8_t attribute)
{
    return vga->attribute[ATTRIBUTE_MODE] & ATTRIBUTE_MODE_BLINK ? attribute & 0x7f : attribute;
}

/* One of eight fonts in plane 2: with two selected, bit 3 of the attribute chooses. */
static uint8_t glyph_row(const struct vga *vga, uint8_t code, uint8_t attribute, unsigned row)
{
    unsigned fonts = vga->sequencer[SEQUENCER_FONTS];
    unsigned font = attribute & 8 ? (fonts >> 2 & 3) << 1 | (fonts >> 5 & 1)
                                  : (fonts & 3) << 1 | (fonts >> 4 & 1);

    return vga->vram[(font * 0x2000 + code * 32u + row) * 4 + 2];
}

/* The dots of one line of a cell, the leftmost in bit 8. */
static unsigned cell_dots(const struct vga *vga, const struct crtc *crtc, uint32_t word,
                          uint32_t counter, unsigned row_scan)
{
    uint8_t code = (uint8_t)word, attribute = (uint8_t)(word >> 8);
    unsigned dots = (unsigned)glyph_row(vga, code, attribute, row_scan) << 1;

    if (code >= 0xc0 && code < 0xe0 &&
        vga->attribute[ATTRIBUTE_MODE] & ATTRIBUTE_MODE_LINE_GRAPHICS)
        dots |= dots >> 1 & 1;
    if ((attribute & UNDERLINE_CELL) == 1 && !(attribute & 0x70) &&
        row_scan == (vga->crtc[0x14] & 0x1fu) && !(vga->misc & 1))
        dots = 0x1ff;
    if (crtc->cursor && counter == crtc->cursor_at && row_scan >= crtc->cursor_first &&
        row_scan <= crtc->cursor_last)
        dots = 0x1ff;
    return dots;
}

static void text_cell_line(const struct vga *vga, const struct crtc *crtc, uint32_t counter,
                           unsigned row_scan, const uint32_t colours[16], uint32_t *dot)
{
    uint32_t word = fetch(vga, counter, row_scan);
    unsigned dots = cell_dots(vga, crtc, word, counter, row_scan);
    uint8_t attribute = shown_attribute(vga, (uint8_t)(word >> 8));

    for (unsigned i = 0; i < crtc->cell_width; i++)
        dot[i] = colours[dots >> (8 - i) & 1 ? attribute & 15 : attribute >> 4];
}

/* --- graphics --- */

/* Eight dots of one character clock, as numbers of colours. */
static void graphics_dots(const struct vga *vga, uint32_t word, uint8_t dots[8])
{
    unsigned shift = vga->graphics[GRAPHICS_MODE] >> 5 & 3;

    for (unsigned i = 0; i < 8; i++) {
        if (shift >= 2) { /* 256 colours: a byte is two dots */
            dots[i] = (uint8_t)(word >> (i / 2 * 8));
        } else if (shift == 1) { /* CGA: two bits a dot, planes 0 and 2, then 1 and 3 */
            unsigned low = word >> (i / 4 * 8) & 0xff, high = word >> (16 + i / 4 * 8) & 0xff;
            unsigned at = 6 - i % 4 * 2;
            dots[i] = (uint8_t)((low >> at & 3) | (high >> at & 3) << 2);
        } else { /* a bit of each plane */
            unsigned at = 7 - i;
            dots[i] = (uint8_t)((word >> at & 1) | (word >> (7 + at) & 2) |
                                (word >> (14 + at) & 4) | (word >> (21 + at) & 8));
        }
    }
}

static void graphics_cell_line(const struct vga *vga, uint32_t counter, unsigned row_scan,
                               const uint32_t colours[256], uint32_t dot[8])
{
    uint8_t dots[8], mask = 0xff;

    if (!(vga->graphics[GRAPHICS_MODE] & 0x40))
        mask = vga->attribute[ATTRIBUTE_PLANES] & 0x0f;
    graphics_dots(vga, fetch(vga, counter, row_scan), dots);
    for (unsigned i = 0; i < 8; i++)
        dot[i] = colours[dots[i] & mask];
}

/* Text and graphics alike: lines of character clocks. */
static void draw_legacy(const struct vga *vga, struct picture *picture)
{
    struct crtc crtc = crtc_read(vga);
    unsigned wide = crtc.half_clock ? 2 : 1, scan = 0;
    uint32_t colours[256], row = crtc.start;

    picture_init(picture, crtc.columns * crtc.cell_width * wide, crtc.lines);
    if (is_blank(vga))
        return;
    if (!is_text(vga) && vga->graphics[GRAPHICS_MODE] & 0x40)
        palette_256(vga, colours);
    else
        palette_16(vga, colours);
    for (unsigned y = 0; y < crtc.lines; y++) {
        unsigned row_scan = crtc.double_scan ? scan / 2 : scan;
        uint32_t *line = picture->pixels + (size_t)y * picture->width;
        for (unsigned column = 0; column < crtc.columns; column++) {
            uint32_t dot[9];
            if (is_text(vga))
                text_cell_line(vga, &crtc, row + column, row_scan, colours, dot);
            else
                graphics_cell_line(vga, row + column, row_scan, colours, dot);
            for (unsigned i = 0; i < crtc.cell_width * wide; i++)
                *line++ = dot[i / wide];
        }
        if (++scan == crtc.cell_height << crtc.double_scan) {
            scan = 0;
            row += crtc.stride;
        }
        if (y == crtc.line_compare)
            row = scan = 0;
    }
}

/* --- VBE --- */

static uint32_t scale(unsigned value, unsigned bits)
{
    return value << (8 - bits) | value >> (2 * bits - 8);
}

static uint32_t vbe_pixel(const struct vga *vga, const uint8_t *at, const uint32_t colours[256])
{
    unsigned value;

    switch (vga->vbe[VBE_BPP]) {
    case 8:
        return colours[*at];
    case 15:
        value = get_le16(at);
        return scale(value >> 10 & 31, 5) << 16 | scale(value >> 5 & 31, 5) << 8 |
               scale(value & 31, 5);
    case 16:
        value = get_le16(at);
        return scale(value >> 11, 5) << 16 | scale(value >> 5 & 63, 6) << 8 | scale(value & 31, 5);
    case 24:
        return (uint32_t)at[2] << 16 | (uint32_t)at[1] << 8 | at[0];
    default:
        return get_le32(at) & 0xffffff;
    }
}

/* Four planes: eight pixels are a word. */
static void vbe_line_16(const struct vga *vga, uint32_t at, unsigned width,
                        const uint32_t colours[16], uint32_t *line)
{
    for (unsigned x = 0; x < width; x += 8) {
        uint32_t word = at + x / 8;
        uint8_t dots[8] = {0};
        if (word < vga->vram_size / 4)
            graphics_dots(vga, get_le32(vga->vram + word * 4), dots);
        for (unsigned i = 0; i < 8; i++)
            line[x + i] = colours[dots[i] & vga->attribute[ATTRIBUTE_PLANES] & 0x0f];
    }
}

/* What lies beyond the end of memory is black. */
static void draw_vbe(const struct vga *vga, struct picture *picture)
{
    unsigned width = vga->vbe[VBE_XRES], height = vga->vbe[VBE_YRES], bpp = vga->vbe[VBE_BPP];
    unsigned bytes = (bpp + 7) / 8;
    uint32_t stride = vga_vbe_stride(vga), colours[256];

    picture_init(picture, width, height);
    if (is_blank(vga))
        return;
    if (bpp == 4)
        palette_16(vga, colours);
    else
        palette_256(vga, colours);
    for (unsigned y = 0; y < height; y++) {
        uint32_t *line = picture->pixels + (size_t)y * width;
        uint64_t at = (uint64_t)(vga->vbe[VBE_Y_OFFSET] + y) * stride;
        if (bpp == 4) {
            vbe_line_16(vga, (uint32_t)at + vga->vbe[VBE_X_OFFSET] / 8u, width, colours, line);
            continue;
        }
        at += (uint64_t)vga->vbe[VBE_X_OFFSET] * bytes;
        for (unsigned x = 0; x < width && at + bytes <= vga->vram_size; x++, at += bytes)
            line[x] = vbe_pixel(vga, vga->vram + at, colours);
    }
}

void vga_picture(struct vga *vga, struct picture *picture)
{
    lock_take(&vga->pci.device.lock);
    if (vga_vbe_on(vga))
        draw_vbe(vga, picture);
    else
        draw_legacy(vga, picture);
    lock_drop(&vga->pci.device.lock);
}

static void text_read(const struct vga *vga, struct text_screen *screen)
{
    struct crtc crtc = crtc_read(vga);
    unsigned height = crtc.cell_height << crtc.double_scan;

    screen->columns = MIN(crtc.columns, (unsigned)TEXT_COLUMNS_MAX);
    screen->rows = MIN(crtc.lines / height, (unsigned)TEXT_ROWS_MAX);
    for (unsigned y = 0; y < screen->rows; y++) {
        for (unsigned x = 0; x < screen->columns; x++) {
            uint32_t counter = crtc.start + y * crtc.stride + x;
            uint32_t word = fetch(vga, counter, 0);
            uint8_t attribute = shown_attribute(vga, (uint8_t)(word >> 8));
            screen->cell[y][x] = (struct text_cell){(uint8_t)word, attribute};
            if (crtc.cursor && counter == crtc.cursor_at && crtc.cursor_first <= crtc.cursor_last) {
                screen->cursor = true;
                screen->cursor_column = x;
                screen->cursor_row = y;
            }
        }
    }
}

void vga_text(struct vga *vga, struct text_screen *screen)
{
    lock_take(&vga->pci.device.lock);
    screen->columns = screen->rows = screen->width = screen->height = 0;
    screen->cursor = false;
    if (is_text(vga) && !is_blank(vga)) {
        text_read(vga, screen);
    } else if (!is_blank(vga)) {
        struct crtc crtc = crtc_read(vga);
        screen->width = vga_vbe_on(vga) ? vga->vbe[VBE_XRES] : crtc.columns * 8;
        screen->height = vga_vbe_on(vga) ? vga->vbe[VBE_YRES] : crtc.lines;
    }
    lock_drop(&vga->pci.device.lock);
}
