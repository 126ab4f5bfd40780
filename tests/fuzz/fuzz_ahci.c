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
#include "fuzz_pci.h"
#include "hw/disk/ahci_internal.h"

#define DISK_SIZE KIB(256)
#define DRIVES 3
#define DISC 1
#define LIST(port) (0x400u * (1 + (port)))
#define RECEIVED(port) (0x2000u + 0x100u * (port))
#define TABLE(slot) (0x3000u + 0x100u * (slot))
#define SLOTS 8

static struct ahci *ahci;
static struct block *block[DRIVES];

static int memory_file(void)
{
    int fd = memfd_create("disk", 0);
    if (fd < 0 || ftruncate(fd, DISK_SIZE) != 0)
        abort();
    return fd;
}

static struct pci_device *open_device(struct fuzz_machine *machine)
{
    ahci = (struct ahci *)device_new(&ahci_class, &machine->env, "a0");
    for (unsigned i = 0; i < DRIVES; i++) {
        struct block_options options = {.id = "d",
                                        .fd = i < 2 ? memory_file() : -1,
                                        .readonly = i >= DISC,
                                        .discard = true,
                                        .engine = BLOCK_ENGINE_THREADS};
        must(i >= DISC ? block_open_removable(&options, &block[i])
                       : block_open_raw(&options, &block[i]));
        ahci->port[i].block = block[i];
        ahci->port[i].id = "d";
        ahci->port[i].optical = i >= DISC;
    }
    fuzz_machine_add(machine, &ahci->pci);
    return &ahci->pci;
}

static void put_port(unsigned port, unsigned offset, uint32_t value)
{
    fuzz_put(AHCI_PORT0 + AHCI_PORT_SIZE * port + offset, 4, value);
}

/* Ports as a good host starts them. */
static void set_up(struct input *input)
{
    fuzz_put(AHCI_GHC, 4, AHCI_GHC_IE);
    for (unsigned i = 0; i < DRIVES; i++) {
        put_port(i, AHCI_PxCMD, 0);
        fuzz_run();
        put_port(i, AHCI_PxCLB, LIST(i));
        put_port(i, AHCI_PxCLBU, 0);
        put_port(i, AHCI_PxFB, RECEIVED(i));
        put_port(i, AHCI_PxFBU, 0);
        put_port(i, AHCI_PxSCTL, 0);
        put_port(i, AHCI_PxIE, ~0u);
        put_port(i, AHCI_PxIS, ~0u);
        put_port(i, AHCI_PxCMD, AHCI_CMD_FRE | AHCI_CMD_ST);
    }
}

/* Addresses near every edge; the rest as the input says. */
static void put_table(unsigned port, unsigned slot, const uint8_t *start, struct input *input)
{
    static const uint64_t places[] = {0x8000,           0x8ffe,     REGION - 4096, REGION - 2,
                                      2 * REGION - 512, 2 * REGION, ~0ull - 4095,  0};
    struct gmem *gmem = fuzz_machine.env.gmem;
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
    put_port(port, AHCI_PxSACT, take(input, 1) & 1 ? 1u << slot : 0);
    put_port(port, AHCI_PxCI, 1u << slot);
}

static void put_command(struct input *input)
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
    put_table(where % DRIVES, where >> 2 & 7, table, input);
}

static void put_packet(struct input *input)
{
    uint8_t table[0x80] = {FIS_HOST_TO_DEVICE, 0x80, ATA_PACKET};
    unsigned where = (unsigned)take(input, 1);
    table[3] = where >> 7;
    table[0x40] = (uint8_t)take(input, 1);
    for (unsigned i = 1; i < 12; i++)
        table[0x40 + i] = where & 0x40 || i == 5 || i == 8 ? (uint8_t)take(input, 1) : 0;
    put_table(DISC + (where & 1), where >> 2 & 7, table, input);
}

static void change_disc(struct input *input)
{
    uint64_t how = take(input, 1);
    struct ahci_port *port = &ahci->port[DISC + (how & 1)];
    struct image *file, *disc = NULL;
    device_quiesce(&ahci->pci.device);
    if (how & 2) {
        must(image_open_fd(memory_file(), 0, &file));
        must(image_open(file, image_driver_find("raw"), 0, NULL, &disc));
    }
    must(block_set_medium(port->block, disc));
    lock_take(&ahci->pci.device.lock);
    scsi_unit_medium_changed(&port->unit, how & 4);
    lock_drop(&ahci->pci.device.lock);
    device_resume(&ahci->pci.device);
}

static void put_port_register(struct input *input)
{
    unsigned where = (unsigned)take(input, 1);
    put_port(where % DRIVES, where / DRIVES % 16 * 4, (uint32_t)take(input, 4));
}

static bool at_rest(void)
{
    return !ahci->in_flight;
}

static void (*const operations[])(struct input *) = {
    put_command,    put_packet,   fuzz_op_memory, fuzz_op_register, put_port_register,
    fuzz_op_config, fuzz_op_save, set_up,         fuzz_op_run,      change_disc};

static const struct fuzz_pci_target fuzz_target = {
    .bar = 5,
    .registers = 0x1000,
    .operations_max = 300,
    .open = open_device,
    .begin = set_up,
    .operations = operations,
    .operation_count = ARRAY_SIZE(operations),
    .at_rest = at_rest,
};
