/*
 * A running VM, inside: what the files vm*.c share.
 *
 * Threads. The control loop belongs to the caller: building, events, pause, reset, the end. One
 * thread a vCPU runs guest code and calls device registers. One I/O thread serves disks and nets.
 * `lock` (LOCK_VM) and the two conditions govern who may run; whatever a device may call while it
 * holds its own lock (power events) uses `event_lock`, a leaf.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_VM_VM_INTERNAL_H
#define TENON_VM_VM_INTERNAL_H

#include <pthread.h>

#include "base/lock.h"
#include "vm/board.h"
#include "vm/boot_watch.h"
#include "vm/vm.h"
#include "vm/vm_debug.h"

/* What makes the control loop act. */
enum vm_event {
    VM_EVENT_NONE, /* raised: memory waits to be settled */
    VM_EVENT_OFF,
    VM_EVENT_RESET,
    VM_EVENT_RESET_BUTTON, /* from outside */
    VM_EVENT_SLEEP,
    VM_EVENT_WAKE,
    VM_EVENT_TRIPLE_FAULT,
    VM_EVENT_EXIT,
    VM_EVENT_DEBUG, /* what a debugger waited for; the status is the CPU */
    VM_EVENT_ERROR, /* the engine gave up */
    VM_EVENT_QUIT,
};

struct vm_cpu {
    struct vm *vm;
    unsigned index;
    struct accel_vcpu *vcpu;
    pthread_t thread;
    bool thread_started;
    int tid;                   /* the kernel's; atomic */
    bool held;                 /* a debugger lets it stand while others run; under the VM's lock */
    struct vm_exit debug_exit; /* the last VM_EXIT_DEBUG */
};

/* The debugger that is attached; control loop. */
struct vm_debug {
    void (*stopped)(void *opaque, const struct vm_debug_stop *stop); /* NULL: none is */
    void *opaque;
    struct accel_debug_point point[ACCEL_DEBUG_POINTS];
    unsigned count;
};

struct block_job;
/* vm_disk.c: a job on a disk. */
struct vm_disk_job {
    struct vm *vm;
    unsigned disk;
    struct block_job *job; /* NULL: none */
    void (*changed)(void *opaque, unsigned disk);
    void *opaque;
    bool waits; /* it has changed while an error held the VM; told when that is over */
};

/* A request of a disk that is held back (block_on_error). */
/* The guest moves the tray of an optical drive: what is posted to the control loop. */
struct vm_tray {
    struct vm *vm;
    unsigned disk;
    bool open; /* atomic */
};

struct vm_disk_error {
    struct vm *vm;
    unsigned disk;
    bool write; /* of the last one; atomic, like `error` */
    int error;
};

struct vm {
    struct vm_config *config;  /* borrowed */
    struct loop *loop;         /* control loop, borrowed */
    struct timeline *timeline; /* borrowed; may be NULL */
    int kernel_fd, initrd_fd, kvm_fd;

    const struct accel_ops *accel;
    struct accel_vm *accel_vm;
    struct gmem *gmem;
    struct io_bus *pio, *mmio;
    struct hw_env env;
    struct board board;
    struct boot_result boot;
    struct loop *io_loop;
    struct loop_thread *io_thread;
    struct vm_cpu *cpu;
    unsigned cpu_count; /* created so far */

    struct lock lock;
    pthread_cond_t park_changed; /* a vCPU thread parked */
    pthread_cond_t run_changed;  /* vCPU threads may go on, or must end */
    bool stop;                   /* vCPU threads shall park; atomic, cleared under `lock` */
    bool quit;                   /* vCPU threads shall end */
    unsigned threads, parked;

    struct lock event_lock; /* LOCK_LEAF: the next three */
    enum vm_event event;
    unsigned event_status;
    char event_text[160];
    int event_fd; /* wakes the control loop */
    struct loop_fd event_watch;

    /* Control loop only. */
    bool started; /* atomic: devices look at it */
    bool paused, finished;
    struct vm_disk_job disk_job[VM_DISKS_MAX];
    struct vm_disk_error disk_error[VM_DISKS_MAX];
    bool held; /* paused by a disk's error: the devices are not quiesced, requests are held back */
    void (*disk_failed)(void *opaque, const char *disk, bool write, int error);
    void *disk_failed_opaque;
    struct vm_tray tray[VM_DISKS_MAX];
    void (*tray_moved)(void *opaque, const char *disk, bool open);
    void *tray_moved_opaque;
    void (*was_reset)(void *opaque, bool by_guest);
    void *was_reset_opaque;
    void (*boot_failed)(void *opaque);
    void *boot_failed_opaque;
    struct boot_watch boot_watch;
    struct vm_debug debug;
    bool asleep; /* S3: no vCPU runs until the board wakes */
    void (*ended)(void *opaque, const struct vm_result *result);
    void *ended_opaque;
};

/* vm_io.c */
extern const struct accel_io vm_accel_io;
extern const struct hw_env_ops vm_env_ops;
void vm_wire_board(struct vm *vm, struct board_wiring *wiring);

/* vm_cpu.c */
/* The vCPUs with their CPUID; *phys_bits is how wide guest-physical addresses are. */
struct err *vm_cpus_create(struct vm *vm, struct cpuid_table *supported);
struct err *vm_cpuid_supported(struct vm *vm, struct cpuid_table *table, unsigned *phys_bits);
/* All vCPUs to power-on state, the kernel loaded, the first vCPU at its entry. */
struct err *vm_cpus_reset(struct vm *vm);
/* The same out of S3: no kernel is loaded, the first vCPU begins at the guest's waking vector. */
struct err *vm_cpus_wake(struct vm *vm, uint32_t vector);
struct err *vm_cpus_start(struct vm *vm);
/* Returns when every vCPU thread is outside the guest. */
void vm_cpus_stop(struct vm *vm);
void vm_cpus_go(struct vm *vm);
/* Ends and joins the threads. */
void vm_cpus_end(struct vm *vm);
void vm_cpus_free(struct vm *vm);

/* vm_debug.c: VM_EVENT_DEBUG of this CPU. */
void vm_debug_event(struct vm *vm, unsigned cpu);

/* vm_disk.c: listens to errors of disks that are to stop the VM. */
void vm_disks_init(struct vm *vm);
/* ... and goes on after one. */
void vm_disks_retry(struct vm *vm);
/* vm_disk.c: ends all jobs; the I/O thread has ended. */
void vm_disks_fini(struct vm *vm);

/*
 * vm_event.c. Any thread, device locks may be held: takes the vCPUs out of the guest and lets the
 * control loop act. The first event counts, but VM_EVENT_QUIT always does.
 */
void vm_raise(struct vm *vm, enum vm_event event, unsigned status, const char *text);
/* Drops this event if it waits to be served. */
void vm_event_forget(struct vm *vm, enum vm_event event);
/* No vCPU runs: memory that the guest has moved goes to its place. */
struct err *vm_memory_settle(struct vm *vm);
struct err *vm_events_init(struct vm *vm);
void vm_events_fini(struct vm *vm);

#endif
