/*
 * The host bridge (for q35: Intel 82G33/P35 MCH, datasheet 316966, device 0).
 *
 * Without firmware its registers only tell: the memory map is the board's and does not move. With
 * firmware PCIEXBAR moves the ECAM window, and the PAM registers switch the BIOS area between ROM
 * and RAM. Writes that go to RAM while reads come from ROM do not exist: such a segment is ROM.
 *
 * Lock: the device's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/pci/host_bridge.h"
#include "base/bytes.h"
#include "hw/chipset/layout.h"
#include "hw/core/env.h"

#define PCIEXBAR 0x60
#define PCIEXBAR_ENABLE 1u
#define PCIEXBAR_LENGTH 6u /* 0: 256 buses, which is all that there is */
#define PCIEXBAR_BASE 0xff0000000ull
#define PAM0 0x90
#define PAM_REGISTERS 7u
#define PAM_READ 1u  /* reads go to RAM */
#define PAM_WRITE 2u /* writes do */

/* PAM0's high half is the last segment, 64 KiB; the others have two of 16 KiB each. */
static unsigned segment_bits(const struct host_bridge *bridge, unsigned segment)
{
    const uint8_t *pam = bridge->pci.config + PAM0;

    if (segment == 2 * (PAM_REGISTERS - 1))
        return pam[0] >> 4 & 3;
    return pam[1 + segment / 2] >> (4 * (segment % 2)) & 3;
}

static void show_shadow(struct host_bridge *bridge)
{
    struct hw_env *env = bridge->pci.device.env;
    bool changed = false;

    if (!bridge->firmware)
        return;
    for (unsigned segment = 0; segment <= 2 * (PAM_REGISTERS - 1); segment++) {
        unsigned bits = segment_bits(bridge, segment);
        enum gmem_view view = bits == (PAM_READ | PAM_WRITE) ? GMEM_VIEW_RAM
                              : bits == PAM_READ             ? GMEM_VIEW_RAM_READONLY
                                                             : GMEM_VIEW_ROM;
        changed |=
            gmem_switch(env->gmem, LAYOUT_SHADOW_BASE + segment * LAYOUT_SHADOW_SEGMENT, view);
    }
    if (changed && env->ops->memory_changed)
        env->ops->memory_changed(env->opaque);
}

static uint64_t ecam_wanted(const struct host_bridge *bridge)
{
    uint64_t value = get_le64(bridge->pci.config + PCIEXBAR);

    return value & PCIEXBAR_ENABLE && !(value & PCIEXBAR_LENGTH) ? value & PCIEXBAR_BASE : 0;
}

uint64_t host_bridge_ecam(struct host_bridge *bridge)
{
    return __atomic_load_n(&bridge->ecam, __ATOMIC_RELAXED);
}

/* PCIEXBAR may have changed. */
static void ecam_update(struct host_bridge *bridge)
{
    uint64_t base = ecam_wanted(bridge);

    __atomic_store_n(&bridge->ecam, base, __ATOMIC_RELAXED);
    if (bridge->firmware && bridge->pci.bus)
        pci_bus_set_ecam(bridge->pci.bus, base);
}

static void config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    struct host_bridge *bridge = (struct host_bridge *)pci;

    if (offset < PAM0 + PAM_REGISTERS && offset + size > PAM0)
        show_shadow(bridge);
    if (bridge->firmware && offset < PCIEXBAR + 8 && offset + size > PCIEXBAR)
        ecam_update(bridge);
}

static struct err *realize(struct device *device)
{
    struct host_bridge *bridge = (struct host_bridge *)device;
    struct pci_device *pci = &bridge->pci;
    if (!bridge->q35) {
        pci_device_identify(pci, 0x1b36, 0x0008, 0x060000, 0, 0x1af4, 0x1100);
        return NULL;
    }
    pci_device_identify(pci, 0x8086, 0x29c0, 0x060000, 2, 0x1af4, 0x1100);
    if (bridge->firmware)
        put_le64(pci->writable + PCIEXBAR, PCIEXBAR_BASE | PCIEXBAR_LENGTH | PCIEXBAR_ENABLE);
    else
        put_le64(pci->config + PCIEXBAR, bridge->ecam_base | PCIEXBAR_ENABLE);
    for (unsigned i = 0; i < PAM_REGISTERS; i++)
        pci->writable[PAM0 + i] = 0x33;
    pci->config_written = config_written;
    return NULL;
}

static void reset(struct device *device)
{
    struct host_bridge *bridge = (struct host_bridge *)device;
    lock_take(&device->lock);
    pci_device_reset(&bridge->pci);
    show_shadow(bridge);
    if (bridge->pci.bus)
        pci_bus_set_config_address(bridge->pci.bus, 0);
    ecam_update(bridge);
    lock_drop(&device->lock);
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
    ecam_update(bridge);
    show_shadow(bridge);
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
