/*
 * A VM under supervision: what it is. See instance.h; how it runs is in instance_run.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "daemon/instance.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/instance_internal.h"

/* The consoles that we hold: those that would be on a terminal. */
static void find_consoles(struct instance *instance)
{
    const json_t *list = json_object_get(instance->config, "consoles");
    json_t *console;
    size_t i;

    json_array_foreach((json_t *)list, i, console)
    {
        const char *backend = json_string_value(json_object_get(console, "backend"));
        const char *id = json_string_value(json_object_get(console, "id"));
        if (backend && id && !strcmp(backend, "stdio") && instance->console_count < VM_CONSOLES_MAX)
            instance->console[instance->console_count++].id = xstrdup(id);
    }
}

void instance_set_config(struct instance *instance, json_t *take_config)
{
    json_decref(instance->config);
    instance->config = take_config;
    while (instance->console_count)
        free(instance->console[--instance->console_count].id);
    find_consoles(instance);
}

struct err *instance_new(const struct instance_host *host, const char *root, const char *name,
                         json_t *take_config, uint64_t created_ns, struct instance **result)
{
    struct instance *instance = xcalloc(1, sizeof(*instance));

    instance->host = host;
    instance->name = xstrdup(name);
    instance->directory = xasprintf("%s/%s", root, name);
    instance->created_ns = created_ns;
    instance->dir_fd = -1;
    list_init(&instance->waiters);
    list_init(&instance->link);
    loop_timer_init(host->loop, &instance->timer, instance_on_timer, instance);
    instance_set_config(instance, take_config);
    if (mkdir(instance->directory, 0700) == 0 || errno == EEXIST)
        instance->dir_fd =
            open(instance->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (instance->dir_fd < 0) {
        struct err *err = err_errno(errno, "cannot use the folder '%s'", instance->directory);
        instance_free(instance);
        return err;
    }
    *result = instance;
    return NULL;
}

void instance_free(struct instance *instance)
{
    if (!instance)
        return;
    loop_timer_cancel(&instance->timer);
    instance_disconnect(instance);
    process_forget(&instance->keeper);
    instance_waiters_end(instance);
    list_remove(&instance->link);
    for (unsigned i = 0; i < instance->console_count; i++)
        free(instance->console[i].id);
    fd_cleanup(&instance->dir_fd);
    json_decref(instance->config);
    json_decref(instance->last);
    free(instance->name);
    free(instance->directory);
    free(instance);
}

struct err *instance_erase(struct instance *instance)
{
    DIR *folder = opendir(instance->directory);
    struct dirent *entry;

    while (folder && (entry = readdir(folder)))
        unlinkat(instance->dir_fd, entry->d_name, 0); /* "." and ".." stay */
    if (folder)
        closedir(folder);
    if (rmdir(instance->directory) != 0 && errno != ENOENT)
        return err_errno(errno, "cannot remove the folder '%s'", instance->directory);
    return NULL;
}

const char *instance_state_text(const struct instance *instance)
{
    switch (instance->state) {
    case INSTANCE_STOPPED:
        return "stopped";
    case INSTANCE_STARTING:
        return "starting";
    case INSTANCE_UP:
        return instance->status;
    case INSTANCE_STOPPING:
        return "stopping";
    case INSTANCE_LOST:
        break;
    }
    return "unreachable";
}

struct instance_console *instance_find_console(struct instance *instance, const char *id)
{
    for (unsigned i = 0; i < instance->console_count; i++)
        if (!strcmp(instance->console[i].id, id))
            return &instance->console[i];
    return NULL;
}

json_t *instance_describe(const struct instance *instance)
{
    json_t *consoles = json_array();
    json_t *json =
        json_pack("{s:s, s:s, s:o, s:O, s:o}", "name", instance->name, "state",
                  instance_state_text(instance), "created_at", events_time(instance->created_ns),
                  "config", instance->config, "consoles", consoles);

    for (unsigned i = 0; i < instance->console_count; i++)
        json_array_append_new(consoles,
                              json_pack("{s:s, s:b}", "id", instance->console[i].id, "connected",
                                        console_is_connected(instance->console[i].console)));
    if (instance->keeper.pid) {
        json_object_set_new(json, "pid", json_integer(instance->keeper.pid));
        json_object_set_new(json, "started_at", events_time(instance->started_ns));
        json_object_set_new(json, "directory", json_string(instance->directory));
    }
    if (instance->engine)
        json_object_set_new(json, "engine", json_string(instance->engine));
    if (instance->last)
        json_object_set(json, "last", instance->last);
    return json;
}

/* ---- waiting ---- */

static bool is_over(const struct instance *instance, const struct instance_waiter *waiter)
{
    if (waiter->stopped)
        return instance->state == INSTANCE_STOPPED;
    return instance->state == INSTANCE_UP || instance->state == INSTANCE_STOPPED;
}

static void waiter_end(struct instance_waiter *waiter, bool late)
{
    loop_timer_cancel(&waiter->timer);
    list_remove(&waiter->link);
    waiter->done(waiter->opaque, late);
}

static void on_waiter_timer(void *opaque)
{
    struct instance_waiter *waiter = opaque;

    waiter_end(waiter, !waiter->over);
}

void instance_wait(struct instance *instance, struct instance_waiter *waiter, bool stopped,
                   uint64_t deadline_ns, void (*done)(void *opaque, bool late), void *opaque)
{
    *waiter = (struct instance_waiter){.stopped = stopped, .done = done, .opaque = opaque};
    loop_timer_init(instance->host->loop, &waiter->timer, on_waiter_timer, waiter);
    waiter->over = is_over(instance, waiter);
    loop_timer_arm(&waiter->timer, waiter->over ? 0 : deadline_ns);
    list_append(&instance->waiters, &waiter->link);
}

void instance_set_state(struct instance *instance, enum instance_state state, const char *status)
{
    const char *before = instance_state_text(instance);
    scoped(free_cleanup) char *previous = xstrdup(before);
    struct instance_waiter *waiter;

    instance->state = state;
    snprintf(instance->status, sizeof(instance->status), "%s", status ? status : "");
    if (!strcmp(previous, instance_state_text(instance)))
        return;
    log_with(LOG_INFO,
             LOG_FIELDS({"vm", instance->name}, {"state", instance_state_text(instance)},
                        {"previous", previous}),
             "VM '%s' is %s", instance->name, instance_state_text(instance));
    events_publish(
        instance->host->events, "vm.state", instance->name,
        json_pack("{s:s, s:s}", "state", instance_state_text(instance), "previous", previous));
    list_for_each (waiter, &instance->waiters, link) {
        if (!is_over(instance, waiter))
            continue;
        waiter->over = true;
        loop_timer_arm(&waiter->timer, 0);
    }
}

void instance_waiters_end(struct instance *instance)
{
    while (!list_empty(&instance->waiters))
        waiter_end(list_first(&instance->waiters, struct instance_waiter, link), true);
}
