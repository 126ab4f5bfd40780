/*
 * The engine "none": vCPUs that hold state and never run an instruction. It drives devices and the
 * machine's life cycle from unit tests, without a guest.
 *
 * The lock (LOCK_ACCEL) covers the kicks; the state of a vCPU belongs to whoever may call
 * vcpu_get and vcpu_set.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "accel/accel.h"
#include "base/lock.h"

#define NONE_TSC_KHZ 1000000u

struct accel_vm {
    unsigned vcpus;
};

struct accel_vcpu {
    unsigned index;
    struct x86_state state;
    struct lock lock;
    pthread_cond_t changed;
    bool kicked;
};

static struct err *none_vm_create(const struct accel_vm_config *config, struct accel_vm **vm)
{
    *vm = xcalloc(1, sizeof(**vm));
    (*vm)->vcpus = config->vcpus;
    return NULL;
}

static void none_vm_free(struct accel_vm *vm)
{
    free(vm);
}

static void none_vcpu_reset(struct accel_vcpu *vcpu)
{
    memset(&vcpu->state, 0, sizeof(vcpu->state));
    x86_state_reset(&vcpu->state, vcpu->index, !vcpu->index);
}

static struct err *none_vcpu_create(struct accel_vm *vm, unsigned index, struct accel_vcpu **result)
{
    if (index >= vm->vcpus)
        return err_new("none: no vCPU %u to create", index);
    struct accel_vcpu *vcpu = xcalloc(1, sizeof(*vcpu));
    vcpu->index = index;
    lock_init(&vcpu->lock, LOCK_ACCEL);
    pthread_cond_init(&vcpu->changed, NULL);
    none_vcpu_reset(vcpu);
    *result = vcpu;
    return NULL;
}

static void none_vcpu_free(struct accel_vcpu *vcpu)
{
    if (!vcpu)
        return;
    pthread_cond_destroy(&vcpu->changed);
    lock_fini(&vcpu->lock);
    free(vcpu);
}

/* A plain 64-bit processor: what CPU models need to be built at all. */
static struct err *none_cpuid_supported(struct accel_vm *vm, struct cpuid_table *table)
{
    static const struct cpuid_entry entries[] = {
        {.leaf = 0, .eax = 0x7, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69},
        {.leaf = 1, .eax = 0x306a9, .ecx = 0x80a02201, .edx = 0x0f8bfbff},
        {.leaf = 7},
        {.leaf = 0x80000000, .eax = 0x80000008},
        {.leaf = 0x80000001, .ecx = 1, .edx = 0x20100800},
        {.leaf = 0x80000008, .eax = 0x3028},
    };

    (void)vm;
    memset(table, 0, sizeof(*table));
    for (size_t i = 0; i < ARRAY_SIZE(entries); i++)
        cpuid_put(table, &entries[i]);
    return NULL;
}

static struct err *none_vcpu_set_cpuid(struct accel_vcpu *vcpu, const struct cpuid_table *table)
{
    (void)vcpu;
    (void)table;
    return NULL;
}

static uint32_t none_tsc_khz(struct accel_vm *vm)
{
    (void)vm;
    return NONE_TSC_KHZ;
}

static void none_vcpu_run(struct accel_vcpu *vcpu, struct vm_exit *exit)
{
    lock_take(&vcpu->lock);
    while (!vcpu->kicked)
        pthread_cond_wait(&vcpu->changed, &vcpu->lock.mutex);
    vcpu->kicked = false;
    lock_drop(&vcpu->lock);
    exit->reason = VM_EXIT_KICKED;
}

static void none_vcpu_kick(struct accel_vcpu *vcpu)
{
    lock_take(&vcpu->lock);
    vcpu->kicked = true;
    pthread_cond_signal(&vcpu->changed);
    lock_drop(&vcpu->lock);
}

static struct err *none_vcpu_get(struct accel_vcpu *vcpu, struct x86_state *state)
{
    *state = vcpu->state;
    return NULL;
}

static struct err *none_vcpu_set(struct accel_vcpu *vcpu, const struct x86_state *state)
{
    vcpu->state = *state;
    return NULL;
}

static void none_vcpu_stats(struct accel_vcpu *vcpu, struct accel_stats *stats)
{
    (void)vcpu;
    memset(stats, 0, sizeof(*stats));
}

static struct err *none_ram_changed(struct accel_vm *vm)
{
    (void)vm;
    return NULL;
}

static struct err *none_dirty_enable(struct accel_vm *vm, bool on)
{
    (void)vm;
    (void)on;
    return NULL;
}

/* Interrupts reach nobody, because nobody runs. */
static void none_msi_send(struct accel_vm *vm, uint64_t address, uint32_t data)
{
    (void)vm;
    (void)address;
    (void)data;
}

static void none_extint_set(struct accel_vm *vm, bool level)
{
    (void)vm;
    (void)level;
}

static void none_nmi(struct accel_vcpu *vcpu)
{
    (void)vcpu;
}

static void none_ioapic_route(struct accel_vm *vm, unsigned pin, uint64_t address, uint32_t data,
                              bool level, bool masked)
{
}

/* Devices take the path of an emulated register write instead. */
static struct err *none_doorbell_add(struct accel_vm *vm, uint64_t gpa, unsigned size, bool match,
                                     uint64_t value, int event_fd)
{
    return err_errno(ENOTSUP, "none: doorbells");
}

static void none_doorbell_remove(struct accel_vm *vm, uint64_t gpa, unsigned size, bool match,
                                 uint64_t value, int event_fd)
{
}

static struct err *none_irqfd_add(struct accel_vm *vm, int event_fd, uint64_t address,
                                  uint32_t data, unsigned *gsi)
{
    return err_errno(ENOTSUP, "none: irqfd");
}

static struct err *none_irqfd_route(struct accel_vm *vm, unsigned gsi, uint64_t address,
                                    uint32_t data)
{
    return err_errno(ENOTSUP, "none: irqfd");
}

static void none_irqfd_remove(struct accel_vm *vm, unsigned gsi, int event_fd)
{
}

const struct accel_ops accel_none = {
    .name = "none",
    .vm_create = none_vm_create,
    .vm_free = none_vm_free,
    .vcpu_create = none_vcpu_create,
    .vcpu_free = none_vcpu_free,
    .cpuid_supported = none_cpuid_supported,
    .vcpu_set_cpuid = none_vcpu_set_cpuid,
    .tsc_khz = none_tsc_khz,
    .vcpu_run = none_vcpu_run,
    .vcpu_kick = none_vcpu_kick,
    .vcpu_get = none_vcpu_get,
    .vcpu_set = none_vcpu_set,
    .vcpu_reset = none_vcpu_reset,
    .vcpu_stats = none_vcpu_stats,
    .ram_changed = none_ram_changed,
    .dirty_enable = none_dirty_enable,
    .dirty_fetch = none_ram_changed,
    .msi_send = none_msi_send,
    .extint_set = none_extint_set,
    .nmi = none_nmi,
    .ioapic_route = none_ioapic_route,
    .doorbell_add = none_doorbell_add,
    .doorbell_remove = none_doorbell_remove,
    .irqfd_add = none_irqfd_add,
    .irqfd_route = none_irqfd_route,
    .irqfd_remove = none_irqfd_remove,
};
