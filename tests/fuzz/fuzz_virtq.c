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
#include "fuzz_pci.h"
#include "hw/virtio/virtq.h"

#define QUEUE_AREAS 0x3000u

static struct echo *echo;
static uint16_t ring_size;

static struct pci_device *open_device(struct fuzz_machine *machine)
{
    echo = (struct echo *)device_new(&echo_class, &machine->env, "e0");
    fuzz_machine_add(machine, &echo->virtio.pci);
    return &echo->virtio.pci;
}

/* A reset, features and two rings, as a good driver would. */
static void set_up(struct input *input)
{
    uint64_t features = 1ull << VIRTIO_F_VERSION_1;
    unsigned bits = (unsigned)take(input, 1);
    ring_size = (uint16_t)(1u << (1 + take(input, 1) % 6));
    features |= bits & 1 ? 1ull << VIRTIO_F_RING_PACKED : 0;
    features |= bits & 2 ? 1ull << VIRTIO_F_EVENT_IDX : 0;
    features |= bits & 4 ? 1ull << VIRTIO_F_INDIRECT_DESC : 0;
    features |= bits & 8 ? 1ull << VIRTIO_F_RING_RESET : 0;
    fuzz_put(0x14, 1, 0);
    fuzz_put(0x14, 1, 3);
    for (unsigned half = 0; half < 2; half++) {
        fuzz_put(8, 4, half);
        fuzz_put(12, 4, (uint32_t)(features >> (32 * half)));
    }
    fuzz_put(0x14, 1, 11);
    for (unsigned queue = 0; queue < 2; queue++) {
        fuzz_put(0x16, 2, queue);
        fuzz_put(0x18, 2, ring_size);
        for (unsigned area = 0; area < 3; area++)
            fuzz_put(0x20 + 8 * area, 8, QUEUE_AREAS * (queue + 1) + 0x1000 * area);
        fuzz_put(0x1c, 2, 1);
    }
    fuzz_put(0x14, 1, 15);
}

static void descriptor(struct input *input)
{
    static const uint64_t places[] = {0x8000,     0xff00, REGION - 8,  2 * REGION - 8,
                                      2 * REGION, 0,      QUEUE_AREAS, ~0ull - 7};
    unsigned queue = (unsigned)take(input, 1) % 2, slot = (unsigned)take(input, 1);
    uint8_t bytes[VIRTQ_DESC_SIZE];
    put_le64(bytes, places[take(input, 1) % ARRAY_SIZE(places)] + take(input, 1));
    put_le32(bytes + 8, (uint32_t)take(input, 2));
    put_le16(bytes + 12, (uint16_t)take(input, 2));
    put_le16(bytes + 14, (uint16_t)take(input, 2));
    gmem_write(fuzz_machine.env.gmem, QUEUE_AREAS * (queue + 1) + slot % ring_size * 16, bytes,
               sizeof(bytes));
}

static void make_available(struct input *input)
{
    unsigned queue = (unsigned)take(input, 1) % 2, more = (unsigned)take(input, 1);
    uint64_t at = QUEUE_AREAS * (queue + 1) + 0x1000 + 2;
    uint16_t index;
    if (gmem_load_le16(fuzz_machine.env.gmem, at, &index) == 0)
        gmem_store_le16(fuzz_machine.env.gmem, at,
                        (uint16_t)(index + (more < 250 ? more % 8 : more * 99)));
}

static void kick(struct input *input)
{
    fuzz_put(0x3000 + 4 * (unsigned)(take(input, 1) % ECHO_QUEUES), 2, 0);
    fuzz_run();
}

static void hold(struct input *input)
{
    echo->hold = take(input, 1) & 1;
}

static void unpop(struct input *input)
{
    echo->unpop = take(input, 1) & 1;
}

static void begin(struct input *input)
{
    echo->hold = echo->unpop = false;
    set_up(input);
}

static bool at_rest(void)
{
    return !echo->held_count;
}

static void (*const operations[])(struct input *) = {
    fuzz_op_memory, kick,   fuzz_op_register, make_available, descriptor,
    hold,           set_up, fuzz_op_save,     unpop,          fuzz_op_config};

static const struct fuzz_pci_target fuzz_target = {
    .bar = 4,
    .registers = 0x4000,
    .operations_max = 400,
    .open = open_device,
    .begin = begin,
    .operations = operations,
    .operation_count = ARRAY_SIZE(operations),
    .at_rest = at_rest,
};
