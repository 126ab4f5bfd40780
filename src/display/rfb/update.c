/*
 * What has changed on the screen, and what of it a viewer is told: RFC 6143, section 7.6.1.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "display/rfb/rfb_internal.h"

bool rfb_cut(struct surface_rect *rect, unsigned width, unsigned height)
{
    if (rect->x >= width || rect->y >= height)
        return false;
    rect->width = (uint16_t)MIN((unsigned)rect->width, width - rect->x);
    rect->height = (uint16_t)MIN((unsigned)rect->height, height - rect->y);
    return rect->width && rect->height;
}

static bool tile_is_changed(const struct rfb_session *session, unsigned x, unsigned y)
{
    return session->changed[y][x / 64] >> (x % 64) & 1;
}

void rfb_session_changed(struct rfb_session *session, const struct surface_rect *rect)
{
    if (!rect) {
        memset(session->changed, 0xff, sizeof(session->changed));
        return;
    }
    for (unsigned y = rect->y / RFB_TILE; y <= (rect->y + rect->height - 1u) / RFB_TILE; y++)
        for (unsigned x = rect->x / RFB_TILE; x <= (rect->x + rect->width - 1u) / RFB_TILE; x++)
            if (x < RFB_TILES && y < RFB_TILES)
                session->changed[y][x / 64] |= 1ull << (x % 64);
}

bool rfb_session_is_waiting(const struct rfb_session *session)
{
    return session->state == RFB_NORMAL && session->waiting;
}

/* The changed tiles of a row that lie side by side, from *x on; false: no more. */
static bool next_run(struct rfb_session *session, unsigned *x, unsigned y,
                     struct surface_rect *rect)
{
    unsigned columns = (session->width + RFB_TILE - 1) / RFB_TILE, first;
    const struct surface_rect *wanted = &session->wanted;
    unsigned wanted_end = MIN((wanted->x + wanted->width + RFB_TILE - 1) / RFB_TILE, columns);

    *x = MAX(*x, wanted->x / RFB_TILE);
    while (*x < wanted_end && !tile_is_changed(session, *x, y))
        ++*x;
    first = *x;
    for (; *x < wanted_end && tile_is_changed(session, *x, y); ++*x)
        session->changed[y][*x / 64] &= ~(1ull << (*x % 64));
    if (*x == first)
        return false;
    *rect = (struct surface_rect){(uint16_t)(first * RFB_TILE), (uint16_t)(y * RFB_TILE),
                                  (uint16_t)((*x - first) * RFB_TILE), RFB_TILE};
    return rfb_cut(rect, session->width, session->height);
}

static unsigned encode_changes(struct rfb_session *session)
{
    const struct surface_rect *wanted = &session->wanted;
    unsigned end = MIN(wanted->y + wanted->height + 0u, session->height), count = 0;
    struct surface_rect rect;

    for (unsigned y = wanted->y / RFB_TILE; y * RFB_TILE < end; y++)
        for (unsigned x = 0; next_run(session, &x, y, &rect); count++)
            rfb_encode(session, &rect);
    return count;
}

/* Pseudo-rectangles: the new size, and that keys may come with their places. */
static unsigned announce(struct rfb_session *session)
{
    unsigned count = 0;

    if (session->resizes &&
        (session->width != session->screen->width || session->height != session->screen->height)) {
        session->width = session->screen->width;
        session->height = session->screen->height;
        struct surface_rect size = {0, 0, (uint16_t)session->width, (uint16_t)session->height};
        rfb_rect_header(&session->out, &size, RFB_DESKTOP_SIZE);
        rfb_session_changed(session, NULL);
        return 1; /* the viewer asks for the contents by itself */
    }
    if (session->qemu_keys && !session->keys_announced) {
        rfb_rect_header(&session->out, &(struct surface_rect){0}, RFB_QEMU_KEYS);
        session->keys_announced = true;
        count++;
    }
    return count + encode_changes(session);
}

void rfb_session_update(struct rfb_session *session)
{
    struct buf *out = &session->out;
    size_t at = out->len;

    if (!rfb_session_is_waiting(session))
        return;
    buf_extend(out, 4); /* FramebufferUpdate, padding, number of rectangles */
    unsigned count = announce(session);
    if (!count) {
        out->len = at;
        return;
    }
    put_be16(out->data + at + 2, (uint16_t)count);
    session->waiting = false;
}
