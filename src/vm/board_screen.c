/*
 * The VGA adapter of a VM that has a screen, and who types on its keyboard.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hw/display/vga.h"
#include "vm/board.h"
#include "vm/screen_console.h"

static struct err *read_rom(int fd, struct vga *vga)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return err_errno(errno, "cannot look at it");
    if (status.st_size <= 0 || (uint64_t)status.st_size > VGA_ROM_MAX)
        return err_new("it has %lld bytes, and should have at most %lu KiB",
                       (long long)status.st_size, VGA_ROM_MAX / KIB(1));
    vga->rom_size = (size_t)status.st_size;
    vga->take_rom = xcalloc(1, vga->rom_size);
    ssize_t n = pread(fd, vga->take_rom, vga->rom_size, 0);
    if (n != (ssize_t)vga->rom_size)
        return err_errno(n < 0 ? errno : EIO, "cannot read it");
    return NULL;
}

static void on_key(void *opaque, uint8_t key, bool down)
{
    board_key(opaque, key, down);
}

struct err *board_add_screen(struct board *board)
{
    const struct vm_config *config = board->config;

    if (board_has_ps2(board) || config->usb_keyboard)
        board->keys = key_player_new(board->env->loop, on_key, board);
    if (!config->vga)
        return NULL;
    struct vga *vga = (struct vga *)device_new(&vga_class, board->env, "vga");
    struct err *err = config->vga_rom_fd < 0 ? NULL : read_rom(config->vga_rom_fd, vga);
    if (err) {
        device_free(&vga->pci.device);
        return err_wrap(err, "option ROM of the VGA adapter");
    }
    TRY(board_add_pci(board, &vga->pci, -1));
    board->vga = vga;
    for (unsigned i = 0; i < config->console_count; i++) {
        if (config->console[i].device == VM_CONSOLE_VGA)
            board->screen_console =
                screen_console_new(board->env->loop, vga, board->keys, board->stream[i]);
    }
    return NULL;
}

void board_fini_screen(struct board *board)
{
    screen_console_free(board->screen_console);
    key_player_free(board->keys);
}
