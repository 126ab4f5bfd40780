/*
 * Parallel flash memory with the Intel command set, as OVMF keeps its variables in.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_FIRMWARE_PFLASH_H
#define TENON_HW_FIRMWARE_PFLASH_H

#include "hw/core/device.h"

#define PFLASH_BLOCK 0x1000u

struct pflash {
    struct device device;

    /* Set before realize. */
    uint64_t base; /* a switched region of the same name in gmem shows the contents */
    uint32_t size; /* whole blocks */
    int fd;        /* owned: where the contents are kept; -1: nowhere */

    /* Own. */
    struct io_region region;
    uint8_t *bytes; /* the region's ROM, borrowed */
    uint8_t mode;   /* enum pflash_mode */
    uint8_t status;
    uint32_t count;                /* bytes that a buffered program still wants */
    uint32_t dirty_from, dirty_to; /* what the file does not have yet */
};

extern const struct device_class pflash_class;

#endif
