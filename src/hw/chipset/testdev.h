/*
 * A device for CPU test suites: what a guest needs to test its own CPU and interrupt controllers
 * without drivers.
 *
 *   ports 0xe0..0xe3      a register that keeps what is written, in any width
 *   port  0xe4            takes a page's number and does nothing: there is no lazily mapped memory
 *   ports 0x2000..0x2017  interrupt line 0..23: nonzero raises it, zero lowers it
 *   memory 0xff000000     64 KiB of a device that behaves as memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_CHIPSET_TESTDEV_H
#define TENON_HW_CHIPSET_TESTDEV_H

#include "hw/core/device.h"

#define TESTDEV_LINES 24
#define TESTDEV_MEMORY 0x10000

struct testdev {
    struct device device;

    /* Set before realize. */
    struct irq_line line[TESTDEV_LINES];

    /* Own. */
    struct io_region port_region, line_region, memory_region;
    uint8_t port[8];
    uint32_t levels; /* a bit a line */
    uint8_t memory[TESTDEV_MEMORY];
};

extern const struct device_class testdev_class;

#endif
