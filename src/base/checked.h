/*
 * Arithmetic on sizes that come from outside: every sum and product is checked.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BASE_CHECKED_H
#define TENON_BASE_CHECKED_H

#include "base/base.h"

/* True and *result set when the result fits, false when it overflows. */
static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *result)
{
    return !__builtin_add_overflow(a, b, result);
}

static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *result)
{
    return !__builtin_mul_overflow(a, b, result);
}

/* Does [offset, offset + length) lie within [0, limit)? */
static inline bool range_within(uint64_t offset, uint64_t length, uint64_t limit)
{
    return offset <= limit && length <= limit - offset;
}

/* Do [a, a + a_length) and [b, b + b_length) share a byte? Neither may wrap. */
static inline bool ranges_overlap(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
    return a < b + b_length && b < a + a_length;
}

static inline bool is_power_of_2(uint64_t value)
{
    return value && !(value & (value - 1));
}

#endif
