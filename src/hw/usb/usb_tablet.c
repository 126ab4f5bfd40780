/*
 * The USB tablet: a pointer with absolute coordinates, five buttons and a wheel, so that a guest's
 * pointer is where the person's is.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "base/bytes.h"
#include "hw/usb/usb_hid.h"

#define REPORT_SIZE 6
#define REPORT_WHEEL 5
#define BUTTONS 0x1f

static uint16_t coordinate(int value, uint16_t before)
{
    return value < 0 ? before : (uint16_t)MIN(value, USB_TABLET_RANGE);
}

void usb_tablet_event(struct usb_hid *tablet, int x, int y, int wheel, uint8_t buttons)
{
    struct usb_report report = {{0}};
    bool waits;
    lock_take(tablet->usb.bus->lock);
    tablet->x = coordinate(x, tablet->x);
    tablet->y = coordinate(y, tablet->y);
    tablet->buttons = buttons & BUTTONS;
    report.bytes[0] = tablet->buttons;
    put_le16(report.bytes + 1, tablet->x);
    put_le16(report.bytes + 3, tablet->y);
    report.bytes[REPORT_WHEEL] = (uint8_t)-MAX(MIN(wheel, 127), -127);
    /* Only the last of several places counts, as long as nothing else happens on the way. */
    struct usb_report *newest = usb_hid_newest(tablet, &waits);
    if (waits && newest->bytes[0] == report.bytes[0] && !newest->bytes[REPORT_WHEEL] && !wheel)
        *newest = report;
    else
        usb_hid_report(tablet, &report);
    lock_drop(tablet->usb.bus->lock);
}

/* --- what it says of itself --- */

static const uint8_t report_descriptor[] = {
    0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00, /* generic desktop, mouse, pointer
                                                                 */
    0x05, 0x09, 0x19, 0x01, 0x29, 0x05, 0x15, 0x00, 0x25, 0x01, /* buttons 1 to 5, */
    0x75, 0x01, 0x95, 0x05, 0x81, 0x02,                         /* 5 bits */
    0x75, 0x03, 0x95, 0x01, 0x81, 0x01,                         /* and 3 that fill the byte */
    0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x15, 0x00, 0x26, 0xff, 0x7f, /* x and y, 0 to 0x7fff: */
    0x35, 0x00, 0x46, 0xff, 0x7f, 0x75, 0x10, 0x95, 0x02, 0x81, 0x02, /* 16 bits, absolute */
    0x09, 0x38, 0x15, 0x81, 0x25, 0x7f, 0x35, 0x00, 0x45, 0x00,       /* a wheel, -127 to 127: */
    0x75, 0x08, 0x95, 0x01, 0x81, 0x06,                               /* 8 bits, relative */
    0xc0, 0xc0};

static const uint8_t configuration[] = {USB_HID_CONFIGURATION(0, 0, sizeof(report_descriptor))};

static const struct usb_hid_kind kind = {
    .product = "Tenon USB tablet",
    .description = {usb_hid_device_descriptor, configuration, .configuration_value = 1},
    .report_descriptor = report_descriptor,
    .report_descriptor_size = sizeof(report_descriptor),
    .report_size = REPORT_SIZE,
};

static struct err *realize(struct device *device)
{
    return usb_hid_realize(device, &kind);
}

const struct device_class usb_tablet_class = {
    .name = "usb-tablet",
    .description = "USB tablet",
    .size = sizeof(struct usb_hid),
    .state = &usb_hid_state,
    .realize = realize,
    .fini = usb_hid_fini,
};
DEVICE_CLASS(usb_tablet_class);
