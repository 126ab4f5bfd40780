/*
 * The host bridge, function 00.0: how the root bus shows itself, and the place where the state of
 * the bus is kept. q35: 8086:29c0 with PCIEXBAR and PAM; micro: 1b36:0008 without registers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_PCI_HOST_BRIDGE_H
#define TENON_HW_PCI_HOST_BRIDGE_H

#include "hw/pci/pci.h"

struct host_bridge {
    struct pci_device pci;

    /* Set before realize. The board attaches it at devfn 0. */
    bool q35;
    bool firmware;      /* q35: firmware sets up the memory map, and begins in ROM */
    uint64_t ecam_base; /* shown in PCIEXBAR (q35) */

    /* Own. */
    uint32_t config_address; /* of port 0xcf8, while saving and loading */
    uint64_t ecam;           /* atomic: where PCIEXBAR says that it is */
};

extern const struct device_class host_bridge_class;

/* Where the guest has put configuration space; 0: nowhere. Any thread, any lock held. */
uint64_t host_bridge_ecam(struct host_bridge *bridge);

#endif
