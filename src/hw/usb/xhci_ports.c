/*
 * Root ports of the xHCI controller (xHCI 1.2, sections 4.15, 4.19 and 5.4.8). Device lock
 * throughout.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/usb/xhci_internal.h"

static void set_link(uint32_t *portsc, enum xhci_link link)
{
    *portsc = (*portsc & ~XHCI_PORT_LINK) | (uint32_t)link << XHCI_PORT_LINK_SHIFT;
}

static enum xhci_link link_of(uint32_t portsc)
{
    return (enum xhci_link)((portsc & XHCI_PORT_LINK) >> XHCI_PORT_LINK_SHIFT);
}

/* Sets change bits; a bit that was not set is an event (4.19.2). */
static void changed(struct xhci *xhci, unsigned port, uint32_t bits)
{
    bool news = bits & ~xhci->portsc[port];
    xhci->portsc[port] |= bits;
    if (!news)
        return;
    xhci->usbsts |= XHCI_STS_PORT_CHANGE;
    if (xhci_runs(xhci))
        xhci_post(xhci, 0, XHCI_EVENT_PORT, (uint64_t)(port + 1) << 24, XHCI_SUCCESS << 24, 0);
}

/* What a port shows of its device; a SuperSpeed link trains by itself. */
static uint32_t presence(const struct usb_port *port)
{
    uint32_t portsc = XHCI_PORT_POWER;
    if (!port->device) {
        set_link(&portsc, XHCI_LINK_RX_DETECT);
        return portsc;
    }
    portsc |= XHCI_PORT_CONNECTED | (uint32_t)port->device->speed << XHCI_PORT_SPEED_SHIFT;
    set_link(&portsc, port->super ? XHCI_LINK_U0 : XHCI_LINK_POLLING);
    return portsc | (port->super ? XHCI_PORT_ENABLED : 0);
}

void xhci_ports_reset(struct xhci *xhci)
{
    for (unsigned i = 0; i < XHCI_PORTS; i++) {
        if (xhci->port[i].device)
            usb_reset(xhci->port[i].device);
        xhci->portsc[i] =
            presence(&xhci->port[i]) | (xhci->port[i].device ? XHCI_PORT_CONNECT_CHANGE : 0);
    }
}

static void reset_port(struct xhci *xhci, unsigned port, bool warm)
{
    uint32_t *portsc = &xhci->portsc[port];
    if (!xhci->port[port].device)
        return;
    usb_reset(xhci->port[port].device);
    *portsc |= XHCI_PORT_ENABLED;
    set_link(portsc, XHCI_LINK_U0);
    changed(xhci, port, XHCI_PORT_RESET_CHANGE | (warm ? XHCI_PORT_WARM_RESET_CHANGE : 0));
}

/* Suspend and resume; the states of less power between them are no different from U0. */
static void write_link(struct xhci *xhci, unsigned port, enum xhci_link to)
{
    uint32_t *portsc = &xhci->portsc[port];
    enum xhci_link from = link_of(*portsc);
    if (!(*portsc & XHCI_PORT_ENABLED))
        return;
    if (to == XHCI_LINK_U3 && from == XHCI_LINK_U0) {
        set_link(portsc, XHCI_LINK_U3);
    } else if (to == XHCI_LINK_RESUME && from == XHCI_LINK_U3 && !xhci->port[port].super) {
        set_link(portsc, XHCI_LINK_RESUME);
    } else if (to == XHCI_LINK_U0 && from != XHCI_LINK_U0) {
        set_link(portsc, XHCI_LINK_U0);
        changed(xhci, port, XHCI_PORT_LINK_CHANGE);
    }
}

void xhci_port_write(struct xhci *xhci, unsigned port, uint32_t value)
{
    uint32_t *portsc = &xhci->portsc[port];
    bool super = xhci->port[port].super;
    *portsc &= ~(value & XHCI_PORT_CHANGES);
    *portsc = (*portsc & ~XHCI_PORT_WAKE_ENABLES) | (value & XHCI_PORT_WAKE_ENABLES);
    if (value & XHCI_PORT_ENABLED) { /* written 1 it disables */
        *portsc &= ~XHCI_PORT_ENABLED;
        if (xhci->port[port].device)
            set_link(portsc, XHCI_LINK_POLLING);
    }
    if ((value & XHCI_PORT_RESET) || (super && (value & XHCI_PORT_WARM_RESET)))
        reset_port(xhci, port, super && (value & XHCI_PORT_WARM_RESET));
    else if (value & XHCI_PORT_LINK_STROBE)
        write_link(xhci, port, link_of(value));
}

/* --- the bus's calls --- */

static void refresh(struct usb_bus *bus, struct usb_port *port, uint32_t bits)
{
    struct xhci *xhci = container_of(bus, struct xhci, bus);
    unsigned index = port->number - 1;
    const uint32_t kept = XHCI_PORT_CHANGES | XHCI_PORT_WAKE_ENABLES;
    xhci->portsc[index] = (xhci->portsc[index] & kept) | presence(port);
    changed(xhci, index, bits);
}

static void plugged(struct usb_bus *bus, struct usb_port *port)
{
    refresh(bus, port, XHCI_PORT_CONNECT_CHANGE);
}

static void unplugged(struct usb_bus *bus, struct usb_port *port)
{
    refresh(bus, port, XHCI_PORT_CONNECT_CHANGE);
}

static void woken(struct usb_bus *bus, struct usb_port *port)
{
    struct xhci *xhci = container_of(bus, struct xhci, bus);
    unsigned index = port->number - 1;
    if (link_of(xhci->portsc[index]) != XHCI_LINK_U3)
        return;
    set_link(&xhci->portsc[index], port->super ? XHCI_LINK_U0 : XHCI_LINK_RESUME);
    changed(xhci, index, XHCI_PORT_LINK_CHANGE);
}

const struct usb_bus_ops xhci_bus_ops = {
    .plugged = plugged, .unplugged = unplugged, .woken = woken};
