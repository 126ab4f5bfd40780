/*
 * GUIDs as UEFI stores them: the first three parts little-endian.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_UEFI_GUID_H
#define TENON_UEFI_GUID_H

#include <string.h>

#include "base/base.h"

#define GUID_SIZE 16

struct guid {
    uint8_t bytes[GUID_SIZE];
};

/* From its parts as they are printed: GUID(0x8be4df61, 0x93ca, 0x11d2, 0xaa, 0x0d, ...). */
#define GUID(a, b, c, ...)                                                                         \
    {                                                                                              \
        {                                                                                          \
            (a) & 0xff, (a) >> 8 & 0xff, (a) >> 16 & 0xff, (a) >> 24 & 0xff, (b)&0xff, (b) >> 8,   \
                (c)&0xff, (c) >> 8, __VA_ARGS__                                                    \
        }                                                                                          \
    }

static inline bool guid_is(const void *at, const struct guid *guid)
{
    return !memcmp(at, guid->bytes, GUID_SIZE);
}

#endif
