/*
 * Bitmaps in 64-bit words. The atomic forms serve dirty logs, which many threads write.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BASE_BITMAP_H
#define TENON_BASE_BITMAP_H

#include "base/base.h"

#define BITMAP_WORDS(bits) (((uint64_t)(bits) + 63) / 64)

static inline bool bitmap_test(const uint64_t *map, uint64_t bit)
{
    return map[bit / 64] >> (bit % 64) & 1;
}

static inline void bitmap_set(uint64_t *map, uint64_t bit)
{
    map[bit / 64] |= 1ull << (bit % 64);
}

static inline void bitmap_clear(uint64_t *map, uint64_t bit)
{
    map[bit / 64] &= ~(1ull << (bit % 64));
}

/* The load first keeps the cache line shared when the bit is set already, the common case. */
static inline void bitmap_set_atomic(uint64_t *map, uint64_t bit)
{
    uint64_t mask = 1ull << (bit % 64);
    if (!(__atomic_load_n(&map[bit / 64], __ATOMIC_RELAXED) & mask))
        __atomic_fetch_or(&map[bit / 64], mask, __ATOMIC_RELEASE);
}

static inline void bitmap_clear_atomic(uint64_t *map, uint64_t bit)
{
    __atomic_fetch_and(&map[bit / 64], ~(1ull << bit % 64), __ATOMIC_RELEASE);
}

/* Clears it, in one order with all that is sequentially consistent; was it set? */
static inline bool bitmap_take_atomic(uint64_t *map, uint64_t bit)
{
    uint64_t mask = 1ull << (bit % 64);
    return __atomic_fetch_and(&map[bit / 64], ~mask, __ATOMIC_SEQ_CST) & mask;
}

static inline bool bitmap_test_atomic(const uint64_t *map, uint64_t bit)
{
    return __atomic_load_n(&map[bit / 64], __ATOMIC_ACQUIRE) >> (bit % 64) & 1;
}

/* The first set bit at or after `from`, or `bits` when there is none. */
uint64_t bitmap_next(const uint64_t *map, uint64_t bits, uint64_t from);

#endif
