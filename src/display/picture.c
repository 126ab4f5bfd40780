/*
 * Pictures as files. See picture.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "display/picture.h"

#include <png.h>
#include <stdlib.h>

void picture_init(struct picture *picture, unsigned width, unsigned height)
{
    picture->width = width;
    picture->height = height;
    picture->pixels = xcalloc(MAX((size_t)width * height, (size_t)1), sizeof(uint32_t));
}

void picture_fini(struct picture *picture)
{
    free(picture->pixels);
    *picture = (struct picture){0};
}

/* One row as bytes: red, green, blue. */
static void row_bytes(const struct picture *picture, unsigned y, uint8_t *bytes)
{
    const uint32_t *pixel = picture->pixels + (size_t)y * picture->width;

    for (unsigned x = 0; x < picture->width; x++) {
        *bytes++ = (uint8_t)(pixel[x] >> 16);
        *bytes++ = (uint8_t)(pixel[x] >> 8);
        *bytes++ = (uint8_t)pixel[x];
    }
}

void picture_ppm(const struct picture *picture, struct buf *out)
{
    uint8_t *row = xcalloc(picture->width + 1, 3);

    buf_printf(out, "P6\n%u %u\n255\n", picture->width, picture->height);
    for (unsigned y = 0; y < picture->height; y++) {
        row_bytes(picture, y, row);
        buf_append(out, row, (size_t)picture->width * 3);
    }
    free(row);
}

static void on_png_data(png_structp png, png_bytep bytes, png_size_t len)
{
    buf_append(png_get_io_ptr(png), bytes, len);
}

static void on_png_flush(png_structp png)
{
}

/* libpng leaves by longjmp: what it may change lies in the caller. */
static bool png_encode(const struct picture *picture, png_structp png, png_infop info, uint8_t *row,
                       struct buf *out)
{
    if (setjmp(png_jmpbuf(png)))
        return false;
    png_set_write_fn(png, out, on_png_data, on_png_flush);
    png_set_IHDR(png, info, picture->width, picture->height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    /* Screens are flat areas: fast compression without filters is as small. */
    png_set_filter(png, 0, PNG_FILTER_NONE);
    png_set_compression_level(png, 3);
    png_write_info(png, info);
    for (unsigned y = 0; y < picture->height; y++) {
        row_bytes(picture, y, row);
        png_write_row(png, row);
    }
    png_write_end(png, info);
    return true;
}

struct err *picture_png(const struct picture *picture, struct buf *out)
{
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    uint8_t *row = xcalloc(picture->width + 1, 3);
    bool good = info && png_encode(picture, png, info, row, out);

    png_destroy_write_struct(&png, &info);
    free(row);
    return good
               ? NULL
               : err_new("the picture of %ux%u could not be made", picture->width, picture->height);
}
