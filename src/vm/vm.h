/*
 * A running VM: board, vCPU threads, life cycle. Two VMs in one process work.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_VM_VM_H
#define TENON_VM_VM_H

#include "accel/accel.h"
#include "base/base.h"
#include "base/err.h"
#include "loop/loop.h"
#include "vm/config.h"
#include "vm/timeline.h"

struct vm;

enum vm_end {
    VM_END_POWEROFF, /* the guest switched itself off */
    VM_END_RESET,    /* the guest reset and the config says not to reboot */
    VM_END_EXIT,     /* debug-exit device; status is the guest's byte */
    VM_END_QUIT,     /* vm_quit */
    VM_END_CRASH,    /* triple fault without reboot, or the engine gave up */
};

struct vm_result {
    enum vm_end end;
    unsigned status; /* VM_END_EXIT */
    char reason[200];
};

/*
 * Builds everything and loads the kernel: memory, accelerator, board, devices. Takes the
 * descriptors out of `config` (sets them to -1), all but control_fd; `config` and `timeline` are
 * borrowed until vm_free. VM_ACCEL_AUTO takes KVM if kvm_fd is open and the hardware has it. `loop`
 * is the control loop, which the caller runs. Nothing runs in the guest yet: the caller enters its
 * sandbox between this and vm_start.
 */
struct err *vm_new(struct vm_config *config, struct loop *loop, struct timeline *timeline,
                   struct vm **vm);
/*
 * Starts the vCPU threads and the I/O thread. `ended` runs once on the control loop, when the vCPUs
 * and the devices have stopped; it may call vm_free.
 */
struct err *vm_start(struct vm *vm, void (*ended)(void *opaque, const struct vm_result *result),
                     void *opaque);
/* Before vm_start: the guest's first instruction waits for vm_resume(). */
void vm_start_paused(struct vm *vm);
/*
 * A disk with on-error stop could not be read or written: the vCPUs have been stopped, the request
 * waits, and vm_resume() tries it again. `fn` runs on the control loop. Before vm_start.
 */
void vm_on_disk_error(struct vm *vm,
                      void (*fn)(void *opaque, const char *disk, bool write, int error),
                      void *opaque);
/* Runs `fn` on the control loop after each reset of the machine, the guest's own and vm_reset()'s.
 * Before vm_start. */
void vm_on_reset(struct vm *vm, void (*fn)(void *opaque, bool by_guest), void *opaque);
/* Runs `fn` on the control loop when firmware finds nothing to boot. Before vm_start. */
void vm_on_boot_failed(struct vm *vm, void (*fn)(void *opaque), void *opaque);
/* Presses the reset button: what the config says to a reset happens. Any thread. */
void vm_reset(struct vm *vm);
/* Sends a non-maskable interrupt to every CPU. Any thread. */
void vm_nmi(struct vm *vm);
/* Presses the ACPI power button. Any thread. */
void vm_powerdown(struct vm *vm);
/* Ends the guest now. Any thread. */
void vm_quit(struct vm *vm);
/* Stops the vCPUs and quiesces devices; and back. On the control loop. */
void vm_pause(struct vm *vm);
void vm_resume(struct vm *vm);
/* Sum over vCPUs, and the engine's name. */
void vm_stats(struct vm *vm, struct accel_stats *stats);
const char *vm_accel_name(const struct vm *vm);
/* The engine, for the system calls that its sandbox needs. */
const struct accel_ops *vm_accel(const struct vm *vm);
/* How the kernel is started: "Linux, 64-bit entry", "PVH". */
const char *vm_boot_protocol(const struct vm *vm);
bool vm_is_paused(const struct vm *vm);
/* Ends the vCPU threads and frees all. On the control loop, or when it runs no more. NULL is fine.
 */
void vm_free(struct vm *vm);

/*
 * The whole machine's state: RAM is not included (snapshots add it). The VM is paused, or not
 * started, and has no TPM. vm_load wants a VM of the same configuration; after an error it must not
 * run.
 */
struct err *vm_save(struct vm *vm, struct state_writer *writer);
struct err *vm_load(struct vm *vm, struct state_reader *reader);

#endif
