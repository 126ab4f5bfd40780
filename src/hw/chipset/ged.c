/*
 * ACPI events, sleep and reset registers in memory. See ged.h.
 *
 * Lock: the device's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/chipset/ged.h"
#include "hw/core/env.h"

#define SLP_EN 0x20
#define WAK_STS 0x80

static uint64_t ged_read(void *opaque, uint64_t offset, unsigned size)
{
    struct ged *ged = opaque;
    uint32_t events = ged->events;
    if (offset == GED_EVENTS && size == 4) {
        ged->events = 0;
        irq_set(&ged->irq, false);
        return events;
    }
    return offset == GED_SLEEP_STATUS && size == 1 ? ged->sleep_status : 0;
}

static void ged_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct ged *ged = opaque;
    struct hw_env *env = ged->device.env;
    if (size != 1)
        return;
    if (offset == GED_SLEEP_CONTROL && value & SLP_EN && (value >> 2 & 7) == GED_SLEEP_S5)
        env->ops->power(env->opaque, HW_POWER_OFF, 0);
    else if (offset == GED_SLEEP_STATUS)
        ged->sleep_status &= (uint8_t) ~(value & WAK_STS);
    else if (offset == GED_RESET && value == GED_RESET_VALUE)
        env->ops->power(env->opaque, HW_POWER_RESET, 0);
}

static const struct io_ops ops = {ged_read, ged_write};

void ged_power_button(struct ged *ged)
{
    lock_take(&ged->device.lock);
    ged->events |= GED_EVENT_POWER_BUTTON;
    irq_set(&ged->irq, true);
    lock_drop(&ged->device.lock);
}

static struct err *realize(struct device *device)
{
    struct ged *ged = (struct ged *)device;
    ged->region = (struct io_region){
        .name = "acpi-ged", .size = GED_SIZE, .ops = &ops, .opaque = ged, .lock = &device->lock};
    io_bus_add(device->env->mmio, &ged->region, ged->base);
    return NULL;
}

static void reset(struct device *device)
{
    struct ged *ged = (struct ged *)device;
    lock_take(&device->lock);
    ged->events = 0;
    ged->sleep_status = 0;
    irq_set(&ged->irq, false);
    lock_drop(&device->lock);
}

static void fini(struct device *device)
{
    io_bus_remove(&((struct ged *)device)->region);
}

static const struct state_field fields[] = {
    STATE_U32(1, ged, events),
    STATE_U8(2, ged, sleep_status),
};

static const struct state_table state = {DEVICE_STATE_TABLE("acpi-ged", ged, fields)};

const struct device_class ged_class = {
    .name = "acpi-ged",
    .description = "ACPI events and sleep registers of hardware-reduced machines",
    .size = sizeof(struct ged),
    .state = &state,
    .realize = realize,
    .reset = reset,
    .fini = fini,
};
DEVICE_CLASS(ged_class);
