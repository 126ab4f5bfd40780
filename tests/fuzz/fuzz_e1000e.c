/*
 * Fuzz target: the 82574L. The input is a driver and a network: it writes guest memory, registers
 * and descriptors, lets frames arrive, lets the peer be full, and has the card saved and loaded.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>

#include "fuzz_pci.h"
#include "hw/nic/e1000e_internal.h"

#define COUNT 16u
#define TRANSMIT 0x1000u
#define RECEIVE 0x1100u
#define BUFFERS 0x4000u

static struct e1000e *nic;
static bool full; /* the peer */

static int peer_send(struct net_port *port, const struct iovec *iov, unsigned count, size_t len)
{
    if (len > NET_FRAME_MAX || len < NET_HDR_SIZE)
        abort();
    return full ? -EAGAIN : 0;
}

static void peer_ready(struct net_port *port)
{
}

static const struct net_port_ops peer_ops = {
    .kind = "peer", .send = peer_send, .peer_ready = peer_ready};
static struct net_port peer = {.ops = &peer_ops};

static struct pci_device *open_device(struct fuzz_machine *machine)
{
    nic = (struct e1000e *)device_new(&e1000e_class, &machine->env, "n0");
    nic->peer = &peer;
    fuzz_machine_add(machine, &nic->pci);
    return &nic->pci;
}

static void set_up(struct input *input)
{
    uint8_t how = (uint8_t)take(input, 1);
    fuzz_put(E1000E_CTRL, 4, E1000E_CTRL_RST);
    fuzz_put(E1000E_TDBAL, 4, TRANSMIT);
    fuzz_put(E1000E_TDLEN, 4, COUNT * 16);
    fuzz_put(E1000E_TCTL, 4, E1000E_TCTL_EN);
    fuzz_put(E1000E_RDBAL, 4, RECEIVE);
    fuzz_put(E1000E_RDLEN, 4, COUNT * 16);
    fuzz_put(E1000E_RFCTL, 4, how & 1 ? E1000E_RFCTL_EXTEN : 0);
    fuzz_put(E1000E_RCTL, 4, E1000E_RCTL_EN | E1000E_RCTL_UPE | (uint32_t)how << 25);
    for (unsigned i = 0; i < COUNT; i++)
        gmem_store_le64(fuzz_machine.env.gmem, RECEIVE + 16 * i, BUFFERS + 2048 * i);
    fuzz_put(E1000E_RDT, 4, COUNT - 1);
    fuzz_put(E1000E_IMS, 4, ~0u);
    peer.offload = how & 2 ? NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 : 0;
}

/* Addresses near every edge; the rest as the input says. */
static void put_descriptor(struct input *input)
{
    static const uint64_t places[] = {0x8000, REGION - 64, 2 * REGION - 32, 2 * REGION, ~0ull - 63};
    uint64_t at = TRANSMIT + 16 * (take(input, 1) % (2 * COUNT));
    uint8_t descriptor[16];
    uint64_t where = take(input, 1);
    put_le64(descriptor, where & 0x80 ? take(input, 8) : places[where % ARRAY_SIZE(places)]);
    put_le64(descriptor + 8, take(input, 8));
    gmem_write(fuzz_machine.env.gmem, at, descriptor, sizeof(descriptor));
}

static void arrive(struct input *input)
{
    static uint8_t frame[NET_FRAME_MAX];
    size_t len = NET_HDR_SIZE + take(input, 2) % (NET_FRAME_MAX - NET_HDR_SIZE);
    struct net_hdr hdr = {.flags = (uint8_t)(take(input, 1) & NET_HDR_F_DATA_VALID)};
    net_hdr_put(&hdr, frame);
    for (unsigned i = 0; i < 6; i++)
        frame[NET_HDR_SIZE + i] = (uint8_t)take(input, 1);
    struct iovec iov = {frame, len};
    if (net_port_deliver(&peer, &iov, 1, len) == -EAGAIN)
        net_port_abandon(&peer);
}

static void put_tail(struct input *input)
{
    unsigned how = (unsigned)take(input, 1);
    fuzz_put(how & 1 ? E1000E_TDT : E1000E_RDT, 4, how >> 1 & (2 * COUNT - 1));
}

static void fill_peer(struct input *input)
{
    full = take(input, 1) & 1;
    if (!full)
        net_port_ready(&peer);
}

static void begin(struct input *input)
{
    full = false;
    set_up(input);
}

static void (*const operations[])(struct input *) = {
    fuzz_op_register, put_descriptor, put_tail, fuzz_op_memory, arrive,
    fuzz_op_config,   fuzz_op_save,   set_up,   fill_peer,      fuzz_op_run};

static const struct fuzz_pci_target fuzz_target = {
    .bar = 0,
    .registers = 0x6010,
    .operations_max = 300,
    .open = open_device,
    .begin = begin,
    .operations = operations,
    .operation_count = ARRAY_SIZE(operations),
};
