/*
 * A still picture of a screen.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DISPLAY_PICTURE_H
#define TENON_DISPLAY_PICTURE_H

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

struct picture {
    unsigned width, height;
    uint32_t *pixels; /* 0x00rrggbb, row by row; owned */
};

/* Black, of this size. */
void picture_init(struct picture *picture, unsigned width, unsigned height);
void picture_fini(struct picture *picture);
/* Appends a whole file: PNG, or binary PPM (P6). */
struct err *picture_png(const struct picture *picture, struct buf *out);
void picture_ppm(const struct picture *picture, struct buf *out);

#endif
