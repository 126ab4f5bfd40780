/*
 * The frame of the fuzz targets of PCI devices: the input is a host, a string of operations on the
 * device. A target says which device and which operations, in a table; those that every host can do
 * are here.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TEST_FUZZ_PCI_H
#define TENON_TEST_FUZZ_PCI_H

#include "fuzz_machine.h"

struct fuzz_pci_target {
    unsigned bar;            /* of its registers */
    unsigned registers;      /* bytes of them that the input reaches */
    unsigned operations_max; /* of one input */
    /* Once: builds the device with what belongs to it, up to fuzz_machine_add(). */
    struct pci_device *(*open)(struct fuzz_machine *machine);
    /* For each input, after a reset of the device: as a good host begins. */
    void (*begin)(struct input *input);
    void (*const *operations)(struct input *input);
    unsigned operation_count;
    /* Optional: the device is quiesced, and has nothing in its hands. */
    bool (*at_rest)(void);
};

/* A save with its load costs more than everything else that an input does. */
#define FUZZ_SAVES_MAX 2

/* Defined by the target. */
static const struct fuzz_pci_target fuzz_target;

static struct fuzz_machine fuzz_machine;
static struct pci_device *fuzz_device;
static uint64_t fuzz_bar; /* its address */
static unsigned fuzz_saves;

static inline void fuzz_put(unsigned offset, unsigned size, uint64_t value)
{
    io_bus_write(fuzz_machine.env.mmio, fuzz_bar + offset, size, value);
}

static inline void fuzz_run(void)
{
    loop_once(fuzz_machine.env.loop, 0);
}

/* --- operations of every target --- */

static inline void fuzz_op_memory(struct input *input)
{
    fuzz_memory(&fuzz_machine, input);
}

static inline void fuzz_op_register(struct input *input)
{
    unsigned bytes = fuzz_target.registers > 0x100 ? 2 : 1;
    unsigned offset = (unsigned)take(input, bytes) % fuzz_target.registers;
    unsigned size = 1u << take(input, 1) % 4;
    fuzz_put(offset, size, take(input, size));
    io_bus_read(fuzz_machine.env.mmio, fuzz_bar + offset, size);
}

static inline void fuzz_op_config(struct input *input)
{
    unsigned offset = (unsigned)take(input, 1), size = 1u << take(input, 1) % 3;
    io_bus_write(fuzz_machine.env.mmio, DEVICE_CONFIG + offset, size, take(input, size));
    io_bus_read(fuzz_machine.env.mmio, DEVICE_CONFIG + offset, size);
}

static inline bool fuzz_may_save(void)
{
    return fuzz_saves++ < FUZZ_SAVES_MAX;
}

static inline void fuzz_op_save(struct input *input)
{
    if (fuzz_may_save())
        fuzz_save_and_load(&fuzz_device->device);
}

static inline void fuzz_op_run(struct input *input)
{
    fuzz_run();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    if (!fuzz_device) {
        fuzz_machine_open(&fuzz_machine);
        fuzz_device = fuzz_target.open(&fuzz_machine);
    }
    fuzz_machine_reset(&fuzz_machine, fuzz_device);
    fuzz_bar = fuzz_device->bar[fuzz_target.bar].region.base;
    fuzz_saves = 0;
    fuzz_target.begin(&input);
    for (unsigned i = 0; i < fuzz_target.operations_max && input.left; i++)
        fuzz_target.operations[take(&input, 1) % fuzz_target.operation_count](&input);
    fuzz_run();
    device_quiesce(&fuzz_device->device);
    if (fuzz_target.at_rest && !fuzz_target.at_rest())
        abort();
    device_resume(&fuzz_device->device);
    return 0;
}

#endif
