/*
 * Shared screens. See surface.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "display/surface.h"

#include "base/bytes.h"

/* Changes are looked for in tiles: a letter that was typed costs one, a row of them is a run. */
#define TILE_WIDTH 64u
#define TILE_HEIGHT 16u

/* ---- drawing ---- */

/* Copies one tile if it differs. */
static bool draw_tile(struct surface *surface, const struct picture *picture,
                      const struct surface_rect *tile)
{
    bool changed = false;

    for (unsigned y = tile->y; y < tile->y + tile->height; y++) {
        size_t at = (size_t)y * surface->width + tile->x, len = tile->width * sizeof(uint32_t);
        if (!memcmp(surface->pixels + at, picture->pixels + at, len))
            continue;
        memcpy(surface->pixels + at, picture->pixels + at, len);
        changed = true;
    }
    return changed;
}

/* Adds a tile to the rectangle left of it, or to the list; false when that is full. */
static bool add_tile(struct surface_rect rects[SURFACE_RECTS_MAX], unsigned *count,
                     const struct surface_rect *tile)
{
    struct surface_rect *last = *count ? &rects[*count - 1] : NULL;

    if (last && last->y == tile->y && last->x + last->width == tile->x) {
        last->width = (uint16_t)(last->width + tile->width);
        return true;
    }
    if (*count == SURFACE_RECTS_MAX)
        return false;
    rects[(*count)++] = *tile;
    return true;
}

static unsigned whole(const struct surface *surface, struct surface_rect *rect)
{
    *rect = (struct surface_rect){0, 0, (uint16_t)surface->width, (uint16_t)surface->height};
    return 1;
}

unsigned surface_draw(struct surface *surface, const struct picture *picture,
                      struct surface_rect rects[SURFACE_RECTS_MAX])
{
    unsigned width = picture->width, count = 0;
    bool full = false;

    if (!width || width > SURFACE_SIDE_MAX)
        return 0;
    unsigned height = MIN(picture->height, MIN(SURFACE_PIXELS_MAX / width, SURFACE_SIDE_MAX));
    if (width != surface->width || height != surface->height) {
        surface->width = width;
        surface->height = height;
        memcpy(surface->pixels, picture->pixels, (size_t)width * height * sizeof(uint32_t));
        return whole(surface, rects);
    }
    for (unsigned y = 0; y < height; y += TILE_HEIGHT) {
        for (unsigned x = 0; x < width; x += TILE_WIDTH) {
            struct surface_rect tile = {(uint16_t)x, (uint16_t)y,
                                        (uint16_t)MIN(TILE_WIDTH, width - x),
                                        (uint16_t)MIN(TILE_HEIGHT, height - y)};
            if (draw_tile(surface, picture, &tile) && !add_tile(rects, &count, &tile))
                full = true;
        }
    }
    return full ? whole(surface, rects) : count;
}

/* ---- messages ---- */

static void put_rect(uint8_t *at, const struct surface_rect *rect)
{
    put_le16(at, rect->x);
    put_le16(at + 2, rect->y);
    put_le16(at + 4, rect->width);
    put_le16(at + 6, rect->height);
}

size_t surface_message_put(const struct surface_message *message, uint8_t *bytes)
{
    bytes[0] = (uint8_t)message->type;
    switch (message->type) {
    case SURFACE_SHARE:
    case SURFACE_REFRESH:
        break;
    case SURFACE_KEY:
        bytes[1] = message->key;
        bytes[2] = message->down;
        return 3;
    case SURFACE_POINTER:
        bytes[1] = message->buttons;
        bytes[2] = (uint8_t)message->wheel;
        put_le16(bytes + 3, message->x);
        put_le16(bytes + 5, message->y);
        return 7;
    case SURFACE_FRAME:
        put_le16(bytes + 1, message->width);
        put_le16(bytes + 3, message->height);
        bytes[5] = (uint8_t)message->count;
        for (unsigned i = 0; i < message->count; i++)
            put_rect(bytes + 6 + 8 * i, &message->rects[i]);
        return 6 + 8 * message->count;
    }
    return 1;
}

static bool get_frame(struct surface_message *message, const uint8_t *bytes, size_t len)
{
    if (len < 6)
        return false;
    message->width = get_le16(bytes + 1);
    message->height = get_le16(bytes + 3);
    message->count = bytes[5];
    if (message->count > SURFACE_RECTS_MAX || len != 6 + 8 * message->count ||
        message->width > SURFACE_SIDE_MAX || message->height > SURFACE_SIDE_MAX ||
        (uint32_t)message->width * message->height > SURFACE_PIXELS_MAX)
        return false;
    for (unsigned i = 0; i < message->count; i++) {
        const uint8_t *at = bytes + 6 + 8 * i;
        struct surface_rect *rect = &message->rects[i];
        *rect = (struct surface_rect){get_le16(at), get_le16(at + 2), get_le16(at + 4),
                                      get_le16(at + 6)};
        if (rect->x + rect->width > message->width || rect->y + rect->height > message->height)
            return false;
    }
    return true;
}

bool surface_message_get(struct surface_message *message, const uint8_t *bytes, size_t len)
{
    if (!len)
        return false;
    message->type = (enum surface_message_type)bytes[0];
    switch (bytes[0]) {
    case SURFACE_SHARE:
    case SURFACE_REFRESH:
        return len == 1;
    case SURFACE_KEY:
        if (len != 3 || !(bytes[1] & 0x7f) || bytes[2] > 1)
            return false;
        message->key = bytes[1];
        message->down = bytes[2];
        return true;
    case SURFACE_POINTER:
        if (len != 7)
            return false;
        message->buttons = bytes[1];
        message->wheel = (int8_t)bytes[2];
        message->x = get_le16(bytes + 3);
        message->y = get_le16(bytes + 5);
        return message->x <= SURFACE_POINT_MAX && message->y <= SURFACE_POINT_MAX;
    case SURFACE_FRAME:
        return get_frame(message, bytes, len);
    default:
        return false;
    }
}
