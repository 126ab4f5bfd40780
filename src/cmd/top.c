/*
 * tenon top: what the VMs of this user do, from two looks at each. No daemon is needed: each VM is
 * asked by its control socket.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cmd/command.h"
#include "cmd/registry.h"
#include "daemon/process.h"

#define INTERVAL_S_STANDARD 2
#define INTERVAL_S_MAX 3600
#define CLEAR "\033[H\033[J"

static const struct option_spec options[] = {
    {"once", NULL, "One table, and end; so does output that is no terminal."},
    {"interval", "SECONDS", "Between two looks (default 2)."},
    {"json", NULL, "With --once: a list of objects; bytes and exits are those of a second."},
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

enum figure { CPU_NS, EXITS, READ, WRITTEN, RECEIVED, SENT, FIGURES };

/* One VM at one time. */
struct look {
    char *name, *status;
    pid_t pid;
    uint64_t at_ns, resident;
    uint64_t figure[FIGURES]; /* all only grow */
};

struct looks {
    struct look *look;
    unsigned count;
};

static void looks_fini(struct looks *looks)
{
    for (unsigned i = 0; i < looks->count; i++) {
        free(looks->look[i].name);
        free(looks->look[i].status);
    }
    free(looks->look);
    *looks = (struct looks){0};
}

/* ---- asking ---- */

/* The sum of a member over the entries of a list, or over their "stats". */
static uint64_t sum_of(const json_t *list, const char *key)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i), *stats = json_object_get(entry, "stats");
        sum += (uint64_t)json_integer_value(json_object_get(stats ? stats : entry, key));
    }
    return sum;
}

static struct err *ask(const struct registry_vm *vm, struct look *look)
{
    json_t *status = NULL, *stats = NULL, *disks = NULL, *nets = NULL;
    struct qmp_client client;
    uint64_t cpu_ns;
    struct err *err = qmp_client_open(&client, vm->path);

    if (!err)
        err = qmp_client_run(&client, "query-status", NULL, -1, &status);
    if (!err)
        err =
            qmp_client_run(&client, "query-stats", json_pack("{s:s}", "target", "vm"), -1, &stats);
    if (!err) { /* an older VM, which outlived its program's update, does not know these */
        err_free(qmp_client_run(&client, "query-blockstats", NULL, -1, &disks));
        err_free(qmp_client_run(&client, "tenon-query-netstats", NULL, -1, &nets));
    }
    qmp_client_close(&client);
    const char *text = json_string_value(json_object_get(status, "status"));
    if (!err) {
        *look = (struct look){.name = xstrdup(vm->name),
                              .status = xstrdup(text ? text : "?"),
                              .pid = vm->pid,
                              .at_ns = clock_now_ns(),
                              .figure = {[CPU_NS] = qmp_client_stat(stats, "cpu_ns"),
                                         [EXITS] = qmp_client_stat(stats, "exits"),
                                         [READ] = sum_of(disks, "rd_bytes"),
                                         [WRITTEN] = sum_of(disks, "wr_bytes"),
                                         [RECEIVED] = sum_of(nets, "rx-bytes"),
                                         [SENT] = sum_of(nets, "tx-bytes")}};
        process_tree_usage(vm->pid, &look->resident, &cpu_ns);
    }
    json_decref(status);
    json_decref(stats);
    json_decref(disks);
    json_decref(nets);
    return err;
}

static struct err *look_at_all(struct looks *looks)
{
    struct registry registry;

    TRY(registry_read(&registry));
    *looks = (struct looks){.look = xcalloc(registry.count + 1, sizeof(*looks->look))};
    for (unsigned i = 0; i < registry.count; i++) {
        struct err *err = ask(&registry.vm[i], &looks->look[looks->count]);
        if (!err)
            looks->count++; /* else it ended in the meantime */
        err_free(err);
    }
    registry_fini(&registry);
    return NULL;
}

/* ---- printing ---- */

/* What a second brought; 0 for a VM that was not there before. */
static double rate(const struct looks *before, const struct look *now, enum figure figure)
{
    for (unsigned i = 0; i < before->count; i++) {
        const struct look *then = &before->look[i];
        if (then->pid == now->pid && now->at_ns > then->at_ns)
            return (double)(now->figure[figure] - then->figure[figure]) * 1e9 /
                   (double)(now->at_ns - then->at_ns);
    }
    return 0;
}

static void print_table(const struct looks *before, const struct looks *now, const char *clear)
{
    int width = 4;

    for (unsigned i = 0; i < now->count; i++)
        width = MAX(width, (int)strlen(now->look[i].name));
    printf("%s%-*s %8s %-9s %6s %8s %8s %8s %8s %8s %8s\n", clear, width, "NAME", "PID", "STATUS",
           "CPU %", "MEM MiB", "EXITS/s", "RD kB/s", "WR kB/s", "RX kB/s", "TX kB/s");
    for (unsigned i = 0; i < now->count; i++) {
        const struct look *look = &now->look[i];
        printf("%-*s %8ld %-9s %6.1f %8.1f %8.0f %8.0f %8.0f %8.0f %8.0f\n", width, look->name,
               (long)look->pid, look->status, rate(before, look, CPU_NS) / 1e7,
               (double)look->resident / (double)MIB(1), rate(before, look, EXITS),
               rate(before, look, READ) / 1e3, rate(before, look, WRITTEN) / 1e3,
               rate(before, look, RECEIVED) / 1e3, rate(before, look, SENT) / 1e3);
    }
}

static void print_json(const struct looks *before, const struct looks *now)
{
    json_t *rows = json_array();

    for (unsigned i = 0; i < now->count; i++) {
        const struct look *look = &now->look[i];
        json_array_append_new(
            rows, json_pack("{s:s, s:I, s:s, s:f, s:I, s:f, s:f, s:f, s:f, s:f}", "name",
                            look->name, "pid", (json_int_t)look->pid, "status", look->status,
                            "cpu_percent", rate(before, look, CPU_NS) / 1e7, "resident_bytes",
                            (json_int_t)look->resident, "exits", rate(before, look, EXITS),
                            "read_bytes", rate(before, look, READ), "written_bytes",
                            rate(before, look, WRITTEN), "received_bytes",
                            rate(before, look, RECEIVED), "sent_bytes", rate(before, look, SENT)));
    }
    char *text = json_dumps(rows, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    printf("%s\n", text);
    free(text);
    json_decref(rows);
}

/* ---- the command ---- */

static struct err *watch(bool once, bool json, long interval_s)
{
    struct looks before = {0}, now = {0};
    struct err *err = look_at_all(&before);

    while (!err) {
        poll(NULL, 0, (int)interval_s * 1000);
        err = look_at_all(&now);
        if (err)
            break;
        if (json)
            print_json(&before, &now);
        else
            print_table(&before, &now, once ? "" : CLEAR);
        if (fflush(stdout) != 0)
            err = err_errno(errno, "cannot write to standard output");
        looks_fini(&before);
        before = now;
        now = (struct looks){0};
        if (once)
            break;
    }
    looks_fini(&before);
    looks_fini(&now);
    return err;
}

static struct err *top(int argc, char **argv, uint64_t started_ns, int *status)
{
    bool once = !isatty(STDOUT_FILENO), json = false;
    long interval_s = INTERVAL_S_STANDARD;

    for (int i = 1; i < argc;) {
        struct option_arg arg;
        char *end;
        struct err *err = option_next(argc, argv, &i, options, NULL, NULL, &arg);
        if (!err && !arg.spec)
            err = err_of(ERR_USAGE, "'%s' is one word too many: top shows all VMs", arg.value);
        if (!err && arg.value) {
            interval_s = strtol(arg.value, &end, 10);
            if (!*arg.value || *end || interval_s < 1 || interval_s > INTERVAL_S_MAX)
                err = err_of(ERR_USAGE, "--interval is 1 to %d seconds, not '%s'", INTERVAL_S_MAX,
                             arg.value);
        } else if (!err) {
            once |= !strcmp(arg.name, "once");
            json |= !strcmp(arg.name, "json");
        }
        option_arg_fini(&arg);
        TRY(err);
    }
    return watch(once || json, json, interval_s);
}

const struct command command_top = {
    .name = "top",
    .usage = "top [OPTIONS]",
    .summary = "What the VMs do: CPU, memory, exits, disks, networks",
    .run = top,
    .options = options,
};
