/*
 * The device for CPU test suites. See testdev.h. Lock: the device's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/chipset/testdev.h"

#include <string.h>

#include "base/bytes.h"
#include "hw/chipset/layout.h"
#include "hw/core/env.h"

#define PORT_KEPT 4 /* of the eight ports, those that keep their value */

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct testdev *dev = opaque;
    return get_le(dev->port + offset, size);
}

static void port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct testdev *dev = opaque;
    for (unsigned i = 0; i < size && offset + i < PORT_KEPT; i++)
        dev->port[offset + i] = (uint8_t)(value >> (8 * i));
}

static uint64_t line_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct testdev *dev = opaque;
    return dev->levels >> offset & 1;
}

static void line_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct testdev *dev = opaque;
    bool level = value;
    dev->levels = (dev->levels & ~(1u << offset)) | (uint32_t)level << offset;
    irq_set(&dev->line[offset], level);
}

static uint64_t memory_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct testdev *dev = opaque;
    return get_le(dev->memory + offset, size);
}

static void memory_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct testdev *dev = opaque;
    put_le(dev->memory + offset, size, value);
}

static const struct io_ops port_ops = {port_read, port_write};
static const struct io_ops line_ops = {line_read, line_write};
static const struct io_ops memory_ops = {memory_read, memory_write};

static void map(struct testdev *dev, struct io_region *region, struct io_bus *bus, uint64_t base,
                uint64_t size, const struct io_ops *ops)
{
    *region = (struct io_region){
        .name = "testdev", .size = size, .ops = ops, .opaque = dev, .lock = &dev->device.lock};
    io_bus_add(bus, region, base);
}

static struct err *realize(struct device *device)
{
    struct testdev *dev = (struct testdev *)device;
    struct hw_env *env = device->env;
    map(dev, &dev->port_region, env->pio, LAYOUT_PORT_TESTDEV, sizeof(dev->port), &port_ops);
    map(dev, &dev->line_region, env->pio, LAYOUT_PORT_TESTDEV_LINES, TESTDEV_LINES, &line_ops);
    map(dev, &dev->memory_region, env->mmio, LAYOUT_TESTDEV_BASE, TESTDEV_MEMORY, &memory_ops);
    return NULL;
}

static void reset(struct device *device)
{
    struct testdev *dev = (struct testdev *)device;
    lock_take(&device->lock);
    memset(dev->port, 0, sizeof(dev->port));
    memset(dev->memory, 0, sizeof(dev->memory));
    for (unsigned i = 0; i < TESTDEV_LINES; i++)
        if (dev->levels >> i & 1)
            irq_set(&dev->line[i], false);
    dev->levels = 0;
    lock_drop(&device->lock);
}

static void fini(struct device *device)
{
    struct testdev *dev = (struct testdev *)device;
    io_bus_remove(&dev->port_region);
    io_bus_remove(&dev->line_region);
    io_bus_remove(&dev->memory_region);
}

static struct err *check(const void *staged)
{
    const struct testdev *dev = staged;
    if (dev->levels >> TESTDEV_LINES)
        return err_new("a line that does not exist is raised");
    return NULL;
}

/* The interrupt controllers remember the levels themselves. */
static const struct state_field fields[] = {
    STATE_BYTES(1, testdev, port),
    STATE_U32(2, testdev, levels),
    STATE_BYTES(3, testdev, memory),
};

static const struct state_table state = {
    DEVICE_STATE_TABLE("testdev", testdev, fields),
    .check = check,
};

const struct device_class testdev_class = {
    .name = "testdev",
    .description = "test device: ports, interrupt lines and memory for CPU test suites",
    .size = sizeof(struct testdev),
    .state = &state,
    .realize = realize,
    .reset = reset,
    .fini = fini,
};
DEVICE_CLASS(testdev_class);
