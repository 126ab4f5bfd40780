/*
 * The screen and the keyboard of a VM. See vm_screen.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vm/vm_screen.h"
#include "hw/display/vga.h"
#include "vm/vm_internal.h"

struct err *vm_screen_picture(struct vm *vm, struct picture *picture)
{
    if (!vm->board.vga)
        return err_new("the VM has no screen: start it with --vga");
    vga_picture(vm->board.vga, picture);
    return NULL;
}
