/*
 * The run loop, and the vCPU's state as a whole.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_RUN_H
#define TENON_ACCEL_SOFT_RUN_H

#include "accel/soft/interp/exec.h"

void soft_vcpu_run(struct accel_vcpu *vcpu, struct vm_exit *exit);

/* debug.c: must the next instruction run alone? And that: then the debug traps that it earned. */
bool soft_wants_step(const struct soft_vcpu *v);
void soft_step(struct soft_vcpu *v, bool after_mov_ss);

/* state.c */
struct err *soft_vcpu_get(struct accel_vcpu *vcpu, struct x86_state *state);
struct err *soft_vcpu_set(struct accel_vcpu *vcpu, const struct x86_state *state);
void soft_vcpu_reset(struct accel_vcpu *vcpu);
/* Power-on state, or what INIT leaves of it: TSC, x87 and SSE, MTRRs and the APIC base stay. */
void soft_reset_cpu(struct soft_vcpu *v, bool init);

/* doorbell.c: doorbells, and irqfds behind one poll thread. */
struct err *soft_doorbell_add(struct accel_vm *vm, uint64_t gpa, unsigned size, bool match,
                              uint64_t value, int event_fd);
void soft_doorbell_remove(struct accel_vm *vm, uint64_t gpa, unsigned size, bool match,
                          uint64_t value, int event_fd);
void soft_doorbells_free(struct soft_vm *vm);
struct err *soft_irqfd_add(struct accel_vm *vm, int event_fd, uint64_t address, uint32_t data,
                           unsigned *gsi);
struct err *soft_irqfd_route(struct accel_vm *vm, unsigned gsi, uint64_t address, uint32_t data);
void soft_irqfd_remove(struct accel_vm *vm, unsigned gsi, int event_fd);
void soft_irqfds_free(struct soft_vm *vm);

#endif
