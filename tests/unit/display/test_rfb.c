/*
 * An RFB session: its conversation, its pixels, and what a viewer may not do.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "../test.h"
#include "display/rfb/rfb_internal.h"

#define WIDTH 100
#define HEIGHT 70

struct fixture {
    struct rfb_access access;
    struct surface screen;
    struct rfb_session *session;
    struct buf in;
    uint8_t keys[64]; /* with the highest bit of `downs` */
    bool downs[64];
    unsigned key_count;
    uint8_t buttons;
    int8_t wheel;
    uint16_t x, y;
    unsigned points;
};

static void on_key(void *opaque, uint8_t key, bool down)
{
    struct fixture *f = opaque;

    f->keys[f->key_count] = key;
    f->downs[f->key_count++] = down;
}

static void on_pointer(void *opaque, uint8_t buttons, int8_t wheel, uint16_t x, uint16_t y)
{
    struct fixture *f = opaque;

    f->buttons = buttons;
    f->wheel = wheel;
    f->x = x;
    f->y = y;
    f->points++;
}

static const struct rfb_events events = {on_key, on_pointer};

static void begin(struct fixture *f, struct rfb_access access)
{
    *f = (struct fixture){.access = access, .screen = {WIDTH, HEIGHT, NULL}};
    f->screen.pixels = xcalloc(WIDTH * HEIGHT, sizeof(uint32_t));
    f->session = rfb_session_new(&f->access, &f->screen, "vm", &events, f);
}

static void end(struct fixture *f)
{
    rfb_session_free(f->session);
    free(f->screen.pixels);
    buf_fini(&f->in);
}

static struct err *say(struct fixture *f, const void *bytes, size_t len)
{
    buf_append(&f->in, bytes, len);
    return rfb_session_input(f->session, &f->in);
}

static void expect(struct fixture *f, const void *bytes, size_t len)
{
    struct buf *out = rfb_session_output(f->session);

    assert_int_equal(out->len, len);
    assert_memory_equal(out->data, bytes, len);
    out->len = 0;
}

static void log_in(struct fixture *f)
{
    assert_ok(say(f, "RFB 003.008\n", 12));
    assert_ok(say(f, "\1\1", 2));
    rfb_session_output(f->session)->len = 0;
}

static void versions(void **state)
{
    struct fixture f;

    begin(&f, (struct rfb_access){.open = RFB_CONTROL});
    expect(&f, "RFB 003.008\n", 12);
    /* A byte at a time; then the types, the result, and the screen. */
    for (unsigned i = 0; i < 12; i++)
        assert_ok(say(&f, "RFB 003.008\n" + i, 1));
    expect(&f, "\1\1", 2);
    assert_ok(say(&f, "\1", 1));
    expect(&f, "\0\0\0\0", 4);
    assert_int_equal(rfb_session_right(f.session), RFB_NOTHING);
    assert_ok(say(&f, "\0", 1));
    expect(&f, "\0\144\0\106\40\30\0\1\0\377\0\377\0\377\20\10\0\0\0\0\0\0\0\2vm", 26);
    assert_int_equal(rfb_session_right(f.session), RFB_CONTROL);
    end(&f);

    begin(&f, (struct rfb_access){.open = RFB_LOOK});
    rfb_session_output(f.session)->len = 0;
    assert_ok(say(&f, "RFB 003.889\n\1", 13)); /* some client's own 3.3 */
    assert_int_equal(rfb_session_output(f.session)->len, 4 + 26);
    assert_int_equal(rfb_session_right(f.session), RFB_LOOK);
    end(&f);

    begin(&f, (struct rfb_access){.open = RFB_LOOK});
    assert_err(say(&f, "GET / HTTP/1.1\r\n", 16), "RFB 3");
    end(&f);
}

/* A known answer: password and challenge of zeros, as other implementations encrypt it. */
static void vnc_authentication(void **state)
{
    const uint8_t zeros[RFB_CHALLENGE_SIZE] = {0};
    /* DES of a block of zeros with a key of zeros (FIPS 81's well-known value), twice. */
    const uint8_t known[RFB_CHALLENGE_SIZE] = {0x8c, 0xa6, 0x4d, 0xe9, 0xc1, 0xb1, 0x23, 0xa7,
                                               0x8c, 0xa6, 0x4d, 0xe9, 0xc1, 0xb1, 0x23, 0xa7};
    uint8_t response[RFB_CHALLENGE_SIZE], other[RFB_CHALLENGE_SIZE];
    struct fixture f;

    assert_true(rfb_vnc_encrypt("", zeros, response));
    assert_memory_equal(response, known, sizeof(known));
    assert_true(rfb_vnc_encrypt("longer than eight", zeros, response));
    assert_true(rfb_vnc_encrypt("longer t", zeros, other));
    assert_memory_equal(response, other, sizeof(other));

    begin(&f, (struct rfb_access){.password = "all", .look_password = "look", .open = RFB_CONTROL});
    assert_ok(say(&f, "RFB 003.008\n\2", 13));
    struct buf *out = rfb_session_output(f.session);
    assert_true(rfb_vnc_encrypt("look", out->data + out->len - RFB_CHALLENGE_SIZE, response));
    assert_ok(say(&f, response, sizeof(response)));
    assert_ok(say(&f, "\1", 1));
    assert_int_equal(rfb_session_right(f.session), RFB_LOOK);
    end(&f);

    begin(&f, (struct rfb_access){.password = "all", .open = RFB_CONTROL});
    assert_ok(say(&f, "RFB 003.008\n\2", 13));
    rfb_session_output(f.session)->len = 0;
    assert_err(say(&f, zeros, sizeof(zeros)), "password");
    expect(&f, "\0\0\0\1\0\0\0\016wrong password", 22);
    assert_int_equal(rfb_session_right(f.session), RFB_NOTHING);
    end(&f);

    /* Security "none" is not to be had. */
    begin(&f, (struct rfb_access){.password = "all", .open = RFB_CONTROL});
    assert_err(say(&f, "RFB 003.008\n\1", 13), "not offered");
    end(&f);
}

static void tls_first(void **state)
{
    struct fixture f;

    begin(&f, (struct rfb_access){.password = "a long password", .tls = true, .tls_only = true});
    rfb_session_output(f.session)->len = 0;
    assert_ok(say(&f, "RFB 003.008\n", 12));
    expect(&f, "\1\23", 2);
    assert_ok(say(&f, "\23\0\2\0\0\1\3", 7));
    expect(&f, "\0\2\0\2\0\0\1\3\0\0\1\2\1", 13);
    assert_true(rfb_session_wants_tls(f.session));
    assert_ok(rfb_session_has_tls(f.session));
    assert_ok(say(&f, "\0\0\0\1\0\0\0\17xa long password\1", 25));
    assert_int_equal(rfb_session_right(f.session), RFB_CONTROL);
    end(&f);

    begin(&f, (struct rfb_access){.password = "p", .tls = true, .tls_only = true});
    assert_err(say(&f, "RFB 003.003\n", 12), "TLS");
    end(&f);
    begin(&f, (struct rfb_access){.password = "p", .tls = true, .certificate = true});
    /* An anonymous handshake, where there is a certificate. */
    assert_err(say(&f, "RFB 003.008\n\23\0\2\0\0\1\3", 19), "not offered");
    end(&f);
}

static void keys(void **state)
{
    struct fixture f;

    begin(&f, (struct rfb_access){.open = RFB_CONTROL});
    log_in(&f);
    assert_ok(say(&f, "\4\1\0\0\0\0\0a\4\0\0\0\0\0\0a", 16));
    assert_int_equal(f.key_count, 2);
    assert_int_equal(f.keys[0], 0x1e);
    assert_true(f.downs[0] && !f.downs[1]);
    /* Shift where the viewer's layout needs none. */
    f.key_count = 0;
    assert_ok(say(&f, "\4\1\0\0\0\0\0!", 8));
    assert_int_equal(f.key_count, 3);
    assert_int_equal(f.keys[0], KEY_SHIFT);
    assert_int_equal(f.keys[1], 0x02);
    assert_true(f.keys[2] == KEY_SHIFT && !f.downs[2]);
    /* QEMU's: right Ctrl by its place; unknown things type nothing. */
    f.key_count = 0;
    assert_ok(say(&f, "\377\0\0\1\0\0\0\0\0\0\0\235", 12));
    assert_ok(say(&f, "\4\1\0\0\0\1\377\377", 8));
    assert_int_equal(f.key_count, 1);
    assert_int_equal(f.keys[0], 0x1d | KEY_EXTENDED);
    /* What is down goes up with the viewer. */
    f.key_count = 0;
    rfb_session_free(f.session);
    assert_int_equal(f.key_count, 2);
    assert_true(!f.downs[0] && !f.downs[1]);
    f.session = NULL;
    end(&f);
}

static void pointer(void **state)
{
    struct fixture f;

    begin(&f, (struct rfb_access){.open = RFB_CONTROL});
    log_in(&f);
    assert_ok(say(&f, "\5\6\0\143\377\377", 6));
    assert_int_equal(f.buttons, SURFACE_RIGHT | SURFACE_MIDDLE);
    assert_int_equal(f.x, SURFACE_POINT_MAX);
    assert_int_equal(f.y, SURFACE_POINT_MAX);
    assert_ok(say(&f, "\5\20\0\0\0\0", 6));
    assert_int_equal(f.wheel, 1);
    assert_int_equal(f.x, 0);
    end(&f);

    begin(&f, (struct rfb_access){.open = RFB_LOOK});
    log_in(&f);
    assert_ok(say(&f, "\5\1\0\0\0\0\4\1\0\0\0\0\0a", 14));
    assert_int_equal(f.points + f.key_count, 0);
    end(&f);
}

static void updates_in_other_pixels(void **state)
{
    struct fixture f;

    begin(&f, (struct rfb_access){.open = RFB_LOOK});
    log_in(&f);
    f.screen.pixels[0] = 0xff8001;
    f.screen.pixels[1] = 0x00ff00;
    /* 16 bits, red 5 at 11, green 6 at 5, blue 5 at 0, big-endian; two pixels of the first row. */
    assert_ok(say(&f, "\0\0\0\0\20\20\1\1\0\37\0\77\0\37\13\5\0\0\0\0", 20));
    assert_ok(say(&f, "\3\0\0\0\0\0\0\2\0\1", 10));
    assert_true(rfb_session_is_waiting(f.session));
    rfb_session_update(f.session);
    struct buf *out = rfb_session_output(f.session);
    /* The whole tile, for changes are kept by tiles. */
    assert_int_equal(out->len, 4 + 12 + 64 * 64 * 2);
    assert_memory_equal(out->data, "\0\0\0\1\0\0\0\0\0\100\0\100\0\0\0\0\374\0\7\340", 20);
    out->len = 0;
    /* Nothing has changed: nothing comes, until something has. */
    assert_ok(say(&f, "\3\1\0\0\0\0\0\144\0\106", 10));
    rfb_session_update(f.session);
    assert_int_equal(out->len, 0);
    rfb_session_changed(f.session, &(struct surface_rect){99, 69, 1, 1});
    rfb_session_update(f.session);
    assert_int_equal(out->len, 4 + 12 + 36 * 6 * 2);
    end(&f);
}

static void a_size_that_changes(void **state)
{
    struct fixture f;

    begin(&f, (struct rfb_access){.open = RFB_LOOK});
    log_in(&f);
    assert_ok(say(&f, "\2\0\0\1\377\377\377\41\3\1\0\0\0\0\0\144\0\106", 18));
    f.screen.width = 50;
    rfb_session_changed(f.session, NULL);
    rfb_session_update(f.session);
    expect(&f, "\0\0\0\1\0\0\0\0\0\62\0\106\377\377\377\41", 16);
    end(&f);

    /* A viewer that cannot change sees black beside it. */
    begin(&f, (struct rfb_access){.open = RFB_LOOK});
    log_in(&f);
    f.screen.width = 1;
    f.screen.height = 1;
    assert_ok(say(&f, "\3\0\0\0\0\0\0\144\0\106", 10));
    rfb_session_update(f.session);
    assert_int_equal(rfb_session_output(f.session)->len, 4 + 2 * 12 + WIDTH * HEIGHT * 4);
    end(&f);
}

static void nonsense(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } wrong[] = {
        {"\7", 1},
        {"\377\1", 2},
        {"\2\0\377\377", 4},
        {"\6\0\0\0\377\377\377\377", 8},
        {"\0\0\0\0\30\30\0\1\0\377\0\377\0\377\20\10\0\0\0\0", 20}, /* 24 bits */
        {"\0\0\0\0\10\10\0\0\0\377\0\377\0\377\20\10\0\0\0\0", 20}, /* numbers */
        {"\0\0\0\0\40\30\0\1\0\377\0\377\0\377\40\10\0\0\0\0", 20}, /* too far */
    };

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct fixture f;
        begin(&f, (struct rfb_access){.open = RFB_CONTROL});
        log_in(&f);
        struct err *err = say(&f, wrong[i].bytes, wrong[i].len);
        assert_non_null(err);
        err_free(err);
        end(&f);
    }
}

static void a_clipboard_is_skipped(void **state)
{
    struct fixture f;

    begin(&f, (struct rfb_access){.open = RFB_CONTROL});
    log_in(&f);
    assert_ok(say(&f, "\6\0\0\0\0\0\0\3", 8));
    assert_ok(say(&f, "\7\7", 2));
    assert_ok(say(&f, "\7\4\1\0\0\0\0\0a", 9));
    assert_int_equal(f.key_count, 1);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(versions),
        cmocka_unit_test(vnc_authentication),
        cmocka_unit_test(tls_first),
        cmocka_unit_test(keys),
        cmocka_unit_test(pointer),
        cmocka_unit_test(updates_in_other_pixels),
        cmocka_unit_test(a_size_that_changes),
        cmocka_unit_test(nonsense),
        cmocka_unit_test(a_clipboard_is_skipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
