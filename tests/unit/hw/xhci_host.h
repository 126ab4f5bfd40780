/*
 * A host of the xHCI controller for tests: rings and contexts in guest memory, commands and
 * transfers awaited through the event ring as a driver does it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TEST_XHCI_HOST_H
#define TENON_TEST_XHCI_HOST_H

#include "hw/usb/xhci_internal.h"
#include "virtio_driver.h"

#define RING_BLOCKS 64u /* the last one is a link */
#define EVENT_BLOCKS 32u
#define MESSAGE 8 /* of interrupter 0; the others follow */

struct ring_of_blocks {
    uint64_t base;
    unsigned index;
    bool cycle;
};

struct event {
    uint64_t parameter;
    uint32_t status, control;
};

struct bed {
    struct machine machine;
    struct loop *io_loop;
    struct loop_thread *io_thread;
    struct xhci *xhci;
    uint64_t config, bar;
    uint64_t dcbaa, input, data;
    uint64_t output[XHCI_SLOTS + 1];
    struct ring_of_blocks commands, endpoint[XHCI_ENDPOINTS + 1]; /* of one slot */
    uint64_t table, events[2];                                    /* event ring: two segments */
    unsigned segments, segment, index;
    bool cycle;
};

static inline uint8_t *host(struct bed *bed, uint64_t gpa)
{
    return machine_host(&bed->machine, gpa);
}

static inline uint32_t reg(struct bed *bed, unsigned offset)
{
    return (uint32_t)mmio_read(&bed->machine, bed->bar + offset, 4);
}

static inline void set_reg(struct bed *bed, unsigned offset, uint32_t value)
{
    mmio_write(&bed->machine, bed->bar + offset, 4, value);
}

static inline uint32_t portsc(struct bed *bed, unsigned port)
{
    return reg(bed, XHCI_PORT_REGISTERS + 16 * (port - 1));
}

static inline void set_portsc(struct bed *bed, unsigned port, uint32_t value)
{
    set_reg(bed, XHCI_PORT_REGISTERS + 16 * (port - 1), value);
}

static inline void doorbell(struct bed *bed, unsigned slot, unsigned target)
{
    set_reg(bed, XHCI_DOORBELLS + 4 * slot, target);
}

static inline void turn(struct bed *bed)
{
    if (bed->io_thread)
        usleep(100);
    else
        loop_once(bed->machine.env.loop, 1);
}

/* --- rings --- */

static inline void ring_new(struct bed *bed, struct ring_of_blocks *ring)
{
    ring->base = machine_alloc(&bed->machine, 16 * RING_BLOCKS, 64);
    ring->index = 0;
    ring->cycle = true;
}

static inline void put_block(struct bed *bed, uint64_t gpa, uint64_t parameter, uint32_t status,
                             uint32_t control)
{
    uint8_t *at = host(bed, gpa);
    put_le64(at, parameter);
    put_le32(at + 8, status);
    put_le32(at + 12, control);
}

/* Its address. `control` without cycle. */
static inline uint64_t push(struct bed *bed, struct ring_of_blocks *ring, unsigned type,
                            uint64_t parameter, uint32_t status, uint32_t control)
{
    uint64_t at = ring->base + 16 * ring->index++;
    put_block(bed, at, parameter, status, control | type << 10 | ring->cycle);
    if (ring->index == RING_BLOCKS - 1) {
        put_block(bed, at + 16, ring->base, 0,
                  XHCI_LINK << 10 | XHCI_TRB_TOGGLE | ring->cycle | (control & XHCI_TRB_CHAIN));
        ring->index = 0;
        ring->cycle = !ring->cycle;
    }
    return at;
}

static inline bool try_event(struct bed *bed, struct event *event)
{
    const uint8_t *at = host(bed, bed->events[bed->segment] + 16 * bed->index);
    if ((get_le32(at + 12) & 1) != bed->cycle)
        return false;
    *event = (struct event){get_le64(at), get_le32(at + 8), get_le32(at + 12)};
    if (++bed->index == EVENT_BLOCKS) {
        bed->index = 0;
        bed->segment = (bed->segment + 1) % bed->segments;
        bed->cycle ^= !bed->segment;
    }
    set_reg(bed, XHCI_INTERRUPTER0 + XHCI_ERDP,
            (uint32_t)(bed->events[bed->segment] + 16 * bed->index) | XHCI_ERDP_BUSY);
    return true;
}

static inline struct event next_event(struct bed *bed)
{
    struct event event = {0};
    uint64_t limit = clock_now_ns() + 20 * NSEC_PER_SEC;
    while (!try_event(bed, &event)) {
        if (clock_now_ns() > limit)
            fail_msg("no event came");
        turn(bed);
    }
    return event;
}

static inline unsigned type_of(const struct event *event)
{
    return event->control >> 10 & 0x3f;
}

static inline unsigned code_of_event(const struct event *event)
{
    return event->status >> 24;
}

static inline void expect_quiet(struct bed *bed)
{
    struct event event;
    for (unsigned i = 0; i < 3; i++)
        turn(bed);
    assert_false(try_event(bed, &event));
}

static inline void expect_transfer(struct bed *bed, uint64_t block, enum xhci_code code,
                                   uint32_t length)
{
    struct event event = next_event(bed);
    assert_int_equal(type_of(&event), XHCI_EVENT_TRANSFER);
    assert_int_equal(code_of_event(&event), code);
    assert_int_equal(event.status & 0xffffff, length);
    assert_int_equal(event.parameter, block);
}

/* --- commands --- */

static inline enum xhci_code command(struct bed *bed, enum xhci_trb_type type, uint64_t parameter,
                                     uint32_t control, unsigned *slot)
{
    uint64_t at = push(bed, &bed->commands, type, parameter, 0, control);
    doorbell(bed, 0, 0);
    struct event event = next_event(bed);
    assert_int_equal(type_of(&event), XHCI_EVENT_COMMAND);
    assert_int_equal(event.parameter, at);
    if (slot)
        *slot = event.control >> 24;
    return (enum xhci_code)code_of_event(&event);
}

#define SLOT(slot) ((uint32_t)(slot) << 24)
#define ENDPOINT(slot, dci) (SLOT(slot) | (uint32_t)(dci) << 16)

static inline uint8_t *context(struct bed *bed, uint64_t gpa, unsigned index)
{
    return host(bed, gpa + (uint64_t)XHCI_CONTEXT_SIZE * index);
}

static inline unsigned endpoint_state(struct bed *bed, unsigned slot, unsigned dci)
{
    return get_le32(context(bed, bed->output[slot], dci)) & 7;
}

static inline unsigned slot_state(struct bed *bed, unsigned slot)
{
    return get_le32(context(bed, bed->output[slot], 0) + 12) >> 27;
}

static inline void input_begin(struct bed *bed, uint32_t drop, uint32_t add)
{
    memset(host(bed, bed->input), 0, XHCI_CONTEXT_SIZE * (2 + XHCI_ENDPOINTS));
    put_le32(context(bed, bed->input, 0), drop);
    put_le32(context(bed, bed->input, 0) + 4, add);
}

static inline void input_slot(struct bed *bed, unsigned port, uint32_t route, unsigned entries)
{
    put_le32(context(bed, bed->input, 1), route | entries << 27);
    put_le32(context(bed, bed->input, 1) + 4, port << 16);
}

static inline void input_endpoint(struct bed *bed, unsigned dci, enum xhci_endpoint_type type)
{
    uint8_t *at = context(bed, bed->input, 1 + dci);
    ring_new(bed, &bed->endpoint[dci]);
    put_le32(at + 4, 3u << 1 | (uint32_t)type << 3 | 512u << 16);
    put_le64(at + 8, bed->endpoint[dci].base | 1);
}

static inline unsigned enable_slot(struct bed *bed)
{
    unsigned slot;
    assert_int_equal(command(bed, XHCI_ENABLE_SLOT, 0, 0, &slot), XHCI_SUCCESS);
    bed->output[slot] = machine_alloc(&bed->machine, XHCI_CONTEXT_SIZE * 32, 64);
    put_le64(host(bed, bed->dcbaa + 8 * slot), bed->output[slot]);
    return slot;
}

static inline enum xhci_code address_device(struct bed *bed, unsigned slot, unsigned port,
                                            uint32_t flags)
{
    input_begin(bed, 0, 3);
    input_slot(bed, port, 0, 1);
    input_endpoint(bed, 1, XHCI_TYPE_CONTROL);
    return command(bed, XHCI_ADDRESS_DEVICE, bed->input, SLOT(slot) | flags, NULL);
}

/* Resets the port, and takes the event of that. */
static inline void reset_port(struct bed *bed, unsigned port)
{
    set_portsc(bed, port, XHCI_PORT_POWER | XHCI_PORT_CHANGES);
    set_portsc(bed, port, XHCI_PORT_POWER | XHCI_PORT_RESET);
    struct event event = next_event(bed);
    assert_int_equal(type_of(&event), XHCI_EVENT_PORT);
    assert_int_equal(event.parameter >> 24, port);
    assert_int_equal(portsc(bed, port) & (XHCI_PORT_ENABLED | XHCI_PORT_RESET_CHANGE),
                     XHCI_PORT_ENABLED | XHCI_PORT_RESET_CHANGE);
    set_portsc(bed, port, XHCI_PORT_POWER | XHCI_PORT_RESET_CHANGE);
}

/* A control transfer of up to 4 KiB at bed->data; bytes moved, or -code. */
static inline int control(struct bed *bed, unsigned slot, uint8_t type, uint8_t request,
                          uint16_t value, uint16_t index, uint16_t length)
{
    struct ring_of_blocks *ring = &bed->endpoint[1];
    uint64_t setup = type | (uint64_t)request << 8 | (uint64_t)value << 16 | (uint64_t)index << 32 |
                     (uint64_t)length << 48;
    bool in = type & USB_IN;
    uint32_t left = 0;
    push(bed, ring, XHCI_SETUP_STAGE, setup, 8, XHCI_TRB_IMMEDIATE);
    if (length)
        push(bed, ring, XHCI_DATA_STAGE, bed->data, length,
             XHCI_TRB_SHORT | (in ? XHCI_TRB_TO_HOST : 0));
    uint64_t last =
        push(bed, ring, XHCI_STATUS_STAGE, 0, 0, XHCI_TRB_INTERRUPT | (in ? 0 : XHCI_TRB_TO_HOST));
    doorbell(bed, slot, 1);
    struct event event = next_event(bed);
    assert_int_equal(type_of(&event), XHCI_EVENT_TRANSFER);
    if (code_of_event(&event) == XHCI_SHORT_PACKET) {
        left = event.status & 0xffffff;
        event = next_event(bed);
    }
    if (code_of_event(&event) != XHCI_SUCCESS)
        return -(int)code_of_event(&event);
    assert_int_equal(event.parameter, last);
    return (int)(length - left);
}

/* The control endpoint halted: go on behind what is in its ring. */
static inline void recover(struct bed *bed, unsigned slot, unsigned dci)
{
    struct ring_of_blocks *ring = &bed->endpoint[dci];
    assert_int_equal(endpoint_state(bed, slot, dci), XHCI_EP_HALTED);
    assert_int_equal(command(bed, XHCI_RESET_ENDPOINT, 0, ENDPOINT(slot, dci), NULL), XHCI_SUCCESS);
    assert_int_equal(endpoint_state(bed, slot, dci), XHCI_EP_STOPPED);
    assert_int_equal(command(bed, XHCI_SET_DEQUEUE, (ring->base + 16 * ring->index) | ring->cycle,
                             ENDPOINT(slot, dci), NULL),
                     XHCI_SUCCESS);
}

/* --- the bed --- */

static inline void start_controller(struct bed *bed)
{
    const unsigned first = XHCI_INTERRUPTER0;
    bed->segment = bed->index = 0;
    bed->cycle = true;
    bed->commands.index = 0;
    bed->commands.cycle = true;
    for (unsigned i = 0; i < bed->segments; i++) {
        memset(host(bed, bed->events[i]), 0, 16 * EVENT_BLOCKS);
        put_le64(host(bed, bed->table + 16 * i), bed->events[i]);
        put_le64(host(bed, bed->table + 16 * i + 8), EVENT_BLOCKS);
    }
    memset(host(bed, bed->commands.base), 0, 16 * RING_BLOCKS);
    set_reg(bed, XHCI_OPERATIONAL + XHCI_CONFIG, XHCI_SLOTS);
    set_reg(bed, XHCI_OPERATIONAL + XHCI_DCBAAP, (uint32_t)bed->dcbaa);
    set_reg(bed, XHCI_OPERATIONAL + XHCI_CRCR, (uint32_t)bed->commands.base | 1);
    set_reg(bed, first + XHCI_ERSTSZ, bed->segments);
    set_reg(bed, first + XHCI_ERDP, (uint32_t)bed->events[0]);
    set_reg(bed, first + XHCI_ERSTBA, (uint32_t)bed->table);
    set_reg(bed, first + XHCI_ERSTBA_HIGH, 0);
    set_reg(bed, first + XHCI_IMAN, XHCI_IMAN_ENABLE);
    set_reg(bed, XHCI_OPERATIONAL + XHCI_USBCMD, XHCI_CMD_RUN | XHCI_CMD_INTERRUPTS);
}

static inline void bed_open(struct bed *bed, bool threads, unsigned segments, bool message)
{
    *bed = (struct bed){.segments = segments};
    machine_init(&bed->machine);
    bed->xhci = (struct xhci *)device_new(&xhci_class, &bed->machine.env, "usb");
    if (threads) {
        check_ok(loop_new("io", &bed->io_loop));
        bed->xhci->io_loop = bed->io_loop;
    }
    machine_add(&bed->machine, &bed->xhci->pci.device);
    struct driver driver = {.machine = &bed->machine,
                            .config = ECAM + ((uint64_t)bed->xhci->pci.devfn << 12)};
    bed->config = driver.config;
    mmio_write(&bed->machine, bed->config + 4, 2, 6);
    bed->bar = driver_bar(&driver, 0);
    uint64_t messages = driver_bar(&driver, 2);
    for (unsigned i = 0; i < XHCI_INTERRUPTERS; i++) {
        mmio_write(&bed->machine, messages + 16 * i, 4, 0xfee00000);
        mmio_write(&bed->machine, messages + 16 * i + 8, 4, MESSAGE + i);
        mmio_write(&bed->machine, messages + 16 * i + 12, 4, 0);
    }
    if (message)
        mmio_write(&bed->machine, bed->config + bed->xhci->pci.msix_capability + 2, 2, 0x8000);
    bed->dcbaa = machine_alloc(&bed->machine, 8 * (XHCI_SLOTS + 1), 64);
    bed->input = machine_alloc(&bed->machine, XHCI_CONTEXT_SIZE * 33, 64);
    bed->table = machine_alloc(&bed->machine, 16 * 2, 64);
    for (unsigned i = 0; i < 2; i++)
        bed->events[i] = machine_alloc(&bed->machine, 16 * EVENT_BLOCKS, 64);
    bed->data = machine_alloc(&bed->machine, 0x10000, 4096);
    ring_new(bed, &bed->commands);
}

/* When all devices are plugged in. */
static inline void bed_start(struct bed *bed)
{
    if (bed->io_loop)
        check_ok(loop_thread_start(bed->io_loop, &bed->io_thread));
    start_controller(bed);
}

static inline void bed_close(struct bed *bed, struct device *const *devices, unsigned count)
{
    device_quiesce(&bed->xhci->pci.device);
    for (unsigned i = 0; i < count; i++)
        device_quiesce(devices[i]);
    if (bed->io_thread)
        loop_thread_join(bed->io_thread);
    for (unsigned i = 0; i < count; i++)
        device_free(devices[i]);
    device_free(&bed->xhci->pci.device);
    if (bed->io_loop)
        loop_free(bed->io_loop);
    machine_fini(&bed->machine);
}

#endif
