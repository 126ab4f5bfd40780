/*
 * Requests that every USB device answers (Universal Serial Bus 3.2, section 9.4), for emulated
 * devices with one configuration and no alternate settings.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "base/bytes.h"
#include "hw/usb/usb.h"

#define TO_DEVICE 0x00 /* bmRequestType: direction, and who is asked */
#define TO_INTERFACE 0x01
#define TO_ENDPOINT 0x02
#define REQUEST(type, request) ((unsigned)(type) << 8 | (request))

#define FEATURE_ENDPOINT_HALT 0
#define FEATURE_REMOTE_WAKEUP 1
#define FEATURE_FUNCTION_SUSPEND 0 /* of an interface */
#define FEATURE_U1 48
#define FEATURE_U2 49
#define STATUS_SELF_POWERED 1
#define STATUS_WAKES 2
#define LANGUAGE_US 0x0409
#define STRING_MAX 63 /* characters */
#define CONFIGURATION_ATTRIBUTES 7
#define ATTRIBUTE_SELF_POWERED 0x40
#define ATTRIBUTE_WAKES 0x20

unsigned usb_setup_value(const struct usb_packet *packet)
{
    return get_le16(packet->setup + 2);
}

unsigned usb_setup_index(const struct usb_packet *packet)
{
    return get_le16(packet->setup + 4);
}

unsigned usb_setup_length(const struct usb_packet *packet)
{
    return get_le16(packet->setup + 6);
}

void usb_answer(struct usb_packet *packet, const void *bytes, uint64_t length)
{
    usb_packet_put(packet, bytes, MIN(length, (uint64_t)usb_setup_length(packet)));
    usb_done(packet, USB_OK);
}

/* --- descriptors --- */

static void answer_string(struct usb_device *device, struct usb_packet *packet, unsigned index)
{
    uint8_t out[2 + 2 * STRING_MAX] = {4, USB_DESCRIPTOR_STRING, USB_LE16(LANGUAGE_US)};
    const char *text = index < USB_STRINGS ? device->string[index] : NULL;
    if (index && !text) {
        usb_done(packet, USB_STALL);
        return;
    }
    if (text) {
        size_t count = strnlen(text, STRING_MAX);
        out[0] = (uint8_t)(2 + 2 * count);
        for (size_t i = 0; i < count; i++)
            put_le16(out + 2 + 2 * i, (uint8_t)text[i]);
    }
    usb_answer(packet, out, out[0]);
}

static void get_descriptor(struct usb_device *device, struct usb_packet *packet)
{
    const struct usb_description *said = device->description;
    unsigned index = usb_setup_value(packet) & 0xff;
    switch (usb_setup_value(packet) >> 8) {
    case USB_DESCRIPTOR_DEVICE:
        usb_answer(packet, said->device, said->device[0]);
        return;
    case USB_DESCRIPTOR_CONFIGURATION:
        if (index)
            break;
        usb_answer(packet, said->configuration, get_le16(said->configuration + 2));
        return;
    case USB_DESCRIPTOR_STRING:
        answer_string(device, packet, index);
        return;
    case USB_DESCRIPTOR_BOS:
        if (!said->bos)
            break;
        usb_answer(packet, said->bos, get_le16(said->bos + 2));
        return;
    }
    usb_done(packet, USB_STALL);
}

/* --- features --- */

static void answer_status(struct usb_device *device, struct usb_packet *packet)
{
    uint8_t attributes = device->description->configuration[CONFIGURATION_ATTRIBUTES];
    uint8_t status[2] = {0};
    if (attributes & ATTRIBUTE_SELF_POWERED)
        status[0] |= STATUS_SELF_POWERED;
    if (device->wakes)
        status[0] |= STATUS_WAKES;
    usb_answer(packet, status, sizeof(status));
}

static enum usb_result device_feature(struct usb_device *device, const struct usb_packet *packet,
                                      bool set)
{
    uint8_t attributes = device->description->configuration[CONFIGURATION_ATTRIBUTES];
    switch (usb_setup_value(packet)) {
    case FEATURE_REMOTE_WAKEUP:
        if (!(attributes & ATTRIBUTE_WAKES))
            return USB_STALL;
        device->wakes = set;
        return USB_OK;
    case FEATURE_U1:
    case FEATURE_U2: /* a link without power to save */
        return device->speed == USB_SPEED_SUPER ? USB_OK : USB_STALL;
    }
    return USB_STALL;
}

static enum usb_result endpoint_feature(struct usb_device *device, const struct usb_packet *packet,
                                        bool set)
{
    if (usb_setup_value(packet) != FEATURE_ENDPOINT_HALT)
        return USB_STALL;
    if (set) {
        device->halted |= usb_endpoint_bit(usb_setup_index(packet));
    } else {
        device->halted &= ~usb_endpoint_bit(usb_setup_index(packet));
        if (device->ops->halt_cleared)
            device->ops->halt_cleared(device, (uint8_t)usb_setup_index(packet));
    }
    return USB_OK;
}

static enum usb_result set_configuration(struct usb_device *device, unsigned value)
{
    if (value && value != device->description->configuration_value)
        return USB_STALL;
    device->configuration = (uint8_t)value;
    device->halted = 0;
    return USB_OK;
}

/* Requests that only end, well or not. */
static enum usb_result simple_request(struct usb_device *device, const struct usb_packet *packet)
{
    switch (usb_setup_what(packet)) {
    case REQUEST(TO_DEVICE, USB_CLEAR_FEATURE):
    case REQUEST(TO_DEVICE, USB_SET_FEATURE):
        return device_feature(device, packet, packet->setup[1] == USB_SET_FEATURE);
    case REQUEST(TO_ENDPOINT, USB_CLEAR_FEATURE):
    case REQUEST(TO_ENDPOINT, USB_SET_FEATURE):
        return endpoint_feature(device, packet, packet->setup[1] == USB_SET_FEATURE);
    case REQUEST(TO_INTERFACE, USB_CLEAR_FEATURE):
    case REQUEST(TO_INTERFACE, USB_SET_FEATURE):
        return device->speed == USB_SPEED_SUPER &&
                       usb_setup_value(packet) == FEATURE_FUNCTION_SUSPEND
                   ? USB_OK
                   : USB_STALL;
    case REQUEST(TO_DEVICE, USB_SET_ADDRESS):
        device->address = (uint8_t)(usb_setup_value(packet) & 0x7f);
        return USB_OK;
    case REQUEST(TO_DEVICE, USB_SET_CONFIGURATION):
        return set_configuration(device, usb_setup_value(packet));
    case REQUEST(TO_INTERFACE, USB_SET_INTERFACE):
        return usb_setup_value(packet) ? USB_STALL : USB_OK;
    case REQUEST(TO_DEVICE, USB_SET_SEL):
    case REQUEST(TO_DEVICE, USB_SET_ISOCH_DELAY):
        return device->speed == USB_SPEED_SUPER ? USB_OK : USB_STALL;
    }
    return USB_STALL;
}

void usb_standard_request(struct usb_device *device, struct usb_packet *packet)
{
    const uint8_t halted[2] = {device->halted & usb_endpoint_bit(usb_setup_index(packet)) ? 1 : 0};
    static const uint8_t none[2];
    switch (usb_setup_what(packet)) {
    case REQUEST(USB_IN | TO_DEVICE, USB_GET_DESCRIPTOR):
        get_descriptor(device, packet);
        return;
    case REQUEST(USB_IN | TO_DEVICE, USB_GET_STATUS):
        answer_status(device, packet);
        return;
    case REQUEST(USB_IN | TO_INTERFACE, USB_GET_STATUS):
        usb_answer(packet, none, 2);
        return;
    case REQUEST(USB_IN | TO_ENDPOINT, USB_GET_STATUS):
        usb_answer(packet, halted, 2);
        return;
    case REQUEST(USB_IN | TO_DEVICE, USB_GET_CONFIGURATION):
        usb_answer(packet, &device->configuration, 1);
        return;
    case REQUEST(USB_IN | TO_INTERFACE, USB_GET_INTERFACE):
        usb_answer(packet, none, 1);
        return;
    }
    enum usb_result result = simple_request(device, packet);
    if (result == USB_OK)
        packet->moved = packet->length; /* SET_SEL's bytes are taken, and not used */
    usb_done(packet, result);
}
