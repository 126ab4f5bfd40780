/*
 * Fuzz target: what a client of the REST API says, behind the HTTP library: a path, and a body as
 * the description of a VM and as every schema of api.json. Nothing may crash; what is accepted must
 * be accepted again, with the same outcome.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "daemon/api.h"
#include "daemon/json_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct api_document document;

static void try_path(const char *path)
{
    static const char *const methods[] = {"GET", "POST", "PUT", "DELETE"};
    char *argument[API_ARGUMENTS_MAX] = {0};
    bool known;

    for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
        api_document_find(&document, methods[i], path, argument, &known);
    for (size_t i = 0; i < API_ARGUMENTS_MAX; i++) {
        if (argument[i] && strchr(argument[i], '/'))
            abort(); /* an argument is one part of the path */
        free(argument[i]);
    }
}

/* A description with its defaults says the same as without. */
static void try_vm(const json_t *body)
{
    json_t *once = NULL, *twice = NULL;

    struct err *err = fleet_resolve(body, &once);
    if (!err)
        err = fleet_resolve(once, &twice);
    if (once && (err || !json_equal(once, twice)))
        abort();
    if (once && json_check(document.schemas, json_object_get(document.schemas, "VmConfig"), once))
        abort(); /* what we show is not what openapi.json says */
    err_free(err);
    json_decref(once);
    json_decref(twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *newline = size ? memchr(data, '\n', size) : NULL;
    const char *name;
    json_t *schema;

    if (!document.count && api_document_load(&document))
        abort();
    if (!newline)
        return 0;
    scoped(free_cleanup) char *path = xasprintf("%.*s", (int)(newline - data), (const char *)data);
    try_path(path);
    size_t len = size - (size_t)(newline + 1 - data);
    json_t *body = json_loadb((const char *)newline + 1, len, JSON_REJECT_DUPLICATES, NULL);
    if (body) {
        try_vm(body);
        json_object_foreach(document.schemas, name, schema)
            err_free(json_check(document.schemas, schema, body));
    }
    json_decref(body);
    return 0;
}
