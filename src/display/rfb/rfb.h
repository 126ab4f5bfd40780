/*
 * An RFB server (RFC 6143, and rfbproto.rst of the RFB community for what is not in it): one
 * session with a viewer, from its bytes to keys, and from a screen to bytes. No socket, no clock:
 * see server.h for those.
 *
 * Protocol versions 3.3, 3.7 and 3.8. Security: none, VNC authentication, VeNCrypt (TLS, then none,
 * VNC or a plain password). Encodings: Raw and ZRLE; DesktopSize; QEMU's extended key events.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DISPLAY_RFB_RFB_H
#define TENON_DISPLAY_RFB_RFB_H

#include "base/buf.h"
#include "display/surface.h"

#define RFB_INPUT_MAX                                                                              \
    KIB(64) /* no message has more bytes, but for clipboards, which are skipped                    \
             */

enum rfb_right { RFB_NOTHING, RFB_LOOK, RFB_CONTROL };

/* Who may do what. */
struct rfb_access {
    /* By VNC authentication only the first 8 bytes count. NULL: there is none. */
    const char *password, *look_password;
    enum rfb_right open; /* of whoever connects, when there is no password */
    bool tls;            /* offer VeNCrypt */
    bool tls_only;       /* and nothing else */
    bool certificate;    /* TLS with a certificate, not anonymous */
};

struct rfb_events {
    void (*key)(void *opaque, uint8_t key, bool down);
    /* Buttons as enum surface_button; x and y up to SURFACE_POINT_MAX. */
    void (*pointer)(void *opaque, uint8_t buttons, int8_t wheel, uint16_t x, uint16_t y);
};

struct rfb_session;

/* All but `opaque` is borrowed for the session's life; `screen` may change between calls. */
struct rfb_session *rfb_session_new(const struct rfb_access *access, const struct surface *screen,
                                    const char *name, const struct rfb_events *events,
                                    void *opaque);
/* Releases what the viewer holds down. NULL is fine. */
void rfb_session_free(struct rfb_session *session);

/* Takes whole messages off `in`; an error ends the session once its output has been sent. */
struct err *rfb_session_input(struct rfb_session *session, struct buf *in);
/* What is to be sent; the caller takes it off. */
struct buf *rfb_session_output(struct rfb_session *session);

/* True: send the output, then do a TLS handshake, and take no more input before that is done. */
bool rfb_session_wants_tls(const struct rfb_session *session);
struct err *rfb_session_has_tls(struct rfb_session *session);

/* The right that the viewer has proved; RFB_NOTHING before. */
enum rfb_right rfb_session_right(const struct rfb_session *session);

/* The screen has changed there; NULL: everywhere, and its size perhaps. */
void rfb_session_changed(struct rfb_session *session, const struct surface_rect *rect);
/* Does the viewer wait for changes? */
bool rfb_session_is_waiting(const struct rfb_session *session);
/* Encodes the changes for a viewer that waits for some. Call with an empty output: who does not
 * read gets nothing more. */
void rfb_session_update(struct rfb_session *session);

#endif
