/*
 * virtio-console (virtio 1.2, section 5.3): ports of characters over streams.
 *
 * Port 0 is the console (hvc0), unless it has a name. With more than one port, or a named one, the
 * device offers MULTIPORT and the guest finds those with a name under /dev/virtio-ports.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_VIRTIO_VIRTIO_CONSOLE_H
#define TENON_HW_VIRTIO_VIRTIO_CONSOLE_H

#include "hw/virtio/virtio.h"
#include "share/stream.h"

#define VIRTIO_CONSOLE_PORTS_MAX 16

struct virtio_console;

struct virtio_console_port {
    /* Set before realize. */
    struct stream *stream; /* borrowed; freed by its owner after the device. On the device's loop */
    const char *name;      /* borrowed until the device is freed; NULL: none */

    /* The device's own. */
    struct virtio_console *console;
    bool guest_open;    /* the guest has the port open */
    bool host_open;     /* somebody is at the other end */
    bool ready;         /* the guest answered DEVICE_ADD */
    uint8_t pending;    /* control messages to send, by PENDING_ bits */
    uint32_t tx_offset; /* bytes of the next transmit request that went out already */
};

struct virtio_console {
    struct virtio_device virtio;

    /* Set before realize. */
    uint32_t port_count; /* 0: one */
    struct virtio_console_port port[VIRTIO_CONSOLE_PORTS_MAX];

    /* The device's own. */
    uint16_t columns, rows;
    bool multiport;    /* offered */
    bool driver_ready; /* the guest said DEVICE_READY */
};

extern const struct device_class virtio_console_class;

/* Has a program of the guest opened it? Any thread. */
bool virtio_console_port_open(struct virtio_console *console, unsigned port);
/* The terminal behind port 0 has another size. On the device's loop. */
void virtio_console_resize(struct virtio_console *console, uint16_t columns, uint16_t rows);

#endif
