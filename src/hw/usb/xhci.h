/*
 * The USB controller (eXtensible Host Controller Interface 1.2): eight connectors, each with a port
 * for USB 2 devices and one for SuperSpeed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_USB_XHCI_H
#define TENON_HW_USB_XHCI_H

#include <pthread.h>

#include "base/log.h"
#include "hw/pci/pci.h"
#include "hw/usb/usb.h"

#define XHCI_CONNECTORS 8
#define XHCI_PORTS (2 * XHCI_CONNECTORS)
#define XHCI_SLOTS 32
#define XHCI_ENDPOINTS 31
#define XHCI_INTERRUPTERS 8
#define XHCI_SEGMENTS_MAX 16 /* of one event ring */

struct xhci;
struct xhci_transfer;

/* Where a ring of the guest has been read to. */
struct xhci_ring {
    uint64_t dequeue;
    bool cycle;
};

struct xhci_segment {
    uint64_t base;
    uint32_t size; /* entries */
};

struct xhci_interrupter {
    /* Registers (5.5.2). */
    uint32_t iman, imod, erstsz;
    uint64_t erstba, erdp;

    /* The event ring: where the next event goes. */
    bool stale; /* its table is to be read again */
    bool cycle;
    bool full;    /* the guest was told that it is */
    bool pending; /* events that no interrupt has told of */
    uint32_t segment, index;
    uint32_t segment_count;
    struct xhci_segment segments[XHCI_SEGMENTS_MAX];
};

struct xhci_endpoint {
    uint8_t state; /* enum xhci_endpoint_state */
    uint8_t type;  /* enum xhci_endpoint_type */
    struct xhci_ring ring;

    /* Derived. */
    struct xhci_transfer *transfer; /* owned; NULL: disabled */
    bool tell_stopped;              /* a transfer that is taken back is told of */
};

struct xhci_slot {
    bool enabled;
    uint8_t state; /* enum xhci_slot_state */
    uint8_t address;
    uint8_t port; /* root port */
    uint32_t route;
    uint64_t context; /* the guest's output context */
    uint32_t rung;    /* a bit a doorbell: the endpoint's ring may have work */
    struct xhci_endpoint endpoint[XHCI_ENDPOINTS];
};

struct xhci {
    struct pci_device pci;

    struct loop *io_loop; /* set before realize; NULL: env->loop */
    struct usb_bus bus;   /* for devices, once it is realized */

    /* Registers (5.4). */
    uint32_t usbcmd, usbsts, dnctrl, config;
    uint64_t dcbaap;
    uint32_t portsc[XHCI_PORTS];
    struct xhci_ring commands;
    bool command_running; /* CRCR.CRR */
    bool saved;           /* USBCMD.CSS came, and no reset since */
    struct xhci_interrupter interrupter[XHCI_INTERRUPTERS];
    struct xhci_slot slot[XHCI_SLOTS];

    /* The device's own. */
    struct usb_port port[XHCI_PORTS];
    struct loop *loop;
    int kick_fd;
    struct loop_fd kick_watch;
    unsigned in_flight; /* transfers with devices */
    bool serving;
    bool again;         /* something became ready meanwhile */
    bool starved;       /* work waits for room in an event ring */
    bool command_waits; /* for transfers that it takes back */
    bool quiesced;
    bool resetting;      /* USBCMD.HCRST is set, transfers are still in flight */
    pthread_cond_t idle; /* in_flight is 0; with the device lock */
    struct log_limit complaints;
};

extern const struct device_class xhci_class;

#endif
