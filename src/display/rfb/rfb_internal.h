/*
 * What the files of an RFB session share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DISPLAY_RFB_RFB_INTERNAL_H
#define TENON_DISPLAY_RFB_RFB_INTERNAL_H

#include <zlib.h>

#include "base/bytes.h"
#include "display/keys.h"
#include "display/rfb/rfb.h"

#define RFB_CHALLENGE_SIZE 16
/* Changes are kept by tiles, and ZRLE's are as large. */
#define RFB_TILE 64u
#define RFB_TILES (SURFACE_SIDE_MAX / RFB_TILE)

enum rfb_encoding {
    RFB_RAW = 0,
    RFB_ZRLE = 16,
    RFB_DESKTOP_SIZE = -223,
    RFB_QEMU_KEYS = -258,
};

/* A colour as the viewer wants it. */
struct rfb_format {
    uint8_t bytes; /* of a pixel: 1, 2 or 4 */
    uint8_t depth;
    bool big_endian;
    uint16_t max[3]; /* red, green, blue */
    uint8_t shift[3];
    bool same; /* as ours */
    /* Of ZRLE's pixels: three of four bytes, from the first or from the second on. */
    uint8_t compact_bytes, compact_from;
};

/* Where the conversation stands: what the next bytes are. */
enum rfb_state {
    RFB_VERSION,
    RFB_SECURITY,
    RFB_VENCRYPT_VERSION,
    RFB_VENCRYPT_TYPE,
    RFB_TLS, /* not ours to read */
    RFB_VNC_RESPONSE,
    RFB_PLAIN,
    RFB_CLIENT_INIT,
    RFB_NORMAL,
};

struct rfb_session {
    const struct rfb_access *access;
    const struct surface *screen;
    const char *name;
    const struct rfb_events *events;
    void *opaque;

    enum rfb_state state;
    unsigned minor; /* of the version: 3, 7 or 8 */
    bool encrypted;
    uint32_t after_tls; /* VeNCrypt's type */
    enum rfb_right right;
    uint8_t challenge[RFB_CHALLENGE_SIZE];
    struct buf out;
    size_t skip; /* bytes of a clipboard still to come */

    struct rfb_format format;
    bool zrle, resizes, qemu_keys, keys_announced;
    unsigned width, height; /* as the viewer knows them */
    bool waiting;           /* for an update */
    struct surface_rect wanted;
    z_stream zlib;
    struct buf scratch;

    uint8_t pressed[256 / 8]; /* keys */
    uint8_t buttons;
    uint16_t x, y;

    /* A bit for each tile that has changed since the viewer has seen it. */
    uint64_t changed[RFB_TILES][RFB_TILES / 64];
};

/* security.c */
struct err *rfb_security_version(struct rfb_session *session, const uint8_t *bytes);
struct err *rfb_security_choice(struct rfb_session *session, const uint8_t *bytes);
struct err *rfb_vencrypt_version(struct rfb_session *session, const uint8_t *bytes);
struct err *rfb_vencrypt_type(struct rfb_session *session, const uint8_t *bytes);
struct err *rfb_vnc_response(struct rfb_session *session, const uint8_t *bytes);
struct err *rfb_plain(struct rfb_session *session, const uint8_t *bytes);
/* The challenge as a viewer with this password encrypts it (RFC 6143, 7.2.2). */
bool rfb_vnc_encrypt(const char *password, const uint8_t challenge[RFB_CHALLENGE_SIZE],
                     uint8_t response[RFB_CHALLENGE_SIZE]);

/* messages.c: bytes of the message that begins here, as far as it can be told: more than `len`
 * when some are missing; 0: none begins so. */
size_t rfb_message_length(const uint8_t *bytes, size_t len);
struct err *rfb_message(struct rfb_session *session, const uint8_t *bytes);
void rfb_client_init(struct rfb_session *session);
void rfb_release_all(struct rfb_session *session);

/* update.c: is the rectangle on a screen of this size? Cuts off what is not. */
bool rfb_cut(struct surface_rect *rect, unsigned width, unsigned height);

/* keysyms.c: the key that types an X keysym on a US keyboard, KEY_NONE: none does. *shift: only
 * together with it. */
uint8_t rfb_keysym_key(uint32_t keysym, bool *shift);

/* encode.c */
extern const struct rfb_format rfb_format_standard;
/* A PIXEL_FORMAT of the wire (16 bytes); false: not one that we can serve. */
bool rfb_format_get(struct rfb_format *format, const uint8_t *bytes);
void rfb_format_put(const struct rfb_format *format, uint8_t *bytes);
/* Appends the rectangle, with its header. What is outside of the screen is black. */
void rfb_encode(struct rfb_session *session, const struct surface_rect *rect);

/* Appends fields, big-endian. */
static inline void rfb_u16(struct buf *out, uint16_t value)
{
    put_be16(buf_extend(out, 2), value);
}

static inline void rfb_u32(struct buf *out, uint32_t value)
{
    put_be32(buf_extend(out, 4), value);
}

static inline void rfb_rect_header(struct buf *out, const struct surface_rect *rect,
                                   int32_t encoding)
{
    rfb_u16(out, rect->x);
    rfb_u16(out, rect->y);
    rfb_u16(out, rect->width);
    rfb_u16(out, rect->height);
    rfb_u32(out, (uint32_t)encoding);
}

#endif
