/*
 * The engine without a guest: see none.h. One lock covers a VM; callbacks are made without it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/none/none.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "accel/none/none_table.h"

static struct none_vm *vm_of(struct accel_vm *vm)
{
    return (struct none_vm *)vm;
}

static struct none_vcpu *vcpu_of(struct accel_vcpu *vcpu)
{
    return (struct none_vcpu *)vcpu;
}

/* ---- engine ---- */

static struct err *none_vm_create(const struct accel_vm_config *config, struct accel_vm **result)
{
    if (config->vcpus < 1 || config->vcpus > ACCEL_VCPUS_MAX)
        return err_of(ERR_USAGE, "%u vCPUs: 1 to %u are possible", config->vcpus, ACCEL_VCPUS_MAX);
    struct none_vm *vm = xcalloc(1, sizeof(*vm));
    vm->config = *config;
    pthread_mutex_init(&vm->mutex, NULL);
    pthread_cond_init(&vm->changed, NULL);
    for (unsigned i = 0; i < ACCEL_IOAPIC_PINS; i++)
        vm->routes[i].masked = true;
    *result = (struct accel_vm *)vm;
    return NULL;
}

static void none_vm_free(struct accel_vm *accel)
{
    struct none_vm *vm = vm_of(accel);
    if (!vm)
        return;
    pthread_cond_destroy(&vm->changed);
    pthread_mutex_destroy(&vm->mutex);
    free(vm);
}

static struct err *none_vcpu_create(struct accel_vm *accel, unsigned index,
                                    struct accel_vcpu **result)
{
    struct none_vm *vm = vm_of(accel);
    if (index >= vm->config.vcpus)
        return err_new("vCPU %u of %u does not exist", index, vm->config.vcpus);
    struct none_vcpu *vcpu = xcalloc(1, sizeof(*vcpu));
    vcpu->vm = vm;
    vcpu->index = index;
    x86_state_reset(&vcpu->state, index, index == 0);
    *result = (struct accel_vcpu *)vcpu;
    return NULL;
}

static void none_vcpu_free(struct accel_vcpu *accel)
{
    free(accel);
}

static struct err *none_vcpu_set_cpuid(struct accel_vcpu *accel, const struct cpuid_table *table)
{
    vcpu_of(accel)->cpuid = *table;
    return NULL;
}

static uint32_t none_tsc_khz(struct accel_vm *vm)
{
    return 1000000;
}

static void none_vcpu_run(struct accel_vcpu *accel, struct vm_exit *exit)
{
    struct none_vcpu *vcpu = vcpu_of(accel);
    struct none_vm *vm = vcpu->vm;
    memset(exit, 0, sizeof(*exit));
    exit->reason = VM_EXIT_KICKED;
    pthread_mutex_lock(&vm->mutex);
    for (;;) {
        if (vcpu->call) {
            void (*fn)(void *) = vcpu->call;
            pthread_mutex_unlock(&vm->mutex);
            fn(vcpu->call_opaque);
            pthread_mutex_lock(&vm->mutex);
            vcpu->call = NULL;
            pthread_cond_broadcast(&vm->changed);
        } else if (vcpu->exit_wanted) {
            vcpu->exit_wanted = false;
            *exit = vcpu->exit;
            break;
        } else if (vcpu->kicked) {
            vcpu->kicked = false;
            break;
        } else {
            pthread_cond_wait(&vm->changed, &vm->mutex);
        }
    }
    vcpu->stats.exits++;
    pthread_mutex_unlock(&vm->mutex);
}

static void none_vcpu_kick(struct accel_vcpu *accel)
{
    struct none_vcpu *vcpu = vcpu_of(accel);
    pthread_mutex_lock(&vcpu->vm->mutex);
    vcpu->kicked = true;
    pthread_cond_broadcast(&vcpu->vm->changed);
    pthread_mutex_unlock(&vcpu->vm->mutex);
}

static struct err *none_vcpu_get(struct accel_vcpu *accel, struct x86_state *state)
{
    *state = vcpu_of(accel)->state;
    return NULL;
}

static struct err *none_vcpu_set(struct accel_vcpu *accel, const struct x86_state *state)
{
    vcpu_of(accel)->state = *state;
    return NULL;
}

static void none_vcpu_reset(struct accel_vcpu *accel)
{
    struct none_vcpu *vcpu = vcpu_of(accel);
    x86_state_reset(&vcpu->state, vcpu->index, vcpu->index == 0);
}

static struct err *none_vcpu_debug(struct accel_vcpu *accel, const struct accel_debug *debug)
{
    return err_new("an engine that runs no guest has nothing to debug");
}

static void none_vcpu_stats(struct accel_vcpu *accel, struct accel_stats *stats)
{
    struct none_vcpu *vcpu = vcpu_of(accel);
    pthread_mutex_lock(&vcpu->vm->mutex);
    *stats = vcpu->stats;
    pthread_mutex_unlock(&vcpu->vm->mutex);
}

/* There is nothing that caches memory, and nothing that writes it behind gmem's back. */
static struct err *none_ram_changed(struct accel_vm *vm)
{
    return NULL;
}

static struct err *none_dirty_enable(struct accel_vm *vm, bool on)
{
    return NULL;
}

static struct err *none_dirty_fetch(struct accel_vm *vm)
{
    return NULL;
}

static void none_msi_send(struct accel_vm *accel, uint64_t address, uint32_t data)
{
    struct none_vm *vm = vm_of(accel);
    pthread_mutex_lock(&vm->mutex);
    if (vm->msi_count < NONE_MSIS)
        vm->msi[(vm->msi_first + vm->msi_count++) % NONE_MSIS] = (struct none_msi){address, data};
    pthread_mutex_unlock(&vm->mutex);
}

static void none_extint_set(struct accel_vm *accel, bool level)
{
    __atomic_store_n(&vm_of(accel)->extint, level, __ATOMIC_RELEASE);
}

static void none_nmi(struct accel_vcpu *accel)
{
    __atomic_fetch_add(&vcpu_of(accel)->nmis, 1, __ATOMIC_ACQ_REL);
}

static void none_set_route(struct accel_vm *accel, unsigned pin, uint64_t address, uint32_t data,
                           bool level, bool masked)
{
    struct none_vm *vm = vm_of(accel);
    if (pin >= ACCEL_IOAPIC_PINS)
        return;
    pthread_mutex_lock(&vm->mutex);
    vm->routes[pin] = (struct none_route){address, data, level, masked};
    pthread_mutex_unlock(&vm->mutex);
}

/* ---- CPUID: a plain x86-64-v3 CPU, so that every CPU model can be built ---- */

static struct err *none_cpuid_supported(struct accel_vm *vm, struct cpuid_table *table)
{
    static const struct cpuid_entry entries[] = {
        {0, 0, false, 0xd, 0x756e6547, 0x6c65746e, 0x49656e69},
        {1, 0, false, 0x000306c3, 0x00000800, 0xf7fa3203, 0x178bfbff},
        {7, 0, true, 0, 0x000007ab, 0, 0},
        {0xd, 0, true, 7, 832, 832, 0},
        {0xd, 1, true, 7, 0, 0, 0},
        {0xd, 2, true, 256, 576, 0, 0},
        {0x40000001, 0, false, 0, 0, 0, 0},
        {0x80000000, 0, false, 0x80000008, 0, 0, 0},
        {0x80000001, 0, false, 0, 0, 0x21, 0x2c100800},
        {0x80000008, 0, false, 0x3028, 0, 0, 0},
    };
    table->count = ARRAY_SIZE(entries);
    memcpy(table->entries, entries, sizeof(entries));
    return NULL;
}

static const int none_syscalls[] = {SYS_futex, 0};

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
    .vcpu_debug = none_vcpu_debug,
    .ram_changed = none_ram_changed,
    .dirty_enable = none_dirty_enable,
    .dirty_fetch = none_dirty_fetch,
    .msi_send = none_msi_send,
    .extint_set = none_extint_set,
    .nmi = none_nmi,
    .ioapic_route = none_set_route,
    .doorbell_add = none_doorbell_add,
    .doorbell_remove = none_doorbell_remove,
    .irqfd_add = none_irqfd_add,
    .irqfd_route = none_irqfd_route,
    .irqfd_remove = none_irqfd_remove,
    .syscalls = none_syscalls,
};

/* ---- what tests call ---- */

uint32_t none_pio_read(struct accel_vm *vm, uint16_t port, unsigned size)
{
    const struct accel_vm_config *config = &vm_of(vm)->config;
    return config->io->pio_read(config->opaque, port, size);
}

void none_pio_write(struct accel_vm *vm, uint16_t port, unsigned size, uint32_t value)
{
    const struct accel_vm_config *config = &vm_of(vm)->config;
    config->io->pio_write(config->opaque, port, size, value);
}

uint64_t none_mmio_read(struct accel_vm *vm, uint64_t gpa, unsigned size)
{
    const struct accel_vm_config *config = &vm_of(vm)->config;
    return config->io->mmio_read(config->opaque, gpa, size);
}

void none_mmio_write(struct accel_vm *vm, uint64_t gpa, unsigned size, uint64_t value)
{
    const struct accel_vm_config *config = &vm_of(vm)->config;
    if (!none_doorbell_ring(vm_of(vm), gpa, size, value))
        config->io->mmio_write(config->opaque, gpa, size, value);
}

void none_eoi(struct accel_vm *vm, uint8_t vector)
{
    const struct accel_vm_config *config = &vm_of(vm)->config;
    config->io->ioapic_eoi(config->opaque, vector);
}

void none_vcpu_call(struct accel_vcpu *accel, void (*fn)(void *opaque), void *opaque)
{
    struct none_vcpu *vcpu = vcpu_of(accel);
    pthread_mutex_lock(&vcpu->vm->mutex);
    while (vcpu->call) /* another thread's call comes first */
        pthread_cond_wait(&vcpu->vm->changed, &vcpu->vm->mutex);
    vcpu->call = fn;
    vcpu->call_opaque = opaque;
    pthread_cond_broadcast(&vcpu->vm->changed);
    while (vcpu->call == fn)
        pthread_cond_wait(&vcpu->vm->changed, &vcpu->vm->mutex);
    pthread_mutex_unlock(&vcpu->vm->mutex);
}

void none_vcpu_exit(struct accel_vcpu *accel, enum vm_exit_reason reason, const char *error)
{
    struct none_vcpu *vcpu = vcpu_of(accel);
    pthread_mutex_lock(&vcpu->vm->mutex);
    vcpu->exit = (struct vm_exit){.reason = reason};
    if (error)
        snprintf(vcpu->exit.error, sizeof(vcpu->exit.error), "%s", error);
    vcpu->exit_wanted = true;
    pthread_cond_broadcast(&vcpu->vm->changed);
    pthread_mutex_unlock(&vcpu->vm->mutex);
}

size_t none_msi_count(struct accel_vm *accel)
{
    struct none_vm *vm = vm_of(accel);
    pthread_mutex_lock(&vm->mutex);
    size_t count = vm->msi_count;
    pthread_mutex_unlock(&vm->mutex);
    return count;
}

bool none_msi_take(struct accel_vm *accel, struct none_msi *msi)
{
    struct none_vm *vm = vm_of(accel);
    pthread_mutex_lock(&vm->mutex);
    bool found = vm->msi_count;
    if (found) {
        *msi = vm->msi[vm->msi_first];
        vm->msi_first = (vm->msi_first + 1) % NONE_MSIS;
        vm->msi_count--;
    }
    pthread_mutex_unlock(&vm->mutex);
    return found;
}

bool none_extint(struct accel_vm *vm)
{
    return __atomic_load_n(&vm_of(vm)->extint, __ATOMIC_ACQUIRE);
}

unsigned none_nmi_count(struct accel_vcpu *vcpu)
{
    return __atomic_load_n(&vcpu_of(vcpu)->nmis, __ATOMIC_ACQUIRE);
}

void none_ioapic_route(struct accel_vm *accel, unsigned pin, struct none_route *route)
{
    struct none_vm *vm = vm_of(accel);
    pthread_mutex_lock(&vm->mutex);
    *route = vm->routes[pin];
    pthread_mutex_unlock(&vm->mutex);
}
