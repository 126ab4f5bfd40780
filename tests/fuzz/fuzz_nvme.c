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

#include "fuzz_machine.h"
#include "hw/disk/nvme_internal.h"

#define DISK_SIZE KIB(256)
#define OPERATIONS_MAX 300
#define ENTRIES 16
#define QUEUES 2
#define SUBMISSION(queue) (0x1000u + 0x2000u * (queue))
#define COMPLETION(queue) (0x2000u + 0x2000u * (queue))
#define SHADOW 0x8000u
#define EVENTS 0x9000u

enum operation {
    OP_COMMAND,
    OP_MEMORY,
    OP_REGISTER,
    OP_DOORBELL,
    OP_CONFIG,
    OP_SAVE,
    OP_SETUP,
    OP_RUN,
    OP_COUNT
};

struct target {
    struct fuzz_machine machine;
    struct nvme *nvme;
    uint64_t bar;
    uint16_t tail[QUEUES + 1];
};

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

static void target_open(struct target *target)
{
    fuzz_machine_open(&target->machine);
    target->nvme = (struct nvme *)device_new(&nvme_class, &target->machine.env, "n0");
    target->nvme->ns[0].block = open_disk(false);
    target->nvme->ns[1].block = open_disk(true);
    target->nvme->ns_count = 2;
    target->nvme->queues = QUEUES;
    fuzz_machine_add(&target->machine, &target->nvme->pci);
}

static void put(struct target *target, unsigned offset, unsigned size, uint64_t value)
{
    io_bus_write(target->machine.env.mmio, target->bar + offset, size, value);
}

static void run(struct target *target)
{
    loop_once(target->machine.env.loop, 0);
}

static void command(struct target *target, unsigned queue, const uint8_t entry[NVME_SQE])
{
    gmem_write(target->machine.env.gmem, SUBMISSION(queue) + NVME_SQE * target->tail[queue], entry,
               NVME_SQE);
    target->tail[queue] = (uint16_t)((target->tail[queue] + 1) % ENTRIES);
    gmem_store_le32(target->machine.env.gmem, SHADOW + 8 * queue, target->tail[queue]);
    put(target, NVME_DOORBELLS + 8 * queue, 4, target->tail[queue]);
}

static void admin(struct target *target, uint8_t op, uint64_t prp1, uint64_t prp2, uint32_t dw10,
                  uint32_t dw11)
{
    uint8_t entry[NVME_SQE] = {op};
    put_le64(entry + 24, prp1);
    put_le64(entry + 32, prp2);
    put_le32(entry + 40, dw10);
    put_le32(entry + 44, dw11);
    command(target, 0, entry);
    run(target);
}

/* A reset and queues, as a good host would. */
static void set_up(struct target *target, bool shadows)
{
    put(target, NVME_CC, 4, 0);
    run(target);
    put(target, NVME_AQA, 4, (ENTRIES - 1) * 0x10001u);
    put(target, NVME_ASQ, 8, SUBMISSION(0));
    put(target, NVME_ACQ, 8, COMPLETION(0));
    put(target, NVME_CC, 4, NVME_CC_EN | 6 << 16 | 4 << 20);
    memset(target->tail, 0, sizeof(target->tail));
    if (shadows)
        admin(target, NVME_DOORBELL_BUFFER, SHADOW, EVENTS, 0, 0);
    for (unsigned i = 1; i <= QUEUES; i++) {
        uint32_t what = i | (ENTRIES - 1) << 16;
        admin(target, NVME_CREATE_CQ, COMPLETION(i), 0, what, 3 | i << 16);
        admin(target, NVME_CREATE_SQ, SUBMISSION(i), 0, what, 1 | i << 16);
    }
}

/* Addresses near every edge; the rest as the input says. */
static void put_command(struct target *target, struct input *input)
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
    command(target, where % (QUEUES + 1), entry);
}

static void operate(struct target *target, struct input *input)
{
    unsigned size, offset;
    switch ((enum operation)(take(input, 1) % OP_COUNT)) {
    case OP_COMMAND:
        put_command(target, input);
        break;
    case OP_MEMORY:
        fuzz_memory(&target->machine, input);
        break;
    case OP_REGISTER:
        offset = (unsigned)take(input, 1);
        size = 1u << take(input, 1) % 4;
        put(target, offset, size, take(input, size));
        io_bus_read(target->machine.env.mmio, target->bar + offset, size);
        break;
    case OP_DOORBELL:
        offset = 4 * (unsigned)(take(input, 1) % (2 * QUEUES + 4));
        put(target, NVME_DOORBELLS + offset, 4, take(input, 1) % (ENTRIES + 2));
        break;
    case OP_CONFIG:
        offset = (unsigned)take(input, 1);
        size = 1u << take(input, 1) % 3;
        io_bus_write(target->machine.env.mmio, DEVICE_CONFIG + offset, size, take(input, size));
        break;
    case OP_SAVE:
        fuzz_save_and_load(&target->nvme->pci.device);
        break;
    case OP_SETUP:
        set_up(target, take(input, 1) & 1);
        break;
    case OP_RUN:
        run(target);
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
    struct device *device = &target->nvme->pci.device;
    fuzz_machine_reset(&target->machine, &target->nvme->pci);
    target->bar = target->nvme->pci.bar[0].region.base;
    set_up(target, take(&input, 1) & 1);
    for (unsigned i = 0; i < OPERATIONS_MAX && input.left; i++)
        operate(target, &input);
    run(target);
    device_quiesce(device);
    if (target->nvme->in_flight)
        abort();
    device_resume(device);
    return 0;
}
