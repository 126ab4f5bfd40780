/*
 * Fuzz target: the AHCI controller with a disk, an optical drive and an empty one. The input is a
 * host: it writes guest memory and registers, puts commands and packets into slots, changes discs,
 * and has the controller saved and loaded in between.
 *
 * Whatever it does, the controller must come to rest with no command in its hands.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <sys/mman.h>
#include <unistd.h>

#include "block/live.h"
#include "fuzz_machine.h"
#include "hw/disk/ahci_internal.h"

#define DISK_SIZE KIB(256)
#define OPERATIONS_MAX 300
#define DRIVES 3
#define DISC 1
#define LIST(port) (0x400u * (1 + (port)))
#define RECEIVED(port) (0x2000u + 0x100u * (port))
#define TABLE(slot) (0x3000u + 0x100u * (slot))
#define SLOTS 8

enum operation {
    OP_COMMAND,
    OP_PACKET,
    OP_MEMORY,
    OP_REGISTER,
    OP_PORT,
    OP_CONFIG,
    OP_SAVE,
    OP_SETUP,
    OP_RUN,
    OP_DISC,
    OP_COUNT
};

struct target {
    struct fuzz_machine machine;
    struct ahci *ahci;
    uint64_t bar;
    struct block *block[DRIVES];
};

static int memory_file(void)
{
    int fd = memfd_create("disk", 0);
    if (fd < 0 || ftruncate(fd, DISK_SIZE) != 0)
        abort();
    return fd;
}

static void target_open(struct target *target)
{
    fuzz_machine_open(&target->machine);
    target->ahci = (struct ahci *)device_new(&ahci_class, &target->machine.env, "a0");
    for (unsigned i = 0; i < DRIVES; i++) {
        struct block_options options = {.id = "d",
                                        .fd = i < 2 ? memory_file() : -1,
                                        .readonly = i >= DISC,
                                        .discard = true,
                                        .engine = BLOCK_ENGINE_THREADS};
        must(i >= DISC ? block_open_removable(&options, &target->block[i])
                       : block_open_raw(&options, &target->block[i]));
        target->ahci->port[i].block = target->block[i];
        target->ahci->port[i].id = "d";
        target->ahci->port[i].optical = i >= DISC;
    }
    fuzz_machine_add(&target->machine, &target->ahci->pci);
}

static void put(struct target *target, unsigned offset, unsigned size, uint64_t value)
{
    io_bus_write(target->machine.env.mmio, target->bar + offset, size, value);
}

static void put_port(struct target *target, unsigned port, unsigned offset, uint32_t value)
{
    put(target, AHCI_PORT0 + AHCI_PORT_SIZE * port + offset, 4, value);
}

static void run(struct target *target)
{
    loop_once(target->machine.env.loop, 0);
}

/* Ports as a good host starts them. */
static void set_up(struct target *target)
{
    put(target, AHCI_GHC, 4, AHCI_GHC_IE);
    for (unsigned i = 0; i < DRIVES; i++) {
        put_port(target, i, AHCI_PxCMD, 0);
        run(target);
        put_port(target, i, AHCI_PxCLB, LIST(i));
        put_port(target, i, AHCI_PxCLBU, 0);
        put_port(target, i, AHCI_PxFB, RECEIVED(i));
        put_port(target, i, AHCI_PxFBU, 0);
        put_port(target, i, AHCI_PxSCTL, 0);
        put_port(target, i, AHCI_PxIE, ~0u);
        put_port(target, i, AHCI_PxIS, ~0u);
        put_port(target, i, AHCI_PxCMD, AHCI_CMD_FRE | AHCI_CMD_ST);
    }
}

/* Addresses near every edge; the rest as the input says. */
static void put_table(struct target *target, unsigned port, unsigned slot, const uint8_t *start,
                      struct input *input)
{
    static const uint64_t places[] = {0x8000,           0x8ffe,     REGION - 4096, REGION - 2,
                                      2 * REGION - 512, 2 * REGION, ~0ull - 4095,  0};
    struct gmem *gmem = target->machine.env.gmem;
    uint8_t table[0x100], header[32] = {0};
    unsigned entries = (unsigned)take(input, 1) % 10;
    memcpy(table, start, 0x80);
    memset(table + 0x80, 0, 0x80);
    for (unsigned i = 0; i < MIN(entries, 8u); i++) {
        uint64_t how = take(input, 1);
        put_le64(table + 0x80 + 16 * i, places[how % 8] + 2 * (how >> 3));
        put_le32(table + 0x8c + 16 * i, (uint32_t)take(input, 2));
    }
    put_le32(header, 5 | (uint32_t)(take(input, 1) & 0xe0) | entries << 16);
    put_le64(header + 8, TABLE(slot));
    gmem_write(gmem, TABLE(slot), table, sizeof(table));
    gmem_write(gmem, LIST(port) + 32 * slot, header, sizeof(header));
    put_port(target, port, AHCI_PxSACT, take(input, 1) & 1 ? 1u << slot : 0);
    put_port(target, port, AHCI_PxCI, 1u << slot);
}

static void put_command(struct target *target, struct input *input)
{
    uint8_t table[0x80] = {FIS_HOST_TO_DEVICE, 0x80};
    unsigned where = (unsigned)take(input, 1);
    table[2] = (uint8_t)take(input, 1);
    put_le16(table + 4, (uint16_t)take(input, 2));
    put_le16(table + 12, (uint16_t)take(input, 1));
    table[3] = (uint8_t)take(input, 1);
    table[7] = 0x40;
    if (where & 0x80) {
        table[1] = (uint8_t)take(input, 1);
        table[6] = (uint8_t)take(input, 1);
        table[8] = (uint8_t)take(input, 1);
        table[13] = (uint8_t)take(input, 1);
        table[15] = (uint8_t)take(input, 1);
    }
    put_table(target, where % DRIVES, where >> 2 & 7, table, input);
}

static void put_packet(struct target *target, struct input *input)
{
    uint8_t table[0x80] = {FIS_HOST_TO_DEVICE, 0x80, ATA_PACKET};
    unsigned where = (unsigned)take(input, 1);
    table[3] = where >> 7;
    table[0x40] = (uint8_t)take(input, 1);
    for (unsigned i = 1; i < 12; i++)
        table[0x40 + i] = where & 0x40 || i == 5 || i == 8 ? (uint8_t)take(input, 1) : 0;
    put_table(target, DISC + (where & 1), where >> 2 & 7, table, input);
}

static void change_disc(struct target *target, struct input *input)
{
    uint64_t how = take(input, 1);
    struct ahci_port *port = &target->ahci->port[DISC + (how & 1)];
    struct image *file, *disc = NULL;
    device_quiesce(&target->ahci->pci.device);
    if (how & 2) {
        must(image_open_fd(memory_file(), 0, &file));
        must(image_open(file, image_driver_find("raw"), 0, NULL, &disc));
    }
    must(block_set_medium(port->block, disc));
    lock_take(&target->ahci->pci.device.lock);
    scsi_unit_medium_changed(&port->unit, how & 4);
    lock_drop(&target->ahci->pci.device.lock);
    device_resume(&target->ahci->pci.device);
}

static void operate(struct target *target, struct input *input)
{
    unsigned size, offset;
    switch ((enum operation)(take(input, 1) % OP_COUNT)) {
    case OP_COMMAND:
        put_command(target, input);
        break;
    case OP_PACKET:
        put_packet(target, input);
        break;
    case OP_MEMORY:
        fuzz_memory(&target->machine, input);
        break;
    case OP_REGISTER:
        offset = (unsigned)take(input, 2) % 0x1000;
        size = 1u << take(input, 1) % 4;
        put(target, offset, size, take(input, size));
        io_bus_read(target->machine.env.mmio, target->bar + offset, size);
        break;
    case OP_PORT:
        offset = (unsigned)take(input, 1);
        put_port(target, offset % DRIVES, offset / DRIVES % 16 * 4, (uint32_t)take(input, 4));
        break;
    case OP_CONFIG:
        offset = (unsigned)take(input, 1);
        size = 1u << take(input, 1) % 3;
        io_bus_write(target->machine.env.mmio, DEVICE_CONFIG + offset, size, take(input, size));
        break;
    case OP_SAVE:
        fuzz_save_and_load(&target->ahci->pci.device);
        break;
    case OP_SETUP:
        set_up(target);
        break;
    case OP_RUN:
        run(target);
        break;
    case OP_DISC:
        change_disc(target, input);
        break;
    case OP_COUNT:
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct target *target;
    struct input input = {data, size};
    if (!target) {
        target = xcalloc(1, sizeof(*target));
        target_open(target);
    }
    struct device *device = &target->ahci->pci.device;
    fuzz_machine_reset(&target->machine, &target->ahci->pci);
    target->bar = target->ahci->pci.bar[5].region.base;
    set_up(target);
    for (unsigned i = 0; i < OPERATIONS_MAX && input.left; i++)
        operate(target, &input);
    run(target);
    device_quiesce(device);
    if (target->ahci->in_flight)
        abort();
    device_resume(device);
    return 0;
}
