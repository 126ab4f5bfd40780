/*
 * tenon token, tenon audit: who may do what at tenond, and who did.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/rest.h"
#include "cmd/tenond_paths.h"
#include "daemon/audit.h"

static const struct option_spec token_options[] = {
    {"role", "viewer|operator|admin", "With create: what it may do. Default: viewer."},
    {"vms", "NAME[,NAME...]", "With create: for these VMs alone."},
    {"expires", "TIME", "With create: when it ends, as 90s, 15m, 12h or 30d. Default: never."},
    {"json", NULL, "Print the reply of the daemon as JSON."},
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

static const struct option_spec audit_options[] = {
    {"state", "DIR", "With verify: the daemon's folder, which is read without the daemon."},
    {"json", NULL, "Print JSON."},
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

static const char *text_of(const json_t *json, const char *key, const char *otherwise)
{
    const char *text = json_string_value(json_object_get(json, key));

    return text ? text : otherwise;
}

/* "30d" in seconds. */
static struct err *read_time(const char *text, json_int_t *seconds)
{
    static const struct {
        char letter;
        json_int_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    char *end;
    long long number = strtoll(text, &end, 10);

    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        if (*end != units[i].letter || end[1] || number < 1 || number > 1000000)
            continue;
        *seconds = number * units[i].seconds;
        return NULL;
    }
    return err_of(ERR_USAGE, "--expires is a time such as 90s, 15m, 12h or 30d, not '%s'", text);
}

static struct err *create_token(const struct rest_arguments *arguments)
{
    json_int_t seconds = 0;
    json_t *reply = NULL;

    if (!arguments->word[1])
        return err_of(ERR_USAGE, "give a name for the token");
    if (arguments->expires)
        TRY(read_time(arguments->expires, &seconds));
    json_t *body = json_pack("{s:s, s:s}", "name", arguments->word[1], "role",
                             arguments->role ? arguments->role : "viewer");
    if (!body)
        return err_of(ERR_USAGE, "a name is UTF-8 text");
    if (seconds)
        json_object_set_new(body, "expires_in", json_integer(seconds));
    if (arguments->vms) {
        scoped(free_cleanup) char *copy = xstrdup(arguments->vms);
        json_t *vms = json_array();
        char *rest = copy, *name;
        while ((name = strsep(&rest, ",")))
            json_array_append_new(vms, json_string(name));
        json_object_set_new(body, "vms", vms);
    }
    TRY(rest_call("POST", "/v1/tokens", body, &reply));
    struct err *err = arguments->json ? rest_print(reply) : NULL;
    if (!arguments->json)
        printf("%s\n", text_of(reply, "token", ""));
    json_decref(reply);
    return err;
}

static struct err *list_tokens(const struct rest_arguments *arguments)
{
    json_t *reply, *token, *vm;
    size_t i, j;

    TRY(rest_call("GET", "/v1/tokens", NULL, &reply));
    struct err *err = arguments->json ? rest_print(reply) : NULL;
    if (!arguments->json)
        printf("%-20s %-9s %-25s %s\n", "NAME", "ROLE", "EXPIRES", "VMS");
    json_array_foreach(arguments->json ? NULL : json_object_get(reply, "tokens"), i, token)
    {
        printf("%-20s %-9s %-25s ", text_of(token, "name", "?"), text_of(token, "role", "?"),
               text_of(token, "expires_at", "never"));
        if (!json_object_get(token, "vms"))
            printf("all");
        json_array_foreach(json_object_get(token, "vms"), j, vm)
            printf("%s%s", j ? "," : "", json_string_value(vm));
        printf("\n");
    }
    json_decref(reply);
    return err;
}

static struct err *revoke_token(const struct rest_arguments *arguments)
{
    if (!arguments->word[1])
        return err_of(ERR_USAGE, "give the name of the token");
    TRY(rest_check_name(arguments->word[1]));
    scoped(free_cleanup) char *path = xasprintf("/v1/tokens/%s", arguments->word[1]);
    return rest_call("DELETE", path, NULL, NULL);
}

static struct err *token(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct rest_arguments arguments;

    TRY(rest_arguments(argc, argv, token_options, 1, 2, "create NAME, list, or revoke NAME",
                       &arguments));
    if (!strcmp(arguments.word[0], "create"))
        return create_token(&arguments);
    if (!strcmp(arguments.word[0], "list"))
        return list_tokens(&arguments);
    if (!strcmp(arguments.word[0], "revoke"))
        return revoke_token(&arguments);
    return err_of(ERR_USAGE,
                  "'%s' is nothing that one does with tokens: create NAME, list, revoke "
                  "NAME",
                  arguments.word[0]);
}

/* ---- audit ---- */

static struct err *list_audit(const struct rest_arguments *arguments)
{
    json_t *reply, *entry;
    size_t i;

    TRY(rest_call("GET", "/v1/audit", NULL, &reply));
    struct err *err = arguments->json ? rest_print(reply) : NULL;
    json_array_foreach(arguments->json ? NULL : json_object_get(reply, "entries"), i, entry) printf(
        "%s  %-16s %3lld  %s %s %s\n", text_of(entry, "time", "?"), text_of(entry, "who", "?"),
        (long long)json_integer_value(json_object_get(entry, "status")),
        text_of(entry, "action", "?"), text_of(entry, "target", ""), text_of(entry, "detail", ""));
    json_decref(reply);
    return err;
}

/* Reads the files themselves: whoever doubts the log need not ask the daemon. */
static struct err *verify_audit(const struct rest_arguments *arguments)
{
    scoped(free_cleanup) char *standard = tenond_state_path();
    const char *state = arguments->state ? arguments->state : standard;
    uint64_t good = 0;

    if (!state)
        return err_of(ERR_USAGE, "HOME is not set: give --state");
    TRY(audit_verify(state, &good));
    if (arguments->json)
        printf("{\"intact\": true, \"good\": %llu}\n", (unsigned long long)good);
    else
        printf("%llu entries, as they were written\n", (unsigned long long)good);
    return NULL;
}

static struct err *audit(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct rest_arguments arguments;

    TRY(rest_arguments(argc, argv, audit_options, 1, 1, "list or verify", &arguments));
    if (!strcmp(arguments.word[0], "list"))
        return list_audit(&arguments);
    if (!strcmp(arguments.word[0], "verify"))
        return verify_audit(&arguments);
    return err_of(ERR_USAGE, "'%s' is nothing that one does with the audit log: list, verify",
                  arguments.word[0]);
}

const struct command command_token = {
    .name = "token",
    .usage = "token create NAME | list | revoke NAME [OPTIONS]",
    .summary = "Rights at tenond for those who come with a token",
    .run = token,
    .options = token_options,
};
const struct command command_audit = {
    .name = "audit",
    .usage = "audit list | verify [OPTIONS]",
    .summary = "Who did what at tenond",
    .run = audit,
    .options = audit_options,
};
