/*
 * The root bus: ways into configuration space (ECAM: PCI Express base 4.0, 7.2.2; ports 0xcf8 and
 * 0xcfc: PCI local bus 3.0, 3.2.2.3.2), interrupt lines, addresses for BARs.
 *
 * There is one bus, number 0, and no bridge to another. LOCK_PCI_BUS covers the table of functions,
 * the address register and the interrupt counts; an access takes the function's own lock, never
 * both the other way round.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "hw/core/env.h"
#include "hw/pci/internal.h"

#define FUNCTIONS 256
#define HEADER_MULTIFUNCTION 0x80
#define PORT_CF8 0xcf8
#define PORT_CFC 0xcfc
#define CF8_ENABLE 0x80000000u
/* BARs up to this size stay below 4 GiB, where every guest reaches them. */
#define SMALL_BAR MIB(16)

struct pci_bus {
    struct pci_bus_config config;
    struct lock lock;
    struct pci_device *function[FUNCTIONS]; /* atomic: looked up without the lock */
    uint32_t config_address;
    unsigned intx_count[4]; /* functions that assert the line */
    struct io_region ecam, cf8, cfc;
};

static struct pci_device *lookup(struct pci_bus *bus, unsigned bus_number, unsigned devfn)
{
    if (bus_number)
        return NULL;
    return __atomic_load_n(&bus->function[devfn & 0xff], __ATOMIC_ACQUIRE);
}

void pci_bus_locked(struct pci_bus *bus, void (*fn)(void *opaque), void *opaque)
{
    lock_take(&bus->lock);
    fn(opaque);
    lock_drop(&bus->lock);
}

struct pci_device *pci_bus_device(struct pci_bus *bus, uint8_t devfn)
{
    return lookup(bus, 0, devfn);
}

static uint64_t ecam_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_bus *bus = opaque;
    struct pci_device *pci = lookup(bus, (unsigned)(offset >> 20), (unsigned)(offset >> 12));
    unsigned at = (unsigned)offset & (PCI_CONFIG_SIZE - 1);
    if (!pci)
        return UINT64_MAX;
    if (size <= 4)
        return pci_config_read(pci, at, size);
    return pci_config_read(pci, at, 4) | (uint64_t)pci_config_read(pci, at + 4, 4) << 32;
}

static void ecam_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_bus *bus = opaque;
    struct pci_device *pci = lookup(bus, (unsigned)(offset >> 20), (unsigned)(offset >> 12));
    unsigned at = (unsigned)offset & (PCI_CONFIG_SIZE - 1);
    if (!pci)
        return;
    pci_config_write(pci, at, MIN(size, 4u), (uint32_t)value);
    if (size == 8)
        pci_config_write(pci, at + 4, 4, (uint32_t)(value >> 32));
}

static const struct io_ops ecam_ops = {ecam_read, ecam_write};

uint32_t pci_bus_config_address(struct pci_bus *bus)
{
    lock_take(&bus->lock);
    uint32_t address = bus->config_address;
    lock_drop(&bus->lock);
    return address;
}

void pci_bus_set_config_address(struct pci_bus *bus, uint32_t address)
{
    lock_take(&bus->lock);
    bus->config_address = address & (CF8_ENABLE | 0x00fffffc);
    lock_drop(&bus->lock);
}

/* Only a whole-register access is the address register's; byte 1 alone is the reset register's. */
static uint64_t cf8_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_bus *bus = opaque;
    if (size == 4)
        return pci_bus_config_address(bus);
    if (offset == 1 && size == 1 && bus->config.cf9_ops)
        return bus->config.cf9_ops->read(bus->config.cf9_opaque, 0, 1);
    return UINT64_MAX;
}

static void cf8_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_bus *bus = opaque;
    if (size == 4)
        pci_bus_set_config_address(bus, (uint32_t)value);
    else if (offset == 1 && size == 1 && bus->config.cf9_ops)
        bus->config.cf9_ops->write(bus->config.cf9_opaque, 0, 1, value);
}

static const struct io_ops cf8_ops = {cf8_read, cf8_write};

static struct pci_device *cfc_target(struct pci_bus *bus, unsigned *at)
{
    uint32_t address = pci_bus_config_address(bus);
    if (!(address & CF8_ENABLE))
        return NULL;
    *at += address & 0xfc;
    return lookup(bus, address >> 16 & 0xff, address >> 8 & 0xff);
}

static uint64_t cfc_read(void *opaque, uint64_t offset, unsigned size)
{
    unsigned at = (unsigned)offset;
    struct pci_device *pci = cfc_target(opaque, &at);
    return pci ? pci_config_read(pci, at, size) : UINT64_MAX;
}

static void cfc_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    unsigned at = (unsigned)offset;
    struct pci_device *pci = cfc_target(opaque, &at);
    if (pci)
        pci_config_write(pci, at, size, (uint32_t)value);
}

static const struct io_ops cfc_ops = {cfc_read, cfc_write};

struct err *pci_bus_new(const struct pci_bus_config *config, struct pci_bus **result)
{
    if (config->ecam_base && (config->ecam_buses < 1 || config->ecam_buses > 256))
        return err_new("PCI: ECAM for %u buses", config->ecam_buses);
    struct pci_bus *bus = xcalloc(1, sizeof(*bus));
    bus->config = *config;
    lock_init(&bus->lock, LOCK_PCI_BUS);
    bus->ecam = (struct io_region){
        .name = "pci-ecam", .size = MIB(config->ecam_buses), .ops = &ecam_ops, .opaque = bus};
    pci_bus_set_ecam(bus, config->ecam_base);
    if (config->cf8) {
        bus->cf8 = (struct io_region){.name = "pci-cf8", .size = 4, .ops = &cf8_ops, .opaque = bus};
        bus->cfc = (struct io_region){.name = "pci-cfc", .size = 4, .ops = &cfc_ops, .opaque = bus};
        io_bus_add(config->env->pio, &bus->cf8, PORT_CF8);
        io_bus_add(config->env->pio, &bus->cfc, PORT_CFC);
    }
    *result = bus;
    return NULL;
}

void pci_bus_free(struct pci_bus *bus)
{
    if (!bus)
        return;
    io_bus_remove(&bus->ecam);
    io_bus_remove(&bus->cf8);
    io_bus_remove(&bus->cfc);
    lock_fini(&bus->lock);
    free(bus);
}

void pci_bus_set_ecam(struct pci_bus *bus, uint64_t base)
{
    struct io_region *ecam = &bus->ecam;

    if (ecam->bus && ecam->base == base)
        return;
    io_bus_remove(ecam);
    if (base)
        io_bus_add(bus->config.env->mmio, ecam, base);
}

static int first_free_slot(const struct pci_bus *bus)
{
    for (int slot = 1; slot < 32; slot++) {
        if (!bus->function[slot << 3])
            return slot << 3;
    }
    return -1;
}

struct err *pci_bus_attach(struct pci_bus *bus, struct pci_device *pci, int devfn)
{
    if (devfn < 0)
        devfn = first_free_slot(bus);
    if (devfn < 0 || devfn >= FUNCTIONS)
        return err_new("PCI: all 32 slots are taken");
    if (bus->function[devfn])
        return err_new("PCI: %02x.%x is taken by '%s'", (unsigned)devfn >> 3, (unsigned)devfn & 7,
                       bus->function[devfn]->device.id);
    lock_take(&bus->lock);
    pci->bus = bus;
    pci->devfn = (uint8_t)devfn;
    __atomic_store_n(&bus->function[devfn], pci, __ATOMIC_RELEASE);
    /* Function 0 tells whether it is worth looking for others. */
    struct pci_device *first = bus->function[devfn & ~7];
    for (int i = 1; first && i < 8; i++) {
        if (bus->function[(devfn & ~7) + i])
            first->config[PCI_HEADER_TYPE] |= HEADER_MULTIFUNCTION;
    }
    lock_drop(&bus->lock);
    return NULL;
}

void pci_bus_detach(struct pci_device *pci)
{
    struct pci_bus *bus = pci->bus;
    if (!bus)
        return;
    if (pci->intx_driven) {
        pci->intx_driven = false;
        pci_bus_intx(pci, false, false);
    }
    lock_take(&bus->lock);
    __atomic_store_n(&bus->function[pci->devfn], NULL, __ATOMIC_RELEASE);
    lock_drop(&bus->lock);
    pci->bus = NULL;
}

void pci_bus_intx(struct pci_device *pci, bool level, bool quietly)
{
    struct pci_bus *bus = pci->bus;
    if (!bus)
        return;
    unsigned line = ((pci->devfn >> 3) + pci->config[PCI_INTERRUPT_PIN] - 1u) % 4;
    lock_take(&bus->lock);
    unsigned before = bus->intx_count[line];
    bus->intx_count[line] = level ? before + 1 : before - 1;
    /* Under the lock, so that two devices' changes reach the controller in their order. */
    if (!quietly && !before != !bus->intx_count[line])
        irq_set(&bus->config.intx[line], level);
    lock_drop(&bus->lock);
}

/* One BAR that wants a place. */
struct claim {
    struct pci_device *pci;
    unsigned index;
    uint64_t size;
};

static int by_falling_size(const void *a, const void *b)
{
    const struct claim *x = a, *y = b;
    if (x->size != y->size)
        return x->size < y->size ? 1 : -1;
    if (x->pci->devfn != y->pci->devfn)
        return x->pci->devfn < y->pci->devfn ? -1 : 1;
    return (int)x->index - (int)y->index;
}

static size_t collect(struct pci_bus *bus, struct claim *claims)
{
    size_t count = 0;
    for (unsigned devfn = 0; devfn < FUNCTIONS; devfn++) {
        struct pci_device *pci = bus->function[devfn];
        for (unsigned i = 0; pci && i < PCI_BARS; i++) {
            if (pci->bar[i].kind != PCI_BAR_NONE)
                claims[count++] = (struct claim){pci, i, pci->bar[i].size};
        }
    }
    qsort(claims, count, sizeof(*claims), by_falling_size);
    return count;
}

struct window {
    uint64_t next, end;
};

static bool place(struct window *window, uint64_t size, uint64_t *address)
{
    uint64_t at = ALIGN_UP(window->next, size);
    if (at < window->next || at > window->end || size > window->end - at)
        return false;
    window->next = at + size;
    *address = at;
    return true;
}

struct err *pci_bus_assign(struct pci_bus *bus)
{
    const struct pci_bus_config *config = &bus->config;
    struct window io = {config->io_base, config->io_base + (uint64_t)config->io_size};
    struct window low = {config->mmio32_base, config->mmio32_base + config->mmio32_size};
    struct window high = {config->mmio64_base, config->mmio64_base + config->mmio64_size};
    struct claim *claims = xcalloc((size_t)FUNCTIONS * PCI_BARS, sizeof(*claims));
    size_t count = collect(bus, claims);
    struct err *err = NULL;

    for (size_t i = 0; i < count && !err; i++) {
        struct pci_device *pci = claims[i].pci;
        uint64_t size = claims[i].size, address = 0;
        unsigned kind = pci->bar[claims[i].index].kind;
        bool placed;
        if (kind == PCI_BAR_IO)
            placed = place(&io, size, &address);
        else if (kind == PCI_BAR_MEM64 && size > SMALL_BAR)
            placed = place(&high, size, &address) || place(&low, size, &address);
        else
            placed = place(&low, size, &address) ||
                     (kind == PCI_BAR_MEM64 && place(&high, size, &address));
        if (!placed) {
            err = err_new("PCI: no room for BAR %u of '%s'", claims[i].index, pci->device.id);
            break;
        }
        lock_take(&pci->device.lock);
        pci_bar_set_address(pci, claims[i].index, address);
        pci->config[PCI_COMMAND] |= kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
        pci_bars_update(pci);
        lock_drop(&pci->device.lock);
    }
    free(claims);
    return err;
}
