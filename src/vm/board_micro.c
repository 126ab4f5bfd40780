/*
 * Board micro: what a directly booted Linux needs and nothing else, for the fastest start. An
 * IOAPIC, the ACPI event device, a PCI Express root bus; no PIC, PIT, RTC, HPET. The bus answers at
 * ports 0xcf8/0xcfc besides ECAM, because Linux on x86 calls a machine without them broken ("PCI:
 * Fatal: No config space access function found") until it has read the ACPI tables.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/chipset/ged.h"
#include "hw/chipset/layout.h"
#include "hw/chipset/reset.h"
#include "hw/pci/host_bridge.h"
#include "vm/board.h"

static struct err *build_core(struct board *board, struct pci_bus_config *pci)
{
    struct ioapic *ioapic = (struct ioapic *)device_new(&ioapic_class, board->env, "ioapic");

    ioapic->base = LAYOUT_IOAPIC_BASE;
    ioapic->route = board->wiring.ioapic_route;
    ioapic->opaque = board->wiring.opaque;
    board->ioapic = ioapic;
    board->isa.ioapic = ioapic;
    for (unsigned i = 0; i < 4; i++)
        pci->intx[i] = ioapic_line(ioapic, LAYOUT_GSI_PCI + i);
    TRY(board_add(board, &ioapic->device));

    /* Port 0xcf9 lies within the configuration address register. */
    struct reset_port *reset =
        (struct reset_port *)device_new(&reset_port_class, board->env, "reset");
    pci->cf9_ops = &reset_port_ops;
    pci->cf9_opaque = reset;
    return board_add(board, &reset->device);
}

static struct err *build_chipset(struct board *board)
{
    struct ged *ged = (struct ged *)device_new(&ged_class, board->env, "ged");

    ged->base = LAYOUT_GED_BASE;
    ged->irq = ioapic_line(board->ioapic, LAYOUT_GSI_GED);
    board->power = &ged->device;
    TRY(board_add(board, &ged->device));

    struct host_bridge *bridge =
        (struct host_bridge *)device_new(&host_bridge_class, board->env, "host-bridge");
    return board_add_pci(board, &bridge->pci, 0);
}

static void power_button(struct board *board)
{
    ged_power_button((struct ged *)board->power);
}

const struct board_kind board_micro = {
    .name = "micro",
    .low_ram_max = LAYOUT_MICRO_LOW_RAM_MAX,
    .ecam_base = LAYOUT_MICRO_ECAM_BASE,
    .ecam_buses = LAYOUT_MICRO_ECAM_BUSES,
    .mmio32_base = LAYOUT_MICRO_MMIO32_BASE,
    .mmio32_size = LAYOUT_MICRO_MMIO32_SIZE,
    .cf8 = true,
    .reduced = true,
    .build_core = build_core,
    .build_chipset = build_chipset,
    .power_button = power_button,
};
