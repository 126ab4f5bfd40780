/*
 * What the files of hw/pci share among themselves.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_PCI_INTERNAL_H
#define TENON_HW_PCI_INTERNAL_H

#include "hw/pci/pci.h"

#define PCI_COMMAND_SERR 0x0100
#define PCI_COMMAND_PARITY 0x0040
#define PCI_CAP_ID_MSI 0x05
#define PCI_CAP_ID_EXPRESS 0x10
#define PCI_CAP_ID_MSIX 0x11
#define PCI_MSIX_CONTROL 2 /* offset in the capability */
#define PCI_MSIX_ENABLE 0x8000
#define PCI_MSIX_MASK_ALL 0x4000

/* The guest may have changed MSI-X enable or function mask: `before` is the old control word. */
void pci_msix_control_written(struct pci_device *pci, uint16_t before);
void pci_msix_reset(struct pci_device *pci);
extern const struct state_table pci_msix_vector_state;

/* The device's contribution to its interrupt line. Device lock held. `quietly`: only count it. */
void pci_bus_intx(struct pci_device *pci, bool level, bool quietly);

#endif
