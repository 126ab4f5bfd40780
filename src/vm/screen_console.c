/*
 * The screen in a terminal. See screen_console.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vm/screen_console.h"

#include <stdlib.h>

#include "base/clock.h"
#include "display/terminal_input.h"
#include "display/text_terminal.h"

#define FRAME_MS 40       /* from one look at the screen to the next */
#define IDLE_FRAME_MS 200 /* ... when it has not changed for a while */
#define IDLE_FRAMES 25
#define ESCAPE_MS 50 /* an Escape that stands alone for so long is the key */
#define HOLD_MS 20
#define STROKES_A_BYTE 2u

struct screen_console {
    struct vga *vga;
    struct key_player *keys;
    struct stream *stream;
    struct loop_timer frame, escape;
    struct text_terminal terminal;
    struct terminal_input input;
    struct text_screen screen;
    struct buf out; /* drawn, and not yet taken by the stream */
    unsigned unchanged;
};

static void arm(struct loop_timer *timer, unsigned ms)
{
    loop_timer_arm(timer, clock_now_ns() + ms * NSEC_PER_MSEC);
}

/* What the stream does not take waits: a slow terminal gets fewer frames, each of them whole. */
static void send(struct screen_console *console)
{
    struct buf *out = &console->out;
    size_t taken = out->len ? stream_write(console->stream, out->data, out->len) : 0;
    struct buf rest = BUF_INIT;

    if (taken < out->len)
        buf_append(&rest, out->data + taken, out->len - taken);
    buf_fini(out);
    *out = rest;
}

static void look(struct screen_console *console)
{
    if (console->out.len)
        return;
    vga_text(console->vga, &console->screen);
    text_terminal_draw(&console->terminal, &console->screen, &console->out);
    console->unchanged = console->out.len ? 0 : console->unchanged + 1;
}

static void on_frame(void *opaque)
{
    struct screen_console *console = opaque;

    send(console);
    look(console);
    send(console);
    /* Keys that waited for room. */
    stream_rx_ready(console->stream);
    arm(&console->frame, console->unchanged < IDLE_FRAMES ? FRAME_MS : IDLE_FRAME_MS);
}

static void on_escape(void *opaque)
{
    struct screen_console *console = opaque;

    terminal_input_flush(&console->input);
}

static void on_stroke(void *opaque, const struct key_stroke *stroke)
{
    struct screen_console *console = opaque;

    key_player_play(console->keys, stroke, HOLD_MS);
}

static void on_size(void *opaque, unsigned rows, unsigned columns)
{
    struct screen_console *console = opaque;

    console->terminal.rows = rows;
    console->terminal.columns = columns;
    text_terminal_forget(&console->terminal);
}

static size_t on_input(void *opaque, const uint8_t *bytes, size_t len)
{
    struct screen_console *console = opaque;
    size_t taken = 0;

    loop_timer_cancel(&console->escape);
    for (; taken < len && key_player_room(console->keys) >= STROKES_A_BYTE; taken++)
        terminal_input_byte(&console->input, bytes[taken]);
    if (terminal_input_waits(&console->input))
        arm(&console->escape, ESCAPE_MS);
    console->unchanged = 0;
    arm(&console->frame, FRAME_MS);
    return taken;
}

static void on_connected(void *opaque, bool on)
{
    struct screen_console *console = opaque;

    console->terminal.rows = console->terminal.columns = 0;
    text_terminal_forget(&console->terminal);
    buf_fini(&console->out);
    console->out = (struct buf)BUF_INIT;
}

static const struct stream_events events = {.input = on_input, .connected = on_connected};

struct screen_console *screen_console_new(struct loop *loop, struct vga *vga,
                                          struct key_player *keys, struct stream *stream)
{
    struct screen_console *console = xcalloc(1, sizeof(*console));

    console->vga = vga;
    console->keys = keys;
    console->stream = stream;
    console->input =
        (struct terminal_input){.stroke = on_stroke, .size = on_size, .opaque = console};
    loop_timer_init(loop, &console->frame, on_frame, console);
    loop_timer_init(loop, &console->escape, on_escape, console);
    stream_attach(stream, &events, console);
    arm(&console->frame, FRAME_MS);
    return console;
}

void screen_console_free(struct screen_console *console)
{
    if (!console)
        return;
    loop_timer_cancel(&console->frame);
    loop_timer_cancel(&console->escape);
    stream_attach(console->stream, NULL, NULL);
    look(console);
    text_terminal_leave(&console->terminal, &console->out);
    send(console);
    buf_fini(&console->out);
    free(console);
}
