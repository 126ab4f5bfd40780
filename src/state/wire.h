/*
 * Layout of a state stream, shared by its writer and its reader.
 *
 *   stream  = "TENONST1" section* end
 *   section = u16 1, u8 name length, name, u8 instance length, instance, u16 version,
 *             u32 payload length, payload, u32 CRC-32 of everything from the u16 1 on
 *   payload = field*
 *   field   = u16 tag, u32 length, value
 *   end     = u16 2, u32 section count, u32 CRC-32 of the whole stream before it
 *
 * All little-endian. A struct field's value is, for each element, u32 length and a payload of its
 * own. Fields stand in the order of their table, so equal objects give equal bytes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_STATE_WIRE_H
#define TENON_STATE_WIRE_H

#include "state/state.h"

#define STATE_MAGIC "TENONST1"
#define STATE_MAGIC_LEN 8
#define STATE_MARK_SECTION 1
#define STATE_MARK_END 2
#define STATE_FIELD_HEADER 6
/* Nesting of tables: ours is three at most. */
#define STATE_DEPTH_MAX 8

/* Bytes of one element in memory. */
static inline size_t state_field_stride(const struct state_field *field)
{
    return field->sub ? field->sub->size : field->size;
}

/* Elements of a field in this object. */
static inline uint32_t state_field_count(const struct state_field *field, const void *object)
{
    if (!field->pointer)
        return field->sub ? (uint32_t)(field->size / field->sub->size) : field->count;
    uint32_t count;
    __builtin_memcpy(&count, (const char *)object + field->count_offset, sizeof(count));
    return count;
}

/* The first element: inside the object, or where its pointer points. */
static inline uint8_t *state_field_data(const struct state_field *field, const void *object)
{
    uint8_t *at = (uint8_t *)(uintptr_t)object + field->offset;
    if (!field->pointer)
        return at;
    uint8_t *data;
    __builtin_memcpy(&data, at, sizeof(data));
    return data;
}

#endif
