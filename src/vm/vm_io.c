/*
 * Between accelerator and board: port and memory accesses go to the buses, interrupts to the
 * engine.
 *
 * vCPU threads, and for interrupts any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "base/trace.h"
#include "hw/chipset/layout.h"
#include "vm/vm_internal.h"

static uint32_t pio_read(void *opaque, uint16_t port, unsigned size)
{
    struct vm *vm = opaque;

    uint32_t value = (uint32_t)io_bus_read(vm->pio, port, size);
    TRACE(pio_read, port, size, value);
    return value;
}

static void pio_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct vm *vm = opaque;

    TRACE(pio_write, port, size, value);
    boot_watch_pio(&vm->boot_watch, port, value);
    io_bus_write(vm->pio, port, size, value);
}

static uint64_t mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
    struct vm *vm = opaque;

    uint64_t value = io_bus_read(vm->mmio, gpa, size);
    TRACE(mmio_read, gpa, size, value);
    return value;
}

static void mmio_write(void *opaque, uint64_t gpa, unsigned size, uint64_t value)
{
    struct vm *vm = opaque;

    TRACE(mmio_write, gpa, size, value);
    io_bus_write(vm->mmio, gpa, size, value);
}

static uint8_t extint_ack(void *opaque)
{
    struct vm *vm = opaque;

    return board_extint_ack(&vm->board);
}

static void eoi(void *opaque, uint8_t vector)
{
    struct vm *vm = opaque;

    ioapic_eoi(vm->board.ioapic, vector);
}

const struct accel_io vm_accel_io = {
    .pio_read = pio_read,
    .pio_write = pio_write,
    .mmio_read = mmio_read,
    .mmio_write = mmio_write,
    .extint_ack = extint_ack,
    .ioapic_eoi = eoi,
};

/* --- what devices ask for --- */

static void msi_send(void *opaque, uint64_t address, uint32_t data)
{
    struct vm *vm = opaque;

    TRACE(msi, address, data);
    vm->accel->msi_send(vm->accel_vm, address, data);
}

static struct err *doorbell_add(void *opaque, uint64_t gpa, unsigned size, int event_fd)
{
    struct vm *vm = opaque;

    return vm->accel->doorbell_add(vm->accel_vm, gpa, size, false, 0, event_fd);
}

static void doorbell_remove(void *opaque, uint64_t gpa, unsigned size, int event_fd)
{
    struct vm *vm = opaque;

    vm->accel->doorbell_remove(vm->accel_vm, gpa, size, false, 0, event_fd);
}

static void memory_changed(void *opaque)
{
    struct vm *vm = opaque;
    struct err *err = vm->accel->ram_changed(vm->accel_vm);

    /* A region waits for a moment without running vCPUs, which the control loop makes. */
    if (__atomic_load_n(&vm->started, __ATOMIC_RELAXED) && gmem_unsettled(vm->gmem))
        vm_raise(vm, VM_EVENT_NONE, 0, NULL);
    if (!err)
        return;
    vm_raise(vm, VM_EVENT_ERROR, 0, err_text(err));
    err_free(err);
}

static void power(void *opaque, enum hw_power_event event, unsigned status)
{
    struct vm *vm = opaque;

    switch (event) {
    case HW_POWER_OFF:
        vm_raise(vm, VM_EVENT_OFF, 0, NULL);
        break;
    case HW_POWER_SLEEP:
        vm_raise(vm, VM_EVENT_SLEEP, 0, NULL);
        break;
    case HW_POWER_WAKE:
        vm_raise(vm, VM_EVENT_WAKE, 0, NULL);
        break;
    case HW_POWER_RESET:
        vm_raise(vm, VM_EVENT_RESET, 0, NULL);
        break;
    case HW_POWER_EXIT:
        vm_raise(vm, VM_EVENT_EXIT, status, NULL);
        break;
    }
}

const struct hw_env_ops vm_env_ops = {
    .msi_send = msi_send,
    .doorbell_add = doorbell_add,
    .doorbell_remove = doorbell_remove,
    .memory_changed = memory_changed,
    .power = power,
};

static void ioapic_route(void *opaque, unsigned pin, uint64_t address, uint32_t data, bool level,
                         bool masked)
{
    struct vm *vm = opaque;

    /* Firmware and boot loaders do without the I/O APIC: a kernel is there. */
    if (!masked && vm->timeline && board_has_firmware(&vm->board))
        timeline_mark(vm->timeline, TIMELINE_KERNEL_ENTRY);
    vm->accel->ioapic_route(vm->accel_vm, pin, address, data, level, masked);
}

static void extint(void *opaque, bool level)
{
    struct vm *vm = opaque;

    vm->accel->extint_set(vm->accel_vm, level);
}

void vm_wire_board(struct vm *vm, struct board_wiring *wiring)
{
    *wiring = (struct board_wiring){
        .io_loop = vm->io_loop,
        .opaque = vm,
        .ioapic_route = ioapic_route,
        .extint = extint,
    };
}
