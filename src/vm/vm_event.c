/*
 * What happens to a VM from within: power off, reset, exit, triple fault. A vCPU thread or a device
 * raises the event and the vCPUs leave the guest; the control loop acts.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "vm/vm_internal.h"

void vm_raise(struct vm *vm, enum vm_event event, unsigned status, const char *text)
{
    uint64_t one = 1;

    lock_take(&vm->event_lock);
    if (vm->event == VM_EVENT_NONE || event == VM_EVENT_QUIT) {
        vm->event = event;
        vm->event_status = status;
        snprintf(vm->event_text, sizeof(vm->event_text), "%s", text ? text : "");
    }
    lock_drop(&vm->event_lock);
    /* The guest must not go on behind the instruction that ended it. */
    __atomic_store_n(&vm->stop, true, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < vm->cpu_count; i++)
        vm->accel->vcpu_kick(vm->cpu[i].vcpu);
    (void)!write(vm->event_fd, &one, sizeof(one));
}

void vm_event_forget(struct vm *vm, enum vm_event event)
{
    lock_take(&vm->event_lock);
    if (vm->event == event)
        vm->event = VM_EVENT_NONE;
    lock_drop(&vm->event_lock);
}

static enum vm_event take_event(struct vm *vm, unsigned *status, char *text, size_t size)
{
    lock_take(&vm->event_lock);
    enum vm_event event = vm->event;
    *status = vm->event_status;
    snprintf(text, size, "%s", vm->event_text);
    vm->event = VM_EVENT_NONE;
    lock_drop(&vm->event_lock);
    return event;
}

static void finish(struct vm *vm, enum vm_end end, unsigned status, const char *reason)
{
    struct vm_result result = {.end = end, .status = status};

    snprintf(result.reason, sizeof(result.reason), "%s", reason);
    vm_cpus_stop(vm);
    board_quiesce(&vm->board);
    vm->finished = true;
    if (vm->timeline)
        timeline_mark(vm->timeline, TIMELINE_END);
    /* The last act: `ended` may free the VM. */
    if (vm->ended)
        vm->ended(vm->ended_opaque, &result);
}

/* What several CPUs raised at once is one event; a wish to quit stays. */
static void drop_others(struct vm *vm)
{
    lock_take(&vm->event_lock);
    if (vm->event != VM_EVENT_QUIT)
        vm->event = VM_EVENT_NONE;
    lock_drop(&vm->event_lock);
}

static struct err *reset(struct vm *vm)
{
    vm_cpus_stop(vm);
    drop_others(vm);
    board_quiesce(&vm->board);
    vm->asleep = vm->held = false;
    TRY(board_reset(&vm->board));
    TRY(vm_memory_settle(vm));
    TRY(vm_cpus_reset(vm));
    if (!vm->paused) {
        board_resume(&vm->board);
        vm_cpus_go(vm);
    }
    return NULL;
}

static void reset_or_end(struct vm *vm, enum vm_event event, unsigned cpu)
{
    char reason[200];

    if (event == VM_EVENT_TRIPLE_FAULT)
        snprintf(reason, sizeof(reason), "CPU %u stopped with a triple fault", cpu);
    else if (event == VM_EVENT_RESET_BUTTON)
        snprintf(reason, sizeof(reason), "the VM was reset from outside");
    else
        snprintf(reason, sizeof(reason), "the guest reset itself");
    if (vm->config->on_reset == VM_RESET_EXIT) {
        finish(vm, event == VM_EVENT_TRIPLE_FAULT ? VM_END_CRASH : VM_END_RESET, 0, reason);
        return;
    }
    log_info("%s: starting again", reason);
    struct err *err = reset(vm);
    if (!err) {
        if (vm->was_reset)
            vm->was_reset(vm->was_reset_opaque, event != VM_EVENT_RESET_BUTTON);
        return;
    }
    char text[200];
    snprintf(text, sizeof(text), "reset: %s", err_text(err));
    err_free(err);
    finish(vm, VM_END_CRASH, 0, text);
}

/*
 * S3. CPUs stand, devices go on: the real-time clock or the power button wakes. What happens then
 * is what firmware does: devices at power-on state, memory as it was, and the first CPU at the
 * vector that the guest left. A guest that left none starts from the beginning.
 */
static void wake(struct vm *vm)
{
    uint32_t vector = board_waking_vector(&vm->board);

    if (!vector) {
        reset_or_end(vm, VM_EVENT_RESET, 0);
        return;
    }
    vm->asleep = false;
    board_quiesce(&vm->board);
    struct err *err = board_wake(&vm->board);
    if (!err)
        err = vm_cpus_wake(vm, vector);
    if (err) {
        char text[200];
        snprintf(text, sizeof(text), "wake: %s", err_text(err));
        err_free(err);
        finish(vm, VM_END_CRASH, 0, text);
        return;
    }
    if (!vm->paused) {
        board_resume(&vm->board);
        vm_cpus_go(vm);
    }
}

static void sleep_or_wake(struct vm *vm)
{
    if (!vm->asleep) {
        vm_cpus_stop(vm);
        vm->asleep = true;
    }
    if (!board_asleep(&vm->board))
        wake(vm);
}

struct err *vm_memory_settle(struct vm *vm)
{
    return gmem_settle(vm->gmem) ? vm->accel->ram_changed(vm->accel_vm) : NULL;
}

/* Some region has moved: its new place is its own once every vCPU has left the old one. */
static void settle(struct vm *vm)
{
    vm_cpus_stop(vm);
    struct err *err = vm_memory_settle(vm);
    if (!err)
        return;
    vm_raise(vm, VM_EVENT_ERROR, 0, err_text(err));
    err_free(err);
}

/* The control loop. */
static void on_event(void *opaque, uint32_t events)
{
    struct vm *vm = opaque;
    char text[160];
    unsigned status;
    uint64_t count;

    (void)events;
    (void)!read(vm->event_fd, &count, sizeof(count));
    enum vm_event event = take_event(vm, &status, text, sizeof(text));
    if (vm->finished)
        return;
    if (gmem_unsettled(vm->gmem))
        settle(vm);
    switch (event) {
    case VM_EVENT_NONE:
        /* Memory has moved; or the event was taken together with an earlier one, but its stop may
         * have come after. */
        if (vm->started && !vm->paused && !vm->asleep)
            vm_cpus_go(vm);
        break;
    case VM_EVENT_OFF:
        finish(vm, VM_END_POWEROFF, 0, "the guest switched itself off");
        break;
    case VM_EVENT_SLEEP:
    case VM_EVENT_WAKE:
        sleep_or_wake(vm);
        break;
    case VM_EVENT_RESET:
    case VM_EVENT_RESET_BUTTON:
    case VM_EVENT_TRIPLE_FAULT:
        reset_or_end(vm, event, status);
        break;
    case VM_EVENT_EXIT:
        finish(vm, VM_END_EXIT, status, "the guest ended itself through the debug-exit port");
        break;
    case VM_EVENT_DEBUG:
        vm_debug_event(vm, status);
        break;
    case VM_EVENT_ERROR:
        finish(vm, VM_END_CRASH, 0, text);
        break;
    case VM_EVENT_QUIT:
        finish(vm, VM_END_QUIT, 0, "the VM was ended from outside");
        break;
    }
}

struct err *vm_events_init(struct vm *vm)
{
    lock_init(&vm->event_lock, LOCK_LEAF);
    vm->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (vm->event_fd < 0)
        return err_errno(errno, "cannot create an eventfd");
    return loop_fd_add(vm->loop, &vm->event_watch, vm->event_fd, EPOLLIN, on_event, vm);
}

void vm_events_fini(struct vm *vm)
{
    loop_fd_remove(&vm->event_watch);
    fd_cleanup(&vm->event_fd);
    lock_fini(&vm->event_lock);
}
