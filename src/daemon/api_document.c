/*
 * The document of the API: api.json taken apart for routing, and put together as OpenAPI 3.1.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "daemon/api.h"
#include "daemon/api_json.h"
#include "vm/schema.h"

static const struct api_handler *const handler_lists[] = {
    api_vm_handlers,    api_look_handlers,    api_event_handlers, api_console_handlers,
    api_token_handlers, api_metrics_handlers, api_image_handlers, api_screen_handlers};

static struct err *find_handler(struct api_operation *operation)
{
    for (size_t list = 0; list < ARRAY_SIZE(handler_lists); list++) {
        for (const struct api_handler *handler = handler_lists[list]; handler->id; handler++) {
            if (strcmp(handler->id, operation->id) != 0)
                continue;
            operation->run = handler->run;
            return NULL;
        }
    }
    return err_new("api.json: nobody does '%s'", operation->id);
}

static struct err *take_operation(struct api_document *document, const json_t *row)
{
    struct api_operation *operation = &document->operation[document->count];
    const char *role;
    int status = 200, audit = -1;
    json_error_t where;

    if (document->count == API_OPERATIONS_MAX)
        return err_new("api.json: more than %d operations", API_OPERATIONS_MAX);
    if (json_unpack_ex((json_t *)(uintptr_t)row, &where, 0,
                       "{s:s, s:s, s:s, s:s, s?s, s?i, s?o, s?o, s?b}", "id", &operation->id,
                       "method", &operation->method, "path", &operation->path, "role", &role,
                       "media", &operation->media, "status", &status, "query", &operation->query,
                       "body", &operation->body, "audit", &audit) != 0)
        return err_new("api.json: operation %u: %s", document->count, where.text);
    operation->role = role_find(role);
    operation->status = (unsigned)status;
    /* Every change is, and of looks those that say so. */
    operation->audited = audit < 0 ? strcmp(operation->method, "GET") != 0 : audit;
    document->count++;
    return find_handler(operation);
}

/* ---- OpenAPI ---- */

static json_t *reference(const char *schema)
{
    return json_pack("{s:o}", "$ref", json_sprintf("#/components/schemas/%s", schema));
}

static json_t *content(const char *media, json_t *take_schema)
{
    return json_pack("{s:{s:o}}", media, "schema", take_schema);
}

static json_t *parameters(const struct api_operation *operation)
{
    json_t *list = json_array(), *schema;
    const char *at = operation->path, *name;

    while ((at = strchr(at, '{'))) {
        size_t len = strcspn(at, "}");
        json_array_append_new(list,
                              json_pack("{s:s%, s:s, s:b, s:{s:s}}", "name", at + 1, len - 1, "in",
                                        "path", "required", 1, "schema", "type", "string"));
        at += len;
    }
    json_object_foreach((json_t *)(uintptr_t)operation->query, name, schema) json_array_append_new(
        list, json_pack("{s:s, s:s, s:O}", "name", name, "in", "query", "schema", schema));
    return list;
}

static json_t *responses(const struct api_operation *operation, const char *reply)
{
    json_t *good = json_pack("{s:s}", "description", "It is done.");
    char status[8];

    if (operation->media)
        json_object_set_new(good, "content",
                            content(operation->media, json_pack("{s:s}", "type", "string")));
    else if (reply)
        json_object_set_new(good, "content", content("application/json", reference(reply)));
    snprintf(status, sizeof(status), "%u", operation->status);
    return json_pack("{s:o, s:{s:s, s:o}}", status, good, "default", "description",
                     "What went wrong.", "content",
                     content("application/problem+json", reference("Problem")));
}

static json_t *openapi_operation(const struct api_operation *operation, const json_t *row)
{
    json_t *json =
        json_pack("{s:s, s:O, s:o, s:o, s:s}", "operationId", operation->id, "summary",
                  json_object_get(row, "summary"), "parameters", parameters(operation), "responses",
                  responses(operation, json_string_value(json_object_get(row, "reply"))),
                  "x-tenon-role", role_name(operation->role));

    if (operation->body)
        json_object_set_new(
            json, "requestBody",
            json_pack("{s:b, s:o}", "required", 1, "content",
                      content("application/json", reference(json_string_value(operation->body)))));
    return json;
}

static void make_openapi(struct api_document *document)
{
    const json_t *rows = json_object_get(document->source, "operations");
    json_t *paths = json_object();

    for (unsigned i = 0; i < document->count; i++) {
        const struct api_operation *operation = &document->operation[i];
        json_t *path = json_object_get(paths, operation->path);
        char method[12];
        size_t len = 0;

        if (!path) {
            path = json_object();
            json_object_set_new(paths, operation->path, path);
        }
        for (; operation->method[len] && len < sizeof(method) - 1; len++)
            method[len] = (char)(operation->method[len] | 0x20);
        method[len] = 0;
        json_object_set_new(path, method, openapi_operation(operation, json_array_get(rows, i)));
    }
    document->openapi = json_pack(
        "{s:s, s:{s:O, s:O, s:s, s:{s:s}}, s:o, s:{s:O, s:{s:{s:s, s:s}}}, s:[{s:[]}]}", "openapi",
        "3.1.0", "info", "title", json_object_get(document->source, "title"), "description",
        json_object_get(document->source, "description"), "version", TENON_VERSION, "license",
        "name", "GPL-2.0-or-later", "paths", paths, "components", "schemas", document->schemas,
        "securitySchemes", "token", "type", "http", "scheme", "bearer", "security", "token");
}

struct err *api_document_load(struct api_document *document)
{
    json_error_t where;
    json_t *row;
    size_t i;

    *document = (struct api_document){0};
    document->source = json_loadb(api_json, sizeof(api_json), JSON_REJECT_DUPLICATES, &where);
    if (!document->source)
        return err_new("api.json:%d: %s", where.line, where.text);
    document->schemas = json_object_get(document->source, "schemas");
    json_object_set_new(document->schemas, "VmConfig", schema_json_schema());
    json_array_foreach(json_object_get(document->source, "operations"), i, row)
        TRY(take_operation(document, row));
    make_openapi(document);
    return document->openapi ? NULL : err_new("api.json: a part is missing");
}

void api_document_fini(struct api_document *document)
{
    json_decref(document->openapi);
    json_decref(document->source);
    *document = (struct api_document){0};
}

/* ---- routing ---- */

/* Does `path` have the form of `pattern`? Arguments are copied. */
static bool matches(const char *pattern, const char *path, char *argument[API_ARGUMENTS_MAX])
{
    unsigned count = 0;

    while (*pattern) {
        if (*pattern != '{') {
            if (*pattern++ != *path++)
                return false;
            continue;
        }
        size_t len = strcspn(path, "/");
        if (!len || count == API_ARGUMENTS_MAX)
            return false;
        free(argument[count]);
        argument[count++] = xasprintf("%.*s", (int)len, path);
        path += len;
        pattern += strcspn(pattern, "}") + 1;
    }
    return !*path;
}

const struct api_operation *api_document_find(const struct api_document *document,
                                              const char *method, const char *path,
                                              char *argument[API_ARGUMENTS_MAX], bool *known)
{
    *known = false;
    for (unsigned i = 0; i < document->count; i++) {
        const struct api_operation *operation = &document->operation[i];
        if (!matches(operation->path, path, argument))
            continue;
        *known = true;
        if (!strcmp(operation->method, method))
            return operation;
    }
    return NULL;
}
