/*
 * The host bridge (for q35: Intel 82G33/P35 MCH, datasheet 316966, device 0).
 *
 * Its registers only tell: the memory map is the board's and does not move.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/pci/host_bridge.h"
#include "base/bytes.h"

#define PCIEXBAR 0x60
#define PCIEXBAR_ENABLE 1 /* and 256 buses */
#define PAM0 0x90         /* seven bytes: shadowing of the BIOS area, which is always RAM here */

static struct err *realize(struct device *device)
{
    struct host_bridge *bridge = (struct host_bridge *)device;
    struct pci_device *pci = &bridge->pci;
    if (!bridge->q35) {
        pci_device_identify(pci, 0x1b36, 0x0008, 0x060000, 0, 0x1af4, 0x1100);
        return NULL;
    }
    pci_device_identify(pci, 0x8086, 0x29c0, 0x060000, 2, 0x1af4, 0x1100);
    put_le64(pci->config + PCIEXBAR, bridge->ecam_base | PCIEXBAR_ENABLE);
    for (unsigned i = 0; i < 7; i++)
        pci->writable[PAM0 + i] = 0x33;
    return NULL;
}

static void reset(struct device *device)
{
    struct host_bridge *bridge = (struct host_bridge *)device;
    pci_device_reset(&bridge->pci);
    if (bridge->pci.bus)
        pci_bus_set_config_address(bridge->pci.bus, 0);
}

static void fini(struct device *device)
{
    pci_device_fini(&((struct host_bridge *)device)->pci);
}

static void pre_save(void *object)
{
    struct host_bridge *bridge = object;
    if (bridge->pci.bus)
        bridge->config_address = pci_bus_config_address(bridge->pci.bus);
}

static void post_load(void *object)
{
    struct host_bridge *bridge = object;
    if (bridge->pci.bus)
        pci_bus_set_config_address(bridge->pci.bus, bridge->config_address);
}

static const struct state_field fields[] = {
    PCI_DEVICE_STATE(host_bridge, pci),
    STATE_U32(2, host_bridge, config_address),
};

static const struct state_table state = {
    DEVICE_STATE_TABLE("host-bridge", host_bridge, fields),
    .pre_save = pre_save,
    .post_load = post_load,
};

const struct device_class host_bridge_class = {
    .name = "host-bridge",
    .description = "PCI Express host bridge",
    .size = sizeof(struct host_bridge),
    .state = &state,
    .realize = realize,
    .reset = reset,
    .fini = fini,
};
DEVICE_CLASS(host_bridge_class);
