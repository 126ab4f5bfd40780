/*
 * tenon ps: the VMs of this user that run; with --all, those that tenond keeps as well.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/agent_visit.h"
#include "cmd/command.h"
#include "cmd/registry.h"
#include "cmd/rest.h"

#define AGENT_TIMEOUT_S 3

static const struct option_spec options[] = {
    {"all", NULL, "Also the VMs of tenond that do not run."},
    {"json", NULL, "A list of objects: name, pid, status, engine, cpu_seconds, socket."},
    {"addresses", NULL, "The addresses of each guest as well, if an agent in it knows them."},
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

/* What one VM says of itself; NULL with an error when it ended while we asked. */
static struct err *ask(const struct registry_vm *vm, json_t **row)
{
    struct qmp_client client;
    json_t *name = NULL, *status = NULL, *stats = NULL;
    struct err *err = qmp_client_open(&client, vm->path);

    if (!err)
        err = qmp_client_run(&client, "query-name", NULL, -1, &name);
    if (!err)
        err = qmp_client_run(&client, "query-status", NULL, -1, &status);
    if (!err)
        err =
            qmp_client_run(&client, "query-stats", json_pack("{s:s}", "target", "vm"), -1, &stats);
    qmp_client_close(&client);
    if (!err)
        *row = json_pack("{s:O*, s:I, s:O*, s:O*, s:f, s:s}", "name", json_object_get(name, "name"),
                         "pid", (json_int_t)vm->pid, "status", json_object_get(status, "status"),
                         "engine", json_object_get(json_array_get(stats, 0), "provider"),
                         "cpu_seconds", (double)qmp_client_stat(stats, "cpu_ns") / 1e9, "socket",
                         vm->path);
    json_decref(name);
    json_decref(status);
    json_decref(stats);
    return err;
}

/* What its agent says; an empty list when there is none, or a bad one. */
static json_t *ask_addresses(const struct registry_vm *vm)
{
    const struct agent_limits limits = {.timeout_s = AGENT_TIMEOUT_S};
    struct agent_visit visit;
    json_t *list = NULL;

    struct err *err = agent_visit_open(&visit, vm->path, &limits);
    if (!err)
        err = agent_addresses(&visit.agent, &list);
    err_free(err);
    agent_visit_close(&visit);
    return list ? list : json_array();
}

static const char *text_of(const json_t *row, const char *key)
{
    const char *text = json_string_value(json_object_get(row, key));

    return text ? text : "?";
}

/* The end of a line. */
static void print_addresses(const json_t *row)
{
    size_t i;
    json_t *address;

    json_array_foreach(json_object_get(row, "addresses"), i, address)
        printf("%s%s", i ? " " : "  ", json_string_value(address));
    printf("\n");
}

static void print_table(const json_t *rows, bool addresses)
{
    int width = 4;
    size_t i;
    json_t *row;

    json_array_foreach(rows, i, row) width = MAX(width, (int)strlen(text_of(row, "name")));
    printf("%-*s  %7s  %-10s  %-6s  %8s%s\n", width, "NAME", "PID", "STATUS", "ENGINE", "CPU s",
           addresses ? "  ADDRESSES" : "");
    json_array_foreach(rows, i, row)
    {
        json_int_t pid = json_integer_value(json_object_get(row, "pid"));
        if (pid)
            printf("%-*s  %7lld  %-10s  %-6s  %8.1f", width, text_of(row, "name"), (long long)pid,
                   text_of(row, "status"), text_of(row, "engine"),
                   json_real_value(json_object_get(row, "cpu_seconds")));
        else
            printf("%-*s  %7s  %-10s  %-6s  %8s", width, text_of(row, "name"), "-",
                   text_of(row, "status"), "-", "-");
        print_addresses(row);
    }
}

static struct err *print(const json_t *rows, bool json, bool addresses)
{
    if (!json) {
        print_table(rows, addresses);
    } else {
        char *text = json_dumps(rows, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        printf("%s\n", text);
        free(text);
    }
    return fflush(stdout) == 0 ? NULL : err_errno(errno, "cannot write to standard output");
}

/* The VMs of tenond without a process. */
static struct err *add_stopped(json_t *rows)
{
    json_t *reply, *vm;
    size_t i;

    TRY(rest_call("GET", "/v1/vms", NULL, &reply));
    json_array_foreach(json_object_get(reply, "vms"), i, vm)
    {
        if (!json_object_get(vm, "pid"))
            json_array_append_new(rows,
                                  json_pack("{s:O*, s:O*}", "name", json_object_get(vm, "name"),
                                            "status", json_object_get(vm, "state")));
    }
    json_decref(reply);
    return NULL;
}

static struct err *ps(int argc, char **argv, uint64_t started_ns, int *status)
{
    struct registry registry;
    bool json = false, all = false, addresses = false;

    for (int i = 1; i < argc;) {
        struct option_arg arg;
        struct err *err = option_next(argc, argv, &i, options, NULL, NULL, &arg);
        json |= !err && arg.spec && !strcmp(arg.name, "json");
        addresses |= !err && arg.spec && !strcmp(arg.name, "addresses");
        all |= !err && arg.spec && !strcmp(arg.name, "all");
        if (!err && !arg.spec)
            err = err_of(ERR_USAGE, "'%s' is one word too many: ps lists all VMs", arg.value);
        option_arg_fini(&arg);
        TRY(err);
    }
    TRY(registry_read(&registry));
    json_t *rows = json_array();
    for (unsigned i = 0; i < registry.count; i++) {
        json_t *row = NULL;
        err_free(ask(&registry.vm[i], &row)); /* it ended in the meantime */
        if (!row)
            continue;
        if (addresses)
            json_object_set_new(row, "addresses", ask_addresses(&registry.vm[i]));
        json_array_append_new(rows, row);
    }
    registry_fini(&registry);
    struct err *err = all ? add_stopped(rows) : NULL;
    if (!err)
        err = print(rows, json, addresses);
    json_decref(rows);
    return err;
}

const struct command command_ps = {
    .name = "ps",
    .usage = "ps [OPTIONS]",
    .summary = "List the VMs that run",
    .run = ps,
    .options = options,
};
