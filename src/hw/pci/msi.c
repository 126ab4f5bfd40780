/*
 * MSI: one message of a function without a table (PCI local bus 3.0, 6.8.1), at a 64-bit address.
 *
 * The registers are configuration space, which saves itself. Device lock throughout.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "base/bytes.h"
#include "hw/core/env.h"
#include "hw/pci/internal.h"

#define CONTROL 2
#define ADDRESS 4
#define DATA 12
#define SIZE 14
#define CONTROL_ENABLE 0x0001
#define CONTROL_64_BIT 0x0080

void pci_msi_add(struct pci_device *pci)
{
    unsigned at = pci_capability_add(pci, PCI_CAP_ID_MSI, SIZE);
    put_le16(pci->config + at + CONTROL, CONTROL_64_BIT);
    put_le16(pci->writable + at + CONTROL, CONTROL_ENABLE);
    put_le32(pci->writable + at + ADDRESS, 0xfffffffc);
    put_le32(pci->writable + at + ADDRESS + 4, 0xffffffff);
    put_le16(pci->writable + at + DATA, 0xffff);
    pci->msi_capability = (uint16_t)at;
}

bool pci_msi_enabled(const struct pci_device *pci)
{
    return pci->msi_capability &&
           (get_le16(pci->config + pci->msi_capability + CONTROL) & CONTROL_ENABLE);
}

void pci_msi_notify(struct pci_device *pci)
{
    struct hw_env *env = pci->device.env;
    const uint8_t *at = pci->config + pci->msi_capability;
    /* A message is a memory write, which the function may not make as long as it is no master. */
    if (pci_msi_enabled(pci) && pci_master_enabled(pci))
        env->ops->msi_send(env->opaque, get_le64(at + ADDRESS), get_le16(at + DATA));
}
