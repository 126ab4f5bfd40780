/*
 * The KVM engine: a vCPU's life and its run loop (api.rst 4.10 KVM_RUN and 5, "The kvm_run
 * structure").
 *
 * How a vCPU is called out of KVM_RUN from another thread: the caller raises a flag, then sets
 * run->immediate_exit, then sends a signal to the thread. The run loop clears immediate_exit first
 * and looks at the flags after. So a flag raised after that look finds either a KVM_RUN that sees
 * immediate_exit as it enters, or one that the signal ends.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "accel/kvm/kvm.h"
#include "base/bytes.h"
#include "base/log.h"

/* Sent with tgkill to vCPU threads only. Its handler does nothing: to end KVM_RUN is all. */
#define KICK_SIGNAL (SIGRTMIN + 1)

static void count(uint64_t *counter)
{
    __atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED);
}

static void on_kick(int number)
{
}

static struct err *install_handler(void)
{
    struct sigaction action = {.sa_handler = on_kick};
    if (sigaction(KICK_SIGNAL, &action, NULL) < 0)
        return err_errno(errno, "sigaction");
    return NULL;
}

static struct err *map_vcpu(struct accel_vcpu *vcpu)
{
    struct accel_vm *vm = vcpu->vm;
    void *run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (run == MAP_FAILED)
        return err_errno(errno, "mapping");
    vcpu->run = run;
    if (!vm->ring)
        return NULL;
    void *ring = mmap(NULL, KVM_RING_ENTRIES * sizeof(*vcpu->ring), PROT_READ | PROT_WRITE,
                      MAP_SHARED, vcpu->fd, KVM_DIRTY_LOG_PAGE_OFFSET * sysconf(_SC_PAGESIZE));
    if (ring == MAP_FAILED)
        return err_errno(errno, "mapping the dirty ring");
    vcpu->ring = ring;
    return NULL;
}

struct err *kvm_vcpu_create(struct accel_vm *vm, unsigned index, struct accel_vcpu **result)
{
    if (index >= vm->vcpu_limit || vm->vcpus[index])
        return err_new("kvm: no vCPU %u to create", index);
    TRY(install_handler());
    int fd = kvm_call_number(vm->fd, KVM_CREATE_VCPU, index);
    if (fd < 0)
        return err_errno(fd, "kvm: KVM_CREATE_VCPU %u", index);

    struct accel_vcpu *vcpu = xcalloc(1, sizeof(*vcpu));
    vcpu->vm = vm;
    vcpu->index = index;
    vcpu->fd = fd;
    struct err *err = map_vcpu(vcpu);
    if (err) {
        kvm_vcpu_free(vcpu);
        return err_wrap(err, "kvm: CPU %u", index);
    }
    __atomic_store_n(&vm->vcpus[index], vcpu, __ATOMIC_RELEASE);
    *result = vcpu;
    return NULL;
}

void kvm_vcpu_free(struct accel_vcpu *vcpu)
{
    if (!vcpu)
        return;
    if (vcpu->vm->vcpus[vcpu->index] == vcpu)
        vcpu->vm->vcpus[vcpu->index] = NULL;
    if (vcpu->ring)
        munmap(vcpu->ring, KVM_RING_ENTRIES * sizeof(*vcpu->ring));
    if (vcpu->run)
        munmap(vcpu->run, vcpu->vm->run_size);
    close(vcpu->fd);
    free(vcpu);
}

void kvm_vcpu_wake(struct accel_vcpu *vcpu)
{
    __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    pid_t thread = __atomic_load_n(&vcpu->thread, __ATOMIC_SEQ_CST);
    if (thread && thread != (pid_t)syscall(SYS_gettid))
        syscall(SYS_tgkill, getpid(), thread, KICK_SIGNAL);
}

void kvm_vcpu_kick(struct accel_vcpu *vcpu)
{
    __atomic_store_n(&vcpu->kicked, true, __ATOMIC_SEQ_CST);
    kvm_vcpu_wake(vcpu);
}

void kvm_vcpu_stats(struct accel_vcpu *vcpu, struct accel_stats *stats)
{
    *stats = (struct accel_stats){
        .exits = __atomic_load_n(&vcpu->stats.exits, __ATOMIC_RELAXED),
        .pio = __atomic_load_n(&vcpu->stats.pio, __ATOMIC_RELAXED),
        .mmio = __atomic_load_n(&vcpu->stats.mmio, __ATOMIC_RELAXED),
        .interrupts = __atomic_load_n(&vcpu->stats.interrupts, __ATOMIC_RELAXED),
    };
}

void kvm_vcpu_reset(struct accel_vcpu *vcpu)
{
    scoped(free_cleanup) struct x86_state *state = xcalloc(1, sizeof(*state));
    x86_state_reset(state, vcpu->index, vcpu->index == 0);
    struct err *err = kvm_vcpu_set(vcpu, state);
    if (err) {
        log_error("reset of CPU %u: %s", vcpu->index, err_text(err));
        err_free(err);
    }
}

/* A string instruction moves `count` items in one exit. */
static void do_pio(struct accel_vcpu *vcpu)
{
    const struct accel_vm *vm = vcpu->vm;
    struct kvm_run *run = vcpu->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    unsigned size = run->io.size;

    for (uint32_t i = 0; i < run->io.count; i++, data += size) {
        if (run->io.direction == KVM_EXIT_IO_OUT)
            vm->io->pio_write(vm->opaque, run->io.port, size, (uint32_t)get_le(data, size));
        else
            put_le(data, size, vm->io->pio_read(vm->opaque, run->io.port, size));
        count(&vcpu->stats.pio);
    }
}

static void do_mmio(struct accel_vcpu *vcpu)
{
    const struct accel_vm *vm = vcpu->vm;
    struct kvm_run *run = vcpu->run;
    unsigned size = MIN(run->mmio.len, 8u);
    uint64_t gpa = run->mmio.phys_addr;

    if (run->mmio.is_write)
        vm->io->mmio_write(vm->opaque, gpa, size, get_le(run->mmio.data, size));
    else
        put_le(run->mmio.data, size, vm->io->mmio_read(vm->opaque, gpa, size));
    count(&vcpu->stats.mmio);
}

/* Where the guest stood, for the sentence of an error. */
static unsigned long long rip_of(struct accel_vcpu *vcpu)
{
    struct kvm_regs regs = {0};
    kvm_call(vcpu->fd, KVM_GET_REGS, &regs);
    return regs.rip;
}

static void describe_internal_error(struct accel_vcpu *vcpu, struct vm_exit *exit)
{
    const struct kvm_run *run = vcpu->run;
    if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION) {
        snprintf(exit->error, sizeof(exit->error),
                 "CPU %u: KVM gave up with internal error %u at rip 0x%llx", vcpu->index,
                 run->internal.suberror, rip_of(vcpu));
        return;
    }
    char bytes[3 * 15 + 1] = "";
    if (run->emulation_failure.ndata >= 1 &&
        run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)
        for (unsigned i = 0; i < MIN((unsigned)run->emulation_failure.insn_size, 15u); i++)
            snprintf(bytes + 3 * i, 4, " %02x", run->emulation_failure.insn_bytes[i]);
    snprintf(exit->error, sizeof(exit->error),
             "CPU %u: KVM cannot emulate the instruction at rip 0x%llx:%s", vcpu->index,
             rip_of(vcpu), bytes[0] ? bytes : " bytes unknown");
}

/* An exit that is not one of the frequent ones. True when vcpu_run must return. */
static bool rare_exit(struct accel_vcpu *vcpu, struct vm_exit *exit)
{
    const struct kvm_run *run = vcpu->run;
    struct err *err;

    switch (run->exit_reason) {
    case KVM_EXIT_SHUTDOWN:
        exit->reason = VM_EXIT_SHUTDOWN;
        return true;
    case KVM_EXIT_DEBUG:
        kvm_debug_exit(vcpu, exit);
        return true;
    case KVM_EXIT_DIRTY_RING_FULL:
        err = kvm_dirty_fetch(vcpu->vm);
        if (!err)
            return false;
        snprintf(exit->error, sizeof(exit->error), "%s", err_text(err));
        err_free(err);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        describe_internal_error(vcpu, exit);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        snprintf(exit->error, sizeof(exit->error),
                 "CPU %u: the processor refuses to enter the guest: hardware reason 0x%llx, "
                 "rip 0x%llx",
                 vcpu->index, (unsigned long long)run->fail_entry.hardware_entry_failure_reason,
                 rip_of(vcpu));
        break;
    default:
        snprintf(exit->error, sizeof(exit->error), "CPU %u: unexpected KVM exit %u at rip 0x%llx",
                 vcpu->index, run->exit_reason, rip_of(vcpu));
        break;
    }
    exit->reason = VM_EXIT_ERROR;
    return true;
}

/* True when vcpu_run must return. */
static bool handle_exit(struct accel_vcpu *vcpu, struct vm_exit *exit)
{
    const struct accel_vm *vm = vcpu->vm;

    count(&vcpu->stats.exits);
    switch (vcpu->run->exit_reason) {
    case KVM_EXIT_MMIO:
        vcpu->half_done = true;
        do_mmio(vcpu);
        return false;
    case KVM_EXIT_IO:
        vcpu->half_done = true;
        do_pio(vcpu);
        return false;
    case KVM_EXIT_IOAPIC_EOI:
        vm->io->ioapic_eoi(vm->opaque, vcpu->run->eoi.vector);
        return false;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_INTR:
        return false;
    default:
        return rare_exit(vcpu, exit);
    }
}

/*
 * The PIC's interrupt, for the BSP. KVM says after each run whether it would take one now; when
 * not, it is asked to come back as soon as it would.
 */
static void offer_extint(struct accel_vcpu *vcpu)
{
    struct accel_vm *vm = vcpu->vm;
    struct kvm_run *run = vcpu->run;

    run->request_interrupt_window = 0;
    if (vcpu->index || !__atomic_load_n(&vm->extint, __ATOMIC_SEQ_CST))
        return;
    if (vcpu->half_done || !run->ready_for_interrupt_injection) {
        run->request_interrupt_window = 1;
        return;
    }
    struct kvm_interrupt interrupt = {.irq = vm->io->extint_ack(vm->opaque)};
    if (kvm_call(vcpu->fd, KVM_INTERRUPT, &interrupt) == 0)
        count(&vcpu->stats.interrupts);
    /* One at a time: the flag is of before this one. */
    run->ready_for_interrupt_injection = 0;
    if (__atomic_load_n(&vm->extint, __ATOMIC_SEQ_CST))
        run->request_interrupt_window = 1;
}

static void prepare_thread(struct accel_vcpu *vcpu)
{
    sigset_t kick;
    sigemptyset(&kick);
    sigaddset(&kick, KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
    vcpu->thread_ready = true;
}

/* KVM_RUN failed. True when vcpu_run must return. */
static bool run_failed(struct accel_vcpu *vcpu, int number, struct vm_exit *exit)
{
    /* EAGAIN: an AP got its INIT or SIPI. */
    if (number == EINTR || number == EAGAIN)
        return false;
    exit->reason = VM_EXIT_ERROR;
    snprintf(exit->error, sizeof(exit->error), "CPU %u: KVM_RUN: %s, rip 0x%llx", vcpu->index,
             strerror(number), rip_of(vcpu));
    return true;
}

static void run_until_exit(struct accel_vcpu *vcpu, struct vm_exit *exit)
{
    for (;;) {
        __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&vcpu->kicked, __ATOMIC_SEQ_CST)) {
            if (!vcpu->half_done) {
                __atomic_store_n(&vcpu->kicked, false, __ATOMIC_SEQ_CST);
                exit->reason = VM_EXIT_KICKED;
                return;
            }
            /* Once more into KVM_RUN, only to finish the instruction. */
            __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        }
        offer_extint(vcpu);
        vcpu->half_done = false;
        int rc = ioctl(vcpu->fd, KVM_RUN, 0);
        if (rc < 0 ? run_failed(vcpu, errno, exit) : handle_exit(vcpu, exit))
            return;
    }
}

void kvm_vcpu_run(struct accel_vcpu *vcpu, struct vm_exit *exit)
{
    exit->error[0] = 0;
    if (!vcpu->thread_ready)
        prepare_thread(vcpu);
    __atomic_store_n(&vcpu->thread, (pid_t)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
    run_until_exit(vcpu, exit);
    __atomic_store_n(&vcpu->thread, 0, __ATOMIC_SEQ_CST);
}
