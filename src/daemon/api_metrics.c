/*
 * REST: metrics of all VMs, as Prometheus reads them.
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
#include "daemon/metrics.h"

#define PATIENCE_NS (2 * NSEC_PER_SEC)

/* By enum metrics_question. */
static const struct {
    const char *command, *target;
} questions[METRICS_QUESTIONS] = {
    [METRICS_ENGINE] = {"query-stats", "vm"},
    [METRICS_VCPUS] = {"query-stats", "vcpu"},
    [METRICS_DISKS] = {"query-blockstats", NULL},
    [METRICS_NETS] = {"tenon-query-netstats", NULL},
    [METRICS_QUEUES] = {"tenon-query-queuestats", NULL},
};

struct scrape;

/* One question to one VM. */
struct question {
    struct scrape *scrape;
    json_t *answer; /* NULL: none */
};

/* One VM in a scrape: it may be deleted meanwhile. */
struct row {
    char *name, *state;
    pid_t keeper;
    uint64_t memory, started_ns;
    struct question question[METRICS_QUESTIONS];
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
        for (unsigned q = 0; q < METRICS_QUESTIONS; q++)
            json_decref(scrape->row[i].question[q].answer);
    }
    free(scrape);
}

static void daemon_metrics(struct buf *out, const struct daemon *daemon)
{
    uint64_t resident, cpu_ns;

    metrics_head(out, "tenon_build_info", "gauge", "The version of tenond.");
    buf_text(out, "tenon_build_info{version=\"" TENON_VERSION "\"} 1\n");
    metrics_head(out, "process_start_time_seconds", "gauge", "When tenond was started.");
    buf_printf(out, "process_start_time_seconds %.3f\n", (double)daemon->started_ns / 1e9);
    if (!process_usage(getpid(), &resident, &cpu_ns))
        return;
    metrics_head(out, "process_resident_memory_bytes", "gauge", "Memory of tenond in use.");
    buf_printf(out, "process_resident_memory_bytes %llu\n", (unsigned long long)resident);
    metrics_head(out, "process_cpu_seconds_total", "counter", "CPU time of tenond.");
    buf_printf(out, "process_cpu_seconds_total %.2f\n", (double)cpu_ns / 1e9);
}

/* ---- asking ---- */

static void write_vms(const struct scrape *scrape, struct buf *out)
{
    scoped(free_cleanup) struct metrics_vm *vms = xcalloc(scrape->count + 1, sizeof(*vms));

    for (unsigned i = 0; i < scrape->count; i++) {
        const struct row *row = &scrape->row[i];
        vms[i] = (struct metrics_vm){.name = row->name,
                                     .state = row->state,
                                     .keeper = row->keeper,
                                     .memory = row->memory,
                                     .started_ns = row->started_ns};
        for (unsigned q = 0; q < METRICS_QUESTIONS; q++)
            vms[i].answer[q] = row->question[q].answer;
    }
    metrics_write(out, vms, scrape->count);
}

static void answer(struct scrape *scrape)
{
    struct api_call *call = scrape->call;
    struct buf out = BUF_INIT;

    scrape->call = NULL;
    daemon_metrics(&out, call->daemon);
    write_vms(scrape, &out);
    api_answer_bytes(call, "text/plain; version=0.0.4; charset=utf-8", out.data, out.len);
    buf_fini(&out);
}

static void on_late(void *opaque)
{
    answer(opaque);
}

static void question_done(struct scrape *scrape)
{
    if (--scrape->pending)
        return;
    if (scrape->call)
        answer(scrape);
    scrape_free(scrape);
}

static void on_answer(void *opaque, const json_t *result, const struct err *err)
{
    struct question *question = opaque;

    if (!err && question->scrape->call)
        question->answer = json_deep_copy(result);
    question_done(question->scrape);
}

static void add_row(struct scrape *scrape, struct instance *vm)
{
    struct row *row = &scrape->row[scrape->count++];

    row->name = xstrdup(vm->name);
    row->state = xstrdup(instance_state_text(vm));
    row->keeper = vm->keeper.pid;
    row->memory = (uint64_t)json_integer_value(json_object_get(vm->config, "memory"));
    row->started_ns = vm->started_ns;
    for (unsigned i = 0; i < METRICS_QUESTIONS && link_is_ready(vm->qmp); i++) {
        row->question[i].scrape = scrape;
        scrape->pending++;
        link_run(vm->qmp, questions[i].command,
                 questions[i].target ? json_pack("{s:s}", "target", questions[i].target) : NULL, -1,
                 on_answer, &row->question[i]);
    }
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
    question_done(scrape);
    return NULL;
}

const struct api_handler api_metrics_handlers[] = {
    {"getMetrics", get_metrics},
    {NULL, NULL},
};
