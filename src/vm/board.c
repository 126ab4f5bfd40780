/*
 * What every board has alike. See board.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vm/board.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "hw/chipset/debug.h"
#include "hw/chipset/layout.h"
#include "hw/chipset/testdev.h"
#include "hw/display/vga.h"
#include "hw/firmware/acpi.h"
#include "hw/serial/uart16550.h"

/* Where conventional memory ends for a kernel: the last KiB before 640 KiB was always the BIOS's.
 */
#define CONVENTIONAL_END 0x9fc00u

const struct board_kind *board_kind(enum vm_board board)
{
    return board == VM_BOARD_Q35 ? &board_q35 : &board_micro;
}

static struct err *add_ram(struct board *board)
{
    struct gmem *gmem = board->env->gmem;

    if (board->kind->video_hole) {
        uint64_t low = board_has_firmware(board) ? MIB(1) : LAYOUT_VIDEO_BASE + LAYOUT_VIDEO_SIZE;
        TRY(gmem_add_ram(gmem, "ram.base", 0, LAYOUT_VIDEO_BASE));
        TRY(gmem_add_ram(gmem, "ram.low", low, board->low_end - low));
    } else {
        TRY(gmem_add_ram(gmem, "ram.low", 0, board->low_end));
    }
    if (board->high_end)
        TRY(gmem_add_ram(gmem, "ram.high", LAYOUT_HIGH_RAM_BASE,
                         board->high_end - LAYOUT_HIGH_RAM_BASE));
    TRY(board_add_firmware_memory(board));
    return board->config->vga ? gmem_add_movable(gmem, VGA_MEMORY_NAME, VGA_MEMORY_SIZE) : NULL;
}

struct err *board_init(struct board *board, struct vm_config *config, struct hw_env *env,
                       unsigned phys_bits)
{
    uint64_t limit = 1ull << MIN(phys_bits, 52u);

    list_init(&board->devices);
    board->kind = board_kind(config->board);
    board->config = config;
    board->env = env;
    board->low_end = MIN(config->memory, board->kind->low_ram_max);
    if (config->memory > board->low_end)
        board->high_end = LAYOUT_HIGH_RAM_BASE + (config->memory - board->low_end);
    if (board->high_end > limit)
        return err_of(ERR_USAGE,
                      "%" PRIu64 "M of memory do not fit into the %u address bits of this "
                      "engine's CPU: give less --memory",
                      config->memory / MIB(1), phys_bits);
    board->mmio64_base = layout_mmio64_base(board->high_end);
    board->mmio64_size = LAYOUT_MMIO64_SIZE;
    if (board->mmio64_base + board->mmio64_size > limit)
        board->mmio64_base = board->mmio64_size = 0;
    return err_wrap(add_ram(board), "guest memory");
}

struct err *board_add(struct board *board, struct device *device)
{
    list_append(&board->devices, &device->link);
    return device_realize(device);
}

struct err *board_add_pci(struct board *board, struct pci_device *pci, int devfn)
{
    list_append(&board->devices, &pci->device.link);
    TRY(err_wrap(pci_bus_attach(board->bus, pci, devfn), "device '%s'", pci->device.id));
    return device_realize(&pci->device);
}

char *board_boot_path(const struct pci_device *pci, const char *kind, const char *unit)
{
    unsigned slot = pci->devfn >> 3, function = pci->devfn & 7;

    return function ? xasprintf("/pci@i0cf8/%s@%x,%x/%s", kind, slot, function, unit)
                    : xasprintf("/pci@i0cf8/%s@%x/%s", kind, slot, unit);
}

/* --- consoles that are not virtio --- */

static struct err *open_stream(struct loop *loop, struct vm_console *console,
                               struct stream **stream)
{
    int in_fd = console->in_fd, out_fd = console->out_fd;

    if (console->backend == VM_BACKEND_NULL || (in_fd < 0 && out_fd < 0)) {
        *stream = stream_new_null(loop);
        return NULL;
    }
    console->in_fd = console->out_fd = -1;
    if (console->backend == VM_BACKEND_SOCKET)
        return stream_new_listener(loop, in_fd, stream);
    return stream_new_fds(loop, in_fd, out_fd, stream);
}

static struct err *open_streams(struct board *board)
{
    for (unsigned i = 0; i < board->config->console_count; i++) {
        struct vm_console *console = &board->config->console[i];
        TRY(err_wrap(open_stream(board->env->loop, console, &board->stream[i]), "console '%s'",
                     console->id));
    }
    return NULL;
}

static struct err *add_serial(struct board *board, unsigned index, struct stream *stream)
{
    static const struct {
        uint16_t port;
        uint8_t irq;
    } places[] = {{LAYOUT_PORT_COM1, LAYOUT_IRQ_COM1}, {LAYOUT_PORT_COM2, LAYOUT_IRQ_COM2}};
    char id[16];

    if (index >= ARRAY_SIZE(places))
        return err_of(ERR_USAGE, "more than %zu serial consoles", ARRAY_SIZE(places));
    snprintf(id, sizeof(id), "serial%u", index);
    struct uart16550 *uart = (struct uart16550 *)device_new(&uart16550_class, board->env, id);
    uart->port = places[index].port;
    uart->irq = isa_irq_line(&board->isa, places[index].irq);
    uart->stream = stream;
    return board_add(board, &uart->device);
}

static struct err *add_debug(struct board *board, const char *id, uint16_t port,
                             struct stream *stream)
{
    struct debug_console *debug =
        (struct debug_console *)device_new(&debug_console_class, board->env, id);

    debug->port = port;
    debug->stream = stream;
    return board_add(board, &debug->device);
}

static struct err *add_test_devices(struct board *board)
{
    struct testdev *dev = (struct testdev *)device_new(&testdev_class, board->env, "testdev");

    for (unsigned i = 0; i < TESTDEV_LINES; i++)
        dev->line[i] = i < 16 ? isa_irq_line(&board->isa, i) : ioapic_line(board->ioapic, i);
    TRY(board_add(board, &dev->device));
    return board_add(board, device_new(&debug_exit_class, board->env, "debug-exit"));
}

struct err *board_add_ports(struct board *board)
{
    const struct vm_config *config = board->config;
    unsigned serials = 0;

    for (unsigned i = 0; i < config->console_count; i++) {
        if (config->console[i].device == VM_CONSOLE_SERIAL)
            TRY(add_serial(board, serials++, board->stream[i]));
        if (config->console[i].device == VM_CONSOLE_DEBUG)
            TRY(add_debug(board, "debug", LAYOUT_PORT_DEBUG_CONSOLE, board->stream[i]));
        if (config->console[i].device == VM_CONSOLE_FIRMWARE)
            TRY(add_debug(board, "firmware-log", LAYOUT_PORT_FIRMWARE_CONSOLE, board->stream[i]));
    }
    if (config->debug_exit)
        TRY(add_test_devices(board));
    return NULL;
}

/* --- building --- */

struct err *board_build(struct board *board, const struct board_wiring *wiring)
{
    const struct board_kind *kind = board->kind;
    struct pci_bus_config pci = {
        .env = board->env,
        .ecam_base = kind->ecam_base,
        .ecam_buses = (uint16_t)kind->ecam_buses,
        .cf8 = kind->cf8,
        .io_base = kind->pio_bars ? LAYOUT_PORT_PCI_IO : 0,
        .io_size = kind->pio_bars ? LAYOUT_PCI_IO_SIZE : 0,
        .mmio32_base = kind->mmio32_base,
        .mmio32_size = kind->mmio32_size,
        .mmio64_base = board->mmio64_base,
        .mmio64_size = board->mmio64_size,
    };

    board->wiring = *wiring;
    TRY(open_streams(board));
    TRY(kind->build_core(board, &pci));
    TRY(pci_bus_new(&pci, &board->bus));
    TRY(kind->build_chipset(board));
    TRY(board_add_ports(board));
    TRY(board_add_screen(board));
    TRY(board_add_usb(board));
    TRY(board_add_virtio(board));
    return board_add_firmware(board);
}

void board_fini(struct board *board)
{
    if (!board->kind)
        return;
    board_fini_screen(board);
    /* In reverse: an interrupt controller outlives those that pull its lines. */
    while (!list_empty(&board->devices)) {
        struct device *device = list_entry(board->devices.prev, struct device, link);
        device_free(device);
    }
    pci_bus_free(board->bus);
    for (unsigned i = 0; i < VM_NETS_MAX; i++) {
        for (unsigned q = 0; q < VM_QUEUES_MAX; q++)
            net_port_close(board->port[i][q]);
    }
    for (unsigned i = 0; i < VM_DISKS_MAX; i++) {
        if (board->block[i])
            block_close(board->block[i]);
        free(board->boot_path[i]);
    }
    stream_free(board->agent_stream);
    for (unsigned i = 0; i < VM_CONSOLES_MAX; i++) {
        if (board->stream[i]) {
            stream_drain(board->stream[i], 200);
            stream_free(board->stream[i]);
        }
    }
}

/* --- life --- */

struct err *board_reset(struct board *board)
{
    struct device *device;

    list_for_each (device, &board->devices, link)
        device_reset(device);
    if (board_has_firmware(board)) {
        board_firmware_reset(board);
        return NULL;
    }
    TRY(pci_bus_assign(board->bus));
    return board_load_tables(board);
}

struct err *board_wake(struct board *board)
{
    struct device *device;

    list_for_each (device, &board->devices, link)
        if (device != board->power && device != board->rtc)
            device_reset(device);
    return pci_bus_assign(board->bus);
}

bool board_asleep(struct board *board)
{
    return board->kind->asleep && board->kind->asleep(board);
}

uint32_t board_waking_vector(struct board *board)
{
    uint8_t vector[4];
    uint64_t gpa = LAYOUT_TABLES_GPA + ACPI_FACS + ACPI_FACS_WAKING_VECTOR;

    return gmem_read(board->env->gmem, gpa, vector, sizeof(vector)) ? 0 : get_le32(vector);
}

void board_quiesce(struct board *board)
{
    struct device *device;

    list_for_each (device, &board->devices, link)
        device_quiesce(device);
}

void board_resume(struct board *board)
{
    struct device *device;

    list_for_each (device, &board->devices, link)
        device_resume(device);
}

void board_power_button(struct board *board)
{
    board->kind->power_button(board);
}

uint8_t board_extint_ack(struct board *board)
{
    return board->pic ? pic_ack(board->pic) : 0xff;
}

void board_boot_request(const struct board *board, struct boot_request *request)
{
    const struct board_kind *kind = board->kind;
    unsigned n = 0;

    request->range[n++] = (struct boot_range){0, CONVENTIONAL_END, BOOT_RAM};
    request->range[n++] =
        (struct boot_range){CONVENTIONAL_END, MIB(1) - CONVENTIONAL_END, BOOT_RESERVED};
    request->range[n++] = (struct boot_range){MIB(1), board->low_end - MIB(1), BOOT_RAM};
    request->range[n++] = (struct boot_range){
        kind->ecam_base, kind->ecam_buses * LAYOUT_ECAM_BUS_SIZE, BOOT_RESERVED};
    if (board->high_end)
        request->range[n++] = (struct boot_range){LAYOUT_HIGH_RAM_BASE,
                                                  board->high_end - LAYOUT_HIGH_RAM_BASE, BOOT_RAM};
    request->range_count = n;
    request->gmem = board->env->gmem;
    request->low_end = board->low_end;
    request->high_end = board->high_end;
    request->rsdp = LAYOUT_TABLES_GPA;
}
