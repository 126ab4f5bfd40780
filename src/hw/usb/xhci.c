/*
 * The xHCI controller: its I/O loop, life and state. See xhci.h.
 *
 * Registers are the vCPUs', rings the I/O loop's; the device lock covers both, and the devices on
 * the bus too. A turn of the loop does a bounded amount of work.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/usb/xhci.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/checked.h"
#include "hw/core/env.h"
#include "hw/usb/xhci_internal.h"

#define VENDOR 0x1b36
#define DEVICE 0x000d /* whose drivers go by the class */
#define PCI_CLASS_XHCI 0x0c0330
#define CONFIG_RELEASE 0x60 /* of the USB specification; frame length behind it */
#define REGISTER_BAR 0      /* of 64 bits */
#define MSIX_BAR 2
#define ROUNDS 4

static struct xhci *to_xhci(struct device *device)
{
    return container_of(device, struct xhci, pci.device);
}

void xhci_wake(struct xhci *xhci)
{
    uint64_t one = 1;
    (void)!write(xhci->kick_fd, &one, sizeof(one));
}

/* --- serving --- */

static bool ready(const struct xhci *xhci)
{
    return xhci_runs(xhci) && !xhci->command_waits;
}

/* One round over all that has rung; false: somebody was cut short. */
static bool serve_round(struct xhci *xhci)
{
    bool all = xhci_serve_commands(xhci);
    for (unsigned slot = 1; slot <= XHCI_SLOTS; slot++) {
        for (uint32_t left = xhci->slot[slot - 1].rung; left && ready(xhci); left &= left - 1)
            all &= xhci_serve_endpoint(xhci, slot, (unsigned)__builtin_ctz(left));
    }
    return all;
}

static void serve(struct xhci *xhci)
{
    bool all = true;
    xhci->again = true;
    xhci->serving = true;
    for (unsigned i = 0; i < ROUNDS && xhci->again && xhci_runs(xhci); i++) {
        xhci->again = false;
        all = serve_round(xhci);
    }
    xhci->serving = false;
    if (xhci_runs(xhci) && (xhci->again || !all))
        xhci_wake(xhci); /* others on this loop have their turn before */
}

static void kicked(void *opaque, uint32_t events)
{
    struct xhci *xhci = opaque;
    uint64_t count;
    (void)!read(xhci->kick_fd, &count, sizeof(count));
    lock_take(&xhci->pci.device.lock);
    serve(xhci);
    lock_drop(&xhci->pci.device.lock);
}

static void serve_again(struct xhci *xhci)
{
    if (xhci->serving)
        xhci->again = true;
    else
        xhci_wake(xhci);
}

void xhci_ring_doorbell(struct xhci *xhci, unsigned slot, unsigned dci)
{
    if (!slot) {
        xhci->command_running |= !dci && (xhci->usbcmd & XHCI_CMD_RUN);
    } else {
        if (!dci || dci > XHCI_ENDPOINTS || !xhci_endpoint(xhci, slot, dci)->transfer)
            return;
        xhci->slot[slot - 1].rung |= 1u << dci;
    }
    serve_again(xhci);
}

/* --- taking back, reset --- */

void xhci_take_back_all(struct xhci *xhci)
{
    for (unsigned slot = 1; slot <= XHCI_SLOTS; slot++)
        xhci_take_back(xhci, slot, ~0u, false);
}

static void reset_registers(struct xhci *xhci)
{
    xhci->resetting = xhci->command_running = xhci->command_waits = xhci->saved = false;
    xhci->starved = false;
    xhci->usbcmd = xhci->usbsts = xhci->dnctrl = xhci->config = 0;
    xhci->dcbaap = 0;
    xhci->commands = (struct xhci_ring){0};
    for (unsigned slot = 1; slot <= XHCI_SLOTS; slot++)
        xhci_slot_disable(xhci, slot);
    memset(xhci->interrupter, 0, sizeof(xhci->interrupter));
    xhci_ports_reset(xhci);
    xhci_interrupts(xhci);
}

void xhci_begin_reset(struct xhci *xhci)
{
    xhci->resetting = true;
    xhci->in_flight++; /* so that it ends below, whenever the last transfer does */
    xhci_take_back_all(xhci);
    xhci_ended(xhci);
}

void xhci_ended(struct xhci *xhci)
{
    if (!--xhci->in_flight) {
        if (xhci->resetting)
            reset_registers(xhci);
        pthread_cond_broadcast(&xhci->idle);
    }
    if (xhci->command_waits)
        serve_again(xhci);
}

/* --- life --- */

static void config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    if (ranges_overlap(offset, size, pci->msix_capability, 4))
        xhci_interrupts(container_of(pci, struct xhci, pci));
}

static void build_pci(struct xhci *xhci)
{
    struct pci_device *pci = &xhci->pci;
    pci_device_identify(pci, VENDOR, DEVICE, PCI_CLASS_XHCI, 1, 0x1af4, 0x1100);
    pci->config[CONFIG_RELEASE] = 0x30;
    pci->config[CONFIG_RELEASE + 1] = 0x20;
    pci_intx_add(pci);
    pci_bar_add(pci, REGISTER_BAR, PCI_BAR_MEM64, XHCI_BAR_SIZE, &xhci_register_ops, xhci);
    pci_msix_add(pci, XHCI_INTERRUPTERS, MSIX_BAR);
    pci_express_add(pci);
    pci->config_written = config_written;
}

static struct err *xhci_realize(struct device *device)
{
    struct xhci *xhci = to_xhci(device);
    pthread_cond_init(&xhci->idle, NULL);
    xhci->loop = xhci->io_loop ? xhci->io_loop : device->env->loop;
    xhci->bus = (struct usb_bus){.ops = &xhci_bus_ops, .lock = &device->lock, .loop = xhci->loop};
    usb_bus_init(&xhci->bus, xhci->port, XHCI_PORTS);
    xhci->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (xhci->kick_fd < 0)
        return err_errno(errno, "cannot create an event descriptor");
    TRY(loop_fd_add(xhci->loop, &xhci->kick_watch, xhci->kick_fd, EPOLLIN, kicked, xhci));
    build_pci(xhci);
    return NULL;
}

/* Nothing is in flight afterwards. */
static void drain(struct xhci *xhci)
{
    xhci_take_back_all(xhci);
    while (xhci->in_flight)
        pthread_cond_wait(&xhci->idle, &xhci->pci.device.lock.mutex);
}

static void xhci_quiesce(struct device *device)
{
    struct xhci *xhci = to_xhci(device);
    lock_take(&device->lock);
    xhci->quiesced = true;
    drain(xhci);
    lock_drop(&device->lock);
}

static void xhci_resume(struct device *device)
{
    struct xhci *xhci = to_xhci(device);
    lock_take(&device->lock);
    xhci->quiesced = false;
    xhci_wake(xhci);
    lock_drop(&device->lock);
}

static void xhci_reset(struct device *device)
{
    struct xhci *xhci = to_xhci(device);
    lock_take(&device->lock);
    bool was_quiesced = xhci->quiesced;
    xhci->quiesced = true;
    drain(xhci);
    xhci->quiesced = was_quiesced;
    pci_device_reset(&xhci->pci);
    reset_registers(xhci);
    lock_drop(&device->lock);
}

static void xhci_fini(struct device *device)
{
    struct xhci *xhci = to_xhci(device);
    if (xhci->loop) {
        for (unsigned slot = 1; slot <= XHCI_SLOTS; slot++)
            xhci_slot_disable(xhci, slot);
        loop_fd_remove(&xhci->kick_watch);
        fd_cleanup(&xhci->kick_fd);
        pthread_cond_destroy(&xhci->idle);
    }
    xhci->loop = NULL;
    pci_device_fini(&xhci->pci);
}

/* --- state: saved while quiesced, so no transfer is in flight --- */

static struct err *check_endpoint(const void *staged)
{
    const struct xhci_endpoint *endpoint = staged;
    if (endpoint->state > XHCI_EP_ERROR || endpoint->type > XHCI_TYPE_INTERRUPT_IN)
        return err_new("an endpoint of type %u in state %u", endpoint->type, endpoint->state);
    return endpoint->ring.dequeue & 15 ? err_new("a ring that is not aligned") : NULL;
}

static struct err *check_slot(const void *staged)
{
    const struct xhci_slot *slot = staged;
    if (slot->state > XHCI_SLOT_CONFIGURED || slot->address > XHCI_SLOTS || slot->port > XHCI_PORTS)
        return err_new("a slot in state %u at port %u", slot->state, slot->port);
    return NULL;
}

static struct err *check_interrupter(const void *staged)
{
    const struct xhci_interrupter *from = staged;
    if (from->segment_count > XHCI_SEGMENTS_MAX)
        return err_new("an event ring of %u segments", from->segment_count);
    for (unsigned i = 0; i < from->segment_count; i++) {
        if (!from->segments[i].size)
            return err_new("an empty segment");
    }
    if (from->segment_count &&
        (from->segment >= from->segment_count || from->index >= from->segments[from->segment].size))
        return err_new("an event ring at %u of segment %u", from->index, from->segment);
    return NULL;
}

static void post_load(void *object)
{
    struct xhci *xhci = object;
    xhci->command_waits = xhci->resetting = false;
    for (unsigned slot = 1; slot <= XHCI_SLOTS; slot++) {
        xhci->slot[slot - 1].rung = 0;
        for (unsigned dci = 1; dci <= XHCI_ENDPOINTS; dci++) {
            struct xhci_endpoint *endpoint = xhci_endpoint(xhci, slot, dci);
            bool live = endpoint->state != XHCI_EP_DISABLED;
            if (live && !endpoint->transfer)
                endpoint->transfer = xhci_transfer_new(xhci, slot, dci);
            if (!live) {
                free(endpoint->transfer);
                endpoint->transfer = NULL;
            }
            if (endpoint->state == XHCI_EP_RUNNING) /* what was taken back begins anew */
                xhci->slot[slot - 1].rung |= 1u << dci;
        }
    }
}

static const struct state_field ring_fields[] = {STATE_U64(1, xhci_ring, dequeue),
                                                 STATE_BOOL(2, xhci_ring, cycle)};
static const struct state_table ring_state = {
    DEVICE_STATE_TABLE("xhci-ring", xhci_ring, ring_fields)};

static const struct state_field endpoint_fields[] = {
    STATE_U8(1, xhci_endpoint, state),
    STATE_U8(2, xhci_endpoint, type),
    STATE_STRUCT(3, xhci_endpoint, ring, &ring_state),
};
static const struct state_table endpoint_state = {
    DEVICE_STATE_TABLE("xhci-endpoint", xhci_endpoint, endpoint_fields),
    .check = check_endpoint,
};

static const struct state_field slot_fields[] = {
    STATE_BOOL(1, xhci_slot, enabled),
    STATE_U8(2, xhci_slot, state),
    STATE_U8(3, xhci_slot, address),
    STATE_U8(4, xhci_slot, port),
    STATE_U32(5, xhci_slot, route),
    STATE_U64(6, xhci_slot, context),
    STATE_STRUCT(7, xhci_slot, endpoint, &endpoint_state),
};
static const struct state_table slot_state = {
    DEVICE_STATE_TABLE("xhci-slot", xhci_slot, slot_fields),
    .check = check_slot,
};

static const struct state_field segment_fields[] = {STATE_U64(1, xhci_segment, base),
                                                    STATE_U32(2, xhci_segment, size)};
static const struct state_table segment_state = {
    DEVICE_STATE_TABLE("xhci-segment", xhci_segment, segment_fields)};

static const struct state_field interrupter_fields[] = {
    STATE_U32(1, xhci_interrupter, iman),
    STATE_U32(2, xhci_interrupter, imod),
    STATE_U32(3, xhci_interrupter, erstsz),
    STATE_U64(4, xhci_interrupter, erstba),
    STATE_U64(5, xhci_interrupter, erdp),
    STATE_BOOL(6, xhci_interrupter, stale),
    STATE_BOOL(7, xhci_interrupter, cycle),
    STATE_BOOL(8, xhci_interrupter, full),
    STATE_BOOL(9, xhci_interrupter, pending),
    STATE_U32(10, xhci_interrupter, segment),
    STATE_U32(11, xhci_interrupter, index),
    STATE_U32(12, xhci_interrupter, segment_count),
    STATE_STRUCT(13, xhci_interrupter, segments, &segment_state),
};
static const struct state_table interrupter_state = {
    DEVICE_STATE_TABLE("xhci-interrupter", xhci_interrupter, interrupter_fields),
    .check = check_interrupter,
};

static const struct state_field fields[] = {
    PCI_DEVICE_STATE(xhci, pci),
    STATE_U32(2, xhci, usbcmd),
    STATE_U32(3, xhci, usbsts),
    STATE_U32(4, xhci, dnctrl),
    STATE_U32(5, xhci, config),
    STATE_U64(6, xhci, dcbaap),
    STATE_U32(7, xhci, portsc),
    STATE_STRUCT(8, xhci, commands, &ring_state),
    STATE_BOOL(9, xhci, command_running),
    STATE_BOOL(10, xhci, saved),
    STATE_STRUCT(11, xhci, interrupter, &interrupter_state),
    STATE_STRUCT(12, xhci, slot, &slot_state),
};

const struct state_table xhci_state = {
    DEVICE_STATE_TABLE("xhci", xhci, fields),
    .post_load = post_load,
};

const struct device_class xhci_class = {
    .name = "xhci",
    .description = "USB 3 controller",
    .size = sizeof(struct xhci),
    .state = &xhci_state,
    .realize = xhci_realize,
    .reset = xhci_reset,
    .quiesce = xhci_quiesce,
    .resume = xhci_resume,
    .fini = xhci_fini,
};
DEVICE_CLASS(xhci_class);
