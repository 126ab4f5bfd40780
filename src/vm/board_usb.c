/*
 * The USB controller of a VM that wants one, with keyboard, tablet and disks; and which keyboard
 * and pointer get what a person does.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/input/i8042.h"
#include "hw/usb/usb_hid.h"
#include "hw/usb/usb_storage.h"
#include "hw/usb/xhci.h"
#include "vm/board.h"

static struct err *add_hid(struct board *board, const struct device_class *class,
                           struct usb_hid **hid)
{
    *hid = (struct usb_hid *)device_new(class, board->env, class->name);
    (*hid)->usb.bus = &board->xhci->bus;
    return board_add(board, &(*hid)->usb.device);
}

struct err *board_add_usb(struct board *board)
{
    const struct vm_config *config = board->config;

    if (!config->usb)
        return NULL;
    board->xhci = (struct xhci *)device_new(&xhci_class, board->env, "xhci");
    board->xhci->io_loop = board->wiring.io_loop;
    TRY(board_add_pci(board, &board->xhci->pci, -1));
    if (config->usb_keyboard)
        TRY(add_hid(board, &usb_keyboard_class, &board->usb_keyboard));
    if (config->usb_tablet)
        TRY(add_hid(board, &usb_tablet_class, &board->usb_tablet));
    return NULL;
}

/* SeaBIOS counts the connectors of the case, OVMF the controller's ports: a line for each. */
static char *usb_boot_path(const struct board *board, unsigned port)
{
    static const char form[] = "storage@%x/channel@0/disk@0,0";
    scoped(free_cleanup) char *connector = xasprintf(form, (port - 1) % XHCI_CONNECTORS + 1);
    scoped(free_cleanup) char *other = xasprintf(form, port);
    scoped(free_cleanup) char *first = board_boot_path(&board->xhci->pci, "usb", connector);
    scoped(free_cleanup) char *second = board_boot_path(&board->xhci->pci, "usb", other);

    return xasprintf("%s\n%s", first, second);
}

struct err *board_add_usb_disk(struct board *board, unsigned index)
{
    const struct vm_disk *disk = &board->config->disk[index];
    struct usb_storage *storage =
        (struct usb_storage *)device_new(&usb_storage_class, board->env, disk->id);

    storage->usb.bus = &board->xhci->bus;
    storage->block = board->block[index];
    storage->serial = disk->serial;
    TRY(board_add(board, &storage->usb.device));
    board->boot_path[index] = usb_boot_path(board, storage->usb.port->number);
    return NULL;
}

void board_key(struct board *board, uint8_t key, bool down)
{
    bool usb = board->usb_keyboard && usb_hid_in_use(board->usb_keyboard);

    /* A key may come up when another keyboard is in use than when it went down. */
    if (usb || (board->usb_keyboard && !down))
        usb_keyboard_key(board->usb_keyboard, key, down);
    if (board->i8042 && (!usb || !down))
        i8042_key(board->i8042, key, down);
}

bool board_point(struct board *board, int x, int y)
{
    if (!board->usb_tablet)
        return false;
    usb_tablet_event(board->usb_tablet, x, y, 0, board->buttons);
    return true;
}

void board_move(struct board *board, int x, int y)
{
    if (board->i8042)
        i8042_mouse(board->i8042, x, y, 0, board->buttons);
}

void board_buttons(struct board *board, uint8_t buttons, int wheel)
{
    board->buttons = buttons;
    if (board->usb_tablet && usb_hid_in_use(board->usb_tablet))
        usb_tablet_event(board->usb_tablet, -1, -1, wheel, buttons);
    else if (board->i8042)
        i8042_mouse(board->i8042, 0, 0, wheel, buttons);
}
