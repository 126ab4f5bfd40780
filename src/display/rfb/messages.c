/*
 * What a viewer says once it is let in: RFC 6143, section 7.5.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "display/rfb/rfb_internal.h"

enum message_type {
    SET_PIXEL_FORMAT = 0,
    SET_ENCODINGS = 2,
    UPDATE_REQUEST = 3,
    KEY_EVENT = 4,
    POINTER_EVENT = 5,
    CUT_TEXT = 6,
    SET_DESKTOP_SIZE = 251,
    QEMU_EVENT = 255,
};
#define QEMU_KEY_EVENT 0

#define ENCODINGS_MAX 1024
#define CUT_TEXT_MAX MIB(16)

/* ---- the start ---- */

void rfb_client_init(struct rfb_session *session)
{
    struct buf *out = &session->out;
    size_t len = strlen(session->name);

    session->width = session->screen->width;
    session->height = session->screen->height;
    rfb_u16(out, (uint16_t)session->width);
    rfb_u16(out, (uint16_t)session->height);
    rfb_format_put(&session->format, buf_extend(out, 16));
    rfb_u32(out, (uint32_t)len);
    buf_append(out, session->name, len);
    session->state = RFB_NORMAL;
}

/* ---- what is wanted ---- */

static struct err *set_pixel_format(struct rfb_session *session, const uint8_t *bytes)
{
    return rfb_format_get(&session->format, bytes + 4)
               ? NULL
               : err_new("it wants pixels of a form that there is not");
}

static void set_encodings(struct rfb_session *session, const uint8_t *bytes)
{
    bool chosen = false;

    session->zrle = session->resizes = session->qemu_keys = false;
    for (unsigned i = 0; i < get_be16(bytes + 2); i++) {
        int32_t encoding = (int32_t)get_be32(bytes + 4 + 4 * i);
        /* They come in the order of the viewer's liking; Raw always goes. */
        if (!chosen && (encoding == RFB_RAW || encoding == RFB_ZRLE)) {
            session->zrle = encoding == RFB_ZRLE;
            chosen = true;
        }
        session->resizes |= encoding == RFB_DESKTOP_SIZE;
        session->qemu_keys |= encoding == RFB_QEMU_KEYS;
    }
}

static struct surface_rect around(const struct surface_rect *a, const struct surface_rect *b)
{
    unsigned right = MAX(a->x + a->width, b->x + b->width);
    unsigned bottom = MAX(a->y + a->height, b->y + b->height);
    uint16_t x = MIN(a->x, b->x), y = MIN(a->y, b->y);

    return (struct surface_rect){x, y, (uint16_t)MIN(right - x, UINT16_MAX + 0u),
                                 (uint16_t)MIN(bottom - y, UINT16_MAX + 0u)};
}

static void request_update(struct rfb_session *session, const uint8_t *bytes)
{
    struct surface_rect rect = {get_be16(bytes + 2), get_be16(bytes + 4), get_be16(bytes + 6),
                                get_be16(bytes + 8)};

    session->wanted = session->waiting ? around(&session->wanted, &rect) : rect;
    session->waiting = true;
    if (!bytes[1] && rfb_cut(&rect, session->width, session->height))
        rfb_session_changed(session, &rect);
}

/* ---- keys ---- */

static bool is_pressed(const struct rfb_session *session, uint8_t key)
{
    return session->pressed[key / 8] >> (key % 8) & 1;
}

static void press(struct rfb_session *session, uint8_t key, bool down)
{
    uint8_t bit = (uint8_t)(1 << (key % 8));

    if (session->right != RFB_CONTROL || !(key & ~KEY_EXTENDED) ||
        (!down && !is_pressed(session, key)))
        return;
    if (down)
        session->pressed[key / 8] |= bit;
    else
        session->pressed[key / 8] &= (uint8_t)~bit;
    session->events->key(session->opaque, key, down);
}

/* The viewer's keyboard may have another layout: a character that needs shift here gets it. */
static void key_event(struct rfb_session *session, const uint8_t *bytes)
{
    bool down = bytes[1], shift;
    uint8_t key = rfb_keysym_key(get_be32(bytes + 4), &shift);

    shift &= down && !is_pressed(session, KEY_SHIFT) && !is_pressed(session, KEY_SHIFT_RIGHT);
    if (shift)
        press(session, KEY_SHIFT, true);
    press(session, key, down);
    if (shift)
        press(session, KEY_SHIFT, false);
}

/* The place of the key goes before what is printed on it. */
static void qemu_key_event(struct rfb_session *session, const uint8_t *bytes)
{
    uint32_t code = get_be32(bytes + 8);
    bool shift;
    uint8_t key =
        code && code <= UINT8_MAX ? (uint8_t)code : rfb_keysym_key(get_be32(bytes + 4), &shift);

    press(session, key, get_be16(bytes + 2));
}

/* ---- pointer ---- */

#define WHEEL_UP 0x08
#define WHEEL_DOWN 0x10

static uint16_t place(uint16_t at, unsigned side)
{
    uint32_t last = side > 1 ? side - 1 : 1;

    return (uint16_t)(MIN(at, last) * SURFACE_POINT_MAX / last);
}

static void pointer_event(struct rfb_session *session, const uint8_t *bytes)
{
    uint8_t mask = bytes[1], buttons = 0;
    int8_t wheel = 0;

    if (session->right != RFB_CONTROL)
        return;
    buttons |= mask & 1 ? SURFACE_LEFT : 0;
    buttons |= mask & 2 ? SURFACE_MIDDLE : 0;
    buttons |= mask & 4 ? SURFACE_RIGHT : 0;
    wheel = mask & WHEEL_UP ? -1 : mask & WHEEL_DOWN ? 1 : 0;
    session->x = place(get_be16(bytes + 2), session->width);
    session->y = place(get_be16(bytes + 4), session->height);
    session->buttons = buttons;
    session->events->pointer(session->opaque, buttons, wheel, session->x, session->y);
}

void rfb_release_all(struct rfb_session *session)
{
    for (unsigned key = 1; key <= UINT8_MAX; key++)
        press(session, (uint8_t)key, false);
    if (session->buttons)
        session->events->pointer(session->opaque, 0, 0, session->x, session->y);
    session->buttons = 0;
}

/* ---- messages ---- */

size_t rfb_message_length(const uint8_t *bytes, size_t len)
{
    switch (bytes[0]) {
    case SET_PIXEL_FORMAT:
        return 20;
    case SET_ENCODINGS:
        if (len < 4)
            return 4;
        return get_be16(bytes + 2) > ENCODINGS_MAX ? 0 : 4 + 4 * (size_t)get_be16(bytes + 2);
    case UPDATE_REQUEST:
        return 10;
    case KEY_EVENT:
        return 8;
    case POINTER_EVENT:
        return 6;
    case CUT_TEXT:
        if (len < 8)
            return 8;
        return get_be32(bytes + 4) > CUT_TEXT_MAX ? 0 : 8;
    case SET_DESKTOP_SIZE:
        return len < 8 ? 8 : 8 + 16 * (size_t)bytes[6];
    case QEMU_EVENT:
        if (len < 2)
            return 2;
        return bytes[1] == QEMU_KEY_EVENT ? 12 : 0;
    default:
        return 0;
    }
}

struct err *rfb_message(struct rfb_session *session, const uint8_t *bytes)
{
    switch ((enum message_type)bytes[0]) {
    case SET_PIXEL_FORMAT:
        return set_pixel_format(session, bytes);
    case SET_ENCODINGS:
        set_encodings(session, bytes);
        break;
    case UPDATE_REQUEST:
        request_update(session, bytes);
        break;
    case KEY_EVENT:
        key_event(session, bytes);
        break;
    case POINTER_EVENT:
        pointer_event(session, bytes);
        break;
    case CUT_TEXT: /* the guest has no clipboard */
        session->skip = get_be32(bytes + 4);
        break;
    case SET_DESKTOP_SIZE: /* the guest chooses its modes */
        break;
    case QEMU_EVENT:
        qemu_key_event(session, bytes);
        break;
    }
    return NULL;
}
