/*
 * A VM as JSON, by the schema's table. See schema.h; reading back is in schema.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vm/schema.h"
#include "vm/schema_table.h"

static json_t *object_to_json(const struct schema_object *object, const void *element,
                              bool with_fds);

static json_t *list_to_json(const struct schema_field *list, const void *object, bool with_fds)
{
    json_t *array = json_array();
    unsigned count = *(const unsigned *)schema_at(object, list->count_offset);

    for (unsigned i = 0; i < count; i++) {
        const void *entry = schema_at(object, list->offset + i * list->object->size);
        json_array_append_new(array, object_to_json(list->object, entry, with_fds));
    }
    return array;
}

static json_t *fds_to_json(const int *fds)
{
    json_t *array = json_array();

    for (unsigned i = 0; i < VM_QUEUES_MAX && fds[i] >= 0; i++)
        json_array_append_new(array, json_integer(fds[i]));
    return array;
}

static json_t *field_to_json(const struct schema_field *field, const void *element, bool with_fds)
{
    const void *member = schema_at(element, field->offset);
    struct buf text = BUF_INIT;
    json_t *json;

    switch (field->kind) {
    case SCHEMA_LIST:
        return list_to_json(field, element, with_fds);
    case SCHEMA_FDS:
        return with_fds ? fds_to_json(member) : NULL;
    case SCHEMA_FD:
        return with_fds && *(const int *)member >= 0 ? json_integer(*(const int *)member) : NULL;
    case SCHEMA_COUNT:
        return *(const unsigned *)member ? json_integer(*(const unsigned *)member) : NULL;
    case SCHEMA_PORT:
        return json_integer(*(const uint16_t *)member);
    case SCHEMA_SIZE:
        return *(const uint64_t *)member ? json_integer((json_int_t) * (const uint64_t *)member)
                                         : NULL;
    case SCHEMA_SWITCH:
        return json_boolean(*(const bool *)member);
    case SCHEMA_TEXT:
    case SCHEMA_WORD:
    case SCHEMA_PATH:
    case SCHEMA_ADDRESS:
        if (!*(char *const *)member)
            return NULL;
        break;
    case SCHEMA_CHOICE:
    case SCHEMA_MAC:
        break;
    }
    schema_write_text(field, element, &text);
    json = json_stringn(text.data ? (const char *)text.data : "", text.len);
    buf_fini(&text);
    return json;
}

static json_t *object_to_json(const struct schema_object *object, const void *element,
                              bool with_fds)
{
    json_t *json = json_object();

    for (size_t i = 0; i < object->count; i++) {
        json_t *value = field_to_json(&object->fields[i], element, with_fds);
        if (value)
            json_object_set_new(json, object->fields[i].key, value);
    }
    return json;
}

json_t *schema_to_json(const struct vm_config *config, bool with_fds)
{
    return object_to_json(&schema_vm, config, with_fds);
}
