/*
 * The accelerator table of the software CPU engine: creation and the calls that other threads make.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/syscall.h>

#include "accel/soft/check/few.h"
#include "accel/soft/check/lockstep.h"
#include "accel/soft/interp/block.h"
#include "accel/soft/run.h"

bool soft_random(uint64_t *value)
{
    return getrandom(value, sizeof(*value), GRND_NONBLOCK) == sizeof(*value);
}

static void vm_free(struct accel_vm *accel)
{
    struct soft_vm *vm = (struct soft_vm *)accel;
    if (!vm)
        return;
    if (vm->gmem)
        gmem_code_listen(vm->gmem, NULL, NULL);
    soft_irqfds_free(vm);
    soft_clock_free(vm);
    soft_doorbells_free(vm);
    soft_mem_free(vm);
    lock_fini(&vm->table_lock);
    lock_fini(&vm->code_lock);
    free(vm);
}

static struct err *vm_create(const struct accel_vm_config *config, struct accel_vm **result)
{
    if (config->vcpus < 1 || config->vcpus > ACCEL_VCPUS_MAX)
        return err_of(ERR_USAGE, "soft: %u vCPUs, not 1 to %d", config->vcpus, ACCEL_VCPUS_MAX);
    struct soft_modes modes;
    TRY(soft_modes_read(config->debug, &modes));
    if ((modes.lockstep || modes.crossings) && config->vcpus > 1)
        return err_of(ERR_USAGE, "--accel-debug %s works with one CPU",
                      modes.lockstep ? "lockstep" : "crossings");
    struct soft_vm *vm = xcalloc(1, sizeof(*vm));
    vm->modes = modes;
    lock_init(&vm->table_lock, LOCK_ACCEL);
    lock_init(&vm->code_lock, LOCK_ACCEL);
    vm->gmem = config->gmem;
    vm->io = config->io;
    vm->opaque = config->opaque;
    vm->vcpu_count = config->vcpus;
    vm->xlate_after = modes.xlate_after;
    if (modes.scatter)
        gmem_scatter(vm->gmem);
    struct err *err = soft_mem_build(vm);
    if (!err)
        err = soft_clock_new(vm);
    if (err) {
        vm_free((struct accel_vm *)vm);
        return err;
    }
    gmem_code_listen(vm->gmem, soft_code_listener, vm);
    *result = (struct accel_vm *)vm;
    return NULL;
}

static void vcpu_free(struct accel_vcpu *accel)
{
    struct soft_vcpu *v = (struct soft_vcpu *)accel;
    if (!v)
        return;
    __atomic_store_n(&v->vm->vcpu[v->index], NULL, __ATOMIC_RELEASE);
    soft_simd_free(v);
    lapic_free(v->lapic);
    soft_space_free(v);
    soft_code_free(v->code);
    lockstep_free(v->lockstep);
    free(v->few);
    lock_fini(&v->inbox_lock);
    free(v);
}

static struct err *vcpu_create(struct accel_vm *accel, unsigned index, struct accel_vcpu **result)
{
    struct soft_vm *vm = (struct soft_vm *)accel;
    if (index >= vm->vcpu_count || vm->vcpu[index])
        return err_new("soft: vCPU %u cannot be created", index);
    struct soft_vcpu *v = aligned_alloc(64, ALIGN_UP(sizeof(*v), 64));
    if (!v)
        return err_errno(ENOMEM, "soft: vCPU %u", index);
    memset(v, 0, sizeof(*v));
    v->vm = vm;
    v->index = index;
    v->phys_mask = (1ull << 40) - 1;
    v->delivering = v->inject_vector = v->debugger_hit = -1;
    lock_init(&v->inbox_lock, LOCK_LEAF);
    v->code = soft_code_new(v);
    v->lapic = lapic_new(v);
    struct err *err = NULL;
    if (vm->modes.lockstep)
        v->lockstep = lockstep_new(v);
    if (vm->modes.tlb)
        v->few = few_new(vm->modes.tlb);
    if (!v->code || !v->lapic || (vm->modes.lockstep && !v->lockstep))
        err = err_errno(ENOMEM, "soft: vCPU %u", index);
    if (!err)
        err = soft_simd_new(v);
    if (err) {
        vcpu_free((struct accel_vcpu *)v);
        return err;
    }
    __atomic_store_n(&vm->vcpu[index], v, __ATOMIC_RELEASE);
    soft_reset_cpu(v, false);
    *result = (struct accel_vcpu *)v;
    return NULL;
}

static struct err *vcpu_set_cpuid(struct accel_vcpu *accel, const struct cpuid_table *table)
{
    struct soft_vcpu *v = (struct soft_vcpu *)accel;
    v->cpuid = *table;
    soft_cpuid_apply(v);
    soft_code_flush(v);
    struct cpuid_entry leaf1;
    cpuid_query(&v->cpuid, 1, 0, &leaf1);
    v->r[X86_RDX] = leaf1.eax; /* what power-on shows of the CPU's signature */
    return NULL;
}

static uint32_t tsc_khz(struct accel_vm *accel)
{
    return ((struct soft_vm *)accel)->tsc_khz;
}

static void vcpu_kick(struct accel_vcpu *accel)
{
    soft_post((struct soft_vcpu *)accel, EV_KICK);
}

static void vcpu_stats(struct accel_vcpu *accel, struct accel_stats *stats)
{
    struct soft_vcpu *v = (struct soft_vcpu *)accel;
    *stats = v->stats;
    stats->instructions = v->icount;
    stats->exits = v->stats.pio + v->stats.mmio + v->stats.halts;
}

static struct err *ram_changed(struct accel_vm *accel)
{
    struct soft_vm *vm = (struct soft_vm *)accel;
    if (vm->mem->ram_count == gmem_region_count(vm->gmem)) {
        soft_mem_switch(vm);
        return NULL;
    }
    TRY(soft_mem_build(vm));
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        if (!vm->vcpu[i])
            continue;
        soft_code_flush(vm->vcpu[i]);
        soft_tlb_flush(vm->vcpu[i]);
    }
    return NULL;
}

/* Every vCPU drops its write TLB, now or before its next instruction; each drop reports its pages.
 */
static void drop_write_tlbs(struct soft_vm *vm)
{
    for (unsigned i = 0; i < vm->vcpu_count; i++)
        if (vm->vcpu[i])
            soft_post(vm->vcpu[i], EV_TLB_WRITE);
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        struct soft_vcpu *v = vm->vcpu[i];
        while (v && atomic_load(&v->running) && atomic_load(&v->events) & EV_TLB_WRITE)
            sched_yield();
    }
}

static struct err *dirty_enable(struct accel_vm *accel, bool on)
{
    struct soft_vm *vm = (struct soft_vm *)accel;
    vm->dirty_log = on;
    drop_write_tlbs(vm);
    return NULL;
}

static struct err *dirty_fetch(struct accel_vm *accel)
{
    drop_write_tlbs((struct soft_vm *)accel);
    return NULL;
}

static void msi_send(struct accel_vm *accel, uint64_t address, uint32_t data)
{
    soft_msi((struct soft_vm *)accel, address, data);
}

static void extint_set(struct accel_vm *accel, bool level)
{
    struct soft_vm *vm = (struct soft_vm *)accel;
    atomic_store(&vm->extint, level);
    if (level && vm->vcpu[0])
        soft_post(vm->vcpu[0], EV_EXTINT);
}

static void nmi(struct accel_vcpu *accel)
{
    soft_post_nmi((struct soft_vcpu *)accel);
}

static void ioapic_route(struct accel_vm *accel, unsigned pin, uint64_t address, uint32_t data,
                         bool level, bool masked)
{
    struct soft_vm *vm = (struct soft_vm *)accel;
    if (pin >= ACCEL_IOAPIC_PINS)
        return;
    lock_take(&vm->table_lock);
    vm->ioapic_pin[pin].vector = data;
    vm->ioapic_pin[pin].level = level;
    vm->ioapic_pin[pin].used = !masked;
    uint64_t wanted[4] = {0};
    for (unsigned i = 0; i < ACCEL_IOAPIC_PINS; i++)
        if (vm->ioapic_pin[i].level && vm->ioapic_pin[i].used)
            wanted[vm->ioapic_pin[i].vector / 64] |= 1ull << (vm->ioapic_pin[i].vector % 64);
    for (unsigned i = 0; i < 4; i++)
        __atomic_store_n(&vm->ioapic_level[i], wanted[i], __ATOMIC_RELEASE);
    lock_drop(&vm->table_lock);
}

static const int extra_syscalls[] = {SYS_futex,
                                     SYS_sched_yield,
                                     SYS_getrandom,
                                     SYS_epoll_create1,
                                     SYS_epoll_ctl,
                                     SYS_epoll_wait,
                                     SYS_eventfd2,
                                     SYS_mmap,
                                     SYS_munmap,
                                     SYS_madvise,
                                     0};

const struct accel_ops accel_soft = {
    .name = "soft",
    .aliases_ram = true,
    .vm_create = vm_create,
    .vm_free = vm_free,
    .vcpu_create = vcpu_create,
    .vcpu_free = vcpu_free,
    .cpuid_supported = soft_cpuid_supported,
    .vcpu_set_cpuid = vcpu_set_cpuid,
    .tsc_khz = tsc_khz,
    .vcpu_run = soft_vcpu_run,
    .vcpu_kick = vcpu_kick,
    .vcpu_get = soft_vcpu_get,
    .vcpu_set = soft_vcpu_set,
    .vcpu_reset = soft_vcpu_reset,
    .vcpu_stats = vcpu_stats,
    .vcpu_debug = soft_vcpu_debug,
    .ram_changed = ram_changed,
    .dirty_enable = dirty_enable,
    .dirty_fetch = dirty_fetch,
    .msi_send = msi_send,
    .extint_set = extint_set,
    .nmi = nmi,
    .ioapic_route = ioapic_route,
    .doorbell_add = soft_doorbell_add,
    .doorbell_remove = soft_doorbell_remove,
    .irqfd_add = soft_irqfd_add,
    .irqfd_route = soft_irqfd_route,
    .irqfd_remove = soft_irqfd_remove,
    .syscalls = extra_syscalls,
};
