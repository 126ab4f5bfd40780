/*
 * The reset vector's code. See reset_vector.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/firmware/reset_vector.h"

const uint8_t reset_vector[RESET_VECTOR_SIZE] = {
    0xba, 0xf9, 0x0c, /* mov $0xcf9, %dx */
    0xb0, 0x06,       /* mov $6, %al */
    0xee,             /* out %al, %dx */
    0xf4,             /* hlt */
    0xeb, 0xfd,       /* jmp to the hlt */
};
