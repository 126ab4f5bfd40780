/*
 * The device model: one constant class a kind of device, one embedded `struct device` an instance.
 *
 * A class is found by name in a linker set; boards build instances explicitly. The life of a
 * device: device_new() allocates, the board sets the fields of its `struct x`, device_realize()
 * connects it, then reset, and at the end quiesce and free. `state` is mandatory: a device that
 * cannot be saved does not exist. A class without state of its own uses `device_stateless`.
 *
 * realize, reset, quiesce, resume and fini are called without the device's lock, on the control
 * loop or before it runs: they take it themselves where a timer or a back end may meet them. save
 * and load take the lock, so a table's functions run under it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_CORE_DEVICE_H
#define TENON_HW_CORE_DEVICE_H

#include "base/base.h"
#include "base/err.h"
#include "base/list.h"
#include "base/lock.h"
#include "hw/core/env.h"
#include "state/state.h"

struct device;

struct device_class {
    const char *name;        /* "virtio-blk", "ioapic" */
    const char *description; /* one line for listings */
    size_t size;             /* sizeof the struct that starts with `struct device` */
    const struct state_table *state;
    /* Called by device_new: locks and lists that others may use before realize. Optional. */
    void (*init)(struct device *device);
    /* Connects the device: maps registers, starts queues. On error the device is freed by its
     * owner. */
    struct err *(*realize)(struct device *device);
    /* To the power-on state. vCPUs are stopped or do not exist. */
    void (*reset)(struct device *device);
    /*
     * Stops all work: when it returns, the device does not touch guest memory, and all requests
     * have completed. Optional for devices that only answer registers.
     */
    void (*quiesce)(struct device *device);
    /* Takes up work again after quiesce or load. Optional. Does nothing if not quiesced. */
    void (*resume)(struct device *device);
    /* Disconnects and releases what realize and the board gave; not the struct itself. */
    void (*fini)(struct device *device);
};

/* First member of every device. */
struct device {
    const struct device_class *class;
    struct hw_env *env; /* borrowed, outlives the device */
    char *id;           /* "d0"; unique in the machine; owned */
    struct lock lock;   /* LOCK_DEVICE */
    bool realized;
    struct list link; /* in the machine's list, in order of building */
};

/* Registers a class in the linker set. At file scope, with a class that has external linkage. */
#define DEVICE_CLASS(class_)                                                                       \
    static const struct device_class *const class_##_entry                                         \
        __attribute__((used, section("tenon_device_classes"))) = &(class_)

/* The class of that name, or NULL. */
const struct device_class *device_class_find(const char *name);
/* All of them, to walk: *count entries. */
const struct device_class *const *device_class_all(size_t *count);

/* A zeroed instance with class, env, id and lock set. */
struct device *device_new(const struct device_class *class, struct hw_env *env, const char *id);
/* realize, then the first reset. "device 'ID': why" on failure. */
struct err *device_realize(struct device *device);
void device_reset(struct device *device);
void device_quiesce(struct device *device);
void device_resume(struct device *device);
/* quiesce, fini, free; NULL is fine. */
void device_free(struct device *device);

/* One state section, instance = id. The device is quiesced. */
void device_save(struct device *device, struct state_writer *writer);
struct err *device_load(struct device *device, struct state_reader *reader);

/* The frame of a table over `struct struct_` with the array `fields_`. */
#define DEVICE_STATE_TABLE(name_, struct_, fields_)                                                \
    .name = (name_), .version = 1, .min_version = 1, .size = sizeof(struct struct_),               \
    .fields = (fields_), .field_count = ARRAY_SIZE(fields_)

/* For classes whose every register is derived or constant. */
extern const struct state_table device_stateless;

#endif
