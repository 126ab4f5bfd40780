/*
 * libFuzzer target: configuration space of a q35's functions, and the MSI-X table, as a guest
 * reaches them. The input is a run of accesses of 11 bytes: kind and size, address, value.
 *
 * A finding is a crash or a sanitizer's report; and after each run, what the guest may not change
 * must be as it was.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "hw/chipset/layout.h"
#include "hw/chipset/lpc.h"
#include "hw/chipset/reset.h"
#include "hw/pci/host_bridge.h"

#define RECORD 11
#define FUNCTIONS 3

/* A function with all kinds of BAR. */
struct sample {
    struct pci_device pci;
    uint64_t last;
};

static uint64_t sample_read(void *opaque, uint64_t offset, unsigned size)
{
    return ((struct sample *)opaque)->last + offset;
}

static void sample_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct sample *sample = opaque;
    sample->last = value;
    /* Interrupts in both ways, whatever state the guest put them in. */
    pci_msix_notify(&sample->pci, (unsigned)value & 15);
    pci_intx_set(&sample->pci, value & 16);
}

static const struct io_ops sample_ops = {sample_read, sample_write};

static struct err *sample_realize(struct device *device)
{
    struct sample *sample = (struct sample *)device;
    pci_device_identify(&sample->pci, 0x1af4, 0x1041, 0x020000, 1, 0x1af4, 0x1100);
    pci_intx_add(&sample->pci);
    pci_bar_add(&sample->pci, 0, PCI_BAR_IO, 0x20, &sample_ops, sample);
    pci_msix_add(&sample->pci, 9, 1);
    pci_bar_add(&sample->pci, 2, PCI_BAR_MEM64, 0x4000, &sample_ops, sample);
    pci_bar_add(&sample->pci, 4, PCI_BAR_MEM32, 0x1000, &sample_ops, sample);
    pci_express_add(&sample->pci);
    return NULL;
}

static void sample_reset(struct device *device)
{
    pci_device_reset(&((struct sample *)device)->pci);
}

static void sample_fini(struct device *device)
{
    pci_device_fini(&((struct sample *)device)->pci);
}

static const struct state_field sample_fields[] = {PCI_DEVICE_STATE(sample, pci)};
static const struct state_table sample_state = {
    DEVICE_STATE_TABLE("sample", sample, sample_fields)};
static const struct device_class sample_class = {
    .name = "sample",
    .size = sizeof(struct sample),
    .state = &sample_state,
    .realize = sample_realize,
    .reset = sample_reset,
    .fini = sample_fini,
};

static void msi_send(void *opaque, uint64_t address, uint32_t data)
{
}

static void power(void *opaque, enum hw_power_event event, unsigned status)
{
}

static void line_set(void *opaque, unsigned pin, bool level)
{
}

static const struct hw_env_ops env_ops = {.msi_send = msi_send, .power = power};

struct machine {
    struct hw_env env;
    struct pci_bus *bus;
    struct device *reset;
    struct pci_device *function[FUNCTIONS];
    uint8_t before[FUNCTIONS][PCI_CONFIG_SIZE];
};

static struct pci_device *add(struct machine *m, const struct device_class *class, int devfn)
{
    struct device *device = device_new(class, &m->env, class->name);
    struct pci_device *pci = (struct pci_device *)device;
    if (pci_bus_attach(m->bus, pci, devfn) || device_realize(device))
        abort();
    return pci;
}

static void build(struct machine *m)
{
    *m = (struct machine){.env = {.ops = &env_ops}};
    m->env.pio = io_bus_new("pio");
    m->env.mmio = io_bus_new("mmio");
    m->reset = device_new(&reset_port_class, &m->env, "reset");
    struct pci_bus_config config = {
        .env = &m->env,
        .ecam_base = LAYOUT_Q35_ECAM_BASE,
        .ecam_buses = LAYOUT_Q35_ECAM_BUSES,
        .cf8 = true,
        .cf9_ops = &reset_port_ops,
        .cf9_opaque = m->reset,
        .io_base = LAYOUT_PORT_PCI_IO,
        .io_size = LAYOUT_PCI_IO_SIZE,
        .mmio32_base = LAYOUT_Q35_MMIO32_BASE,
        .mmio32_size = LAYOUT_Q35_MMIO32_SIZE,
    };
    for (unsigned i = 0; i < 4; i++)
        config.intx[i] = (struct irq_line){line_set, m, i};
    if (device_realize(m->reset) || pci_bus_new(&config, &m->bus))
        abort();
    m->function[0] = add(m, &host_bridge_class, 0);
    m->function[1] = add(m, &sample_class, 1 << 3);
    m->function[2] = add(m, &lpc_class, LPC_DEVFN);
    if (pci_bus_assign(m->bus))
        abort();
    for (unsigned i = 0; i < FUNCTIONS; i++)
        memcpy(m->before[i], m->function[i]->config, PCI_CONFIG_SIZE);
}

static void demolish(struct machine *m)
{
    for (unsigned i = 0; i < FUNCTIONS; i++)
        device_free(&m->function[i]->device);
    pci_bus_free(m->bus);
    device_free(m->reset);
    io_bus_free(m->env.pio);
    io_bus_free(m->env.mmio);
}

static void access_once(struct machine *m, const uint8_t *record)
{
    unsigned size = 1u << (record[0] >> 4 & 3);
    uint32_t address = (uint32_t)get_le16(record + 1);
    uint64_t value = get_le64(record + 3);
    struct io_bus *bus = m->env.mmio;
    uint64_t at;
    switch (record[0] & 3) {
    case 0: /* ECAM of one of the functions */
        at = LAYOUT_Q35_ECAM_BASE +
             ((uint64_t)m->function[address >> 12 & 1   ? 1
                                    : address >> 13 & 3 ? 2
                                                        : 0]
                  ->devfn
              << 12) +
             (address & 0xfff);
        break;
    case 1: /* the ports */
        bus = m->env.pio;
        size = size > 4 ? 4 : size;
        at = LAYOUT_PORT_PCI_CF8 + (address & 7);
        break;
    case 2: /* wherever the function's BARs are now */
        at = pci_bar_address(m->function[1], "\1\2\4\0"[address >> 14]) + (address & 0x3fff);
        bus = address >> 14 == 3 ? m->env.pio : m->env.mmio;
        break;
    default: /* all of the ECAM */
        at = LAYOUT_Q35_ECAM_BASE + ((uint64_t)address << 12) + (value & 0xfff);
    }
    if (record[0] & 4)
        io_bus_read(bus, at, size);
    else
        io_bus_write(bus, at, size, value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct machine machine;
    build(&machine);
    for (; len >= RECORD; data += RECORD, len -= RECORD)
        access_once(&machine, data);
    for (unsigned i = 0; i < FUNCTIONS; i++) {
        struct pci_device *pci = machine.function[i];
        for (unsigned at = 0; at < PCI_CONFIG_SIZE; at++) {
            uint8_t fixed = (uint8_t)~pci->writable[at];
            if (at == PCI_STATUS)
                fixed &= (uint8_t)~PCI_STATUS_INTX;
            if ((pci->config[at] ^ machine.before[i][at]) & fixed)
                abort();
        }
        struct state_writer writer;
        state_writer_init(&writer);
        device_save(&pci->device, &writer);
        state_writer_fini(&writer);
    }
    demolish(&machine);
    return 0;
}
