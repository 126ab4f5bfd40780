/*
 * A screen's pixels in memory that two processes share: tenon-vmm draws into it, tenon-view shows
 * it. And what the two say to each other about it, over a SOCK_SEQPACKET socket: a message a
 * packet, fields little-endian.
 *
 * The viewer owns the memory and asks for each drawing, so that a screen at which nobody looks
 * costs nothing. What is drawn while the viewer reads is reported as changed again: what it sends
 * on is never wrong for long.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DISPLAY_SURFACE_H
#define TENON_DISPLAY_SURFACE_H

#include "display/picture.h"

#define SURFACE_PIXELS_MAX (4096u * 4096)
#define SURFACE_SIDE_MAX 8192u
#define SURFACE_SIZE ((size_t)SURFACE_PIXELS_MAX * sizeof(uint32_t)) /* of the memory file */
#define SURFACE_RECTS_MAX 128
#define SURFACE_POINT_MAX 0x7fff /* right or lower edge of the screen */

struct surface_rect {
    uint16_t x, y, width, height;
};

/* Pixels are 0x00rrggbb, row by row without gaps. */
struct surface {
    unsigned width, height;
    uint32_t *pixels; /* shared, SURFACE_SIZE bytes; not owned */
};

/*
 * Makes the surface show `picture` and tells which rectangles have changed. A picture that is too
 * large is cut off below; no adapter has a mode that is too wide.
 */
unsigned surface_draw(struct surface *surface, const struct picture *picture,
                      struct surface_rect rects[SURFACE_RECTS_MAX]);

enum surface_message_type {
    SURFACE_SHARE = 1, /* viewer: the memory comes along; sealed against shrinking */
    SURFACE_REFRESH,   /* viewer: draw, and tell what has changed */
    SURFACE_KEY,       /* viewer */
    SURFACE_POINTER,   /* viewer */
    SURFACE_FRAME,     /* VM: the answer to each SURFACE_REFRESH */
};

enum surface_button { SURFACE_LEFT = 1, SURFACE_RIGHT = 2, SURFACE_MIDDLE = 4 };

struct surface_message {
    enum surface_message_type type;
    uint8_t key, down;      /* SURFACE_KEY */
    uint8_t buttons;        /* SURFACE_POINTER: enum surface_button, all that are down */
    int8_t wheel;           /* steps towards the user */
    uint16_t x, y;          /* up to SURFACE_POINT_MAX */
    uint16_t width, height; /* SURFACE_FRAME */
    unsigned count;         /* of rects */
    struct surface_rect rects[SURFACE_RECTS_MAX];
};

#define SURFACE_MESSAGE_MAX (8 + 8 * SURFACE_RECTS_MAX)

/* The bytes of a message; their number. */
size_t surface_message_put(const struct surface_message *message, uint8_t *bytes);
/* False when the bytes are no message: too few, too many, or a value out of its range. */
bool surface_message_get(struct surface_message *message, const uint8_t *bytes, size_t len);

#endif
