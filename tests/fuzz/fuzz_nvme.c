/*
 * Fuzz target: the NVMe controller. The input is a host: it writes guest memory, registers and
 * doorbells, puts commands into queues, and has the controller saved and loaded in between.
 *
 * Whatever it does, the controller must come to rest with no command in its hands.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz_pci.h"
#include "hw/disk/nvme_internal.h"

#define DISK_SIZE KIB(256)
#define ENTRIES 16
#define QUEUES 2
#define SUBMISSION(queue) (0x1000u + 0x2000u * (queue))
#define COMPLETION(queue) (0x2000u + 0x2000u * (queue))
#define SHADOW 0x8000u
#define EVENTS 0x9000u

static struct nvme *nvme;
static uint16_t tail[QUEUES + 1];

static struct block *open_disk(bool readonly)
{
    struct block *block;
    int fd = memfd_create("disk", 0);
    if (fd < 0 || ftruncate(fd, DISK_SIZE) != 0)
        abort();
    struct block_options options = {.id = "d0",
                                    .fd = fd,
                                    .readonly = readonly,
                                    .discard = true,
                                    .engine = BLOCK_ENGINE_THREADS};
    must(block_open_raw(&options, &block));
    return block;
}

static struct pci_device *open_device(struct fuzz_machine *machine)
{
    nvme = (struct nvme *)device_new(&nvme_class, &machine->env, "n0");
    nvme->ns[0].block = open_disk(false);
    nvme->ns[1].block = open_disk(true);
    nvme->ns_count = 2;
    nvme->queues = QUEUES;
    fuzz_machine_add(machine, &nvme->pci);
    return &nvme->pci;
}

static void command(unsigned queue, const uint8_t entry[NVME_SQE])
{
    gmem_write(fuzz_machine.env.gmem, SUBMISSION(queue) + NVME_SQE * tail[queue], entry, NVME_SQE);
    tail[queue] = (uint16_t)((tail[queue] + 1) % ENTRIES);
    gmem_store_le32(fuzz_machine.env.gmem, SHADOW + 8 * queue, tail[queue]);
    fuzz_put(NVME_DOORBELLS + 8 * queue, 4, tail[queue]);
}

static void admin(uint8_t op, uint64_t prp1, uint64_t prp2, uint32_t dw10, uint32_t dw11)
{
    uint8_t entry[NVME_SQE] = {op};
    put_le64(entry + 24, prp1);
    put_le64(entry + 32, prp2);
    put_le32(entry + 40, dw10);
    put_le32(entry + 44, dw11);
    command(0, entry);
    fuzz_run();
}

/* A reset and queues, as a good host would. */
static void set_up(struct input *input)
{
    bool shadows = take(input, 1) & 1;
    fuzz_put(NVME_CC, 4, 0);
    fuzz_run();
    fuzz_put(NVME_AQA, 4, (ENTRIES - 1) * 0x10001u);
    fuzz_put(NVME_ASQ, 8, SUBMISSION(0));
    fuzz_put(NVME_ACQ, 8, COMPLETION(0));
    fuzz_put(NVME_CC, 4, NVME_CC_EN | 6 << 16 | 4 << 20);
    memset(tail, 0, sizeof(tail));
    if (shadows)
        admin(NVME_DOORBELL_BUFFER, SHADOW, EVENTS, 0, 0);
    for (unsigned i = 1; i <= QUEUES; i++) {
        uint32_t what = i | (ENTRIES - 1) << 16;
        admin(NVME_CREATE_CQ, COMPLETION(i), 0, what, 3 | i << 16);
        admin(NVME_CREATE_SQ, SUBMISSION(i), 0, what, 1 | i << 16);
    }
}

/* Addresses near every edge; the rest as the input says. */
static void put_command(struct input *input)
{
    static const uint64_t places[] = {
        0xa000, 0xaff8, REGION - 4096, REGION - 8, 2 * REGION - 4096, 2 * REGION, ~0ull - 4095, 0};
    uint8_t entry[NVME_SQE] = {0};
    unsigned where = (unsigned)take(input, 1);
    entry[0] = (uint8_t)take(input, 1);
    entry[1] = where & 0x80 ? (uint8_t)take(input, 1) : 0;
    put_le16(entry + 2, (uint16_t)take(input, 1));
    put_le32(entry + 4, (uint32_t)take(input, 1));
    put_le64(entry + 24, places[take(input, 1) % ARRAY_SIZE(places)] + take(input, 2));
    put_le64(entry + 32, places[take(input, 1) % ARRAY_SIZE(places)] + take(input, 2));
    put_le32(entry + 40, (uint32_t)take(input, 4));
    put_le32(entry + 44, (uint32_t)take(input, 4));
    put_le32(entry + 48, (uint32_t)take(input, 2));
    command(where % (QUEUES + 1), entry);
}

static void put_doorbell(struct input *input)
{
    unsigned offset = 4 * (unsigned)(take(input, 1) % (2 * QUEUES + 4));
    fuzz_put(NVME_DOORBELLS + offset, 4, take(input, 1) % (ENTRIES + 2));
}

static bool at_rest(void)
{
    return !nvme->in_flight;
}

static void (*const operations[])(struct input *) = {put_command,  fuzz_op_memory, fuzz_op_register,
                                                     put_doorbell, fuzz_op_config, fuzz_op_save,
                                                     set_up,       fuzz_op_run};

static const struct fuzz_pci_target fuzz_target = {
    .bar = 0,
    .registers = 0x100,
    .operations_max = 300,
    .open = open_device,
    .begin = set_up,
    .operations = operations,
    .operation_count = ARRAY_SIZE(operations),
    .at_rest = at_rest,
};
