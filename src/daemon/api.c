/*
 * A call of the REST API from its request to its answer. See api.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "daemon/api.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/json_check.h"
#include "daemon/web.h"

/* ---- answers ---- */

/* Changes, and what was refused. */
static void note(const struct api_call *call, unsigned status)
{
    const struct api_operation *operation = call->operation;
    /* Who asks for what there is none of tries paths. */
    bool refused = !operation || status == 401 || status == 403 || status == 413 || status == 421;

    if (!refused && !operation->audited)
        return;
    scoped(free_cleanup) char *other =
        xasprintf("%.16s %.200s", http_method(call->request), http_path(call->request));
    const struct audit_entry entry = {
        .who = call->who.name ? call->who.name : "nobody",
        .from = http_from(call->request),
        .action = operation ? operation->id : other,
        .target = call->target ? call->target : call->argument[0],
        .detail = operation ? call->argument[1] : NULL,
        .status = status,
    };
    audit_write(call->daemon->audit, &entry);
}

void api_answered(struct api_call *call, unsigned status)
{
    note(call, status);
    for (size_t i = 0; i < API_ARGUMENTS_MAX; i++)
        free(call->argument[i]);
    identity_fini(&call->who);
    json_decref(call->body);
    err_free(call->err);
    fd_cleanup(&call->fd);
    free(call->text);
    free(call->target);
    free(call);
}

static void answer_json(struct api_call *call, unsigned status, const char *type, json_t *take_json)
{
    char *text = json_dumps(take_json, JSON_COMPACT | JSON_REAL_PRECISION(12));

    json_decref(take_json);
    http_answer_header(call->request, "Cache-Control", "no-store");
    http_answer(call->request, status, type, text ? text : "{}", text ? strlen(text) : 2);
    free(text);
    api_answered(call, status);
}

void api_answer(struct api_call *call, json_t *take_json)
{
    answer_json(call, call->operation->status, "application/json", take_json);
}

void api_answer_bytes(struct api_call *call, const char *type, const void *bytes, size_t len)
{
    http_answer_header(call->request, "Cache-Control", "no-store");
    http_answer_header(call->request, "X-Content-Type-Options", "nosniff");
    http_answer(call->request, call->operation->status, type, bytes, len);
    api_answered(call, call->operation->status);
}

void api_answer_nothing(struct api_call *call)
{
    unsigned status = call->operation->status;

    http_answer(call->request, status, "", NULL, 0);
    api_answered(call, status);
}

static const char *title_of(unsigned status)
{
    static const struct {
        unsigned status;
        const char *title;
    } titles[] = {
        {400, "Bad Request"},       {401, "Unauthorized"},           {403, "Forbidden"},
        {404, "Not Found"},         {405, "Method Not Allowed"},     {409, "Conflict"},
        {413, "Content Too Large"}, {415, "Unsupported Media Type"}, {421, "Misdirected Request"},
        {504, "Gateway Timeout"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(titles); i++)
        if (titles[i].status == status)
            return titles[i].title;
    return "Internal Server Error";
}

unsigned api_status_of(const struct err *err)
{
    switch (err_kind(err)) {
    case ERR_USAGE:
        return 400;
    case ERR_DENIED:
        return 403;
    case ERR_BUSY:
        return 409;
    case ERR_FAILED:
        break;
    }
    return 500;
}

void api_answer_error(struct api_call *call, unsigned status, struct err *take_err)
{
    json_t *problem =
        json_pack("{s:s, s:s, s:i, s:o}", "type", "about:blank", "title", title_of(status),
                  "status", (int)status, "detail", json_text(err_text(take_err)));

    err_free(take_err);
    if (status == 401)
        http_answer_header(call->request, "WWW-Authenticate", "Bearer");
    answer_json(call, status, "application/problem+json", problem);
}

/* ---- what comes in ---- */

bool api_query_is(struct api_call *call, const char *name)
{
    const char *text = http_query(call->request, name);

    return text && strcmp(text, "false") != 0;
}

uint64_t api_query_number(struct api_call *call, const char *name, uint64_t standard)
{
    const char *text = http_query(call->request, name);

    return text ? strtoull(text, NULL, 10) : standard;
}

struct query_check {
    struct api_call *call;
    struct err *err;
};

static void check_query_name(void *opaque, const char *name)
{
    struct query_check *check = opaque;
    const json_t *schema = json_object_get(check->call->operation->query, name);

    if (check->err)
        return;
    if (!schema) {
        check->err = err_of(ERR_USAGE, "unknown parameter '%.64s'", name);
        return;
    }
    const char *text = http_query(check->call->request, name);
    json_t *value = json_check_from_text(schema, text ? text : "");
    check->err = value ? json_check(NULL, schema, value)
                       : err_of(ERR_USAGE, "expected another value than '%.64s'", text ? text : "");
    check->err = err_wrap(check->err, "%s", name);
    json_decref(value);
}

static struct err *check_query(struct api_call *call)
{
    struct query_check check = {call, NULL};

    http_query_names(call->request, check_query_name, &check);
    return check.err;
}

/* The body of a VM is checked by its own table, which has better sentences. */
static struct err *read_body(struct api_call *call, unsigned *status)
{
    const char *schema = json_string_value(call->operation->body);
    const char *type = http_header(call->request, "Content-Type");
    const struct buf *bytes = http_body(call->request);
    json_error_t where;

    if (!schema)
        return NULL;
    *status = 415;
    if (type && strncmp(type, "application/json", 16) != 0)
        return err_of(ERR_USAGE, "the body must be application/json, not '%.64s'", type);
    *status = 400;
    call->body = json_loadb(bytes->data ? (const char *)bytes->data : "", bytes->len,
                            JSON_REJECT_DUPLICATES, &where);
    if (!call->body)
        return err_of(ERR_USAGE, "the body is no JSON: line %d, column %d: %s", where.line,
                      where.column, where.text);
    if (!strcmp(schema, "VmConfig"))
        return NULL;
    const json_t *schemas = call->daemon->document.schemas;
    return json_check(schemas, json_object_get(schemas, schema), call->body);
}

/* A VM that the caller may not see is one that is not there. */
static struct err *find_vm(struct api_call *call, unsigned *status)
{
    if (!strstr(call->operation->path, "{vm}"))
        return NULL;
    *status = 404;
    call->vm = fleet_find(call->daemon->fleet, call->argument[0]);
    if (!call->vm || !identity_sees(&call->who, call->argument[0]))
        return err_new("there is no VM '%.64s'", call->argument[0]);
    if (!strstr(call->operation->path, "{console}"))
        return NULL;
    call->console = instance_find_console(call->vm, call->argument[1]);
    if (!call->console)
        return err_new("VM '%s' has no console '%.64s' that is tenond's: see \"consoles\"",
                       call->vm->name, call->argument[1]);
    return NULL;
}

static struct err *check_role(const struct api_call *call, unsigned *status)
{
    *status = 403;
    if (call->who.role < call->operation->role)
        return err_of(ERR_DENIED, "%s is %s: this needs %s", call->who.name,
                      role_name(call->who.role), role_name(call->operation->role));
    return NULL;
}

/* By a ticket, where one is given: it is for one path. */
static struct err *identify(struct api_call *call, unsigned *status)
{
    const char *ticket = http_query(call->request, "ticket");

    if (!ticket)
        return access_identify(call->request, call->daemon->store, &call->who, status);
    *status = 401;
    if (api_ticket_use(call->daemon, ticket, http_path(call->request), &call->who))
        return NULL;
    return err_of(ERR_DENIED, "the ticket is not for this, was used, or is too old");
}

static struct err *check_names(const struct daemon *daemon, struct http_request *request,
                               unsigned *status)
{
    static const char *const local_hosts[] = {"localhost", "tenon", NULL};

    return access_check_names(request, http_is_local(request) ? local_hosts : daemon->config.hosts,
                              status);
}

/* The web console itself is for everybody. */
static bool answer_page(const struct daemon *daemon, struct http_request *request)
{
    unsigned status;
    struct err *err = check_names(daemon, request, &status);
    bool good = !err;

    err_free(err);
    return good && web_answer(daemon->web, request);
}

static struct err *prepare(struct api_call *call, unsigned *status)
{
    struct http_request *request = call->request;
    bool known;

    TRY(check_names(call->daemon, request, status));
    TRY(identify(call, status));
    call->operation = api_document_find(&call->daemon->document, http_method(request),
                                        http_path(request), call->argument, &known);
    *status = known ? 405 : 404;
    if (!call->operation)
        return known ? err_of(ERR_USAGE, "'%.64s' takes no %.16s", http_path(request),
                              http_method(request))
                     : err_new("there is nothing at '%.64s'", http_path(request));
    TRY(check_role(call, status));
    TRY(find_vm(call, status));
    *status = 413;
    if (http_body_is_too_large(request))
        return err_of(ERR_USAGE, "the body is larger than 1 MiB");
    *status = 400;
    TRY(check_query(call));
    return read_body(call, status);
}

void api_late(void *opaque, const char *from, const char *path)
{
    const struct daemon *daemon = opaque;
    const struct audit_entry entry = {
        .who = "nobody", .from = from, .action = "timeout", .target = path, .status = 408};

    audit_write(daemon->audit, &entry);
}

void api_handle(void *opaque, struct http_request *request)
{
    unsigned status = 500;

    if (answer_page(opaque, request))
        return;
    struct api_call *call = xcalloc(1, sizeof(*call));

    call->daemon = opaque;
    call->request = request;
    call->fd = -1;
    struct err *err = prepare(call, &status);
    if (!err) {
        err = call->operation->run(call);
        status = err ? api_status_of(err) : 0;
    }
    if (err)
        api_answer_error(call, status, err);
}
