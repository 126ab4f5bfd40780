/*
 * The 82574L against a hand-written driver: identity, NVM and PHY, frames both ways with every kind
 * of descriptor, checksums and segmentation, filters, interrupts, hostile rings, state.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "virtio_driver.h"

#include <errno.h>

#include "hw/nic/e1000e_internal.h"
#include "net/core/iov.h"

#define COUNT 16u
#define OFFLOADS (NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6)
#define EOP (1u << 24)
#define RS (1u << 27)
#define DEXT (1u << 29)
#define DATA (1u << 20)

static const uint8_t mac[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

struct outside {
    struct net_port port;
    unsigned room, count, ready;
    size_t len;
    uint8_t last[NET_FRAME_MAX];
};

static int outside_send(struct net_port *port, const struct iovec *iov, unsigned count, size_t len)
{
    struct outside *outside = container_of(port, struct outside, port);
    if (!outside->room)
        return -EAGAIN;
    outside->room--;
    outside->count++;
    outside->len = net_iov_read(iov, count, 0, outside->last, sizeof(outside->last));
    assert_int_equal(outside->len, len);
    return 0;
}

static void outside_ready(struct net_port *port)
{
    container_of(port, struct outside, port)->ready++;
}

static const struct net_port_ops outside_ops = {
    .kind = "outside", .send = outside_send, .peer_ready = outside_ready};

struct bed {
    struct machine machine;
    struct outside outside;
    struct e1000e *nic;
    uint64_t config, bar, tx, rx, data, buffers;
    uint32_t tail;
};

static struct e1000e *nic_new(struct bed *bed)
{
    struct e1000e *nic = (struct e1000e *)device_new(&e1000e_class, &bed->machine.env, "n0");
    memcpy(nic->mac, mac, sizeof(mac));
    nic->peer = &bed->outside.port;
    machine_add(&bed->machine, &nic->pci.device);
    return nic;
}

static uint32_t reg(struct bed *bed, unsigned offset)
{
    return (uint32_t)mmio_read(&bed->machine, bed->bar + offset, 4);
}

static void set_reg(struct bed *bed, unsigned offset, uint32_t value)
{
    mmio_write(&bed->machine, bed->bar + offset, 4, value);
}

static uint8_t *host(struct bed *bed, uint64_t gpa)
{
    return machine_host(&bed->machine, gpa);
}

static void turn(struct bed *bed)
{
    for (unsigned i = 0; i < 3; i++)
        loop_once(bed->machine.env.loop, 0);
}

static void find(struct bed *bed)
{
    struct driver driver = {.machine = &bed->machine,
                            .config = ECAM + ((uint64_t)bed->nic->pci.devfn << 12)};
    bed->config = driver.config;
    mmio_write(&bed->machine, driver.config + 4, 2, 6);
    driver.msix = bed->nic->pci.msix_capability;
    driver_msix_on(&driver);
    bed->bar = driver_bar(&driver, 0);
}

/* Rings as the Linux driver sets them; vector 0 receives, 1 transmits, 2 is the rest. */
static void start(struct bed *bed, uint32_t receive)
{
    set_reg(bed, E1000E_IVAR, 0x8 | 0x9 << 8 | 0xa << 16);
    set_reg(bed, E1000E_EIAC, 0x01f00000);
    set_reg(bed, E1000E_IAM, 0xffffffff);
    set_reg(bed, E1000E_CTRL_EXT, E1000E_EXT_EIAME);
    set_reg(bed, E1000E_TDBAL, (uint32_t)bed->tx);
    set_reg(bed, E1000E_TDLEN, COUNT * 16);
    set_reg(bed, E1000E_TCTL, E1000E_TCTL_EN);
    set_reg(bed, E1000E_RDBAL, (uint32_t)bed->rx);
    set_reg(bed, E1000E_RDLEN, COUNT * 16);
    set_reg(bed, E1000E_RFCTL, E1000E_RFCTL_EXTEN);
    set_reg(bed, E1000E_RCTL, E1000E_RCTL_EN | E1000E_RCTL_BAM | receive);
    for (unsigned i = 0; i < COUNT; i++)
        put_le64(host(bed, bed->rx + 16 * i), bed->buffers + 2048 * i);
    set_reg(bed, E1000E_RDT, COUNT - 1);
    set_reg(bed, E1000E_IMS, 0x01f00000 | E1000E_INT_LSC);
    turn(bed);
}

static void bed_open(struct bed *bed)
{
    memset(bed, 0, sizeof(*bed));
    machine_init(&bed->machine);
    bed->outside =
        (struct outside){.room = 1000, .port = {.ops = &outside_ops, .offload = OFFLOADS}};
    bed->nic = nic_new(bed);
    bed->tx = machine_alloc(&bed->machine, COUNT * 16, 128);
    bed->rx = machine_alloc(&bed->machine, COUNT * 16, 128);
    bed->data = machine_alloc(&bed->machine, 0x10000, 64);
    bed->buffers = machine_alloc(&bed->machine, COUNT * 2048, 2048);
    find(bed);
}

static void bed_close(struct bed *bed)
{
    device_free(&bed->nic->pci.device);
    machine_fini(&bed->machine);
}

/* Adds a descriptor; the driver's tail is set by kick(). */
static uint8_t *put(struct bed *bed, uint64_t gpa, uint32_t command, uint32_t options)
{
    uint8_t *at = host(bed, bed->tx + 16 * bed->tail);
    put_le64(at, gpa);
    put_le32(at + 8, command);
    put_le32(at + 12, options);
    bed->tail = (bed->tail + 1) % COUNT;
    return at;
}

static void kick(struct bed *bed)
{
    set_reg(bed, E1000E_TDT, bed->tail);
    turn(bed);
}

static void test_identity(void **state)
{
    struct bed bed;
    uint16_t sum = 0;
    bed_open(&bed);
    assert_int_equal(mmio_read(&bed.machine, bed.config, 4), 0x10d38086);
    for (unsigned i = 0; i < 64; i++) {
        set_reg(&bed, E1000E_EERD, i << 2 | 1);
        assert_int_equal(reg(&bed, E1000E_EERD) & 2, 2);
        sum = (uint16_t)(sum + (reg(&bed, E1000E_EERD) >> 16));
        if (i < 3)
            assert_int_equal(reg(&bed, E1000E_EERD) >> 16, get_le16(mac + 2 * i));
    }
    assert_int_equal(sum, 0xbaba);
    set_reg(&bed, E1000E_EERD, 5000 << 2 | 1);
    assert_int_equal(reg(&bed, E1000E_EERD) >> 16, 0xffff);
    /* The PHY: its identifier, a register that keeps, one that does not, and a reset. */
    set_reg(&bed, E1000E_MDIC, 2u << 26 | 1u << 21 | 2u << 16);
    assert_int_equal(reg(&bed, E1000E_MDIC) & 0xffff, 0x0141);
    set_reg(&bed, E1000E_MDIC, 1u << 26 | 1u << 21 | 4u << 16 | 0x1234);
    set_reg(&bed, E1000E_MDIC, 1u << 26 | 1u << 21 | 2u << 16 | 0x1234);
    set_reg(&bed, E1000E_MDIC, 2u << 26 | 1u << 21 | 4u << 16);
    assert_int_equal(reg(&bed, E1000E_MDIC) & 0xffff, 0x1234);
    set_reg(&bed, E1000E_MDIC, 2u << 26 | 3u << 21 | 4u << 16);
    assert_true(reg(&bed, E1000E_MDIC) & 1u << 30);
    set_reg(&bed, E1000E_CTRL, E1000E_CTRL_RST);
    assert_int_equal(reg(&bed, E1000E_CTRL) & E1000E_CTRL_RST, 0);
    assert_int_equal(reg(&bed, E1000E_STATUS) & E1000E_STATUS_LINK, E1000E_STATUS_LINK);
    assert_int_equal(reg(&bed, E1000E_RAL0), get_le32(mac));
    bed_close(&bed);
}

static void test_transmit(void **state)
{
    struct bed bed;
    bed_open(&bed);
    start(&bed, E1000E_RCTL_SECRC);
    uint8_t *data = host(&bed, bed.data);
    for (unsigned i = 0; i < 3000; i++)
        data[i] = (uint8_t)(i * 7);
    /* Old descriptors in three pieces, then one; around the ring's end several times. */
    for (unsigned round = 0; round < 20; round++) {
        put(&bed, bed.data, 100, 0);
        put(&bed, bed.data + 100, 60, 0);
        uint8_t *last = put(&bed, bed.data + 160, 40 | EOP | RS, 0);
        unsigned before = bed.outside.count;
        kick(&bed);
        assert_int_equal(bed.outside.count, before + 1);
        assert_int_equal(bed.outside.len, NET_HDR_SIZE + 200);
        assert_memory_equal(bed.outside.last + NET_HDR_SIZE, data, 200);
        assert_int_equal(last[12] & 1, 1);
        assert_int_equal(reg(&bed, E1000E_TDH), bed.tail);
    }
    assert_true(bed.machine.message[2] >= 1);
    /* Half a frame waits for the rest. */
    unsigned before = bed.outside.count;
    put(&bed, bed.data, 100, 0);
    kick(&bed);
    assert_int_equal(bed.outside.count, before);
    put(&bed, bed.data + 100, 20 | EOP, 0);
    kick(&bed);
    assert_int_equal(bed.outside.len, NET_HDR_SIZE + 120);
    /* A port without room gets the frame later, once. */
    bed.outside.room = 0;
    put(&bed, bed.data, 77 | EOP, 0);
    put(&bed, bed.data, 78 | EOP, 0);
    kick(&bed);
    assert_int_equal(bed.outside.count, before + 1);
    bed.outside.room = 10;
    net_port_ready(&bed.outside.port);
    assert_int_equal(bed.outside.count, before + 3);
    assert_int_equal(bed.outside.len, NET_HDR_SIZE + 78);
    bed_close(&bed);
}

/* An IPv4 TCP frame with `payload` bytes, as the Linux driver leaves it for the card. */
static uint32_t tcp_frame(struct bed *bed, uint32_t payload, bool segments)
{
    uint8_t *frame = host(bed, bed->data), *ip = frame + 14, *tcp = ip + 20;
    uint32_t len = 14 + 20 + 20 + payload;
    memset(frame, 0, len);
    frame[12] = 0x08;
    ip[0] = 0x45;
    put_be16(ip + 2, segments ? 0 : (uint16_t)(len - 14));
    ip[8] = 64;
    ip[9] = 6;
    put_be32(ip + 12, 0x0a00020f);
    put_be32(ip + 16, 0x0a000202);
    put_be16(tcp, 1234);
    put_be16(tcp + 2, 80);
    tcp[12] = 0x50;
    tcp[13] = 0x10;
    for (uint32_t i = 0; i < payload; i++)
        tcp[20 + i] = (uint8_t)(i * 3);
    uint64_t sum = net_csum_add(0, ip + 12, 8);
    uint8_t rest[4] = {0, 6};
    if (!segments)
        put_be16(rest + 2, (uint16_t)(20 + payload));
    uint16_t folded = (uint16_t)~net_csum_fold(net_csum_add(sum, rest, 4));
    memcpy(tcp + 16, &folded, 2);
    return len;
}

static void put_context(struct bed *bed, uint32_t payload, uint16_t mss)
{
    uint8_t *at = put(bed, 0, payload | DEXT | 1u << 25 | 1u << 24, 0);
    at[0] = 14;
    at[1] = 14 + 10;
    put_le16(at + 2, 33);
    at[4] = 34;
    at[5] = 34 + 16;
    at[13] = 54;
    put_le16(at + 14, mss);
}

static void test_offloads(void **state)
{
    struct bed bed;
    struct net_hdr hdr;
    bed_open(&bed);
    start(&bed, E1000E_RCTL_SECRC);
    /* A checksum that the outside is to fill in. */
    uint32_t len = tcp_frame(&bed, 101, false);
    put_context(&bed, 0, 0);
    put(&bed, bed.data, len | DEXT | DATA | EOP | RS, 3u << 8);
    kick(&bed);
    net_hdr_get(&hdr, bed.outside.last);
    assert_int_equal(hdr.flags, NET_HDR_F_NEEDS_CSUM);
    assert_int_equal(hdr.csum_start, 34);
    assert_int_equal(hdr.csum_offset, 16);
    uint8_t *frame = bed.outside.last + NET_HDR_SIZE;
    assert_int_equal(net_csum_fold(net_csum_add(0, frame + 14, 20)),
                     0); /* the header's own is done */
    assert_int_equal(net_csum_complete(&hdr, frame, len), 0);
    uint8_t pseudo[12];
    memcpy(pseudo, frame + 26, 8);
    put_be16(pseudo + 8, 6);
    put_be16(pseudo + 10, 121);
    assert_int_equal(net_csum_fold(net_csum_add(net_csum_add(0, pseudo, 12), frame + 34, 121)), 0);
    /* Segments: the lengths that the driver left out are there, and the whole sum is right. */
    len = tcp_frame(&bed, 10000, true);
    put_context(&bed, 10000, 1460);
    put(&bed, bed.data, 54 | DEXT | DATA | 1u << 26, 3u << 8);
    put(&bed, bed.data + 54, (len - 54) | DEXT | DATA | 1u << 26 | EOP | RS, 3u << 8);
    kick(&bed);
    net_hdr_get(&hdr, bed.outside.last);
    assert_int_equal(hdr.gso_type, NET_GSO_TCPV4);
    assert_int_equal(hdr.gso_size, 1460);
    assert_int_equal(get_be16(frame + 16), len - 14);
    assert_int_equal(bed.outside.len, NET_HDR_SIZE + len);
    assert_int_equal(net_csum_complete(&hdr, frame, len), 0);
    put_be16(pseudo + 10, (uint16_t)(len - 34));
    assert_int_equal(net_csum_fold(net_csum_add(net_csum_add(0, pseudo, 12), frame + 34, len - 34)),
                     0);
    bed_close(&bed);
}

static int arrive(struct bed *bed, const uint8_t to[6], size_t len)
{
    static uint8_t frame[NET_FRAME_MAX];
    memset(frame, 0, NET_HDR_SIZE);
    for (size_t i = 0; i < len; i++)
        frame[NET_HDR_SIZE + i] = (uint8_t)(i * 5);
    memcpy(frame + NET_HDR_SIZE, to, 6);
    struct iovec iov[2] = {{frame, 7}, {frame + 7, NET_HDR_SIZE + len - 7}};
    return net_port_deliver(&bed->outside.port, iov, 2, NET_HDR_SIZE + len);
}

static void test_receive(void **state)
{
    static const uint8_t other[6] = {0x52, 0x54, 0, 9, 9, 9}, group[6] = {1, 0, 0x5e, 0, 0, 1},
                         all[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    struct bed bed;
    bed_open(&bed);
    start(&bed, E1000E_RCTL_SECRC | E1000E_RCTL_LPE);
    assert_int_equal(arrive(&bed, mac, 200), 0);
    const uint8_t *first = host(&bed, bed.rx);
    assert_int_equal(get_le32(first + 8), 1 | 2 | 4);
    assert_int_equal(get_le16(first + 12), 200);
    assert_int_equal(host(&bed, bed.buffers)[100], (uint8_t)500);
    assert_int_equal(bed.machine.message[1], 1);
    /* Masked until the driver is through. */
    assert_int_equal(arrive(&bed, all, 64), 0);
    assert_int_equal(bed.machine.message[1], 1);
    set_reg(&bed, E1000E_IMS, E1000E_INT_RXQ0);
    assert_int_equal(bed.machine.message[1], 2);
    /* Others' frames; groups by their hash; then everybody's. */
    uint32_t head = reg(&bed, E1000E_RDH);
    assert_int_equal(arrive(&bed, other, 64), 0);
    assert_int_equal(arrive(&bed, group, 64), 0);
    assert_int_equal(reg(&bed, E1000E_RDH), head);
    unsigned hash = (group[4] >> 4 | (unsigned)group[5] << 4) & 0xfff;
    set_reg(&bed, E1000E_MTA + 4 * (hash >> 5), 1u << (hash & 31));
    assert_int_equal(arrive(&bed, group, 64), 0);
    assert_int_equal(reg(&bed, E1000E_RDH), head + 1);
    /* A long one takes two buffers. */
    assert_int_equal(arrive(&bed, mac, 3000), 0);
    assert_int_equal(reg(&bed, E1000E_RDH), head + 3);
    assert_int_equal(get_le32(host(&bed, bed.rx + 16 * (head + 1) + 8)), 1);
    assert_int_equal(get_le16(host(&bed, bed.rx + 16 * (head + 2) + 12)), 3000 - 2048);
    /* A full ring lets the peer wait, and wakes it. */
    while (arrive(&bed, mac, 64) == 0)
        assert_true(reg(&bed, E1000E_RDH) < COUNT);
    assert_int_equal(reg(&bed, E1000E_RDH), reg(&bed, E1000E_RDT));
    set_reg(&bed, E1000E_RDT, 3);
    turn(&bed);
    assert_int_equal(bed.outside.ready, 1);
    assert_int_equal(arrive(&bed, mac, 64), 0);
    /* The old form, with room for the wire's checksum. */
    set_reg(&bed, E1000E_RFCTL, 0);
    set_reg(&bed, E1000E_RCTL, E1000E_RCTL_EN | E1000E_RCTL_UPE);
    head = reg(&bed, E1000E_RDH);
    assert_int_equal(arrive(&bed, other, 100), 0);
    assert_int_equal(get_le16(host(&bed, bed.rx + 16 * head + 8)), 104);
    assert_int_equal(host(&bed, bed.rx + 16 * head)[12] & 3, 3);
    bed_close(&bed);
}

static void test_line_interrupt(void **state)
{
    struct bed bed;
    bed_open(&bed);
    start(&bed, E1000E_RCTL_SECRC);
    mmio_write(&bed.machine, bed.config + bed.nic->pci.msix_capability + 2, 2, 0);
    set_reg(&bed, E1000E_IMS, E1000E_INT_LSC | E1000E_INT_RXT0);
    set_reg(&bed, E1000E_ICS, E1000E_INT_LSC);
    assert_true(bed.machine.line);
    assert_int_equal(reg(&bed, E1000E_ICR), E1000E_INT_LSC | E1000E_INT_ASSERTED);
    assert_false(bed.machine.line);
    set_reg(&bed, E1000E_IMC, E1000E_INT_RXT0);
    assert_int_equal(arrive(&bed, mac, 64), 0);
    assert_int_equal(reg(&bed, E1000E_ICR) & E1000E_INT_RXT0, E1000E_INT_RXT0);
    bed_close(&bed);
}

static void test_hostile(void **state)
{
    struct bed bed;
    uint32_t seed = 4711;
    bed_open(&bed);
    start(&bed, E1000E_RCTL_SECRC);
    /* A tail beyond the ring is no work, now or later. */
    set_reg(&bed, E1000E_TDT, COUNT + 3);
    turn(&bed);
    assert_false(loop_timer_armed(&bed.nic->work));
    set_reg(&bed, E1000E_TDT, 0);
    /* No memory; a frame without end. */
    put(&bed, RAM_SIZE, 100 | EOP | RS, 0);
    kick(&bed);
    assert_int_equal(bed.outside.count, 0);
    assert_int_equal(reg(&bed, E1000E_TDH), bed.tail);
    for (unsigned i = 0; i < COUNT - 1; i++)
        put(&bed, bed.data, 0xfffff | DEXT | DATA | (i == COUNT - 2 ? EOP : 0), 0);
    kick(&bed);
    assert_int_equal(bed.outside.count, 0);
    for (unsigned round = 0; round < 3000; round++) {
        for (unsigned i = 0; i < COUNT; i++) {
            uint8_t *at = host(&bed, (round & 1 ? bed.tx : bed.rx) + 16 * i);
            for (unsigned k = 0; k < 16; k++) {
                seed = seed * 1664525 + 1013904223;
                at[k] = seed >> 30 ? 0 : (uint8_t)(seed >> 16);
            }
        }
        set_reg(&bed, seed % 5 ? E1000E_TDT : E1000E_RDT, seed >> 8 & 15);
        if (seed % 3 == 0)
            set_reg(&bed, (seed >> 12) % 0x6000 & ~3u, seed);
        arrive(&bed, mac, 60 + seed % 3000);
        turn(&bed);
    }
    set_reg(&bed, E1000E_CTRL, E1000E_CTRL_RST);
    bed.tail = 0;
    bed.outside.room = 1000;
    start(&bed, E1000E_RCTL_SECRC);
    unsigned before = bed.outside.count;
    put(&bed, bed.data, 64 | EOP, 0);
    kick(&bed);
    assert_int_equal(bed.outside.count, before + 1);
    bed_close(&bed);
}

static void test_state(void **state)
{
    struct bed bed;
    bed_open(&bed);
    start(&bed, E1000E_RCTL_SECRC);
    put_context(&bed, 0, 0);
    put(&bed, bed.data, 64 | EOP, 0);
    kick(&bed);
    net_port_unlink(&bed.nic->port);
    struct e1000e *fresh = nic_new(&bed);
    round_trip(&bed.nic->pci.device, &fresh->pci.device);
    device_free(&bed.nic->pci.device);
    bed.nic = fresh;
    device_resume(&fresh->pci.device);
    unsigned before = bed.outside.count;
    put(&bed, bed.data, 64 | EOP, 0);
    kick(&bed);
    assert_int_equal(bed.outside.count, before + 1);
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),       cmocka_unit_test(test_transmit),
        cmocka_unit_test(test_offloads),       cmocka_unit_test(test_receive),
        cmocka_unit_test(test_line_interrupt), cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
