/*
 * The LPC bridge of the ICH9 (datasheet 316972, 13.1 and 10.1). Addresses that firmware would
 * choose are fixed and show themselves as already chosen; PIRQ routing works.
 *
 * Lock: the device's for registers. The routing of lines is covered by the PCI bus's lock, because
 * lines change under that one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/chipset/lpc.h"
#include "base/bytes.h"
#include "hw/chipset/layout.h"
#include "hw/core/env.h"

#define REG_PMBASE 0x40
#define REG_ACPI_CONTROL 0x44
#define REG_PIRQ_A 0x60 /* A..D, then E..H at 0x68 */
#define REG_PIRQ_E 0x68
#define REG_RCBA 0xf0
#define PIRQ_OFF 0x80
#define ENABLED 1u

#define RCBA_SIZE 0x4000
#define RCBA_OIC 0x31ff /* other interrupt control */
#define OIC_APIC_ON 0x01
#define RCBA_GCS 0x3410    /* general control and status */
#define GCS_NO_REBOOT 0x20 /* the watchdog is strapped off: there is none */

static unsigned route_register(unsigned pirq)
{
    return pirq < 4 ? REG_PIRQ_A + pirq : REG_PIRQ_E + pirq - 4;
}

/* The PIC lines that asserted PIRQs are routed to, as bits. */
static uint16_t pic_levels(const struct lpc *lpc)
{
    uint16_t levels = 0;
    for (unsigned pirq = 0; pirq < 8; pirq++) {
        if (lpc->pirq_levels >> pirq & 1 && !(lpc->routes[pirq] & PIRQ_OFF))
            levels |= (uint16_t)(1u << (lpc->routes[pirq] & 15));
    }
    return levels;
}

static void pic_update(struct lpc *lpc, uint16_t before)
{
    uint16_t after = pic_levels(lpc);
    for (unsigned irq = 0; lpc->pic && irq < 16; irq++) {
        if ((before ^ after) >> irq & 1) {
            struct irq_line line = pic_line(lpc->pic, irq);
            irq_set(&line, after >> irq & 1);
        }
    }
}

static void line_set(void *opaque, unsigned pirq, bool level)
{
    struct lpc *lpc = opaque;
    uint16_t before = pic_levels(lpc);
    uint8_t bit = (uint8_t)(1u << pirq);
    lpc->pirq_levels = (uint8_t)(level ? lpc->pirq_levels | bit : lpc->pirq_levels & ~bit);
    pic_update(lpc, before);
    if (lpc->ioapic) {
        struct irq_line line = ioapic_line(lpc->ioapic, LAYOUT_GSI_PCI + pirq);
        irq_set(&line, level);
    }
}

struct irq_line lpc_pirq_line(struct lpc *lpc, unsigned pirq)
{
    return pirq < 8 ? (struct irq_line){line_set, lpc, pirq} : (struct irq_line){0};
}

static void reroute(void *opaque)
{
    struct lpc *lpc = opaque;
    uint16_t before = pic_levels(lpc);
    for (unsigned pirq = 0; pirq < 8; pirq++)
        lpc->routes[pirq] = lpc->pci.config[route_register(pirq)];
    pic_update(lpc, before);
}

static void config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    if (offset < REG_PIRQ_E + 4 && offset + size > REG_PIRQ_A)
        pci_bus_locked(pci->bus, reroute, pci);
}

static uint64_t rcba_read(void *opaque, uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) {
        if (offset + i == RCBA_OIC)
            value |= (uint64_t)OIC_APIC_ON << (8 * i);
        else if (offset + i == RCBA_GCS)
            value |= (uint64_t)GCS_NO_REBOOT << (8 * i);
    }
    return value;
}

static void rcba_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
}

static const struct io_ops rcba_ops = {rcba_read, rcba_write};

static struct err *realize(struct device *device)
{
    struct lpc *lpc = (struct lpc *)device;
    struct pci_device *pci = &lpc->pci;
    if (!pci->bus)
        return err_new("not attached to a PCI bus");
    pci_device_identify(pci, 0x8086, 0x2918, 0x060100, 2, 0x1af4, 0x1100);
    put_le32(pci->config + REG_PMBASE, LAYOUT_PORT_PM | ENABLED);
    pci->config[REG_ACPI_CONTROL] = 0x80; /* decoding on, SCI on line 9 */
    put_le32(pci->config + REG_RCBA, (uint32_t)LAYOUT_RCBA_BASE | ENABLED);
    for (unsigned pirq = 0; pirq < 8; pirq++)
        pci->writable[route_register(pirq)] = 0x8f;
    pci->config_written = config_written;
    lpc->rcba_region = (struct io_region){
        .name = "rcba", .size = RCBA_SIZE, .ops = &rcba_ops, .opaque = lpc, .lock = &device->lock};
    io_bus_add(device->env->mmio, &lpc->rcba_region, LAYOUT_RCBA_BASE);
    return NULL;
}

static void reset(struct device *device)
{
    struct lpc *lpc = (struct lpc *)device;
    lock_take(&device->lock);
    pci_device_reset(&lpc->pci);
    for (unsigned pirq = 0; pirq < 8; pirq++)
        lpc->pci.config[route_register(pirq)] = PIRQ_OFF;
    pci_bus_locked(lpc->pci.bus, reroute, lpc);
    lock_drop(&device->lock);
}

static void fini(struct device *device)
{
    struct lpc *lpc = (struct lpc *)device;
    io_bus_remove(&lpc->rcba_region);
    pci_device_fini(&lpc->pci);
}

/* The PIC remembers its lines itself: only our copy of the routing is renewed. */
static void post_load(void *object)
{
    struct lpc *lpc = object;
    for (unsigned pirq = 0; pirq < 8; pirq++)
        lpc->routes[pirq] = lpc->pci.config[route_register(pirq)];
}

static const struct state_field fields[] = {
    PCI_DEVICE_STATE(lpc, pci),
    STATE_U8(2, lpc, pirq_levels),
};

static const struct state_table state = {
    DEVICE_STATE_TABLE("lpc", lpc, fields),
    .post_load = post_load,
};

const struct device_class lpc_class = {
    .name = "lpc",
    .description = "ICH9 LPC bridge",
    .size = sizeof(struct lpc),
    .state = &state,
    .realize = realize,
    .reset = reset,
    .fini = fini,
};
DEVICE_CLASS(lpc_class);
