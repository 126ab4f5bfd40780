/*
 * REST: VMs and what is done to them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "base/clock.h"
#include "daemon/api.h"

static struct err *list_vms(struct api_call *call)
{
    json_t *list = json_array();
    struct instance *vm;

    list_for_each (vm, &call->daemon->fleet->instances, link)
        if (identity_sees(&call->who, vm->name))
            json_array_append_new(list, instance_describe(vm));
    api_answer(call, json_pack("{s:o}", "vms", list));
    return NULL;
}

static struct err *get_vm(struct api_call *call)
{
    api_answer(call, instance_describe(call->vm));
    return NULL;
}

/* An admin of some VMs may not make others. */
static struct err *check_scope(const struct api_call *call)
{
    const char *name = json_string_value(json_object_get(call->body, "name"));

    if (name && !identity_sees(&call->who, name))
        return err_of(ERR_DENIED, "%s may not touch a VM '%.64s'", call->who.name, name);
    return NULL;
}

static struct err *create_vm(struct api_call *call)
{
    struct instance *vm;
    json_t *config;
    const char *name = json_string_value(json_object_get(call->body, "name"));

    call->target = name ? xasprintf("%.64s", name) : NULL;
    TRY(check_scope(call));
    TRY(fleet_resolve(call->body, &config));
    TRY(fleet_create(call->daemon->fleet, config, &vm));
    if (api_query_is(call, "start"))
        TRY(instance_start(vm, false));
    api_answer(call, instance_describe(vm));
    return NULL;
}

static struct err *change_vm(struct api_call *call)
{
    json_t *config;

    /* The path has the name: the body may leave it out. */
    if (json_is_object(call->body) && !json_object_get(call->body, "name"))
        json_object_set_new(call->body, "name", json_string(call->vm->name));
    TRY(fleet_resolve(call->body, &config));
    TRY(fleet_change(call->daemon->fleet, call->vm, config));
    api_answer(call, instance_describe(call->vm));
    return NULL;
}

/* ---- delete ---- */

#define FORCE_NS (15 * NSEC_PER_SEC)

static void delete_stopped(void *opaque, bool late)
{
    struct api_call *call = opaque;

    /* Somebody else may have deleted it while we waited. */
    call->vm = fleet_find(call->daemon->fleet, call->argument[0]);
    struct err *err = !call->vm ? NULL
                      : late    ? err_new("VM '%s' does not end", call->vm->name)
                                : fleet_delete(call->daemon->fleet, call->vm);
    if (err)
        api_answer_error(call, api_status_of(err), err);
    else
        api_answer_nothing(call);
}

static struct err *delete_vm(struct api_call *call)
{
    if (call->vm->state != INSTANCE_STOPPED && api_query_is(call, "force")) {
        TRY(instance_stop(call->vm));
        instance_wait(call->vm, &call->waiter, true, clock_now_ns() + FORCE_NS, delete_stopped,
                      call);
        return NULL;
    }
    TRY(fleet_delete(call->daemon->fleet, call->vm));
    api_answer_nothing(call);
    return NULL;
}

/* ---- actions ---- */

/* What has ended is told by how: a start that failed is an error. */
static void on_waited(void *opaque, bool late)
{
    struct api_call *call = opaque;
    struct instance *vm = fleet_find(call->daemon->fleet, call->argument[0]);
    bool start = !call->waiter.stopped;
    const char *result = json_string_value(json_object_get(vm ? vm->last : NULL, "result"));
    const char *reason = json_string_value(json_object_get(vm ? vm->last : NULL, "reason"));

    if (!vm)
        api_answer_error(call, 404, err_new("VM '%s' was deleted", call->argument[0]));
    else if (late)
        api_answer_error(
            call, 504, err_of(ERR_BUSY, "VM '%s' is still %s", vm->name, instance_state_text(vm)));
    else if (start && vm->state == INSTANCE_STOPPED && result &&
             (!strcmp(result, "failed") || !strcmp(result, "killed")))
        api_answer_error(call, 409, err_of(ERR_BUSY, "%s", reason ? reason : "it did not start"));
    else
        api_answer(call, instance_describe(vm));
}

static struct err *answer_when(struct api_call *call, bool stopped)
{
    uint64_t wait_s = api_query_number(call, "wait", 0);

    if (wait_s)
        instance_wait(call->vm, &call->waiter, stopped, clock_now_ns() + wait_s * NSEC_PER_SEC,
                      on_waited, call);
    else
        api_answer(call, instance_describe(call->vm));
    return NULL;
}

static struct err *act_start(struct api_call *call)
{
    TRY(instance_start(call->vm, api_query_is(call, "paused")));
    return answer_when(call, false);
}

static struct err *act_stop(struct api_call *call)
{
    TRY(instance_stop(call->vm));
    return answer_when(call, true);
}

static void on_command(void *opaque, const json_t *result, const struct err *err)
{
    struct api_call *call = opaque;
    struct instance *vm = fleet_find(call->daemon->fleet, call->argument[0]);

    call->vm = vm;
    if (err || !vm)
        api_answer_error(
            call, 409,
            err_new("VM '%s': %s", call->argument[0], err ? err_text(err) : "it was deleted"));
    else
        answer_when(call, call->waiter.stopped);
}

static struct err *run_command(struct api_call *call, const char *command)
{
    if (!link_is_ready(call->vm->qmp))
        return err_of(ERR_BUSY, "VM '%s' is %s", call->vm->name, instance_state_text(call->vm));
    link_run(call->vm->qmp, command, NULL, -1, on_command, call);
    return NULL;
}

static struct err *run_action(struct api_call *call)
{
    static const struct {
        const char *name, *command;
    } commands[] = {{"powerdown", "system_powerdown"},
                    {"reset", "system_reset"},
                    {"pause", "stop"},
                    {"resume", "cont"},
                    {"nmi", "inject-nmi"}};
    const char *action = call->argument[1];

    if (!strcmp(action, "start"))
        return act_start(call);
    if (!strcmp(action, "stop"))
        return act_stop(call);
    call->waiter.stopped = !strcmp(action, "powerdown");
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (!strcmp(commands[i].name, action))
            return run_command(call, commands[i].command);
    return err_of(ERR_USAGE,
                  "'%.32s' is no action: there are start, stop, powerdown, reset, pause, resume "
                  "and nmi",
                  action);
}

const struct api_handler api_vm_handlers[] = {
    {"listVms", list_vms},   {"createVm", create_vm},   {"getVm", get_vm}, {"changeVm", change_vm},
    {"deleteVm", delete_vm}, {"runAction", run_action}, {NULL, NULL},
};
