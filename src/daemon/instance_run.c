/*
 * A VM under supervision: start, connection, end. See instance.h.
 *
 * The VM starts with its CPUs stopped, and goes on when we hold its consoles: so the first byte
 * that the guest writes is seen. Who comes after a daemon that died in between finds "starting".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/instance_internal.h"

#define CONNECT_FIRST_NS (2 * NSEC_PER_MSEC)
#define CONNECT_MOST_NS (50 * NSEC_PER_MSEC)
#define LOST_RETRY_NS NSEC_PER_SEC
#define QUIT_GRACE_NS (5 * NSEC_PER_SEC)
#define REPORT_MAX KIB(256)

/* A failure to remember is told, and costs no VM. */
static void complain(const struct instance *instance, struct err *take_err)
{
    if (take_err)
        log_with(LOG_ERROR, LOG_FIELDS({"vm", instance->name}), "VM '%s': %s", instance->name,
                 err_text(take_err));
    err_free(take_err);
}

/* ---- files ---- */

static struct err *write_file(const struct instance *instance, const char *name, const char *text)
{
    scoped(fd_cleanup) int fd =
        openat(instance->dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    size_t len = strlen(text);

    if (fd < 0 || write(fd, text, len) != (ssize_t)len)
        return err_errno(errno, "cannot write '%s/%s'", instance->directory, name);
    return NULL;
}

/* The description for the keeper. JSON is YAML. */
static struct err *write_description(const struct instance *instance)
{
    json_t *config = json_deep_copy(instance->config), *console;
    size_t i;

    json_array_foreach(json_object_get(config, "consoles"), i, console)
    {
        const char *backend = json_string_value(json_object_get(console, "backend"));
        const char *id = json_string_value(json_object_get(console, "id"));
        if (strcmp(backend, "stdio") != 0)
            continue;
        json_object_set_new(console, "backend", json_string("socket"));
        json_object_set_new(console, "path", json_sprintf("console-%s.sock", id));
    }
    char *text = json_dumps(config, JSON_INDENT(2));
    json_decref(config);
    struct err *err = write_file(instance, "vm.yaml", text);
    free(text);
    return err;
}

static void remove_sockets(const struct instance *instance)
{
    unlinkat(instance->dir_fd, "qmp.sock", 0);
    for (unsigned i = 0; i < instance->console_count; i++) {
        scoped(free_cleanup) char *file = xasprintf("console-%s.sock", instance->console[i].id);
        unlinkat(instance->dir_fd, file, 0);
    }
}

/* The keeper's report; NULL when it left none. */
static json_t *read_report(const struct instance *instance)
{
    scoped(fd_cleanup) int fd =
        openat(instance->dir_fd, "report.json", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat status;

    if (fd < 0 || fstat(fd, &status) != 0 || status.st_size > (off_t)REPORT_MAX)
        return NULL;
    json_t *report = json_loadfd(fd, 0, NULL);
    if (!json_is_string(json_object_get(report, "result"))) {
        json_decref(report);
        return NULL;
    }
    return report;
}

/* ---- connection ---- */

static void on_status(void *opaque, const json_t *result, const struct err *err)
{
    struct instance *instance = opaque;
    const char *status = json_string_value(json_object_get(result, "status"));

    if (!err && status && instance->state != INSTANCE_STOPPING)
        instance_set_state(instance, INSTANCE_UP, status);
}

static void ask_status(struct instance *instance)
{
    link_run(instance->qmp, "query-status", NULL, -1, on_status, instance);
}

static void on_engine(void *opaque, const json_t *result, const struct err *err)
{
    struct instance *instance = opaque;
    const char *engine = json_string_value(json_object_get(json_array_get(result, 0), "provider"));

    free(instance->engine);
    instance->engine = engine ? xstrdup(engine) : NULL;
}

static void on_let_go(void *opaque, const json_t *result, const struct err *err)
{
    struct instance *instance = opaque;

    if (!err)
        unlinkat(instance->dir_fd, "starting", 0);
}

static void on_ready(void *opaque)
{
    struct instance *instance = opaque;

    link_run(instance->qmp, "query-stats", json_pack("{s:s}", "target", "vm"), -1, on_engine,
             instance);
    if (faccessat(instance->dir_fd, "starting", F_OK, 0) == 0)
        link_run(instance->qmp, "cont", NULL, -1, on_let_go, instance);
    ask_status(instance);
}

static void on_event(void *opaque, const char *name, const json_t *data)
{
    struct instance *instance = opaque;

    if (!strcmp(name, "STOP") || !strcmp(name, "RESUME"))
        ask_status(instance);
    /* The report is the end's, and comes to `last`. */
    if (strcmp(name, "TENON_REPORT") != 0)
        events_publish(
            instance->host->events, "vm.qmp", instance->name,
            json_pack("{s:s, s:o*}", "event", name, "data", data ? json_deep_copy(data) : NULL));
}

void instance_disconnect(struct instance *instance)
{
    for (unsigned i = 0; i < instance->console_count; i++) {
        console_close(instance->console[i].console);
        instance->console[i].console = NULL;
    }
    link_free(instance->qmp);
    instance->qmp = NULL;
    free(instance->engine);
    instance->engine = NULL;
}

/* The VM hung up. Mostly it ends, and the keeper with it; if not, we come again. */
static void on_closed(void *opaque)
{
    struct instance *instance = opaque;

    instance_disconnect(instance);
    if (instance->state == INSTANCE_STOPPING)
        return;
    loop_timer_arm(&instance->timer, clock_now_ns() + LOST_RETRY_NS);
}

static const struct link_events qmp_events = {on_ready, on_event, on_closed};

/* Consoles first: see above. */
static struct err *connect_all(struct instance *instance)
{
    int fd;

    if (faccessat(instance->dir_fd, "qmp.sock", F_OK, AT_SYMLINK_NOFOLLOW) != 0)
        return err_errno(errno, "the control socket");
    for (unsigned i = 0; i < instance->console_count; i++)
        if (!instance->console[i].console)
            err_free(console_open(instance->host->loop, instance->dir_fd, instance->console[i].id,
                                  &instance->console[i].console));
    TRY(link_connect(instance->dir_fd, "qmp.sock", &fd));
    return link_new(instance->host->loop, fd, &qmp_events, instance, &instance->qmp);
}

static void try_connect(struct instance *instance)
{
    struct err *err = connect_all(instance);

    if (!err)
        return;
    err_free(err);
    if (instance->state == INSTANCE_UP)
        instance_set_state(instance, INSTANCE_LOST, NULL);
    uint64_t pause = CONNECT_FIRST_NS << MIN(instance->tries, 5u);
    instance->tries++;
    loop_timer_arm(&instance->timer, clock_now_ns() + (instance->state == INSTANCE_STARTING
                                                           ? MIN(pause, (uint64_t)CONNECT_MOST_NS)
                                                           : LOST_RETRY_NS));
}

/* ---- the end ---- */

/* What is known of a run that left no report. */
static json_t *unreported(bool ours, int wait_status)
{
    if (ours && WIFSIGNALED(wait_status))
        return json_pack("{s:s, s:o}", "result", "killed", "reason",
                         json_sprintf("the process that keeps the VM was killed by signal %d (%s)",
                                      WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status))));
    return json_pack("{s:s, s:s}", "result", "killed", "reason",
                     "the process that keeps the VM ended without a report: it was killed, or the "
                     "host went down");
}

static void log_end(const struct instance *instance, const json_t *report)
{
    const char *result = json_string_value(json_object_get(report, "result"));
    const char *reason = json_string_value(json_object_get(report, "reason"));

    log_with(LOG_INFO, LOG_FIELDS({"vm", instance->name}, {"result", result}, {"reason", reason}),
             "VM '%s' has ended: %s%s%s", instance->name, result, reason ? ": " : "",
             reason ? reason : "");
}

/* The keeper has ended: so has the VM. */
static void ended(struct instance *instance, int wait_status)
{
    const struct store_process nobody = {0};
    json_t *report = read_report(instance);

    loop_timer_cancel(&instance->timer);
    instance_disconnect(instance);
    process_forget(&instance->keeper);
    remove_sockets(instance);
    unlinkat(instance->dir_fd, "starting", 0);
    if (!report)
        report = unreported(instance->ours, wait_status);
    log_end(instance, report);
    json_object_set_new(report, "ended_at", events_time(clock_wall_ns()));
    json_decref(instance->last);
    instance->last = report;
    complain(instance, store_vm_process(instance->host->store, instance->name, &nobody));
    complain(instance, store_vm_last(instance->host->store, instance->name, report));
    instance_set_state(instance, INSTANCE_STOPPED, NULL);
}

static void on_keeper_end(void *opaque, uint32_t events)
{
    struct instance *instance = opaque;
    const struct instance_host *host = instance->host;

    ended(instance, instance->ours ? host->reap(host->opaque, instance->keeper.pid) : 0);
}

void instance_on_timer(void *opaque)
{
    struct instance *instance = opaque;

    if (instance->state == INSTANCE_STOPPING)
        process_kill(&instance->keeper);
    else
        try_connect(instance);
}

/* ---- the owner's side ---- */

static struct err *spawn_keeper(struct instance *instance, pid_t *pid)
{
    scoped(fd_cleanup) int log_fd =
        openat(instance->dir_fd, "log",
               O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (log_fd < 0)
        return err_errno(errno, "cannot write '%s/log'", instance->directory);
    return instance->host->start_keeper(instance->host->opaque, instance->dir_fd, log_fd, pid);
}

struct err *instance_start(struct instance *instance, bool paused)
{
    pid_t pid;

    if (instance->state != INSTANCE_STOPPED)
        return err_of(ERR_BUSY, "VM '%s' runs already", instance->name);
    unlinkat(instance->dir_fd, "report.json", 0);
    remove_sockets(instance);
    TRY(write_description(instance));
    if (!paused)
        TRY(write_file(instance, "starting", ""));
    TRY(spawn_keeper(instance, &pid));
    instance->ours = true;
    instance->tries = 0;
    instance->started_ns = clock_wall_ns();
    instance_set_state(instance, INSTANCE_STARTING, NULL);
    if (!process_watch(&instance->keeper, instance->host->loop, pid, 0, on_keeper_end, instance)) {
        /* Most likely it has ended already. */
        ended(instance, instance->host->reap(instance->host->opaque, pid));
        return NULL;
    }
    const struct store_process process = {pid, instance->keeper.started};
    complain(instance, store_vm_process(instance->host->store, instance->name, &process));
    loop_timer_arm(&instance->timer, clock_now_ns() + CONNECT_FIRST_NS);
    return NULL;
}

static void on_quit(void *opaque, const json_t *result, const struct err *err)
{
    /* The end is seen by the keeper's. */
}

struct err *instance_stop(struct instance *instance)
{
    if (instance->state == INSTANCE_STOPPED)
        return err_of(ERR_BUSY, "VM '%s' does not run", instance->name);
    if (instance->state == INSTANCE_STOPPING)
        return NULL;
    bool listens = link_is_ready(instance->qmp);
    if (listens)
        link_run(instance->qmp, "quit", NULL, -1, on_quit, instance);
    instance_set_state(instance, INSTANCE_STOPPING, NULL);
    loop_timer_arm(&instance->timer, listens ? clock_now_ns() + QUIT_GRACE_NS : 0);
    return NULL;
}

/* The keeper that listens in the VM's folder, whoever that is; 0: nobody does. */
static pid_t find_keeper(const struct instance *instance)
{
    scoped(fd_cleanup) int fd = -1;

    err_free(link_connect(instance->dir_fd, "qmp.sock", &fd));
    return fd < 0 ? 0 : link_peer(fd);
}

void instance_recover(struct instance *instance, const struct store_process *process)
{
    bool known = process_watch(&instance->keeper, instance->host->loop, process->pid,
                               process->started, on_keeper_end, instance);
    pid_t pid = known ? 0 : find_keeper(instance);

    /* A daemon may die between the start of a keeper and the note of it. */
    if (!known &&
        !process_watch(&instance->keeper, instance->host->loop, pid, 0, on_keeper_end, instance)) {
        if (process->pid) {
            log_with(LOG_WARN, LOG_FIELDS({"vm", instance->name}),
                     "VM '%s' ended while nobody watched", instance->name);
            ended(instance, 0);
        }
        return;
    }
    const struct store_process now = {instance->keeper.pid, instance->keeper.started};
    if (!known)
        complain(instance, store_vm_process(instance->host->store, instance->name, &now));
    instance->started_ns = process_start_wall_ns(&instance->keeper);
    instance_set_state(instance, INSTANCE_STARTING, NULL);
    try_connect(instance);
}
