/*
 * libFuzzer target: the VGA adapter as a guest reaches it: legacy ports, window, VBE, both BARs,
 * configuration space. The input is a run of accesses of 7 bytes: kind and size, address, value.
 *
 * A finding is a crash or a sanitizer's report; and afterwards the screen must be drawn, and the
 * state must load into itself.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "fuzz_machine.h"
#include "hw/chipset/layout.h"
#include "hw/display/vga.h"

#define RECORD 7
#define RECORDS_MAX 4096
#define MEMORY KIB(256)
#define ROM_BYTES 3000
#define DOTS_MAX 300000u /* larger pictures only take time */

static void memory_changed(void *opaque)
{
}

static const struct hw_env_ops env_ops = {.msi_send = no_msi, .memory_changed = memory_changed};

static void access_once(struct fuzz_machine *machine, struct vga *vga, struct input *input)
{
    static const uint8_t config[] = {PCI_COMMAND, PCI_BAR0, PCI_BAR0 + 8, PCI_ROM};
    uint8_t kind = (uint8_t)take(input, 1);
    uint16_t address = (uint16_t)take(input, 2);
    uint32_t value = (uint32_t)take(input, 4);
    unsigned size = 1u << (kind & 3);
    struct io_bus *bus = machine->env.mmio;
    uint64_t at;

    switch (kind >> 3 & 7) {
    case 0:
        bus = machine->env.pio;
        at = 0x3b0 + address % 0x30;
        size = MIN(size, 4u);
        break;
    case 1:
        bus = machine->env.pio;
        at = 0x1ce + address % 4;
        size = MIN(size, 4u);
        break;
    case 2: /* both ends of the window's parts */
        at = LAYOUT_VIDEO_BASE + (address & 0x7ffu) + (address >> 11) * 0x1000u;
        break;
    case 3:
        at = pci_bar_address(&vga->pci, 0) + address * 4u % MEMORY;
        break;
    case 4:
        at = pci_bar_address(&vga->pci, 2) + (address & 0xfff);
        break;
    case 5:
        pci_config_write(&vga->pci, config[address & 3], 4, value);
        return;
    case 6:
        at = (get_le32(vga->pci.config + PCI_ROM) & ~0xfffu) + (address & 0xfff);
        break;
    default:
        gmem_settle(machine->env.gmem);
        return;
    }
    if (kind & 4)
        io_bus_read(bus, at, size);
    else
        io_bus_write(bus, at, size, value);
}

static void look(struct vga *vga)
{
    static struct text_screen screen;
    struct picture picture;

    vga_text(vga, &screen);
    if (screen.columns > TEXT_COLUMNS_MAX || screen.rows > TEXT_ROWS_MAX ||
        (screen.cursor &&
         (screen.cursor_column >= screen.columns || screen.cursor_row >= screen.rows)))
        abort();
    if (screen.width * screen.height > DOTS_MAX || screen.columns * screen.rows > DOTS_MAX / 128)
        return;
    vga_picture(vga, &picture);
    picture_fini(&picture);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_machine machine;
    static struct vga *vga;
    struct input input = {data, MIN(size, (size_t)RECORDS_MAX * RECORD)};

    if (!vga) {
        fuzz_machine_open(&machine);
        machine.env.ops = &env_ops;
        must(gmem_add_movable(machine.env.gmem, VGA_MEMORY_NAME, MEMORY));
        vga = (struct vga *)device_new(&vga_class, &machine.env, "vga");
        vga->rom_size = ROM_BYTES;
        vga->take_rom = xcalloc(1, ROM_BYTES);
        fuzz_machine_add(&machine, &vga->pci);
        gmem_dirty_enable(machine.env.gmem, true);
    }
    fuzz_machine_reset(&machine, &vga->pci);
    memset(vga->vram, 0, MEMORY);
    while (input.left >= RECORD)
        access_once(&machine, vga, &input);
    look(vga);
    fuzz_save_and_load(&vga->pci.device);
    return 0;
}
