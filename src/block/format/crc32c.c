/*
 * CRC-32C by the CPU's instruction, or a nibble at a time where it has none.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/format/crc32c.h"

#include <string.h>

__attribute__((target("sse4.2"))) static uint32_t by_cpu(uint32_t crc, const uint8_t *at,
                                                         size_t length)
{
    uint64_t wide = crc;
    for (; length >= 8; length -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    for (; length; length--)
        crc = __builtin_ia32_crc32qi(crc, *at++);
    return crc;
}

static uint32_t by_table(uint32_t crc, const uint8_t *at, size_t length)
{
    static const uint32_t nibble[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
        0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
    };
    for (; length; length--) {
        crc ^= *at++;
        crc = crc >> 4 ^ nibble[crc & 15];
        crc = crc >> 4 ^ nibble[crc & 15];
    }
    return crc;
}

uint32_t crc32c_update(uint32_t crc, const void *bytes, size_t length)
{
    crc = ~crc;
    return ~(__builtin_cpu_supports("sse4.2") ? by_cpu(crc, bytes, length)
                                              : by_table(crc, bytes, length));
}
