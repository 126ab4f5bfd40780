/*
 * The structures of the engine without a guest, and its doorbell and irqfd tables.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_NONE_TABLE_H
#define TENON_ACCEL_NONE_TABLE_H

#include <pthread.h>

#include "accel/none/none.h"

#define NONE_MSIS 1024
#define NONE_DOORBELLS 256
#define NONE_IRQFDS 256

struct none_doorbell {
    uint64_t gpa, value;
    unsigned size;
    bool match, used;
    int fd;
};

struct none_irqfd {
    int fd;
    bool used;
    struct none_msi msi;
};

struct none_vm {
    struct accel_vm_config config;
    pthread_mutex_t mutex; /* all below, and the vCPUs' requests */
    pthread_cond_t changed;
    struct none_msi msi[NONE_MSIS];
    size_t msi_first, msi_count;
    struct none_doorbell doorbells[NONE_DOORBELLS];
    struct none_irqfd irqfds[NONE_IRQFDS];
    struct none_route routes[ACCEL_IOAPIC_PINS];
    bool extint;
};

struct none_vcpu {
    struct none_vm *vm;
    unsigned index;
    struct x86_state state;
    struct cpuid_table cpuid;
    struct accel_stats stats;
    bool kicked, exit_wanted;
    struct vm_exit exit;
    void (*call)(void *opaque);
    void *call_opaque;
    unsigned nmis;
};

struct err *none_doorbell_add(struct accel_vm *vm, uint64_t gpa, unsigned size, bool match,
                              uint64_t value, int event_fd);
void none_doorbell_remove(struct accel_vm *vm, uint64_t gpa, unsigned size, bool match,
                          uint64_t value, int event_fd);
/* Rings every doorbell that the write matches; false when there is none. */
bool none_doorbell_ring(struct none_vm *vm, uint64_t gpa, unsigned size, uint64_t value);

struct err *none_irqfd_add(struct accel_vm *vm, int event_fd, uint64_t address, uint32_t data,
                           unsigned *gsi);
struct err *none_irqfd_route(struct accel_vm *vm, unsigned gsi, uint64_t address, uint32_t data);
void none_irqfd_remove(struct accel_vm *vm, unsigned gsi, int event_fd);

#endif
