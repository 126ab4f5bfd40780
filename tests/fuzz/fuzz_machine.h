/*
 * What the fuzz targets of PCI devices share: a machine of two small RAM regions and a bus, and the
 * input as a string of numbers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TEST_FUZZ_MACHINE_H
#define TENON_TEST_FUZZ_MACHINE_H

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "hw/pci/pci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REGION KIB(64) /* two of them side by side, then nothing */
#define ECAM 0xb0000000ull
#define DEVICE_SLOT 1
#define DEVICE_CONFIG (ECAM + (DEVICE_SLOT << 15))

struct input {
    const uint8_t *at;
    size_t left;
};

struct fuzz_machine {
    struct hw_env env;
    struct pci_bus *bus;
};

/* The next number; zeros after the input's end. */
static inline uint64_t take(struct input *input, unsigned bytes)
{
    uint8_t raw[8] = {0};
    unsigned here = (unsigned)MIN((size_t)bytes, input->left);
    memcpy(raw, input->at, here);
    input->at += here;
    input->left -= here;
    return get_le64(raw);
}

static inline void must(struct err *err)
{
    if (err)
        abort();
}

static inline void no_log(void *opaque, const struct log_record *record)
{
}

static inline void no_msi(void *opaque, uint64_t address, uint32_t data)
{
}

static const struct hw_env_ops fuzz_env_ops = {.msi_send = no_msi};

static inline void fuzz_machine_open(struct fuzz_machine *machine)
{
    log_set_sink(no_log, NULL);
    machine->env.ops = &fuzz_env_ops;
    machine->env.opaque = machine;
    must(loop_new("fuzz", &machine->env.loop));
    machine->env.gmem = gmem_new();
    must(gmem_add_ram(machine->env.gmem, "low", 0, REGION));
    must(gmem_add_ram(machine->env.gmem, "high", REGION, REGION));
    machine->env.pio = io_bus_new("pio");
    machine->env.mmio = io_bus_new("mmio");
    struct pci_bus_config config = {.env = &machine->env,
                                    .ecam_base = ECAM,
                                    .ecam_buses = 1,
                                    .mmio32_base = 0xc0000000,
                                    .mmio32_size = 0x10000000};
    must(pci_bus_new(&config, &machine->bus));
}

static inline void fuzz_machine_add(struct fuzz_machine *machine, struct pci_device *pci)
{
    must(pci_bus_attach(machine->bus, pci, DEVICE_SLOT << 3));
    must(device_realize(&pci->device));
}

/* Power-on state, BARs placed, memory and bus mastering on, guest memory zero. */
static inline void fuzz_machine_reset(struct fuzz_machine *machine, struct pci_device *pci)
{
    device_reset(&pci->device);
    must(pci_bus_assign(machine->bus));
    io_bus_write(machine->env.mmio, DEVICE_CONFIG + 4, 2, 6);
    gmem_fill(machine->env.gmem, 0, 0, 2 * REGION);
}

/* Bytes of the input into guest memory. */
static inline void fuzz_memory(struct fuzz_machine *machine, struct input *input)
{
    uint64_t gpa = take(input, 2) * 2;
    size_t len = MIN((size_t)take(input, 1), input->left);
    gmem_write(machine->env.gmem, gpa, input->at, len);
    input->at += len;
    input->left -= len;
}

/* What was saved from a living device must be accepted again. */
static inline void fuzz_save_and_load(struct device *device)
{
    struct state_writer writer;
    struct state_reader reader;
    device_quiesce(device);
    state_writer_init(&writer);
    device_save(device, &writer);
    state_writer_end(&writer);
    must(state_reader_init(&reader, writer.out.data, writer.out.len));
    must(device_load(device, &reader));
    must(state_reader_end(&reader));
    state_writer_fini(&writer);
    device_resume(device);
}

#endif
