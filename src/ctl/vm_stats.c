/*
 * QMP commands on figures: the engine's counters, of the VM and of each vCPU; disks with how long
 * their requests took; networks. Names and shapes are those of QEMU's QAPI schema (qapi/stats.json,
 * qapi/block-core.json) but for networks and virtqueues, of which QEMU tells nothing. All on the
 * control loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "accel/accel.h"
#include "block/block.h"
#include "ctl/vm_control_internal.h"
#include "vm/vm_look.h"

/* ---- the engine ---- */

struct stat_field {
    const char *name;
    size_t offset;
};

#define STAT(field)                                                                                \
    {                                                                                              \
#field, offsetof(struct accel_stats, field)                                                \
    }
static const struct stat_field stat_fields[] = {
    STAT(instructions),  STAT(exits),      STAT(pio),        STAT(mmio),
    STAT(halts),         STAT(interrupts), STAT(tlb_misses), STAT(translations),
    STAT(invalidations), STAT(native),     STAT(lockstep),   STAT(cpu_ns),
};

static uint64_t stat_value(const struct accel_stats *stats, const struct stat_field *field)
{
    uint64_t value;

    memcpy(&value, (const char *)stats + field->offset, sizeof(value));
    return value;
}

void vm_stats_counters(const struct accel_stats *stats,
                       void (*each)(void *opaque, const char *name, uint64_t value), void *opaque)
{
    for (size_t i = 0; i < ARRAY_SIZE(stat_fields); i++)
        each(opaque, stat_fields[i].name, stat_value(stats, &stat_fields[i]));
}

static void add_counter(void *opaque, const char *name, uint64_t value)
{
    json_array_append_new(opaque,
                          json_pack("{s:s, s:I}", "name", name, "value", (json_int_t)value));
}

static json_t *provider(struct vm *vm, const struct accel_stats *stats)
{
    json_t *list = json_array();

    vm_stats_counters(stats, add_counter, list);
    return json_pack("{s:s, s:o}", "provider", vm_accel_name(vm), "stats", list);
}

/* QAPI: a list of results, one a provider; ours has one, the engine; and one a vCPU. */
struct err *vm_stats_query(void *opaque, const json_t *arguments, json_t **result)
{
    const struct vm_control *control = opaque;
    unsigned cpus = vm_look_config(control->vm)->cpus;
    struct accel_stats stats = {0};
    const char *target;

    TRY(vm_control_text(arguments, "target", &target));
    *result = json_array();
    if (!target || !strcmp(target, "vm")) {
        vm_stats(control->vm, &stats);
        json_array_append_new(*result, provider(control->vm, &stats));
        return NULL;
    }
    for (unsigned i = 0; i < cpus && !strcmp(target, "vcpu"); i++) {
        vm_look_cpu_stats(control->vm, i, &stats);
        json_t *one = provider(control->vm, &stats);
        json_object_set_new(one, "qom-path", json_sprintf("/machine/cpu[%u]", i));
        json_array_append_new(*result, one);
    }
    if (json_array_size(*result))
        return NULL;
    json_decref(*result);
    *result = NULL;
    return err_new("query-stats: the targets 'vm' and 'vcpu' have statistics");
}

/* ---- disks ---- */

static json_t *histogram(const struct block_op_stats *stats)
{
    json_t *bounds = json_array(), *bins = json_array();

    for (unsigned i = 0; i < BLOCK_LATENCY_BOUNDS; i++)
        json_array_append_new(bounds, json_integer((json_int_t)block_latency_bound[i]));
    for (unsigned i = 0; i <= BLOCK_LATENCY_BOUNDS; i++)
        json_array_append_new(bins, json_integer((json_int_t)stats->bin[i]));
    return json_pack("{s:o, s:o}", "boundaries", bounds, "bins", bins);
}

static void put(json_t *json, const char *prefix, const char *name, const char *suffix,
                uint64_t value)
{
    char key[64];

    snprintf(key, sizeof(key), "%s%s%s", prefix, name, suffix);
    json_object_set_new(json, key, json_integer((json_int_t)value));
}

static void add_operation(json_t *json, const char *name, const struct block_op_stats *stats)
{
    char key[64];

    put(json, "", name, "_bytes", stats->bytes);
    put(json, "", name, "_operations", stats->requests);
    put(json, "failed_", name, "_operations", stats->failures);
    put(json, "", name, "_total_time_ns", stats->time_ns);
    snprintf(key, sizeof(key), "%s_latency_histogram", name);
    json_object_set_new(json, key, histogram(stats));
}

static json_t *disk_stats(const struct block *block)
{
    static const struct {
        const char *name;
        enum block_op op;
    } operations[] = {{"rd", BLOCK_READ}, {"flush", BLOCK_FLUSH}, {"unmap", BLOCK_DISCARD}};
    json_t *json = json_object();
    struct block_op_stats stats, zeros;

    for (size_t i = 0; i < ARRAY_SIZE(operations); i++) {
        block_get_stats(block, operations[i].op, &stats);
        add_operation(json, operations[i].name, &stats);
    }
    json_object_del(json, "flush_bytes");
    /* Zeroes are written, for the guest as well. */
    block_get_stats(block, BLOCK_WRITE, &stats);
    block_get_stats(block, BLOCK_ZERO, &zeros);
    stats.bytes += zeros.bytes;
    stats.requests += zeros.requests;
    stats.failures += zeros.failures;
    stats.time_ns += zeros.time_ns;
    for (unsigned i = 0; i < ARRAY_SIZE(stats.bin); i++)
        stats.bin[i] += zeros.bin[i];
    add_operation(json, "wr", &stats);
    json_object_set_new(json, "tenon-in-flight", json_integer((json_int_t)block_in_flight(block)));
    return json;
}

struct err *vm_stats_disks(void *opaque, const json_t *arguments, json_t **result)
{
    const struct vm_control *control = opaque;

    *result = json_array();
    for (unsigned i = 0; i < vm_disk_count(control->vm); i++) {
        const char *id = vm_disk_config(control->vm, i)->id;
        json_array_append_new(*result,
                              json_pack("{s:s, s:s, s:o}", "device", id, "qdev", id, "stats",
                                        disk_stats(vm_disk_block(control->vm, i))));
    }
    return NULL;
}

/* ---- networks ---- */

struct err *vm_stats_nets(void *opaque, const json_t *arguments, json_t **result)
{
    const struct vm_control *control = opaque;
    const struct vm_config *config = vm_look_config(control->vm);

    *result = json_array();
    for (unsigned i = 0; i < config->net_count; i++) {
        struct vm_net_stats stats;
        vm_look_net_stats(control->vm, i, &stats);
        json_array_append_new(
            *result,
            json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "id", config->net[i].id, "tx-frames",
                      (json_int_t)stats.tx_frames, "tx-bytes", (json_int_t)stats.tx_bytes,
                      "rx-frames", (json_int_t)stats.rx_frames, "rx-bytes",
                      (json_int_t)stats.rx_bytes, "dropped", (json_int_t)stats.dropped));
    }
    return NULL;
}

/* ---- virtqueues ---- */

static void add_queue(void *opaque, const struct vm_queue_stats *stats)
{
    json_array_append_new(opaque,
                          json_pack("{s:s, s:I, s:I, s:I, s:I}", "id", stats->id, "queue",
                                    (json_int_t)stats->queue, "kicks", (json_int_t)stats->kicks,
                                    "requests", (json_int_t)stats->requests, "interrupts",
                                    (json_int_t)stats->interrupts));
}

struct err *vm_stats_queues(void *opaque, const json_t *arguments, json_t **result)
{
    const struct vm_control *control = opaque;

    *result = json_array();
    vm_look_queues(control->vm, add_queue, *result);
    return NULL;
}
