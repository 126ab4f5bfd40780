/*
 * MSI-X: table, pending bits, masking (PCI local bus 3.0, 6.8.2).
 *
 * Table and pending bits have a BAR of their own: the table in its lower half, the bits in the
 * upper. Device lock throughout.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>

#include "base/bytes.h"
#include "hw/core/env.h"
#include "hw/pci/internal.h"

#define ENTRY_SIZE 16
#define MASKED 1u

static uint16_t control(const struct pci_device *pci)
{
    return pci->msix_capability ? get_le16(pci->config + pci->msix_capability + PCI_MSIX_CONTROL)
                                : 0;
}

static bool vector_open(const struct pci_device *pci, const struct pci_msix_vector *vector)
{
    return (control(pci) & (PCI_MSIX_ENABLE | PCI_MSIX_MASK_ALL)) == PCI_MSIX_ENABLE &&
           !(vector->control & MASKED);
}

static void send(struct pci_device *pci, struct pci_msix_vector *vector)
{
    struct hw_env *env = pci->device.env;
    vector->pending = false;
    /* A message is a memory write, which the function may not make as long as it is no master. */
    if (pci_master_enabled(pci))
        env->ops->msi_send(env->opaque, vector->address, vector->data);
}

static void vector_changed(struct pci_device *pci, unsigned index)
{
    struct pci_msix_vector *vector = &pci->msix[index];
    if (vector->pending && vector_open(pci, vector))
        send(pci, vector);
    if (pci->msix_changed)
        pci->msix_changed(pci, index);
}

void pci_msix_control_written(struct pci_device *pci, uint16_t before)
{
    if (!((before ^ control(pci)) & (PCI_MSIX_ENABLE | PCI_MSIX_MASK_ALL)))
        return;
    for (unsigned i = 0; i < pci->msix_count; i++)
        vector_changed(pci, i);
}

static uint32_t table_read(const struct pci_device *pci, uint64_t offset)
{
    const struct pci_msix_vector *vector = &pci->msix[offset / ENTRY_SIZE];
    switch (offset % ENTRY_SIZE / 4) {
    case 0:
        return (uint32_t)vector->address;
    case 1:
        return (uint32_t)(vector->address >> 32);
    case 2:
        return vector->data;
    default:
        return vector->control;
    }
}

static uint32_t pending_read(const struct pci_device *pci, uint64_t offset)
{
    uint32_t bits = 0;
    for (unsigned i = 0; i < 32; i++) {
        uint64_t vector = offset * 8 + i;
        if (vector < pci->msix_count && pci->msix[vector].pending)
            bits |= 1u << i;
    }
    return bits;
}

static uint32_t read32(const struct pci_device *pci, uint64_t offset, uint64_t half)
{
    if (offset < (uint64_t)pci->msix_count * ENTRY_SIZE)
        return table_read(pci, offset);
    return offset >= half ? pending_read(pci, offset - half) : 0;
}

static uint64_t msix_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct pci_device *pci = opaque;
    uint64_t half = pci->bar[pci->config[pci->msix_capability + 4] & 7].size / 2;
    if (size < 4)
        return read32(pci, offset & ~3ull, half) >> (8 * (offset & 3));
    if (offset % 4)
        return UINT64_MAX;
    uint64_t value = read32(pci, offset, half);
    if (size == 8)
        value |= (uint64_t)read32(pci, offset + 4, half) << 32;
    return value;
}

static void write32(struct pci_device *pci, uint64_t offset, uint32_t value)
{
    if (offset >= (uint64_t)pci->msix_count * ENTRY_SIZE)
        return; /* pending bits are read-only */
    struct pci_msix_vector *vector = &pci->msix[offset / ENTRY_SIZE];
    struct pci_msix_vector before = *vector;
    switch (offset % ENTRY_SIZE / 4) {
    case 0:
        vector->address = (vector->address & ~0xffffffffull) | (value & ~3u);
        break;
    case 1:
        vector->address = (vector->address & 0xffffffff) | (uint64_t)value << 32;
        break;
    case 2:
        vector->data = value;
        break;
    default:
        vector->control = value & MASKED;
    }
    bool message = before.address != vector->address || before.data != vector->data;
    if (before.control != vector->control || (message && !(vector->control & MASKED)))
        vector_changed(pci, (unsigned)(offset / ENTRY_SIZE));
}

static void msix_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_device *pci = opaque;
    if (size < 4 || offset % 4)
        return;
    write32(pci, offset, (uint32_t)value);
    if (size == 8)
        write32(pci, offset + 4, (uint32_t)(value >> 32));
}

static const struct io_ops msix_ops = {msix_read, msix_write};

void pci_msix_add(struct pci_device *pci, unsigned count, unsigned bar)
{
    count = MIN(count, (unsigned)PCI_MSIX_MAX);
    uint64_t half = GUEST_PAGE_SIZE / 2;
    while (half < (uint64_t)count * ENTRY_SIZE)
        half *= 2;
    unsigned at = pci_capability_add(pci, PCI_CAP_ID_MSIX, 12);
    put_le16(pci->config + at + PCI_MSIX_CONTROL, (uint16_t)(count - 1));
    put_le16(pci->writable + at + PCI_MSIX_CONTROL, PCI_MSIX_ENABLE | PCI_MSIX_MASK_ALL);
    put_le32(pci->config + at + 4, bar);
    put_le32(pci->config + at + 8, (uint32_t)half | bar);
    pci->msix_capability = (uint16_t)at;
    pci->msix_count = count;
    pci->msix = xcalloc(count, sizeof(*pci->msix));
    pci_bar_add(pci, bar, PCI_BAR_MEM32, 2 * half, &msix_ops, pci);
    pci_msix_reset(pci);
}

void pci_msix_reset(struct pci_device *pci)
{
    for (unsigned i = 0; i < pci->msix_count; i++) {
        bool was_set_up = pci->msix[i].address || !(pci->msix[i].control & MASKED);
        pci->msix[i] = (struct pci_msix_vector){.control = MASKED};
        if (was_set_up && pci->msix_changed)
            pci->msix_changed(pci, i);
    }
}

void pci_msix_notify(struct pci_device *pci, unsigned index)
{
    if (index >= pci->msix_count || !pci_msix_enabled(pci))
        return;
    struct pci_msix_vector *vector = &pci->msix[index];
    if (vector_open(pci, vector))
        send(pci, vector);
    else
        vector->pending = true;
}

bool pci_msix_enabled(const struct pci_device *pci)
{
    return control(pci) & PCI_MSIX_ENABLE;
}

static struct err *check(const void *staged)
{
    const struct pci_msix_vector *vector = staged;
    if (vector->control & ~MASKED)
        return err_new("an MSI-X vector has unknown control bits");
    return NULL;
}

static const struct state_field fields[] = {
    STATE_U64(1, pci_msix_vector, address),
    STATE_U32(2, pci_msix_vector, data),
    STATE_U32(3, pci_msix_vector, control),
    STATE_BOOL(4, pci_msix_vector, pending),
};

const struct state_table pci_msix_vector_state = {
    DEVICE_STATE_TABLE("msix-vector", pci_msix_vector, fields),
    .check = check,
};
