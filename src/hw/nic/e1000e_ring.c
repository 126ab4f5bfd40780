/*
 * Descriptor rings of the 82574L (datasheet, chapter 7): frames out of guest memory to the port and
 * back.
 *
 * A descriptor is copied before it is judged. A frame is put together in one buffer, because its
 * pieces may come in any number; checksums and segmentation go along as the port's header asks for
 * them. What the port cannot take waits there.
 *
 * On the device's loop, under the device lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "hw/nic/e1000e_internal.h"
#include "net/core/iov.h"

/* Transmit: command and type bits of the second word but one. */
#define TX_EOP (1u << 24)
#define TX_IC (1u << 26)  /* legacy: one checksum */
#define TX_TSE (1u << 26) /* data: segments */
#define TX_RS (1u << 27)
#define TX_DEXT (1u << 29)
#define TX_TYPE (0xfu << 20)
#define TX_TYPE_DATA (1u << 20)
#define TX_DONE 1u
#define TX_POPTS_IXSM (1u << 8) /* data, last word: IP checksum, TCP or UDP checksum */
#define TX_POPTS_TXSM (1u << 9)
#define CONTEXT_IPV4 (1u << 25)
#define BATCH 128u /* frames before others get their turn */

#define RX_DONE 0x01u
#define RX_EOP 0x02u
#define RX_IGNORE_CHECKSUM 0x04u
#define RX_CHECKSUMS_GOOD 0x60u /* TCP and IP were looked at; no error bit: both are right */
#define ETHERNET_CRC 4u
#define FRAME_MAX (NET_FRAME_MAX - NET_HDR_SIZE)

struct ring {
    uint64_t base;
    uint32_t count, head, tail;
};

/* False: there is none. */
static bool ring_of(struct e1000e *nic, enum e1000e_register low, struct ring *ring)
{
    const uint32_t *at = e1000e_reg(nic, low);
    ring->base = (at[0] & ~15u) | (uint64_t)at[1] << 32;
    ring->count = (at[2] & 0xfff80) / E1000E_DESCRIPTOR;
    ring->head = at[4] & 0xffff;
    ring->tail = at[6] & 0xffff;
    return ring->head < ring->count && ring->tail < ring->count;
}

static uint64_t descriptor_at(const struct ring *ring, uint32_t index)
{
    return ring->base + (uint64_t)E1000E_DESCRIPTOR * index;
}

/* --- transmit --- */

static uint8_t *packet(struct e1000e *nic)
{
    return nic->frame + NET_HDR_SIZE;
}

/* The checksum of an IPv4 header from `start` to `end`, into `at`. */
static void fill_checksum(struct e1000e *nic, uint32_t start, uint32_t at, uint32_t end)
{
    uint16_t sum;
    if (end >= nic->frame_len)
        end = nic->frame_len - 1;
    if (start > end || at + 2 > nic->frame_len)
        return;
    memset(packet(nic) + at, 0, 2);
    sum = net_csum_fold(net_csum_add(0, packet(nic) + start, end + 1 - start));
    memcpy(packet(nic) + at, &sum, 2);
}

/*
 * For segmentation the driver leaves the lengths out of the IP header and of the pseudo header's
 * sum; the port wants the frame as the whole that it is.
 */
static void complete_lengths(struct e1000e *nic, bool v4, uint32_t l3, uint32_t l4, uint32_t at)
{
    uint16_t length, sum;
    if (l3 + 20 > l4 || at + 2 > nic->frame_len || l4 >= nic->frame_len ||
        nic->frame_len - l3 > 65535 || (!v4 && l3 + 40 > nic->frame_len))
        return;
    put_be16(packet(nic) + l3 + (v4 ? 2 : 4), (uint16_t)(nic->frame_len - l3 - (v4 ? 0 : 40)));
    put_be16(&length, (uint16_t)(nic->frame_len - l4));
    memcpy(&sum, packet(nic) + at, 2);
    sum = (uint16_t)~net_csum_fold((uint64_t)sum + length);
    memcpy(packet(nic) + at, &sum, 2);
}

/* What the context and the last data descriptor ask for. */
static void describe(struct e1000e *nic, const uint8_t *descriptor, struct net_hdr *hdr)
{
    const uint8_t *context = nic->context;
    uint32_t command = get_le32(descriptor + 8), options = get_le32(descriptor + 12);
    *hdr = (struct net_hdr){0};
    if (!(command & TX_DEXT)) {
        if (command & TX_IC) /* start and place are in the descriptor itself */
            fill_checksum(nic, descriptor[13], descriptor[10], UINT32_MAX);
        return;
    }
    if (options & TX_POPTS_TXSM) {
        hdr->flags = NET_HDR_F_NEEDS_CSUM;
        hdr->csum_start = context[4];
        hdr->csum_offset = (uint16_t)(context[5] - context[4]);
    }
    if ((command & TX_TSE) && (options & TX_POPTS_TXSM)) {
        bool v4 = get_le32(context + 8) & CONTEXT_IPV4;
        hdr->hdr_len = context[13];
        hdr->gso_size = get_le16(context + 14);
        if (nic->frame_len > (uint32_t)hdr->hdr_len + hdr->gso_size)
            hdr->gso_type = v4 ? NET_GSO_TCPV4 : NET_GSO_TCPV6;
        complete_lengths(nic, v4, context[0], context[4], context[5]);
    }
    if (options & TX_POPTS_IXSM)
        fill_checksum(nic, context[0], context[1], get_le16(context + 2));
}

/* 0 or -EAGAIN: the frame waits. What makes no sense is dropped. */
static int send_frame(struct e1000e *nic, const uint8_t *descriptor)
{
    struct net_hdr hdr;
    if (!nic->frame_len)
        return 0;
    describe(nic, descriptor, &hdr);
    if (net_hdr_check(&hdr, nic->frame_len) < 0) {
        log_guest(&nic->complaints, "e1000e '%s': a frame of %u bytes asks for what makes no sense",
                  nic->pci.device.id, nic->frame_len);
        nic->port.dropped++;
        return 0;
    }
    net_hdr_put(&hdr, nic->frame);
    struct iovec whole = {nic->frame, NET_HDR_SIZE + nic->frame_len};
    return net_port_deliver(&nic->port, &whole, 1, whole.iov_len);
}

/* Adds the descriptor's bytes; false: too many, or of no memory. */
static bool gather(struct e1000e *nic, const uint8_t *descriptor)
{
    uint32_t command = get_le32(descriptor + 8);
    uint32_t length = command & (command & TX_DEXT ? 0xfffff : 0xffff);
    if (length > FRAME_MAX - nic->frame_len ||
        gmem_read(nic->pci.device.env->gmem, get_le64(descriptor), packet(nic) + nic->frame_len,
                  length) < 0)
        return false;
    nic->frame_len += length;
    return true;
}

/* The descriptors from head to `end` are through. */
static void give_back(struct e1000e *nic, const struct ring *ring, uint32_t end)
{
    struct gmem *gmem = nic->pci.device.env->gmem;
    uint32_t causes = 0;
    for (uint32_t index = ring->head; index != end; index = (index + 1) % ring->count) {
        uint8_t descriptor[E1000E_DESCRIPTOR];
        uint64_t at = descriptor_at(ring, index);
        if (gmem_read(gmem, at, descriptor, sizeof(descriptor)) < 0 ||
            !(get_le32(descriptor + 8) & TX_RS))
            continue;
        gmem_store_le32(gmem, at + 12, get_le32(descriptor + 12) | TX_DONE);
        causes = E1000E_INT_TXDW | E1000E_INT_TXQ0;
    }
    *e1000e_reg(nic, E1000E_TDH) = end;
    if (causes)
        e1000e_raise(nic, causes);
}

/*
 * The frame that begins at the ring's head: 1, 0 (it is not all there yet) or -EAGAIN. Nothing is
 * kept of one that does not go.
 */
static int transmit_one(struct e1000e *nic, const struct ring *ring)
{
    struct gmem *gmem = nic->pci.device.env->gmem;
    uint8_t descriptor[E1000E_DESCRIPTOR];
    uint32_t index = ring->head;
    bool good = true;
    nic->frame_len = 0;
    while (index != ring->tail) {
        if (gmem_read(gmem, descriptor_at(ring, index), descriptor, sizeof(descriptor)) < 0) {
            *e1000e_reg(nic, E1000E_TDH) = ring->tail;
            return 0;
        }
        index = (index + 1) % ring->count;
        uint32_t command = get_le32(descriptor + 8);
        if ((command & TX_DEXT) && (command & TX_TYPE) != TX_TYPE_DATA) {
            memcpy(nic->context, descriptor, sizeof(nic->context));
            continue;
        }
        good = good && gather(nic, descriptor);
        if (!(command & TX_EOP))
            continue;
        if (!good)
            log_guest(&nic->complaints, "e1000e '%s': a frame that is too long, or of no memory",
                      nic->pci.device.id);
        else if (send_frame(nic, descriptor) == -EAGAIN)
            return -EAGAIN;
        give_back(nic, ring, index);
        return 1;
    }
    return 0;
}

void e1000e_transmit(struct e1000e *nic)
{
    struct ring ring;
    int result = 1;
    if (nic->quiesced || nic->tx_waiting || !(*e1000e_reg(nic, E1000E_TCTL) & E1000E_TCTL_EN))
        return;
    for (unsigned i = 0; i < BATCH && result == 1; i++)
        result = ring_of(nic, E1000E_TDBAL, &ring) ? transmit_one(nic, &ring) : 0;
    nic->tx_waiting = result == -EAGAIN;
    if (result == 1)
        loop_timer_arm(&nic->work, 0);
}

/* --- receive --- */

/* Bytes of one receive buffer (RCTL.BSIZE, BSEX). */
static uint32_t buffer_size(uint32_t control)
{
    uint32_t size = 2048u >> (control >> 16 & 3);
    return control & E1000E_RCTL_BSEX && size < 2048 ? 16 * size : size;
}

static bool wanted(struct e1000e *nic, const uint8_t address[6])
{
    uint32_t control = *e1000e_reg(nic, E1000E_RCTL);
    static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    if (!memcmp(address, broadcast, 6))
        return control & (E1000E_RCTL_BAM | E1000E_RCTL_MPE);
    if (control & (address[0] & 1 ? E1000E_RCTL_MPE : E1000E_RCTL_UPE))
        return true;
    for (unsigned i = 0; i < E1000E_ADDRESSES; i++) {
        const uint32_t *at = e1000e_reg(nic, E1000E_RAL0) + 2 * i;
        uint8_t own[8];
        put_le32(own, at[0]);
        put_le32(own + 4, at[1]);
        if ((at[1] & E1000E_RAH_VALID) && !memcmp(address, own, 6))
            return true;
    }
    /* The table of multicast hashes: 12 bits of the address, which RCTL.MO chooses. */
    unsigned shift = (const unsigned[]){4, 3, 2, 0}[control >> 12 & 3];
    unsigned hash = (address[4] >> shift | (unsigned)address[5] << (8 - shift)) & 0xfff;
    return (address[0] & 1) && (e1000e_reg(nic, E1000E_MTA)[hash >> 5] >> (hash & 31) & 1);
}

/* Fills a descriptor's write-back, old form or new. */
static void write_back(struct e1000e *nic, uint8_t *descriptor, uint32_t length, uint32_t status)
{
    if (*e1000e_reg(nic, E1000E_RFCTL) & E1000E_RFCTL_EXTEN) {
        memset(descriptor, 0, E1000E_DESCRIPTOR);
        put_le32(descriptor + 8, status);
        put_le16(descriptor + 12, (uint16_t)length);
    } else {
        put_le16(descriptor + 8, (uint16_t)length);
        put_le16(descriptor + 10, 0);
        put_le32(descriptor + 12, status & 0xff);
    }
}

/* The frame into as many buffers as it needs; the descriptors are free. */
static void fill(struct e1000e *nic, const struct ring *ring, const struct iovec *iov,
                 unsigned count, uint32_t len, uint32_t good)
{
    struct gmem *gmem = nic->pci.device.env->gmem;
    uint32_t control = *e1000e_reg(nic, E1000E_RCTL), size = buffer_size(control);
    uint32_t whole = len + (control & E1000E_RCTL_SECRC ? 0 : ETHERNET_CRC), done = 0;
    uint32_t head = ring->head;
    while (done < whole) {
        uint8_t descriptor[E1000E_DESCRIPTOR], *bytes = nic->frame;
        uint64_t at = descriptor_at(ring, head);
        uint32_t here = MIN(whole - done, size);
        memset(bytes, 0, here); /* where the checksum of the wire would be */
        net_iov_read(iov, count, NET_HDR_SIZE + done, bytes, here);
        if (gmem_read(gmem, at, descriptor, sizeof(descriptor)) < 0 ||
            gmem_write(gmem, get_le64(descriptor), bytes, here) < 0)
            log_guest(&nic->complaints, "e1000e '%s': a receive buffer of no memory",
                      nic->pci.device.id);
        done += here;
        write_back(nic, descriptor, here, RX_DONE | (done == whole ? RX_EOP | good : 0));
        gmem_write(gmem, at, descriptor, sizeof(descriptor));
        head = (head + 1) % ring->count;
    }
    *e1000e_reg(nic, E1000E_RDH) = head;
    e1000e_raise(nic, E1000E_INT_RXT0 | E1000E_INT_RXQ0);
}

static int receive(struct e1000e *nic, const struct iovec *iov, unsigned count, size_t len)
{
    uint32_t control = *e1000e_reg(nic, E1000E_RCTL);
    uint8_t head[NET_HDR_SIZE + NET_ETH_HDR_SIZE];
    struct net_hdr hdr;
    struct ring ring;
    if (nic->quiesced) {
        nic->rx_waiting = true;
        return -EAGAIN;
    }
    if (!(control & E1000E_RCTL_EN) || len < sizeof(head) || len > NET_FRAME_MAX ||
        net_iov_read(iov, count, 0, head, sizeof(head)) < sizeof(head) ||
        (len - NET_HDR_SIZE > 1522 && !(control & E1000E_RCTL_LPE)) ||
        !wanted(nic, head + NET_HDR_SIZE)) {
        nic->port.dropped++;
        return 0;
    }
    uint32_t bytes =
        (uint32_t)(len - NET_HDR_SIZE) + (control & E1000E_RCTL_SECRC ? 0 : ETHERNET_CRC);
    uint32_t needed = (bytes + buffer_size(control) - 1) / buffer_size(control);
    if (!ring_of(nic, E1000E_RDBAL, &ring) ||
        (ring.tail + ring.count - ring.head) % ring.count < needed) {
        if (ring.count > needed) {
            nic->rx_waiting = true;
            return -EAGAIN;
        }
        nic->port.dropped++;
        return 0;
    }
    net_hdr_get(&hdr, head);
    uint32_t good = hdr.flags & NET_HDR_F_DATA_VALID ? RX_CHECKSUMS_GOOD : RX_IGNORE_CHECKSUM;
    fill(nic, &ring, iov, count, (uint32_t)(len - NET_HDR_SIZE), good);
    return 0;
}

static int port_send(struct net_port *port, const struct iovec *iov, unsigned count, size_t len)
{
    struct e1000e *nic = container_of(port, struct e1000e, port);
    lock_take(&nic->pci.device.lock);
    int result = receive(nic, iov, count, len);
    lock_drop(&nic->pci.device.lock);
    return result;
}

static void port_peer_ready(struct net_port *port)
{
    struct e1000e *nic = container_of(port, struct e1000e, port);
    lock_take(&nic->pci.device.lock);
    nic->tx_waiting = false;
    e1000e_transmit(nic);
    lock_drop(&nic->pci.device.lock);
}

const struct net_port_ops e1000e_port_ops = {
    .kind = "e1000e",
    .send = port_send,
    .peer_ready = port_peer_ready,
};
