/*
 * tenon apply, diff, set: VMs of tenond as a description says.
 *
 * Both sides are resolved descriptions, with every default in them: what a file leaves out is the
 * default, not what the VM happens to have.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/rest.h"
#include "cmd/run.h"
#include "cmd/vms.h"
#include "vm/schema.h"

static const struct option_spec apply_options[] = {
    {"start", NULL, "Start it, too, unless it runs."},
    {"wait", "SECONDS", "With --start: how long to wait until it runs (default 60; 0: do not)."},
    {"dry-run", NULL, "Say what would change, and change nothing."},
    {"json", NULL, "Print name, outcome and changes as JSON."},
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};
static const struct option_spec diff_options[] = {
    {"json", NULL, "Print name, outcome and changes as JSON."},
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};
static const struct option_spec set_options[] = {
    {"dry-run", NULL, "Say what would change, and change nothing."},
    {"json", NULL, "Print name, outcome and changes as JSON."},
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

/* ---- what differs ---- */

static void compare(json_t *changes, const char *path, json_t *from, json_t *to);

static void compare_objects(json_t *changes, const char *path, json_t *from, json_t *to)
{
    const char *dot = *path ? "." : "", *key;
    json_t *value;

    json_object_foreach(from, key, value)
    {
        scoped(free_cleanup) char *inner = xasprintf("%s%s%s", path, dot, key);
        compare(changes, inner, value, json_object_get(to, key));
    }
    json_object_foreach(to, key, value)
    {
        scoped(free_cleanup) char *inner = xasprintf("%s%s%s", path, dot, key);
        if (!json_object_get(from, key))
            compare(changes, inner, NULL, value);
    }
}

/* Entries are meant by their ids, where they have some, and by their place. */
static json_t *entry_like(json_t *list, size_t place, const json_t *entry)
{
    const char *id = json_string_value(json_object_get(entry, "id"));

    for (size_t i = 0; id && i < json_array_size(list); i++) {
        json_t *other = json_array_get(list, i);
        const char *other_id = json_string_value(json_object_get(other, "id"));
        if (other_id && !strcmp(id, other_id))
            return other;
    }
    return id ? NULL : json_array_get(list, place);
}

static char *entry_path(const char *path, size_t place, const json_t *entry)
{
    const char *id = json_string_value(json_object_get(entry, "id"));

    return id ? xasprintf("%s[%s]", path, id) : xasprintf("%s[%zu]", path, place);
}

static void compare_lists(json_t *changes, const char *path, json_t *from, json_t *to)
{
    json_t *entry;
    size_t i;

    json_array_foreach(from, i, entry)
    {
        scoped(free_cleanup) char *inner = entry_path(path, i, entry);
        compare(changes, inner, entry, entry_like(to, i, entry));
    }
    json_array_foreach(to, i, entry)
    {
        scoped(free_cleanup) char *inner = entry_path(path, i, entry);
        if (!entry_like(from, i, entry))
            compare(changes, inner, NULL, entry);
    }
}

/* NULL: it is not there. */
static void compare(json_t *changes, const char *path, json_t *from, json_t *to)
{
    if (from && to && json_equal(from, to))
        return;
    if (json_is_object(from) && json_is_object(to)) {
        compare_objects(changes, path, from, to);
    } else if (json_is_array(from) && json_is_array(to)) {
        compare_lists(changes, path, from, to);
    } else {
        json_array_append_new(changes,
                              json_pack("{s:s, s:O?, s:O?}", "path", path, "from", from, "to", to));
    }
}

/* ---- what is said of it ---- */

/* `vm` NULL: there is none. The caller owns the result. */
static json_t *outcome_of(const json_t *vm, json_t *wanted)
{
    json_t *changes = json_array();

    if (vm) {
        compare(changes, "", json_object_get(vm, "config"), wanted);
        /* Another order of the same entries. */
        if (!json_array_size(changes) && !json_equal(json_object_get(vm, "config"), wanted))
            json_array_append_new(changes,
                                  json_pack("{s:s, s:n, s:n}", "path", "order", "from", "to"));
    }
    const char *outcome = !vm ? "created" : json_array_size(changes) ? "changed" : "unchanged";
    return json_pack("{s:O, s:s, s:o}", "name", json_object_get(wanted, "name"), "outcome", outcome,
                     "changes", changes);
}

static bool is_outcome(const json_t *outcome, const char *what)
{
    return !strcmp(json_string_value(json_object_get(outcome, "outcome")), what);
}

static void print_value(const char *sign, const json_t *path, const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);

    if (value && !json_is_null(value))
        printf("%s %s: %s\n", sign, json_string_value(path), text ? text : "?");
    free(text);
}

static struct err *print_outcome(const json_t *outcome, bool json, bool header)
{
    json_t *change;
    size_t i;

    if (json)
        return rest_print(outcome);
    if (header)
        printf("%s: %s\n", json_string_value(json_object_get(outcome, "name")),
               json_string_value(json_object_get(outcome, "outcome")));
    json_array_foreach(json_object_get(outcome, "changes"), i, change)
    {
        print_value("-", json_object_get(change, "path"), json_object_get(change, "from"));
        print_value("+", json_object_get(change, "path"), json_object_get(change, "to"));
    }
    return vms_flush();
}

/* ---- apply, diff ---- */

/* A VM file and the VM that it is about, NULL when there is none yet. */
static struct err *read_both(const char *path, json_t **wanted, json_t **vm)
{
    TRY(vms_read_file(path, wanted));
    struct err *err = vms_find(json_string_value(json_object_get(*wanted, "name")), vm);
    if (err)
        json_decref(*wanted);
    return err;
}

/* `take_wanted` becomes the VM's description. */
static struct err *put(const json_t *vm, json_t *take_wanted)
{
    scoped(free_cleanup) char *path =
        xasprintf("/v1/vms/%s", json_string_value(json_object_get(take_wanted, "name")));

    return rest_call(vm ? "PUT" : "POST", vm ? path : "/v1/vms", take_wanted, NULL);
}

static bool runs(const json_t *vm)
{
    const char *state = json_string_value(json_object_get(vm, "state"));

    return state && strcmp(state, "stopped") != 0;
}

static struct err *apply(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct rest_arguments arguments;
    json_t *wanted, *vm;

    TRY(rest_arguments(argc, argv, apply_options, 1, 1, "a VM file", &arguments));
    TRY(read_both(arguments.word[0], &wanted, &vm));
    json_t *outcome = outcome_of(vm, wanted);
    struct err *err = NULL;
    if (!arguments.dry_run && !is_outcome(outcome, "unchanged"))
        err = put(vm, json_incref(wanted));
    if (!err)
        err = print_outcome(outcome, arguments.json, true);
    if (!err && arguments.start && !arguments.dry_run && !runs(vm))
        err = vms_start(json_string_value(json_object_get(wanted, "name")), &arguments, NULL);
    json_decref(outcome);
    json_decref(wanted);
    json_decref(vm);
    return err;
}

/* Like diff(1): status 0 when both are the same, 1 when not. */
static struct err *diff(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct rest_arguments arguments;
    json_t *wanted, *vm;

    TRY(rest_arguments(argc, argv, diff_options, 1, 1, "a VM file", &arguments));
    TRY(read_both(arguments.word[0], &wanted, &vm));
    json_t *outcome = outcome_of(vm, wanted);
    bool header = is_outcome(outcome, "created");
    *status = is_outcome(outcome, "unchanged") ? 0 : 1;
    struct err *err = print_outcome(outcome, arguments.json, header);
    json_decref(outcome);
    json_decref(wanted);
    json_decref(vm);
    return err;
}

/* ---- set ---- */

/* The words that are ours; flags of the schema are left for apply_flags(). */
static struct err *read_set(int argc, char **argv, struct vm_config *config, const char **name,
                            bool *dry_run, bool *json)
{
    for (int i = 1; i < argc;) {
        struct option_arg arg;
        struct err *err =
            option_next(argc, argv, &i, set_options, run_schema_option, schema_flag_nearest, &arg);
        if (!err && arg.spec) {
            *dry_run |= !strcmp(arg.name, "dry-run");
            *json |= !strcmp(arg.name, "json");
        } else if (!err && arg.name && config) {
            err = schema_apply_flag(config, arg.name, arg.value);
        } else if (!err && !arg.name && !config && *name) {
            err = err_of(ERR_USAGE, "'%s' is one word too many: give a VM", arg.value);
        } else if (!err && !arg.name) {
            *name = arg.value;
        }
        option_arg_fini(&arg);
        TRY(err);
    }
    return *name ? NULL : err_of(ERR_USAGE, "give a VM");
}

static struct err *change(int argc, char **argv, const json_t *vm, json_t **wanted)
{
    struct vm_config *config = vms_config_new();
    const char *name = NULL;
    bool ignored = false;
    struct err *err = schema_parse_json(json_object_get(vm, "config"), config);

    if (!err)
        err = read_set(argc, argv, config, &name, &ignored, &ignored);
    return vms_config_describe(config, err, wanted);
}

static struct err *set(int argc, char **argv, uint64_t started_ns, int *status)
{
    json_t *vm = NULL, *wanted = NULL;
    bool dry_run = false, json = false;
    const char *name = NULL;

    TRY(read_set(argc, argv, NULL, &name, &dry_run, &json));
    TRY(rest_check_name(name));
    TRY(vms_find(name, &vm));
    if (!vm)
        return err_new("there is no VM '%s'", name);
    struct err *err = change(argc, argv, vm, &wanted);
    json_t *outcome = err ? NULL : outcome_of(vm, wanted);
    if (!err && !dry_run && !is_outcome(outcome, "unchanged"))
        err = put(vm, json_incref(wanted));
    if (!err)
        err = print_outcome(outcome, json, true);
    json_decref(outcome);
    json_decref(wanted);
    json_decref(vm);
    return err;
}

const struct command command_apply = {
    .name = "apply",
    .usage = "apply VMFILE [OPTIONS]",
    .summary = "Make a VM of tenond what a VM file says",
    .run = apply,
    .options = apply_options,
};
const struct command command_diff = {
    .name = "diff",
    .usage = "diff VMFILE [OPTIONS]",
    .summary = "What `tenon apply` would change; exit status 1 when there is something",
    .run = diff,
    .options = diff_options,
};
const struct command command_set = {
    .name = "set",
    .usage = "set VM [OPTIONS]",
    .summary = "Change a VM of tenond by the flags of `tenon run`",
    .run = set,
    .options = set_options,
    .help_more = schema_help,
    .vm_flags = true,
};
