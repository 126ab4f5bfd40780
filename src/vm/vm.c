/*
 * Building, starting, pausing and freeing a VM. See vm.h; the threads are explained in
 * vm_internal.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vm/vm.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vm/vm_internal.h"

static const struct accel_ops *choose_accel(const struct vm_config *config)
{
    struct accel_kvm_probe probe;

    switch (config->accel) {
    case VM_ACCEL_KVM:
        return &accel_kvm;
    case VM_ACCEL_SOFT:
        return &accel_soft;
    case VM_ACCEL_NONE:
        return &accel_none;
    case VM_ACCEL_AUTO:
        break;
    }
    if (config->kvm_fd < 0)
        return &accel_soft;
    accel_kvm_probe(&probe);
    return probe.verdict == ACCEL_KVM_USABLE ? &accel_kvm : &accel_soft;
}

static void take_fd(int *to, int *from)
{
    *to = *from;
    *from = -1;
}

static struct err *create_engine(struct vm *vm)
{
    const struct accel_vm_config config = {
        .gmem = vm->gmem,
        .io = &vm_accel_io,
        .opaque = vm,
        .vcpus = vm->config->cpus,
        .debug = vm->config->accel_debug,
        .kvm_fd = vm->kvm_fd,
    };

    if (config.debug && vm->accel != &accel_soft)
        return err_of(ERR_USAGE, "--accel-debug is for engine soft; this VM has %s",
                      vm->accel->name);

    return err_wrap(vm->accel->vm_create(&config, &vm->accel_vm), "engine %s", vm->accel->name);
}

static void mark(struct vm *vm, enum timeline_mark which)
{
    if (vm->timeline)
        timeline_mark(vm->timeline, which);
}

/* Memory, engine, CPUs, board, kernel: in this order, because each needs the one before. */
static struct err *build(struct vm *vm)
{
    struct cpuid_table *supported = xcalloc(1, sizeof(*supported));
    scoped(free_cleanup) void *owned = supported;
    struct board_wiring wiring;
    unsigned phys_bits;

    TRY(vm_events_init(vm));
    TRY(loop_new("io", &vm->io_loop));
    TRY(create_engine(vm));
    TRY(vm_cpuid_supported(vm, supported, &phys_bits));
    TRY(board_init(&vm->board, vm->config, &vm->env, phys_bits));
    TRY(vm->accel->ram_changed(vm->accel_vm));
    TRY(vm_cpus_create(vm, supported));
    mark(vm, TIMELINE_MEMORY);
    vm_wire_board(vm, &wiring);
    TRY(board_build(&vm->board, &wiring));
    vm_disks_init(vm);
    TRY(board_reset(&vm->board));
    TRY(vm_memory_settle(vm));
    TRY(vm_cpus_reset(vm));
    mark(vm, TIMELINE_DEVICES);
    return NULL;
}

static void tell_boot_failed(void *opaque)
{
    struct vm *vm = opaque;

    if (vm->boot_failed)
        vm->boot_failed(vm->boot_failed_opaque);
}

static void nothing_to_boot(void *opaque)
{
    struct vm *vm = opaque;

    loop_post(vm->loop, tell_boot_failed, vm);
}

struct err *vm_new(struct vm_config *config, struct loop *loop, struct timeline *timeline,
                   struct vm **result)
{
    struct vm *vm = xcalloc(1, sizeof(*vm));

    vm->config = config;
    vm->loop = loop;
    vm->timeline = timeline;
    vm->event_fd = -1;
    vm->accel = choose_accel(config);
    vm->boot_watch = (struct boot_watch){
        .timeline = timeline,
        .firmware = config->firmware,
        .kernel_spoke = !config->append || !strstr(config->append, "early"),
        .nothing_to_boot = nothing_to_boot,
        .opaque = vm,
    };
    take_fd(&vm->kernel_fd, &config->kernel_fd);
    take_fd(&vm->initrd_fd, &config->initrd_fd);
    take_fd(&vm->kvm_fd, &config->kvm_fd);
    lock_init(&vm->lock, LOCK_VM);
    pthread_cond_init(&vm->park_changed, NULL);
    pthread_cond_init(&vm->run_changed, NULL);
    vm->gmem = gmem_new();
    if (vm->accel->aliases_ram)
        gmem_share(vm->gmem);
    vm->pio = io_bus_new("ports");
    vm->mmio = io_bus_new("memory");
    vm->env = (struct hw_env){
        .gmem = vm->gmem,
        .pio = vm->pio,
        .mmio = vm->mmio,
        .loop = loop,
        .ops = &vm_env_ops,
        .opaque = vm,
    };
    struct err *err = build(vm);
    if (err) {
        vm_free(vm);
        return err;
    }
    *result = vm;
    return NULL;
}

struct err *vm_start(struct vm *vm, void (*ended)(void *opaque, const struct vm_result *result),
                     void *opaque)
{
    if (vm->started)
        return err_new("the VM runs already");
    vm->ended = ended;
    vm->ended_opaque = opaque;
    TRY(loop_thread_start(vm->io_loop, &vm->io_thread));
    if (!vm->paused)
        board_resume(&vm->board);
    __atomic_store_n(&vm->started, true, __ATOMIC_RELAXED);
    return vm_cpus_start(vm);
}

void vm_start_paused(struct vm *vm)
{
    vm->paused = true;
    __atomic_store_n(&vm->stop, true, __ATOMIC_RELEASE);
}

void vm_on_reset(struct vm *vm, void (*fn)(void *opaque, bool by_guest), void *opaque)
{
    vm->was_reset = fn;
    vm->was_reset_opaque = opaque;
}

void vm_on_boot_failed(struct vm *vm, void (*fn)(void *opaque), void *opaque)
{
    vm->boot_failed = fn;
    vm->boot_failed_opaque = opaque;
}

void vm_reset(struct vm *vm)
{
    vm_raise(vm, VM_EVENT_RESET_BUTTON, 0, NULL);
}

void vm_nmi(struct vm *vm)
{
    for (unsigned i = 0; i < vm->cpu_count; i++)
        vm->accel->nmi(vm->cpu[i].vcpu);
}

void vm_powerdown(struct vm *vm)
{
    board_power_button(&vm->board);
}

void vm_quit(struct vm *vm)
{
    vm_raise(vm, VM_EVENT_QUIT, 0, NULL);
}

void vm_pause(struct vm *vm)
{
    if (vm->paused || !vm->started || vm->finished)
        return;
    vm->paused = true;
    vm_cpus_stop(vm);
    board_quiesce(&vm->board);
}

void vm_resume(struct vm *vm)
{
    if (!vm->paused || vm->finished)
        return;
    vm->paused = false;
    if (vm->held)
        vm_disks_retry(vm);
    else
        board_resume(&vm->board);
    if (!vm->asleep)
        vm_cpus_go(vm);
}

bool vm_is_paused(const struct vm *vm)
{
    return vm->paused;
}

void vm_stats(struct vm *vm, struct accel_stats *stats)
{
    memset(stats, 0, sizeof(*stats));
    for (unsigned i = 0; i < vm->cpu_count; i++) {
        struct accel_stats one = {0};
        vm->accel->vcpu_stats(vm->cpu[i].vcpu, &one);
        stats->instructions += one.instructions;
        stats->exits += one.exits;
        stats->pio += one.pio;
        stats->mmio += one.mmio;
        stats->halts += one.halts;
        stats->interrupts += one.interrupts;
        stats->tlb_misses += one.tlb_misses;
        stats->translations += one.translations;
        stats->invalidations += one.invalidations;
        stats->native += one.native;
        stats->lockstep += one.lockstep;
        stats->cpu_ns += one.cpu_ns;
    }
}

const char *vm_accel_name(const struct vm *vm)
{
    return vm->accel->name;
}

const struct accel_ops *vm_accel(const struct vm *vm)
{
    return vm->accel;
}

const char *vm_boot_protocol(const struct vm *vm)
{
    return boot_protocol_name(vm->boot.protocol);
}

void vm_free(struct vm *vm)
{
    if (!vm)
        return;
    vm_cpus_end(vm);
    if (vm->io_thread)
        loop_thread_join(vm->io_thread);
    vm_disks_fini(vm);
    /* Devices before vCPUs: the last interrupt that one sends still has a receiver. */
    board_fini(&vm->board);
    vm_cpus_free(vm);
    if (vm->accel_vm)
        vm->accel->vm_free(vm->accel_vm);
    if (vm->io_loop)
        loop_free(vm->io_loop);
    if (vm->event_fd >= 0)
        vm_events_fini(vm);
    io_bus_free(vm->pio);
    io_bus_free(vm->mmio);
    gmem_free(vm->gmem);
    fd_cleanup(&vm->kernel_fd);
    fd_cleanup(&vm->initrd_fd);
    fd_cleanup(&vm->kvm_fd);
    pthread_cond_destroy(&vm->park_changed);
    pthread_cond_destroy(&vm->run_changed);
    lock_fini(&vm->lock);
    free(vm);
}
