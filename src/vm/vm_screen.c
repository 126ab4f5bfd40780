/*
 * The screen and the keyboard of a VM. See vm_screen.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vm/vm_screen.h"
#include "hw/display/vga.h"
#include "hw/input/key_player.h"
#include "vm/vm_internal.h"

static struct err *no_screen(void)
{
    return err_new("the VM has no screen: start it with --vga");
}

struct err *vm_screen_picture(struct vm *vm, struct picture *picture)
{
    if (!vm->board.vga)
        return no_screen();
    vga_picture(vm->board.vga, picture);
    return NULL;
}

struct err *vm_screen_keys(struct vm *vm, const struct key_stroke *stroke, unsigned hold_ms)
{
    if (!vm->board.keys)
        return no_screen();
    if (!key_player_play(vm->board.keys, stroke, hold_ms))
        return err_of(ERR_BUSY, "too many keys wait to be typed");
    return NULL;
}

struct err *vm_screen_input(struct vm *vm, const struct vm_input *input)
{
    if (!vm->board.vga)
        return no_screen();
    if (input->key) {
        i8042_key(vm->board.i8042, input->key, input->down);
        return NULL;
    }
    vm->buttons =
        input->down ? vm->buttons | input->buttons : vm->buttons & (uint8_t)~input->buttons;
    i8042_mouse(vm->board.i8042, input->x, input->y, input->wheel, vm->buttons);
    return NULL;
}
