/*
 * REST: tokens, who one is, and the audit log.
 *
 * A token is shown once, when it is made; the store has its hash.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/api.h"

static json_t *split(const char *vms)
{
    json_t *list = json_array();

    for (const char *at = vms; at && *at;) {
        size_t len = strcspn(at, ",");
        json_array_append_new(list, json_stringn(at, len));
        at += len + (at[len] == ',');
    }
    return list;
}

/* NULL: all VMs. */
static char *join(const json_t *vms)
{
    struct buf text = BUF_INIT;

    if (!vms)
        return NULL;
    for (size_t i = 0; i < json_array_size(vms); i++)
        buf_printf(&text, "%s%s", i ? "," : "", json_string_value(json_array_get(vms, i)));
    buf_u8(&text, 0);
    return (char *)text.data;
}

static json_t *describe(const struct store_token *token)
{
    json_t *json = json_pack("{s:s, s:s, s:o}", "name", token->name, "role", token->role,
                             "created_at", events_time(token->created_ns));

    if (token->vms)
        json_object_set_new(json, "vms", split(token->vms));
    if (token->expires_ns)
        json_object_set_new(json, "expires_at", events_time(token->expires_ns));
    return json;
}

static void add_token(void *opaque, struct store_token *token)
{
    json_array_append_new(opaque, describe(token));
}

static struct err *list_tokens(struct api_call *call)
{
    json_t *list = json_array();
    struct err *err = store_tokens(call->daemon->store, add_token, list);

    if (err) {
        json_decref(list);
        return err;
    }
    api_answer(call, json_pack("{s:o}", "tokens", list));
    return NULL;
}

/* Nobody gives more than he has. */
static struct err *check_grant(const struct api_call *call, const json_t *vms)
{
    if (call->who.vms && !vms)
        return err_of(ERR_DENIED, "%s may not make a token for all VMs", call->who.name);
    for (size_t i = 0; i < json_array_size(vms); i++) {
        const char *vm = json_string_value(json_array_get(vms, i));
        if (!identity_sees(&call->who, vm))
            return err_of(ERR_DENIED, "%s may not make a token for VM '%s'", call->who.name, vm);
    }
    return NULL;
}

static struct err *create_token(struct api_call *call)
{
    const json_t *lifetime = json_object_get(call->body, "expires_in");
    const json_t *vms = json_object_get(call->body, "vms");
    char text[ACCESS_SECRET_SIZE];
    struct store_token token = {
        .name = (char *)(uintptr_t)json_string_value(json_object_get(call->body, "name")),
        .role = (char *)(uintptr_t)json_string_value(json_object_get(call->body, "role")),
        .created_ns = clock_wall_ns(),
    };

    TRY(check_grant(call, vms));
    TRY(access_secret(text));
    access_hash(text, token.hash);
    if (lifetime)
        token.expires_ns = token.created_ns + (uint64_t)json_integer_value(lifetime) * NSEC_PER_SEC;
    token.vms = join(vms);
    struct err *err = store_token_add(call->daemon->store, &token);
    if (!err) {
        json_t *json = describe(&token);
        json_object_set_new(json, "token", json_string(text));
        call->target = xstrdup(token.name);
        api_answer(call, json);
    }
    free(token.vms);
    return err;
}

static struct err *delete_token(struct api_call *call)
{
    scoped(free_cleanup) char *who = xasprintf("token:%s", call->argument[0]);
    bool found;

    TRY(store_token_remove(call->daemon->store, call->argument[0], &found));
    if (!found) {
        api_answer_error(call, 404, err_new("there is no token '%.64s'", call->argument[0]));
        return NULL;
    }
    session_close_all(&call->daemon->sessions, who);
    api_tickets_forget(call->daemon, who);
    api_answer_nothing(call);
    return NULL;
}

static struct err *get_me(struct api_call *call)
{
    json_t *json =
        json_pack("{s:s, s:s}", "name", call->who.name, "role", role_name(call->who.role));

    if (call->who.vms)
        json_object_set_new(json, "vms", split(call->who.vms));
    if (call->who.expires_ns)
        json_object_set_new(json, "expires_at", events_time(call->who.expires_ns));
    api_answer(call, json);
    return NULL;
}

/* ---- the audit log ---- */

/* It names all VMs. */
static struct err *check_audit(const struct api_call *call)
{
    return call->who.vms
               ? err_of(ERR_DENIED, "%s may not read what concerns other VMs", call->who.name)
               : NULL;
}

static struct err *get_audit(struct api_call *call)
{
    json_t *list;

    TRY(check_audit(call));
    TRY(audit_read(call->daemon->config.state, api_query_number(call, "after", 0),
                   api_query_number(call, "limit", 1000), &list));
    api_answer(call, json_pack("{s:o}", "entries", list));
    return NULL;
}

static struct err *verify_audit(struct api_call *call)
{
    uint64_t count = 0;

    TRY(check_audit(call));
    struct err *err = audit_verify(call->daemon->config.state, &count);
    json_t *json = json_pack("{s:b, s:I}", "intact", !err, "good", (json_int_t)count);
    if (err)
        json_object_set_new(json, "problem", json_string(err_text(err)));
    err_free(err);
    api_answer(call, json);
    return NULL;
}

const struct api_handler api_token_handlers[] = {
    {"listTokens", list_tokens},
    {"createToken", create_token},
    {"deleteToken", delete_token},
    {"getMe", get_me},
    {"getAudit", get_audit},
    {"verifyAudit", verify_audit},
    {NULL, NULL},
};
