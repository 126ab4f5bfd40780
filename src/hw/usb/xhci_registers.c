/*
 * Registers of the xHCI controller (xHCI 1.2, chapter 5, and 7.2 for what its ports speak). vCPU
 * threads, with the device lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "base/bytes.h"
#include "base/checked.h"
#include "base/clock.h"
#include "hw/usb/xhci_internal.h"

#define VERSION 0x0100u
#define STRUCTURAL_1 (XHCI_SLOTS | XHCI_INTERRUPTERS << 8 | XHCI_PORTS << 24)
#define STRUCTURAL_2 (4u << 4)                      /* event ring tables of up to 2^4 segments */
#define CAPABILITIES (1u | XHCI_EXTENDED / 4 << 16) /* 64-bit addresses */
#define CMD_WRITABLE (XHCI_CMD_RUN | XHCI_CMD_INTERRUPTS | 1u << 3 | 1u << 10)
#define STS_CLEARED_BY_1 (XHCI_STS_EVENT | XHCI_STS_PORT_CHANGE | XHCI_STS_RESTORE_ERROR | 1u << 2)
#define MICROFRAME_NS 125000u
#define PORT_REGISTERS 16u
#define INTERRUPTER_SIZE 32u

/* Supported protocols: USB 2.0 at the first ports, 3.0 at the others, each in its default speeds.
 */
static const uint32_t extended[] = {0x02000402,
                                    0x20425355,
                                    1 | XHCI_CONNECTORS << 8,
                                    0,
                                    0x03000002,
                                    0x20425355,
                                    (1 + XHCI_CONNECTORS) | XHCI_CONNECTORS << 8,
                                    0};

static uint32_t read_capability(unsigned offset)
{
    switch ((enum xhci_capability_register)offset) {
    case XHCI_CAPLENGTH:
        return XHCI_OPERATIONAL | VERSION << 16;
    case XHCI_HCSPARAMS1:
        return STRUCTURAL_1;
    case XHCI_HCSPARAMS2:
        return STRUCTURAL_2;
    case XHCI_HCCPARAMS1:
        return CAPABILITIES;
    case XHCI_DBOFF:
        return XHCI_DOORBELLS;
    case XHCI_RTSOFF:
        return XHCI_RUNTIME;
    }
    return 0;
}

static uint32_t read_status(const struct xhci *xhci)
{
    bool halted = !(xhci->usbcmd & XHCI_CMD_RUN) && !xhci->in_flight;
    return xhci->usbsts | (halted ? XHCI_STS_HALTED : 0);
}

static uint32_t read_operational(const struct xhci *xhci, unsigned offset)
{
    switch ((enum xhci_operational_register)offset) {
    case XHCI_USBCMD:
        return xhci->usbcmd | (xhci->resetting ? XHCI_CMD_RESET : 0);
    case XHCI_USBSTS:
        return read_status(xhci);
    case XHCI_PAGESIZE:
        return 1;
    case XHCI_DNCTRL:
        return xhci->dnctrl;
    case XHCI_CRCR:
        return xhci->command_running ? XHCI_CRCR_RUNNING : 0;
    case XHCI_CRCR_HIGH:
        return 0;
    case XHCI_DCBAAP:
        return (uint32_t)xhci->dcbaap;
    case XHCI_DCBAAP_HIGH:
        return (uint32_t)(xhci->dcbaap >> 32);
    case XHCI_CONFIG:
        return xhci->config;
    }
    return 0;
}

static uint32_t read_interrupter(const struct xhci_interrupter *from, unsigned offset)
{
    switch ((enum xhci_interrupter_register)offset) {
    case XHCI_IMAN:
        return from->iman;
    case XHCI_IMOD:
        return from->imod;
    case XHCI_ERSTSZ:
        return from->erstsz;
    case XHCI_ERSTBA:
        return (uint32_t)from->erstba;
    case XHCI_ERSTBA_HIGH:
        return (uint32_t)(from->erstba >> 32);
    case XHCI_ERDP:
        return (uint32_t)from->erdp;
    case XHCI_ERDP_HIGH:
        return (uint32_t)(from->erdp >> 32);
    }
    return 0;
}

static uint32_t read_word(const struct xhci *xhci, unsigned offset)
{
    unsigned index;
    if (offset < XHCI_OPERATIONAL)
        return read_capability(offset);
    if (offset < XHCI_PORT_REGISTERS)
        return read_operational(xhci, offset - XHCI_OPERATIONAL);
    if (offset < XHCI_PORT_REGISTERS + PORT_REGISTERS * XHCI_PORTS)
        return offset % PORT_REGISTERS
                   ? 0
                   : xhci->portsc[(offset - XHCI_PORT_REGISTERS) / PORT_REGISTERS];
    if (offset >= XHCI_EXTENDED && offset < XHCI_EXTENDED + sizeof(extended))
        return extended[(offset - XHCI_EXTENDED) / 4];
    if (offset == XHCI_RUNTIME)
        return (uint32_t)(clock_now_ns() / MICROFRAME_NS) & 0x3fff;
    if (offset < XHCI_INTERRUPTER0)
        return 0;
    index = (offset - XHCI_INTERRUPTER0) / INTERRUPTER_SIZE;
    return index < XHCI_INTERRUPTERS
               ? read_interrupter(&xhci->interrupter[index], offset % INTERRUPTER_SIZE)
               : 0;
}

/* --- writes --- */

static void write_command(struct xhci *xhci, uint32_t value)
{
    if (xhci->resetting)
        return;
    if (value & XHCI_CMD_RESET) {
        xhci_begin_reset(xhci);
        return;
    }
    bool ran = xhci->usbcmd & XHCI_CMD_RUN;
    xhci->usbcmd = value & CMD_WRITABLE;
    /* A stopped controller keeps all it has; after a reset there is nothing to restore. */
    if (value & XHCI_CMD_SAVE)
        xhci->saved = true;
    if ((value & XHCI_CMD_RESTORE) && !xhci->saved)
        xhci->usbsts |= XHCI_STS_RESTORE_ERROR;
    if (ran && !(value & XHCI_CMD_RUN)) {
        xhci->command_running = false;
        xhci_take_back_all(xhci);
    }
    xhci_interrupts(xhci);
    xhci_wake(xhci);
}

static void write_command_ring(struct xhci *xhci, bool high, uint32_t value)
{
    if (xhci->command_running) {
        if (!high && (value & (XHCI_CRCR_STOP | XHCI_CRCR_ABORT)))
            xhci_command_ring_stop(xhci);
        return;
    }
    xhci_set_half(&xhci->commands.dequeue, high, high ? value : value & ~0x3fu);
    if (!high)
        xhci->commands.cycle = value & XHCI_CRCR_CYCLE;
}

static void write_operational(struct xhci *xhci, unsigned offset, uint32_t value)
{
    switch ((enum xhci_operational_register)offset) {
    case XHCI_USBCMD:
        write_command(xhci, value);
        return;
    case XHCI_USBSTS:
        xhci->usbsts &= ~(value & STS_CLEARED_BY_1);
        return;
    case XHCI_DNCTRL:
        xhci->dnctrl = value & 0xffff;
        return;
    case XHCI_CRCR:
    case XHCI_CRCR_HIGH:
        write_command_ring(xhci, offset == XHCI_CRCR_HIGH, value);
        return;
    case XHCI_DCBAAP:
    case XHCI_DCBAAP_HIGH:
        xhci_set_half(&xhci->dcbaap, offset == XHCI_DCBAAP_HIGH,
                      offset == XHCI_DCBAAP ? value & ~0x3fu : value);
        return;
    case XHCI_CONFIG:
        xhci->config = value & 0xff;
        return;
    case XHCI_PAGESIZE:
        return;
    }
}

static void write_interrupter(struct xhci *xhci, unsigned index, unsigned offset, uint32_t value)
{
    struct xhci_interrupter *to = &xhci->interrupter[index];
    switch ((enum xhci_interrupter_register)offset) {
    case XHCI_IMAN:
        to->iman &= ~(value & XHCI_IMAN_PENDING);
        to->iman = (to->iman & XHCI_IMAN_PENDING) | (value & XHCI_IMAN_ENABLE);
        xhci_interrupts(xhci);
        return;
    case XHCI_IMOD:
        to->imod = value;
        return;
    case XHCI_ERSTSZ:
        to->erstsz = value & 0xffff;
        to->stale = true;
        return;
    case XHCI_ERSTBA:
    case XHCI_ERSTBA_HIGH:
        xhci_set_half(&to->erstba, offset == XHCI_ERSTBA_HIGH, value);
        to->stale = true;
        return;
    case XHCI_ERDP: {
        bool busy = to->erdp & XHCI_ERDP_BUSY;
        xhci_set_half(&to->erdp, false, (value & ~XHCI_ERDP_BUSY) | (busy ? XHCI_ERDP_BUSY : 0));
        xhci_events_taken(xhci, index, value & XHCI_ERDP_BUSY);
        return;
    }
    case XHCI_ERDP_HIGH:
        xhci_set_half(&to->erdp, true, value);
        xhci_events_taken(xhci, index, false);
        return;
    }
}

static void write_word(struct xhci *xhci, unsigned offset, uint32_t value)
{
    unsigned index;
    if (offset < XHCI_OPERATIONAL)
        return;
    if (offset < XHCI_PORT_REGISTERS) {
        write_operational(xhci, offset - XHCI_OPERATIONAL, value);
    } else if (offset < XHCI_PORT_REGISTERS + PORT_REGISTERS * XHCI_PORTS) {
        if (!(offset % PORT_REGISTERS))
            xhci_port_write(xhci, (offset - XHCI_PORT_REGISTERS) / PORT_REGISTERS, value);
    } else if (offset >= XHCI_DOORBELLS) {
        index = (offset - XHCI_DOORBELLS) / 4;
        if (index <= XHCI_SLOTS)
            xhci_ring_doorbell(xhci, index, value & 0xff);
    } else if (offset >= XHCI_INTERRUPTER0) {
        index = (offset - XHCI_INTERRUPTER0) / INTERRUPTER_SIZE;
        if (index < XHCI_INTERRUPTERS)
            write_interrupter(xhci, index, offset % INTERRUPTER_SIZE, value);
    }
}

/* Registers are words, which may be read in parts and written in pairs. */
static uint64_t read_registers(void *opaque, uint64_t offset, unsigned size)
{
    const struct xhci *xhci = opaque;
    unsigned at = (unsigned)offset & ~3u;
    uint64_t value = read_word(xhci, at);
    if (offset % 4 + size > 4)
        value |= (uint64_t)read_word(xhci, at + 4) << 32;
    return value >> 8 * (offset % 4);
}

static void write_registers(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct xhci *xhci = opaque;
    if (offset % 4 || size < 4)
        return;
    write_word(xhci, (unsigned)offset, (uint32_t)value);
    if (size == 8)
        write_word(xhci, (unsigned)offset + 4, (uint32_t)(value >> 32));
}

const struct io_ops xhci_register_ops = {read_registers, write_registers};
