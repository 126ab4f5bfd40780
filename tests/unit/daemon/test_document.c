/*
 * The document of the API: it loads, its schemas use what the checker knows, and paths find their
 * operations.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "../test.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/api.h"
#include "daemon/json_check.h"

static int setup(void **state)
{
    struct api_document *document = xcalloc(1, sizeof(*document));

    assert_ok(api_document_load(document));
    *state = document;
    return 0;
}

static int teardown(void **state)
{
    api_document_fini(*state);
    free(*state);
    return 0;
}

static const struct api_operation *find(void **state, const char *method, const char *path,
                                        const char *first)
{
    char *argument[API_ARGUMENTS_MAX] = {0};
    bool known;
    const struct api_operation *operation =
        api_document_find(*state, method, path, argument, &known);

    assert_true(known || !operation);
    if (first)
        assert_string_equal(argument[0], first);
    for (size_t i = 0; i < API_ARGUMENTS_MAX; i++)
        free(argument[i]);
    return operation;
}

static void test_schemas(void **state)
{
    const struct api_document *document = *state;
    const char *name;
    json_t *schema;

    json_object_foreach(document->schemas, name, schema)
        assert_ok(err_wrap(json_check_schema(schema), "%s", name));
    for (unsigned i = 0; i < document->count; i++) {
        const struct api_operation *operation = &document->operation[i];
        json_object_foreach((json_t *)(uintptr_t)operation->query, name, schema)
            assert_ok(err_wrap(json_check_schema(schema), "%s: %s", operation->id, name));
        if (operation->body)
            assert_non_null(json_object_get(document->schemas, json_string_value(operation->body)));
        assert_int_not_equal(operation->role, ROLE_NONE);
    }
}

/* Every "$ref" leads somewhere. */
static void check_references(const json_t *schemas, const json_t *json)
{
    const char *reference = json_string_value(json_object_get(json, "$ref")), *key;
    json_t *value;

    if (reference)
        assert_non_null(json_object_get(schemas, strrchr(reference, '/') + 1));
    json_object_foreach((json_t *)(uintptr_t)json, key, value) check_references(schemas, value);
    for (size_t i = 0; i < json_array_size(json); i++)
        check_references(schemas, json_array_get(json, i));
}

static void test_openapi(void **state)
{
    const struct api_document *document = *state;

    check_references(document->schemas, document->openapi);
    assert_true(json_object_size(json_object_get(document->openapi, "paths")) > 5);
}

static void test_routing(void **state)
{
    assert_string_equal(find(state, "GET", "/v1/vms", NULL)->id, "listVms");
    assert_string_equal(find(state, "POST", "/v1/vms", NULL)->id, "createVm");
    assert_string_equal(find(state, "GET", "/v1/vms/web", "web")->id, "getVm");
    assert_string_equal(find(state, "POST", "/v1/vms/web/actions/start", "web")->id, "runAction");
    assert_null(find(state, "PATCH", "/v1/vms/web", NULL));
    assert_null(find(state, "GET", "/v1/vms/", NULL));
    assert_null(find(state, "GET", "/v1/vms/web/", NULL));
    assert_null(find(state, "GET", "/v1/vms/a/b", NULL));
    assert_null(find(state, "GET", "/v1/vmsx", NULL));
    assert_null(find(state, "GET", "", NULL));
    assert_null(find(state, "GET", "/v1/../v1/vms", NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schemas),
        cmocka_unit_test(test_openapi),
        cmocka_unit_test(test_routing),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
