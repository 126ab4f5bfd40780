/*
 * CRC-32C (Castagnoli; reflected, polynomial 0x1edc6f41), as VHDX has it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_FORMAT_CRC32C_H
#define TENON_BLOCK_FORMAT_CRC32C_H

#include "base/base.h"

/* Continues `crc` (0 at the start) over `length` bytes. */
uint32_t crc32c_update(uint32_t crc, const void *bytes, size_t length);

#endif
