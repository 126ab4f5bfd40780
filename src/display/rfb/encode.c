/*
 * Pixels in the viewer's form, raw and as ZRLE: RFC 6143, sections 7.4 and 7.7.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "display/rfb/rfb_internal.h"

#define PALETTE_MAX 16

/* ---- forms of pixels ---- */

const struct rfb_format rfb_format_standard = {
    .bytes = 4,
    .depth = 24,
    .max = {255, 255, 255},
    .shift = {16, 8, 0},
    .same = true,
    .compact_bytes = 3,
};

/* ZRLE leaves out the byte of a pixel that has no colour in it. */
static void find_compact(struct rfb_format *format)
{
    uint32_t used = 0;

    for (unsigned i = 0; i < 3; i++)
        used |= (uint32_t)format->max[i] << format->shift[i];
    format->compact_bytes = format->bytes;
    format->compact_from = 0;
    if (format->bytes != 4 || format->depth > 24 || (used & 0xff && used >> 24))
        return;
    format->compact_bytes = 3;
    /* The unused byte is the highest, if there is a choice. */
    format->compact_from = (used >> 24 != 0) != format->big_endian;
}

bool rfb_format_get(struct rfb_format *format, const uint8_t *bytes)
{
    struct rfb_format read = {
        .bytes = bytes[0] / 8, .depth = bytes[1], .big_endian = bytes[2] != 0};

    if ((bytes[0] != 8 && bytes[0] != 16 && bytes[0] != 32) || !bytes[3])
        return false; /* or colours by numbers, which nobody wants any more */
    for (unsigned i = 0; i < 3; i++) {
        read.max[i] = get_be16(bytes + 4 + 2 * i);
        read.shift[i] = bytes[10 + i];
        if (read.shift[i] >= bytes[0] || (uint64_t)read.max[i] << read.shift[i] >= 1ull << bytes[0])
            return false;
    }
    read.same = read.bytes == 4 && !read.big_endian;
    for (unsigned i = 0; i < 3; i++)
        read.same &= read.max[i] == 255 && read.shift[i] == rfb_format_standard.shift[i];
    find_compact(&read);
    *format = read;
    return true;
}

void rfb_format_put(const struct rfb_format *format, uint8_t *bytes)
{
    bytes[0] = (uint8_t)(format->bytes * 8);
    bytes[1] = format->depth;
    bytes[2] = format->big_endian;
    bytes[3] = 1; /* true colour */
    for (unsigned i = 0; i < 3; i++) {
        put_be16(bytes + 4 + 2 * i, format->max[i]);
        bytes[10 + i] = format->shift[i];
    }
}

static void put_pixel(const struct rfb_format *format, uint32_t colour, uint8_t bytes[4])
{
    uint32_t value = 0;

    if (format->same) {
        value = colour;
    } else {
        for (unsigned i = 0; i < 3; i++) {
            uint32_t part = colour >> (16 - 8 * i) & 0xff;
            value |= (part * format->max[i] + 127) / 255 << format->shift[i];
        }
    }
    for (unsigned i = 0; i < format->bytes; i++)
        bytes[i] = (uint8_t)(value >> 8 * (format->big_endian ? format->bytes - 1 - i : i));
}

/* ---- the screen ---- */

static uint32_t colour_at(const struct surface *screen, unsigned x, unsigned y)
{
    if (x >= screen->width || y >= screen->height)
        return 0;
    return screen->pixels[(size_t)y * screen->width + x] & 0xffffff;
}

static void encode_raw(struct rfb_session *session, const struct surface_rect *rect)
{
    const struct rfb_format *format = &session->format;
    size_t row = (size_t)rect->width * format->bytes;
    uint8_t *at = buf_extend(&session->out, row * rect->height);

    for (unsigned y = 0; y < rect->height; y++)
        for (unsigned x = 0; x < rect->width; x++, at += format->bytes)
            put_pixel(format, colour_at(session->screen, rect->x + x, rect->y + y), at);
}

/* ---- ZRLE ---- */

struct tile {
    unsigned width, height, count; /* of colours; more than PALETTE_MAX: many */
    uint32_t colours[PALETTE_MAX];
    uint32_t dots[RFB_TILE * RFB_TILE];
    uint8_t numbers[RFB_TILE * RFB_TILE]; /* in the palette */
};

static bool add_colour(struct tile *tile, uint32_t colour, uint8_t *number)
{
    for (unsigned i = 0; i < tile->count; i++) {
        if (tile->colours[i] == colour) {
            *number = (uint8_t)i;
            return true;
        }
    }
    if (tile->count == PALETTE_MAX)
        return false;
    *number = (uint8_t)tile->count;
    tile->colours[tile->count++] = colour;
    return true;
}

static void read_tile(const struct surface *screen, unsigned left, unsigned top, struct tile *tile)
{
    unsigned n = 0;
    bool few = true;

    tile->count = 0;
    for (unsigned y = 0; y < tile->height; y++) {
        for (unsigned x = 0; x < tile->width; x++, n++) {
            uint32_t colour = colour_at(screen, left + x, top + y);
            tile->dots[n] = colour;
            if (few && n && colour == tile->dots[n - 1])
                tile->numbers[n] = tile->numbers[n - 1];
            else
                few = few && add_colour(tile, colour, &tile->numbers[n]);
        }
    }
    if (!few)
        tile->count = PALETTE_MAX + 1;
}

static void append_compact(const struct rfb_format *format, uint32_t colour, struct buf *out)
{
    uint8_t bytes[4];

    put_pixel(format, colour, bytes);
    buf_append(out, bytes + format->compact_from, format->compact_bytes);
}

/* Numbers of colours, the first in the highest bits; each row begins with a byte of its own. */
static void append_packed(const struct tile *tile, struct buf *out)
{
    unsigned bits = tile->count <= 2 ? 1 : tile->count <= 4 ? 2 : 4;

    for (unsigned y = 0; y < tile->height; y++) {
        uint8_t *row = buf_extend(out, (tile->width * bits + 7) / 8);
        for (unsigned x = 0; x < tile->width; x++)
            row[x * bits / 8] |=
                (uint8_t)(tile->numbers[y * tile->width + x] << (8 - bits - x * bits % 8));
    }
}

static void append_tile(const struct rfb_format *format, const struct tile *tile, struct buf *out)
{
    if (tile->count > PALETTE_MAX) {
        buf_u8(out, 0); /* raw */
        for (unsigned i = 0; i < tile->width * tile->height; i++)
            append_compact(format, tile->dots[i], out);
        return;
    }
    buf_u8(out, (uint8_t)tile->count); /* 1: all of one colour */
    for (unsigned i = 0; i < tile->count; i++)
        append_compact(format, tile->colours[i], out);
    if (tile->count > 1)
        append_packed(tile, out);
}

static void append_zlib(struct rfb_session *session)
{
    z_stream *zlib = &session->zlib;
    struct buf *out = &session->out;
    size_t at = out->len;

    rfb_u32(out, 0); /* their length */
    zlib->next_in = session->scratch.data;
    zlib->avail_in = (uInt)session->scratch.len;
    do {
        uint8_t *room = buf_extend(out, KIB(16));
        zlib->next_out = room;
        zlib->avail_out = KIB(16);
        deflate(zlib, Z_SYNC_FLUSH);
        out->len -= zlib->avail_out;
    } while (!zlib->avail_out);
    put_be32(out->data + at, (uint32_t)(out->len - at - 4));
    session->scratch.len = 0;
}

static void encode_zrle(struct rfb_session *session, const struct surface_rect *rect)
{
    struct tile tile;

    for (unsigned y = 0; y < rect->height; y += RFB_TILE) {
        for (unsigned x = 0; x < rect->width; x += RFB_TILE) {
            tile.width = MIN(RFB_TILE, rect->width - x);
            tile.height = MIN(RFB_TILE, rect->height - y);
            read_tile(session->screen, rect->x + x, rect->y + y, &tile);
            append_tile(&session->format, &tile, &session->scratch);
        }
    }
    append_zlib(session);
}

void rfb_encode(struct rfb_session *session, const struct surface_rect *rect)
{
    rfb_rect_header(&session->out, rect, session->zrle ? RFB_ZRLE : RFB_RAW);
    if (session->zrle)
        encode_zrle(session, rect);
    else
        encode_raw(session, rect);
}
