/*
 * Rings of the xHCI controller (xHCI 1.2, section 4.9): blocks out of command and transfer rings,
 * events into event rings, and the interrupts that tell of them (4.17).
 *
 * Each block is read once, and what was read is what counts. A ring of links without a block is
 * given up after a few. Device lock throughout.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "hw/core/env.h"
#include "hw/usb/xhci_internal.h"

#define POINTER_MASK (~0xfull)
#define TABLE_ENTRY 16u
#define SEGMENT_MIN 16u
#define SEGMENT_MAX 4096u
#define ROOM 8u /* events that a transfer or command may make at once */

/* --- command and transfer rings --- */

static int read_block(struct xhci *xhci, uint64_t gpa, struct xhci_trb *trb)
{
    struct gmem *gmem = xhci_memory(xhci);
    uint8_t bytes[XHCI_TRB_SIZE];
    uint32_t control;
    /* The last word first: with its cycle bit the guest hands the rest over. */
    if (gmem_load_le32(gmem, gpa + 12, &control) || gmem_read(gmem, gpa, bytes, sizeof(bytes)))
        return -EFAULT;
    trb->gpa = gpa;
    memcpy(trb->parameter, bytes, sizeof(trb->parameter));
    trb->status = get_le32(bytes + 8);
    trb->control = control;
    return 0;
}

int xhci_fetch(struct xhci *xhci, struct xhci_ring *ring, struct xhci_trb *trb)
{
    struct xhci_ring at = *ring;
    for (unsigned links = 0; links <= XHCI_LINKS_MAX; links++) {
        if (read_block(xhci, at.dequeue, trb))
            return -EFAULT;
        if ((trb->control & XHCI_TRB_CYCLE) != at.cycle)
            return 0;
        if (xhci_trb_type(trb) != XHCI_LINK) {
            at.dequeue += XHCI_TRB_SIZE;
            *ring = at;
            return 1;
        }
        at.dequeue = get_le64(trb->parameter) & POINTER_MASK;
        at.cycle ^= !!(trb->control & XHCI_TRB_TOGGLE);
    }
    return -ELOOP;
}

/* --- event rings --- */

/* Reads the segment table; without a good one there is no ring. */
static void load_table(struct xhci *xhci, struct xhci_interrupter *to)
{
    uint8_t entry[TABLE_ENTRY];
    uint32_t wanted = MIN(to->erstsz, (uint32_t)XHCI_SEGMENTS_MAX);
    to->stale = to->full = false;
    to->segment_count = to->segment = to->index = 0;
    to->cycle = true;
    for (uint32_t i = 0; i < wanted; i++) {
        if (gmem_read(xhci_memory(xhci), (to->erstba & ~0x3full) + (uint64_t)TABLE_ENTRY * i, entry,
                      sizeof(entry)))
            return;
        struct xhci_segment *segment = &to->segments[i];
        segment->base = get_le64(entry) & ~0x3full;
        segment->size = get_le32(entry + 8) & 0xffff;
        if (segment->size < SEGMENT_MIN || segment->size > SEGMENT_MAX)
            return;
    }
    to->segment_count = wanted;
}

static bool ring_ready(struct xhci *xhci, struct xhci_interrupter *to)
{
    if (to->stale)
        load_table(xhci, to);
    return to->segment_count;
}

static uint64_t place(const struct xhci_interrupter *to)
{
    return to->segments[to->segment].base + (uint64_t)XHCI_TRB_SIZE * to->index;
}

static void step(struct xhci_interrupter *to)
{
    if (++to->index < to->segments[to->segment].size)
        return;
    to->index = 0;
    if (++to->segment == to->segment_count) {
        to->segment = 0;
        to->cycle = !to->cycle;
    }
}

/* How many more events fit, up to `most`; one entry always stays free. */
static unsigned room(const struct xhci_interrupter *to, unsigned most)
{
    struct xhci_interrupter walk = *to;
    for (unsigned i = 0; i <= most; i++) {
        step(&walk);
        if (place(&walk) == (to->erdp & POINTER_MASK))
            return i;
    }
    return most;
}

static void write_event(struct xhci *xhci, struct xhci_interrupter *to, uint64_t parameter,
                        uint32_t status, uint32_t control)
{
    struct gmem *gmem = xhci_memory(xhci);
    uint8_t bytes[12];
    put_le64(bytes, parameter);
    put_le32(bytes + 8, status);
    /* The word with the cycle bit last: it hands the event over. */
    if (gmem_write(gmem, place(to), bytes, sizeof(bytes)) ||
        gmem_store_le32(gmem, place(to) + 12, control | to->cycle))
        log_guest(&xhci->complaints, "xhci '%s': an event ring lies where no memory is",
                  xhci->pci.device.id);
    step(to);
}

bool xhci_has_room(struct xhci *xhci, unsigned index)
{
    struct xhci_interrupter *to = &xhci->interrupter[index];
    bool has = !ring_ready(xhci, to) || room(to, ROOM) == ROOM;
    xhci->starved |= !has;
    return has;
}

/* --- interrupts --- */

static void send(struct xhci *xhci, unsigned index)
{
    struct xhci_interrupter *from = &xhci->interrupter[index];
    if ((from->iman & (XHCI_IMAN_PENDING | XHCI_IMAN_ENABLE)) !=
            (XHCI_IMAN_PENDING | XHCI_IMAN_ENABLE) ||
        !(xhci->usbcmd & XHCI_CMD_INTERRUPTS) || !pci_msix_enabled(&xhci->pci))
        return;
    from->iman &= ~XHCI_IMAN_PENDING; /* a message clears it by itself */
    pci_msix_notify(&xhci->pci, index);
}

/* News become an interrupt, unless the guest is at its events anyway. */
static void raise_pending(struct xhci *xhci, unsigned index)
{
    struct xhci_interrupter *from = &xhci->interrupter[index];
    if (!from->pending || (from->erdp & XHCI_ERDP_BUSY))
        return;
    from->pending = false;
    from->erdp |= XHCI_ERDP_BUSY;
    from->iman |= XHCI_IMAN_PENDING;
    xhci->usbsts |= XHCI_STS_EVENT;
    xhci_interrupts(xhci);
}

void xhci_interrupts(struct xhci *xhci)
{
    bool level = false;
    for (unsigned i = 0; i < XHCI_INTERRUPTERS; i++) {
        const struct xhci_interrupter *from = &xhci->interrupter[i];
        send(xhci, i);
        level |= (from->iman & XHCI_IMAN_PENDING) && (from->iman & XHCI_IMAN_ENABLE);
    }
    pci_intx_set(&xhci->pci,
                 level && (xhci->usbcmd & XHCI_CMD_INTERRUPTS) && !pci_msix_enabled(&xhci->pci));
}

void xhci_post(struct xhci *xhci, unsigned index, enum xhci_trb_type type, uint64_t parameter,
               uint32_t status, uint32_t control)
{
    struct xhci_interrupter *to = &xhci->interrupter[index];
    if (!ring_ready(xhci, to) || to->full)
        return;
    unsigned left = room(to, 2);
    to->full = left < 2;
    if (!left)
        return;
    if (to->full) /* the last place is for the news that there is none */
        write_event(xhci, to, 0, XHCI_EVENT_RING_FULL << 24,
                    (uint32_t)XHCI_EVENT_CONTROLLER << XHCI_TRB_TYPE_SHIFT);
    else
        write_event(xhci, to, parameter, status, control | (uint32_t)type << XHCI_TRB_TYPE_SHIFT);
    to->pending = true;
    raise_pending(xhci, index);
}

void xhci_events_taken(struct xhci *xhci, unsigned index, bool busy)
{
    struct xhci_interrupter *to = &xhci->interrupter[index];
    if (busy)
        to->erdp &= ~(uint64_t)XHCI_ERDP_BUSY;
    if (!ring_ready(xhci, to))
        return;
    to->full = to->full && room(to, 2) < 2;
    if (xhci->starved)
        xhci_wake(xhci);
    xhci->starved = false;
    to->pending = to->pending && place(to) != (to->erdp & POINTER_MASK);
    raise_pending(xhci, index);
}
