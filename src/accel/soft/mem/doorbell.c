/*
 * Doorbells: guest writes that become a tick of an eventfd instead of a device callback; and
 * irqfds, eventfds that become MSIs, watched by one thread with epoll that starts with the first of
 * them.
 *
 * Lock: table_lock (LOCK_ACCEL) for changes. The doorbell table is read without it: it is replaced
 * as a whole and the old one kept until the VM ends, for the vCPU that may still walk it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "accel/soft/run.h"

struct doorbell {
    uint64_t gpa, value;
    unsigned size;
    bool match;
    int fd;
};

struct soft_doorbells {
    struct soft_doorbells *old;
    unsigned count;
    struct doorbell list[];
};

bool soft_doorbell(struct soft_vm *vm, uint64_t gpa, unsigned size, uint64_t value)
{
    const struct soft_doorbells *table = __atomic_load_n(&vm->doorbells, __ATOMIC_ACQUIRE);
    for (unsigned i = 0; table && i < table->count; i++) {
        const struct doorbell *d = &table->list[i];
        if (d->gpa != gpa || (d->size && d->size != size) || (d->match && d->value != value))
            continue;
        uint64_t one = 1;
        if (write(d->fd, &one, sizeof(one)) != sizeof(one) && errno != EAGAIN)
            return false;
        return true;
    }
    return false;
}

/* A copy of the table without the entries equal to `drop`, with room for one more. */
static struct soft_doorbells *copy_table(const struct soft_doorbells *old,
                                         const struct doorbell *drop)
{
    unsigned count = old ? old->count : 0;
    struct soft_doorbells *table = xcalloc(1, sizeof(*table) + (count + 1) * sizeof(*drop));
    for (unsigned i = 0; i < count; i++) {
        const struct doorbell *d = &old->list[i];
        if (drop && d->gpa == drop->gpa && d->size == drop->size && d->match == drop->match &&
            d->value == drop->value && d->fd == drop->fd)
            continue;
        table->list[table->count++] = *d;
    }
    return table;
}

static void publish(struct soft_vm *vm, struct soft_doorbells *table)
{
    table->old = vm->doorbells;
    __atomic_store_n(&vm->doorbells, table, __ATOMIC_RELEASE);
}

struct err *soft_doorbell_add(struct accel_vm *accel, uint64_t gpa, unsigned size, bool match,
                              uint64_t value, int event_fd)
{
    struct soft_vm *vm = (struct soft_vm *)accel;
    lock_take(&vm->table_lock);
    struct soft_doorbells *table = copy_table(vm->doorbells, NULL);
    table->list[table->count++] =
        (struct doorbell){.gpa = gpa, .size = size, .match = match, .value = value, .fd = event_fd};
    publish(vm, table);
    lock_drop(&vm->table_lock);
    return NULL;
}

void soft_doorbell_remove(struct accel_vm *accel, uint64_t gpa, unsigned size, bool match,
                          uint64_t value, int event_fd)
{
    struct soft_vm *vm = (struct soft_vm *)accel;
    struct doorbell drop = {
        .gpa = gpa, .size = size, .match = match, .value = value, .fd = event_fd};
    lock_take(&vm->table_lock);
    publish(vm, copy_table(vm->doorbells, &drop));
    lock_drop(&vm->table_lock);
}

void soft_doorbells_free(struct soft_vm *vm)
{
    while (vm->doorbells) {
        struct soft_doorbells *old = vm->doorbells->old;
        free(vm->doorbells);
        vm->doorbells = old;
    }
}

/* ---- irqfds ---- */

#define IRQFDS_MAX 1024

struct irqfd {
    int fd; /* -1: free */
    uint64_t address;
    uint32_t data;
};

struct soft_irqfds {
    struct soft_vm *vm;
    int epoll_fd, stop_fd;
    pthread_t thread;
    struct irqfd list[IRQFDS_MAX];
};

static void fire(struct soft_irqfds *irqfds, unsigned gsi)
{
    uint64_t ticks;
    lock_take(&irqfds->vm->table_lock);
    struct irqfd entry = irqfds->list[gsi];
    /* Drained under the lock, so that the descriptor is still the one that was added. */
    bool rang = entry.fd >= 0 && read(entry.fd, &ticks, sizeof(ticks)) == sizeof(ticks);
    lock_drop(&irqfds->vm->table_lock);
    if (rang)
        soft_msi(irqfds->vm, entry.address, entry.data);
}

static void *irqfd_main(void *opaque)
{
    struct soft_irqfds *irqfds = opaque;
    for (;;) {
        struct epoll_event events[16];
        int count = epoll_wait(irqfds->epoll_fd, events, ARRAY_SIZE(events), -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.u32 == IRQFDS_MAX)
                return NULL;
            fire(irqfds, events[i].data.u32);
        }
        if (count < 0 && errno != EINTR)
            return NULL;
    }
}

static struct err *start(struct soft_vm *vm)
{
    struct soft_irqfds *irqfds = xcalloc(1, sizeof(*irqfds));
    irqfds->vm = vm;
    for (unsigned i = 0; i < IRQFDS_MAX; i++)
        irqfds->list[i].fd = -1;
    irqfds->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    irqfds->stop_fd = eventfd(0, EFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = IRQFDS_MAX};
    int error = 0;
    if (irqfds->epoll_fd < 0 || irqfds->stop_fd < 0 ||
        epoll_ctl(irqfds->epoll_fd, EPOLL_CTL_ADD, irqfds->stop_fd, &event))
        error = errno;
    else
        error = pthread_create(&irqfds->thread, NULL, irqfd_main, irqfds);
    if (error) {
        fd_cleanup(&irqfds->epoll_fd);
        fd_cleanup(&irqfds->stop_fd);
        free(irqfds);
        return err_errno(error, "soft: interrupt descriptors");
    }
    vm->irqfds = irqfds;
    return NULL;
}

static struct err *add_locked(struct soft_vm *vm, int event_fd, uint64_t address, uint32_t data,
                              unsigned *gsi)
{
    if (!vm->irqfds)
        TRY(start(vm));
    struct soft_irqfds *irqfds = vm->irqfds;
    for (unsigned i = 0; i < IRQFDS_MAX; i++) {
        if (irqfds->list[i].fd >= 0)
            continue;
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        if (epoll_ctl(irqfds->epoll_fd, EPOLL_CTL_ADD, event_fd, &event))
            return err_errno(errno, "soft: watch an interrupt descriptor");
        irqfds->list[i] = (struct irqfd){.fd = event_fd, .address = address, .data = data};
        *gsi = ACCEL_IOAPIC_PINS + i;
        return NULL;
    }
    return err_new("soft: more than %u interrupt descriptors", IRQFDS_MAX);
}

struct err *soft_irqfd_add(struct accel_vm *accel, int event_fd, uint64_t address, uint32_t data,
                           unsigned *gsi)
{
    struct soft_vm *vm = (struct soft_vm *)accel;
    lock_take(&vm->table_lock);
    struct err *err = add_locked(vm, event_fd, address, data, gsi);
    lock_drop(&vm->table_lock);
    return err;
}

struct err *soft_irqfd_route(struct accel_vm *accel, unsigned gsi, uint64_t address, uint32_t data)
{
    struct soft_vm *vm = (struct soft_vm *)accel;
    unsigned i = gsi - ACCEL_IOAPIC_PINS;
    if (gsi < ACCEL_IOAPIC_PINS || i >= IRQFDS_MAX)
        return err_new("soft: no interrupt route %u", gsi);
    lock_take(&vm->table_lock);
    bool there = vm->irqfds && vm->irqfds->list[i].fd >= 0;
    if (there) {
        vm->irqfds->list[i].address = address;
        vm->irqfds->list[i].data = data;
    }
    lock_drop(&vm->table_lock);
    return there ? NULL : err_new("soft: no interrupt route %u", gsi);
}

void soft_irqfd_remove(struct accel_vm *accel, unsigned gsi, int event_fd)
{
    struct soft_vm *vm = (struct soft_vm *)accel;
    unsigned i = gsi - ACCEL_IOAPIC_PINS;
    if (gsi < ACCEL_IOAPIC_PINS || i >= IRQFDS_MAX)
        return;
    lock_take(&vm->table_lock);
    if (vm->irqfds && vm->irqfds->list[i].fd == event_fd) {
        epoll_ctl(vm->irqfds->epoll_fd, EPOLL_CTL_DEL, event_fd, NULL);
        vm->irqfds->list[i].fd = -1;
    }
    lock_drop(&vm->table_lock);
}

void soft_irqfds_free(struct soft_vm *vm)
{
    struct soft_irqfds *irqfds = vm->irqfds;
    if (!irqfds)
        return;
    uint64_t one = 1;
    if (write(irqfds->stop_fd, &one, sizeof(one)) == sizeof(one))
        pthread_join(irqfds->thread, NULL);
    fd_cleanup(&irqfds->epoll_fd);
    fd_cleanup(&irqfds->stop_fd);
    free(irqfds);
    vm->irqfds = NULL;
}
