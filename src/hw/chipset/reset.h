/*
 * The reset control register, port 0xcf9 (ICH9 datasheet 13.7.5). The port lies inside the PCI
 * configuration address register, so the PCI bus hands byte accesses on: give reset_port_ops and
 * the device to pci_bus_config.cf9_ops and cf9_opaque.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_CHIPSET_RESET_H
#define TENON_HW_CHIPSET_RESET_H

#include "hw/core/device.h"

struct reset_port {
    struct device device;
    uint8_t value;
};

extern const struct device_class reset_port_class;
extern const struct io_ops reset_port_ops; /* opaque: struct reset_port; take its lock themselves */

#endif
