/*
 * The KVM engine: the VM. Checks what this KVM can do, creates the VM with a split interrupt chip
 * (local APICs in the kernel, IOAPIC and PIC with us), and holds the engine's table of operations.
 *
 * Control thread only, but for the callbacks named in accel.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "accel/kvm/kvm.h"

/*
 * Three pages for a task segment and one for an identity map, which KVM needs on Intel processors
 * without "unrestricted guest". Below the space of firmware ROMs, and no board puts anything here.
 */
#define IDENTITY_MAP_GPA 0xfeffc000ull
#define TASK_SEGMENT_GPA 0xfeffd000ul

int kvm_call(int fd, unsigned long request, void *argument)
{
    int result;
    do
        result = ioctl(fd, request, argument);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : result;
}

int kvm_call_number(int fd, unsigned long request, unsigned long number)
{
    return kvm_call(fd, request, (void *)number);
}

static const struct {
    int number;
    const char *name; /* what it is for, to finish "this KVM has no ..." */
} needed[] = {
    {KVM_CAP_USER_MEMORY, "user memory slots"},
    {KVM_CAP_SPLIT_IRQCHIP, "split interrupt chip"},
    {KVM_CAP_IRQ_ROUTING, "interrupt routing"},
    {KVM_CAP_SIGNAL_MSI, "message-signalled interrupts"},
    {KVM_CAP_IRQFD, "irqfd"},
    {KVM_CAP_IOEVENTFD, "ioeventfd"},
    {KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
    {KVM_CAP_READONLY_MEM, "read-only memory slots"},
    {KVM_CAP_MP_STATE, "multiprocessor state"},
    {KVM_CAP_VCPU_EVENTS, "vCPU event state"},
    {KVM_CAP_DEBUGREGS, "debug registers"},
    {KVM_CAP_XSAVE, "XSAVE state"},
    {KVM_CAP_XCRS, "XCR0 state"},
};

static struct err *check_capabilities(const struct accel_vm *vm)
{
    int version = kvm_call_number(vm->kvm_fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION)
        return err_new("/dev/kvm speaks API version %d, not %d", version, KVM_API_VERSION);
    for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
        if (kvm_call_number(vm->kvm_fd, KVM_CHECK_EXTENSION, needed[i].number) <= 0)
            return err_new("this KVM has no %s; a newer kernel has", needed[i].name);
    int limit = kvm_call_number(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    if (limit > 0 && vm->vcpu_limit > (unsigned)limit)
        return err_of(ERR_USAGE, "this KVM runs at most %d CPUs, not %u", limit, vm->vcpu_limit);
    return NULL;
}

static int enable(struct accel_vm *vm, uint32_t capability, uint64_t argument)
{
    struct kvm_enable_cap cap = {.cap = capability, .args = {argument}};
    return kvm_call(vm->fd, KVM_ENABLE_CAP, &cap);
}

/* Dirty pages: rings where KVM has them, else bitmaps, cleared by hand if possible. */
static void choose_dirty_log(struct accel_vm *vm)
{
    static const uint32_t rings[] = {KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_DIRTY_LOG_RING};
    uint64_t bytes = KVM_RING_ENTRIES * sizeof(struct kvm_dirty_gfn);

    for (size_t i = 0; i < ARRAY_SIZE(rings) && !vm->ring; i++) {
        int most = kvm_call_number(vm->fd, KVM_CHECK_EXTENSION, rings[i]);
        vm->ring = most > 0 && (uint64_t)most >= bytes && enable(vm, rings[i], bytes) == 0;
    }
    if (!vm->ring)
        vm->manual_protect =
            enable(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) == 0;
}

static struct err *set_up(struct accel_vm *vm)
{
    TRY(check_capabilities(vm));
    vm->fd = kvm_call_number(vm->kvm_fd, KVM_CREATE_VM, 0);
    if (vm->fd < 0)
        return err_errno(vm->fd, "KVM_CREATE_VM");
    int size = kvm_call_number(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size < (int)sizeof(struct kvm_run))
        return err_new("KVM_GET_VCPU_MMAP_SIZE answers %d", size);
    vm->run_size = size;
    vm->any_width =
        kvm_call_number(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_IOEVENTFD_ANY_LENGTH) > 0;

    int rc = kvm_call_number(vm->fd, KVM_SET_TSS_ADDR, TASK_SEGMENT_GPA);
    if (rc < 0)
        return err_errno(rc, "KVM_SET_TSS_ADDR");
    uint64_t identity = IDENTITY_MAP_GPA;
    rc = kvm_call(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    if (rc < 0)
        return err_errno(rc, "KVM_SET_IDENTITY_MAP_ADDR");
    rc = enable(vm, KVM_CAP_SPLIT_IRQCHIP, ACCEL_IOAPIC_PINS);
    if (rc < 0)
        return err_errno(rc, "enabling the split interrupt chip");
    choose_dirty_log(vm);
    TRY(kvm_irq_init(vm));
    return kvm_memory_update(vm);
}

static void vm_free(struct accel_vm *vm)
{
    if (!vm)
        return;
    if (vm->fd >= 0)
        close(vm->fd);
    kvm_irq_fini(vm);
    lock_fini(&vm->memory_lock);
    free(vm);
}

static struct err *vm_create(const struct accel_vm_config *config, struct accel_vm **result)
{
    struct accel_vm *vm = xcalloc(1, sizeof(*vm));
    vm->kvm_fd = config->kvm_fd;
    vm->fd = -1;
    vm->gmem = config->gmem;
    vm->io = config->io;
    vm->opaque = config->opaque;
    vm->vcpu_limit = config->vcpus;
    lock_init(&vm->memory_lock, LOCK_ACCEL);
    lock_init(&vm->route_lock, LOCK_ACCEL);

    struct err *err = set_up(vm);
    if (err) {
        vm_free(vm);
        return err_wrap(err, "kvm");
    }
    *result = vm;
    return NULL;
}

/* The frequency that a vCPU of a VM made only to ask gets: for kernels before 5.19. */
static int ask_scratch_vcpu(struct accel_vm *vm)
{
    int khz = -ENOSYS;
    int scratch = kvm_call_number(vm->kvm_fd, KVM_CREATE_VM, 0);
    if (scratch < 0)
        return scratch;
    int vcpu = kvm_call_number(scratch, KVM_CREATE_VCPU, 0);
    if (vcpu >= 0) {
        khz = kvm_call_number(vcpu, KVM_GET_TSC_KHZ, 0);
        close(vcpu);
    }
    close(scratch);
    return khz;
}

static uint32_t tsc_khz(struct accel_vm *vm)
{
    int khz = kvm_call_number(vm->fd, KVM_GET_TSC_KHZ, 0);
    if (khz <= 0 && vm->vcpus[0])
        khz = kvm_call_number(vm->vcpus[0]->fd, KVM_GET_TSC_KHZ, 0);
    else if (khz <= 0)
        khz = ask_scratch_vcpu(vm);
    return khz > 0 ? khz : 0;
}

/* The PIC's output. Falling needs no wake: the vCPU looks again before it acknowledges. */
static void extint_set(struct accel_vm *vm, bool level)
{
    bool before = __atomic_exchange_n(&vm->extint, level, __ATOMIC_SEQ_CST);
    if (level && !before && vm->vcpus[0])
        kvm_vcpu_wake(vm->vcpus[0]);
}

/* Running vCPUs, kicking them, and the kick signal's mask and return. */
static const int syscalls[] = {
    SYS_ioctl, SYS_tgkill, SYS_getpid, SYS_gettid, SYS_rt_sigprocmask, SYS_rt_sigreturn, 0,
};

const struct accel_ops accel_kvm = {
    .name = "kvm",
    .vm_create = vm_create,
    .vm_free = vm_free,
    .vcpu_create = kvm_vcpu_create,
    .vcpu_free = kvm_vcpu_free,
    .cpuid_supported = kvm_cpuid_supported,
    .vcpu_set_cpuid = kvm_vcpu_set_cpuid,
    .tsc_khz = tsc_khz,
    .vcpu_run = kvm_vcpu_run,
    .vcpu_kick = kvm_vcpu_kick,
    .vcpu_get = kvm_vcpu_get,
    .vcpu_set = kvm_vcpu_set,
    .vcpu_reset = kvm_vcpu_reset,
    .vcpu_stats = kvm_vcpu_stats,
    .vcpu_debug = kvm_vcpu_debug,
    .ram_changed = kvm_memory_update,
    .dirty_enable = kvm_dirty_enable,
    .dirty_fetch = kvm_dirty_fetch,
    .msi_send = kvm_msi_send,
    .extint_set = extint_set,
    .nmi = kvm_nmi,
    .ioapic_route = kvm_ioapic_route,
    .doorbell_add = kvm_doorbell_add,
    .doorbell_remove = kvm_doorbell_remove,
    .irqfd_add = kvm_irqfd_add,
    .irqfd_route = kvm_irqfd_route,
    .irqfd_remove = kvm_irqfd_remove,
    .syscalls = syscalls,
};
