/*
 * What the files of the xHCI controller share: numbers of the specification, the transfer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_USB_XHCI_INTERNAL_H
#define TENON_HW_USB_XHCI_INTERNAL_H

#include "hw/usb/xhci.h"

/* The register BAR: capability, operational, port, runtime registers and doorbells. */
#define XHCI_OPERATIONAL 0x40u
#define XHCI_PORT_REGISTERS (XHCI_OPERATIONAL + 0x400u)
#define XHCI_EXTENDED 0x600u
#define XHCI_RUNTIME 0x1000u
#define XHCI_INTERRUPTER0 (XHCI_RUNTIME + 0x20u)
#define XHCI_DOORBELLS 0x2000u
#define XHCI_BAR_SIZE 0x4000u

enum xhci_capability_register {
    XHCI_CAPLENGTH = 0x00, /* and HCIVERSION */
    XHCI_HCSPARAMS1 = 0x04,
    XHCI_HCSPARAMS2 = 0x08,
    XHCI_HCCPARAMS1 = 0x10,
    XHCI_DBOFF = 0x14,
    XHCI_RTSOFF = 0x18,
};
/* From XHCI_OPERATIONAL on. */
enum xhci_operational_register {
    XHCI_USBCMD = 0x00,
    XHCI_USBSTS = 0x04,
    XHCI_PAGESIZE = 0x08,
    XHCI_DNCTRL = 0x14,
    XHCI_CRCR = 0x18,
    XHCI_CRCR_HIGH = 0x1c,
    XHCI_DCBAAP = 0x30,
    XHCI_DCBAAP_HIGH = 0x34,
    XHCI_CONFIG = 0x38,
};
/* Of an interrupter. */
enum xhci_interrupter_register {
    XHCI_IMAN = 0x00,
    XHCI_IMOD = 0x04,
    XHCI_ERSTSZ = 0x08,
    XHCI_ERSTBA = 0x10,
    XHCI_ERSTBA_HIGH = 0x14,
    XHCI_ERDP = 0x18,
    XHCI_ERDP_HIGH = 0x1c,
};

#define XHCI_CMD_RUN (1u << 0)
#define XHCI_CMD_RESET (1u << 1)
#define XHCI_CMD_INTERRUPTS (1u << 2)
#define XHCI_CMD_SAVE (1u << 8)
#define XHCI_CMD_RESTORE (1u << 9)
#define XHCI_STS_HALTED (1u << 0)
#define XHCI_STS_EVENT (1u << 3)
#define XHCI_STS_PORT_CHANGE (1u << 4)
#define XHCI_STS_RESTORE_ERROR (1u << 10)
#define XHCI_IMAN_PENDING 1u
#define XHCI_IMAN_ENABLE 2u
#define XHCI_ERDP_BUSY (1u << 3)
#define XHCI_CRCR_CYCLE 1u
#define XHCI_CRCR_STOP 2u
#define XHCI_CRCR_ABORT 4u
#define XHCI_CRCR_RUNNING 8u

/* PORTSC (5.4.8). */
#define XHCI_PORT_CONNECTED (1u << 0)
#define XHCI_PORT_ENABLED (1u << 1)
#define XHCI_PORT_RESET (1u << 4)
#define XHCI_PORT_LINK 0x1e0u
#define XHCI_PORT_LINK_SHIFT 5
#define XHCI_PORT_POWER (1u << 9)
#define XHCI_PORT_SPEED_SHIFT 10
#define XHCI_PORT_LINK_STROBE (1u << 16)
#define XHCI_PORT_CONNECT_CHANGE (1u << 17)
#define XHCI_PORT_ENABLE_CHANGE (1u << 18)
#define XHCI_PORT_WARM_RESET_CHANGE (1u << 19)
#define XHCI_PORT_RESET_CHANGE (1u << 21)
#define XHCI_PORT_LINK_CHANGE (1u << 22)
#define XHCI_PORT_CHANGES 0xfe0000u
#define XHCI_PORT_WAKE_ENABLES 0xe000000u
#define XHCI_PORT_WARM_RESET (1u << 31)
enum xhci_link {
    XHCI_LINK_U0 = 0,
    XHCI_LINK_U3 = 3,
    XHCI_LINK_RX_DETECT = 5,
    XHCI_LINK_POLLING = 7,
    XHCI_LINK_RESUME = 15,
};

/* Types of transfer request blocks (6.4.6). */
enum xhci_trb_type {
    XHCI_NORMAL = 1,
    XHCI_SETUP_STAGE = 2,
    XHCI_DATA_STAGE = 3,
    XHCI_STATUS_STAGE = 4,
    XHCI_ISOCH = 5,
    XHCI_LINK = 6,
    XHCI_EVENT_DATA = 7,
    XHCI_TRANSFER_NO_OP = 8,
    XHCI_ENABLE_SLOT = 9,
    XHCI_DISABLE_SLOT = 10,
    XHCI_ADDRESS_DEVICE = 11,
    XHCI_CONFIGURE_ENDPOINT = 12,
    XHCI_EVALUATE_CONTEXT = 13,
    XHCI_RESET_ENDPOINT = 14,
    XHCI_STOP_ENDPOINT = 15,
    XHCI_SET_DEQUEUE = 16,
    XHCI_RESET_DEVICE = 17,
    XHCI_COMMAND_NO_OP = 23,
    XHCI_EVENT_TRANSFER = 32,
    XHCI_EVENT_COMMAND = 33,
    XHCI_EVENT_PORT = 34,
    XHCI_EVENT_CONTROLLER = 37,
};
#define XHCI_TRB_SIZE 16u
#define XHCI_TRB_TYPE_SHIFT 10
#define XHCI_TRB_CYCLE (1u << 0)
#define XHCI_TRB_TOGGLE (1u << 1) /* of a link */
#define XHCI_TRB_SHORT (1u << 2)  /* interrupt on short packet */
#define XHCI_TRB_EVENT_DATA (1u << 2)
#define XHCI_TRB_CHAIN (1u << 4)
#define XHCI_TRB_INTERRUPT (1u << 5) /* on completion */
#define XHCI_TRB_IMMEDIATE (1u << 6)
#define XHCI_TRB_DECONFIGURE (1u << 9)
#define XHCI_TRB_NO_ADDRESS (1u << 9) /* block set address request */
#define XHCI_TRB_TO_HOST (1u << 16)   /* of a data stage */
#define XHCI_TRB_LENGTH 0x1ffffu

/* Completion codes (6.4.5). */
enum xhci_code {
    XHCI_SUCCESS = 1,
    XHCI_BABBLE = 3,
    XHCI_TRANSACTION_ERROR = 4,
    XHCI_TRB_ERROR = 5,
    XHCI_STALL = 6,
    XHCI_NO_SLOTS = 9,
    XHCI_SLOT_NOT_ENABLED = 11,
    XHCI_ENDPOINT_NOT_ENABLED = 12,
    XHCI_SHORT_PACKET = 13,
    XHCI_PARAMETER_ERROR = 17,
    XHCI_CONTEXT_STATE_ERROR = 19,
    XHCI_EVENT_RING_FULL = 21,
    XHCI_RING_STOPPED = 24,
    XHCI_STOPPED = 26,
};

enum xhci_slot_state {
    XHCI_SLOT_ENABLED, /* "disabled or enabled" */
    XHCI_SLOT_DEFAULT,
    XHCI_SLOT_ADDRESSED,
    XHCI_SLOT_CONFIGURED,
};
enum xhci_endpoint_state {
    XHCI_EP_DISABLED,
    XHCI_EP_RUNNING,
    XHCI_EP_HALTED,
    XHCI_EP_STOPPED,
    XHCI_EP_ERROR,
};
enum xhci_endpoint_type {
    XHCI_TYPE_NONE,
    XHCI_TYPE_ISOCH_OUT,
    XHCI_TYPE_BULK_OUT,
    XHCI_TYPE_INTERRUPT_OUT,
    XHCI_TYPE_CONTROL,
    XHCI_TYPE_ISOCH_IN,
    XHCI_TYPE_BULK_IN,
    XHCI_TYPE_INTERRUPT_IN,
};
#define XHCI_TYPE_IN 4 /* bit of the types that move data to the host, and of control */
#define XHCI_DCI_CONTROL 1u

/* A transfer request block as it was read. */
struct xhci_trb {
    uint64_t gpa; /* of itself */
    uint8_t parameter[8];
    uint32_t status, control;
};

static inline unsigned xhci_trb_type(const struct xhci_trb *trb)
{
    return trb->control >> XHCI_TRB_TYPE_SHIFT & 0x3f;
}

/* Of one transfer; more is an error of the guest's. Linux makes 1 MiB of pages at most. */
#define XHCI_TRBS_MAX 1024u
/* Links that may follow each other. */
#define XHCI_LINKS_MAX 8u
/* Segments of guest memory: a block may lie across two regions. */
#define XHCI_IOV_MAX (XHCI_TRBS_MAX + 16u)

/* A transfer of one endpoint: a TD, or all stages of a control transfer. */
struct xhci_transfer {
    struct usb_packet packet;
    struct xhci *xhci;
    uint8_t slot; /* from 1 on */
    uint8_t dci;
    bool active;   /* with the device */
    bool to_guest; /* the borrowed memory */
    struct xhci_ring after;
    unsigned trb_count, iov_count;
    struct xhci_trb trb[XHCI_TRBS_MAX];
    struct iovec iov[XHCI_IOV_MAX];
};

static inline struct gmem *xhci_memory(const struct xhci *xhci)
{
    return xhci->pci.device.env->gmem;
}

static inline bool xhci_runs(const struct xhci *xhci)
{
    return (xhci->usbcmd & XHCI_CMD_RUN) && !xhci->resetting && !xhci->quiesced;
}

static inline void xhci_set_half(uint64_t *whole, bool high, uint32_t value)
{
    unsigned shift = high ? 32 : 0;
    *whole = (*whole & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
}

/* --- xhci.c --- */
/* Work for the I/O loop; any thread. */
void xhci_wake(struct xhci *xhci);
/* Asks for all transfers back. */
void xhci_take_back_all(struct xhci *xhci);
/* A transfer has left its device. */
void xhci_ended(struct xhci *xhci);
void xhci_ring_doorbell(struct xhci *xhci, unsigned slot, unsigned dci);
/* USBCMD.HCRST; it takes until nothing is in flight. */
void xhci_begin_reset(struct xhci *xhci);

/* --- xhci_registers.c --- */
extern const struct io_ops xhci_register_ops;

/* --- xhci_ports.c --- */
extern const struct usb_bus_ops xhci_bus_ops;
/* As after a reset of the controller. */
void xhci_ports_reset(struct xhci *xhci);
void xhci_port_write(struct xhci *xhci, unsigned port, uint32_t value);

/* --- xhci_rings.c --- */
/*
 * The next block of a ring, behind links. 1, or 0: the guest has not given it yet; -EFAULT or
 * -ELOOP when it never comes. The ring moves on with 1 only.
 */
int xhci_fetch(struct xhci *xhci, struct xhci_ring *ring, struct xhci_trb *trb);
/* Puts an event into an interrupter's ring; its control word without type and cycle. */
void xhci_post(struct xhci *xhci, unsigned interrupter, enum xhci_trb_type type, uint64_t parameter,
               uint32_t status, uint32_t control);
/* Is there room for some more events? */
bool xhci_has_room(struct xhci *xhci, unsigned interrupter);
/* ERDP was written: `busy` as the guest wrote EHB. */
void xhci_events_taken(struct xhci *xhci, unsigned interrupter, bool busy);
/* Sends what is due, after any change of enables; brings the line up to date. */
void xhci_interrupts(struct xhci *xhci);

/* --- xhci_commands.c --- */
/* Carries commands out, a bounded number; false: there may be more at once. */
bool xhci_serve_commands(struct xhci *xhci);
void xhci_command_ring_stop(struct xhci *xhci);

/* --- xhci_endpoints.c --- */
/* A context of the guest's, the device's own copy aside. */
#define XHCI_CONTEXT_SIZE 32u
struct xhci_endpoint *xhci_endpoint(struct xhci *xhci, unsigned slot, unsigned dci);
bool xhci_endpoint_context_good(unsigned dci, const uint8_t context[XHCI_CONTEXT_SIZE]);
/* Runs the endpoint as the context says, and shows that in the guest's output context. */
void xhci_endpoint_enable(struct xhci *xhci, unsigned slot, unsigned dci,
                          const uint8_t context[XHCI_CONTEXT_SIZE]);
/* Its transfer was taken back. */
void xhci_endpoint_disable(struct xhci *xhci, unsigned slot, unsigned dci);
/* Also into the guest's output context, with the dequeue pointer. */
void xhci_endpoint_set_state(struct xhci *xhci, unsigned slot, unsigned dci,
                             enum xhci_endpoint_state state);
/* Asks for the transfers of these endpoints back (a bit a DCI); true: none is with a device. */
bool xhci_take_back(struct xhci *xhci, unsigned slot, uint32_t dcis, bool tell);
void xhci_slot_disable(struct xhci *xhci, unsigned slot);
struct xhci_transfer *xhci_transfer_new(struct xhci *xhci, unsigned slot, unsigned dci);

/* --- xhci_transfers.c --- */
/* Starts transfers of an endpoint, a bounded number; false: there may be more at once. */
bool xhci_serve_endpoint(struct xhci *xhci, unsigned slot, unsigned dci);

extern const struct state_table xhci_state;

#endif
