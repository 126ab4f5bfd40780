/*
 * All VMs of a daemon. See fleet.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "daemon/fleet.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/log.h"
#include "vm/schema.h"

struct instance *fleet_find(const struct fleet *fleet, const char *name)
{
    struct instance *instance;

    list_for_each (instance, &fleet->instances, link)
        if (!strcmp(instance->name, name))
            return instance;
    return NULL;
}

static void add(struct fleet *fleet, struct instance *instance)
{
    struct list *position = fleet->instances.next;

    while (position != &fleet->instances &&
           strcmp(list_entry(position, struct instance, link)->name, instance->name) < 0)
        position = position->next;
    list_insert_before(position, &instance->link);
    fleet->count++;
}

static struct err *load(void *opaque, const char *name, json_t *config, uint64_t created_ns,
                        const struct store_process *process, json_t *last)
{
    struct fleet *fleet = opaque;
    struct instance *instance;

    if (!config)
        return err_new("state: the description of VM '%s' is no JSON", name);
    TRY(instance_new(&fleet->host, fleet->root, name, json_incref(config), created_ns, &instance));
    instance->last = json_incref(last);
    add(fleet, instance);
    return NULL;
}

struct recovery {
    struct store_process *process;
    unsigned count;
};

static struct err *note_process(void *opaque, const char *name, json_t *config, uint64_t created_ns,
                                const struct store_process *process, json_t *last)
{
    struct recovery *recovery = opaque;

    recovery->process =
        xrealloc(recovery->process, recovery->count + 1, sizeof(*recovery->process));
    recovery->process[recovery->count++] = *process;
    return NULL;
}

/* A reading of its own: a VM that has ended in the meantime is written to the store. */
static void recover_all(struct fleet *fleet)
{
    struct recovery recovery = {0};
    struct instance *instance;
    unsigned i = 0;

    /* Both are in the order of names. */
    struct err *err = store_vms(fleet->host.store, note_process, &recovery);
    list_for_each (instance, &fleet->instances, link)
        if (!err && i < recovery.count)
            instance_recover(instance, &recovery.process[i++]);
    if (err)
        log_error("%s", err_text(err));
    err_free(err);
    free(recovery.process);
}

struct err *fleet_new(const struct instance_host *host, const char *root, struct fleet **result)
{
    struct fleet *fleet = xcalloc(1, sizeof(*fleet));
    struct err *err = NULL;

    fleet->host = *host;
    fleet->root = xstrdup(root);
    list_init(&fleet->instances);
    if (mkdir(root, 0700) != 0 && errno != EEXIST)
        err = err_errno(errno, "cannot make the folder '%s'", root);
    if (!err)
        err = store_vms(host->store, load, fleet);
    if (err) {
        fleet_free(fleet);
        return err;
    }
    recover_all(fleet);
    *result = fleet;
    return NULL;
}

void fleet_free(struct fleet *fleet)
{
    if (!fleet)
        return;
    while (!list_empty(&fleet->instances))
        instance_free(list_first(&fleet->instances, struct instance, link));
    free(fleet->root);
    free(fleet);
}

/* A name is a folder as well. */
static struct err *check_name(const json_t *json)
{
    const char *name = json_string_value(json_object_get(json, "name"));

    if (!name)
        return err_of(ERR_USAGE, "a VM needs a name: add \"name\"");
    if (*name == '.' || *name == '-')
        return err_of(ERR_USAGE, "name: '%.64s' begins with '%c': begin with a letter or a digit",
                      name, *name);
    return NULL;
}

struct err *fleet_resolve(const json_t *json, json_t **resolved)
{
    struct vm_config *config = xcalloc(1, sizeof(*config));

    vm_config_init(config);
    struct err *err =
        json_is_object(json) ? NULL : err_of(ERR_USAGE, "a VM is described by a JSON object");
    if (!err)
        err = schema_parse_json(json, config);
    if (!err)
        err = check_name(json);
    if (!err)
        err = schema_finish(config);
    if (!err)
        *resolved = schema_to_json(config, false);
    vm_config_fini(config);
    free(config);
    return err;
}

struct err *fleet_create(struct fleet *fleet, json_t *take_resolved, struct instance **result)
{
    const char *name = json_string_value(json_object_get(take_resolved, "name"));
    struct instance *instance;

    if (fleet_find(fleet, name)) {
        struct err *err = err_of(ERR_BUSY, "there is a VM '%s' already", name);
        json_decref(take_resolved);
        return err;
    }
    TRY(instance_new(&fleet->host, fleet->root, name, take_resolved, clock_wall_ns(), &instance));
    struct err *err = store_vm_put(fleet->host.store, name, instance->config, instance->created_ns);
    if (err) {
        err_free(instance_erase(instance));
        instance_free(instance);
        return err;
    }
    add(fleet, instance);
    events_publish(fleet->host.events, "vm.created", name, NULL);
    *result = instance;
    return NULL;
}

struct err *fleet_change(struct fleet *fleet, struct instance *instance, json_t *take_resolved)
{
    const char *name = json_string_value(json_object_get(take_resolved, "name"));
    struct err *err = NULL;

    if (strcmp(name, instance->name) != 0)
        err = err_of(ERR_USAGE, "name: VM '%s' cannot become '%s'", instance->name, name);
    else if (instance->state != INSTANCE_STOPPED)
        err = err_of(ERR_BUSY, "VM '%s' runs: stop it before it is changed", name);
    else
        err = store_vm_put(fleet->host.store, name, take_resolved, instance->created_ns);
    if (err) {
        json_decref(take_resolved);
        return err;
    }
    instance_set_config(instance, take_resolved);
    events_publish(fleet->host.events, "vm.changed", instance->name, NULL);
    return NULL;
}

struct err *fleet_delete(struct fleet *fleet, struct instance *instance)
{
    if (instance->state != INSTANCE_STOPPED)
        return err_of(ERR_BUSY, "VM '%s' runs: stop it first, or delete it by force",
                      instance->name);
    TRY(store_vm_delete(fleet->host.store, instance->name));
    struct err *err = instance_erase(instance);
    events_publish(fleet->host.events, "vm.deleted", instance->name, NULL);
    fleet->count--;
    instance_free(instance);
    return err;
}
