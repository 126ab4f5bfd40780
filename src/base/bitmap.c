/*
 * Search in bitmaps.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "base/bitmap.h"

uint64_t bitmap_next(const uint64_t *map, uint64_t bits, uint64_t from)
{
    if (from >= bits)
        return bits;
    uint64_t word = map[from / 64] & (~0ull << (from % 64));
    uint64_t index = from / 64;
    while (!word) {
        if (++index >= BITMAP_WORDS(bits))
            return bits;
        word = map[index];
    }
    uint64_t bit = index * 64 + (unsigned)__builtin_ctzll(word);
    return MIN(bit, bits);
}
