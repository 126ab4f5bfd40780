/*
 * Doorbells and irqfds of the engine without a guest. Under the VM's mutex.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/none/none_table.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct err *none_doorbell_add(struct accel_vm *accel, uint64_t gpa, unsigned size, bool match,
                              uint64_t value, int event_fd)
{
    struct none_vm *vm = (struct none_vm *)accel;
    struct err *err = err_new("more than %u doorbells", NONE_DOORBELLS);
    pthread_mutex_lock(&vm->mutex);
    for (unsigned i = 0; i < NONE_DOORBELLS; i++) {
        if (vm->doorbells[i].used)
            continue;
        vm->doorbells[i] = (struct none_doorbell){gpa, value, size, match, true, event_fd};
        err_free(err);
        err = NULL;
        break;
    }
    pthread_mutex_unlock(&vm->mutex);
    return err;
}

void none_doorbell_remove(struct accel_vm *accel, uint64_t gpa, unsigned size, bool match,
                          uint64_t value, int event_fd)
{
    struct none_vm *vm = (struct none_vm *)accel;
    pthread_mutex_lock(&vm->mutex);
    for (unsigned i = 0; i < NONE_DOORBELLS; i++) {
        struct none_doorbell *bell = &vm->doorbells[i];
        if (bell->used && bell->gpa == gpa && bell->size == size && bell->match == match &&
            (!match || bell->value == value) && bell->fd == event_fd) {
            bell->used = false;
            break;
        }
    }
    pthread_mutex_unlock(&vm->mutex);
}

bool none_doorbell_ring(struct none_vm *vm, uint64_t gpa, unsigned size, uint64_t value)
{
    bool rung = false;
    pthread_mutex_lock(&vm->mutex);
    for (unsigned i = 0; i < NONE_DOORBELLS; i++) {
        const struct none_doorbell *bell = &vm->doorbells[i];
        if (bell->used && bell->gpa == gpa && (!bell->size || bell->size == size) &&
            (!bell->match || bell->value == value)) {
            eventfd_write(bell->fd, 1);
            rung = true;
        }
    }
    pthread_mutex_unlock(&vm->mutex);
    return rung;
}

struct err *none_irqfd_add(struct accel_vm *accel, int event_fd, uint64_t address, uint32_t data,
                           unsigned *gsi)
{
    struct none_vm *vm = (struct none_vm *)accel;
    struct err *err = err_new("more than %u irqfds", NONE_IRQFDS);
    pthread_mutex_lock(&vm->mutex);
    for (unsigned i = 0; i < NONE_IRQFDS; i++) {
        if (vm->irqfds[i].used)
            continue;
        vm->irqfds[i] = (struct none_irqfd){event_fd, true, {address, data}};
        *gsi = ACCEL_IOAPIC_PINS + i;
        err_free(err);
        err = NULL;
        break;
    }
    pthread_mutex_unlock(&vm->mutex);
    return err;
}

static struct none_irqfd *find_irqfd(struct none_vm *vm, unsigned gsi)
{
    unsigned index = gsi - ACCEL_IOAPIC_PINS;
    return gsi >= ACCEL_IOAPIC_PINS && index < NONE_IRQFDS && vm->irqfds[index].used
               ? &vm->irqfds[index]
               : NULL;
}

struct err *none_irqfd_route(struct accel_vm *accel, unsigned gsi, uint64_t address, uint32_t data)
{
    struct none_vm *vm = (struct none_vm *)accel;
    pthread_mutex_lock(&vm->mutex);
    struct none_irqfd *irqfd = find_irqfd(vm, gsi);
    if (irqfd)
        irqfd->msi = (struct none_msi){address, data};
    pthread_mutex_unlock(&vm->mutex);
    return irqfd ? NULL : err_new("GSI %u is not allocated", gsi);
}

void none_irqfd_remove(struct accel_vm *accel, unsigned gsi, int event_fd)
{
    struct none_vm *vm = (struct none_vm *)accel;
    pthread_mutex_lock(&vm->mutex);
    struct none_irqfd *irqfd = find_irqfd(vm, gsi);
    if (irqfd && irqfd->fd == event_fd)
        irqfd->used = false;
    pthread_mutex_unlock(&vm->mutex);
}

void none_irqfd_poll(struct accel_vm *accel)
{
    struct none_vm *vm = (struct none_vm *)accel;
    for (unsigned i = 0; i < NONE_IRQFDS; i++) {
        pthread_mutex_lock(&vm->mutex);
        struct none_irqfd irqfd = vm->irqfds[i];
        pthread_mutex_unlock(&vm->mutex);
        struct pollfd ready = {.fd = irqfd.fd, .events = POLLIN};
        eventfd_t count;
        if (irqfd.used && poll(&ready, 1, 0) == 1 && !eventfd_read(irqfd.fd, &count))
            accel_none.msi_send(accel, irqfd.msi.address, irqfd.msi.data);
    }
}
