/*
 * Reading state streams: decode into a copy, check, commit.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/crc32.h"
#include "state/wire.h"

/* A window of the stream that shrinks from its front. */
struct span {
    const uint8_t *at;
    size_t left;
};

static bool span_take(struct span *span, size_t len, const uint8_t **bytes)
{
    if (len > span->left)
        return false;
    *bytes = span->at;
    span->at += len;
    span->left -= len;
    return true;
}

static struct err *decode(struct span *payload, const struct state_table *table, uint16_t version,
                          void *staged, unsigned depth);

static struct err *decode_structs(struct span value, const struct state_field *field,
                                  uint16_t version, void *staged, unsigned depth)
{
    uint32_t count = state_field_count(field, staged);
    uint8_t *data = state_field_data(field, staged);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *bytes;
        struct span element;
        if (!span_take(&value, 4, &bytes))
            return err_new("field '%s' has fewer than %u elements", field->name, count);
        element.left = get_le32(bytes);
        if (!span_take(&value, element.left, &element.at))
            return err_new("field '%s' is cut short", field->name);
        TRY(err_wrap(
            decode(&element, field->sub, version, data + i * state_field_stride(field), depth + 1),
            "field '%s'", field->name));
    }
    if (value.left)
        return err_new("field '%s' has more than %u elements", field->name, count);
    return NULL;
}

static struct err *decode_scalars(struct span value, const struct state_field *field, void *staged)
{
    uint32_t count = state_field_count(field, staged);
    uint8_t *data = state_field_data(field, staged);
    if (value.left != (uint64_t)count * field->size)
        return err_new("field '%s' has %zu bytes where %zu are needed", field->name, value.left,
                       (size_t)count * field->size);
    for (uint32_t i = 0; i < count; i++, value.at += field->size, data += field->size) {
        uint64_t number = get_le(value.at, (unsigned)field->size);
        if (field->type == STATE_TYPE_BOOL && number > 1)
            return err_new("field '%s' is neither true nor false", field->name);
        memcpy(data, &number, field->size);
    }
    return NULL;
}

static struct err *decode_field(struct span *payload, const struct state_field *field,
                                uint16_t version, void *staged, unsigned depth)
{
    const uint8_t *header;
    struct span value;
    if (!span_take(payload, STATE_FIELD_HEADER, &header))
        return err_new("field '%s' is missing", field->name);
    if (get_le16(header) != field->tag)
        return err_new("found tag %u where field '%s' (tag %u) belongs", get_le16(header),
                       field->name, field->tag);
    value.left = get_le32(header + 2);
    if (!span_take(payload, value.left, &value.at))
        return err_new("field '%s' is cut short", field->name);
    switch (field->type) {
    case STATE_TYPE_STRUCT:
        return decode_structs(value, field, version, staged, depth);
    case STATE_TYPE_BYTES:
        if (value.left != field->size)
            return err_new("field '%s' has %zu bytes where %zu are needed", field->name, value.left,
                           field->size);
        memcpy(state_field_data(field, staged), value.at, field->size);
        return NULL;
    default:
        return decode_scalars(value, field, staged);
    }
}

static struct err *decode(struct span *payload, const struct state_table *table, uint16_t version,
                          void *staged, unsigned depth)
{
    if (depth > STATE_DEPTH_MAX)
        return err_new("tables nest too deep");
    for (size_t i = 0; i < table->field_count; i++) {
        if (table->fields[i].since <= version)
            TRY(decode_field(payload, &table->fields[i], version, staged, depth));
    }
    if (payload->left)
        return err_new("%zu bytes follow the last field", payload->left);
    return table->check ? table->check(staged) : NULL;
}

/*
 * A copy of `object` with copies of the arrays it points to, wherever they are nested. Sizes come
 * from the live object. The copy is walked, not the original, so each pointer is replaced once.
 */
static void stage_arrays(const struct state_table *table, uint8_t *staged, bool release)
{
    for (size_t i = 0; i < table->field_count; i++) {
        const struct state_field *field = &table->fields[i];
        if (field->type != STATE_TYPE_STRUCT)
            continue;
        uint32_t count = state_field_count(field, staged);
        uint8_t *data = state_field_data(field, staged);
        if (field->pointer && !release) {
            uint8_t *copy = xcalloc(count, state_field_stride(field));
            if (count)
                memcpy(copy, data, count * state_field_stride(field));
            memcpy(staged + field->offset, &copy, sizeof(copy));
            data = copy;
        }
        for (uint32_t n = 0; n < count; n++)
            stage_arrays(field->sub, data + n * state_field_stride(field), release);
        if (field->pointer && release)
            free(data);
    }
}

/* Moves the described fields, and nothing else, from the copy to the live object. */
static void commit(const struct state_table *table, uint16_t version, const uint8_t *staged,
                   uint8_t *object)
{
    for (size_t i = 0; i < table->field_count; i++) {
        const struct state_field *field = &table->fields[i];
        if (field->since > version)
            continue;
        uint32_t count = state_field_count(field, object);
        const uint8_t *from = state_field_data(field, staged);
        uint8_t *to = state_field_data(field, object);
        if (field->type == STATE_TYPE_STRUCT) {
            for (uint32_t n = 0; n < count; n++)
                commit(field->sub, version, from + n * state_field_stride(field),
                       to + n * state_field_stride(field));
        } else if (field->type == STATE_TYPE_BYTES) {
            memcpy(to, from, field->size);
        } else {
            memcpy(to, from, (size_t)count * field->size);
        }
    }
}

/* Innermost first: an outer object's post_load may rely on its parts. */
static void run_post_load(const struct state_table *table, uint8_t *object)
{
    for (size_t i = 0; i < table->field_count; i++) {
        const struct state_field *field = &table->fields[i];
        if (field->type != STATE_TYPE_STRUCT)
            continue;
        uint32_t count = state_field_count(field, object);
        uint8_t *data = state_field_data(field, object);
        for (uint32_t n = 0; n < count; n++)
            run_post_load(field->sub, data + n * state_field_stride(field));
    }
    if (table->post_load)
        table->post_load(object);
}

struct err *state_reader_init(struct state_reader *reader, const void *data, size_t len)
{
    *reader = (struct state_reader){.data = data, .len = len, .at = STATE_MAGIC_LEN};
    if (len < STATE_MAGIC_LEN || memcmp(data, STATE_MAGIC, STATE_MAGIC_LEN) != 0)
        return err_new("this is not a Tenon state stream");
    return NULL;
}

static bool take_name(struct span *span, const char *expected)
{
    const uint8_t *len, *name;
    return span_take(span, 1, &len) && span_take(span, *len, &name) && *len == strlen(expected) &&
           memcmp(name, expected, *len) == 0;
}

/* Finds the payload of the next section and verifies everything around it. */
static struct err *open_section(struct state_reader *reader, const struct state_table *table,
                                const char *instance, struct span *payload, uint16_t *version)
{
    struct span span = {reader->data + reader->at, reader->len - reader->at};
    const uint8_t *start = span.at, *bytes;
    if (!span_take(&span, 2, &bytes))
        return err_new("the stream ends before this section");
    if (get_le16(bytes) != STATE_MARK_SECTION)
        return err_new("the stream has no such section");
    if (!take_name(&span, table->name) || !take_name(&span, instance))
        return err_new("the stream has another section here");
    if (!span_take(&span, 6, &bytes))
        return err_new("the section's header is cut short");
    *version = get_le16(bytes);
    payload->left = get_le32(bytes + 2);
    if (!span_take(&span, payload->left, &payload->at) || !span_take(&span, 4, &bytes))
        return err_new("the section is cut short");
    if (get_le32(bytes) != crc32_update(0, start, (size_t)(bytes - start)))
        return err_new("the section's checksum is wrong");
    if (*version > table->version || *version < table->min_version)
        return err_new("the section has version %u, this program reads %u to %u", *version,
                       table->min_version, table->version);
    reader->at = reader->len - span.left;
    return NULL;
}

static struct err *load(struct state_reader *reader, const struct state_table *table,
                        const char *instance, void *object)
{
    struct span payload;
    uint16_t version = 0;
    TRY(open_section(reader, table, instance, &payload, &version));
    uint8_t *staged = xcalloc(1, table->size);
    memcpy(staged, object, table->size);
    stage_arrays(table, staged, false);
    struct err *err = decode(&payload, table, version, staged, 0);
    if (!err) {
        commit(table, version, staged, object);
        run_post_load(table, object);
        reader->sections++;
    }
    stage_arrays(table, staged, true);
    free(staged);
    return err;
}

struct err *state_load(struct state_reader *reader, const struct state_table *table,
                       const char *instance, void *object)
{
    return err_wrap(load(reader, table, instance, object), "state of %s '%s'", table->name,
                    instance);
}

struct err *state_reader_end(struct state_reader *reader)
{
    struct span span = {reader->data + reader->at, reader->len - reader->at};
    const uint8_t *bytes;
    if (!span_take(&span, 10, &bytes) || span.left)
        return err_new("state stream: the end mark is missing or something follows it");
    if (get_le16(bytes) != STATE_MARK_END || get_le32(bytes + 2) != reader->sections)
        return err_new("state stream: it holds another number of sections than this machine");
    if (get_le32(bytes + 6) != crc32_update(0, reader->data, reader->at))
        return err_new("state stream: the checksum is wrong");
    return NULL;
}
