/*
 * The reset control register. See reset.h. Lock: the device's, taken by the ops themselves.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/chipset/reset.h"
#include "hw/core/env.h"

#define RESET_CPU 0x04 /* starts the reset */
#define KEPT 0x0a      /* system reset, full reset: what kind it will be */

static uint64_t reset_read(void *opaque, uint64_t offset, unsigned size)
{
    struct reset_port *port = opaque;
    lock_take(&port->device.lock);
    uint8_t value = port->value;
    lock_drop(&port->device.lock);
    return value;
}

static void reset_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct reset_port *port = opaque;
    struct hw_env *env = port->device.env;
    lock_take(&port->device.lock);
    port->value = value & KEPT;
    if (value & RESET_CPU)
        env->ops->power(env->opaque, HW_POWER_RESET, 0);
    lock_drop(&port->device.lock);
}

const struct io_ops reset_port_ops = {reset_read, reset_write};

static void reset(struct device *device)
{
    struct reset_port *port = (struct reset_port *)device;
    lock_take(&device->lock);
    port->value = 0;
    lock_drop(&device->lock);
}

static struct err *check(const void *staged)
{
    const struct reset_port *port = staged;
    return port->value & ~KEPT ? err_new("the reset register has unknown bits") : NULL;
}

static const struct state_field fields[] = {
    STATE_U8(1, reset_port, value),
};

static const struct state_table state = {
    DEVICE_STATE_TABLE("reset-port", reset_port, fields),
    .check = check,
};

const struct device_class reset_port_class = {
    .name = "reset-port",
    .description = "reset control register at port 0xcf9",
    .size = sizeof(struct reset_port),
    .state = &state,
    .reset = reset,
};
DEVICE_CLASS(reset_port_class);
