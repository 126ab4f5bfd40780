/*
 * CRC-32 of IEEE 802.3 (reflected, polynomial 0x04c11db7), as in gzip and PNG.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BASE_CRC32_H
#define TENON_BASE_CRC32_H

#include "base/base.h"

/* Continues `crc` (0 at the start) over `len` bytes. */
uint32_t crc32_update(uint32_t crc, const void *bytes, size_t len);

#endif
