/*
 * libFuzzer target: what a VNC viewer says, from its version on. The first byte chooses what is
 * wanted of it; after TLS has been chosen the rest goes on as if the handshake had been done.
 *
 * A finding is a crash or a sanitizer's report; a key of a viewer that may only look; a key that
 * stays down; more output than a screen for each request.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>

#include "display/rfb/rfb.h"

#define SIDE 70u
#define OUTPUT_MAX (SIDE * SIDE * 8 + 65536)

struct watch {
    bool look_only;
    int down[256];
};

static void on_key(void *opaque, uint8_t key, bool down)
{
    struct watch *watch = opaque;

    if (watch->look_only)
        abort();
    watch->down[key] = down;
}

static void on_pointer(void *opaque, uint8_t buttons, int8_t wheel, uint16_t x, uint16_t y)
{
    const struct watch *watch = opaque;

    if (watch->look_only || x > SURFACE_POINT_MAX || y > SURFACE_POINT_MAX)
        abort();
}

static const struct rfb_events events = {on_key, on_pointer};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    const struct rfb_access access = {
        .password = data[0] & 1 ? "p" : NULL,
        .open = data[0] & 2 ? RFB_LOOK : RFB_CONTROL,
        .tls = data[0] & 4,
        .tls_only = data[0] & 8,
        .certificate = data[0] & 16,
    };
    struct watch watch = {.look_only = !access.password && access.open == RFB_LOOK};
    struct surface screen = {SIDE, SIDE, NULL};
    struct buf in = BUF_INIT;
    struct err *err = NULL;

    screen.pixels = xcalloc(SIDE * SIDE, sizeof(uint32_t));
    for (unsigned i = 0; i < SIDE * SIDE; i++)
        screen.pixels[i] = i * i >> (data[0] >> 5);
    struct rfb_session *session = rfb_session_new(&access, &screen, "vm", &events, &watch);
    for (size_t at = 1; !err && at < size;) {
        size_t len = MIN(size - at, (size_t)1 + data[at] % 61);
        buf_append(&in, data + at, len);
        at += len;
        err = rfb_session_input(session, &in);
        if (!err && rfb_session_wants_tls(session))
            err = rfb_session_has_tls(session);
        rfb_session_update(session);
        if (rfb_session_output(session)->len > OUTPUT_MAX)
            abort();
        rfb_session_output(session)->len = 0;
        screen.width = SIDE - (data[0] & 64 ? (unsigned)at % 3 : 0);
    }
    rfb_session_free(session);
    for (unsigned key = 0; key < 256; key++)
        if (watch.down[key])
            abort();
    err_free(err);
    buf_fini(&in);
    free(screen.pixels);
    return 0;
}
