/*
 * Debug exit and debug console. See debug.h. Lock: each device's own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/chipset/debug.h"
#include "hw/chipset/layout.h"
#include "hw/core/env.h"

#define CONSOLE_IS_HERE 0xe9 /* what a read of the port answers */

static uint64_t exit_read(void *opaque, uint64_t offset, unsigned size)
{
    return 0;
}

static void exit_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct debug_exit *debug = opaque;
    struct hw_env *env = debug->device.env;
    if (offset == 0)
        env->ops->power(env->opaque, HW_POWER_EXIT, (unsigned)value);
}

static const struct io_ops exit_ops = {exit_read, exit_write};

static struct err *exit_realize(struct device *device)
{
    struct debug_exit *debug = (struct debug_exit *)device;
    debug->region = (struct io_region){
        .name = "debug-exit", .size = 4, .ops = &exit_ops, .opaque = debug, .lock = &device->lock};
    io_bus_add(device->env->pio, &debug->region, LAYOUT_PORT_DEBUG_EXIT);
    return NULL;
}

static void exit_fini(struct device *device)
{
    io_bus_remove(&((struct debug_exit *)device)->region);
}

const struct device_class debug_exit_class = {
    .name = "debug-exit",
    .description = "test device: ends the machine with a status",
    .size = sizeof(struct debug_exit),
    .state = &device_stateless,
    .realize = exit_realize,
    .fini = exit_fini,
};
DEVICE_CLASS(debug_exit_class);

static uint64_t console_read(void *opaque, uint64_t offset, unsigned size)
{
    return CONSOLE_IS_HERE;
}

static void console_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct debug_console *debug = opaque;
    tx_batch_put(&debug->tx, (uint8_t)value);
}

static const struct io_ops console_ops = {console_read, console_write};

static struct err *console_realize(struct device *device)
{
    struct debug_console *debug = (struct debug_console *)device;
    tx_batch_init(&debug->tx, device->env->loop, debug->stream, &device->lock);
    debug->region = (struct io_region){.name = "debug-console",
                                       .size = 1,
                                       .ops = &console_ops,
                                       .opaque = debug,
                                       .lock = &device->lock};
    io_bus_add(device->env->pio, &debug->region,
               debug->port ? debug->port : LAYOUT_PORT_DEBUG_CONSOLE);
    return NULL;
}

static void console_quiesce(struct device *device)
{
    struct debug_console *debug = (struct debug_console *)device;
    lock_take(&device->lock);
    tx_batch_flush(&debug->tx);
    lock_drop(&device->lock);
}

static void console_fini(struct device *device)
{
    struct debug_console *debug = (struct debug_console *)device;
    io_bus_remove(&debug->region);
    tx_batch_fini(&debug->tx);
}

const struct device_class debug_console_class = {
    .name = "debug-console",
    .description = "bytes written to a debug port",
    .size = sizeof(struct debug_console),
    .state = &device_stateless,
    .realize = console_realize,
    .quiesce = console_quiesce,
    .fini = console_fini,
};
DEVICE_CLASS(debug_console_class);
