/*
 * A debugger's hold on a VM. See vm_debug.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vm/vm_debug.h"

#include <string.h>

#include "accel/x86_walk.h"
#include "base/log.h"
#include "vm/vm_internal.h"

unsigned vm_cpu_count(const struct vm *vm)
{
    return vm->cpu_count;
}

bool vm_debugged(const struct vm *vm)
{
    return vm->debug.stopped;
}

struct err *vm_debug_attach(struct vm *vm,
                            void (*stopped)(void *opaque, const struct vm_debug_stop *stop),
                            void *opaque)
{
    if (vm->debug.stopped)
        return err_of(ERR_BUSY, "another debugger is attached");
    vm->debug.stopped = stopped;
    vm->debug.opaque = opaque;
    vm->debug.count = 0;
    vm_pause(vm);
    return NULL;
}

/* The paused CPUs: what their engine shall watch, and who may run. */
static struct err *arm(struct vm *vm, bool on, const enum vm_debug_action *actions, int pass_cpu)
{
    for (unsigned i = 0; i < vm->cpu_count; i++) {
        enum vm_debug_action action = actions ? actions[i] : VM_DEBUG_CONTINUE;
        struct accel_debug wish = {
            .on = on,
            .pass = on && (int)i == pass_cpu && action != VM_DEBUG_HOLD,
            .step = action == VM_DEBUG_STEP,
            .count = on ? vm->debug.count : 0,
        };

        memcpy(wish.point, vm->debug.point, sizeof(wish.point));
        TRY(vm->accel->vcpu_debug(vm->cpu[i].vcpu, &wish));
        lock_take(&vm->lock);
        vm->cpu[i].held = action == VM_DEBUG_HOLD;
        lock_drop(&vm->lock);
    }
    return NULL;
}

void vm_debug_detach(struct vm *vm)
{
    if (!vm->debug.stopped)
        return;
    vm->debug.stopped = NULL;
    if (vm->finished)
        return;
    vm_pause(vm);
    struct err *err = arm(vm, false, NULL, -1);
    if (err) {
        log_warn("the debugger's points stay on: %s", err_text(err));
        err_free(err);
    }
    vm_resume(vm);
}

void vm_debug_points(struct vm *vm, const struct accel_debug_point *points, unsigned count)
{
    vm->debug.count = MIN(count, (unsigned)ACCEL_DEBUG_POINTS);
    memcpy(vm->debug.point, points, vm->debug.count * sizeof(*points));
}

struct err *vm_debug_resume(struct vm *vm, const enum vm_debug_action *actions, int pass_cpu)
{
    if (!vm->paused)
        return err_new("the VM runs already");
    vm_event_forget(vm, VM_EVENT_DEBUG); /* of before: who met it stands there still */
    TRY(arm(vm, true, actions, pass_cpu));
    vm_resume(vm);
    return NULL;
}

void vm_debug_event(struct vm *vm, unsigned cpu)
{
    const struct vm_exit *exit = &vm->cpu[cpu].debug_exit;
    struct vm_debug_stop stop = {.cpu = cpu, .event = exit->debug, .point = exit->debug_point};

    vm_pause(vm);
    if (vm->debug.stopped)
        vm->debug.stopped(vm->debug.opaque, &stop);
    else
        vm_resume(vm); /* it left in the meantime */
}

/* --- registers and memory --- */

struct err *vm_cpu_get(struct vm *vm, unsigned cpu, struct x86_state *state)
{
    return vm->accel->vcpu_get(vm->cpu[cpu].vcpu, state);
}

struct err *vm_cpu_set(struct vm *vm, unsigned cpu, const struct x86_state *state)
{
    return vm->accel->vcpu_set(vm->cpu[cpu].vcpu, state);
}

bool vm_debug_translate(struct vm *vm, const struct x86_state *state, uint64_t linear,
                        uint64_t *gpa)
{
    return x86_walk(vm->gmem, state, linear, gpa, NULL);
}

bool vm_physical_read(struct vm *vm, uint64_t gpa, void *bytes, size_t len)
{
    return gmem_read(vm->gmem, gpa, bytes, len) == 0;
}

bool vm_physical_write(struct vm *vm, uint64_t gpa, const void *bytes, size_t len)
{
    return gmem_load(vm->gmem, gpa, bytes, len) == 0;
}

/* Calls `move` for each part of [linear, linear+len) that lies together. */
static size_t each_part(struct vm *vm, const struct x86_state *state, uint64_t linear, size_t len,
                        bool (*move)(struct vm *vm, uint64_t gpa, uint8_t *bytes, size_t len),
                        uint8_t *bytes)
{
    size_t done = 0;

    while (done < len) {
        uint64_t gpa, left;

        if (!x86_walk(vm->gmem, state, linear + done, &gpa, &left))
            break;
        size_t part = MIN(MIN(left, len - done), 4096 - (gpa & 4095));
        if (!move(vm, gpa, bytes + done, part))
            break;
        done += part;
    }
    return done;
}

static bool move_out(struct vm *vm, uint64_t gpa, uint8_t *bytes, size_t len)
{
    return vm_physical_read(vm, gpa, bytes, len);
}

static bool move_in(struct vm *vm, uint64_t gpa, uint8_t *bytes, size_t len)
{
    return vm_physical_write(vm, gpa, bytes, len);
}

size_t vm_debug_read(struct vm *vm, const struct x86_state *state, uint64_t linear, void *bytes,
                     size_t len)
{
    return each_part(vm, state, linear, len, move_out, bytes);
}

size_t vm_debug_write(struct vm *vm, const struct x86_state *state, uint64_t linear,
                      const void *bytes, size_t len)
{
    return each_part(vm, state, linear, len, move_in, (uint8_t *)bytes);
}
