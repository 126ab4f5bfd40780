/*
 * The I/O APIC (Intel 82093AA datasheet; version 0x20 with the EOI register).
 *
 * An asserted pin becomes a message through env->ops->msi_send. Polarity is not looked at: a line
 * here is asserted or not. An edge on a masked pin is lost, as on the part.
 *
 * Lock: irq_lock (LOCK_IRQCHIP). Lines, EOIs and registers meet under it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/chipset/ioapic.h"
#include "hw/core/env.h"

#define REG_SELECT 0x00
#define REG_WINDOW 0x10
#define REG_EOI 0x40
#define REGION_SIZE 0x1000

#define INDEX_ID 0x00
#define INDEX_VERSION 0x01
#define INDEX_ARBITRATION 0x02
#define INDEX_TABLE 0x10
#define VERSION ((IOAPIC_PINS - 1) << 16 | 0x20)

#define ENTRY_VECTOR 0xffu
#define ENTRY_MODE 0x700u /* delivery mode */
#define ENTRY_LOGICAL 0x800u
#define ENTRY_REMOTE_IRR 0x4000u
#define ENTRY_LEVEL 0x8000u
#define ENTRY_MASKED 0x10000u
/* What the guest may write: not delivery status (12) and remote IRR (14). */
#define ENTRY_WRITABLE 0xff0000000001afffull

static uint64_t message_address(uint64_t entry)
{
    return 0xfee00000u | (entry >> 56) << 12 | (entry & ENTRY_LOGICAL ? 4 : 0);
}

/* Trigger mode is bit 15 in both; an asserted level message carries bit 14 as well. */
static uint32_t message_data(uint64_t entry)
{
    uint32_t data = (uint32_t)entry & (ENTRY_VECTOR | ENTRY_MODE | ENTRY_LEVEL);
    return entry & ENTRY_LEVEL ? data | 0x4000 : data;
}

static void tell_route_locked(struct ioapic *ioapic, unsigned pin)
{
    uint64_t entry = ioapic->entry[pin];
    if (ioapic->route)
        ioapic->route(ioapic->opaque, pin, message_address(entry), message_data(entry),
                      entry & ENTRY_LEVEL, entry & ENTRY_MASKED);
}

/* Sends the pin's message if it is due: level asserted and not in service, or a fresh edge. */
static void deliver_locked(struct ioapic *ioapic, unsigned pin, bool edge)
{
    struct hw_env *env = ioapic->device.env;
    uint64_t *entry = &ioapic->entry[pin];
    if (*entry & ENTRY_MASKED)
        return;
    if (*entry & ENTRY_LEVEL) {
        if (!(ioapic->levels >> pin & 1) || *entry & ENTRY_REMOTE_IRR)
            return;
        *entry |= ENTRY_REMOTE_IRR;
    } else if (!edge) {
        return;
    }
    env->ops->msi_send(env->opaque, message_address(*entry), message_data(*entry));
}

static void line_set(void *opaque, unsigned pin, bool level)
{
    struct ioapic *ioapic = opaque;
    lock_take(&ioapic->irq_lock);
    uint32_t bit = 1u << pin;
    bool rising = level && !(ioapic->levels & bit);
    if (level)
        ioapic->levels |= bit;
    else
        ioapic->levels &= ~bit;
    if (rising)
        deliver_locked(ioapic, pin, true);
    lock_drop(&ioapic->irq_lock);
}

struct irq_line ioapic_line(struct ioapic *ioapic, unsigned pin)
{
    if (pin >= IOAPIC_PINS)
        return (struct irq_line){0};
    return (struct irq_line){line_set, ioapic, pin};
}

static void eoi_locked(struct ioapic *ioapic, uint8_t vector)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t *entry = &ioapic->entry[pin];
        if ((*entry & ENTRY_VECTOR) == vector && *entry & ENTRY_LEVEL &&
            *entry & ENTRY_REMOTE_IRR) {
            *entry &= ~(uint64_t)ENTRY_REMOTE_IRR;
            deliver_locked(ioapic, pin, false);
        }
    }
}

void ioapic_eoi(struct ioapic *ioapic, uint8_t vector)
{
    lock_take(&ioapic->irq_lock);
    eoi_locked(ioapic, vector);
    lock_drop(&ioapic->irq_lock);
}

static uint32_t window_read(const struct ioapic *ioapic)
{
    unsigned index = ioapic->select;
    if (index == INDEX_ID || index == INDEX_ARBITRATION)
        return (uint32_t)ioapic->id << 24;
    if (index == INDEX_VERSION)
        return VERSION;
    if (index >= INDEX_TABLE && index < INDEX_TABLE + 2 * IOAPIC_PINS)
        return (uint32_t)(ioapic->entry[(index - INDEX_TABLE) / 2] >> (index & 1 ? 32 : 0));
    return 0;
}

static void entry_write(struct ioapic *ioapic, unsigned pin, bool high, uint32_t value)
{
    uint64_t old = ioapic->entry[pin], wanted;
    if (high)
        wanted = (old & 0xffffffff) | (uint64_t)value << 32;
    else
        wanted = (old & ~0xffffffffull) | value;
    uint64_t entry = (wanted & ENTRY_WRITABLE) | (old & ENTRY_REMOTE_IRR);
    /* An edge-triggered pin has nothing in service: guests clear a stuck remote IRR by this. */
    if (!(entry & ENTRY_LEVEL))
        entry &= ~(uint64_t)ENTRY_REMOTE_IRR;
    ioapic->entry[pin] = entry;
    if (entry != old)
        tell_route_locked(ioapic, pin);
    deliver_locked(ioapic, pin, false);
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct ioapic *ioapic = opaque;
    if (size > 4)
        return UINT64_MAX;
    switch (offset) {
    case REG_SELECT:
        return ioapic->select;
    case REG_WINDOW:
        return window_read(ioapic);
    default:
        return 0;
    }
}

static void mmio_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct ioapic *ioapic = opaque;
    if (offset == REG_SELECT && size <= 4) {
        ioapic->select = (uint8_t)value;
    } else if (offset == REG_EOI && size <= 4) {
        eoi_locked(ioapic, (uint8_t)value);
    } else if (offset == REG_WINDOW && size == 4) {
        unsigned index = ioapic->select;
        if (index == INDEX_ID)
            ioapic->id = value >> 24 & 0x0f;
        else if (index >= INDEX_TABLE && index < INDEX_TABLE + 2 * IOAPIC_PINS)
            entry_write(ioapic, (index - INDEX_TABLE) / 2, index & 1, (uint32_t)value);
    }
}

static const struct io_ops ops = {mmio_read, mmio_write};

static struct err *realize(struct device *device)
{
    struct ioapic *ioapic = (struct ioapic *)device;
    ioapic->region = (struct io_region){.name = "ioapic",
                                        .size = REGION_SIZE,
                                        .ops = &ops,
                                        .opaque = ioapic,
                                        .lock = &ioapic->irq_lock};
    io_bus_add(device->env->mmio, &ioapic->region, ioapic->base);
    return NULL;
}

static void reset(struct device *device)
{
    struct ioapic *ioapic = (struct ioapic *)device;
    lock_take(&ioapic->irq_lock);
    ioapic->select = 0;
    ioapic->id = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        ioapic->entry[pin] = ENTRY_MASKED;
        tell_route_locked(ioapic, pin);
    }
    lock_drop(&ioapic->irq_lock);
}

static void init(struct device *device)
{
    lock_init(&((struct ioapic *)device)->irq_lock, LOCK_IRQCHIP);
}

static void fini(struct device *device)
{
    struct ioapic *ioapic = (struct ioapic *)device;
    io_bus_remove(&ioapic->region);
    lock_fini(&ioapic->irq_lock);
}

static struct err *check(const void *staged)
{
    const struct ioapic *ioapic = staged;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        if (ioapic->entry[pin] & ~(ENTRY_WRITABLE | ENTRY_REMOTE_IRR))
            return err_new("redirection entry %u has unknown bits", pin);
    }
    if (ioapic->levels >> IOAPIC_PINS)
        return err_new("there are only %u pins", IOAPIC_PINS);
    return ioapic->id > 15 ? err_new("the APIC ID is out of range") : NULL;
}

static void post_load(void *object)
{
    struct ioapic *ioapic = object;
    lock_take(&ioapic->irq_lock);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        tell_route_locked(ioapic, pin);
    lock_drop(&ioapic->irq_lock);
}

static const struct state_field fields[] = {
    STATE_U8(1, ioapic, select),
    STATE_U8(2, ioapic, id),
    STATE_U32(3, ioapic, levels),
    STATE_U64(4, ioapic, entry),
};

static const struct state_table state = {
    DEVICE_STATE_TABLE("ioapic", ioapic, fields),
    .check = check,
    .post_load = post_load,
};

const struct device_class ioapic_class = {
    .name = "ioapic",
    .description = "I/O APIC with 24 pins",
    .size = sizeof(struct ioapic),
    .state = &state,
    .init = init,
    .realize = realize,
    .reset = reset,
    .fini = fini,
};
DEVICE_CLASS(ioapic_class);
