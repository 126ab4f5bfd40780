/*
 * What a VM is made of, for who looks at it from outside (QMP). On the control loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_VM_VM_LOOK_H
#define TENON_VM_VM_LOOK_H

#include "vm/vm.h"

/* Borrowed, as given to vm_new; its descriptors are gone. */
const struct vm_config *vm_look_config(const struct vm *vm);
/* The kernel's id of the vCPU's thread; 0 until it runs. */
int vm_look_thread(const struct vm *vm, unsigned cpu);

/* The engine's counters of one vCPU. */
void vm_look_cpu_stats(const struct vm *vm, unsigned cpu, struct accel_stats *stats);

/* Frames and bytes of a network, as the guest counts them: tx is what it sent. */
struct vm_net_stats {
    uint64_t tx_frames, tx_bytes, rx_frames, rx_bytes, dropped;
};
void vm_look_net_stats(const struct vm *vm, unsigned net, struct vm_net_stats *stats);

/* One queue of a virtio device. */
struct vm_queue_stats {
    const char *id; /* of the device, "d0"; borrowed */
    unsigned queue;
    uint64_t kicks, requests, interrupts;
};
/* Each queue that was ever used. */
void vm_look_queues(struct vm *vm, void (*each)(void *opaque, const struct vm_queue_stats *stats),
                    void *opaque);

struct vm_pci_bar {
    unsigned index;
    bool io, prefetchable, wide; /* port space; 64-bit address */
    uint64_t address, size;
};

struct vm_pci_function {
    uint8_t devfn;
    uint16_t vendor, device, class_code, subsystem_vendor, subsystem;
    uint8_t irq_pin, irq_line;
    const char *id; /* "d0"; borrowed */
    struct vm_pci_bar bar[6];
    unsigned bars;
};

/* The function at `devfn` of bus 0; false: none is. */
bool vm_look_pci(struct vm *vm, uint8_t devfn, struct vm_pci_function *function);

#endif
