/*
 * virtio-net: features, configuration space and life of the network device (virtio 1.2,
 * section 5.1).
 *
 * Offloads are what the driver accepted, told to the peer; the header of each frame travels between
 * them unchanged. Registers and the control queue under the device lock; frames (virtio_net_io.c)
 * on the device's loop under the same lock. A wake-up of the peer leads back into this device, so
 * it never happens under the lock: the `again` timer does it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "hw/virtio/virtio_net_internal.h"

#define PCI_CLASS_ETHERNET 0x020000
#define LINK_UP 1
#define CONFIG_SIZE 12

static struct virtio_net *to_net(struct virtio_device *virtio)
{
    return container_of(virtio, struct virtio_net, virtio);
}

static uint64_t net_features(struct virtio_device *virtio)
{
    struct virtio_net *net = to_net(virtio);
    uint64_t features = 1ull << VIRTIO_NET_F_CSUM | 1ull << VIRTIO_NET_F_GUEST_CSUM |
                        1ull << VIRTIO_NET_F_CTRL_GUEST_OFFLOADS | 1ull << VIRTIO_NET_F_MAC |
                        1ull << VIRTIO_NET_F_GUEST_TSO4 | 1ull << VIRTIO_NET_F_GUEST_TSO6 |
                        1ull << VIRTIO_NET_F_GUEST_ECN | 1ull << VIRTIO_NET_F_HOST_TSO4 |
                        1ull << VIRTIO_NET_F_HOST_TSO6 | 1ull << VIRTIO_NET_F_HOST_ECN |
                        1ull << VIRTIO_NET_F_MRG_RXBUF | 1ull << VIRTIO_NET_F_STATUS |
                        1ull << VIRTIO_NET_F_CTRL_VQ | 1ull << VIRTIO_NET_F_CTRL_RX |
                        1ull << VIRTIO_NET_F_CTRL_RX_EXTRA | 1ull << VIRTIO_NET_F_CTRL_VLAN |
                        1ull << VIRTIO_NET_F_CTRL_MAC_ADDR;
    if (net->pairs > 1)
        features |= 1ull << VIRTIO_NET_F_MQ;
    if (net->mtu)
        features |= 1ull << VIRTIO_NET_F_MTU;
    return features;
}

static void net_config_read(struct virtio_device *virtio, unsigned offset, void *bytes,
                            unsigned len)
{
    struct virtio_net *net = to_net(virtio);
    uint8_t config[CONFIG_SIZE] = {0};
    memcpy(config, net->mac_now, sizeof(net->mac_now));
    put_le16(config + 6, net->link_down ? 0 : LINK_UP);
    put_le16(config + 8, (uint16_t)net->pairs);
    put_le16(config + 10, net->mtu);
    memset(bytes, 0, len);
    if (offset < sizeof(config))
        memcpy(bytes, config + offset, MIN(len, (unsigned)sizeof(config) - offset));
}

uint32_t virtio_net_guest_offload(const struct virtio_net *net)
{
    uint32_t offload = 0;
    if (virtio_has_feature(&net->virtio, VIRTIO_NET_F_GUEST_CSUM))
        offload |= NET_OFFLOAD_CSUM;
    if (virtio_has_feature(&net->virtio, VIRTIO_NET_F_GUEST_TSO4))
        offload |= NET_OFFLOAD_TSO4;
    if (virtio_has_feature(&net->virtio, VIRTIO_NET_F_GUEST_TSO6))
        offload |= NET_OFFLOAD_TSO6;
    if (virtio_has_feature(&net->virtio, VIRTIO_NET_F_GUEST_ECN))
        offload |= NET_OFFLOAD_ECN;
    return offload;
}

void virtio_net_apply_offload(struct virtio_net *net, uint32_t offload)
{
    /* Segments without checksums make no sense; a driver that asks for them gets neither. */
    if (!(offload & NET_OFFLOAD_CSUM))
        offload = 0;
    net->offload_now = offload;
    for (unsigned i = 0; i < net->pairs; i++)
        net_port_set_offload(&net->pair[i].port, offload);
}

void virtio_net_again(struct virtio_net *net)
{
    loop_timer_arm(&net->again, 0);
}

static void wake_all(struct virtio_net *net)
{
    for (unsigned i = 0; i < net->pairs; i++) {
        net->pair[i].rx_wake = true;
        net->pair[i].tx_more = true;
    }
    virtio_net_again(net);
}

/* On the loop, without the lock. */
static void net_continue(void *opaque)
{
    struct virtio_net *net = opaque;
    struct lock *lock = &net->virtio.pci.device.lock;
    for (unsigned i = 0; i < net->pairs; i++) {
        struct virtio_net_pair *pair = &net->pair[i];
        lock_take(lock);
        bool receive = pair->rx_waiting && pair->rx_wake;
        pair->rx_wake = false;
        if (receive)
            pair->rx_waiting = false;
        if (pair->tx_more) {
            pair->tx_more = false;
            virtio_net_transmit(pair);
        }
        lock_drop(lock);
        if (receive)
            net_port_ready(&pair->port);
    }
}

/* On the loop: starved frames are tried once more, and then dropped. */
static void net_stale(void *opaque)
{
    struct virtio_net *net = opaque;
    struct lock *lock = &net->virtio.pci.device.lock;
    lock_take(lock);
    for (unsigned i = 0; i < net->pairs; i++)
        net->pair[i].rx_wake = true;
    lock_drop(lock);
    net_continue(net);
}

static void net_activate(struct virtio_device *virtio)
{
    struct virtio_net *net = to_net(virtio);
    virtio_net_apply_offload(net, virtio_net_guest_offload(net));
    wake_all(net);
}

static void net_virtio_reset(struct virtio_device *virtio)
{
    struct virtio_net *net = to_net(virtio);
    net->pairs_now = 1;
    memcpy(net->mac_now, net->mac, sizeof(net->mac_now));
    virtio_net_apply_offload(net, 0);
}

static void net_queue_kick(struct virtio_device *virtio, struct virtq *queue)
{
    struct virtio_net *net = to_net(virtio);
    unsigned index = virtq_index(queue);
    if (index == virtio_net_ctrl_index(net)) {
        virtio_net_ctrl(net, queue);
    } else if (index / 2 >= net->pairs) {
        return;
    } else if (index % 2) {
        virtio_net_transmit(&net->pair[index / 2]);
    } else {
        bool wake = false;
        for (unsigned i = index / 2; i < net->pairs; i += net->pairs_now) {
            net->pair[i].rx_wake = true;
            wake = wake || net->pair[i].rx_waiting;
        }
        if (wake)
            virtio_net_again(net);
    }
}

/* Requests are never held between two calls: there are only flags to forget. */
static void net_queue_drain(struct virtio_device *virtio, struct virtq *queue)
{
    struct virtio_net *net = to_net(virtio);
    unsigned index = virtq_index(queue);
    if (index / 2 >= net->pairs)
        return;
    struct virtio_net_pair *pair = &net->pair[index / 2];
    if (index % 2) {
        pair->tx_waiting = pair->tx_more = false;
        net_port_abandon(&pair->port);
    } else {
        pair->rx_starved_ns = 0;
    }
}

static const struct virtio_ops net_ops = {
    .id = VIRTIO_ID_NET,
    .pci_class = PCI_CLASS_ETHERNET,
    .features = net_features,
    .config_read = net_config_read,
    .activate = net_activate,
    .reset = net_virtio_reset,
    .queue_kick = net_queue_kick,
    .queue_drain = net_queue_drain,
};

void virtio_net_set_link(struct virtio_net *net, bool up)
{
    struct lock *lock = &net->virtio.pci.device.lock;
    lock_take(lock);
    if (net->link_down == up) {
        net->link_down = !up;
        virtio_config_changed(&net->virtio);
    }
    lock_drop(lock);
}

static struct virtio_net *device_net(struct device *device)
{
    return (struct virtio_net *)device;
}

static struct err *net_realize(struct device *device)
{
    struct virtio_net *net = device_net(device);
    if (net->pairs == 0)
        net->pairs = 1;
    if (net->pairs > VIRTIO_NET_PAIRS_MAX)
        return err_of(ERR_USAGE, "a network device has at most %d queue pairs",
                      VIRTIO_NET_PAIRS_MAX);
    if (net->mac[0] & 1)
        return err_of(ERR_USAGE, "the MAC address is a multicast address");

    net->virtio.ops = &net_ops;
    net->virtio.queue_count = 2 * net->pairs + 1;
    if (!net->virtio.loop)
        net->virtio.loop = device->env->loop;
    TRY(virtio_realize(&net->virtio));

    net->bounce = malloc(NET_FRAME_MAX);
    net->rx_reqs = calloc(VIRTQ_SIZE_MAX, sizeof(struct virtq_req *));
    if (!net->bounce || !net->rx_reqs)
        return err_new("out of memory");
    memcpy(net->mac_now, net->mac, sizeof(net->mac_now));
    net->pairs_now = 1;
    loop_timer_init(net->virtio.loop, &net->again, net_continue, net);
    loop_timer_init(net->virtio.loop, &net->stale, net_stale, net);
    for (unsigned i = 0; i < net->pairs; i++) {
        struct virtio_net_pair *pair = &net->pair[i];
        pair->net = net;
        pair->index = i;
        pair->port.ops = &virtio_net_port_ops;
        pair->port.loop = net->virtio.loop;
        if (net->peer[i])
            net_port_link(&pair->port, net->peer[i]);
    }
    return NULL;
}

static void net_reset(struct device *device)
{
    virtio_reset(&device_net(device)->virtio);
}

static void net_quiesce(struct device *device)
{
    struct virtio_net *net = device_net(device);
    lock_take(&device->lock);
    net->stopped = true;
    lock_drop(&device->lock);
    virtio_quiesce(&net->virtio);
}

static void net_resume(struct device *device)
{
    struct virtio_net *net = device_net(device);
    virtio_resume(&net->virtio);
    lock_take(&device->lock);
    net->stopped = false;
    wake_all(net);
    lock_drop(&device->lock);
}

static void net_fini(struct device *device)
{
    struct virtio_net *net = device_net(device);
    /* A device that never came up has no ports and no timer. */
    for (unsigned i = 0; i < VIRTIO_NET_PAIRS_MAX; i++)
        if (net->pair[i].port.ops)
            net_port_close(&net->pair[i].port);
    if (net->again.loop) {
        loop_timer_cancel(&net->again);
        loop_timer_cancel(&net->stale);
    }
    virtio_fini(&net->virtio);
    free(net->bounce);
    free(net->rx_reqs);
}

static struct err *net_state_check(const void *staged)
{
    const struct virtio_net *net = staged;
    if (net->pairs_now == 0 || net->pairs_now > net->pairs)
        return err_new("%u queue pairs in use of %u", net->pairs_now, net->pairs);
    if (net->offload_now &
        ~(NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN))
        return err_new("unknown offloads %#x", net->offload_now);
    return virtio_device_state.check ? virtio_device_state.check(&net->virtio) : NULL;
}

static void net_post_load(void *object)
{
    struct virtio_net *net = object;
    virtio_post_load(&net->virtio);
    virtio_net_apply_offload(net, net->offload_now);
}

static const struct state_field net_fields[] = {
    STATE_STRUCT(1, virtio_net, virtio, &virtio_device_state),
    STATE_BYTES(2, virtio_net, mac_now),
    STATE_U32(3, virtio_net, pairs_now),
    STATE_U32(4, virtio_net, offload_now),
    STATE_BOOL(5, virtio_net, link_down),
};

static const struct state_table net_state = {
    .name = "virtio-net",
    .version = 1,
    .min_version = 1,
    .size = sizeof(struct virtio_net),
    .fields = net_fields,
    .field_count = ARRAY_SIZE(net_fields),
    .check = net_state_check,
    .post_load = net_post_load,
};

const struct device_class virtio_net_class = {
    .name = "virtio-net",
    .description = "network card over PCI: checksum and TCP segmentation offload, many queues",
    .size = sizeof(struct virtio_net),
    .state = &net_state,
    .realize = net_realize,
    .reset = net_reset,
    .quiesce = net_quiesce,
    .resume = net_resume,
    .fini = net_fini,
};
DEVICE_CLASS(virtio_net_class);
