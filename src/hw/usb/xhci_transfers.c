/*
 * Transfers of the xHCI controller (xHCI 1.2, sections 3.2, 4.10 and 4.11): from blocks of a ring
 * to a packet over borrowed guest memory, and from the packet's end to events.
 *
 * An endpoint has one transfer with its device at a time. A control transfer begins when all of its
 * stages are in the ring. The ring moves on when the transfer is over, so that one that is taken
 * back begins anew.
 *
 * Transfers start on the I/O loop and end on any thread, with the device lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "hw/core/env.h"
#include "hw/usb/xhci_internal.h"

#define TRANSFERS_AT_ONCE 16u
#define IMMEDIATE_MAX 8u
#define EVENT_LENGTH 0xffffffu
#define TARGET_SHIFT 22 /* of a block: the interrupter */

static bool moves_data(const struct xhci_trb *trb)
{
    unsigned type = xhci_trb_type(trb);
    return type == XHCI_NORMAL || type == XHCI_DATA_STAGE || type == XHCI_ISOCH;
}

static uint32_t length_of(const struct xhci_trb *trb)
{
    return moves_data(trb) ? trb->status & XHCI_TRB_LENGTH : 0;
}

/* --- from blocks to a packet --- */

/* May this block, the newest of the transfer, stand here? */
static bool fits(const struct xhci_transfer *transfer, const struct xhci_trb *trb)
{
    bool control = transfer->dci == XHCI_DCI_CONTROL;
    const struct xhci_trb *before = transfer->trb_count > 1 ? trb - 1 : NULL;
    bool chained = before && (before->control & XHCI_TRB_CHAIN);
    bool set_up = before && xhci_trb_type(before) == XHCI_SETUP_STAGE;
    switch (xhci_trb_type(trb)) {
    case XHCI_SETUP_STAGE:
        return control && !before && (trb->control & XHCI_TRB_IMMEDIATE) &&
               (trb->status & XHCI_TRB_LENGTH) == USB_SETUP_SIZE;
    case XHCI_DATA_STAGE:
        return control && set_up;
    case XHCI_STATUS_STAGE:
        return control && before && (set_up || !chained);
    case XHCI_NORMAL:
    case XHCI_EVENT_DATA: /* on a control endpoint they continue a stage */
        return !control || (chained && !set_up);
    case XHCI_ISOCH:
        return !control && !before;
    case XHCI_TRANSFER_NO_OP:
        return !control || !before;
    }
    return false;
}

/* Gathers the blocks of the next transfer; 1, 0: not all of them are there, or an error. */
static int gather(struct xhci *xhci, const struct xhci_endpoint *endpoint)
{
    struct xhci_transfer *transfer = endpoint->transfer;
    bool stages = false, ended = false;
    transfer->trb_count = 0;
    transfer->after = endpoint->ring;
    while (!ended) {
        if (transfer->trb_count == XHCI_TRBS_MAX)
            return -E2BIG;
        struct xhci_trb *trb = &transfer->trb[transfer->trb_count];
        int got = xhci_fetch(xhci, &transfer->after, trb);
        if (got <= 0)
            return got;
        transfer->trb_count++;
        if (!fits(transfer, trb))
            return -EINVAL;
        if (xhci_trb_type(trb) == XHCI_SETUP_STAGE)
            stages = true; /* until the status has come */
        if (xhci_trb_type(trb) == XHCI_STATUS_STAGE)
            stages = false;
        ended = !stages && !(trb->control & XHCI_TRB_CHAIN);
    }
    return 1;
}

/* Borrows one block's memory. */
static int borrow(struct xhci *xhci, struct xhci_transfer *transfer, struct xhci_trb *trb)
{
    struct usb_packet *packet = &transfer->packet;
    uint32_t left = length_of(trb);
    uint64_t gpa = get_le64(trb->parameter);
    if (left && (trb->control & XHCI_TRB_IMMEDIATE)) {
        if (left > IMMEDIATE_MAX || transfer->to_guest)
            return -EINVAL;
        transfer->iov[transfer->iov_count++] = (struct iovec){trb->parameter, left};
        packet->length += left;
        return 0;
    }
    while (left) {
        size_t here;
        if (transfer->iov_count == XHCI_IOV_MAX)
            return -E2BIG;
        void *host = gmem_map(xhci_memory(xhci), gpa, left,
                              transfer->to_guest ? GMEM_WRITE : GMEM_READ, &here);
        if (!host)
            return -EFAULT;
        transfer->iov[transfer->iov_count++] = (struct iovec){host, here};
        packet->length += here;
        gpa += here;
        left -= (uint32_t)here;
    }
    return 0;
}

/* Gives the memory back, of which the device wrote `written` bytes. */
static void give_back(struct xhci_transfer *transfer, uint64_t written)
{
    enum gmem_dir dir = transfer->to_guest ? GMEM_WRITE : GMEM_READ;
    const uint8_t *own = (const uint8_t *)transfer->trb;
    for (unsigned i = 0; i < transfer->iov_count; i++) {
        const struct iovec *segment = &transfer->iov[i];
        const uint8_t *at = segment->iov_base;
        uint64_t here = MIN(written, (uint64_t)segment->iov_len);
        if (at < own || at >= own + sizeof(transfer->trb)) /* immediate data is in the block */
            gmem_unmap(xhci_memory(transfer->xhci), segment->iov_base, segment->iov_len, dir, here);
        written -= here;
    }
    transfer->iov_count = 0;
}

/* Makes the packet of the blocks that were gathered. */
static int prepare(struct xhci *xhci, const struct xhci_endpoint *endpoint)
{
    struct xhci_transfer *transfer = endpoint->transfer;
    struct usb_packet *packet = &transfer->packet;
    const struct xhci_trb *first = &transfer->trb[0];
    *packet = (struct usb_packet){.iov = transfer->iov};
    packet->isochronous =
        endpoint->type == XHCI_TYPE_ISOCH_IN || endpoint->type == XHCI_TYPE_ISOCH_OUT;
    packet->endpoint = transfer->dci / 2;
    if (transfer->dci != XHCI_DCI_CONTROL && (transfer->dci & 1))
        packet->endpoint |= USB_IN;
    transfer->to_guest = packet->endpoint & USB_IN;
    if (xhci_trb_type(first) == XHCI_SETUP_STAGE) {
        memcpy(packet->setup, first->parameter, USB_SETUP_SIZE);
        transfer->to_guest = packet->setup[0] & USB_IN;
    }
    for (unsigned i = 0; i < transfer->trb_count; i++) {
        struct xhci_trb *trb = &transfer->trb[i];
        if (xhci_trb_type(trb) == XHCI_DATA_STAGE &&
            !!(trb->control & XHCI_TRB_TO_HOST) != transfer->to_guest)
            return -EINVAL;
        int result = borrow(xhci, transfer, trb);
        if (result)
            return result;
    }
    packet->iov_count = transfer->iov_count;
    return 0;
}

/* --- from the packet's end to events --- */

static enum xhci_code code_of(enum usb_result result)
{
    switch (result) {
    case USB_OK:
        return XHCI_SUCCESS;
    case USB_STALL:
        return XHCI_STALL;
    case USB_BABBLE:
        return XHCI_BABBLE;
    case USB_CANCELLED:
        return XHCI_STOPPED;
    case USB_IO_ERROR:
    case USB_NO_DEVICE:
        break;
    }
    return XHCI_TRANSACTION_ERROR;
}

static unsigned target_of(const struct xhci_trb *trb)
{
    unsigned target = trb->status >> TARGET_SHIFT;
    return target < XHCI_INTERRUPTERS ? target : 0;
}

static void tell(struct xhci_transfer *transfer, const struct xhci_trb *trb, enum xhci_code code,
                 uint32_t length, bool event_data)
{
    uint64_t parameter = event_data ? get_le64(trb->parameter) : trb->gpa;
    xhci_post(transfer->xhci, target_of(trb), XHCI_EVENT_TRANSFER, parameter,
              (uint32_t)code << 24 | (length & EVENT_LENGTH),
              (uint32_t)transfer->slot << 24 | (uint32_t)transfer->dci << 16 |
                  (event_data ? XHCI_TRB_EVENT_DATA : 0));
}

/*
 * The events of a transfer of which `moved` bytes went through (4.10.1.1). An error is told where
 * it happened: at the block that the device did not get beyond. A short packet is told once, and
 * again at the end of a control transfer.
 */
static void tell_all(struct xhci_transfer *transfer, enum xhci_code code)
{
    uint64_t left = transfer->packet.moved;
    uint32_t sum = 0; /* since the last event data block */
    bool is_short = false, told = false;
    for (unsigned i = 0; i < transfer->trb_count; i++) {
        const struct xhci_trb *trb = &transfer->trb[i];
        uint32_t length = length_of(trb), here = (uint32_t)MIN(left, (uint64_t)length);
        unsigned type = xhci_trb_type(trb);
        bool at_end = i + 1 == transfer->trb_count, event_data = type == XHCI_EVENT_DATA;
        left -= here;
        sum += here;
        if (type == XHCI_STATUS_STAGE)
            is_short = told = false;
        is_short |= here < length && code == XHCI_SUCCESS;
        bool setup = type == XHCI_SETUP_STAGE && !at_end;
        bool failed = code != XHCI_SUCCESS && !setup && (here < length || !left);
        bool wanted = (trb->control & XHCI_TRB_INTERRUPT) ||
                      (is_short && moves_data(trb) && (trb->control & XHCI_TRB_SHORT));
        if (failed) {
            tell(transfer, trb, code, event_data ? sum : length - here, event_data);
            return;
        }
        if (wanted && !told) {
            tell(transfer, trb, is_short ? XHCI_SHORT_PACKET : XHCI_SUCCESS,
                 event_data ? sum : length - here, event_data);
            told = is_short;
        }
        if (event_data)
            sum = 0;
    }
}

/* The transfer is over: the ring goes on behind it, or stands at it. */
static void conclude(struct xhci *xhci, struct xhci_transfer *transfer, enum xhci_code code)
{
    struct xhci_endpoint *endpoint = xhci_endpoint(xhci, transfer->slot, transfer->dci);
    bool halts = code != XHCI_SUCCESS && !transfer->packet.isochronous;
    if (!halts)
        endpoint->ring = transfer->after;
    else
        xhci_endpoint_set_state(xhci, transfer->slot, transfer->dci,
                                code == XHCI_TRB_ERROR ? XHCI_EP_ERROR : XHCI_EP_HALTED);
    tell_all(transfer, code);
}

static void packet_done(struct usb_packet *packet)
{
    struct xhci_transfer *transfer = container_of(packet, struct xhci_transfer, packet);
    struct xhci *xhci = transfer->xhci;
    struct xhci_endpoint *endpoint = xhci_endpoint(xhci, transfer->slot, transfer->dci);
    bool was_asked = endpoint->tell_stopped;
    transfer->active = endpoint->tell_stopped = false;
    give_back(transfer, transfer->to_guest ? packet->moved : 0);
    if (packet->result != USB_CANCELLED)
        conclude(xhci, transfer, code_of(packet->result));
    else if (was_asked)
        tell_all(transfer, XHCI_STOPPED);
    xhci_ring_doorbell(xhci, transfer->slot, transfer->dci);
    xhci_ended(xhci);
}

/* --- serving --- */

/* A ring or a transfer that makes no sense. */
static void refuse(struct xhci *xhci, struct xhci_transfer *transfer)
{
    const struct xhci_endpoint *endpoint = xhci_endpoint(xhci, transfer->slot, transfer->dci);
    const struct xhci_trb at = {.gpa = endpoint->ring.dequeue};
    log_guest(&xhci->complaints, "xhci '%s': endpoint %u of slot %u: a transfer that is none",
              xhci->pci.device.id, transfer->dci, transfer->slot);
    xhci_endpoint_set_state(xhci, transfer->slot, transfer->dci, XHCI_EP_ERROR);
    tell(transfer, &at, XHCI_TRB_ERROR, 0, false);
}

static struct usb_device *device_of(struct xhci *xhci, unsigned slot)
{
    const struct xhci_slot *own = &xhci->slot[slot - 1];
    struct usb_device *device = usb_bus_find(&xhci->bus, own->port, own->route);
    /* After a reset of its port a device answers at address 0 only. */
    return device && device->address == own->address &&
                   (xhci->portsc[own->port - 1] & XHCI_PORT_ENABLED)
               ? device
               : NULL;
}

static void start(struct xhci *xhci, struct xhci_transfer *transfer)
{
    struct usb_device *device = device_of(xhci, transfer->slot);
    if (xhci_trb_type(&transfer->trb[0]) == XHCI_TRANSFER_NO_OP && !transfer->packet.length) {
        conclude(xhci, transfer, XHCI_SUCCESS);
        return;
    }
    transfer->active = true;
    transfer->packet.done = packet_done;
    xhci->in_flight++;
    if (device) {
        usb_submit(device, &transfer->packet);
        return;
    }
    list_init(&transfer->packet.link);
    usb_done(&transfer->packet, USB_NO_DEVICE);
}

/* The next transfer of an endpoint; false: there is none now. */
static bool serve_one(struct xhci *xhci, struct xhci_endpoint *endpoint)
{
    struct xhci_transfer *transfer = endpoint->transfer;
    int got = gather(xhci, endpoint);
    if (!got) {
        xhci->slot[transfer->slot - 1].rung &= ~(1u << transfer->dci);
        return false;
    }
    if (got > 0 && !xhci_has_room(xhci, target_of(&transfer->trb[0])))
        return false; /* until the guest has taken some events */
    got = got > 0 ? prepare(xhci, endpoint) : got;
    if (got) {
        give_back(transfer, 0);
        refuse(xhci, transfer);
        return false;
    }
    start(xhci, transfer);
    return true;
}

bool xhci_serve_endpoint(struct xhci *xhci, unsigned slot, unsigned dci)
{
    struct xhci_endpoint *endpoint = xhci_endpoint(xhci, slot, dci);
    if (endpoint->state == XHCI_EP_STOPPED)
        xhci_endpoint_set_state(xhci, slot, dci, XHCI_EP_RUNNING);
    for (unsigned i = 0; i < TRANSFERS_AT_ONCE; i++) {
        if (endpoint->state != XHCI_EP_RUNNING || endpoint->transfer->active) {
            xhci->slot[slot - 1].rung &= ~(1u << dci); /* its end rings again */
            return true;
        }
        if (!serve_one(xhci, endpoint))
            return true;
    }
    return false;
}
