/*
 * The ICH9 LPC bridge, function 1f.0 of a q35: PIRQ routing registers, PMBASE, root complex
 * registers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_CHIPSET_LPC_H
#define TENON_HW_CHIPSET_LPC_H

#include "hw/chipset/ioapic.h"
#include "hw/chipset/pic.h"
#include "hw/pci/pci.h"

#define LPC_DEVFN 0xf8

struct lpc {
    struct pci_device pci;

    /* Set before realize; borrowed. pci_bus_attach(bus, &lpc->pci, LPC_DEVFN) is the board's too.
     */
    struct ioapic *ioapic;
    struct pic *pic;

    /* Own. */
    struct io_region rcba_region;
    uint8_t pirq_levels; /* a bit a PIRQ, A..H; covered by the PCI bus's lock */
    uint8_t routes[8];   /* copy of the routing registers, covered likewise */
};

extern const struct device_class lpc_class;

/*
 * The wire of PIRQA..PIRQH (0..7): IOAPIC pin 16 + n, and the PIC line that the guest routed it to.
 * For pci_bus_config.intx.
 */
struct irq_line lpc_pirq_line(struct lpc *lpc, unsigned pirq);

#endif
