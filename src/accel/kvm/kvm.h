/*
 * The KVM engine, inside: what its files share. Linux Documentation/virt/kvm/api.rst.
 *
 *   vm.c      capabilities, the VM descriptor, the table of operations
 *   memory.c  memory slots, dirty log and dirty ring
 *   irq.c     interrupt routes, MSI, irqfd, ioeventfd
 *   vcpu.c    the run loop and its exits, kicks, reset
 *   regs.c    registers to and from struct x86_state
 *   msrs.c    model-specific registers, likewise
 *   debug.c   breakpoints and steps of a debugger outside the guest
 *   cpuid.c   CPUID tables to and from KVM's form
 *
 * Threads: each vCPU has one; everything else comes from the control loop or device threads. What
 * vCPU threads share with others is atomic or under a lock named beside it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_KVM_KVM_H
#define TENON_ACCEL_KVM_KVM_H

#include <linux/kvm.h>
#include <sys/types.h>

#include "accel/accel.h"
#include "base/lock.h"

/* More regions than any board has; each is one KVM memory slot. */
#define KVM_SLOTS_MAX 64
/* Interrupt routes: the IOAPIC's pins, then what irqfd_add hands out. */
#define KVM_GSIS_MAX 1024
/* Entries of a dirty ring. KVM keeps up to 576 back as a reserve for the hardware's own buffer. */
#define KVM_RING_ENTRIES 4096u

struct kvm_slot {
    uint64_t gpa, size; /* size 0: the slot is free */
    const uint8_t *host;
    bool readonly;
    bool logged; /* KVM_MEM_LOG_DIRTY_PAGES is on */
};

struct kvm_route {
    bool used; /* the GSI is taken */
    bool programmed;
    uint64_t address;
    uint32_t data;
};

struct accel_vm {
    int kvm_fd; /* borrowed */
    int fd;
    struct gmem *gmem;         /* borrowed */
    const struct accel_io *io; /* borrowed */
    void *opaque;
    unsigned vcpu_limit;
    size_t run_size;     /* bytes of struct kvm_run's mapping */
    bool any_width;      /* ioeventfds may match a write of any size */
    bool ring;           /* dirty pages come in rings, not in bitmaps */
    bool manual_protect; /* the bitmap is cleared by a call of its own */

    struct lock memory_lock; /* slots, logging, the user's side of the rings */
    struct kvm_slot slots[KVM_SLOTS_MAX];
    bool logging;

    struct lock route_lock; /* routes */
    struct kvm_route routes[KVM_GSIS_MAX];

    bool extint; /* atomic: the PIC asserts INTR */

    /* Filled by vcpu_create on the control thread before anybody else looks. */
    struct accel_vcpu *vcpus[ACCEL_VCPUS_MAX];
};

struct accel_vcpu {
    struct accel_vm *vm;
    unsigned index;
    int fd;
    struct kvm_run *run;
    struct kvm_dirty_gfn *ring; /* NULL without */
    uint32_t ring_next;         /* under memory_lock */

    /* Atomic. `thread` is the kernel's id of the thread inside vcpu_run, 0 outside. */
    pid_t thread;
    bool kicked;

    /* Only of the vCPU's own thread. */
    bool thread_ready;        /* the kick signal is unblocked on it */
    bool half_done;           /* an instruction waits for KVM_RUN to finish it */
    struct accel_stats stats; /* written relaxed-atomically, for readers on other threads */
};

/* ioctl that returns a negative errno, and begins again when a signal cut it short. */
int kvm_call(int fd, unsigned long request, void *argument);
/* The same for those that take a number. */
int kvm_call_number(int fd, unsigned long request, unsigned long number);

/* memory.c */
struct err *kvm_memory_update(struct accel_vm *vm);
struct err *kvm_dirty_enable(struct accel_vm *vm, bool on);
struct err *kvm_dirty_fetch(struct accel_vm *vm);

/* irq.c */
struct err *kvm_irq_init(struct accel_vm *vm);
void kvm_irq_fini(struct accel_vm *vm);
void kvm_msi_send(struct accel_vm *vm, uint64_t address, uint32_t data);
void kvm_nmi(struct accel_vcpu *vcpu);
void kvm_ioapic_route(struct accel_vm *vm, unsigned pin, uint64_t address, uint32_t data,
                      bool level, bool masked);
struct err *kvm_doorbell_add(struct accel_vm *vm, uint64_t gpa, unsigned size, bool match,
                             uint64_t value, int event_fd);
void kvm_doorbell_remove(struct accel_vm *vm, uint64_t gpa, unsigned size, bool match,
                         uint64_t value, int event_fd);
struct err *kvm_irqfd_add(struct accel_vm *vm, int event_fd, uint64_t address, uint32_t data,
                          unsigned *gsi);
struct err *kvm_irqfd_route(struct accel_vm *vm, unsigned gsi, uint64_t address, uint32_t data);
void kvm_irqfd_remove(struct accel_vm *vm, unsigned gsi, int event_fd);

/* debug.c */
struct err *kvm_vcpu_debug(struct accel_vcpu *vcpu, const struct accel_debug *debug);
void kvm_debug_exit(struct accel_vcpu *vcpu, struct vm_exit *exit);

/* vcpu.c */
struct err *kvm_vcpu_create(struct accel_vm *vm, unsigned index, struct accel_vcpu **vcpu);
void kvm_vcpu_free(struct accel_vcpu *vcpu);
void kvm_vcpu_run(struct accel_vcpu *vcpu, struct vm_exit *exit);
void kvm_vcpu_kick(struct accel_vcpu *vcpu);
/* Makes the vCPU look at the VM's flags again, without leaving vcpu_run. Any thread. */
void kvm_vcpu_wake(struct accel_vcpu *vcpu);
void kvm_vcpu_reset(struct accel_vcpu *vcpu);
void kvm_vcpu_stats(struct accel_vcpu *vcpu, struct accel_stats *stats);

/* regs.c */
struct err *kvm_vcpu_get(struct accel_vcpu *vcpu, struct x86_state *state);
struct err *kvm_vcpu_set(struct accel_vcpu *vcpu, const struct x86_state *state);

/* msrs.c */
struct err *kvm_msrs_get(struct accel_vcpu *vcpu, struct x86_msrs *msrs);
/* All but the TSC deadline, which arms a timer of the LAPIC and so goes after the LAPIC. */
struct err *kvm_msrs_set(struct accel_vcpu *vcpu, const struct x86_msrs *msrs);
struct err *kvm_msrs_set_deadline(struct accel_vcpu *vcpu, const struct x86_msrs *msrs);

/* cpuid.c */
struct err *kvm_cpuid_supported(struct accel_vm *vm, struct cpuid_table *table);
struct err *kvm_vcpu_set_cpuid(struct accel_vcpu *vcpu, const struct cpuid_table *table);

#endif
