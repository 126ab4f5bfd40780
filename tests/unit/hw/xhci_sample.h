/*
 * A USB device of the tests' own, which answers, keeps and fails packets as it is told, and a host
 * that has taken it into use.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TEST_XHCI_SAMPLE_H
#define TENON_TEST_XHCI_SAMPLE_H

#include "xhci_host.h"

struct sample {
    struct usb_device usb;
    enum usb_speed speed;
    enum usb_result result; /* of the next packets */
    uint64_t answer;        /* bytes that a packet to the host gets */
    bool keep;              /* packets wait for the test */
    bool slow;              /* packets that are taken back too */
    unsigned packets, resets;
    uint64_t last_length;
    uint8_t bytes[0x10000];
    struct usb_port port[2]; /* as a hub: below it */
};

static inline struct sample *to_sample(struct usb_device *device)
{
    return container_of(device, struct sample, usb);
}

static inline void sample_reset(struct usb_device *device)
{
    to_sample(device)->resets++;
}

static inline void sample_end(struct sample *sample, struct usb_packet *packet)
{
    bool in = packet->endpoint ? packet->endpoint & USB_IN : packet->setup[0] & USB_IN;
    sample->last_length = packet->length;
    if (sample->result == USB_OK && in)
        usb_packet_put(packet, sample->bytes, sample->answer);
    else if (sample->result == USB_OK)
        usb_packet_get(packet, sample->bytes, packet->length);
    usb_done(packet, sample->result);
}

static inline void sample_packet(struct usb_device *device, struct usb_packet *packet)
{
    struct sample *sample = to_sample(device);
    sample->packets++;
    if (sample->keep)
        usb_keep(packet);
    else
        sample_end(sample, packet);
}

static inline void sample_control(struct usb_device *device, struct usb_packet *packet)
{
    if (packet->setup[1] != USB_SET_CONFIGURATION)
        sample_packet(device, packet);
    else
        usb_standard_request(device, packet);
}

static inline void sample_cancel(struct usb_device *device, struct usb_packet *packet)
{
    if (!to_sample(device)->slow)
        usb_done(packet, USB_CANCELLED);
}

static const struct usb_ops sample_ops = {.reset = sample_reset,
                                          .control = sample_control,
                                          .data = sample_packet,
                                          .isochronous = sample_packet,
                                          .cancel = sample_cancel};
static const uint8_t sample_configuration[9] = {9, 2, 9, 0, 0, 1};
static const struct usb_description sample_description = {.configuration = sample_configuration,
                                                          .configuration_value = 1};

static inline struct err *sample_realize(struct device *device)
{
    struct sample *sample = container_of(device, struct sample, usb.device);
    sample->usb.ops = &sample_ops;
    sample->usb.description = &sample_description;
    sample->usb.speed = sample->speed;
    sample->usb.ports = sample->port;
    sample->usb.port_count = 2;
    return usb_device_plug(&sample->usb);
}

static inline void sample_fini(struct device *device)
{
    usb_device_unplug(&container_of(device, struct sample, usb.device)->usb);
}

static const struct state_field sample_fields[] = {USB_DEVICE_STATE(sample, usb)};
static const struct state_table sample_state = {
    DEVICE_STATE_TABLE("sample", sample, sample_fields)};
static const struct device_class sample_class = {
    .name = "sample",
    .size = sizeof(struct sample),
    .state = &sample_state,
    .realize = sample_realize,
    .fini = sample_fini,
};

static inline struct sample *plug(struct bed *bed, enum usb_speed speed)
{
    struct sample *sample = (struct sample *)device_new(&sample_class, &bed->machine.env, "sample");
    sample->usb.bus = &bed->xhci->bus;
    sample->speed = speed;
    sample->answer = sizeof(sample->bytes);
    for (unsigned i = 0; i < sizeof(sample->bytes); i++)
        sample->bytes[i] = (uint8_t)(i * 7 + (i >> 8));
    check_ok(device_realize(&sample->usb.device));
    return sample;
}

enum { CONTROL = 1, BULK_OUT = 2, BULK_IN = 3, ISOCH_IN = 5 };

struct rig {
    struct bed bed;
    struct sample *sample;
    unsigned slot;
};

static inline unsigned first_slot(struct bed *bed, unsigned port)
{
    reset_port(bed, port);
    unsigned slot = enable_slot(bed);
    assert_int_equal(address_device(bed, slot, port, 0), XHCI_SUCCESS);
    assert_int_equal(slot_state(bed, slot), XHCI_SLOT_ADDRESSED);
    return slot;
}

static inline enum xhci_code add_endpoints(struct bed *bed, unsigned slot)
{
    input_begin(bed, 0, 1 | 1u << BULK_OUT | 1u << BULK_IN | 1u << ISOCH_IN);
    input_slot(bed, 1, 0, ISOCH_IN);
    input_endpoint(bed, BULK_OUT, XHCI_TYPE_BULK_OUT);
    input_endpoint(bed, BULK_IN, XHCI_TYPE_BULK_IN);
    input_endpoint(bed, ISOCH_IN, XHCI_TYPE_ISOCH_IN);
    return command(bed, XHCI_CONFIGURE_ENDPOINT, bed->input, SLOT(slot), NULL);
}

static inline void rig_open(struct rig *rig, bool threads)
{
    bed_open(&rig->bed, threads, 2, true);
    rig->sample = plug(&rig->bed, USB_SPEED_HIGH);
    bed_start(&rig->bed);
    rig->slot = first_slot(&rig->bed, 1);
    assert_int_equal(add_endpoints(&rig->bed, rig->slot), XHCI_SUCCESS);
    assert_int_equal(slot_state(&rig->bed, rig->slot), XHCI_SLOT_CONFIGURED);
    assert_int_equal(control(&rig->bed, rig->slot, 0, USB_SET_CONFIGURATION, 1, 0, 0), 0);
}

static inline void rig_close(struct rig *rig)
{
    struct device *device = &rig->sample->usb.device;
    rig->sample->slow = false;
    bed_close(&rig->bed, &device, 1);
}

/* A bulk transfer of one block; the block's address. */
static inline uint64_t bulk(struct rig *rig, unsigned dci, uint64_t gpa, uint32_t length,
                            uint32_t flags)
{
    uint64_t at = push(&rig->bed, &rig->bed.endpoint[dci], XHCI_NORMAL, gpa, length, flags);
    doorbell(&rig->bed, rig->slot, dci);
    return at;
}

#endif
