/*
 * REST: metrics of all VMs, in the text format of Prometheus (version 0.0.4).
 *
 * The VMs are asked all at once; one that does not answer in time is in it with what we know.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "daemon/api.h"

#define PATIENCE_NS (2 * NSEC_PER_SEC)

/* One VM in a scrape. */
struct row {
    struct scrape *scrape;
    char *name, *state;
    pid_t keeper;
    uint64_t memory, started_ns;
    json_t *stats; /* what query-stats said; NULL: nothing */
};

struct scrape {
    struct api_call *call; /* NULL: answered */
    struct loop_timer timer;
    unsigned pending, count;
    struct row row[];
};

static void scrape_free(struct scrape *scrape)
{
    loop_timer_cancel(&scrape->timer);
    for (unsigned i = 0; i < scrape->count; i++) {
        free(scrape->row[i].name);
        free(scrape->row[i].state);
        json_decref(scrape->row[i].stats);
    }
    free(scrape);
}

/* ---- the text; names of VMs need no escape ---- */

static void head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A counter of the engine; a missing one is no line. */
static bool find_stat(const struct row *row, const char *name, uint64_t *value)
{
    const json_t *stats = json_object_get(json_array_get(row->stats, 0), "stats");
    json_t *stat;
    size_t i;

    json_array_foreach((json_t *)(uintptr_t)stats, i, stat)
    {
        const char *key = json_string_value(json_object_get(stat, "name"));
        if (!key || strcmp(key, name) != 0)
            continue;
        *value = (uint64_t)json_integer_value(json_object_get(stat, "value"));
        return true;
    }
    return false;
}

static void engine_metrics(struct buf *out, const struct scrape *scrape)
{
    static const struct {
        const char *metric, *stat, *cause, *help; /* help NULL: of the family before */
    } families[] = {
        {"tenon_vm_instructions_total", "instructions", NULL, "Guest instructions."},
        {"tenon_vm_interrupts_total", "interrupts", NULL, "Interrupts that the guest took."},
        {"tenon_vm_exits_total", "exits", NULL, "Times that the engine was left."},
        {"tenon_vm_exit_causes_total", "pio", "pio", "What the guest wanted of devices, by kind."},
        {"tenon_vm_exit_causes_total", "mmio", "mmio", NULL},
        {"tenon_vm_exit_causes_total", "halts", "halt", NULL},
    };

    for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
        if (families[i].help)
            head(out, families[i].metric, "counter", families[i].help);
        for (unsigned vm = 0; vm < scrape->count; vm++) {
            const struct row *row = &scrape->row[vm];
            uint64_t value;
            if (!find_stat(row, families[i].stat, &value))
                continue;
            buf_printf(out, "%s{vm=\"%s\"", families[i].metric, row->name);
            if (families[i].cause)
                buf_printf(out, ",cause=\"%s\"", families[i].cause);
            buf_printf(out, "} %llu\n", (unsigned long long)value);
        }
    }
    head(out, "tenon_vm_cpu_seconds_total", "counter", "CPU time of the virtual CPUs.");
    for (unsigned vm = 0; vm < scrape->count; vm++) {
        uint64_t value;
        if (find_stat(&scrape->row[vm], "cpu_ns", &value))
            buf_printf(out, "tenon_vm_cpu_seconds_total{vm=\"%s\"} %.9f\n", scrape->row[vm].name,
                       (double)value / 1e9);
    }
}

static void process_metrics(struct buf *out, const struct scrape *scrape)
{
    head(out, "tenon_vm_resident_memory_bytes", "gauge", "Memory of the VM's processes in use.");
    for (unsigned i = 0; i < scrape->count; i++) {
        uint64_t resident, cpu_ns;
        if (process_tree_usage(scrape->row[i].keeper, &resident, &cpu_ns))
            buf_printf(out, "tenon_vm_resident_memory_bytes{vm=\"%s\"} %llu\n", scrape->row[i].name,
                       (unsigned long long)resident);
    }
    head(out, "tenon_vm_process_cpu_seconds_total", "counter", "CPU time of the VM's processes.");
    for (unsigned i = 0; i < scrape->count; i++) {
        uint64_t resident, cpu_ns;
        if (process_tree_usage(scrape->row[i].keeper, &resident, &cpu_ns))
            buf_printf(out, "tenon_vm_process_cpu_seconds_total{vm=\"%s\"} %.2f\n",
                       scrape->row[i].name, (double)cpu_ns / 1e9);
    }
}

static void vm_metrics(struct buf *out, const struct scrape *scrape)
{
    head(out, "tenon_vm_state", "gauge", "1 for the state that the VM is in.");
    for (unsigned i = 0; i < scrape->count; i++)
        buf_printf(out, "tenon_vm_state{vm=\"%s\",state=\"%s\"} 1\n", scrape->row[i].name,
                   scrape->row[i].state);
    head(out, "tenon_vm_memory_bytes", "gauge", "Memory that the guest is given.");
    for (unsigned i = 0; i < scrape->count; i++)
        buf_printf(out, "tenon_vm_memory_bytes{vm=\"%s\"} %llu\n", scrape->row[i].name,
                   (unsigned long long)scrape->row[i].memory);
    head(out, "tenon_vm_start_time_seconds", "gauge", "When a VM that runs was started.");
    for (unsigned i = 0; i < scrape->count; i++)
        if (scrape->row[i].keeper)
            buf_printf(out, "tenon_vm_start_time_seconds{vm=\"%s\"} %.3f\n", scrape->row[i].name,
                       (double)scrape->row[i].started_ns / 1e9);
}

static void daemon_metrics(struct buf *out, const struct daemon *daemon)
{
    uint64_t resident, cpu_ns;

    head(out, "tenon_build_info", "gauge", "The version of tenond.");
    buf_text(out, "tenon_build_info{version=\"" TENON_VERSION "\"} 1\n");
    head(out, "process_start_time_seconds", "gauge", "When tenond was started.");
    buf_printf(out, "process_start_time_seconds %.3f\n", (double)daemon->started_ns / 1e9);
    if (!process_usage(getpid(), &resident, &cpu_ns))
        return;
    head(out, "process_resident_memory_bytes", "gauge", "Memory of tenond in use.");
    buf_printf(out, "process_resident_memory_bytes %llu\n", (unsigned long long)resident);
    head(out, "process_cpu_seconds_total", "counter", "CPU time of tenond.");
    buf_printf(out, "process_cpu_seconds_total %.2f\n", (double)cpu_ns / 1e9);
}

/* ---- asking ---- */

static void answer(struct scrape *scrape)
{
    struct api_call *call = scrape->call;
    struct buf out = BUF_INIT;

    scrape->call = NULL;
    daemon_metrics(&out, call->daemon);
    vm_metrics(&out, scrape);
    process_metrics(&out, scrape);
    engine_metrics(&out, scrape);
    api_answer_bytes(call, "text/plain; version=0.0.4; charset=utf-8", out.data, out.len);
    buf_fini(&out);
}

static void on_late(void *opaque)
{
    answer(opaque);
}

static void row_done(struct scrape *scrape)
{
    if (--scrape->pending)
        return;
    if (scrape->call)
        answer(scrape);
    scrape_free(scrape);
}

static void on_stats(void *opaque, const json_t *result, const struct err *err)
{
    struct row *row = opaque;

    if (!err)
        row->stats = json_deep_copy(result);
    row_done(row->scrape);
}

static void add_row(struct scrape *scrape, struct instance *vm)
{
    struct row *row = &scrape->row[scrape->count++];

    row->scrape = scrape;
    row->name = xstrdup(vm->name);
    row->state = xstrdup(instance_state_text(vm));
    row->keeper = vm->keeper.pid;
    row->memory = (uint64_t)json_integer_value(json_object_get(vm->config, "memory"));
    row->started_ns = vm->started_ns;
    if (!link_is_ready(vm->qmp))
        return;
    scrape->pending++;
    link_run(vm->qmp, "query-stats", json_pack("{s:s}", "target", "vm"), -1, on_stats, row);
}

static struct err *get_metrics(struct api_call *call)
{
    struct fleet *fleet = call->daemon->fleet;
    struct scrape *scrape = xcalloc(1, sizeof(*scrape) + fleet->count * sizeof(struct row));
    struct instance *vm;

    scrape->call = call;
    scrape->pending = 1;
    loop_timer_init(call->daemon->loop, &scrape->timer, on_late, scrape);
    loop_timer_arm(&scrape->timer, clock_now_ns() + PATIENCE_NS);
    list_for_each (vm, &fleet->instances, link)
        if (identity_sees(&call->who, vm->name))
            add_row(scrape, vm);
    row_done(scrape);
    return NULL;
}

const struct api_handler api_metrics_handlers[] = {
    {"getMetrics", get_metrics},
    {NULL, NULL},
};
