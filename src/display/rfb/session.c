/*
 * A session with a viewer: its conversation, message by message. See rfb.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>

#include "display/rfb/rfb_internal.h"

#define VERSION_SIZE 12
#define PLAIN_MAX 1024 /* of user name and of password */

struct rfb_session *rfb_session_new(const struct rfb_access *access, const struct surface *screen,
                                    const char *name, const struct rfb_events *events, void *opaque)
{
    struct rfb_session *session = xcalloc(1, sizeof(*session));

    session->access = access;
    session->screen = screen;
    session->name = name;
    session->events = events;
    session->opaque = opaque;
    session->format = rfb_format_standard;
    /* A stream that lasts as long as the session; fast, because frames are many. */
    if (deflateInit(&session->zlib, 1) != Z_OK)
        abort(); /* no memory */
    buf_text(&session->out, "RFB 003.008\n");
    return session;
}

void rfb_session_free(struct rfb_session *session)
{
    if (!session)
        return;
    rfb_release_all(session);
    deflateEnd(&session->zlib);
    buf_fini(&session->out);
    buf_fini(&session->scratch);
    free(session);
}

struct buf *rfb_session_output(struct rfb_session *session)
{
    return &session->out;
}

bool rfb_session_wants_tls(const struct rfb_session *session)
{
    return session->state == RFB_TLS;
}

enum rfb_right rfb_session_right(const struct rfb_session *session)
{
    return session->state == RFB_NORMAL ? session->right : RFB_NOTHING;
}

/* Two lengths, a user name, a password. */
static size_t plain_length(const uint8_t *bytes, size_t len)
{
    if (len < 8)
        return 8;
    uint32_t user = get_be32(bytes), password = get_be32(bytes + 4);
    return user > PLAIN_MAX || password > PLAIN_MAX ? 0 : 8 + (size_t)user + password;
}

/* Bytes that the next step needs, as far as it can be told; 0: it will never be well. */
static size_t step_length(const struct rfb_session *session, const uint8_t *bytes, size_t len)
{
    switch (session->state) {
    case RFB_VERSION:
        return VERSION_SIZE;
    case RFB_SECURITY:
    case RFB_CLIENT_INIT:
        return 1;
    case RFB_VENCRYPT_VERSION:
        return 2;
    case RFB_VENCRYPT_TYPE:
        return 4;
    case RFB_VNC_RESPONSE:
        return RFB_CHALLENGE_SIZE;
    case RFB_PLAIN:
        return plain_length(bytes, len);
    case RFB_NORMAL:
        return rfb_message_length(bytes, len);
    case RFB_TLS:
        break;
    }
    return SIZE_MAX;
}

static struct err *step(struct rfb_session *session, const uint8_t *bytes)
{
    switch (session->state) {
    case RFB_VERSION:
        return rfb_security_version(session, bytes);
    case RFB_SECURITY:
        return rfb_security_choice(session, bytes);
    case RFB_VENCRYPT_VERSION:
        return rfb_vencrypt_version(session, bytes);
    case RFB_VENCRYPT_TYPE:
        return rfb_vencrypt_type(session, bytes);
    case RFB_VNC_RESPONSE:
        return rfb_vnc_response(session, bytes);
    case RFB_PLAIN:
        return rfb_plain(session, bytes);
    case RFB_CLIENT_INIT:
        rfb_client_init(session); /* screens are always shared: its flag means nothing */
        return NULL;
    case RFB_NORMAL:
        return rfb_message(session, bytes);
    case RFB_TLS:
        break;
    }
    return NULL;
}

struct err *rfb_session_input(struct rfb_session *session, struct buf *in)
{
    struct err *err = NULL;
    size_t at = 0;

    while (!err && at < in->len) {
        size_t left = in->len - at, skipped = MIN(session->skip, left);
        at += skipped;
        session->skip -= skipped;
        if (skipped)
            continue;
        size_t needed = step_length(session, in->data + at, left);
        if (needed > left)
            break;
        err = needed ? step(session, in->data + at) : err_new("it sent what is no message");
        at += needed;
    }
    in->len -= at;
    memmove(in->data, in->data + at, in->len);
    if (!err && in->len >= RFB_INPUT_MAX && session->state != RFB_TLS)
        err = err_new("it sent a message of more than %d KiB", (int)(RFB_INPUT_MAX / KIB(1)));
    return err;
}
