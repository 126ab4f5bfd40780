/*
 * Writing state streams.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "base/bytes.h"
#include "base/crc32.h"
#include "state/wire.h"

void state_writer_init(struct state_writer *writer)
{
    *writer = (struct state_writer){0};
    buf_append(&writer->out, STATE_MAGIC, STATE_MAGIC_LEN);
}

void state_writer_fini(struct state_writer *writer)
{
    buf_fini(&writer->out);
}

static void write_scalars(struct buf *out, const struct state_field *field, const uint8_t *data,
                          uint32_t count)
{
    for (uint32_t i = 0; i < count; i++, data += field->size) {
        uint64_t value = 0;
        memcpy(&value, data, field->size);
        put_le(buf_extend(out, field->size), (unsigned)field->size, value);
    }
}

static void write_payload(struct buf *out, const struct state_table *table, void *object)
{
    if (table->pre_save)
        table->pre_save(object);
    for (size_t i = 0; i < table->field_count; i++) {
        const struct state_field *field = &table->fields[i];
        uint32_t count = state_field_count(field, object);
        uint8_t *data = state_field_data(field, object);
        buf_le16(out, field->tag);
        size_t length_at = out->len;
        buf_le32(out, 0);
        switch (field->type) {
        case STATE_TYPE_BYTES:
            buf_append(out, data, field->size);
            break;
        case STATE_TYPE_STRUCT:
            for (uint32_t n = 0; n < count; n++) {
                size_t element_at = out->len;
                buf_le32(out, 0);
                write_payload(out, field->sub, data + n * state_field_stride(field));
                put_le32(out->data + element_at, (uint32_t)(out->len - element_at - 4));
            }
            break;
        default:
            write_scalars(out, field, data, count);
        }
        put_le32(out->data + length_at, (uint32_t)(out->len - length_at - 4));
    }
}

static void write_name(struct buf *out, const char *name)
{
    size_t len = MIN(strlen(name), (size_t)255);
    buf_u8(out, (uint8_t)len);
    buf_append(out, name, len);
}

void state_save(struct state_writer *writer, const struct state_table *table, const char *instance,
                void *object)
{
    struct buf *out = &writer->out;
    size_t start = out->len;
    buf_le16(out, STATE_MARK_SECTION);
    write_name(out, table->name);
    write_name(out, instance);
    buf_le16(out, table->version);
    size_t length_at = out->len;
    buf_le32(out, 0);
    write_payload(out, table, object);
    put_le32(out->data + length_at, (uint32_t)(out->len - length_at - 4));
    buf_le32(out, crc32_update(0, out->data + start, out->len - start));
    writer->sections++;
}

void state_writer_end(struct state_writer *writer)
{
    struct buf *out = &writer->out;
    uint32_t crc = crc32_update(0, out->data, out->len);
    buf_le16(out, STATE_MARK_END);
    buf_le32(out, writer->sections);
    buf_le32(out, crc);
}
