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

static struct err *no_keyboard(void)
{
    return err_new("the VM has no keyboard: start it with --vga or --usb-keyboard");
}

struct err *vm_screen_check(const struct vm *vm)
{
    return vm->board.vga ? NULL : no_screen();
}

struct err *vm_screen_picture(struct vm *vm, struct picture *picture)
{
    TRY(vm_screen_check(vm));
    vga_picture(vm->board.vga, picture);
    return NULL;
}

struct err *vm_screen_keys(struct vm *vm, const struct key_stroke *stroke, unsigned hold_ms)
{
    if (!vm->board.keys)
        return no_keyboard();
    if (!key_player_play(vm->board.keys, stroke, hold_ms))
        return err_of(ERR_BUSY, "too many keys wait to be typed");
    return NULL;
}

struct err *vm_screen_input(struct vm *vm, const struct vm_input *input)
{
    struct board *board = &vm->board;

    if (input->key && !board->keys)
        return no_keyboard();
    if (input->absolute)
        return board_point(board, input->x, input->y)
                   ? NULL
                   : err_new("the VM has no tablet: start it with --usb-tablet");
    if (!input->key && !board->vga && !board->usb_tablet)
        return no_screen();
    if (input->key)
        board_key(board, input->key, input->down);
    else if (input->buttons || input->wheel)
        board_buttons(board,
                      input->down ? board->buttons | input->buttons
                                  : board->buttons & (uint8_t)~input->buttons,
                      input->wheel);
    else
        board_move(board, input->x, input->y);
    return NULL;
}
