/*
 * Debug exit (port 0xf4) ends the VM with a status; a debug console (port 0xe9, or 0x402 for
 * firmware) writes bytes to a stream.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_CHIPSET_DEBUG_H
#define TENON_HW_CHIPSET_DEBUG_H

#include "hw/core/device.h"
#include "hw/serial/tx_batch.h"
#include "share/stream.h"

/* A write of any size ends the VM: HW_POWER_EXIT with the written value as status. */
struct debug_exit {
    struct device device;
    struct io_region region;
};

extern const struct device_class debug_exit_class;

struct debug_console {
    struct device device;

    /* Set before realize; borrowed, outlives the device. NULL drops the output. */
    struct stream *stream;
    uint16_t port; /* 0: LAYOUT_PORT_DEBUG_CONSOLE */

    /* Own. */
    struct io_region region;
    struct tx_batch tx;
};

extern const struct device_class debug_console_class;

#endif
