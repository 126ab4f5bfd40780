/*
 * Transfers of the xHCI controller: every kind, short packets, errors to the letter, rings that
 * make no sense or lead nowhere, stops with packets in flight.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "xhci_sample.h"

static void run_transfers(bool threads)
{
    struct rig rig;
    rig_open(&rig, threads);
    struct bed *bed = &rig.bed;
    struct sample *sample = rig.sample;
    uint8_t *data = host(bed, bed->data);
    /* Many times round the rings: single blocks, each with its event and message. */
    for (unsigned i = 0; i < 3 * RING_BLOCKS; i++) {
        memset(data, 0, 600);
        uint64_t at = bulk(&rig, BULK_IN, bed->data, 512, XHCI_TRB_INTERRUPT);
        expect_transfer(bed, at, XHCI_SUCCESS, 0);
        assert_memory_equal(data, sample->bytes, 512);
        assert_int_equal(data[512], 0);
    }
    assert_true(bed->machine.message[MESSAGE] > 3 * RING_BLOCKS);
    /* Three blocks are one packet: across two regions of memory, and out of the block itself. */
    uint64_t edge = RAM_SIZE / 2;
    memset(data, 0x5a, 100);
    memset(host(bed, edge - 10), 0xa1, 10);
    memset(host(bed, edge), 0xb2, 20);
    struct ring_of_blocks *out = &bed->endpoint[BULK_OUT];
    push(bed, out, XHCI_NORMAL, bed->data, 100, XHCI_TRB_CHAIN);
    push(bed, out, XHCI_NORMAL, edge - 10, 30, XHCI_TRB_CHAIN);
    uint64_t last =
        push(bed, out, XHCI_NORMAL, 0x8877665544332211, 8, XHCI_TRB_IMMEDIATE | XHCI_TRB_INTERRUPT);
    doorbell(bed, rig.slot, BULK_OUT);
    expect_transfer(bed, last, XHCI_SUCCESS, 0);
    assert_int_equal(sample->last_length, 138);
    assert_int_equal(sample->bytes[99], 0x5a);
    assert_int_equal(sample->bytes[100], 0xa1);
    assert_int_equal(sample->bytes[110], 0xb2);
    assert_int_equal(get_le64(sample->bytes + 130), 0x8877665544332211);
    /* No data at all, and nothing to do. */
    uint64_t at = bulk(&rig, BULK_OUT, 0, 0, XHCI_TRB_INTERRUPT);
    expect_transfer(bed, at, XHCI_SUCCESS, 0);
    unsigned before = sample->packets;
    at = push(bed, out, XHCI_TRANSFER_NO_OP, 0, 0, XHCI_TRB_INTERRUPT);
    doorbell(bed, rig.slot, BULK_OUT);
    expect_transfer(bed, at, XHCI_SUCCESS, 0);
    assert_int_equal(sample->packets, before);
    at = push(bed, &bed->endpoint[ISOCH_IN], XHCI_ISOCH, bed->data, 300, XHCI_TRB_INTERRUPT);
    doorbell(bed, rig.slot, ISOCH_IN);
    expect_transfer(bed, at, XHCI_SUCCESS, 0);
    rig_close(&rig);
}

static void test_transfers(void **state)
{
    run_transfers(false);
    run_transfers(true);
}

static void test_short_packets(void **state)
{
    struct rig rig;
    rig_open(&rig, false);
    struct bed *bed = &rig.bed;
    struct ring_of_blocks *in = &bed->endpoint[BULK_IN];
    rig.sample->answer = 700;
    /* Told where it ends, once. */
    push(bed, in, XHCI_NORMAL, bed->data, 512, XHCI_TRB_CHAIN | XHCI_TRB_SHORT);
    uint64_t second =
        push(bed, in, XHCI_NORMAL, bed->data + 512, 512, XHCI_TRB_CHAIN | XHCI_TRB_SHORT);
    push(bed, in, XHCI_NORMAL, bed->data + 1024, 512, XHCI_TRB_INTERRUPT | XHCI_TRB_SHORT);
    doorbell(bed, rig.slot, BULK_IN);
    expect_transfer(bed, second, XHCI_SHORT_PACKET, 324);
    expect_quiet(bed);
    assert_memory_equal(host(bed, bed->data), rig.sample->bytes, 700);
    /* Only at the end, if nothing else is wanted; and by event data with the sum. */
    push(bed, in, XHCI_NORMAL, bed->data, 1024, XHCI_TRB_CHAIN);
    push(bed, in, XHCI_EVENT_DATA, 0xfeedbeef12345678, 0, XHCI_TRB_INTERRUPT);
    doorbell(bed, rig.slot, BULK_IN);
    struct event event = next_event(bed);
    assert_int_equal(event.parameter, 0xfeedbeef12345678);
    assert_int_equal(event.control & XHCI_TRB_EVENT_DATA, XHCI_TRB_EVENT_DATA);
    assert_int_equal(event.status, (uint32_t)XHCI_SHORT_PACKET << 24 | 700);
    /* Whole packets may have several events. */
    uint64_t first =
        push(bed, in, XHCI_NORMAL, bed->data, 350, XHCI_TRB_CHAIN | XHCI_TRB_INTERRUPT);
    second = push(bed, in, XHCI_NORMAL, bed->data, 350, XHCI_TRB_INTERRUPT);
    doorbell(bed, rig.slot, BULK_IN);
    expect_transfer(bed, first, XHCI_SUCCESS, 0);
    expect_transfer(bed, second, XHCI_SUCCESS, 0);
    /* A control transfer: short data, then its status. */
    rig.sample->answer = 5;
    assert_int_equal(control(bed, rig.slot, USB_IN, 99, 0, 0, 64), 5);
    rig_close(&rig);
}

static void test_errors(void **state)
{
    struct rig rig;
    rig_open(&rig, false);
    struct bed *bed = &rig.bed;
    static const struct {
        enum usb_result result;
        enum xhci_code code;
    } errors[] = {
        {USB_STALL, XHCI_STALL}, {USB_BABBLE, XHCI_BABBLE}, {USB_IO_ERROR, XHCI_TRANSACTION_ERROR}};
    for (unsigned i = 0; i < ARRAY_SIZE(errors); i++) {
        rig.sample->result = errors[i].result;
        uint64_t at = bulk(&rig, BULK_IN, bed->data, 512, 0);
        expect_transfer(bed, at, errors[i].code, 512);
        /* It stands until it is reset, whatever rings. */
        doorbell(bed, rig.slot, BULK_IN);
        expect_quiet(bed);
        rig.sample->result = USB_OK;
        recover(bed, rig.slot, BULK_IN);
        at = bulk(&rig, BULK_IN, bed->data, 512, XHCI_TRB_INTERRUPT);
        expect_transfer(bed, at, XHCI_SUCCESS, 0);
        rig.sample->result = errors[i].result;
        assert_int_equal(control(bed, rig.slot, USB_IN, 99, 0, 0, 8), -(int)errors[i].code);
        rig.sample->result = USB_OK;
        recover(bed, rig.slot, CONTROL);
    }
    /* The device's own halt is another one. */
    lock_take(rig.sample->usb.bus->lock);
    usb_halt(&rig.sample->usb, USB_IN | 1);
    lock_drop(rig.sample->usb.bus->lock);
    uint64_t at = bulk(&rig, BULK_IN, bed->data, 512, 0);
    expect_transfer(bed, at, XHCI_STALL, 512);
    recover(bed, rig.slot, BULK_IN);
    at = bulk(&rig, BULK_IN, bed->data, 512, 0);
    expect_transfer(bed, at, XHCI_STALL, 512);
    /* An isochronous error halts nothing. */
    rig.sample->result = USB_IO_ERROR;
    at = push(bed, &bed->endpoint[ISOCH_IN], XHCI_ISOCH, bed->data, 300, 0);
    doorbell(bed, rig.slot, ISOCH_IN);
    expect_transfer(bed, at, XHCI_TRANSACTION_ERROR, 300);
    assert_int_equal(endpoint_state(bed, rig.slot, ISOCH_IN), XHCI_EP_RUNNING);
    rig_close(&rig);
}

/* What stands in the ring is no transfer: the endpoint stops with an error, and can be set right.
 */
static void expect_refused(struct rig *rig, unsigned dci)
{
    struct ring_of_blocks *ring = &rig->bed.endpoint[dci];
    doorbell(&rig->bed, rig->slot, dci);
    struct event event = next_event(&rig->bed);
    assert_int_equal(type_of(&event), XHCI_EVENT_TRANSFER);
    assert_int_equal(code_of_event(&event), XHCI_TRB_ERROR);
    assert_int_equal(endpoint_state(&rig->bed, rig->slot, dci), XHCI_EP_ERROR);
    assert_int_equal(command(&rig->bed, XHCI_SET_DEQUEUE,
                             (ring->base + 16 * ring->index) | ring->cycle,
                             ENDPOINT(rig->slot, dci), NULL),
                     XHCI_SUCCESS);
}

static void test_rings_that_are_wrong(void **state)
{
    struct rig rig;
    rig_open(&rig, false);
    struct bed *bed = &rig.bed;
    struct ring_of_blocks *out = &bed->endpoint[BULK_OUT], *ep0 = &bed->endpoint[CONTROL];
    /* Memory that is none, or is not to be written. */
    push(bed, out, XHCI_NORMAL, RAM_SIZE - 10, 20, 0);
    expect_refused(&rig, BULK_OUT);
    push(bed, &bed->endpoint[BULK_IN], XHCI_NORMAL, ROM_BASE, 20, 0);
    expect_refused(&rig, BULK_IN);
    push(bed, out, XHCI_NORMAL, ~0ull, 20, 0);
    expect_refused(&rig, BULK_OUT);
    /* Blocks where they do not belong. */
    push(bed, out, XHCI_SETUP_STAGE, 0, 8, XHCI_TRB_IMMEDIATE);
    expect_refused(&rig, BULK_OUT);
    push(bed, out, XHCI_NORMAL, 0, 9, XHCI_TRB_IMMEDIATE);
    expect_refused(&rig, BULK_OUT);
    push(bed, out, 33, 0, 0, 0);
    expect_refused(&rig, BULK_OUT);
    push(bed, ep0, XHCI_STATUS_STAGE, 0, 0, 0);
    expect_refused(&rig, CONTROL);
    push(bed, ep0, XHCI_SETUP_STAGE, 0, 7, XHCI_TRB_IMMEDIATE);
    expect_refused(&rig, CONTROL);
    push(bed, ep0, XHCI_SETUP_STAGE, 0, 8, XHCI_TRB_IMMEDIATE);
    push(bed, ep0, XHCI_SETUP_STAGE, 0, 8, XHCI_TRB_IMMEDIATE);
    expect_refused(&rig, CONTROL);
    push(bed, ep0, XHCI_SETUP_STAGE, USB_IN, 8, XHCI_TRB_IMMEDIATE);
    push(bed, ep0, XHCI_DATA_STAGE, bed->data, 8, 0); /* the wrong way */
    push(bed, ep0, XHCI_STATUS_STAGE, 0, 0, 0);
    expect_refused(&rig, CONTROL);
    /* Half of a transfer is none yet. */
    push(bed, ep0, XHCI_SETUP_STAGE, USB_IN, 8, XHCI_TRB_IMMEDIATE);
    doorbell(bed, rig.slot, CONTROL);
    expect_quiet(bed);
    uint64_t last = push(bed, ep0, XHCI_STATUS_STAGE, 0, 0, XHCI_TRB_INTERRUPT);
    doorbell(bed, rig.slot, CONTROL);
    expect_transfer(bed, last, XHCI_SUCCESS, 0);
    /* Links in a circle; a ring of one endless transfer; a ring where no memory is. */
    uint64_t circle = machine_alloc(&bed->machine, 64, 64);
    static const uint32_t circles[] = {XHCI_LINK << 10, XHCI_LINK << 10 | XHCI_TRB_TOGGLE,
                                       XHCI_NORMAL << 10 | XHCI_TRB_CHAIN};
    for (unsigned i = 0; i <= ARRAY_SIZE(circles); i++) {
        uint64_t to = i < ARRAY_SIZE(circles) ? circle : RAM_SIZE;
        if (i < ARRAY_SIZE(circles)) {
            put_block(bed, circle, circle + 16, 0, circles[i] | 1);
            put_block(bed, circle + 16, circle, 0,
                      XHCI_LINK << 10 | (circles[i] & XHCI_TRB_TOGGLE) |
                          !(circles[i] & XHCI_TRB_TOGGLE));
        }
        assert_int_equal(command(bed, XHCI_SET_DEQUEUE, to | 1, ENDPOINT(rig.slot, BULK_OUT), NULL),
                         XHCI_SUCCESS);
        expect_refused(&rig, BULK_OUT);
    }
    /* The longest transfer there may be. */
    uint64_t at = bulk(&rig, BULK_OUT, bed->data, 0x10000, XHCI_TRB_INTERRUPT);
    expect_transfer(bed, at, XHCI_SUCCESS, 0);
    /* A command ring that leads nowhere stops. */
    put_block(bed, bed->commands.base + 16 * bed->commands.index,
              bed->commands.base + 16 * bed->commands.index, 0,
              XHCI_LINK << 10 | bed->commands.cycle);
    doorbell(bed, 0, 0);
    struct event event = next_event(bed);
    assert_int_equal(code_of_event(&event), XHCI_RING_STOPPED);
    assert_int_equal(reg(bed, XHCI_OPERATIONAL + XHCI_CRCR), 0);
    rig_close(&rig);
}

static void test_stops(void **state)
{
    struct rig rig;
    rig_open(&rig, false);
    struct bed *bed = &rig.bed;
    struct sample *sample = rig.sample;
    sample->keep = true;
    uint64_t at = bulk(&rig, BULK_IN, bed->data, 512, XHCI_TRB_INTERRUPT);
    expect_quiet(bed);
    assert_int_equal(sample->packets, 1);
    /* Stopped: told of, and begun anew by the doorbell. */
    uint64_t stop =
        push(bed, &bed->commands, XHCI_STOP_ENDPOINT, 0, 0, ENDPOINT(rig.slot, BULK_IN));
    doorbell(bed, 0, 0);
    expect_transfer(bed, at, XHCI_STOPPED, 512);
    struct event event = next_event(bed);
    assert_int_equal(event.parameter, stop);
    assert_int_equal(code_of_event(&event), XHCI_SUCCESS);
    assert_int_equal(endpoint_state(bed, rig.slot, BULK_IN), XHCI_EP_STOPPED);
    assert_int_equal(get_le64(context(bed, bed->output[rig.slot], BULK_IN) + 8), at | 1);
    expect_quiet(bed);
    assert_int_equal(sample->packets, 1);
    doorbell(bed, rig.slot, BULK_IN);
    turn(bed);
    assert_int_equal(sample->packets, 2);
    /* A device that takes its time: the command waits, and others behind it. */
    sample->slow = true;
    push(bed, &bed->commands, XHCI_STOP_ENDPOINT, 0, 0, ENDPOINT(rig.slot, BULK_IN));
    push(bed, &bed->commands, XHCI_COMMAND_NO_OP, 0, 0, 0);
    doorbell(bed, 0, 0);
    bulk(&rig, BULK_OUT, bed->data, 4, XHCI_TRB_INTERRUPT);
    expect_quiet(bed);
    assert_int_equal(sample->packets, 2);
    lock_take(sample->usb.bus->lock);
    usb_done(usb_kept(&sample->usb, USB_IN | 1), USB_CANCELLED);
    lock_drop(sample->usb.bus->lock);
    expect_transfer(bed, at, XHCI_STOPPED, 512);
    for (unsigned i = 0; i < 2; i++) {
        event = next_event(bed);
        assert_int_equal(type_of(&event), XHCI_EVENT_COMMAND);
        assert_int_equal(code_of_event(&event), XHCI_SUCCESS);
    }
    turn(bed);
    assert_int_equal(sample->packets, 3); /* the one out */
    sample->slow = false;
    /* The controller is stopped, and goes on with what it has. */
    set_reg(bed, XHCI_OPERATIONAL + XHCI_USBCMD, 0);
    assert_true(reg(bed, XHCI_OPERATIONAL + XHCI_USBSTS) & XHCI_STS_HALTED);
    assert_int_equal(bed->xhci->in_flight, 0);
    sample->keep = false;
    set_reg(bed, XHCI_OPERATIONAL + XHCI_USBCMD, XHCI_CMD_RUN | XHCI_CMD_INTERRUPTS);
    event = next_event(bed);
    assert_int_equal(type_of(&event), XHCI_EVENT_TRANSFER);
    assert_int_equal(code_of_event(&event), XHCI_SUCCESS);
    /* Unplugged with a packet in its hands. */
    sample->keep = true;
    doorbell(bed, rig.slot, BULK_IN);
    turn(bed);
    usb_device_unplug(&sample->usb);
    event = next_event(bed);
    assert_int_equal(code_of_event(&event), XHCI_TRANSACTION_ERROR);
    event = next_event(bed);
    assert_int_equal(type_of(&event), XHCI_EVENT_PORT);
    assert_false(portsc(bed, 1) & (XHCI_PORT_CONNECTED | XHCI_PORT_ENABLED));
    check_ok(usb_device_plug(&sample->usb));
    assert_true(portsc(bed, 1) & XHCI_PORT_CONNECTED);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transfers), cmocka_unit_test(test_short_packets),
        cmocka_unit_test(test_errors),    cmocka_unit_test(test_rings_that_are_wrong),
        cmocka_unit_test(test_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
