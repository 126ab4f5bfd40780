/*
 * The control queue of virtio-net (virtio 1.2, section 5.1.6.5).
 *
 * There is no receive filter: every frame of the peer reaches the driver, which a filter may only
 * narrow. Its commands are checked and accepted. Under the device lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "hw/virtio/virtio_net_internal.h"

enum ctrl_class { CTRL_RX = 0, CTRL_MAC = 1, CTRL_VLAN = 2, CTRL_MQ = 4, CTRL_OFFLOADS = 5 };
#define CTRL_RX_LAST 5
#define CTRL_RX_BASIC_LAST 1
#define CTRL_MAC_TABLE_SET 0
#define CTRL_MAC_ADDR_SET 1
#define CTRL_VLAN_LAST 1
#define CTRL_MQ_PAIRS_SET 0
#define CTRL_OFFLOADS_SET 0
#define CTRL_OK 0
#define CTRL_ERROR 1

#define MAC_SIZE 6

static bool ctrl_rx(struct virtio_net *net, uint8_t command, uint64_t len)
{
    unsigned needs =
        command <= CTRL_RX_BASIC_LAST ? VIRTIO_NET_F_CTRL_RX : VIRTIO_NET_F_CTRL_RX_EXTRA;
    return command <= CTRL_RX_LAST && len == 1 && virtio_has_feature(&net->virtio, needs);
}

/* Two tables, unicast and multicast, each a 32-bit count and that many addresses. */
static bool ctrl_mac_table(const struct virtq_req *req, uint64_t at, uint64_t len)
{
    uint64_t end = at + len;
    for (int table = 0; table < 2; table++) {
        uint8_t count[4];
        if (!range_within(at, sizeof(count), end))
            return false;
        virtq_req_read(req, at, count, sizeof(count));
        at += sizeof(count);
        uint64_t size = (uint64_t)get_le32(count) * MAC_SIZE;
        if (!range_within(at, size, end))
            return false;
        at += size;
    }
    return at == end;
}

static bool ctrl_mac(struct virtio_net *net, const struct virtq_req *req, uint8_t command,
                     uint64_t at, uint64_t len)
{
    if (command == CTRL_MAC_TABLE_SET)
        return virtio_has_feature(&net->virtio, VIRTIO_NET_F_CTRL_RX) &&
               ctrl_mac_table(req, at, len);
    if (command != CTRL_MAC_ADDR_SET || len != MAC_SIZE ||
        !virtio_has_feature(&net->virtio, VIRTIO_NET_F_CTRL_MAC_ADDR))
        return false;
    virtq_req_read(req, at, net->mac_now, MAC_SIZE);
    return true;
}

static bool ctrl_mq(struct virtio_net *net, const struct virtq_req *req, uint8_t command,
                    uint64_t at, uint64_t len)
{
    uint8_t pairs[2];
    if (command != CTRL_MQ_PAIRS_SET || len != sizeof(pairs) ||
        !virtio_has_feature(&net->virtio, VIRTIO_NET_F_MQ))
        return false;
    virtq_req_read(req, at, pairs, sizeof(pairs));
    uint16_t wanted = get_le16(pairs);
    if (wanted == 0 || wanted > net->pairs)
        return false;
    net->pairs_now = wanted;
    /* Frames that wait for a queue may have another one now. */
    virtio_net_again(net);
    return true;
}

static bool ctrl_offloads(struct virtio_net *net, const struct virtq_req *req, uint8_t command,
                          uint64_t at, uint64_t len)
{
    static const struct {
        unsigned feature;
        uint32_t offload;
    } known[] = {
        {VIRTIO_NET_F_GUEST_CSUM, NET_OFFLOAD_CSUM},
        {VIRTIO_NET_F_GUEST_TSO4, NET_OFFLOAD_TSO4},
        {VIRTIO_NET_F_GUEST_TSO6, NET_OFFLOAD_TSO6},
        {VIRTIO_NET_F_GUEST_ECN, NET_OFFLOAD_ECN},
    };
    uint8_t bytes[8];
    if (command != CTRL_OFFLOADS_SET || len != sizeof(bytes) ||
        !virtio_has_feature(&net->virtio, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS))
        return false;
    virtq_req_read(req, at, bytes, sizeof(bytes));
    uint64_t wanted = get_le64(bytes);
    uint32_t offload = 0;
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        uint64_t bit = 1ull << known[i].feature;
        if ((wanted & bit) && virtio_has_feature(&net->virtio, known[i].feature)) {
            offload |= known[i].offload;
            wanted &= ~bit;
        }
    }
    if (wanted)
        return false;
    virtio_net_apply_offload(net, offload);
    return true;
}

static bool ctrl_command(struct virtio_net *net, const struct virtq_req *req)
{
    uint8_t head[2];
    if (virtq_req_read(req, 0, head, sizeof(head)) < sizeof(head))
        return false;
    uint64_t at = sizeof(head), len = req->out_len - sizeof(head);
    switch (head[0]) {
    case CTRL_RX:
        return ctrl_rx(net, head[1], len);
    case CTRL_MAC:
        return ctrl_mac(net, req, head[1], at, len);
    case CTRL_VLAN:
        return head[1] <= CTRL_VLAN_LAST && len == 2 &&
               virtio_has_feature(&net->virtio, VIRTIO_NET_F_CTRL_VLAN);
    case CTRL_MQ:
        return ctrl_mq(net, req, head[1], at, len);
    case CTRL_OFFLOADS:
        return ctrl_offloads(net, req, head[1], at, len);
    default:
        return false;
    }
}

void virtio_net_ctrl(struct virtio_net *net, struct virtq *queue)
{
    struct virtq_req *req;
    bool pushed = false;
    /* A driver waits for each answer; one that does not gets a queue's worth in a round. */
    for (unsigned i = 0; i < VIRTQ_SIZE_MAX && (req = virtq_pop(queue)); i++) {
        uint8_t ack = ctrl_command(net, req) ? CTRL_OK : CTRL_ERROR;
        uint32_t written = (uint32_t)virtq_req_write(req, 0, &ack, 1);
        virtq_push(queue, req, written);
        pushed = true;
        if (written == 0) {
            virtio_broken(&net->virtio, "virtio-net: a control request has no room for the answer");
            break;
        }
    }
    if (pushed)
        virtq_notify(queue);
}
