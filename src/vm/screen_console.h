/*
 * A console that shows the VGA adapter's text in a terminal, and whose keys are the keyboard's.
 *
 * On the control loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_VM_SCREEN_CONSOLE_H
#define TENON_VM_SCREEN_CONSOLE_H

#include "hw/display/vga.h"
#include "hw/input/key_player.h"
#include "share/stream.h"

struct screen_console;

/* All are borrowed. */
struct screen_console *screen_console_new(struct loop *loop, struct vga *vga,
                                          struct key_player *keys, struct stream *stream);
/* Draws the last state and leaves the terminal in order. NULL is fine. */
void screen_console_free(struct screen_console *console);

#endif
