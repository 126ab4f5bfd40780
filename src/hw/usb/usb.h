/*
 * The USB device model (Universal Serial Bus 3.2, chapters 8 and 9): devices answer packets, a bus
 * joins their ports to a controller. A device knows no controller, a controller no kind of device.
 *
 * A packet is one transfer of an endpoint over somebody's memory. The device ends it with
 * usb_done(), at once or later and from any thread, and may be asked to give it back before. All
 * calls in both directions are made under the lock of the bus, which is its controller's; packets
 * are submitted on the bus's loop only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_USB_USB_H
#define TENON_HW_USB_USB_H

#include <sys/uio.h>

#include "hw/core/device.h"

#define USB_IN 0x80 /* of an endpoint's address */
#define USB_ENDPOINTS 16
#define USB_SETUP_SIZE 8
#define USB_ROUTE_TIERS 5 /* hubs below a root port */

/* As the default speed IDs of xHCI 1.2, table 7-13, have it. */
enum usb_speed { USB_SPEED_FULL = 1, USB_SPEED_LOW, USB_SPEED_HIGH, USB_SPEED_SUPER };

enum usb_result {
    USB_OK, /* `moved` bytes, perhaps fewer than were asked for */
    USB_STALL,
    USB_BABBLE, /* the device had more to say than there was room for */
    USB_IO_ERROR,
    USB_NO_DEVICE, /* it was unplugged */
    USB_CANCELLED,
};

struct usb_device;

struct usb_packet {
    /* The controller's, set before usb_submit(). */
    uint8_t endpoint; /* number and USB_IN; 0: a control transfer, directed by its setup */
    bool isochronous;
    uint32_t frame;                /* isochronous: microframe in which it is due */
    uint8_t setup[USB_SETUP_SIZE]; /* control */
    struct iovec *iov;             /* borrowed until done */
    unsigned iov_count;
    uint64_t length; /* of iov */
    void (*done)(struct usb_packet *packet);

    /* The device's, until done. */
    struct usb_device *device;
    struct list link;
    uint64_t moved;
    enum usb_result result;
};

/* What a kind of device does. */
struct usb_ops {
    /* The port was reset: address 0, no configuration, nothing halted. Packets were given back. */
    void (*reset)(struct usb_device *device);
    void (*control)(struct usb_device *device, struct usb_packet *packet);
    /* Bulk and interrupt endpoints. */
    void (*data)(struct usb_device *device, struct usb_packet *packet);
    void (*isochronous)(struct usb_device *device, struct usb_packet *packet); /* optional */
    /*
     * A packet that the device has kept is not wanted any more (and this may be said again):
     * usb_done() follows, now or later, with USB_CANCELLED or however it ended. Optional: without
     * it, what is kept with usb_keep() is given back at once.
     */
    void (*cancel)(struct usb_device *device, struct usb_packet *packet);
    /* The guest cleared the halt of an endpoint. Optional. */
    void (*halt_cleared)(struct usb_device *device, uint8_t endpoint);
};

/* What an emulated device says of itself (chapter 9.6), for usb_standard.c. */
struct usb_description {
    const uint8_t *device;        /* 18 bytes */
    const uint8_t *configuration; /* with all that belongs to it */
    const uint8_t *bos;           /* NULL: none */
    uint8_t configuration_value;
};

enum usb_string { USB_STRING_MANUFACTURER = 1, USB_STRING_PRODUCT, USB_STRING_SERIAL, USB_STRINGS };

/* First member of every USB device; itself starts with struct device. */
struct usb_device {
    struct device device;

    /* Set before realize. */
    struct usb_bus *bus;

    /* Set by the class before usb_device_plug(). */
    const struct usb_ops *ops;
    enum usb_speed speed;
    const struct usb_description *description;
    const char *string[USB_STRINGS]; /* borrowed */
    struct usb_port *ports;          /* a hub's, downstream */
    unsigned port_count;

    /* Own. */
    struct usb_port *port; /* NULL: not plugged in */
    uint8_t address;       /* 0: none yet */
    uint8_t configuration; /* 0: none */
    uint32_t halted;       /* a bit an endpoint: 16 towards the device, 16 from it */
    bool wakes;            /* the guest lets it wake a suspended port */
    struct list packets;   /* kept, in order */
};

/* A place for one device. */
struct usb_port {
    struct usb_bus *bus;
    unsigned number; /* from 1 on */
    bool super;      /* for SuperSpeed devices, or for all others */
    struct usb_device *device;
};

/* A controller's half. */
struct usb_bus_ops {
    /* A device has come to a root port, or is about to go (its packets have been given back). */
    void (*plugged)(struct usb_bus *bus, struct usb_port *port);
    void (*unplugged)(struct usb_bus *bus, struct usb_port *port);
    /* A device at that port has something to say and may wake it. */
    void (*woken)(struct usb_bus *bus, struct usb_port *port);
};

/*
 * Root ports: the first half for USB 2 devices, the second for SuperSpeed ones, and one of each is
 * a connector, as on a computer's case.
 */
struct usb_bus {
    const struct usb_bus_ops *ops;
    struct lock *lock;
    struct loop *loop; /* packets are submitted here */
    struct usb_port *ports;
    unsigned port_count;
};

/* Of an endpoint's address, in `halted`. */
static inline uint32_t usb_endpoint_bit(unsigned endpoint)
{
    return 1u << ((endpoint & USB_IN ? USB_ENDPOINTS : 0) + (endpoint & (USB_ENDPOINTS - 1)));
}

/* --- controllers --- */
void usb_bus_init(struct usb_bus *bus, struct usb_port *ports, unsigned port_count);
/*
 * The device at root port `port` (from 1 on) and, below it, at a hub's port for each four bits of
 * `route` (8.9). NULL: there is none.
 */
struct usb_device *usb_bus_find(const struct usb_bus *bus, unsigned port, uint32_t route);
/* `done` may be called before this returns. */
void usb_submit(struct usb_device *device, struct usb_packet *packet);
/* The packet was submitted and is not done. */
void usb_cancel(struct usb_packet *packet);
/* The signal on the port. */
void usb_reset(struct usb_device *device);

/* --- devices --- */
/* Takes the first free connector; an error when there is none. From realize, without the lock. */
struct err *usb_device_plug(struct usb_device *device);
/* What it holds is given back as USB_NO_DEVICE. Not plugged in is fine. Without the lock. */
void usb_device_unplug(struct usb_device *device);
/* Keeps a packet for later, behind those that are kept already. */
void usb_keep(struct usb_packet *packet);
/* The oldest that is kept for this endpoint, or NULL. */
struct usb_packet *usb_kept(struct usb_device *device, uint8_t endpoint);
void usb_done(struct usb_packet *packet, enum usb_result result);
/* Copies behind what was moved before; how many bytes had room, or were there. */
uint64_t usb_packet_put(struct usb_packet *packet, const void *bytes, uint64_t length);
uint64_t usb_packet_get(struct usb_packet *packet, void *bytes, uint64_t length);
void usb_halt(struct usb_device *device, uint8_t endpoint);
/* The device has news; a suspended port wakes, if the guest wants that. */
void usb_wake(struct usb_device *device);
extern const struct state_table usb_device_state;
#define USB_DEVICE_STATE(struct_, member_) STATE_STRUCT(1, struct_, member_, &usb_device_state)

/* --- usb_standard.c --- */
enum usb_request {
    USB_GET_STATUS = 0,
    USB_CLEAR_FEATURE = 1,
    USB_SET_FEATURE = 3,
    USB_SET_ADDRESS = 5,
    USB_GET_DESCRIPTOR = 6,
    USB_GET_CONFIGURATION = 8,
    USB_SET_CONFIGURATION = 9,
    USB_GET_INTERFACE = 10,
    USB_SET_INTERFACE = 11,
    USB_SET_SEL = 48,
    USB_SET_ISOCH_DELAY = 49,
};
enum usb_descriptor_type {
    USB_DESCRIPTOR_DEVICE = 1,
    USB_DESCRIPTOR_CONFIGURATION = 2,
    USB_DESCRIPTOR_STRING = 3,
    USB_DESCRIPTOR_INTERFACE = 4,
    USB_DESCRIPTOR_ENDPOINT = 5,
    USB_DESCRIPTOR_BOS = 15,
    USB_DESCRIPTOR_CAPABILITY = 16,
    USB_DESCRIPTOR_HID = 33,
    USB_DESCRIPTOR_HID_REPORT = 34,
    USB_DESCRIPTOR_COMPANION = 48,
};
/* A setup's type and request, as one number to switch on; value, index and length. */
static inline unsigned usb_setup_what(const struct usb_packet *packet)
{
    return (unsigned)packet->setup[0] << 8 | packet->setup[1];
}
unsigned usb_setup_value(const struct usb_packet *packet);
unsigned usb_setup_index(const struct usb_packet *packet);
unsigned usb_setup_length(const struct usb_packet *packet);
/* Ends a control transfer with up to `length` bytes, as far as the setup wants them. */
void usb_answer(struct usb_packet *packet, const void *bytes, uint64_t length);
/* Ends a control transfer that every device understands, or stalls it. */
void usb_standard_request(struct usb_device *device, struct usb_packet *packet);

/* Two bytes of a descriptor. */
#define USB_LE16(value) (uint8_t)(value), (uint8_t)((value) >> 8)
/* A device descriptor; the size of control packets as it is said there. */
#define USB_DEVICE_DESCRIPTOR(version, packet_size)                                                \
    18, USB_DESCRIPTOR_DEVICE, USB_LE16(version), 0, 0, 0, packet_size, USB_LE16(0x1d6b),          \
        USB_LE16(0x0104), USB_LE16(0x0100), USB_STRING_MANUFACTURER, USB_STRING_PRODUCT,           \
        USB_STRING_SERIAL, 1

#endif
