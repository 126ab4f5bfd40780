/*
 * What USB keyboard and tablet have alike: class requests, the queue of reports, the idle rate. See
 * usb_hid.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/usb/usb_hid.h"

#include "base/clock.h"

#define INTERRUPT_IN (USB_IN | 1)
#define IDLE_UNIT_NS (4 * NSEC_PER_MSEC)

/* Class requests (7.2), with bmRequestType. */
enum hid_request {
    HID_GET_REPORT_DESCRIPTOR = 0x8106, /* a standard request, to the interface */
    HID_GET_REPORT = 0xa101,
    HID_GET_IDLE = 0xa102,
    HID_GET_PROTOCOL = 0xa103,
    HID_SET_REPORT = 0x2109,
    HID_SET_IDLE = 0x210a,
    HID_SET_PROTOCOL = 0x210b,
};
#define REPORT_INPUT 1
#define REPORT_OUTPUT 2
#define HID_DESCRIPTOR_OFFSET 18 /* behind the configuration's and the interface's */

static struct usb_hid *to_hid(struct usb_device *device)
{
    return container_of(device, struct usb_hid, usb);
}

/* --- reports --- */

static void arm_idle(struct usb_hid *hid)
{
    if (hid->idle)
        loop_timer_arm(&hid->timer, clock_now_ns() + hid->idle * IDLE_UNIT_NS);
}

static void answer_packet(struct usb_hid *hid, struct usb_packet *packet)
{
    bool fits = packet->length >= hid->kind->report_size;
    usb_packet_put(packet, hid->current.bytes, hid->kind->report_size);
    arm_idle(hid);
    usb_done(packet, fits ? USB_OK : USB_BABBLE);
}

/* Gives waiting reports to waiting packets. */
static void serve(struct usb_hid *hid)
{
    struct usb_packet *packet;
    while (hid->count && (packet = usb_kept(&hid->usb, INTERRUPT_IN))) {
        hid->current = hid->queue[hid->first];
        hid->first = (uint8_t)((hid->first + 1) % USB_HID_REPORTS);
        hid->count--;
        answer_packet(hid, packet);
    }
}

static void idle_passed(void *opaque)
{
    struct usb_hid *hid = opaque;
    struct lock *lock = hid->usb.bus->lock;
    lock_take(lock);
    struct usb_packet *packet = usb_kept(&hid->usb, INTERRUPT_IN);
    if (packet && hid->idle)
        answer_packet(hid, packet);
    lock_drop(lock);
}

struct usb_report *usb_hid_newest(struct usb_hid *hid, bool *waits)
{
    *waits = hid->count;
    return *waits ? &hid->queue[(hid->first + hid->count - 1) % USB_HID_REPORTS] : &hid->current;
}

void usb_hid_report(struct usb_hid *hid, const struct usb_report *report)
{
    if (!hid->usb.configuration)
        return;
    if (hid->count < USB_HID_REPORTS)
        hid->count++;
    hid->queue[(hid->first + hid->count - 1) % USB_HID_REPORTS] = *report;
    usb_wake(&hid->usb);
    serve(hid);
}

/* --- requests --- */

static void get_descriptor(struct usb_hid *hid, struct usb_packet *packet)
{
    const uint8_t *own = hid->usb.description->configuration + HID_DESCRIPTOR_OFFSET;
    switch (usb_setup_value(packet) >> 8) {
    case USB_DESCRIPTOR_HID:
        usb_answer(packet, own, own[0]);
        return;
    case USB_DESCRIPTOR_HID_REPORT:
        usb_answer(packet, hid->kind->report_descriptor, hid->kind->report_descriptor_size);
        return;
    }
    usb_done(packet, USB_STALL);
}

static void set_report(struct usb_hid *hid, struct usb_packet *packet)
{
    bool output = hid->kind->boot && usb_setup_value(packet) == REPORT_OUTPUT << 8;
    if (output)
        usb_packet_get(packet, &hid->leds, 1);
    usb_done(packet, output ? USB_OK : USB_STALL);
}

static void get_report(struct usb_hid *hid, struct usb_packet *packet)
{
    bool waits;
    unsigned what = usb_setup_value(packet);
    if (what == REPORT_INPUT << 8)
        usb_answer(packet, usb_hid_newest(hid, &waits)->bytes, hid->kind->report_size);
    else if (what == REPORT_OUTPUT << 8 && hid->kind->boot)
        usb_answer(packet, &hid->leds, 1);
    else
        usb_done(packet, USB_STALL);
}

static void set_idle(struct usb_hid *hid, struct usb_packet *packet)
{
    hid->idle = (uint8_t)(usb_setup_value(packet) >> 8);
    if (hid->idle)
        arm_idle(hid);
    else
        loop_timer_cancel(&hid->timer);
    usb_done(packet, USB_OK);
}

static void hid_control(struct usb_device *device, struct usb_packet *packet)
{
    struct usb_hid *hid = to_hid(device);
    unsigned what = usb_setup_what(packet);
    if (usb_setup_index(packet) && (packet->setup[0] & 0x1f) == 1) {
        usb_done(packet, USB_STALL); /* there is one interface */
        return;
    }
    if ((what == HID_GET_PROTOCOL || what == HID_SET_PROTOCOL) && !hid->kind->boot) {
        usb_done(packet, USB_STALL);
        return;
    }
    switch ((enum hid_request)what) {
    case HID_GET_REPORT_DESCRIPTOR:
        get_descriptor(hid, packet);
        return;
    case HID_GET_REPORT:
        get_report(hid, packet);
        return;
    case HID_GET_IDLE:
        usb_answer(packet, &hid->idle, 1);
        return;
    case HID_GET_PROTOCOL:
        usb_answer(packet, &hid->protocol, 1);
        return;
    case HID_SET_REPORT:
        set_report(hid, packet);
        return;
    case HID_SET_IDLE:
        set_idle(hid, packet);
        return;
    case HID_SET_PROTOCOL: /* both protocols have the same reports */
        hid->protocol = usb_setup_value(packet) & 1;
        usb_done(packet, USB_OK);
        return;
    }
    usb_standard_request(device, packet);
}

static void hid_data(struct usb_device *device, struct usb_packet *packet)
{
    if (packet->endpoint != INTERRUPT_IN) {
        usb_done(packet, USB_IO_ERROR);
        return;
    }
    usb_keep(packet);
    serve(to_hid(device));
}

static void hid_reset(struct usb_device *device)
{
    struct usb_hid *hid = to_hid(device);
    loop_timer_cancel(&hid->timer);
    hid->first = hid->count = hid->idle = hid->leds = 0;
    hid->pressed_count = hid->modifiers = hid->buttons = 0;
    hid->x = hid->y = USB_TABLET_RANGE / 2;
    hid->protocol = 1;
    hid->current = (struct usb_report){0};
}

/* --- life --- */

const uint8_t usb_hid_device_descriptor[18] = {USB_DEVICE_DESCRIPTOR(0x0200, 64)};

static const struct usb_ops hid_ops = {
    .reset = hid_reset, .control = hid_control, .data = hid_data};

struct err *usb_hid_realize(struct device *device, const struct usb_hid_kind *kind)
{
    struct usb_hid *hid = container_of(device, struct usb_hid, usb.device);
    hid->kind = kind;
    hid->usb.ops = &hid_ops;
    hid->usb.speed = USB_SPEED_FULL;
    hid->usb.description = &kind->description;
    hid->usb.string[USB_STRING_MANUFACTURER] = "Tenon";
    hid->usb.string[USB_STRING_PRODUCT] = kind->product;
    hid->usb.string[USB_STRING_SERIAL] = device->id;
    loop_timer_init(hid->usb.device.env->loop, &hid->timer, idle_passed, hid);
    return usb_device_plug(&hid->usb);
}

void usb_hid_fini(struct device *device)
{
    struct usb_hid *hid = container_of(device, struct usb_hid, usb.device);
    usb_device_unplug(&hid->usb);
    if (hid->timer.loop)
        loop_timer_cancel(&hid->timer);
}

bool usb_hid_in_use(struct usb_hid *hid)
{
    lock_take(hid->usb.bus->lock);
    bool used = hid->usb.configuration;
    lock_drop(hid->usb.bus->lock);
    return used;
}

static struct err *check(const void *staged)
{
    const struct usb_hid *hid = staged;
    if (hid->first >= USB_HID_REPORTS || hid->count > USB_HID_REPORTS)
        return err_new("%u reports from %u on", hid->count, hid->first);
    return hid->pressed_count > USB_KEYS_PRESSED_MAX ? err_new("too many keys are pressed") : NULL;
}

static void post_load(void *object)
{
    arm_idle(object);
}

static const struct state_field report_fields[] = {STATE_BYTES(1, usb_report, bytes)};
static const struct state_table report_state = {
    DEVICE_STATE_TABLE("usb-report", usb_report, report_fields)};

static const struct state_field fields[] = {
    USB_DEVICE_STATE(usb_hid, usb),
    STATE_STRUCT(2, usb_hid, queue, &report_state),
    STATE_U8(3, usb_hid, first),
    STATE_U8(4, usb_hid, count),
    STATE_STRUCT(5, usb_hid, current, &report_state),
    STATE_U8(6, usb_hid, idle),
    STATE_U8(7, usb_hid, protocol),
    STATE_U8(8, usb_hid, leds),
    STATE_BYTES(9, usb_hid, pressed),
    STATE_U8(10, usb_hid, pressed_count),
    STATE_U8(11, usb_hid, modifiers),
    STATE_U16(12, usb_hid, x),
    STATE_U16(13, usb_hid, y),
    STATE_U8(14, usb_hid, buttons),
};

const struct state_table usb_hid_state = {
    DEVICE_STATE_TABLE("usb-hid", usb_hid, fields),
    .check = check,
    .post_load = post_load,
};
