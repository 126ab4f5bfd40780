/*
 * tenon create, start, show, rm, logs, events, metrics: the VMs of tenond.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/rest.h"
#include "cmd/run.h"
#include "cmd/vms.h"
#include "vm/schema.h"

#define START_WAIT_S "60"

#define JSON_OPTION                                                                                \
    {                                                                                              \
        "json", NULL, "Print the reply of the daemon as JSON."                                     \
    }
#define END_OF_OPTIONS                                                                             \
    {"help", NULL, "Print this help."},                                                            \
    {                                                                                              \
        NULL, NULL, NULL                                                                           \
    }

static const struct option_spec create_options[] = {
    {"start", NULL, "Start it, too."}, JSON_OPTION, END_OF_OPTIONS};
static const struct option_spec start_options[] = {
    {"paused", NULL, "The CPUs stay stopped until QMP `cont`."},
    {"wait", "SECONDS", "How long to wait until it runs (default 60; 0: do not wait)."},
    JSON_OPTION,
    END_OF_OPTIONS};
static const struct option_spec rm_options[] = {
    {"force", NULL, "End it first, if it runs, as if the power failed."}, END_OF_OPTIONS};
static const struct option_spec show_options[] = {JSON_OPTION, END_OF_OPTIONS};
static const struct option_spec logs_options[] = {
    {"console", "ID",
     "What the guest wrote to this console, instead of what the VM's processes said."},
    END_OF_OPTIONS};
static const struct option_spec events_options[] = {
    {"vm", "NAME", "Of this VM alone."}, JSON_OPTION, END_OF_OPTIONS};
static const struct option_spec metrics_options[] = {END_OF_OPTIONS};

/* A call on one VM; `more` follows its name in the path. */
static struct err *vm_call(const char *method, const char *name, const char *more, json_t **reply)
{
    TRY(rest_check_name(name));
    scoped(free_cleanup) char *path = xasprintf("/v1/vms/%s%s", name, more);

    return rest_call(method, path, NULL, reply);
}

static const char *text_of(const json_t *json, const char *key)
{
    const char *text = json_string_value(json_object_get(json, key));

    return text ? text : "";
}

/* What there is to say of a VM, in lines. */
static void print_vm(const json_t *vm)
{
    const json_t *config = json_object_get(vm, "config"), *last = json_object_get(vm, "last");

    printf("%-12s %s\n", "name", text_of(vm, "name"));
    printf("%-12s %s\n", "state", text_of(vm, "state"));
    printf("%-12s %s\n", "created", text_of(vm, "created_at"));
    if (json_object_get(vm, "started_at"))
        printf("%-12s %s\n", "started", text_of(vm, "started_at"));
    if (json_object_get(vm, "engine"))
        printf("%-12s %s\n", "engine", text_of(vm, "engine"));
    printf("%-12s %lld\n", "cpus", (long long)json_integer_value(json_object_get(config, "cpus")));
    printf("%-12s %lld MiB\n", "memory",
           (long long)json_integer_value(json_object_get(config, "memory")) >> 20);
    if (last)
        printf("%-12s %s at %s%s%s\n", "last run", text_of(last, "result"),
               text_of(last, "ended_at"), *text_of(last, "reason") ? ": " : "",
               text_of(last, "reason"));
}

static struct err *show_reply(json_t *take_vm, bool json, bool quiet)
{
    struct err *err = NULL;

    if (json)
        err = rest_print(take_vm);
    else if (!quiet)
        print_vm(take_vm);
    json_decref(take_vm);
    return err ? err : vms_flush();
}

struct err *vms_flush(void)
{
    return fflush(stdout) == 0 ? NULL : err_errno(errno, "cannot write to standard output");
}

struct err *vms_find(const char *name, json_t **vm)
{
    json_t *reply, *one;
    size_t i;

    *vm = NULL;
    TRY(rest_call("GET", "/v1/vms", NULL, &reply));
    json_array_foreach(json_object_get(reply, "vms"), i,
                       one) if (!strcmp(text_of(one, "name"), name)) *vm = json_incref(one);
    json_decref(reply);
    return NULL;
}

/* ---- create ---- */

struct vm_config *vms_config_new(void)
{
    struct vm_config *config = xcalloc(1, sizeof(*config));

    vm_config_init(config);
    return config;
}

struct err *vms_config_describe(struct vm_config *take_config, struct err *take_err,
                                json_t **description)
{
    struct err *err = take_err ? take_err : schema_finish(take_config);

    if (!err)
        *description = schema_to_json(take_config, false);
    vm_config_fini(take_config);
    free(take_config);
    return err;
}

struct err *vms_read_file(const char *path, json_t **description)
{
    scoped(free_cleanup) char *whole = realpath(path, NULL);
    struct vm_config *config = vms_config_new();

    return vms_config_describe(config, run_read_vm_file(whole ? whole : path, config), description);
}

static struct err *create(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct rest_arguments arguments;
    json_t *vm = NULL, *config = NULL;

    TRY(rest_arguments(argc, argv, create_options, 1, 1, "a VM file", &arguments));
    TRY(vms_read_file(arguments.word[0], &config));
    TRY(rest_call("POST", arguments.start ? "/v1/vms?start=true" : "/v1/vms", config, &vm));
    return show_reply(vm, arguments.json, true);
}

/* ---- start, show, rm ---- */

struct err *vms_start(const char *name, const struct rest_arguments *arguments, json_t **vm)
{
    const char *wait = arguments->wait ? arguments->wait : START_WAIT_S;

    if (!*wait || wait[strspn(wait, "0123456789")])
        return err_of(ERR_USAGE, "--wait is a number of seconds, not '%s'", wait);
    scoped(free_cleanup) char *more =
        xasprintf("/actions/start?wait=%s%s", wait, arguments->paused ? "&paused=true" : "");
    return vm_call("POST", name, more, vm);
}

static struct err *start(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct rest_arguments arguments;
    json_t *vm = NULL;

    TRY(rest_arguments(argc, argv, start_options, 1, 1, "a VM", &arguments));
    TRY(vms_start(arguments.word[0], &arguments, &vm));
    return show_reply(vm, arguments.json, true);
}

static struct err *show(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct rest_arguments arguments;
    json_t *vm = NULL;

    TRY(rest_arguments(argc, argv, show_options, 1, 1, "a VM", &arguments));
    TRY(vm_call("GET", arguments.word[0], "", &vm));
    return show_reply(vm, arguments.json, false);
}

static struct err *rm(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct rest_arguments arguments;

    TRY(rest_arguments(argc, argv, rm_options, 1, 1, "a VM", &arguments));
    return vm_call("DELETE", arguments.word[0], arguments.force ? "?force=true" : "", NULL);
}

/* ---- logs, events, metrics ---- */

static struct err *logs(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct rest_arguments arguments;

    TRY(rest_arguments(argc, argv, logs_options, 1, 1, "a VM", &arguments));
    TRY(rest_check_name(arguments.word[0]));
    if (arguments.console)
        TRY(rest_check_name(arguments.console));
    scoped(free_cleanup) char *path =
        arguments.console
            ? xasprintf("/v1/vms/%s/consoles/%s/log", arguments.word[0], arguments.console)
            : xasprintf("/v1/vms/%s/log", arguments.word[0]);
    return rest_copy(path);
}

/* A line of the stream; `opaque` is set when JSON is wanted. */
static void on_line(void *opaque, const char *text)
{
    if (strncmp(text, "data: ", 6) != 0)
        return;
    text += 6;
    json_t *event = opaque ? NULL : json_loads(text, 0, NULL);
    if (event) {
        char *data = json_dumps(json_object_get(event, "data"), JSON_COMPACT);
        printf("%s  %-16s %-12s %s\n", text_of(event, "time"), text_of(event, "vm"),
               text_of(event, "type"), data ? data : "");
        free(data);
    } else {
        printf("%s\n", text);
    }
    json_decref(event);
    fflush(stdout);
}

static struct err *events(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct rest_arguments arguments;

    TRY(rest_arguments(argc, argv, events_options, 0, 0, "no word", &arguments));
    if (arguments.vm)
        TRY(rest_check_name(arguments.vm));
    scoped(free_cleanup) char *path =
        arguments.vm ? xasprintf("/v1/events?vm=%s", arguments.vm) : xstrdup("/v1/events");
    return rest_lines(path, on_line, arguments.json ? &arguments : NULL);
}

static struct err *metrics(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct rest_arguments arguments;

    TRY(rest_arguments(argc, argv, metrics_options, 0, 0, "no word", &arguments));
    return rest_copy("/v1/metrics");
}

#define COMMAND(name_, usage_, summary_)                                                           \
    const struct command command_##name_ = {.name = #name_,                                        \
                                            .usage = usage_,                                       \
                                            .summary = summary_,                                   \
                                            .run = name_,                                          \
                                            .options = name_##_options}

COMMAND(create, "create VMFILE [OPTIONS]", "Give a VM to tenond");
COMMAND(start, "start VM [OPTIONS]", "Start a VM of tenond");
COMMAND(show, "show VM [OPTIONS]", "What tenond knows of a VM");
COMMAND(rm, "rm VM [OPTIONS]", "Make tenond forget a VM; its disks stay");
COMMAND(logs, "logs VM [OPTIONS]", "What a VM said");
COMMAND(events, "events [OPTIONS]", "What happens to the VMs of tenond, until interrupted");
COMMAND(metrics, "metrics", "Figures of all VMs, as Prometheus reads them");
