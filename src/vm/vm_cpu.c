/*
 * vCPUs: CPUID, reset to the kernel's entry, one thread each, stopping and going on. See
 * vm_internal.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/bytes.h"
#include "hw/chipset/layout.h"
#include "vm/vm_internal.h"

#define LEAF_ADDRESS_SIZES 0x80000008u
#define PHYS_BITS_UNKNOWN 36 /* what a processor without that leaf has */
#define PHYS_BITS_FIRMWARE 40
#define FEATURES_MAX 64

/* Local APIC registers that a PC's firmware leaves behind: virtual wire mode (MP 1.4, 3.6.2.2). */
#define LAPIC_SVR 0xf0
#define LAPIC_LINT0 0x350
#define LAPIC_LINT1 0x360
#define LAPIC_SVR_ENABLED 0x1ff
#define LAPIC_LVT_EXTINT 0x700
#define LAPIC_LVT_NMI 0x400
/* Default memory type write-back, as the loader gives the first CPU. */
#define MTRR_ENABLED_WRITE_BACK 0x806

/* --- CPUID --- */

struct model_text {
    char *text; /* owned, cut into words */
    const char *add[FEATURES_MAX + 1], *remove[FEATURES_MAX + 1];
    struct cpu_model model;
};

/* "host,+avx2,-aes,vendor=AuthenticAMD" */
static struct err *parse_model(const char *text, struct model_text *out)
{
    unsigned adds = 0, removes = 0;
    char *rest, *word;

    memset(out, 0, sizeof(*out));
    out->text = xstrdup(text ? text : "host");
    word = strtok_r(out->text, ",", &rest);
    out->model.name = word ? word : "host";
    while ((word = strtok_r(NULL, ",", &rest))) {
        if (adds + removes >= FEATURES_MAX)
            return err_of(ERR_USAGE, "more than %d features", FEATURES_MAX);
        if (*word == '+')
            out->add[adds++] = word + 1;
        else if (*word == '-')
            out->remove[removes++] = word + 1;
        else if (!strncmp(word, "vendor=", 7))
            out->model.vendor = word + 7;
        else
            return err_of(ERR_USAGE, "expected +FEATURE, -FEATURE or vendor=NAME, found '%s'",
                          word);
    }
    out->model.add = out->add;
    out->model.remove = out->remove;
    return NULL;
}

/*
 * UEFI firmware maps all that the processor can address, in 2 MiB pages: with the width of today's
 * processors it would need more memory for the tables than most VMs have.
 */
static void narrow_addresses(const struct vm_config *config, struct cpuid_table *table)
{
    struct cpuid_entry *sizes = cpuid_find(table, LEAF_ADDRESS_SIZES, 0);

    if (config->firmware && config->memory < 1ull << (PHYS_BITS_FIRMWARE - 1) && sizes &&
        (sizes->eax & 0xff) > PHYS_BITS_FIRMWARE)
        sizes->eax = (sizes->eax & ~0xffu) | PHYS_BITS_FIRMWARE;
}

struct err *vm_cpuid_supported(struct vm *vm, struct cpuid_table *table, unsigned *phys_bits)
{
    struct cpuid_entry answer;

    TRY(vm->accel->cpuid_supported(vm->accel_vm, table));
    narrow_addresses(vm->config, table);
    cpuid_query(table, LEAF_ADDRESS_SIZES, 0, &answer);
    *phys_bits = answer.eax & 0xff ? answer.eax & 0xff : PHYS_BITS_UNKNOWN;
    return NULL;
}

static struct err *create_cpu(struct vm *vm, const struct cpuid_table *supported,
                              const struct cpu_model *model, unsigned index)
{
    struct vm_cpu *cpu = &vm->cpu[index];
    struct cpuid_table *table = xcalloc(1, sizeof(*table));
    scoped(free_cleanup) void *owned = table;

    cpu->vm = vm;
    cpu->index = index;
    TRY(vm->accel->vcpu_create(vm->accel_vm, index, &cpu->vcpu));
    vm->cpu_count = index + 1;
    TRY(err_wrap(cpuid_build(supported, model, index, vm->config->cpus,
                             vm->accel->tsc_khz(vm->accel_vm), table),
                 "--cpu"));
    return vm->accel->vcpu_set_cpuid(cpu->vcpu, table);
}

struct err *vm_cpus_create(struct vm *vm, struct cpuid_table *supported)
{
    struct model_text model;
    struct err *err = parse_model(vm->config->cpu_model, &model);

    vm->cpu = xcalloc(vm->config->cpus, sizeof(*vm->cpu));
    for (unsigned i = 0; i < vm->config->cpus && !err; i++)
        err = create_cpu(vm, supported, &model.model, i);
    free(model.text);
    return err;
}

void vm_cpus_free(struct vm *vm)
{
    for (unsigned i = 0; i < vm->cpu_count; i++)
        vm->accel->vcpu_free(vm->cpu[i].vcpu);
    free(vm->cpu);
    vm->cpu = NULL;
    vm->cpu_count = 0;
}

/* --- reset --- */

static void virtual_wire(struct x86_state *state, bool bsp)
{
    put_le32(state->lapic + LAPIC_SVR, LAPIC_SVR_ENABLED);
    if (bsp)
        put_le32(state->lapic + LAPIC_LINT0, LAPIC_LVT_EXTINT);
    put_le32(state->lapic + LAPIC_LINT1, LAPIC_LVT_NMI);
}

/*
 * A Multiboot kernel gets the machine as a BIOS leaves it: PICs with its vectors, the system timer
 * running, and open what a BIOS serves (timer, keyboard, cascade; clock and mouse).
 */
static void bios_ports(struct vm *vm)
{
    static const struct {
        uint16_t port;
        uint8_t value;
    } writes[] = {
        {LAYOUT_PORT_PIC_MASTER, 0x11},
        {LAYOUT_PORT_PIC_MASTER + 1, BOOT_PIC_MASTER_BASE},
        {LAYOUT_PORT_PIC_MASTER + 1, 4},
        {LAYOUT_PORT_PIC_MASTER + 1, 1},
        {LAYOUT_PORT_PIC_SLAVE, 0x11},
        {LAYOUT_PORT_PIC_SLAVE + 1, BOOT_PIC_SLAVE_BASE},
        {LAYOUT_PORT_PIC_SLAVE + 1, 2},
        {LAYOUT_PORT_PIC_SLAVE + 1, 1},
        {LAYOUT_PORT_PIC_MASTER + 1, 0xf8},
        {LAYOUT_PORT_PIC_SLAVE + 1, 0xee},
        {LAYOUT_PORT_PIT + 3, 0x36},
        {LAYOUT_PORT_PIT, 0},
        {LAYOUT_PORT_PIT, 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(writes); i++)
        io_bus_write(vm->pio, writes[i].port, 1, writes[i].value);
}

static struct err *load_kernel(struct vm *vm, struct x86_state *state)
{
    struct boot_request request = {
        .kernel_fd = vm->kernel_fd,
        .initrd_fd = vm->initrd_fd,
        .kernel = vm->config->kernel,
        .initrd = vm->config->initrd,
        .append = vm->config->append,
    };

    board_boot_request(&vm->board, &request);
    TRY(boot_load(&request, state, &vm->boot));
    if (vm->boot.protocol == BOOT_MULTIBOOT && vm->board.pic)
        bios_ports(vm);
    return NULL;
}

/* One vCPU as firmware leaves it, or at power-on where there is firmware. */
static void firmware_state(const struct vm *vm, unsigned index, struct x86_state *state)
{
    x86_state_reset(state, index, !index);
    if (board_has_firmware(&vm->board))
        return;
    state->msr.mtrr_def_type = MTRR_ENABLED_WRITE_BACK;
    if (vm->board.pic)
        virtual_wire(state, !index);
}

struct err *vm_cpus_reset(struct vm *vm)
{
    struct x86_state *state = xcalloc(1, sizeof(*state));
    scoped(free_cleanup) void *owned = state;

    for (unsigned i = 0; i < vm->cpu_count; i++) {
        firmware_state(vm, i, state);
        if (!i && !board_has_firmware(&vm->board))
            TRY(load_kernel(vm, state));
        vm->accel->vcpu_reset(vm->cpu[i].vcpu);
        TRY(err_wrap(vm->accel->vcpu_set(vm->cpu[i].vcpu, state), "CPU %u", i));
    }
    return NULL;
}

/* The TSC counts on in S3: guests' clocks hang on it, and all CPUs shall show one. */
static struct err *wake_cpu(struct vm *vm, unsigned index, uint32_t vector, struct x86_state *state)
{
    struct accel_vcpu *vcpu = vm->cpu[index].vcpu;

    TRY(vm->accel->vcpu_get(vcpu, state));
    uint64_t tsc = state->msr.tsc, adjust = state->msr.tsc_adjust;
    firmware_state(vm, index, state);
    state->msr.tsc = tsc;
    state->msr.tsc_adjust = adjust;
    if (!index) {
        /* ACPI 6.4, 5.2.10: real mode, CS is the vector over 16. */
        state->seg[X86_CS].selector = (uint16_t)(vector >> 4);
        state->seg[X86_CS].base = state->seg[X86_CS].selector << 4;
        state->rip = vector & 15;
    }
    return vm->accel->vcpu_set(vcpu, state);
}

struct err *vm_cpus_wake(struct vm *vm, uint32_t vector)
{
    struct x86_state *state = xcalloc(1, sizeof(*state));
    scoped(free_cleanup) void *owned = state;

    for (unsigned i = 0; i < vm->cpu_count; i++)
        TRY(err_wrap(wake_cpu(vm, i, vector, state), "CPU %u", i));
    return NULL;
}

/* --- threads --- */

/* `held` changes only while the thread is parked. */
static bool stop_wanted(const struct vm_cpu *cpu)
{
    return __atomic_load_n(&cpu->vm->stop, __ATOMIC_ACQUIRE) || cpu->held;
}

/* Parks while the machine is stopped; false when the thread shall end. */
static bool may_run(struct vm_cpu *cpu)
{
    struct vm *vm = cpu->vm;

    if (!stop_wanted(cpu) && !__atomic_load_n(&vm->quit, __ATOMIC_ACQUIRE))
        return true;
    lock_take(&vm->lock);
    vm->parked++;
    pthread_cond_broadcast(&vm->park_changed);
    while (stop_wanted(cpu) && !vm->quit)
        pthread_cond_wait(&vm->run_changed, &vm->lock.mutex);
    bool run = !vm->quit;
    if (run)
        vm->parked--;
    lock_drop(&vm->lock);
    return run;
}

static void *cpu_main(void *opaque)
{
    struct vm_cpu *cpu = opaque;
    struct vm *vm = cpu->vm;
    char name[16];

    snprintf(name, sizeof(name), "vcpu%02u", cpu->index);
    prctl(PR_SET_NAME, name);
    __atomic_store_n(&cpu->tid, gettid(), __ATOMIC_RELAXED);
    if (!cpu->index && vm->timeline) {
        timeline_mark(vm->timeline, TIMELINE_FIRST_INSN);
        if (!board_has_firmware(&vm->board))
            timeline_mark(vm->timeline, TIMELINE_KERNEL_ENTRY);
    }
    while (may_run(cpu)) {
        struct vm_exit exit = {0};
        vm->accel->vcpu_run(cpu->vcpu, &exit);
        switch (exit.reason) {
        case VM_EXIT_KICKED:
            break;
        case VM_EXIT_DEBUG:
            cpu->debug_exit = exit;
            vm_raise(vm, VM_EVENT_DEBUG, cpu->index, NULL);
            break;
        case VM_EXIT_SHUTDOWN:
            vm_raise(vm, VM_EVENT_TRIPLE_FAULT, cpu->index, NULL);
            break;
        case VM_EXIT_ERROR:
            vm_raise(vm, VM_EVENT_ERROR, cpu->index, exit.error);
            break;
        }
    }
    return NULL;
}

/* vCPU threads take no signals but those of a fault, and what an engine unblocks for its kick. */
static void blocked_signals(sigset_t *set)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};

    sigfillset(set);
    for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
        sigdelset(set, faults[i]);
}

struct err *vm_cpus_start(struct vm *vm)
{
    sigset_t blocked, before;
    int error = 0;

    blocked_signals(&blocked);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    for (unsigned i = 0; i < vm->cpu_count && !error; i++) {
        struct vm_cpu *cpu = &vm->cpu[i];
        error = pthread_create(&cpu->thread, NULL, cpu_main, cpu);
        cpu->thread_started = !error;
        vm->threads += !error;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!error)
        return NULL;
    vm_cpus_end(vm);
    return err_errno(error, "cannot start a thread for each vCPU");
}

static void kick_all(struct vm *vm)
{
    for (unsigned i = 0; i < vm->cpu_count; i++)
        vm->accel->vcpu_kick(vm->cpu[i].vcpu);
}

void vm_cpus_stop(struct vm *vm)
{
    __atomic_store_n(&vm->stop, true, __ATOMIC_RELEASE);
    kick_all(vm);
    lock_take(&vm->lock);
    while (vm->parked < vm->threads)
        pthread_cond_wait(&vm->park_changed, &vm->lock.mutex);
    lock_drop(&vm->lock);
}

void vm_cpus_go(struct vm *vm)
{
    lock_take(&vm->lock);
    __atomic_store_n(&vm->stop, false, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&vm->run_changed);
    lock_drop(&vm->lock);
}

void vm_cpus_end(struct vm *vm)
{
    lock_take(&vm->lock);
    __atomic_store_n(&vm->quit, true, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&vm->run_changed);
    lock_drop(&vm->lock);
    kick_all(vm);
    for (unsigned i = 0; i < vm->cpu_count; i++) {
        if (vm->cpu[i].thread_started)
            pthread_join(vm->cpu[i].thread, NULL);
        vm->cpu[i].thread_started = false;
    }
    vm->threads = 0;
}
