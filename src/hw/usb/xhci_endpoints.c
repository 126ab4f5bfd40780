/*
 * Slots and endpoints of the xHCI controller, and the guest's output contexts that show them (xHCI
 * 1.2, sections 4.5, 4.8 and 6.2). What the guest writes there itself is never believed. Device
 * lock throughout.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>

#include "base/bytes.h"
#include "hw/core/env.h"
#include "hw/usb/xhci_internal.h"

#define CONTEXT_STREAMS 0x7c00u /* MaxPStreams: we have none */
#define CONTEXT_DEQUEUE 8u

struct xhci_endpoint *xhci_endpoint(struct xhci *xhci, unsigned slot, unsigned dci)
{
    return &xhci->slot[slot - 1].endpoint[dci - 1];
}

static uint64_t context_of(const struct xhci *xhci, unsigned slot, unsigned dci)
{
    return xhci->slot[slot - 1].context + (uint64_t)XHCI_CONTEXT_SIZE * dci;
}

bool xhci_endpoint_context_good(unsigned dci, const uint8_t context[XHCI_CONTEXT_SIZE])
{
    unsigned type = get_le32(context + 4) >> 3 & 7;
    if (get_le32(context) & CONTEXT_STREAMS)
        return false;
    if (dci == XHCI_DCI_CONTROL)
        return type == XHCI_TYPE_CONTROL;
    return type != XHCI_TYPE_NONE && type != XHCI_TYPE_CONTROL &&
           !!(type & XHCI_TYPE_IN) == (dci & 1);
}

struct xhci_transfer *xhci_transfer_new(struct xhci *xhci, unsigned slot, unsigned dci)
{
    struct xhci_transfer *transfer = xcalloc(1, sizeof(*transfer));
    transfer->xhci = xhci;
    transfer->slot = (uint8_t)slot;
    transfer->dci = (uint8_t)dci;
    return transfer;
}

void xhci_endpoint_enable(struct xhci *xhci, unsigned slot, unsigned dci,
                          const uint8_t context[XHCI_CONTEXT_SIZE])
{
    struct xhci_endpoint *endpoint = xhci_endpoint(xhci, slot, dci);
    uint64_t dequeue = get_le64(context + CONTEXT_DEQUEUE);
    uint8_t out[XHCI_CONTEXT_SIZE];
    endpoint->type = (uint8_t)(get_le32(context + 4) >> 3 & 7);
    endpoint->ring.dequeue = dequeue & ~0xfull;
    endpoint->ring.cycle = dequeue & 1;
    if (!endpoint->transfer)
        endpoint->transfer = xhci_transfer_new(xhci, slot, dci);
    memcpy(out, context, sizeof(out));
    gmem_write(xhci_memory(xhci), context_of(xhci, slot, dci), out, sizeof(out));
    xhci_endpoint_set_state(xhci, slot, dci, XHCI_EP_RUNNING);
}

void xhci_endpoint_set_state(struct xhci *xhci, unsigned slot, unsigned dci,
                             enum xhci_endpoint_state state)
{
    struct xhci_endpoint *endpoint = xhci_endpoint(xhci, slot, dci);
    uint64_t at = context_of(xhci, slot, dci);
    uint8_t context[16];
    endpoint->state = (uint8_t)state;
    if (state != XHCI_EP_RUNNING) /* what rang before is settled with that */
        xhci->slot[slot - 1].rung &= ~(1u << dci);
    /* A context where no memory is harms the guest alone. */
    if (gmem_read(xhci_memory(xhci), at, context, sizeof(context)))
        return;
    put_le32(context, (get_le32(context) & ~7u) | state);
    put_le64(context + CONTEXT_DEQUEUE, endpoint->ring.dequeue | endpoint->ring.cycle);
    gmem_write(xhci_memory(xhci), at, context, sizeof(context));
}

void xhci_endpoint_disable(struct xhci *xhci, unsigned slot, unsigned dci)
{
    struct xhci_endpoint *endpoint = xhci_endpoint(xhci, slot, dci);
    if (!endpoint->transfer)
        return;
    xhci_endpoint_set_state(xhci, slot, dci, XHCI_EP_DISABLED);
    free(endpoint->transfer);
    *endpoint = (struct xhci_endpoint){0};
    xhci->slot[slot - 1].rung &= ~(1u << dci);
}

bool xhci_take_back(struct xhci *xhci, unsigned slot, uint32_t dcis, bool tell)
{
    bool all = true;
    for (unsigned dci = 1; dci <= XHCI_ENDPOINTS; dci++) {
        struct xhci_endpoint *endpoint = xhci_endpoint(xhci, slot, dci);
        if (!(dcis >> dci & 1) || !endpoint->transfer || !endpoint->transfer->active)
            continue;
        endpoint->tell_stopped = tell;
        usb_cancel(&endpoint->transfer->packet);
        /* A reset of the controller may have waited for this one. */
        all &= !endpoint->transfer || !endpoint->transfer->active;
    }
    return all;
}

void xhci_slot_disable(struct xhci *xhci, unsigned slot)
{
    for (unsigned dci = 1; dci <= XHCI_ENDPOINTS; dci++)
        xhci_endpoint_disable(xhci, slot, dci);
    xhci->slot[slot - 1] = (struct xhci_slot){0};
}
