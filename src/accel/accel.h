/*
 * Accelerators: what executes guest instructions. KVM (kvm/), the software CPU engine (soft/), and
 * none (none/), which drives devices from unit tests without a guest.
 *
 * The local APIC belongs to the accelerator (KVM's split irqchip, or the software engine's own);
 * IOAPIC, PIC and PIT are always ours, in hw/chipset. Port and memory accesses that no RAM answers
 * come to the VM through `struct accel_io` callbacks on the vCPU's own thread, in the middle of the
 * instruction: a software engine cannot cheaply leave an instruction half done, and KVM's exits map
 * onto calls as well. vcpu_run returns only when the vCPU leaves guest mode for good reason.
 *
 * Devices never see this header; hw/core/env.h carries the few services that they may use.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_ACCEL_H
#define TENON_ACCEL_ACCEL_H

#include "accel/cpuid.h"
#include "accel/x86_state.h"
#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "gmem/gmem.h"

#define ACCEL_VCPUS_MAX 255
/* Interrupt routes (GSIs): the first 24 belong to the IOAPIC's pins. */
#define ACCEL_IOAPIC_PINS 24

/* How the VM answers the accelerator. All run on a vCPU thread; `opaque` is accel_vm_config.opaque.
 */
struct accel_io {
    /* Port access of 1, 2 or 4 bytes. A read of nothing returns all ones. */
    uint32_t (*pio_read)(void *opaque, uint16_t port, unsigned size);
    void (*pio_write)(void *opaque, uint16_t port, unsigned size, uint32_t value);
    /* Memory access of 1 to 8 bytes that is not RAM (also a write to ROM). */
    uint64_t (*mmio_read)(void *opaque, uint64_t gpa, unsigned size);
    void (*mmio_write)(void *opaque, uint64_t gpa, unsigned size, uint64_t value);
    /* INTA cycle: the vector of the PIC's pending interrupt, after accel_extint_set(true). */
    uint8_t (*extint_ack)(void *opaque);
    /* A level-triggered vector was ended by a LAPIC: for the IOAPIC's remote IRR. */
    void (*ioapic_eoi)(void *opaque, uint8_t vector);
};

enum vm_exit_reason {
    VM_EXIT_KICKED,   /* vcpu_kick: nothing happened, run again or stop */
    VM_EXIT_SHUTDOWN, /* triple fault: the board resets */
    VM_EXIT_DEBUG,    /* what a debugger waited for: `debug` says what */
    VM_EXIT_ERROR,    /* the engine cannot go on; `error` says why */
};

/* What came to pass: rip is at the INT3, at the point of ACCEL_DEBUG_EXEC, else behind it all. */
enum accel_debug_event { ACCEL_DEBUG_STEPPED, ACCEL_DEBUG_INT3, ACCEL_DEBUG_POINT };

struct vm_exit {
    enum vm_exit_reason reason;
    enum accel_debug_event debug; /* VM_EXIT_DEBUG */
    unsigned debug_point;         /* ACCEL_DEBUG_POINT: its index */
    char error[160];              /* VM_EXIT_ERROR: one sentence */
};

enum accel_debug_kind { ACCEL_DEBUG_EXEC, ACCEL_DEBUG_WRITE, ACCEL_DEBUG_ACCESS };

struct accel_debug_point {
    uint64_t linear;
    uint8_t size; /* of data: 1, 2, 4 or 8, `linear` aligned to it; 1 for ACCEL_DEBUG_EXEC */
    enum accel_debug_kind kind;
};

#define ACCEL_DEBUG_POINTS 4

/* What a debugger wants of one vCPU. The guest's own debug registers stay the guest's. */
struct accel_debug {
    bool on;   /* INT3 ends vcpu_run instead of going to the guest */
    bool pass; /* but the one that the vCPU stands at is the guest's own: it goes to the guest */
    bool step; /* one instruction, with interrupts held back where the engine can */
    unsigned count;
    struct accel_debug_point point[ACCEL_DEBUG_POINTS];
};

struct accel_vm_config {
    struct gmem *gmem;         /* borrowed; all RAM is there before the first vCPU runs */
    const struct accel_io *io; /* borrowed */
    void *opaque;
    unsigned vcpus;    /* 1..ACCEL_VCPUS_MAX; APIC IDs are 0..vcpus-1 */
    const char *debug; /* test modes of the engine; NULL: none */
    int kvm_fd;        /* kvm: an open /dev/kvm, borrowed; others -1 */
};

struct accel_vm;
struct accel_vcpu;

/* Counters of one vCPU, for reports. All count since creation. */
struct accel_stats {
    uint64_t instructions; /* 0 where the engine cannot know */
    uint64_t exits;        /* port, memory and halt exits together */
    uint64_t pio, mmio, halts, interrupts;
    uint64_t tlb_misses, translations, invalidations;
    uint64_t native;   /* blocks that became host code */
    uint64_t lockstep; /* instructions that were compared */
    uint64_t cpu_ns;   /* CPU time of the vCPU's thread, at its last exit from vcpu_run */
};

/* One table an engine. Every function is mandatory unless marked. */
struct accel_ops {
    const char *name; /* "kvm", "soft", "none" */
    bool aliases_ram; /* gmem_share before RAM is added */

    /* Before the sandbox: may open and map. */
    struct err *(*vm_create)(const struct accel_vm_config *config, struct accel_vm **vm);
    /* All vCPU threads have ended. NULL is fine. */
    void (*vm_free)(struct accel_vm *vm);
    /* Creates vCPU `index`, in its power-on state; index 0 is the BSP, the others wait for SIPI. */
    struct err *(*vcpu_create)(struct accel_vm *vm, unsigned index, struct accel_vcpu **vcpu);
    void (*vcpu_free)(struct accel_vcpu *vcpu);

    /* What this engine can execute: an upper bound for any CPU model. */
    struct err *(*cpuid_supported)(struct accel_vm *vm, struct cpuid_table *table);
    /* Before the first run. The table is copied. */
    struct err *(*vcpu_set_cpuid)(struct accel_vcpu *vcpu, const struct cpuid_table *table);
    /* Guest TSC frequency in kHz: the engine publishes it (kvmclock, CPUID) by itself. */
    uint32_t (*tsc_khz)(struct accel_vm *vm);

    /*
     * Runs guest code on the calling thread (always the same one for a vCPU) until an exit. A
     * halted vCPU, or an AP that waits for SIPI, sleeps inside.
     */
    void (*vcpu_run)(struct accel_vcpu *vcpu, struct vm_exit *exit);
    /* Any thread: vcpu_run returns VM_EXIT_KICKED in bounded time, now or at its next call. */
    void (*vcpu_kick)(struct accel_vcpu *vcpu);

    /* Architectural state; the vCPU is outside vcpu_run. Moves between engines. */
    struct err *(*vcpu_get)(struct accel_vcpu *vcpu, struct x86_state *state);
    struct err *(*vcpu_set)(struct accel_vcpu *vcpu, const struct x86_state *state);
    /* Back to the power-on state; the vCPU is outside vcpu_run. */
    void (*vcpu_reset)(struct accel_vcpu *vcpu);
    void (*vcpu_stats)(struct accel_vcpu *vcpu, struct accel_stats *stats);
    /* From the next vcpu_run on, until it is called again; the vCPU is outside vcpu_run. */
    struct err *(*vcpu_debug)(struct accel_vcpu *vcpu, const struct accel_debug *debug);

    /*
     * The regions of gmem changed: vCPUs are stopped. Or what a switched region shows did: then
     * also on a vCPU's thread in the middle of an access, for whose next one it counts; the other
     * vCPUs follow in bounded time.
     */
    struct err *(*ram_changed)(struct accel_vm *vm);
    /* Turns the engine's dirty log on or off; its bits go to gmem_dirty_set() on each fetch. */
    struct err *(*dirty_enable)(struct accel_vm *vm, bool on);
    struct err *(*dirty_fetch)(struct accel_vm *vm);

    /* Any thread: a message-signalled interrupt (Intel SDM vol. 3, 11.11). */
    void (*msi_send)(struct accel_vm *vm, uint64_t address, uint32_t data);
    /* Any thread: the PIC's INTR output, wired to LINT0 of the BSP. */
    void (*extint_set)(struct accel_vm *vm, bool level);
    /* Any thread: NMI to one vCPU. */
    void (*nmi)(struct accel_vcpu *vcpu);
    /*
     * Any thread: IOAPIC pin `pin` is programmed so. A split irqchip needs to know which vectors
     * are level-triggered, to report their EOI.
     */
    void (*ioapic_route)(struct accel_vm *vm, unsigned pin, uint64_t address, uint32_t data,
                         bool level, bool masked);

    /*
     * Any thread: a write of `size` bytes to `gpa` (size 0: any width) adds 1 to the eventfd
     * instead of coming as MMIO. With `match`, only a write of `value`.
     */
    struct err *(*doorbell_add)(struct accel_vm *vm, uint64_t gpa, unsigned size, bool match,
                                uint64_t value, int event_fd);
    void (*doorbell_remove)(struct accel_vm *vm, uint64_t gpa, unsigned size, bool match,
                            uint64_t value, int event_fd);
    /*
     * A GSI whose eventfd becomes an MSI without the VMM's help, for back ends in the kernel or in
     * other processes. `*gsi` is allocated by irqfd_add and freed by irqfd_remove.
     */
    struct err *(*irqfd_add)(struct accel_vm *vm, int event_fd, uint64_t address, uint32_t data,
                             unsigned *gsi);
    struct err *(*irqfd_route)(struct accel_vm *vm, unsigned gsi, uint64_t address, uint32_t data);
    void (*irqfd_remove)(struct accel_vm *vm, unsigned gsi, int event_fd);

    /* Appends lines such as "SCMP_SYS(ioctl)" needs: engine-specific system calls for the sandbox.
     */
    const int *syscalls; /* zero-terminated list of extra system call numbers; may be NULL */
};

extern const struct accel_ops accel_kvm;
extern const struct accel_ops accel_soft;
extern const struct accel_ops accel_none;

/* What the host offers; for --accel auto and for `tenon doctor`. */
enum accel_kvm_verdict {
    ACCEL_KVM_USABLE,
    ACCEL_KVM_MISSING,  /* no /dev/kvm */
    ACCEL_KVM_DENIED,   /* no permission on /dev/kvm */
    ACCEL_KVM_SOFTWARE, /* /dev/kvm answers, but the CPU has neither vmx nor svm */
    ACCEL_KVM_UNFIT,    /* too old, or lacks a capability that we need */
};

struct accel_kvm_probe {
    enum accel_kvm_verdict verdict;
    int api_version;
    char why[200];    /* one sentence: what was found */
    char advice[200]; /* one sentence: what to do about it; empty when usable */
};

/* Looks at /dev/kvm and /proc/cpuinfo; opens and closes, keeps nothing. */
void accel_kvm_probe(struct accel_kvm_probe *probe);

#endif
