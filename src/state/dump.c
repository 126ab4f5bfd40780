/*
 * State as JSON, for golden tests and curious people.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "state/wire.h"

static void dump_object(const struct state_table *table, const void *object, struct buf *out);

static void dump_scalar(const struct state_field *field, const uint8_t *data, struct buf *out)
{
    uint64_t value = 0;
    memcpy(&value, data, field->size);
    if (field->type == STATE_TYPE_BOOL)
        buf_text(out, value ? "true" : "false");
    else
        buf_printf(out, "%llu", (unsigned long long)value);
}

static void dump_bytes(const struct state_field *field, const uint8_t *data, struct buf *out)
{
    buf_text(out, "\"");
    for (size_t i = 0; i < field->size; i++)
        buf_printf(out, "%02x", data[i]);
    buf_text(out, "\"");
}

static void dump_field(const struct state_field *field, const void *object, struct buf *out)
{
    const uint8_t *data = state_field_data(field, object);
    if (field->type == STATE_TYPE_BYTES) {
        dump_bytes(field, data, out);
        return;
    }
    uint32_t count = state_field_count(field, object);
    bool array = field->pointer || count != 1;
    if (array)
        buf_text(out, "[");
    for (uint32_t i = 0; i < count; i++) {
        if (i)
            buf_text(out, ",");
        if (field->type == STATE_TYPE_STRUCT)
            dump_object(field->sub, data + i * state_field_stride(field), out);
        else
            dump_scalar(field, data + i * state_field_stride(field), out);
    }
    if (array)
        buf_text(out, "]");
}

static void dump_object(const struct state_table *table, const void *object, struct buf *out)
{
    buf_text(out, "{");
    for (size_t i = 0; i < table->field_count; i++) {
        buf_printf(out, "%s\"%s\":", i ? "," : "", table->fields[i].name);
        dump_field(&table->fields[i], object, out);
    }
    buf_text(out, "}");
}

void state_dump_json(const struct state_table *table, const void *object, struct buf *out)
{
    dump_object(table, object, out);
}
