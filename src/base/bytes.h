/*
 * Loads and stores of wire, disk and ring fields in their own byte order, at any alignment.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BASE_BYTES_H
#define TENON_BASE_BYTES_H

#include <endian.h>
#include <string.h>

#include "base/base.h"

#define BYTES_DEFINE(name, type, from, to)                                                         \
    static inline type get_##name(const void *at)                                                  \
    {                                                                                              \
        type value;                                                                                \
        memcpy(&value, at, sizeof(value));                                                         \
        return from(value);                                                                        \
    }                                                                                              \
    static inline void put_##name(void *at, type value)                                            \
    {                                                                                              \
        value = to(value);                                                                         \
        memcpy(at, &value, sizeof(value));                                                         \
    }

BYTES_DEFINE(le16, uint16_t, le16toh, htole16)
BYTES_DEFINE(le32, uint32_t, le32toh, htole32)
BYTES_DEFINE(le64, uint64_t, le64toh, htole64)
BYTES_DEFINE(be16, uint16_t, be16toh, htobe16)
BYTES_DEFINE(be32, uint32_t, be32toh, htobe32)
BYTES_DEFINE(be64, uint64_t, be64toh, htobe64)

#undef BYTES_DEFINE

/* A little-endian field of 1, 2, 4 or 8 bytes: register files answer accesses of any size. */
static inline uint64_t get_le(const void *at, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, at, size);
    return le64toh(value);
}

static inline void put_le(void *at, unsigned size, uint64_t value)
{
    value = htole64(value);
    memcpy(at, &value, size);
}

#endif
