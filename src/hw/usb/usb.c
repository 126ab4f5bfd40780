/*
 * USB buses and ports, and the way of a packet to its device and back. See usb.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/usb/usb.h"

#include <string.h>

/* --- buses --- */

void usb_bus_init(struct usb_bus *bus, struct usb_port *ports, unsigned port_count)
{
    bus->ports = ports;
    bus->port_count = port_count;
    for (unsigned i = 0; i < port_count; i++)
        ports[i] = (struct usb_port){.bus = bus, .number = i + 1, .super = i >= port_count / 2};
}

static struct usb_device *device_at(struct usb_port *ports, unsigned count, unsigned number)
{
    return number && number <= count ? ports[number - 1].device : NULL;
}

struct usb_device *usb_bus_find(const struct usb_bus *bus, unsigned port, uint32_t route)
{
    struct usb_device *device = device_at(bus->ports, bus->port_count, port);
    for (unsigned tier = 0; tier < USB_ROUTE_TIERS && device && (route & 0xf); tier++) {
        device = device_at(device->ports, device->port_count, route & 0xf);
        route >>= 4;
    }
    return device;
}

/* --- packets --- */

void usb_submit(struct usb_device *device, struct usb_packet *packet)
{
    packet->device = device;
    packet->moved = 0;
    list_init(&packet->link);
    if (!(packet->endpoint & (USB_ENDPOINTS - 1)))
        device->ops->control(device, packet);
    else if (device->halted & usb_endpoint_bit(packet->endpoint))
        usb_done(packet, USB_STALL);
    else if (!device->configuration)
        usb_done(packet, USB_IO_ERROR);
    else if (!packet->isochronous)
        device->ops->data(device, packet);
    else if (device->ops->isochronous)
        device->ops->isochronous(device, packet);
    else
        usb_done(packet, USB_IO_ERROR);
}

void usb_cancel(struct usb_packet *packet)
{
    struct usb_device *device = packet->device;
    if (device->ops->cancel)
        device->ops->cancel(device, packet);
    else
        usb_done(packet, USB_CANCELLED);
}

void usb_keep(struct usb_packet *packet)
{
    list_append(&packet->device->packets, &packet->link);
}

struct usb_packet *usb_kept(struct usb_device *device, uint8_t endpoint)
{
    struct usb_packet *packet;
    list_for_each (packet, &device->packets, link) {
        if (packet->endpoint == endpoint)
            return packet;
    }
    return NULL;
}

void usb_done(struct usb_packet *packet, enum usb_result result)
{
    list_remove(&packet->link);
    packet->result = result;
    packet->done(packet);
}

/* Moves bytes between a packet's memory, from `moved` on, and ours. */
static uint64_t copy(struct usb_packet *packet, uint8_t *bytes, uint64_t length, bool put)
{
    uint64_t skip = packet->moved, done = 0;
    for (unsigned i = 0; i < packet->iov_count && done < length; i++) {
        const struct iovec *segment = &packet->iov[i];
        if (skip >= segment->iov_len) {
            skip -= segment->iov_len;
            continue;
        }
        uint64_t here = MIN((uint64_t)segment->iov_len - skip, length - done);
        uint8_t *at = (uint8_t *)segment->iov_base + skip;
        memcpy(put ? at : bytes + done, put ? bytes + done : at, here);
        done += here;
        skip = 0;
    }
    packet->moved += done;
    return done;
}

uint64_t usb_packet_put(struct usb_packet *packet, const void *bytes, uint64_t length)
{
    return copy(packet, (uint8_t *)(uintptr_t)bytes, length, true);
}

uint64_t usb_packet_get(struct usb_packet *packet, void *bytes, uint64_t length)
{
    uint64_t got = copy(packet, bytes, length, false);
    __asm__ volatile("" ::: "memory"); /* only the copy counts from here on */
    return got;
}

/* --- devices --- */

static void give_back(struct usb_device *device, enum usb_result result)
{
    while (!list_empty(&device->packets)) {
        struct usb_packet *packet = list_first(&device->packets, struct usb_packet, link);
        usb_done(packet, result);
    }
}

void usb_reset(struct usb_device *device)
{
    give_back(device, USB_IO_ERROR);
    device->address = device->configuration = 0;
    device->halted = 0;
    device->wakes = false;
    device->ops->reset(device);
}

void usb_halt(struct usb_device *device, uint8_t endpoint)
{
    device->halted |= usb_endpoint_bit(endpoint);
}

void usb_wake(struct usb_device *device)
{
    /* A hub would pass it on; ours are root ports. */
    if (device->wakes && device->port)
        device->bus->ops->woken(device->bus, device->port);
}

/* A connector is free when both of its ports are. */
static struct usb_port *free_port(const struct usb_device *device)
{
    struct usb_bus *bus = device->bus;
    unsigned connectors = bus->port_count / 2;
    for (unsigned i = 0; i < connectors; i++) {
        if (!bus->ports[i].device && !bus->ports[connectors + i].device)
            return &bus->ports[device->speed == USB_SPEED_SUPER ? connectors + i : i];
    }
    return NULL;
}

struct err *usb_device_plug(struct usb_device *device)
{
    struct usb_bus *bus = device->bus;
    list_init(&device->packets);
    lock_take(bus->lock);
    struct usb_port *port = free_port(device);
    if (port) {
        device->port = port;
        port->device = device;
        usb_reset(device);
        bus->ops->plugged(bus, port);
    }
    lock_drop(bus->lock);
    return port ? NULL : err_new("all %u USB ports are taken", bus->port_count / 2);
}

void usb_device_unplug(struct usb_device *device)
{
    struct usb_port *port = device->port;
    if (!port)
        return;
    lock_take(port->bus->lock);
    give_back(device, USB_NO_DEVICE);
    port->device = NULL;
    device->port = NULL;
    port->bus->ops->unplugged(port->bus, port);
    lock_drop(port->bus->lock);
}

static struct err *check(const void *staged)
{
    const struct usb_device *device = staged;
    return device->address > 127 ? err_new("a USB address of %u", device->address) : NULL;
}

static const struct state_field fields[] = {
    STATE_U8(1, usb_device, address),
    STATE_U8(2, usb_device, configuration),
    STATE_U32(3, usb_device, halted),
    STATE_BOOL(4, usb_device, wakes),
};

const struct state_table usb_device_state = {
    DEVICE_STATE_TABLE("usb-device", usb_device, fields),
    .check = check,
};
