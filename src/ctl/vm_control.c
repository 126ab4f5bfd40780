/*
 * QMP commands and events of one VM. Names and shapes are those of QEMU's QAPI schema
 * (qapi/run-state.json, qapi/machine.json), where it has the thing; events
 * TENON_... are ours. All on the control loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "ctl/vm_control.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl/screen_share.h"
#include "ctl/vm_control_internal.h"

static const char *status_name(enum vm_status status)
{
    switch (status) {
    case STATUS_PRELAUNCH:
        return "prelaunch";
    case STATUS_RUNNING:
        return "running";
    case STATUS_PAUSED:
        return "paused";
    case STATUS_IO_ERROR:
        return "io-error";
    case STATUS_DEBUG:
        return "debug";
    case STATUS_SHUTDOWN:
        break;
    }
    return "shutdown";
}

static struct err *query_status(void *opaque, const json_t *arguments, json_t **result)
{
    const struct vm_control *control = opaque;

    *result = json_pack("{s:b, s:b, s:s}", "running", control->status == STATUS_RUNNING,
                        "singlestep", 0, "status", status_name(control->status));
    return NULL;
}

static struct err *query_name(void *opaque, const json_t *arguments, json_t **result)
{
    const struct vm_control *control = opaque;

    *result = json_pack("{s:s}", "name", control->name);
    return NULL;
}

static struct err *query_kvm(void *opaque, const json_t *arguments, json_t **result)
{
    const struct vm_control *control = opaque;

    *result = json_pack("{s:b, s:b}", "enabled", !strcmp(vm_accel_name(control->vm), "kvm"),
                        "present", 1);
    return NULL;
}

static struct err *stop(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;

    if (control->status == STATUS_PRELAUNCH)
        return err_new("the VM has not started yet");
    if (control->status == STATUS_RUNNING) {
        vm_pause(control->vm);
        control->status = STATUS_PAUSED;
        qmp_server_event(control->server, "STOP", NULL);
    }
    return NULL;
}

static struct err *cont(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;

    if (control->status == STATUS_PRELAUNCH)
        return err_new("the VM has not started yet");
    if (control->status == STATUS_DEBUG)
        return err_new("a debugger holds the VM: continue or detach there");
    if (control->status == STATUS_PAUSED || control->status == STATUS_IO_ERROR) {
        vm_resume(control->vm);
        control->status = STATUS_RUNNING;
        qmp_server_event(control->server, "RESUME", NULL);
    }
    return NULL;
}

static struct err *system_powerdown(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;

    if (control->status != STATUS_RUNNING)
        return err_new("the VM is not running, its guest cannot be asked to power down");
    vm_powerdown(control->vm);
    qmp_server_event(control->server, "POWERDOWN", NULL);
    return NULL;
}

static struct err *quit(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;

    vm_quit(control->vm);
    return NULL;
}

static vm_command query_timeline;

static const struct qmp_command commands[] = {
    {"query-status", query_status},
    {"query-name", query_name},
    {"query-kvm", query_kvm},
    {"query-stats", vm_stats_query},
    {"query-blockstats", vm_stats_disks},
    {"tenon-query-netstats", vm_stats_nets},
    {"tenon-query-queuestats", vm_stats_queues},
    {"tenon-query-timeline", query_timeline},
    {"stop", stop},
    {"cont", cont},
    {"system_powerdown", system_powerdown},
    {"system_reset", vm_machine_reset},
    {"inject-nmi", vm_machine_nmi},
    {"query-cpus-fast", vm_machine_cpus},
    {"query-memory-size-summary", vm_machine_memory},
    {"query-chardev", vm_machine_chardevs},
    {"query-pci", vm_machine_pci},
    {"quit", quit},
    {"query-block", vm_block_query},
    {"block_resize", vm_block_resize},
    {"block_set_io_throttle", vm_block_throttle},
    {"add-fd", vm_block_add_fd},
    {"remove-fd", vm_block_remove_fd},
    {"blockdev-snapshot-sync", vm_block_snapshot},
    {"eject", vm_drive_eject},
    {"blockdev-change-medium", vm_drive_change_medium},
    {"drive-mirror", vm_block_mirror},
    {"block-commit", vm_block_commit},
    {"block-stream", vm_block_stream},
    {"drive-backup", vm_block_backup},
    {"blockdev-add", vm_blockdev_add},
    {"blockdev-del", vm_blockdev_del},
    {"blockdev-mirror", vm_blockdev_mirror},
    {"blockdev-backup", vm_blockdev_backup},
    {"block-dirty-bitmap-add", vm_block_bitmap_add},
    {"block-dirty-bitmap-remove", vm_block_bitmap_remove},
    {"block-dirty-bitmap-clear", vm_block_bitmap_clear},
    {"query-block-jobs", vm_block_job_query},
    {"block-job-complete", vm_block_job_complete},
    {"block-job-cancel", vm_block_job_cancel},
    {"block-job-set-speed", vm_block_job_set_speed},
    {"screendump", vm_screen_dump},
    {"tpm-command", vm_tpm_command},
    {"pmemsave", vm_tpm_save_memory},
    {"tenon-agent-connect", vm_agent_command},
    {"send-key", vm_screen_send_key},
    {"input-send-event", vm_screen_send_event},
    {"tenon-screen-share", vm_screen_share},
    {NULL, NULL},
};

/* The debugger stopped the VM, or let it go on. */
static void on_debugger(void *opaque, bool running)
{
    struct vm_control *control = opaque;
    enum vm_status status = running ? STATUS_RUNNING : STATUS_DEBUG;

    if (control->status == status || control->status == STATUS_SHUTDOWN)
        return;
    control->status = status;
    qmp_server_event(control->server, running ? "RESUME" : "STOP", NULL);
}

static struct err *listen_for_debugger(struct vm_control *control, struct loop *loop, int fd)
{
    const struct gdb_config config = {
        .loop = loop,
        .vm = control->vm,
        .listen_fd = fd,
        .changed = on_debugger,
        .opaque = control,
    };

    return fd < 0 ? NULL : gdb_server_new(&config, &control->gdb);
}

/* Whoever started the VM is gone: nobody would ever end it. */
static void on_owner_gone(void *opaque)
{
    struct vm_control *control = opaque;

    vm_quit(control->vm);
}

struct err *vm_control_new(const struct vm_control_config *config, struct vm_control **result)
{
    struct vm_control *control = xcalloc(1, sizeof(*control));
    int listen_fd = config->listen_fd, gdb_fd = config->gdb_fd;
    struct err *err = NULL;

    control->vm = config->vm;
    control->name = xstrdup(config->name);
    control->timeline = config->timeline;
    control->loop = config->loop;
    list_init(&control->screen_shares);
    vm_on_disk_error(control->vm, vm_block_failed, control);
    vm_on_reset(control->vm, vm_machine_was_reset, control);
    vm_on_boot_failed(control->vm, vm_machine_boot_failed, control);
    vm_on_tray(control->vm, vm_drive_tray_moved, control);
    control->server = qmp_server_new(config->loop, commands, control);
    if (config->owner_fd >= 0)
        err = qmp_server_add(control->server, config->owner_fd, true, on_owner_gone, control);
    if (!err && listen_fd >= 0) {
        err = qmp_server_listen(control->server, listen_fd);
        listen_fd = -1;
    }
    if (!err) {
        err = listen_for_debugger(control, config->loop, gdb_fd);
        gdb_fd = -1;
    }
    if (err) {
        fd_cleanup(&listen_fd);
        fd_cleanup(&gdb_fd);
        vm_control_free(control);
        return err;
    }
    *result = control;
    return NULL;
}

void vm_control_free(struct vm_control *control)
{
    if (!control)
        return;
    gdb_server_free(control->gdb);
    screen_shares_free(&control->screen_shares);
    qmp_server_free(control->server);
    vm_block_fini(control);
    free(control->name);
    free(control);
}

void vm_control_started(struct vm_control *control)
{
    control->status = vm_is_paused(control->vm) ? STATUS_PAUSED : STATUS_RUNNING;
    if (control->status == STATUS_RUNNING)
        qmp_server_event(control->server, "RESUME", NULL);
}

static const char *result_name(enum vm_end end)
{
    switch (end) {
    case VM_END_POWEROFF:
        return "poweroff";
    case VM_END_RESET:
        return "reset";
    case VM_END_EXIT:
        return "exit";
    case VM_END_QUIT:
        return "quit";
    case VM_END_CRASH:
        break;
    }
    return "crash";
}

/* QAPI's ShutdownCause. */
static const char *shutdown_reason(enum vm_end end)
{
    switch (end) {
    case VM_END_POWEROFF:
    case VM_END_EXIT:
        return "guest-shutdown";
    case VM_END_RESET:
        return "guest-reset";
    case VM_END_QUIT:
        return "host-qmp-quit";
    case VM_END_CRASH:
        break;
    }
    return "guest-panic";
}

static json_t *timeline_list(const struct timeline *timeline)
{
    json_t *list = json_array();
    uint64_t first = 0;

    for (int mark = 0; mark < TIMELINE_MARKS; mark++) {
        uint64_t at = __atomic_load_n(&timeline->at_ns[mark], __ATOMIC_RELAXED);

        if (!at)
            continue;
        if (!first || at < first)
            first = at;
    }
    for (int mark = 0; mark < TIMELINE_MARKS; mark++) {
        uint64_t at = __atomic_load_n(&timeline->at_ns[mark], __ATOMIC_RELAXED);

        if (at)
            json_array_append_new(
                list, json_pack("{s:s, s:I, s:f}", "stage", timeline_name((enum timeline_mark)mark),
                                "at_ns", (json_int_t)at, "at_ms", (double)(at - first) / 1e6));
    }
    return list;
}

static struct err *query_timeline(void *opaque, const json_t *arguments, json_t **result)
{
    const struct vm_control *control = opaque;

    *result = json_pack("{s:o}", "stages", timeline_list(control->timeline));
    return NULL;
}

static void set_counter(void *opaque, const char *name, uint64_t value)
{
    json_object_set_new(opaque, name, json_integer((json_int_t)value));
}

json_t *vm_control_report(const struct vm_control *control, const struct vm_result *result)
{
    struct accel_stats stats = {0};
    json_t *counters = json_object();

    vm_stats(control->vm, &stats);
    vm_stats_counters(&stats, set_counter, counters);
    if (stats.cpu_ns)
        json_object_set_new(counters, "mips",
                            json_real((double)stats.instructions * 1e3 / (double)stats.cpu_ns));
    return json_pack("{s:s, s:s, s:s, s:i, s:s, s:o, s:o}", "name", control->name, "engine",
                     vm_accel_name(control->vm), "result", result_name(result->end), "status",
                     (int)result->status, "reason", result->reason, "timeline",
                     timeline_list(control->timeline), "stats", counters);
}

void vm_control_ended(struct vm_control *control, const struct vm_result *result)
{
    json_t *report = vm_control_report(control, result);

    control->status = STATUS_SHUTDOWN;
    if (control->gdb)
        gdb_server_ended(control->gdb, result->status);
    qmp_server_event(control->server, "SHUTDOWN",
                     json_pack("{s:b, s:s}", "guest", result->end != VM_END_QUIT, "reason",
                               shutdown_reason(result->end)));
    qmp_server_event(control->server, "TENON_REPORT", report);
    qmp_server_drain(control->server, 2000);
}
