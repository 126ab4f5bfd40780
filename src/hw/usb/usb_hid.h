/*
 * USB keyboard and tablet (Device Class Definition for Human Interface Devices 1.11): one interface
 * with one interrupt endpoint each, whose reports queue up until the guest takes them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_USB_USB_HID_H
#define TENON_HW_USB_USB_HID_H

#include "display/keys.h"
#include "hw/usb/usb.h"

#define USB_HID_REPORT_MAX 8
#define USB_HID_REPORTS 64 /* that wait */
#define USB_KEYS_PRESSED_MAX 16
#define USB_TABLET_RANGE 0x7fff /* of either coordinate */

struct usb_report {
    uint8_t bytes[USB_HID_REPORT_MAX];
};

struct usb_hid_kind {
    const char *product;
    struct usb_description description;
    const uint8_t *report_descriptor;
    uint16_t report_descriptor_size;
    uint8_t report_size;
    bool boot; /* has a boot protocol, and an output report of one byte */
};

struct usb_hid {
    struct usb_device usb;

    const struct usb_hid_kind *kind; /* set by the class */

    struct usb_report queue[USB_HID_REPORTS]; /* a ring */
    uint8_t first, count;
    struct usb_report current; /* what the guest was told last */
    uint8_t idle;              /* 4 ms; a report is repeated after that time. 0: never */
    uint8_t protocol;          /* 1: reports, 0: boot */
    uint8_t leds;
    uint8_t pressed[USB_KEYS_PRESSED_MAX]; /* usages, in the order of pressing */
    uint8_t pressed_count;
    uint8_t modifiers;
    uint16_t x, y;
    uint8_t buttons;

    struct loop_timer timer; /* idle */
};

/* --- devices --- */
extern const uint8_t usb_hid_device_descriptor[18];
/* One interface of HID with one interrupt endpoint, every 10 ms; 100 mA, wakes. */
/* clang-format off */
#define USB_HID_CONFIGURATION(subclass, protocol, report_descriptor_size)                          \
    9, USB_DESCRIPTOR_CONFIGURATION, USB_LE16(34), 1, 1, 0, 0xa0, 50,                              \
    9, USB_DESCRIPTOR_INTERFACE, 0, 0, 1, 3, subclass, protocol, 0,                                \
    9, USB_DESCRIPTOR_HID, USB_LE16(0x0111), 0, 1, USB_DESCRIPTOR_HID_REPORT,                      \
    USB_LE16(report_descriptor_size),                                                              \
    7, USB_DESCRIPTOR_ENDPOINT, USB_IN | 1, 3, USB_LE16(8), 10
/* clang-format on */
/* Called by realize of a class. */
struct err *usb_hid_realize(struct device *device, const struct usb_hid_kind *kind);
/* Appends a report; what does not fit replaces the newest one, so that nothing stays pressed. */
void usb_hid_report(struct usb_hid *hid, const struct usb_report *report);
/* The report that the guest will have read last; *waits: it has not yet. */
struct usb_report *usb_hid_newest(struct usb_hid *hid, bool *waits);
extern const struct state_table usb_hid_state;
void usb_hid_fini(struct device *device);

/* --- people, any thread --- */
/* `key` as in display/keys.h. */
void usb_keyboard_key(struct usb_hid *keyboard, uint8_t key, bool down);
/* Coordinates up to USB_TABLET_RANGE, negative: as they are; `buttons` as of a mouse. */
void usb_tablet_event(struct usb_hid *tablet, int x, int y, int wheel, uint8_t buttons);
/* Has the guest taken it into use? */
bool usb_hid_in_use(struct usb_hid *hid);

extern const struct device_class usb_keyboard_class, usb_tablet_class;

#endif
