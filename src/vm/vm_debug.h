/*
 * A debugger's hold on a VM: stops, steps, registers and memory as the guest sees it. At most one
 * debugger. All on the control loop.
 *
 * While it is attached the debugger decides who runs: vm_pause() and vm_resume() of others still
 * work, but whoever serves them (QMP) should ask vm_debugged() first.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_VM_VM_DEBUG_H
#define TENON_VM_VM_DEBUG_H

#include "vm/vm.h"

/* Why the VM stopped: what happened on which CPU. */
struct vm_debug_stop {
    unsigned cpu;
    enum accel_debug_event event;
    unsigned point; /* ACCEL_DEBUG_POINT */
};

enum vm_debug_action { VM_DEBUG_HOLD, VM_DEBUG_CONTINUE, VM_DEBUG_STEP };

/* Pauses the VM; from now on `stopped` reports stops, with the VM paused. */
struct err *vm_debug_attach(struct vm *vm,
                            void (*stopped)(void *opaque, const struct vm_debug_stop *stop),
                            void *opaque);
/* The VM goes on as if nobody had been there. Not attached is fine. */
void vm_debug_detach(struct vm *vm);
bool vm_debugged(const struct vm *vm);

/* Breakpoints and watchpoints of all CPUs from the next resume on; at most ACCEL_DEBUG_POINTS. */
void vm_debug_points(struct vm *vm, const struct accel_debug_point *points, unsigned count);
/*
 * Lets the CPUs go on, each as its `actions` member says. `pass_cpu` stands at an INT3 of the
 * guest's own, which it shall get; -1: none.
 */
struct err *vm_debug_resume(struct vm *vm, const enum vm_debug_action *actions, int pass_cpu);

unsigned vm_cpu_count(const struct vm *vm);
/* The VM is paused. */
struct err *vm_cpu_get(struct vm *vm, unsigned cpu, struct x86_state *state);
struct err *vm_cpu_set(struct vm *vm, unsigned cpu, const struct x86_state *state);
/*
 * Memory at a linear address, as `state` has it mapped: how many bytes from the start on were
 * moved. Devices are not asked: reading a register may change one. A write reaches ROM too.
 */
size_t vm_debug_read(struct vm *vm, const struct x86_state *state, uint64_t linear, void *bytes,
                     size_t len);
size_t vm_debug_write(struct vm *vm, const struct x86_state *state, uint64_t linear,
                      const void *bytes, size_t len);
/* RAM and ROM by guest-physical address; false when not all of it is there. */
bool vm_physical_read(struct vm *vm, uint64_t gpa, void *bytes, size_t len);
bool vm_physical_write(struct vm *vm, uint64_t gpa, const void *bytes, size_t len);
/* The guest-physical address of a linear one; false: not mapped. */
bool vm_debug_translate(struct vm *vm, const struct x86_state *state, uint64_t linear,
                        uint64_t *gpa);

#endif
