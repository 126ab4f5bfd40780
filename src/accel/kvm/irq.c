/*
 * The KVM engine: interrupts. With the split chip KVM holds the local APICs only. Messages reach
 * them by KVM_SIGNAL_MSI, or by a route: an entry "GSI to MSI" in a table that KVM takes whole
 * (api.rst 4.52). Routes 0..23 stand for the IOAPIC's pins; KVM never fires these itself, but reads
 * from them which vectors are level-triggered, to tell us of their end of interrupt.
 *
 * Any thread; the table is under route_lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "accel/kvm/kvm.h"
#include "base/log.h"

/* Message format: Intel SDM vol. 3, 11.11. */
#define MSI_ADDRESS 0xfee00000ull
#define MSI_DESTINATION_SHIFT 12
#define MSI_DATA_NMI (4u << 8)
#define MSI_DATA_LEVEL (1u << 15)

static void fill_entry(struct kvm_irq_routing_entry *entry, unsigned gsi,
                       const struct kvm_route *route)
{
    *entry = (struct kvm_irq_routing_entry){.gsi = gsi, .type = KVM_IRQ_ROUTING_MSI};
    entry->u.msi.address_lo = (uint32_t)route->address;
    entry->u.msi.address_hi = route->address >> 32;
    entry->u.msi.data = route->data;
}

static int commit_locked(struct accel_vm *vm)
{
    unsigned count = 0;
    for (unsigned gsi = 0; gsi < KVM_GSIS_MAX; gsi++)
        count += vm->routes[gsi].programmed;
    scoped(free_cleanup) struct kvm_irq_routing *table =
        calloc(1, sizeof(*table) + count * sizeof(table->entries[0]));
    if (!table)
        return -ENOMEM;
    for (unsigned gsi = 0; gsi < KVM_GSIS_MAX; gsi++)
        if (vm->routes[gsi].programmed)
            fill_entry(&table->entries[table->nr++], gsi, &vm->routes[gsi]);
    return kvm_call(vm->fd, KVM_SET_GSI_ROUTING, table);
}

/* Gives `gsi` the message, if it is not what it has. */
static int program_locked(struct accel_vm *vm, unsigned gsi, uint64_t address, uint32_t data)
{
    struct kvm_route *route = &vm->routes[gsi];
    if (route->programmed && route->address == address && route->data == data)
        return 0;
    struct kvm_route before = *route;
    *route = (struct kvm_route){.used = true, .programmed = true, .address = address, .data = data};
    int rc = commit_locked(vm);
    if (rc < 0)
        *route = before;
    return rc;
}

struct err *kvm_irq_init(struct accel_vm *vm)
{
    for (unsigned pin = 0; pin < ACCEL_IOAPIC_PINS; pin++)
        vm->routes[pin].used = true;
    lock_take(&vm->route_lock);
    int rc = commit_locked(vm);
    lock_drop(&vm->route_lock);
    return rc < 0 ? err_errno(rc, "KVM_SET_GSI_ROUTING") : NULL;
}

void kvm_irq_fini(struct accel_vm *vm)
{
    lock_fini(&vm->route_lock);
}

void kvm_msi_send(struct accel_vm *vm, uint64_t address, uint32_t data)
{
    struct kvm_msi msi = {
        .address_lo = (uint32_t)address, .address_hi = address >> 32, .data = data};
    /* A message that no APIC takes is lost, as on hardware. */
    kvm_call(vm->fd, KVM_SIGNAL_MSI, &msi);
}

/* As a message: the ioctl KVM_NMI would wait until the vCPU leaves KVM_RUN. */
void kvm_nmi(struct accel_vcpu *vcpu)
{
    kvm_msi_send(vcpu->vm, MSI_ADDRESS | (uint64_t)vcpu->index << MSI_DESTINATION_SHIFT,
                 MSI_DATA_NMI);
}

void kvm_ioapic_route(struct accel_vm *vm, unsigned pin, uint64_t address, uint32_t data,
                      bool level, bool masked)
{
    /*
     * A masked pin keeps its last route: guests mask a level interrupt while they serve it, and
     * its end must be reported all the same.
     */
    if (pin >= ACCEL_IOAPIC_PINS || masked)
        return;
    data = level ? data | MSI_DATA_LEVEL : data & ~MSI_DATA_LEVEL;
    lock_take(&vm->route_lock);
    int rc = program_locked(vm, pin, address, data);
    lock_drop(&vm->route_lock);
    if (rc < 0)
        log_error("kvm: cannot route IOAPIC pin %u: error %d", pin, -rc);
}

static int doorbell(struct accel_vm *vm, uint64_t gpa, unsigned size, bool match, uint64_t value,
                    int event_fd, uint32_t flags)
{
    struct kvm_ioeventfd request = {
        .datamatch = match ? value : 0,
        .addr = gpa,
        .len = size,
        .fd = event_fd,
        .flags = flags | (match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0u),
    };
    return kvm_call(vm->fd, KVM_IOEVENTFD, &request);
}

struct err *kvm_doorbell_add(struct accel_vm *vm, uint64_t gpa, unsigned size, bool match,
                             uint64_t value, int event_fd)
{
    if (!size && (match || !vm->any_width))
        return err_new("kvm: a doorbell %s needs a width", match ? "with a value" : "here");
    int rc = doorbell(vm, gpa, size, match, value, event_fd, 0);
    return rc < 0 ? err_errno(rc, "kvm: doorbell at 0x%llx", (unsigned long long)gpa) : NULL;
}

void kvm_doorbell_remove(struct accel_vm *vm, uint64_t gpa, unsigned size, bool match,
                         uint64_t value, int event_fd)
{
    doorbell(vm, gpa, size, match, value, event_fd, KVM_IOEVENTFD_FLAG_DEASSIGN);
}

static int irqfd(struct accel_vm *vm, unsigned gsi, int event_fd, uint32_t flags)
{
    struct kvm_irqfd request = {.fd = event_fd, .gsi = gsi, .flags = flags};
    return kvm_call(vm->fd, KVM_IRQFD, &request);
}

static void release_locked(struct accel_vm *vm, unsigned gsi)
{
    vm->routes[gsi] = (struct kvm_route){0};
    commit_locked(vm);
}

static struct err *irqfd_add_locked(struct accel_vm *vm, int event_fd, uint64_t address,
                                    uint32_t data, unsigned *result)
{
    unsigned gsi = ACCEL_IOAPIC_PINS;
    while (gsi < KVM_GSIS_MAX && vm->routes[gsi].used)
        gsi++;
    if (gsi == KVM_GSIS_MAX)
        return err_new("kvm: all %d interrupt routes are taken", KVM_GSIS_MAX);
    int rc = program_locked(vm, gsi, address, data);
    if (rc < 0)
        return err_errno(rc, "kvm: KVM_SET_GSI_ROUTING");
    rc = irqfd(vm, gsi, event_fd, 0);
    if (rc < 0) {
        release_locked(vm, gsi);
        return err_errno(rc, "kvm: KVM_IRQFD");
    }
    *result = gsi;
    return NULL;
}

struct err *kvm_irqfd_add(struct accel_vm *vm, int event_fd, uint64_t address, uint32_t data,
                          unsigned *gsi)
{
    lock_take(&vm->route_lock);
    struct err *err = irqfd_add_locked(vm, event_fd, address, data, gsi);
    lock_drop(&vm->route_lock);
    return err;
}

struct err *kvm_irqfd_route(struct accel_vm *vm, unsigned gsi, uint64_t address, uint32_t data)
{
    if (gsi < ACCEL_IOAPIC_PINS || gsi >= KVM_GSIS_MAX)
        return err_new("kvm: no such interrupt route: %u", gsi);
    lock_take(&vm->route_lock);
    int rc = vm->routes[gsi].used ? program_locked(vm, gsi, address, data) : -ENOENT;
    lock_drop(&vm->route_lock);
    return rc < 0 ? err_errno(rc, "kvm: interrupt route %u", gsi) : NULL;
}

void kvm_irqfd_remove(struct accel_vm *vm, unsigned gsi, int event_fd)
{
    if (gsi < ACCEL_IOAPIC_PINS || gsi >= KVM_GSIS_MAX)
        return;
    irqfd(vm, gsi, event_fd, KVM_IRQFD_FLAG_DEASSIGN);
    lock_take(&vm->route_lock);
    if (vm->routes[gsi].used)
        release_locked(vm, gsi);
    lock_drop(&vm->route_lock);
}
