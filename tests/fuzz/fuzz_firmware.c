/*
 * libFuzzer target: fw_cfg, flash memory and the host bridge's PAM and PCIEXBAR registers, as a
 * guest reaches them. The input is a run of accesses of 7 bytes: kind and size, address, value.
 *
 * A finding is a crash or a sanitizer's report; and afterwards every item of fw_cfg must be as it
 * was, and the machine's state must load into itself.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "hw/chipset/layout.h"
#include "hw/firmware/fw_cfg.h"
#include "hw/firmware/pflash.h"
#include "hw/pci/host_bridge.h"

#define RECORD 7
#define FLASH_BASE 0xffff0000u
#define FLASH_SIZE 0x8000u
#define DEVICES 3

struct machine {
    struct hw_env env;
    struct pci_bus *bus;
    struct device *device[DEVICES];
};

static void memory_changed(void *opaque)
{
}

static void msi_send(void *opaque, uint64_t address, uint32_t data)
{
}

static const struct hw_env_ops env_ops = {.msi_send = msi_send, .memory_changed = memory_changed};

static void must(struct err *err)
{
    if (err)
        abort();
}

static void build_memory(struct gmem *gmem)
{
    must(gmem_add_ram(gmem, "ram", 0, 0x10000));
    for (uint64_t at = LAYOUT_SHADOW_BASE; at < 0xf0000; at += LAYOUT_SHADOW_SEGMENT)
        must(gmem_add_switched(gmem, "shadow", at, LAYOUT_SHADOW_SEGMENT));
    must(gmem_add_switched(gmem, "shadow", 0xf0000, 0x10000));
    must(gmem_add_switched(gmem, "variables", FLASH_BASE, FLASH_SIZE));
}

static void build(struct machine *m)
{
    *m = (struct machine){.env = {.gmem = gmem_new(),
                                  .pio = io_bus_new("ports"),
                                  .mmio = io_bus_new("memory"),
                                  .ops = &env_ops}};
    build_memory(m->env.gmem);
    struct pci_bus_config config = {.env = &m->env, .ecam_buses = 256, .cf8 = true};
    must(pci_bus_new(&config, &m->bus));

    struct host_bridge *bridge =
        (struct host_bridge *)device_new(&host_bridge_class, &m->env, "bridge");
    bridge->q35 = bridge->firmware = true;
    must(pci_bus_attach(m->bus, &bridge->pci, 0));
    struct fw_cfg *cfg = (struct fw_cfg *)device_new(&fw_cfg_class, &m->env, "fw-cfg");
    fw_cfg_add_file(cfg, "etc/file", "contents", 8);
    struct pflash *flash = (struct pflash *)device_new(&pflash_class, &m->env, "variables");
    flash->base = FLASH_BASE;
    flash->size = FLASH_SIZE;
    flash->fd = -1;
    m->device[0] = &bridge->pci.device;
    m->device[1] = &cfg->device;
    m->device[2] = &flash->device;
    for (unsigned i = 0; i < DEVICES; i++)
        must(device_realize(m->device[i]));
}

static void demolish(struct machine *m)
{
    for (unsigned i = DEVICES; i-- > 0;)
        device_free(m->device[i]);
    pci_bus_free(m->bus);
    io_bus_free(m->env.pio);
    io_bus_free(m->env.mmio);
    gmem_free(m->env.gmem);
}

static void access_once(struct machine *m, const uint8_t record[RECORD])
{
    unsigned size = 1u << (record[0] & 3);
    uint16_t address = get_le16(record + 1);
    uint32_t value = get_le32(record + 3);
    struct io_bus *bus = m->env.pio;
    uint64_t at;

    switch (record[0] >> 3 & 3) {
    case 0:
        at = LAYOUT_PORT_FW_CFG + address % 16;
        size = MIN(size, 4u);
        break;
    case 1:
        bus = m->env.mmio;
        at = FLASH_BASE + address % FLASH_SIZE;
        break;
    case 2:
        pci_config_write((struct pci_device *)m->device[0], 0x60 + address % 0x40, MIN(size, 4u),
                         value);
        return;
    default: /* a DMA control structure */
        gmem_write(m->env.gmem, address & 0xfff8, record + 3, 4);
        return;
    }
    if (record[0] & 4)
        io_bus_read(bus, at, size);
    else
        io_bus_write(bus, at, size, value);
}

static void check_state(struct machine *m)
{
    for (unsigned i = 0; i < DEVICES; i++) {
        struct state_writer writer;
        struct state_reader reader;
        state_writer_init(&writer);
        device_save(m->device[i], &writer);
        state_writer_end(&writer);
        must(state_reader_init(&reader, writer.out.data, writer.out.len));
        must(device_load(m->device[i], &reader));
        state_writer_fini(&writer);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const char contents[] = "contents";
    struct machine machine;

    build(&machine);
    for (; len >= RECORD; data += RECORD, len -= RECORD)
        access_once(&machine, data);
    check_state(&machine);
    io_bus_write(machine.env.pio, LAYOUT_PORT_FW_CFG, 2, FW_CFG_FILE_FIRST);
    for (unsigned i = 0; i < 8; i++) {
        if (io_bus_read(machine.env.pio, LAYOUT_PORT_FW_CFG + 1, 1) != (uint8_t)contents[i])
            abort();
    }
    demolish(&machine);
    return 0;
}
