/*
 * What a VM is made of. See vm_look.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vm/vm_look.h"

#include <string.h>

#include "hw/pci/pci.h"
#include "hw/virtio/virtio.h"
#include "vm/vm_internal.h"

const struct vm_config *vm_look_config(const struct vm *vm)
{
    return vm->config;
}

int vm_look_thread(const struct vm *vm, unsigned cpu)
{
    return __atomic_load_n(&vm->cpu[cpu].tid, __ATOMIC_RELAXED);
}

void vm_look_cpu_stats(const struct vm *vm, unsigned cpu, struct accel_stats *stats)
{
    *stats = (struct accel_stats){0};
    vm->accel->vcpu_stats(vm->cpu[cpu].vcpu, stats);
}

/* The I/O loop counts on meanwhile. */
static uint64_t look_at(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

void vm_look_net_stats(const struct vm *vm, unsigned net, struct vm_net_stats *stats)
{
    *stats = (struct vm_net_stats){0};
    for (unsigned queue = 0; queue < VM_QUEUES_MAX; queue++) {
        /* The host's end: what it receives is what the guest sends. */
        const struct net_port *port = vm->board.port[net][queue];
        if (!port)
            continue;
        stats->tx_frames += look_at(&port->rx_frames);
        stats->tx_bytes += look_at(&port->rx_bytes);
        stats->rx_frames += look_at(&port->tx_frames);
        stats->rx_bytes += look_at(&port->tx_bytes);
        stats->dropped += look_at(&port->dropped);
    }
}

void vm_look_queues(struct vm *vm, void (*each)(void *opaque, const struct vm_queue_stats *stats),
                    void *opaque)
{
    struct device *device;

    list_for_each (device, &vm->board.devices, link) {
        struct virtio_device *virtio = virtio_from_device(device);
        for (unsigned i = 0; virtio && i < virtio->queue_count; i++) {
            struct virtq_stats stats;
            virtq_get_stats(virtio_queue(virtio, i), &stats);
            if (stats.kicks || stats.requests)
                each(opaque, &(struct vm_queue_stats){device->id, i, stats.kicks, stats.requests,
                                                      stats.interrupts});
        }
    }
}

/* Its address is read as the guest would read it, so that half of a change is never seen. */
static void look_at_bar(struct pci_device *pci, unsigned index, struct vm_pci_bar *bar)
{
    unsigned offset = PCI_BAR0 + 4 * index;

    *bar = (struct vm_pci_bar){
        .index = index,
        .io = pci->bar[index].kind == PCI_BAR_IO,
        .wide = pci->bar[index].kind == PCI_BAR_MEM64,
        .prefetchable = pci->bar[index].prefetchable,
        .size = pci->bar[index].size,
        .address = pci_config_read(pci, offset, 4),
    };
    if (bar->wide)
        bar->address |= (uint64_t)pci_config_read(pci, offset + 4, 4) << 32;
    bar->address &= ~(bar->size - 1);
}

bool vm_look_pci(struct vm *vm, uint8_t devfn, struct vm_pci_function *function)
{
    struct pci_device *pci = vm->board.bus ? pci_bus_device(vm->board.bus, devfn) : NULL;

    if (!pci)
        return false;
    *function = (struct vm_pci_function){
        .devfn = devfn,
        .vendor = (uint16_t)pci_config_read(pci, PCI_VENDOR_ID, 2),
        .device = (uint16_t)pci_config_read(pci, PCI_DEVICE_ID, 2),
        .class_code = (uint16_t)pci_config_read(pci, PCI_CLASS + 1, 2),
        .subsystem_vendor = (uint16_t)pci_config_read(pci, PCI_SUBSYSTEM_VENDOR, 2),
        .subsystem = (uint16_t)pci_config_read(pci, PCI_SUBSYSTEM_ID, 2),
        .irq_pin = (uint8_t)pci_config_read(pci, PCI_INTERRUPT_PIN, 1),
        .irq_line = (uint8_t)pci_config_read(pci, PCI_INTERRUPT_LINE, 1),
        .id = pci->device.id,
    };
    for (unsigned i = 0; i < PCI_BARS; i++)
        if (pci->bar[i].kind != PCI_BAR_NONE)
            look_at_bar(pci, i, &function->bar[function->bars++]);
    return true;
}
