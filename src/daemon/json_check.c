/*
 * JSON Schema, the part that we use. See json_check.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "daemon/json_check.h"

#include <errno.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 32
#define REFERENCE "#/components/schemas/"

struct check {
    const json_t *schemas;
    unsigned depth;
};

static struct err *check_value(struct check *check, const json_t *schema, const json_t *value);

static bool is_type(const json_t *value, const char *type)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return !strcmp(type, "object");
    case JSON_ARRAY:
        return !strcmp(type, "array");
    case JSON_STRING:
        return !strcmp(type, "string");
    case JSON_INTEGER:
        return !strcmp(type, "integer") || !strcmp(type, "number");
    case JSON_REAL:
        return !strcmp(type, "number");
    case JSON_TRUE:
    case JSON_FALSE:
        return !strcmp(type, "boolean");
    case JSON_NULL:
        break;
    }
    return !strcmp(type, "null");
}

static struct err *check_type(const json_t *type, const json_t *value)
{
    const char *first = json_string_value(json_is_array(type) ? json_array_get(type, 0) : type);

    if (json_is_string(type) && !is_type(value, first))
        return err_of(ERR_USAGE, "expected %s %s", strchr("aeio", *first) ? "an" : "a", first);
    for (size_t i = 0; i < json_array_size(type); i++)
        if (is_type(value, json_string_value(json_array_get(type, i))))
            return NULL;
    return json_is_array(type) ? err_of(ERR_USAGE, "expected another type, such as %s", first)
                               : NULL;
}

static struct err *check_enum(const json_t *choices, const json_t *value)
{
    struct err *err;
    char *text;

    for (size_t i = 0; i < json_array_size(choices); i++)
        if (json_equal(json_array_get(choices, i), value))
            return NULL;
    text = json_dumps(choices, JSON_COMPACT | JSON_ENCODE_ANY);
    err = err_of(ERR_USAGE, "expected one of %s", text ? text : "a few");
    free(text);
    return err;
}

static struct err *check_number(const json_t *schema, const json_t *value)
{
    const json_t *minimum = json_object_get(schema, "minimum");
    const json_t *maximum = json_object_get(schema, "maximum");
    double number = json_number_value(value);

    if (minimum && number < json_number_value(minimum))
        return err_of(ERR_USAGE, "expected at least %.15g", json_number_value(minimum));
    if (maximum && number > json_number_value(maximum))
        return err_of(ERR_USAGE, "expected at most %.15g", json_number_value(maximum));
    return NULL;
}

static struct err *check_string(const json_t *schema, const json_t *value)
{
    const json_t *longest = json_object_get(schema, "maxLength");
    const json_t *shortest = json_object_get(schema, "minLength");
    const char *pattern = json_string_value(json_object_get(schema, "pattern"));
    size_t len = json_string_length(value);
    regex_t regex;

    if (longest && len > (size_t)json_integer_value(longest))
        return err_of(ERR_USAGE, "expected at most %lld characters",
                      (long long)json_integer_value(longest));
    if (shortest && len < (size_t)json_integer_value(shortest))
        return err_of(ERR_USAGE, "expected at least %lld characters",
                      (long long)json_integer_value(shortest));
    if (!pattern)
        return NULL;
    if (regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB) != 0)
        return err_new("the schema's pattern %s is none", pattern);
    bool matches = regexec(&regex, json_string_value(value), 0, NULL, 0) == 0;
    regfree(&regex);
    return matches ? NULL : err_of(ERR_USAGE, "expected text like %s", pattern);
}

static struct err *check_array(struct check *check, const json_t *schema, const json_t *value)
{
    const json_t *items = json_object_get(schema, "items");
    const json_t *most = json_object_get(schema, "maxItems");
    const json_t *least = json_object_get(schema, "minItems");

    if (most && json_array_size(value) > (size_t)json_integer_value(most))
        return err_of(ERR_USAGE, "expected at most %lld entries",
                      (long long)json_integer_value(most));
    if (least && json_array_size(value) < (size_t)json_integer_value(least))
        return err_of(ERR_USAGE, "expected at least %lld entries",
                      (long long)json_integer_value(least));
    for (size_t i = 0; items && i < json_array_size(value); i++)
        TRY(err_wrap(check_value(check, items, json_array_get(value, i)), "[%zu]", i));
    return NULL;
}

static struct err *check_object(struct check *check, const json_t *schema, const json_t *value)
{
    const json_t *properties = json_object_get(schema, "properties");
    const json_t *required = json_object_get(schema, "required");
    const json_t *more = json_object_get(schema, "additionalProperties");
    const char *key;
    json_t *member;

    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        if (!json_object_get(value, name))
            return err_of(ERR_USAGE, "'%s' is missing", name);
    }
    json_object_foreach((json_t *)(uintptr_t)value, key, member)
    {
        const json_t *known = json_object_get(properties, key);
        if (!known && json_is_object(more))
            known = more;
        if (!known && json_is_false(more))
            return err_of(ERR_USAGE, "unknown key '%.64s'", key);
        if (known)
            TRY(err_wrap(check_value(check, known, member), "%.64s", key));
    }
    return NULL;
}

static struct err *check_any(struct check *check, const json_t *choices, const json_t *value)
{
    struct err *err = NULL;

    for (size_t i = 0; i < json_array_size(choices); i++) {
        err_free(err);
        err = check_value(check, json_array_get(choices, i), value);
        if (!err)
            return NULL;
    }
    return err;
}

static struct err *check_plain(struct check *check, const json_t *schema, const json_t *value)
{
    const json_t *type = json_object_get(schema, "type");
    const json_t *choices = json_object_get(schema, "enum");
    const json_t *any = json_object_get(schema, "anyOf");

    if (type)
        TRY(check_type(type, value));
    if (choices)
        TRY(check_enum(choices, value));
    if (any)
        TRY(check_any(check, any, value));
    if (json_is_number(value))
        return check_number(schema, value);
    if (json_is_string(value))
        return check_string(schema, value);
    if (json_is_array(value))
        return check_array(check, schema, value);
    return json_is_object(value) ? check_object(check, schema, value) : NULL;
}

static struct err *check_value(struct check *check, const json_t *schema, const json_t *value)
{
    const char *reference = json_string_value(json_object_get(schema, "$ref"));

    if (reference) {
        schema = json_object_get(check->schemas, reference + strlen(REFERENCE));
        if (!schema)
            return err_new("the schema %s is missing", reference);
    }
    if (check->depth == DEPTH_MAX)
        return err_of(ERR_USAGE, "it is nested deeper than %d levels", DEPTH_MAX);
    check->depth++;
    struct err *err = check_plain(check, schema, value);
    check->depth--;
    return err;
}

struct err *json_check(const json_t *schemas, const json_t *schema, const json_t *value)
{
    struct check check = {.schemas = schemas};

    return check_value(&check, schema, value);
}

/* ---- the schemas themselves ---- */

static struct err *check_each(const json_t *schemas)
{
    const char *key;
    json_t *schema;

    json_object_foreach((json_t *)(uintptr_t)schemas, key, schema)
        TRY(err_wrap(json_check_schema(schema), "%s", key));
    return NULL;
}

struct err *json_check_schema(const json_t *schema)
{
    static const char *const known[] = {
        "type",        "enum",     "minimum", "maximum",  "minLength",
        "maxLength",   "pattern",  "items",   "minItems", "maxItems",
        "properties",  "required", "anyOf",   "$ref",     "additionalProperties",
        "description", "format"};
    const json_t *any = json_object_get(schema, "anyOf");
    const json_t *more = json_object_get(schema, "additionalProperties");
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)schema, key, value)
    {
        size_t i = 0;
        while (i < ARRAY_SIZE(known) && strcmp(known[i], key) != 0)
            i++;
        if (i == ARRAY_SIZE(known))
            return err_new("the keyword '%s' is not known", key);
    }
    for (size_t i = 0; i < json_array_size(any); i++)
        TRY(json_check_schema(json_array_get(any, i)));
    if (json_object_get(schema, "items"))
        TRY(json_check_schema(json_object_get(schema, "items")));
    if (json_is_object(more))
        TRY(json_check_schema(more));
    return check_each(json_object_get(schema, "properties"));
}

json_t *json_check_from_text(const json_t *schema, const char *text)
{
    const char *type = json_string_value(json_object_get(schema, "type"));
    char *end;

    if (!type || !strcmp(type, "string"))
        return json_string(text);
    if (!strcmp(type, "boolean"))
        return !strcmp(text, "true") || !*text ? json_true()
               : !strcmp(text, "false")        ? json_false()
                                               : NULL;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    return !strcmp(type, "integer") && *text && !*end && !errno ? json_integer(number) : NULL;
}

json_t *json_text(const char *text)
{
    json_t *json = json_string(text);
    scoped(free_cleanup) char *copy = json ? NULL : xstrdup(text);

    for (char *c = copy; c && *c; c++)
        *c = *c & 0x80 ? '?' : *c;
    return json ? json : json_string(copy);
}
