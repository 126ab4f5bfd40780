/*
 * GDB stub: stops, steps, going on (GDB manual, E.3 Stop Reply Packets, vCont).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "ctl/gdb/gdb_internal.h"

struct err *gdb_state(struct gdb_server *gdb)
{
    if (gdb->fresh)
        return NULL;
    TRY(vm_cpu_get(gdb->vm, gdb->cpu, &gdb->state));
    gdb->fresh = true;
    return NULL;
}

static void choose_cpu(struct gdb_server *gdb, unsigned cpu)
{
    gdb->fresh &= cpu == gdb->cpu;
    gdb->cpu = cpu;
}

/* ---- stops ---- */

static void stop_text(struct gdb_server *gdb, unsigned signal, const char *why)
{
    snprintf(gdb->stop, sizeof(gdb->stop), "T%02xthread:%x;%s", signal, gdb->cpu + 1, why);
}

static void tell_stop(struct gdb_server *gdb, unsigned signal, const char *why)
{
    stop_text(gdb, signal, why);
    gdb->running = gdb->fresh = false;
    gdb->config.changed(gdb->config.opaque, false);
    gdb_send(gdb, gdb->stop);
}

static void describe_point(const struct accel_debug_point *point, char *text, size_t size)
{
    if (point->kind == ACCEL_DEBUG_EXEC)
        snprintf(text, size, "hwbreak:;");
    else
        snprintf(text, size, "%s:%llx;", point->kind == ACCEL_DEBUG_WRITE ? "watch" : "awatch",
                 (unsigned long long)point->linear);
}

/* The INT3 at which `cpu` stands is the guest's own, which the kernel uses to patch itself. */
static struct err *pass_on(struct gdb_server *gdb, unsigned cpu)
{
    return vm_debug_resume(gdb->vm, gdb->actions, (int)cpu);
}

static void on_stopped(void *opaque, const struct vm_debug_stop *stop)
{
    struct gdb_server *gdb = opaque;
    char why[48] = "";

    if (!gdb->running)
        return; /* an interrupt came first: the CPU meets it again when it goes on */
    gdb->fresh = false;
    gdb->cpu = stop->cpu;
    struct err *err = gdb_state(gdb);
    if (!err && stop->event == ACCEL_DEBUG_INT3) {
        if (!gdb_is_breakpoint(gdb, gdb->state.seg[X86_CS].base + gdb->state.rip)) {
            err = pass_on(gdb, stop->cpu);
            if (!err)
                return;
        }
        snprintf(why, sizeof(why), "swbreak:;");
    }
    if (stop->event == ACCEL_DEBUG_POINT && stop->point < gdb->point_count)
        describe_point(&gdb->point[stop->point], why, sizeof(why));
    if (err) {
        log_warn("gdb: %s", err_text(err));
        err_free(err);
    }
    tell_stop(gdb, GDB_SIGNAL_TRAP, why);
}

void gdb_interrupt(struct gdb_server *gdb)
{
    if (!gdb->running)
        return;
    vm_pause(gdb->vm);
    tell_stop(gdb, GDB_SIGNAL_INT, "");
}

/* ---- coming and going ---- */

struct err *gdb_attach(struct gdb_server *gdb)
{
    TRY(vm_debug_attach(gdb->vm, on_stopped, gdb));
    gdb->running = gdb->fresh = false;
    gdb->cpu = gdb->point_count = 0;
    stop_text(gdb, GDB_SIGNAL_TRAP, "");
    gdb->config.changed(gdb->config.opaque, false);
    return NULL;
}

void gdb_detach(struct gdb_server *gdb)
{
    if (!vm_debugged(gdb->vm))
        return;
    vm_pause(gdb->vm);
    gdb_breakpoints_clear(gdb);
    gdb->running = false;
    vm_debug_detach(gdb->vm);
    gdb->config.changed(gdb->config.opaque, true);
}

/* ---- threads ---- */

bool gdb_parse_thread(const struct gdb_server *gdb, const char **text, int *cpu)
{
    uint64_t number;

    if (!strncmp(*text, "-1", 2)) {
        *text += 2;
        *cpu = -1;
        return true;
    }
    if (!gdb_parse_number(text, &number) || number > vm_cpu_count(gdb->vm))
        return false;
    *cpu = (int)number - 1; /* 0 means any */
    return true;
}

/* "Hg1", "Hc-1", "T2" */
struct err *gdb_select(struct gdb_server *gdb, const char *text)
{
    const char *thread = text[0] == 'H' && text[1] ? text + 2 : text + 1;
    int cpu;

    if (!gdb_parse_thread(gdb, &thread, &cpu) || *thread)
        return err_new("there is no such CPU");
    if (text[0] == 'H' && text[1] == 'g' && cpu >= 0)
        choose_cpu(gdb, (unsigned)cpu);
    gdb_answer(gdb, "OK");
    return NULL;
}

/* ---- going on ---- */

static struct err *resume(struct gdb_server *gdb)
{
    vm_debug_points(gdb->vm, gdb->point, gdb->point_count);
    TRY(vm_debug_resume(gdb->vm, gdb->actions, -1));
    gdb->running = true;
    gdb->fresh = false;
    gdb->config.changed(gdb->config.opaque, true);
    return NULL;
}

struct err *gdb_continue(struct gdb_server *gdb, bool step)
{
    for (unsigned i = 0; i < vm_cpu_count(gdb->vm); i++)
        gdb->actions[i] = !step ? VM_DEBUG_CONTINUE : i == gdb->cpu ? VM_DEBUG_STEP : VM_DEBUG_HOLD;
    return resume(gdb);
}

/* One ";action[:thread]"; earlier ones go before later ones. `said` has the CPUs that have theirs.
 */
static struct err *vcont_action(struct gdb_server *gdb, const char **text, bool *said)
{
    char kind = *(*text)++;
    uint64_t signal;
    int cpu = -1;

    if (kind == 'C' || kind == 'S')
        gdb_parse_number(text, &signal); /* a guest has no signals */
    else if (kind != 'c' && kind != 's')
        return err_new("vCont: action '%c' is not known", kind);
    if (**text == ':') {
        (*text)++;
        if (!gdb_parse_thread(gdb, text, &cpu))
            return err_new("vCont: there is no such CPU");
    }
    for (unsigned i = 0; i < vm_cpu_count(gdb->vm); i++) {
        if (said[i] || (cpu >= 0 && (unsigned)cpu != i))
            continue;
        said[i] = true;
        gdb->actions[i] = kind == 's' || kind == 'S' ? VM_DEBUG_STEP : VM_DEBUG_CONTINUE;
    }
    return NULL;
}

struct err *gdb_vcont(struct gdb_server *gdb, const char *text)
{
    bool said[ACCEL_VCPUS_MAX] = {false};

    if (!strcmp(text, "?")) {
        gdb_answer(gdb, "vCont;c;C;s;S");
        return NULL;
    }
    for (unsigned i = 0; i < vm_cpu_count(gdb->vm); i++)
        gdb->actions[i] = VM_DEBUG_HOLD;
    while (*text == ';') {
        text++;
        TRY(vcont_action(gdb, &text, said));
    }
    if (*text)
        return err_new("vCont: '%.20s' is not understood", text);
    return resume(gdb);
}
