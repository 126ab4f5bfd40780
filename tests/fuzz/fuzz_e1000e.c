/*
 * Fuzz target: the 82574L. The input is a driver and a network: it writes guest memory, registers
 * and descriptors, lets frames arrive, lets the peer be full, and has the card saved and loaded.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>

#include "fuzz_machine.h"
#include "hw/nic/e1000e_internal.h"

#define OPERATIONS_MAX 300
#define COUNT 16u
#define TRANSMIT 0x1000u
#define RECEIVE 0x1100u
#define BUFFERS 0x4000u

enum operation {
    OP_REGISTER,
    OP_DESCRIPTOR,
    OP_TAIL,
    OP_MEMORY,
    OP_FRAME,
    OP_CONFIG,
    OP_SAVE,
    OP_SETUP,
    OP_PEER,
    OP_RUN,
    OP_COUNT
};

struct target {
    struct fuzz_machine machine;
    struct e1000e *nic;
    struct net_port peer;
    bool full;
    uint64_t bar;
};

static int peer_send(struct net_port *port, const struct iovec *iov, unsigned count, size_t len)
{
    struct target *target = container_of(port, struct target, peer);
    if (len > NET_FRAME_MAX || len < NET_HDR_SIZE)
        abort();
    return target->full ? -EAGAIN : 0;
}

static void peer_ready(struct net_port *port)
{
}

static const struct net_port_ops peer_ops = {
    .kind = "peer", .send = peer_send, .peer_ready = peer_ready};

static void put(struct target *target, unsigned offset, unsigned size, uint64_t value)
{
    io_bus_write(target->machine.env.mmio, target->bar + offset, size, value);
}

static void run(struct target *target)
{
    loop_once(target->machine.env.loop, 0);
}

static void set_up(struct target *target, uint8_t how)
{
    put(target, E1000E_CTRL, 4, E1000E_CTRL_RST);
    put(target, E1000E_TDBAL, 4, TRANSMIT);
    put(target, E1000E_TDLEN, 4, COUNT * 16);
    put(target, E1000E_TCTL, 4, E1000E_TCTL_EN);
    put(target, E1000E_RDBAL, 4, RECEIVE);
    put(target, E1000E_RDLEN, 4, COUNT * 16);
    put(target, E1000E_RFCTL, 4, how & 1 ? E1000E_RFCTL_EXTEN : 0);
    put(target, E1000E_RCTL, 4, E1000E_RCTL_EN | E1000E_RCTL_UPE | (uint32_t)how << 25);
    for (unsigned i = 0; i < COUNT; i++)
        gmem_store_le64(target->machine.env.gmem, RECEIVE + 16 * i, BUFFERS + 2048 * i);
    put(target, E1000E_RDT, 4, COUNT - 1);
    put(target, E1000E_IMS, 4, ~0u);
    target->peer.offload = how & 2 ? NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 : 0;
}

/* Addresses near every edge; the rest as the input says. */
static void put_descriptor(struct target *target, struct input *input)
{
    static const uint64_t places[] = {0x8000, REGION - 64, 2 * REGION - 32, 2 * REGION, ~0ull - 63};
    uint64_t at = TRANSMIT + 16 * (take(input, 1) % (2 * COUNT));
    uint8_t descriptor[16];
    uint64_t where = take(input, 1);
    put_le64(descriptor, where & 0x80 ? take(input, 8) : places[where % ARRAY_SIZE(places)]);
    put_le64(descriptor + 8, take(input, 8));
    gmem_write(target->machine.env.gmem, at, descriptor, sizeof(descriptor));
}

static void arrive(struct target *target, struct input *input)
{
    static uint8_t frame[NET_FRAME_MAX];
    size_t len = NET_HDR_SIZE + take(input, 2) % (NET_FRAME_MAX - NET_HDR_SIZE);
    struct net_hdr hdr = {.flags = (uint8_t)(take(input, 1) & NET_HDR_F_DATA_VALID)};
    net_hdr_put(&hdr, frame);
    for (unsigned i = 0; i < 6; i++)
        frame[NET_HDR_SIZE + i] = (uint8_t)take(input, 1);
    struct iovec iov = {frame, len};
    if (net_port_deliver(&target->peer, &iov, 1, len) == -EAGAIN)
        net_port_abandon(&target->peer);
}

static void operate(struct target *target, struct input *input)
{
    unsigned size, offset;
    switch ((enum operation)(take(input, 1) % OP_COUNT)) {
    case OP_REGISTER:
        offset = (unsigned)take(input, 2) % 0x6010;
        size = 1u << take(input, 1) % 4;
        put(target, offset, size, take(input, size));
        io_bus_read(target->machine.env.mmio, target->bar + offset, size);
        break;
    case OP_DESCRIPTOR:
        put_descriptor(target, input);
        break;
    case OP_TAIL:
        offset = (unsigned)take(input, 1);
        put(target, offset & 1 ? E1000E_TDT : E1000E_RDT, 4, offset >> 1 & (2 * COUNT - 1));
        break;
    case OP_MEMORY:
        fuzz_memory(&target->machine, input);
        break;
    case OP_FRAME:
        arrive(target, input);
        break;
    case OP_CONFIG:
        offset = (unsigned)take(input, 1);
        size = 1u << take(input, 1) % 3;
        io_bus_write(target->machine.env.mmio, DEVICE_CONFIG + offset, size, take(input, size));
        break;
    case OP_SAVE:
        fuzz_save_and_load(&target->nic->pci.device);
        break;
    case OP_SETUP:
        set_up(target, (uint8_t)take(input, 1));
        break;
    case OP_PEER:
        target->full = take(input, 1) & 1;
        if (!target->full)
            net_port_ready(&target->peer);
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
        fuzz_machine_open(&target->machine);
        target->peer.ops = &peer_ops;
        target->nic = (struct e1000e *)device_new(&e1000e_class, &target->machine.env, "n0");
        target->nic->peer = &target->peer;
        fuzz_machine_add(&target->machine, &target->nic->pci);
    }
    target->full = false;
    fuzz_machine_reset(&target->machine, &target->nic->pci);
    target->bar = target->nic->pci.bar[0].region.base;
    set_up(target, (uint8_t)take(&input, 1));
    for (unsigned i = 0; i < OPERATIONS_MAX && input.left; i++)
        operate(target, &input);
    run(target);
    return 0;
}
