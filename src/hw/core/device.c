/*
 * The life of a device, and the linker set of classes. See device.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "hw/core/device.h"

/* The linker makes these when at least one class is linked; a program without any has none. */
extern const struct device_class *const __start_tenon_device_classes[] __attribute__((weak));
extern const struct device_class *const __stop_tenon_device_classes[] __attribute__((weak));

const struct device_class *const *device_class_all(size_t *count)
{
    *count = (size_t)(__stop_tenon_device_classes - __start_tenon_device_classes);
    return __start_tenon_device_classes;
}

const struct device_class *device_class_find(const char *name)
{
    size_t count;
    const struct device_class *const *all = device_class_all(&count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    }
    return NULL;
}

struct device *device_new(const struct device_class *class, struct hw_env *env, const char *id)
{
    struct device *device = xcalloc(1, class->size);
    device->class = class;
    device->env = env;
    device->id = xstrdup(id);
    lock_init(&device->lock, LOCK_DEVICE);
    list_init(&device->link);
    if (class->init)
        class->init(device);
    return device;
}

struct err *device_realize(struct device *device)
{
    if (device->class->realize)
        TRY(err_wrap(device->class->realize(device), "device '%s'", device->id));
    device->realized = true;
    device_reset(device);
    return NULL;
}

void device_reset(struct device *device)
{
    if (device->class->reset)
        device->class->reset(device);
}

void device_quiesce(struct device *device)
{
    if (device->realized && device->class->quiesce)
        device->class->quiesce(device);
}

void device_resume(struct device *device)
{
    if (device->realized && device->class->resume)
        device->class->resume(device);
}

void device_free(struct device *device)
{
    if (!device)
        return;
    device_quiesce(device);
    if (device->class->fini)
        device->class->fini(device);
    list_remove(&device->link);
    lock_fini(&device->lock);
    free(device->id);
    free(device);
}

void device_save(struct device *device, struct state_writer *writer)
{
    lock_take(&device->lock);
    state_save(writer, device->class->state, device->id, device);
    lock_drop(&device->lock);
}

struct err *device_load(struct device *device, struct state_reader *reader)
{
    lock_take(&device->lock);
    struct err *err = state_load(reader, device->class->state, device->id, device);
    lock_drop(&device->lock);
    return err;
}

const struct state_table device_stateless = {
    .name = "stateless",
    .version = 1,
    .min_version = 1,
    .size = sizeof(struct device),
};
