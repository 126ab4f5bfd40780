/*
 * virtio-net but for its frames: configuration, the control queue, many queues, noise, save and
 * load.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "virtio_net_host.h"

static void test_config(void **state)
{
    struct bench *bench = bench_new(2);
    struct machine *machine = &bench->machine;
    uint64_t at = bench->driver.device_config;
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(mmio_read(machine, at + i, 1), mac[i]);
    assert_int_equal(mmio_read(machine, at + 6, 2), 1);
    assert_int_equal(mmio_read(machine, at + 8, 2), 2);
    assert_int_equal(mmio_read(machine, at + 10, 2), 1500);
    assert_int_equal(mmio_read(machine, at + 12, 4), 0);
    uint64_t offered = driver_offered(&bench->driver);
    uint64_t wanted = CTRL_FEATURES | GUEST_FEATURES | HOST_FEATURES | F(VIRTIO_NET_F_MQ) |
                      F(VIRTIO_NET_F_MTU) | F(VIRTIO_NET_F_MAC) | F(VIRTIO_NET_F_STATUS) |
                      F(VIRTIO_NET_F_MRG_RXBUF) | F(VIRTIO_F_VERSION_1);
    assert_int_equal(offered & wanted, wanted);

    start(bench, F(VIRTIO_NET_F_STATUS));
    virtio_net_set_link(bench->net, false);
    assert_int_equal(mmio_read(machine, at + 6, 2), 0);
    assert_true(machine->message[1] > 0);
    virtio_net_set_link(bench->net, true);
    assert_int_equal(mmio_read(machine, at + 6, 2), 1);
    bench_free(bench);
}

/* A device that cannot be made says why, and goes away without a trace. */
static void test_realize_refused(void **state)
{
    struct machine machine;
    machine_init(&machine);
    for (unsigned i = 0; i < 2; i++) {
        struct virtio_net *net =
            (struct virtio_net *)device_new(&virtio_net_class, &machine.env, "n9");
        struct device *device = &net->virtio.pci.device;
        net->mac[0] = i == 0;
        net->pairs = i == 1 ? VIRTIO_NET_PAIRS_MAX + 1 : 1;
        check_ok(pci_bus_attach(machine.bus, &net->virtio.pci, -1));
        struct err *err = device_realize(device);
        assert_non_null(err);
        assert_int_equal(err_kind(err), ERR_USAGE);
        assert_non_null(strstr(err_text(err), "n9"));
        err_free(err);
        pci_bus_detach(&net->virtio.pci);
        device_free(device);
    }
    machine_fini(&machine);
}

static uint8_t ctrl(struct bench *bench, uint8_t class, uint8_t command, const void *data,
                    uint32_t len)
{
    struct machine *machine = &bench->machine;
    uint8_t head[2] = {class, command}, ack = 0xee;
    uint64_t at = bench->scratch;
    assert_int_equal(gmem_write(machine->env.gmem, at, head, 2), 0);
    if (len)
        assert_int_equal(gmem_write(machine->env.gmem, at + 16, data, len), 0);
    assert_int_equal(gmem_write(machine->env.gmem, at + 8, &ack, 1), 0);
    struct buffer with[3] = {{at, 2}, {at + 16, len}, {at + 8, 1}};
    struct buffer without[2] = {{at, 2}, {at + 8, 1}};
    ring_add(&bench->driver, bench->ctrl, len ? with : without, len ? 2 : 1, 1, false);
    ring_kick(&bench->driver, bench->ctrl);
    expect_used(bench, bench->ctrl, 1);
    assert_int_equal(gmem_read(machine->env.gmem, at + 8, &ack, 1), 0);
    return ack;
}

static void test_ctrl(void **state)
{
    struct bench *bench = bench_new(1);
    start(bench, ring_feature(state) | CTRL_FEATURES | GUEST_FEATURES);
    uint8_t on = 1, other[6] = {2, 3, 4, 5, 6, 7}, vlan[2] = {7, 0};
    for (uint8_t command = 0; command < 6; command++)
        assert_int_equal(ctrl(bench, 0, command, &on, 1), 0);
    assert_int_equal(ctrl(bench, 0, 6, &on, 1), 1);
    assert_int_equal(ctrl(bench, 0, 0, other, 2), 1);
    assert_int_equal(ctrl(bench, 0, 0, NULL, 0), 1);

    uint8_t table[4 + 12 + 4 + 6] = {2};
    table[16] = 1;
    assert_int_equal(ctrl(bench, 1, 0, table, sizeof(table)), 0);
    assert_int_equal(ctrl(bench, 1, 0, table, sizeof(table) - 1), 1);
    put_le32(table, 0xffffffff);
    assert_int_equal(ctrl(bench, 1, 0, table, sizeof(table)), 1);
    put_le32(table, 0x2aaaaaab); /* times 6 is 2 in 32 bits */
    assert_int_equal(ctrl(bench, 1, 0, table, sizeof(table)), 1);
    assert_int_equal(ctrl(bench, 1, 1, other, 6), 0);
    assert_int_equal(mmio_read(&bench->machine, bench->driver.device_config + 5, 1), 7);
    assert_int_equal(ctrl(bench, 1, 1, other, 5), 1);

    assert_int_equal(ctrl(bench, 2, 0, vlan, 2), 0);
    assert_int_equal(ctrl(bench, 2, 1, vlan, 2), 0);
    assert_int_equal(ctrl(bench, 2, 2, vlan, 2), 1);
    assert_int_equal(ctrl(bench, 4, 0, vlan, 2), 1);
    assert_int_equal(ctrl(bench, 9, 0, vlan, 2), 1);

    uint8_t offloads[8];
    put_le64(offloads, F(VIRTIO_NET_F_GUEST_CSUM) | F(VIRTIO_NET_F_GUEST_TSO4));
    assert_int_equal(ctrl(bench, 5, 0, offloads, 8), 0);
    assert_int_equal(bench->outside[0].told, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4);
    put_le64(offloads, 0);
    assert_int_equal(ctrl(bench, 5, 0, offloads, 8), 0);
    assert_int_equal(bench->outside[0].told, 0);
    put_le64(offloads, F(VIRTIO_NET_F_GUEST_CSUM) | F(VIRTIO_NET_F_GUEST_ECN));
    assert_int_equal(ctrl(bench, 5, 0, offloads, 8), 1); /* not negotiated */
    assert_int_equal(ctrl(bench, 5, 0, offloads, 7), 1);
    assert_int_equal(ctrl(bench, 5, 1, offloads, 8), 1);

    /* A command of one byte. */
    struct buffer tiny[2] = {{bench->scratch, 1}, {bench->scratch + 8, 1}};
    ring_add(&bench->driver, bench->ctrl, tiny, 1, 1, false);
    ring_kick(&bench->driver, bench->ctrl);
    expect_used(bench, bench->ctrl, 1);
    assert_int_equal(*machine_host(&bench->machine, bench->scratch + 8), 1);

    /* A reset brings the defaults back. */
    driver_reset(&bench->driver);
    assert_int_equal(mmio_read(&bench->machine, bench->driver.device_config + 5, 1), mac[5]);
    assert_int_equal(bench->outside[0].told, 0);

    /* No room for the answer breaks the device, and only it. */
    start(bench, ring_feature(state) | CTRL_FEATURES);
    ring_add(&bench->driver, bench->ctrl, tiny, 2, 0, false);
    ring_kick(&bench->driver, bench->ctrl);
    driver_turn(&bench->driver, 3);
    assert_true(driver_status(&bench->driver) & VIRTIO_STATUS_NEEDS_RESET);
    bench_free(bench);
}

static void test_pairs(void **state)
{
    struct bench *bench = bench_new(3);
    static uint8_t frame[300], got[NET_FRAME_MAX];
    uint8_t pairs[2];
    start(bench, ring_feature(state) | CTRL_FEATURES | F(VIRTIO_NET_F_MQ));
    fill(frame, sizeof(frame), 1);
    struct ring *rx1 = &bench->driver.ring[2], *tx2 = &bench->driver.ring[5];

    /* One pair in use: what comes to the others' ports goes to the first queue. */
    add_rx(bench, bench->rx, 2, BUFFER);
    driver_turn(&bench->driver, 2);
    assert_int_equal(outside_deliver(&bench->outside[1], frame, sizeof(frame)), 0);
    assert_int_equal(collect(bench, bench->rx, got), sizeof(frame));

    put_le16(pairs, 0);
    assert_int_equal(ctrl(bench, 4, 0, pairs, 2), 1);
    put_le16(pairs, 4);
    assert_int_equal(ctrl(bench, 4, 0, pairs, 2), 1);
    put_le16(pairs, 3);
    assert_int_equal(ctrl(bench, 4, 0, pairs, 2), 0);
    bench->outside[1].held = frame;
    bench->outside[1].held_len = sizeof(frame);
    assert_int_equal(outside_deliver(&bench->outside[1], frame, sizeof(frame)), -EAGAIN);
    add_rx(bench, rx1, 1, BUFFER);
    driver_turn(&bench->driver, 3);
    assert_null(bench->outside[1].held);
    assert_int_equal(collect(bench, rx1, got), sizeof(frame));
    transmit(bench, tx2, frame, sizeof(frame), 1);
    expect_used(bench, tx2, 0);
    assert_int_equal(bench->outside[2].count, 1);
    assert_int_equal(bench->outside[0].count, 0);

    /* A driver without MQ finds the control queue third. */
    start(bench, ring_feature(state) | CTRL_FEATURES);
    assert_int_equal(ctrl(bench, 1, 1, mac, 6), 0);
    assert_int_equal(ctrl(bench, 4, 0, pairs, 2), 1);
    transmit(bench, bench->tx, frame, sizeof(frame), 1);
    expect_used(bench, bench->tx, 0);
    assert_int_equal(bench->outside[0].count, 1);
    bench_free(bench);
}

/* Quiesced, the device touches nothing; the loaded one goes on where the first stopped. */
static void test_save_load(void **state)
{
    struct bench *bench = bench_new(1);
    struct machine *machine = &bench->machine;
    static uint8_t frame[5000], got[NET_FRAME_MAX];
    uint8_t other[6] = {2, 3, 4, 5, 6, 7};
    uint16_t id;
    uint32_t len;
    start(bench, ring_feature(state) | CTRL_FEATURES | GUEST_FEATURES | F(VIRTIO_NET_F_MRG_RXBUF));
    assert_int_equal(ctrl(bench, 1, 1, other, 6), 0);
    add_rx(bench, bench->rx, 8, BUFFER);
    bench->outside[0].room = 1;
    fill(frame, sizeof(frame), 1);
    for (unsigned i = 0; i < 3; i++)
        transmit(bench, bench->tx, frame, 1000, 2);
    driver_turn(&bench->driver, 3);
    assert_true(ring_used(&bench->driver, bench->tx, &id, &len));
    assert_int_equal(bench->outside[0].count, 1);

    struct outside *outside = &bench->outside[1];
    struct virtio_net *fresh = new_net(bench, 1, outside);
    round_trip(&bench->net->virtio.pci.device, &fresh->virtio.pci.device);
    assert_int_equal(outside->told, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6);
    assert_memory_equal(fresh->mac_now, other, 6);

    /* Between quiesce and resume the peer is held off. */
    assert_int_equal(outside_deliver(&bench->outside[0], frame, 100), -EAGAIN);
    bench->outside[0].room = 10;
    net_port_ready(&bench->outside[0].port);
    assert_int_equal(bench->outside[0].count, 1);

    pci_bus_detach(&bench->net->virtio.pci);
    device_free(&bench->net->virtio.pci.device);
    bench->net = fresh;
    device_resume(&fresh->virtio.pci.device);
    driver_turn(&bench->driver, 3);
    assert_int_equal(outside->count, 2);
    assert_int_equal(outside->len, 1000);
    assert_int_equal(outside_deliver(outside, frame, 5000), 0);
    bench->driver.config = ECAM + ((uint64_t)fresh->virtio.pci.devfn << 12);
    assert_int_equal(collect(bench, bench->rx, got), 5000);
    (void)machine;
    bench_free(bench);
}

/* A driver that lies in every field it can, for a while: nothing but drops and NEEDS_RESET. */
static void test_noise(void **state)
{
    struct bench *bench = bench_new(2);
    struct machine *machine = &bench->machine;
    static uint8_t frame[9000];
    srandom(11);
    fill(frame, sizeof(frame), 5);
    for (unsigned round = 0; round < 60; round++) {
        machine->next = MIB(1) / 4;
        start(bench, ring_feature(state) | CTRL_FEATURES | GUEST_FEATURES | HOST_FEATURES |
                         F(VIRTIO_NET_F_MQ) | (round % 2 ? F(VIRTIO_NET_F_MRG_RXBUF) : 0));
        for (unsigned i = 0; i < 60; i++) {
            struct ring *ring = &bench->driver.ring[random() % 5];
            struct buffer buffers[4];
            unsigned count = 1 + (unsigned)random() % 4;
            unsigned out = (unsigned)random() % (count + 1);
            for (unsigned j = 0; j < count; j++)
                buffers[j] = (struct buffer){bench->scratch + (uint64_t)random() % 3000,
                                             (uint32_t)random() % 2000 + 1};
            if (round % 8 == 7 && i == 50)
                buffers[0].gpa = RAM_SIZE - 3;
            for (unsigned j = 0; j < 40; j++)
                *machine_host(machine, bench->scratch + (uint64_t)random() % 3000) =
                    (uint8_t)random();
            if ((ring->avail - ring->used + RING_SIZE) % RING_SIZE < RING_SIZE - 8)
                ring_add(&bench->driver, ring, buffers, out, count - out, false);
            ring_kick_always(&bench->driver, ring);
            outside_deliver(&bench->outside[random() % 2], frame, 30 + (size_t)random() % 8000);
            driver_turn(&bench->driver, 1);
        }
    }
    bench_free(bench);
}

int main(void)
{
    static int packed = 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_realize_refused),
        BOTH(test_ctrl),
        BOTH(test_pairs),
        BOTH(test_save_load),
        BOTH(test_noise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
