/*
 * virtio-console (virtio 1.2, section 5.3): ports of characters over streams.
 *
 * No request is ever held: output that the stream does not take now stays in the ring, with the
 * count of bytes that are out already; input is offered by the stream when the driver has buffers.
 * What the device has to tell the driver is kept as bits a port and sent when there is a control
 * buffer.
 *
 * Device lock; streams call back on the device's loop without it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "base/bytes.h"
#include "hw/virtio/virtio_console.h"

#define PCI_CLASS_SERIAL_OTHER 0x078000
#define CONFIG_SIZE 12
#define CONFIG_EMERGENCY 8

enum feature { F_SIZE = 0, F_MULTIPORT = 1, F_EMERG_WRITE = 2 };

enum queue { QUEUE_CONTROL_RX = 2, QUEUE_CONTROL_TX = 3 };

/* Control messages (section 5.3.6.2): port number, event, value, and for some a text or a size. */
#define MESSAGE_SIZE 8
#define NAME_MAX_LEN 64
enum event {
    DEVICE_READY,
    DEVICE_ADD,
    DEVICE_REMOVE,
    PORT_READY,
    CONSOLE_PORT,
    RESIZE,
    PORT_OPEN,
    PORT_NAME,
};

/* In the order of sending. */
#define PENDING_ADD 1u
#define PENDING_CONSOLE 2u
#define PENDING_NAME 4u
#define PENDING_RESIZE 8u
#define PENDING_OPEN 16u

static struct virtio_console *to_console(struct virtio_device *virtio)
{
    return container_of(virtio, struct virtio_console, virtio);
}

static unsigned rx_index(const struct virtio_console_port *port)
{
    unsigned number = (unsigned)(port - port->console->port);
    return number ? 2 * number + 2 : 0;
}

/* The port of a data queue; NULL for the control queues. */
static struct virtio_console_port *queue_port(struct virtio_console *console, unsigned index)
{
    if (index < 2)
        return &console->port[0];
    return index < 4 ? NULL : &console->port[(index - 2) / 2];
}

static struct lock *console_lock(struct virtio_console *console)
{
    return &console->virtio.pci.device.lock;
}

static bool multiport(const struct virtio_console *console)
{
    return virtio_has_feature(&console->virtio, F_MULTIPORT);
}

/* Bytes of one chain from `tx_offset` on; false: the stream is full. */
static bool write_chain(struct virtio_console_port *port, const struct virtq_req *req)
{
    uint64_t skip = port->tx_offset;
    for (unsigned i = 0; i < req->out_count; i++) {
        const struct iovec *segment = &req->out[i];
        if (skip >= segment->iov_len) {
            skip -= segment->iov_len;
            continue;
        }
        size_t len = segment->iov_len - skip;
        size_t took = stream_write(port->stream, (const uint8_t *)segment->iov_base + skip, len);
        port->tx_offset += (uint32_t)took;
        if (took < len)
            return false;
        skip = 0;
    }
    port->tx_offset = 0;
    return true;
}

static void transmit(struct virtio_console_port *port)
{
    struct virtq *queue = virtio_queue(&port->console->virtio, rx_index(port) + 1);
    struct virtq_req *req;
    while ((req = virtq_pop(queue))) {
        if (!write_chain(port, req)) {
            virtq_unpop(queue, req); /* port_writable() comes back for it */
            break;
        }
        virtq_push(queue, req, 0);
    }
    virtq_notify(queue);
}

static size_t port_input(void *opaque, const uint8_t *bytes, size_t len)
{
    struct virtio_console_port *port = opaque;
    struct virtio_console *console = port->console;
    size_t taken = 0;
    lock_take(console_lock(console));
    /* A port other than the console is read by nobody until a program opened it. */
    bool wanted = port == console->port || port->guest_open;
    struct virtq *queue = virtio_queue(&console->virtio, rx_index(port));
    struct virtq_req *req;
    while (wanted && taken < len && (req = virtq_pop(queue))) {
        size_t put = virtq_req_write(req, 0, bytes + taken, len - taken);
        virtq_push(queue, req, (uint32_t)put);
        taken += put;
    }
    virtq_notify(queue);
    lock_drop(console_lock(console));
    return taken;
}

static void port_writable(void *opaque)
{
    struct virtio_console_port *port = opaque;
    lock_take(console_lock(port->console));
    transmit(port);
    lock_drop(console_lock(port->console));
}

static void put_message(uint8_t *message, unsigned port, enum event event, unsigned value)
{
    put_le32(message, port);
    put_le16(message + 4, (uint16_t)event);
    put_le16(message + 6, (uint16_t)value);
}

/* The message of one pending bit; returns its length. */
static size_t build_message(const struct virtio_console *console, unsigned number, unsigned bit,
                            uint8_t *message)
{
    const struct virtio_console_port *port = &console->port[number];
    size_t len;
    switch (bit) {
    case PENDING_ADD:
        put_message(message, number, DEVICE_ADD, 1);
        return MESSAGE_SIZE;
    case PENDING_CONSOLE:
        put_message(message, number, CONSOLE_PORT, 1);
        return MESSAGE_SIZE;
    case PENDING_NAME:
        len = port->name ? strnlen(port->name, NAME_MAX_LEN) : 0;
        put_message(message, number, PORT_NAME, 1);
        if (len)
            memcpy(message + MESSAGE_SIZE, port->name, len);
        return MESSAGE_SIZE + len;
    case PENDING_RESIZE:
        put_message(message, number, RESIZE, 0);
        put_le16(message + MESSAGE_SIZE, console->columns);
        put_le16(message + MESSAGE_SIZE + 2, console->rows);
        return MESSAGE_SIZE + 4;
    default:
        put_message(message, number, PORT_OPEN, port->host_open);
        return MESSAGE_SIZE;
    }
}

static void send_pending(struct virtio_console *console)
{
    struct virtq *queue = virtio_queue(&console->virtio, QUEUE_CONTROL_RX);
    uint8_t message[MESSAGE_SIZE + NAME_MAX_LEN];
    if (!multiport(console))
        return;
    for (unsigned number = 0; number < console->port_count; number++) {
        struct virtio_console_port *port = &console->port[number];
        while (port->pending) {
            unsigned bit = port->pending & -(unsigned)port->pending;
            struct virtq_req *req = virtq_pop(queue);
            if (!req)
                goto out;
            size_t len = build_message(console, number, bit, message);
            virtq_push(queue, req, (uint32_t)virtq_req_write(req, 0, message, len));
            port->pending &= (uint8_t)~bit;
        }
    }
out:
    virtq_notify(queue);
}

static void handle_message(struct virtio_console *console, const uint8_t *message)
{
    unsigned number = get_le32(message), event = get_le16(message + 4),
             value = get_le16(message + 6);
    if (event == DEVICE_READY) {
        console->driver_ready = value == 1;
        for (unsigned i = 0; i < console->port_count && console->driver_ready; i++)
            console->port[i].pending |= PENDING_ADD;
        return;
    }
    if (number >= console->port_count)
        return;
    struct virtio_console_port *port = &console->port[number];
    if (event == PORT_READY && value == 1) {
        port->ready = true;
        port->pending |= number == 0 && !port->name ? PENDING_CONSOLE : 0;
        port->pending |= number == 0 && console->columns ? PENDING_RESIZE : 0;
        port->pending |= port->name ? PENDING_NAME : 0;
        port->pending |= port->host_open ? PENDING_OPEN : 0;
    } else if (event == PORT_OPEN) {
        port->guest_open = value != 0;
        if (port->guest_open)
            stream_rx_ready(port->stream);
    }
}

static void receive_messages(struct virtio_console *console, struct virtq *queue)
{
    struct virtq_req *req;
    while ((req = virtq_pop(queue))) {
        uint8_t message[MESSAGE_SIZE];
        if (virtq_req_read(req, 0, message, sizeof(message)) == sizeof(message))
            handle_message(console, message);
        virtq_push(queue, req, 0);
    }
    virtq_notify(queue);
    send_pending(console);
}

static void port_connected(void *opaque, bool on)
{
    struct virtio_console_port *port = opaque;
    lock_take(console_lock(port->console));
    port->host_open = on;
    if (port->ready) {
        port->pending |= PENDING_OPEN;
        send_pending(port->console);
    }
    lock_drop(console_lock(port->console));
}

bool virtio_console_port_open(struct virtio_console *console, unsigned port)
{
    lock_take(console_lock(console));
    bool open = console->port[port].guest_open;
    lock_drop(console_lock(console));
    return open;
}

void virtio_console_resize(struct virtio_console *console, uint16_t columns, uint16_t rows)
{
    lock_take(console_lock(console));
    if (console->columns != columns || console->rows != rows) {
        console->columns = columns;
        console->rows = rows;
        virtio_config_changed(&console->virtio);
        if (console->port[0].ready) {
            console->port[0].pending |= PENDING_RESIZE;
            send_pending(console);
        }
    }
    lock_drop(console_lock(console));
}

static void console_queue_kick(struct virtio_device *virtio, struct virtq *queue)
{
    struct virtio_console *console = to_console(virtio);
    unsigned index = virtq_index(queue);
    struct virtio_console_port *port = queue_port(console, index);
    if (index == QUEUE_CONTROL_RX)
        send_pending(console);
    else if (index == QUEUE_CONTROL_TX)
        receive_messages(console, queue);
    else if (index % 2)
        transmit(port);
    else
        stream_rx_ready(port->stream);
}

static uint64_t console_features(struct virtio_device *virtio)
{
    const struct virtio_console *console = to_console(virtio);
    return 1ull << F_SIZE | 1ull << F_EMERG_WRITE | (console->multiport ? 1ull << F_MULTIPORT : 0);
}

static void console_config_read(struct virtio_device *virtio, unsigned offset, void *bytes,
                                unsigned len)
{
    const struct virtio_console *console = to_console(virtio);
    uint8_t config[CONFIG_SIZE] = {0};
    put_le16(config, console->columns);
    put_le16(config + 2, console->rows);
    put_le32(config + 4, console->port_count);
    memset(bytes, 0, len);
    if (offset < sizeof(config))
        memcpy(bytes, config + offset, MIN(len, (unsigned)sizeof(config) - offset));
}

/* A character without a queue: the last words of a guest that cannot do more. */
static void console_config_write(struct virtio_device *virtio, unsigned offset, const void *bytes,
                                 unsigned len)
{
    struct virtio_console *console = to_console(virtio);
    (void)len;
    if (offset == CONFIG_EMERGENCY)
        stream_write(console->port[0].stream, bytes, 1);
}

static void console_virtio_reset(struct virtio_device *virtio)
{
    struct virtio_console *console = to_console(virtio);
    console->driver_ready = false;
    for (unsigned i = 0; i < console->port_count; i++) {
        struct virtio_console_port *port = &console->port[i];
        port->guest_open = port->ready = false;
        port->pending = 0;
        port->tx_offset = 0;
    }
}

static void console_queue_reset(struct virtio_device *virtio, struct virtq *queue)
{
    struct virtio_console_port *port = queue_port(to_console(virtio), virtq_index(queue));
    if (port && virtq_index(queue) % 2)
        port->tx_offset = 0;
}

static const struct virtio_ops console_ops = {
    .id = VIRTIO_ID_CONSOLE,
    .pci_class = PCI_CLASS_SERIAL_OTHER,
    .features = console_features,
    .config_read = console_config_read,
    .config_write = console_config_write,
    .reset = console_virtio_reset,
    .queue_reset = console_queue_reset,
    .queue_kick = console_queue_kick,
};

static const struct stream_events port_events = {
    .input = port_input, .writable = port_writable, .connected = port_connected};

static struct err *console_realize(struct device *device)
{
    struct virtio_console *console = (struct virtio_console *)device;
    struct virtio_device *virtio = &console->virtio;
    if (!console->port_count)
        console->port_count = 1;
    if (console->port_count > VIRTIO_CONSOLE_PORTS_MAX)
        return err_of(ERR_USAGE, "%u ports, at most %u are possible", console->port_count,
                      VIRTIO_CONSOLE_PORTS_MAX);
    console->multiport = console->port_count > 1 || console->port[0].name;
    virtio->ops = &console_ops;
    virtio->queue_count = console->multiport ? 2 * (console->port_count + 1) : 2;
    if (!virtio->queue_size)
        virtio->queue_size = 64;
    for (unsigned i = 0; i < console->port_count; i++) {
        console->port[i].console = console;
        if (!console->port[i].stream)
            return err_new("port %u has no stream", i);
    }
    TRY(virtio_realize(virtio));
    for (unsigned i = 0; i < console->port_count; i++)
        stream_attach(console->port[i].stream, &port_events, &console->port[i]);
    return NULL;
}

static void console_reset(struct device *device)
{
    virtio_reset(&((struct virtio_console *)device)->virtio);
}

static void console_quiesce(struct device *device)
{
    virtio_quiesce(&((struct virtio_console *)device)->virtio);
}

static void console_resume(struct device *device)
{
    struct virtio_console *console = (struct virtio_console *)device;
    virtio_resume(&console->virtio);
    for (unsigned i = 0; i < console->port_count; i++)
        stream_rx_ready(console->port[i].stream);
}

static void console_fini(struct device *device)
{
    struct virtio_console *console = (struct virtio_console *)device;
    for (unsigned i = 0; i < console->port_count && device->realized; i++)
        stream_attach(console->port[i].stream, NULL, NULL);
    virtio_fini(&console->virtio);
}

static struct err *check_port(const void *staged)
{
    const struct virtio_console_port *port = staged;
    if (port->pending >= 2 * PENDING_OPEN)
        return err_new("unknown messages 0x%x are pending", port->pending);
    return NULL;
}

static const struct state_field port_fields[] = {
    STATE_BOOL(1, virtio_console_port, guest_open),
    STATE_BOOL(2, virtio_console_port, ready),
    STATE_U8(3, virtio_console_port, pending),
    STATE_U32(4, virtio_console_port, tx_offset),
};

static const struct state_table port_state = {
    DEVICE_STATE_TABLE("console-port", virtio_console_port, port_fields),
    .check = check_port,
};

static const struct state_field fields[] = {
    STATE_STRUCT(1, virtio_console, virtio, &virtio_device_state),
    STATE_STRUCT(2, virtio_console, port, &port_state),
    STATE_U16(3, virtio_console, columns),
    STATE_U16(4, virtio_console, rows),
    STATE_BOOL(5, virtio_console, driver_ready),
};

static const struct state_table state = {
    DEVICE_STATE_TABLE("virtio-console", virtio_console, fields),
};

const struct device_class virtio_console_class = {
    .name = "virtio-console",
    .description = "virtio console and character ports",
    .size = sizeof(struct virtio_console),
    .state = &state,
    .realize = console_realize,
    .reset = console_reset,
    .quiesce = console_quiesce,
    .resume = console_resume,
    .fini = console_fini,
};
DEVICE_CLASS(virtio_console_class);
