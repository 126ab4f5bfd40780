/*
 * Figures of VMs as text. See metrics.h. A family is written as one: its head, then each VM's
 * lines.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "daemon/metrics.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/process.h"

struct fleet_view {
    const struct metrics_vm *vm;
    unsigned count;
};

void metrics_head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static uint64_t number(const json_t *json, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(json, key));
}

static const char *text(const json_t *json, const char *key)
{
    const char *value = json_string_value(json_object_get(json, key));

    return value ? value : "";
}

/* ---- the VM ---- */

static void vm_families(struct buf *out, const struct fleet_view *fleet)
{
    metrics_head(out, "tenon_vm_state", "gauge", "1 for the state that the VM is in.");
    for (unsigned i = 0; i < fleet->count; i++)
        buf_printf(out, "tenon_vm_state{vm=\"%s\",state=\"%s\"} 1\n", fleet->vm[i].name,
                   fleet->vm[i].state);
    metrics_head(out, "tenon_vm_memory_bytes", "gauge", "Memory that the guest is given.");
    for (unsigned i = 0; i < fleet->count; i++)
        buf_printf(out, "tenon_vm_memory_bytes{vm=\"%s\"} %llu\n", fleet->vm[i].name,
                   (unsigned long long)fleet->vm[i].memory);
    metrics_head(out, "tenon_vm_start_time_seconds", "gauge", "When a VM that runs was started.");
    for (unsigned i = 0; i < fleet->count; i++)
        if (fleet->vm[i].keeper)
            buf_printf(out, "tenon_vm_start_time_seconds{vm=\"%s\"} %.3f\n", fleet->vm[i].name,
                       (double)fleet->vm[i].started_ns / 1e9);
}

static void process_families(struct buf *out, const struct fleet_view *fleet)
{
    uint64_t resident, cpu_ns;
    struct buf cpu = BUF_INIT;

    metrics_head(out, "tenon_vm_resident_memory_bytes", "gauge",
                 "Memory of the VM's processes in use.");
    metrics_head(&cpu, "tenon_vm_process_cpu_seconds_total", "counter",
                 "CPU time of the VM's processes.");
    for (unsigned i = 0; i < fleet->count; i++) {
        if (!process_tree_usage(fleet->vm[i].keeper, &resident, &cpu_ns))
            continue;
        buf_printf(out, "tenon_vm_resident_memory_bytes{vm=\"%s\"} %llu\n", fleet->vm[i].name,
                   (unsigned long long)resident);
        buf_printf(&cpu, "tenon_vm_process_cpu_seconds_total{vm=\"%s\"} %.2f\n", fleet->vm[i].name,
                   (double)cpu_ns / 1e9);
    }
    buf_append(out, cpu.data, cpu.len);
    buf_fini(&cpu);
}

/* ---- the engine ---- */

/* A counter of a list of statistics; a missing one is no line. */
static bool find_stat(const json_t *provider, const char *name, uint64_t *value)
{
    const json_t *stats = json_object_get(provider, "stats");

    for (size_t i = 0; i < json_array_size(stats); i++) {
        const json_t *stat = json_array_get(stats, i);
        if (strcmp(text(stat, "name"), name) != 0)
            continue;
        *value = number(stat, "value");
        return true;
    }
    return false;
}

/* The lines of a counter: one a VM, or one a vCPU; nanoseconds become seconds. */
static void stat_lines(struct buf *out, const struct metrics_vm *vm, enum metrics_question question,
                       const char *metric, const char *stat, const char *cause)
{
    const json_t *providers = vm->answer[question];
    bool seconds = strstr(stat, "_ns");
    uint64_t value;

    for (size_t i = 0; i < json_array_size(providers); i++) {
        if (!find_stat(json_array_get(providers, i), stat, &value))
            continue;
        buf_printf(out, "%s{vm=\"%s\"", metric, vm->name);
        if (question == METRICS_VCPUS)
            buf_printf(out, ",vcpu=\"%zu\"", i);
        if (cause)
            buf_printf(out, ",cause=\"%s\"", cause);
        if (seconds)
            buf_printf(out, "} %.9f\n", (double)value / 1e9);
        else
            buf_printf(out, "} %llu\n", (unsigned long long)value);
    }
}

static void engine_families(struct buf *out, const struct fleet_view *fleet)
{
    static const struct {
        const char *metric, *stat, *cause, *help; /* help NULL: of the family before */
        enum metrics_question question;
    } rows[] = {
        {"tenon_vm_instructions_total", "instructions", NULL, "Guest instructions."},
        {"tenon_vm_interrupts_total", "interrupts", NULL, "Interrupts that the guest took."},
        {"tenon_vm_exits_total", "exits", NULL, "Times that the engine was left."},
        {"tenon_vm_exit_causes_total", "pio", "pio", "What the guest wanted of devices, by kind."},
        {"tenon_vm_exit_causes_total", "mmio", "mmio", NULL},
        {"tenon_vm_exit_causes_total", "halts", "halt", NULL},
        {"tenon_vm_cpu_seconds_total", "cpu_ns", NULL, "CPU time of the virtual CPUs."},
        {"tenon_engine_tlb_misses_total", "tlb_misses", NULL, "Page table walks of the engine."},
        {"tenon_engine_translations_total", "translations", NULL, "Blocks of code translated."},
        {"tenon_engine_invalidations_total", "invalidations", NULL, "Translations thrown away."},
        {"tenon_vcpu_cpu_seconds_total", "cpu_ns", NULL, "CPU time of a virtual CPU.",
         METRICS_VCPUS},
        {"tenon_vcpu_exits_total", "exits", NULL, "Times that a virtual CPU left the engine.",
         METRICS_VCPUS},
        {"tenon_vcpu_exit_causes_total", "pio", "pio", "What a virtual CPU wanted of devices.",
         METRICS_VCPUS},
        {"tenon_vcpu_exit_causes_total", "mmio", "mmio", NULL, METRICS_VCPUS},
        {"tenon_vcpu_exit_causes_total", "halts", "halt", NULL, METRICS_VCPUS},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        if (rows[i].help)
            metrics_head(out, rows[i].metric, "counter", rows[i].help);
        for (unsigned vm = 0; vm < fleet->count; vm++)
            stat_lines(out, &fleet->vm[vm], rows[i].question, rows[i].metric, rows[i].stat,
                       rows[i].cause);
    }
}

/* ---- disks, networks, virtqueues ---- */

/* A figure of each entry of an answer: `key` of the entry, or of its "stats". */
struct entry_family {
    const char *metric, *type, *help; /* help NULL: of the family before */
    const char *label, *what, *key;   /* label NULL: none; what NULL: the entry's own number */
};

static void entry_families(struct buf *out, const struct fleet_view *fleet,
                           enum metrics_question question, const char *id,
                           const struct entry_family *rows, size_t count)
{
    static const char *const kinds[METRICS_QUESTIONS] = {
        [METRICS_DISKS] = "disk", [METRICS_NETS] = "net", [METRICS_QUEUES] = "device"};

    for (size_t row = 0; row < count; row++) {
        if (rows[row].help)
            metrics_head(out, rows[row].metric, rows[row].type, rows[row].help);
        for (unsigned vm = 0; vm < fleet->count; vm++) {
            const json_t *list = fleet->vm[vm].answer[question];
            for (size_t i = 0; i < json_array_size(list); i++) {
                const json_t *entry = json_array_get(list, i);
                const json_t *stats = json_object_get(entry, "stats");
                buf_printf(out, "%s{vm=\"%s\",%s=\"%s\"", rows[row].metric, fleet->vm[vm].name,
                           kinds[question], text(entry, id));
                if (rows[row].label && !rows[row].what)
                    buf_printf(out, ",%s=\"%llu\"", rows[row].label,
                               (unsigned long long)number(entry, rows[row].label));
                else if (rows[row].label)
                    buf_printf(out, ",%s=\"%s\"", rows[row].label, rows[row].what);
                buf_printf(out, "} %llu\n",
                           (unsigned long long)number(stats ? stats : entry, rows[row].key));
            }
        }
    }
}

static const struct entry_family disk_rows[] = {
    {"tenon_disk_bytes_total", "counter", "Bytes of requests that went well.", "op", "read",
     "rd_bytes"},
    {"tenon_disk_bytes_total", NULL, NULL, "op", "write", "wr_bytes"},
    {"tenon_disk_bytes_total", NULL, NULL, "op", "discard", "unmap_bytes"},
    {"tenon_disk_requests_total", "counter", "Requests that went well.", "op", "read",
     "rd_operations"},
    {"tenon_disk_requests_total", NULL, NULL, "op", "write", "wr_operations"},
    {"tenon_disk_requests_total", NULL, NULL, "op", "flush", "flush_operations"},
    {"tenon_disk_requests_total", NULL, NULL, "op", "discard", "unmap_operations"},
    {"tenon_disk_failed_requests_total", "counter", "Requests that failed.", "op", "read",
     "failed_rd_operations"},
    {"tenon_disk_failed_requests_total", NULL, NULL, "op", "write", "failed_wr_operations"},
    {"tenon_disk_failed_requests_total", NULL, NULL, "op", "flush", "failed_flush_operations"},
    {"tenon_disk_failed_requests_total", NULL, NULL, "op", "discard", "failed_unmap_operations"},
    {"tenon_disk_queued_requests", "gauge", "Requests that are under way.", NULL, NULL,
     "tenon-in-flight"},
};

static const struct entry_family net_rows[] = {
    {"tenon_net_bytes_total", "counter", "Bytes of frames, as the guest counts them.", "direction",
     "receive", "rx-bytes"},
    {"tenon_net_bytes_total", NULL, NULL, "direction", "transmit", "tx-bytes"},
    {"tenon_net_frames_total", "counter", "Frames, as the guest counts them.", "direction",
     "receive", "rx-frames"},
    {"tenon_net_frames_total", NULL, NULL, "direction", "transmit", "tx-frames"},
    {"tenon_net_dropped_frames_total", "counter", "Frames that nobody took.", NULL, NULL,
     "dropped"},
};

static const struct entry_family queue_rows[] = {
    {"tenon_virtqueue_kicks_total", "counter", "Doorbells of the driver that have been served.",
     "queue", NULL, "kicks"},
    {"tenon_virtqueue_requests_total", "counter", "Requests given back to the driver.", "queue",
     NULL, "requests"},
    {"tenon_virtqueue_interrupts_total", "counter", "Interrupts that the driver was sent.", "queue",
     NULL, "interrupts"},
};

/* One histogram; the counts of Prometheus' buckets are cumulative. */
static void histogram_lines(struct buf *out, const char *vm, const char *disk, const char *op,
                            const json_t *histogram, uint64_t time_ns)
{
    const json_t *bounds = json_object_get(histogram, "boundaries");
    const json_t *bins = json_object_get(histogram, "bins");
    uint64_t count = 0;

    for (size_t i = 0; i < json_array_size(bins); i++) {
        count += (uint64_t)json_integer_value(json_array_get(bins, i));
        buf_printf(out, "tenon_disk_latency_seconds_bucket{vm=\"%s\",disk=\"%s\",op=\"%s\",le=\"",
                   vm, disk, op);
        if (i < json_array_size(bounds))
            buf_printf(out, "%g", (double)json_integer_value(json_array_get(bounds, i)) / 1e9);
        else
            buf_text(out, "+Inf");
        buf_printf(out, "\"} %llu\n", (unsigned long long)count);
    }
    buf_printf(out, "tenon_disk_latency_seconds_sum{vm=\"%s\",disk=\"%s\",op=\"%s\"} %.9f\n", vm,
               disk, op, (double)time_ns / 1e9);
    buf_printf(out, "tenon_disk_latency_seconds_count{vm=\"%s\",disk=\"%s\",op=\"%s\"} %llu\n", vm,
               disk, op, (unsigned long long)count);
}

static void latency_family(struct buf *out, const struct fleet_view *fleet)
{
    static const char *const operations[][2] = {
        {"rd", "read"}, {"wr", "write"}, {"flush", "flush"}, {"unmap", "discard"}};
    char histogram[40], time[40];

    metrics_head(out, "tenon_disk_latency_seconds", "histogram",
                 "How long requests took that went well.");
    for (unsigned vm = 0; vm < fleet->count; vm++) {
        const json_t *list = fleet->vm[vm].answer[METRICS_DISKS];
        for (size_t i = 0; i < json_array_size(list); i++) {
            const json_t *disk = json_array_get(list, i), *stats = json_object_get(disk, "stats");
            for (size_t op = 0; op < ARRAY_SIZE(operations); op++) {
                snprintf(histogram, sizeof(histogram), "%s_latency_histogram", operations[op][0]);
                snprintf(time, sizeof(time), "%s_total_time_ns", operations[op][0]);
                histogram_lines(out, fleet->vm[vm].name, text(disk, "device"), operations[op][1],
                                json_object_get(stats, histogram), number(stats, time));
            }
        }
    }
}

void metrics_write(struct buf *out, const struct metrics_vm *vms, unsigned count)
{
    const struct fleet_view fleet = {vms, count};

    vm_families(out, &fleet);
    process_families(out, &fleet);
    engine_families(out, &fleet);
    entry_families(out, &fleet, METRICS_DISKS, "device", disk_rows, ARRAY_SIZE(disk_rows));
    latency_family(out, &fleet);
    entry_families(out, &fleet, METRICS_NETS, "id", net_rows, ARRAY_SIZE(net_rows));
    entry_families(out, &fleet, METRICS_QUEUES, "id", queue_rows, ARRAY_SIZE(queue_rows));
}
