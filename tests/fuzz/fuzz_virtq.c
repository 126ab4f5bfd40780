/*
 * Fuzz target: virtqueues. The input is a driver: it lays rings, writes descriptors and guest
 * memory, registers in any size, rings doorbells, resets, and has the device saved and loaded in
 * between.
 *
 * Whatever it does, the device must come to rest with no request in its hands.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "../unit/hw/virtio_echo.h"
#include "fuzz_machine.h"
#include "hw/virtio/virtq.h"

#define QUEUE_AREAS 0x3000u
#define OPERATIONS_MAX 400

struct target {
    struct fuzz_machine machine;
    struct echo *echo;
    uint64_t bar;
    uint16_t size;
};

enum operation {
    OP_MEMORY,
    OP_KICK,
    OP_REGISTER,
    OP_AVAIL,
    OP_DESCRIPTOR,
    OP_HOLD,
    OP_SETUP,
    OP_SAVE,
    OP_UNPOP,
    OP_CONFIG,
    OP_COUNT,
};

static void target_open(struct target *target)
{
    fuzz_machine_open(&target->machine);
    target->echo = (struct echo *)device_new(&echo_class, &target->machine.env, "e0");
    fuzz_machine_add(&target->machine, &target->echo->virtio.pci);
}

static void put(struct target *target, unsigned offset, unsigned size, uint64_t value)
{
    io_bus_write(target->machine.env.mmio, target->bar + offset, size, value);
}

/* A reset, features and two rings, as a good driver would. */
static void set_up(struct target *target, struct input *input)
{
    uint64_t features = 1ull << VIRTIO_F_VERSION_1;
    unsigned bits = (unsigned)take(input, 1);
    target->size = (uint16_t)(1u << (1 + take(input, 1) % 6));
    features |= bits & 1 ? 1ull << VIRTIO_F_RING_PACKED : 0;
    features |= bits & 2 ? 1ull << VIRTIO_F_EVENT_IDX : 0;
    features |= bits & 4 ? 1ull << VIRTIO_F_INDIRECT_DESC : 0;
    features |= bits & 8 ? 1ull << VIRTIO_F_RING_RESET : 0;
    put(target, 0x14, 1, 0);
    put(target, 0x14, 1, 3);
    for (unsigned half = 0; half < 2; half++) {
        put(target, 8, 4, half);
        put(target, 12, 4, (uint32_t)(features >> (32 * half)));
    }
    put(target, 0x14, 1, 11);
    for (unsigned queue = 0; queue < 2; queue++) {
        put(target, 0x16, 2, queue);
        put(target, 0x18, 2, target->size);
        for (unsigned area = 0; area < 3; area++)
            put(target, 0x20 + 8 * area, 8, QUEUE_AREAS * (queue + 1) + 0x1000 * area);
        put(target, 0x1c, 2, 1);
    }
    put(target, 0x14, 1, 15);
}

static void descriptor(struct target *target, struct input *input)
{
    static const uint64_t places[] = {0x8000,     0xff00, REGION - 8,  2 * REGION - 8,
                                      2 * REGION, 0,      QUEUE_AREAS, ~0ull - 7};
    unsigned queue = (unsigned)take(input, 1) % 2, slot = (unsigned)take(input, 1);
    uint8_t bytes[VIRTQ_DESC_SIZE];
    put_le64(bytes, places[take(input, 1) % ARRAY_SIZE(places)] + take(input, 1));
    put_le32(bytes + 8, (uint32_t)take(input, 2));
    put_le16(bytes + 12, (uint16_t)take(input, 2));
    put_le16(bytes + 14, (uint16_t)take(input, 2));
    gmem_write(target->machine.env.gmem, QUEUE_AREAS * (queue + 1) + slot % target->size * 16,
               bytes, sizeof(bytes));
}

static void make_available(struct target *target, struct input *input)
{
    unsigned queue = (unsigned)take(input, 1) % 2, more = (unsigned)take(input, 1);
    uint64_t at = QUEUE_AREAS * (queue + 1) + 0x1000 + 2;
    uint16_t index;
    if (gmem_load_le16(target->machine.env.gmem, at, &index) == 0)
        gmem_store_le16(target->machine.env.gmem, at,
                        (uint16_t)(index + (more < 250 ? more % 8 : more * 99)));
}

static void operate(struct target *target, struct input *input)
{
    unsigned size, offset;
    switch ((enum operation)(take(input, 1) % OP_COUNT)) {
    case OP_MEMORY:
        fuzz_memory(&target->machine, input);
        break;
    case OP_KICK:
        put(target, 0x3000 + 4 * (unsigned)(take(input, 1) % ECHO_QUEUES), 2, 0);
        loop_once(target->machine.env.loop, 0);
        break;
    case OP_REGISTER:
        offset = (unsigned)take(input, 2) % 0x4000;
        size = 1u << take(input, 1) % 4;
        put(target, offset, size, take(input, size));
        io_bus_read(target->machine.env.mmio, target->bar + offset, size);
        break;
    case OP_AVAIL:
        make_available(target, input);
        break;
    case OP_DESCRIPTOR:
        descriptor(target, input);
        break;
    case OP_HOLD:
        target->echo->hold = take(input, 1) & 1;
        break;
    case OP_SETUP:
        set_up(target, input);
        break;
    case OP_SAVE:
        fuzz_save_and_load(&target->echo->virtio.pci.device);
        break;
    case OP_UNPOP:
        target->echo->unpop = take(input, 1) & 1;
        break;
    case OP_CONFIG:
        offset = (unsigned)take(input, 1);
        size = 1u << take(input, 1) % 3;
        io_bus_write(target->machine.env.mmio, DEVICE_CONFIG + offset, size, take(input, size));
        io_bus_read(target->machine.env.mmio, DEVICE_CONFIG + offset, size);
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
    struct device *device = &target->echo->virtio.pci.device;
    fuzz_machine_reset(&target->machine, &target->echo->virtio.pci);
    target->bar = target->echo->virtio.pci.bar[4].region.base;
    target->echo->hold = target->echo->unpop = false;
    set_up(target, &input);
    for (unsigned i = 0; i < OPERATIONS_MAX && input.left; i++)
        operate(target, &input);
    device_quiesce(device);
    if (target->echo->held_count)
        abort();
    device_resume(device);
    return 0;
}
