/*
 * The USB keyboard: a boot keyboard (HID 1.11, appendix B.1) with usages of the keyboard page (HID
 * Usage Tables 1.3, chapter 10).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "hw/usb/usb_hid.h"

#define KEYS_TOLD 6
#define ROLL_OVER 0x01
#define FIRST_MODIFIER 0xe0
#define REPORT_KEYS 2 /* behind modifiers and a reserved byte */

/* Usages of set 1's make codes, from 0 on. */
static const uint8_t plain[] = {
    0x00, 0x29, 0x1e, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x2d, 0x2e, 0x2a,
    0x2b, 0x14, 0x1a, 0x08, 0x15, 0x17, 0x1c, 0x18, 0x0c, 0x12, 0x13, 0x2f, 0x30, 0x28, 0xe0,
    0x04, 0x16, 0x07, 0x09, 0x0a, 0x0b, 0x0d, 0x0e, 0x0f, 0x33, 0x34, 0x35, 0xe1, 0x31, 0x1d,
    0x1b, 0x06, 0x19, 0x05, 0x11, 0x10, 0x36, 0x37, 0x38, 0xe5, 0x55, 0xe2, 0x2c, 0x39, 0x3a,
    0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x40, 0x41, 0x42, 0x43, 0x53, 0x47, 0x5f, 0x60, 0x61, 0x56,
    0x5c, 0x5d, 0x5e, 0x57, 0x59, 0x5a, 0x5b, 0x62, 0x63, 0x46, 0x00, 0x64, 0x44, 0x45, 0x67};

/* The others, by their code with KEY_EXTENDED. */
static const uint8_t extended[][2] = {
    {0x1c, 0x58}, {0x1d, 0xe4}, {0x20, 0x7f}, {0x2e, 0x81}, {0x30, 0x80}, {0x35, 0x54},
    {0x37, 0x46}, {0x38, 0xe6}, {0x46, 0x48}, {0x47, 0x4a}, {0x48, 0x52}, {0x49, 0x4b},
    {0x4b, 0x50}, {0x4d, 0x4f}, {0x4f, 0x4d}, {0x50, 0x51}, {0x51, 0x4e}, {0x52, 0x49},
    {0x53, 0x4c}, {0x5b, 0xe3}, {0x5c, 0xe7}, {0x5d, 0x65}, {0x5e, 0x66}};

static const uint8_t international[][2] = {{0x70, 0x88}, {0x73, 0x87}, {0x79, 0x8a},
                                           {0x7b, 0x8b}, {0x7d, 0x89}, {0x7e, 0x85}};

static uint8_t look_up(const uint8_t (*table)[2], unsigned count, uint8_t code)
{
    for (unsigned i = 0; i < count; i++) {
        if (table[i][0] == code)
            return table[i][1];
    }
    return 0;
}

/* 0: this keyboard has no such key. */
static uint8_t usage_of(uint8_t key)
{
    uint8_t code = key & (uint8_t)~KEY_EXTENDED;
    if (key & KEY_EXTENDED)
        return look_up(extended, ARRAY_SIZE(extended), code);
    return code < sizeof(plain) ? plain[code]
                                : look_up(international, ARRAY_SIZE(international), code);
}

static void press(struct usb_hid *hid, uint8_t usage)
{
    if (!memchr(hid->pressed, usage, hid->pressed_count) &&
        hid->pressed_count < USB_KEYS_PRESSED_MAX)
        hid->pressed[hid->pressed_count++] = usage;
}

static void release(struct usb_hid *hid, uint8_t usage)
{
    uint8_t *at = memchr(hid->pressed, usage, hid->pressed_count);
    if (!at)
        return;
    hid->pressed_count--;
    memmove(at, at + 1, (size_t)(hid->pressed + hid->pressed_count - at));
}

void usb_keyboard_key(struct usb_hid *keyboard, uint8_t key, bool down)
{
    struct usb_report report = {{0}};
    uint8_t usage = usage_of(key);
    if (!usage)
        return;
    lock_take(keyboard->usb.bus->lock);
    uint8_t modifier = usage >= FIRST_MODIFIER ? (uint8_t)(1u << (usage - FIRST_MODIFIER)) : 0;
    if (modifier)
        keyboard->modifiers =
            down ? keyboard->modifiers | modifier : keyboard->modifiers & (uint8_t)~modifier;
    else if (down)
        press(keyboard, usage);
    else
        release(keyboard, usage);
    report.bytes[0] = keyboard->modifiers;
    if (keyboard->pressed_count > KEYS_TOLD)
        memset(report.bytes + REPORT_KEYS, ROLL_OVER, KEYS_TOLD);
    else
        memcpy(report.bytes + REPORT_KEYS, keyboard->pressed, keyboard->pressed_count);
    bool waits;
    if (memcmp(&report, usb_hid_newest(keyboard, &waits), sizeof(report)))
        usb_hid_report(keyboard, &report);
    lock_drop(keyboard->usb.bus->lock);
}

/* --- what it says of itself --- */

static const uint8_t report_descriptor[] = {
    0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, /* generic desktop, keyboard: application */
    0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7, 0x15, 0x00, 0x25, 0x01,       /* its modifiers, */
    0x75, 0x01, 0x95, 0x08, 0x81, 0x02,                               /* 8 bits of input */
    0x75, 0x08, 0x95, 0x01, 0x81, 0x01,                               /* one byte reserved */
    0x05, 0x08, 0x19, 0x01, 0x29, 0x05,                               /* LEDs 1 to 5, */
    0x75, 0x01, 0x95, 0x05, 0x91, 0x02,                               /* 5 bits of output */
    0x75, 0x03, 0x95, 0x01, 0x91, 0x01,                               /* and 3 that fill the byte */
    0x05, 0x07, 0x19, 0x00, 0x29, 0xdf, 0x15, 0x00, 0x26, 0xdf, 0x00, /* keys, */
    0x75, 0x08, 0x95, 0x06, 0x81, 0x00,                               /* an array of 6 bytes */
    0xc0};

static const uint8_t configuration[] = {USB_HID_CONFIGURATION(1, 1, sizeof(report_descriptor))};

static const struct usb_hid_kind kind = {
    .product = "Tenon USB keyboard",
    .description = {usb_hid_device_descriptor, configuration, .configuration_value = 1},
    .report_descriptor = report_descriptor,
    .report_descriptor_size = sizeof(report_descriptor),
    .report_size = sizeof(struct usb_report),
    .boot = true,
};

static struct err *realize(struct device *device)
{
    return usb_hid_realize(device, &kind);
}

const struct device_class usb_keyboard_class = {
    .name = "usb-keyboard",
    .description = "USB keyboard",
    .size = sizeof(struct usb_hid),
    .state = &usb_hid_state,
    .realize = realize,
    .fini = usb_hid_fini,
};
DEVICE_CLASS(usb_keyboard_class);
