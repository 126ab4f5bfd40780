/*
 * JSON against its schema: each keyword accepts and refuses.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "../test.h"

#include <string.h>

#include "daemon/json_check.h"

static const char components[] =
    "{'Name': {'type': 'string', 'pattern': '^[a-z]+$', 'maxLength': 4, 'minLength': 2},"
    " 'Deep': {'type': 'object', 'properties': {'in': {'$ref': '#/components/schemas/Deep'}}}}";

static json_t *load(const char *text)
{
    char copy[1024];
    json_error_t where;

    snprintf(copy, sizeof(copy), "%s", text);
    for (char *c = copy; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    json_t *json = json_loads(copy, JSON_DECODE_ANY, &where);
    if (!json)
        fail_msg("%s: %s", text, where.text);
    return json;
}

static struct err *check(const char *schema_text, const char *value_text)
{
    json_t *schemas = load(components), *schema = load(schema_text), *value = load(value_text);
    struct err *err = json_check_schema(schema);

    if (!err)
        err = json_check(schemas, schema, value);
    json_decref(schemas);
    json_decref(schema);
    json_decref(value);
    return err;
}

static void test_types(void **state)
{
    assert_ok(check("{'type': 'integer'}", "3"));
    assert_ok(check("{'type': 'number'}", "3"));
    assert_err(check("{'type': 'integer'}", "3.5"), "expected an integer");
    assert_ok(check("{'type': ['integer', 'string']}", "'512M'"));
    assert_err(check("{'type': ['integer', 'string']}", "[]"), "expected another type");
    assert_err(check("{'type': 'object'}", "null"), "expected an object");
    assert_ok(check("{'type': 'boolean'}", "false"));
}

static void test_limits(void **state)
{
    assert_ok(check("{'minimum': 1, 'maximum': 9}", "9"));
    assert_err(check("{'minimum': 1, 'maximum': 9}", "10"), "at most 9");
    assert_err(check("{'minimum': 1}", "-5"), "at least 1");
    assert_err(check("{'type': 'array', 'maxItems': 1}", "[1, 2]"), "at most 1 entries");
    assert_err(check("{'type': 'array', 'minItems': 1}", "[]"), "at least 1 entries");
    assert_err(check("{'enum': ['a', 'b']}", "'c'"), "one of [\"a\",\"b\"]");
}

static void test_names_the_place(void **state)
{
    const char *schema = "{'type': 'object', 'required': ['a'], 'additionalProperties': false,"
                         " 'properties': {'a': {'type': 'array',"
                         " 'items': {'$ref': '#/components/schemas/Name'}}}}";

    assert_ok(check(schema, "{'a': ['ab', 'abcd']}"));
    assert_err(check(schema, "{'a': ['ab', 'ABCD']}"), "a: [1]: expected text like");
    assert_err(check(schema, "{'a': ['abcde']}"), "a: [0]: expected at most 4 characters");
    assert_err(check(schema, "{'a': ['a']}"), "at least 2");
    assert_err(check(schema, "{}"), "'a' is missing");
    assert_err(check(schema, "{'a': [], 'b': 1}"), "unknown key 'b'");
}

static void test_any_of(void **state)
{
    const char *schema = "{'anyOf': [{'type': 'string'}, {'type': 'object'}]}";

    assert_ok(check(schema, "'x'"));
    assert_ok(check(schema, "{}"));
    assert_err(check(schema, "1"), "expected an object");
}

static void test_depth_is_bounded(void **state)
{
    char value[1024] = "";

    for (int i = 0; i < 40; i++)
        strcat(value, "{'in': ");
    strcat(value, "{}");
    for (int i = 0; i < 40; i++)
        strcat(value, "}");
    assert_err(check("{'$ref': '#/components/schemas/Deep'}", value), "nested deeper");
}

static void test_unknown_keyword(void **state)
{
    assert_err(check("{'properties': {'a': {'oneOf': []}}}", "{}"), "'oneOf' is not known");
}

static void test_from_text(void **state)
{
    json_t *number = load("{'type': 'integer'}"), *flag = load("{'type': 'boolean'}");
    json_t *value = json_check_from_text(number, "42");

    assert_int_equal(json_integer_value(value), 42);
    json_decref(value);
    assert_null(json_check_from_text(number, "4x"));
    assert_null(json_check_from_text(number, ""));
    assert_null(json_check_from_text(number, "99999999999999999999"));
    assert_true(json_is_true(json_check_from_text(flag, "")));
    assert_null(json_check_from_text(flag, "maybe"));
    json_decref(number);
    json_decref(flag);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_names_the_place),
        cmocka_unit_test(test_any_of),
        cmocka_unit_test(test_depth_is_bounded),
        cmocka_unit_test(test_unknown_keyword),
        cmocka_unit_test(test_from_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
