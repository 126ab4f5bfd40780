/*
 * The schema's table as JSON Schema (draft 2020-12), for OpenAPI 3.1.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "vm/schema.h"
#include "vm/schema_table.h"

static json_t *object_schema(const struct schema_object *object);

static json_t *choices(const struct schema_field *field)
{
    json_t *names = json_array();

    for (unsigned i = 0; field->choices[i]; i++)
        json_array_append_new(names, json_string(field->choices[i]));
    return json_pack("{s:s, s:o}", "type", "string", "enum", names);
}

/* A size may be written as text, too: "512M". */
static json_t *number(const struct schema_field *field)
{
    json_t *schema = json_pack("{s:s, s:I, s:I}", "type", "integer", "minimum",
                               (json_int_t)field->min, "maximum", (json_int_t)field->max);

    if (field->kind == SCHEMA_SIZE)
        json_object_set_new(schema, "type", json_pack("[s, s]", "integer", "string"));
    return schema;
}

/* NULL: not for users. */
static json_t *type_schema(const struct schema_field *field)
{
    switch (field->kind) {
    case SCHEMA_TEXT:
    case SCHEMA_PATH:
        return json_pack("{s:s}", "type", "string");
    case SCHEMA_WORD:
        return json_pack("{s:s, s:s}", "type", "string", "pattern", "^[A-Za-z0-9._-]{1,64}$");
    case SCHEMA_ADDRESS:
        return json_pack("{s:s, s:s}", "type", "string", "format", "ipv4");
    case SCHEMA_MAC:
        return json_pack("{s:s, s:s}", "type", "string", "pattern",
                         "^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$");
    case SCHEMA_SWITCH:
        return json_pack("{s:s}", "type", "boolean");
    case SCHEMA_CHOICE:
        return choices(field);
    case SCHEMA_COUNT:
    case SCHEMA_PORT:
    case SCHEMA_SIZE:
        return number(field);
    case SCHEMA_LIST:
        return json_pack("{s:s, s:i, s:{s:[{s:s}, o]}}", "type", "array", "maxItems",
                         (int)field->limit, "items", "anyOf", "type", "string",
                         object_schema(field->object));
    case SCHEMA_FD:
    case SCHEMA_FDS:
        break;
    }
    return NULL;
}

static json_t *object_schema(const struct schema_object *object)
{
    json_t *properties = json_object();

    for (size_t i = 0; i < object->count; i++) {
        const struct schema_field *field = &object->fields[i];
        json_t *schema = type_schema(field);
        if (!schema)
            continue;
        json_object_set_new(schema, "description", json_string(field->help));
        json_object_set_new(properties, field->key, schema);
    }
    return json_pack("{s:s, s:o, s:b}", "type", "object", "properties", properties,
                     "additionalProperties", 0);
}

json_t *schema_json_schema(void)
{
    return object_schema(&schema_vm);
}
