/*
 * The xHCI controller: registers, ports, addresses, commands, resets, interrupts, a full event
 * ring, state. Transfers are in test_xhci_transfers.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "xhci_sample.h"

static void test_identity(void **state)
{
    struct bed bed;
    bed_open(&bed, false, 1, true);
    assert_int_equal(mmio_read(&bed.machine, bed.config + 9, 1), 0x30);
    assert_int_equal(mmio_read(&bed.machine, bed.config + 10, 2), 0x0c03);
    assert_int_equal(mmio_read(&bed.machine, bed.bar, 1), 0x40);
    assert_int_equal(mmio_read(&bed.machine, bed.bar + 2, 2), 0x0100);
    assert_int_equal(reg(&bed, XHCI_HCSPARAMS1), 32 | 8 << 8 | 16 << 24);
    assert_int_equal(reg(&bed, XHCI_OPERATIONAL + XHCI_USBSTS), XHCI_STS_HALTED);
    assert_int_equal(reg(&bed, XHCI_OPERATIONAL + XHCI_PAGESIZE), 1);
    /* Two protocols, each with its half of the ports. */
    unsigned at = (reg(&bed, XHCI_HCCPARAMS1) >> 16) * 4;
    assert_int_equal(reg(&bed, at) >> 24, 2);
    assert_int_equal(reg(&bed, at + 8), 0x801);
    at += (reg(&bed, at) >> 8 & 0xff) * 4;
    assert_int_equal(reg(&bed, at) >> 24, 3);
    assert_int_equal(reg(&bed, at + 8), 0x809);
    assert_int_equal(reg(&bed, at) >> 8 & 0xff, 0);
    /* Wide, and beyond the end. */
    assert_int_equal(mmio_read(&bed.machine, bed.bar, 8), reg(&bed, 0) | (uint64_t)reg(&bed, 4)
                                                                             << 32);
    assert_int_equal(reg(&bed, XHCI_BAR_SIZE - 4), 0);
    bed_close(&bed, NULL, 0);
}

static void test_ports(void **state)
{
    struct bed bed;
    bed_open(&bed, false, 1, true);
    struct sample *slow = plug(&bed, USB_SPEED_FULL), *super = plug(&bed, USB_SPEED_SUPER);
    bed_start(&bed);
    /* One connector each; a SuperSpeed link is there by itself. */
    assert_int_equal(portsc(&bed, 1), XHCI_PORT_CONNECTED | XHCI_PORT_POWER | 7 << 5 | 1 << 10 |
                                          XHCI_PORT_CONNECT_CHANGE);
    assert_int_equal(portsc(&bed, 10), XHCI_PORT_CONNECTED | XHCI_PORT_ENABLED | XHCI_PORT_POWER |
                                           4 << 10 | XHCI_PORT_CONNECT_CHANGE);
    assert_int_equal(portsc(&bed, 2), XHCI_PORT_POWER | 5 << 5);
    reset_port(&bed, 1);
    assert_int_equal(slow->resets, 2);
    /* A warm reset is told as such. */
    set_portsc(&bed, 10, XHCI_PORT_POWER | XHCI_PORT_CHANGES);
    set_portsc(&bed, 10, XHCI_PORT_POWER | XHCI_PORT_WARM_RESET);
    next_event(&bed);
    assert_int_equal(portsc(&bed, 10) & XHCI_PORT_CHANGES,
                     XHCI_PORT_RESET_CHANGE | XHCI_PORT_WARM_RESET_CHANGE);
    /* Suspend, wake from outside, resume. */
    set_portsc(&bed, 1, XHCI_PORT_POWER | XHCI_PORT_LINK_STROBE | XHCI_LINK_U3 << 5);
    assert_int_equal(portsc(&bed, 1) >> 5 & 15, XHCI_LINK_U3);
    lock_take(slow->usb.bus->lock);
    usb_wake(&slow->usb);
    lock_drop(slow->usb.bus->lock);
    assert_int_equal(portsc(&bed, 1) >> 5 & 15, XHCI_LINK_U3);
    slow->usb.wakes = true;
    lock_take(slow->usb.bus->lock);
    usb_wake(&slow->usb);
    lock_drop(slow->usb.bus->lock);
    next_event(&bed);
    assert_int_equal(portsc(&bed, 1) >> 5 & 15, XHCI_LINK_RESUME);
    set_portsc(&bed, 1, XHCI_PORT_POWER | XHCI_PORT_LINK_CHANGE);
    set_portsc(&bed, 1, XHCI_PORT_POWER | XHCI_PORT_LINK_STROBE | XHCI_LINK_U0 << 5);
    next_event(&bed);
    assert_int_equal(portsc(&bed, 1) >> 5 & 15, XHCI_LINK_U0);
    /* A 1 disables the port. */
    set_portsc(&bed, 1, XHCI_PORT_POWER | XHCI_PORT_ENABLED);
    assert_false(portsc(&bed, 1) & XHCI_PORT_ENABLED);
    /* Nothing happens where nothing is. */
    set_portsc(&bed, 3, XHCI_PORT_POWER | XHCI_PORT_RESET);
    assert_int_equal(portsc(&bed, 3), XHCI_PORT_POWER | 5 << 5);
    /* All connectors can be taken, and no more. */
    struct device *devices[XHCI_CONNECTORS + 1] = {&slow->usb.device, &super->usb.device};
    for (unsigned i = 2; i < XHCI_CONNECTORS; i++)
        devices[i] = &plug(&bed, USB_SPEED_HIGH)->usb.device;
    devices[XHCI_CONNECTORS] = device_new(&sample_class, &bed.machine.env, "one too many");
    ((struct sample *)devices[XHCI_CONNECTORS])->usb.bus = &bed.xhci->bus;
    struct err *err = device_realize(devices[XHCI_CONNECTORS]);
    assert_non_null(err);
    err_free(err);
    bed_close(&bed, devices, XHCI_CONNECTORS + 1);
}

static void test_addressing(void **state)
{
    struct bed bed;
    bed_open(&bed, false, 1, true);
    struct sample *sample = plug(&bed, USB_SPEED_HIGH);
    struct usb_device leaf = {0};
    bed_start(&bed);
    struct usb_bus *bus = &bed.xhci->bus;
    assert_ptr_equal(usb_bus_find(bus, 1, 0), &sample->usb);
    assert_null(usb_bus_find(bus, 0, 0));
    assert_null(usb_bus_find(bus, 2, 0));
    assert_null(usb_bus_find(bus, XHCI_PORTS + 1, 0));
    assert_null(usb_bus_find(bus, 1, 0x2));
    sample->port[1].device = &leaf;
    assert_ptr_equal(usb_bus_find(bus, 1, 0x2), &leaf);
    assert_null(usb_bus_find(bus, 1, 0x3));
    assert_null(usb_bus_find(bus, 1, 0x12));
    sample->port[1].device = NULL;

    /* Without a reset of the port there is nobody. */
    unsigned slot = enable_slot(&bed), other;
    assert_int_equal(address_device(&bed, slot, 1, 0), XHCI_TRANSACTION_ERROR);
    reset_port(&bed, 1);
    assert_int_equal(address_device(&bed, slot, 2, 0), XHCI_TRANSACTION_ERROR);
    assert_int_equal(address_device(&bed, slot, 0, 0), XHCI_TRANSACTION_ERROR);
    assert_int_equal(address_device(&bed, slot, 1, XHCI_TRB_NO_ADDRESS), XHCI_SUCCESS);
    assert_int_equal(slot_state(&bed, slot), XHCI_SLOT_DEFAULT);
    assert_int_equal(sample->usb.address, 0);
    assert_int_equal(address_device(&bed, slot, 1, 0), XHCI_SUCCESS);
    assert_int_equal(slot_state(&bed, slot), XHCI_SLOT_ADDRESSED);
    assert_int_equal(sample->usb.address, slot);
    assert_int_equal(get_le32(context(&bed, bed.output[slot], 0) + 12) & 0xff, slot);
    struct ring_of_blocks ring = bed.endpoint[CONTROL];
    assert_int_equal(address_device(&bed, slot, 1, 0), XHCI_CONTEXT_STATE_ERROR);
    bed.endpoint[CONTROL] = ring;
    assert_int_equal(control(&bed, slot, USB_IN, USB_GET_STATUS, 0, 0, 2), 2);

    /* A reset of the port takes the address away; Reset Device says so to the slot. */
    reset_port(&bed, 1);
    assert_int_equal(control(&bed, slot, USB_IN, USB_GET_STATUS, 0, 0, 2), -XHCI_TRANSACTION_ERROR);
    recover(&bed, slot, CONTROL);
    assert_int_equal(command(&bed, XHCI_RESET_DEVICE, 0, SLOT(slot), NULL), XHCI_SUCCESS);
    assert_int_equal(slot_state(&bed, slot), XHCI_SLOT_DEFAULT);
    assert_int_equal(command(&bed, XHCI_RESET_DEVICE, 0, SLOT(slot), NULL),
                     XHCI_CONTEXT_STATE_ERROR);
    assert_int_equal(address_device(&bed, slot, 1, 0), XHCI_SUCCESS);
    assert_int_equal(control(&bed, slot, USB_IN, USB_GET_STATUS, 0, 0, 2), 2);

    /* Slots come and go. */
    assert_int_equal(command(&bed, XHCI_DISABLE_SLOT, 0, SLOT(slot), NULL), XHCI_SUCCESS);
    assert_int_equal(command(&bed, XHCI_DISABLE_SLOT, 0, SLOT(slot), NULL), XHCI_SLOT_NOT_ENABLED);
    for (unsigned i = 1; i <= XHCI_SLOTS; i++) {
        assert_int_equal(command(&bed, XHCI_ENABLE_SLOT, 0, 0, &other), XHCI_SUCCESS);
        assert_int_equal(other, i);
    }
    assert_int_equal(command(&bed, XHCI_ENABLE_SLOT, 0, 0, NULL), XHCI_NO_SLOTS);
    struct device *device = &sample->usb.device;
    bed_close(&bed, &device, 1);
}

static void test_commands_that_are_wrong(void **state)
{
    struct rig rig;
    rig_open(&rig, false);
    struct bed *bed = &rig.bed;
    unsigned slot = rig.slot;
    assert_int_equal(command(bed, XHCI_COMMAND_NO_OP, 0, 0, NULL), XHCI_SUCCESS);
    assert_int_equal(command(bed, (enum xhci_trb_type)9 + 40, 0, 0, NULL), XHCI_TRB_ERROR);
    assert_int_equal(command(bed, XHCI_NORMAL, 0, 0, NULL), XHCI_TRB_ERROR);
    assert_int_equal(command(bed, XHCI_STOP_ENDPOINT, 0, ENDPOINT(slot, 0), NULL), XHCI_TRB_ERROR);
    assert_int_equal(command(bed, XHCI_STOP_ENDPOINT, 0, ENDPOINT(slot, 9), NULL),
                     XHCI_ENDPOINT_NOT_ENABLED);
    assert_int_equal(command(bed, XHCI_STOP_ENDPOINT, 0, ENDPOINT(0, 1), NULL),
                     XHCI_SLOT_NOT_ENABLED);
    assert_int_equal(command(bed, XHCI_STOP_ENDPOINT, 0, ENDPOINT(200, 1), NULL),
                     XHCI_SLOT_NOT_ENABLED);
    assert_int_equal(command(bed, XHCI_RESET_ENDPOINT, 0, ENDPOINT(slot, BULK_IN), NULL),
                     XHCI_CONTEXT_STATE_ERROR);
    assert_int_equal(command(bed, XHCI_SET_DEQUEUE, 0, ENDPOINT(slot, BULK_IN), NULL),
                     XHCI_CONTEXT_STATE_ERROR);
    /* Contexts that lie nowhere, or say what cannot be. */
    assert_int_equal(command(bed, XHCI_CONFIGURE_ENDPOINT, RAM_SIZE - 16, SLOT(slot), NULL),
                     XHCI_PARAMETER_ERROR);
    assert_int_equal(command(bed, XHCI_EVALUATE_CONTEXT, ~15ull, SLOT(slot), NULL),
                     XHCI_PARAMETER_ERROR);
    static const struct {
        uint32_t drop, add;
        unsigned dci;
        enum xhci_endpoint_type type;
    } wrong[] = {{1, 1, 2, XHCI_TYPE_BULK_OUT},      {0, 3, 2, XHCI_TYPE_BULK_OUT},
                 {0, 1 << 2, 2, XHCI_TYPE_BULK_OUT}, {0, 5, 2, XHCI_TYPE_BULK_IN},
                 {0, 5, 2, XHCI_TYPE_CONTROL},       {0, 9, 3, XHCI_TYPE_INTERRUPT_OUT},
                 {0, 9, 3, XHCI_TYPE_NONE}};
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
        input_begin(bed, wrong[i].drop, wrong[i].add);
        put_le32(context(bed, bed->input, 1 + wrong[i].dci) + 4, (uint32_t)wrong[i].type << 3);
        assert_int_equal(command(bed, XHCI_CONFIGURE_ENDPOINT, bed->input, SLOT(slot), NULL),
                         XHCI_PARAMETER_ERROR);
    }
    input_begin(bed, 0, 9); /* streams */
    put_le32(context(bed, bed->input, 1 + BULK_IN), 1 << 10);
    put_le32(context(bed, bed->input, 1 + BULK_IN) + 4, XHCI_TYPE_BULK_IN << 3);
    assert_int_equal(command(bed, XHCI_CONFIGURE_ENDPOINT, bed->input, SLOT(slot), NULL),
                     XHCI_PARAMETER_ERROR);
    /* Nothing of that changed anything. */
    assert_int_equal(endpoint_state(bed, slot, BULK_IN), XHCI_EP_RUNNING);
    uint64_t at = bulk(&rig, BULK_IN, bed->data, 64, XHCI_TRB_INTERRUPT);
    expect_transfer(bed, at, XHCI_SUCCESS, 0);
    /* What may change: packet size, latency, interrupter. */
    input_begin(bed, 0, 3);
    put_le16(context(bed, bed->input, 1) + 4, 77);
    put_le32(context(bed, bed->input, 1) + 8, 2u << 22);
    put_le16(context(bed, bed->input, 2) + 6, 8);
    assert_int_equal(command(bed, XHCI_EVALUATE_CONTEXT, bed->input, SLOT(slot), NULL),
                     XHCI_SUCCESS);
    assert_int_equal(get_le16(context(bed, bed->output[slot], 1) + 6), 8);
    assert_int_equal(get_le16(context(bed, bed->output[slot], 0) + 4), 77);
    /* Endpoints go: one, then all. */
    input_begin(bed, 1u << BULK_OUT, 1);
    assert_int_equal(command(bed, XHCI_CONFIGURE_ENDPOINT, bed->input, SLOT(slot), NULL),
                     XHCI_SUCCESS);
    assert_int_equal(endpoint_state(bed, slot, BULK_OUT), XHCI_EP_DISABLED);
    assert_int_equal(endpoint_state(bed, slot, BULK_IN), XHCI_EP_RUNNING);
    assert_int_equal(
        command(bed, XHCI_CONFIGURE_ENDPOINT, 0, SLOT(slot) | XHCI_TRB_DECONFIGURE, NULL),
        XHCI_SUCCESS);
    assert_int_equal(endpoint_state(bed, slot, BULK_IN), XHCI_EP_DISABLED);
    assert_int_equal(slot_state(bed, slot), XHCI_SLOT_ADDRESSED);
    rig_close(&rig);
}

static void test_reset(void **state)
{
    struct rig rig;
    rig_open(&rig, false);
    struct bed *bed = &rig.bed;
    rig.sample->keep = rig.sample->slow = true;
    bulk(&rig, BULK_IN, bed->data, 512, XHCI_TRB_INTERRUPT);
    turn(bed);
    /* It takes until the device has let go. */
    set_reg(bed, XHCI_OPERATIONAL + XHCI_USBCMD, XHCI_CMD_RESET);
    assert_int_equal(reg(bed, XHCI_OPERATIONAL + XHCI_USBCMD) & XHCI_CMD_RESET, XHCI_CMD_RESET);
    set_reg(bed, XHCI_OPERATIONAL + XHCI_USBCMD, XHCI_CMD_RUN);
    turn(bed);
    unsigned before = rig.sample->resets;
    lock_take(rig.sample->usb.bus->lock);
    usb_done(usb_kept(&rig.sample->usb, USB_IN | 1), USB_CANCELLED);
    lock_drop(rig.sample->usb.bus->lock);
    assert_int_equal(reg(bed, XHCI_OPERATIONAL + XHCI_USBCMD), 0);
    assert_int_equal(reg(bed, XHCI_OPERATIONAL + XHCI_USBSTS), XHCI_STS_HALTED);
    assert_int_equal(reg(bed, XHCI_INTERRUPTER0 + XHCI_ERSTSZ), 0);
    assert_int_equal(rig.sample->resets, before + 1);
    rig.sample->keep = rig.sample->slow = false;
    /* Save keeps what restore wants; a reset does not. */
    set_reg(bed, XHCI_OPERATIONAL + XHCI_USBCMD, XHCI_CMD_RESTORE);
    assert_true(reg(bed, XHCI_OPERATIONAL + XHCI_USBSTS) & XHCI_STS_RESTORE_ERROR);
    set_reg(bed, XHCI_OPERATIONAL + XHCI_USBSTS, XHCI_STS_RESTORE_ERROR);
    set_reg(bed, XHCI_OPERATIONAL + XHCI_USBCMD, XHCI_CMD_SAVE);
    set_reg(bed, XHCI_OPERATIONAL + XHCI_USBCMD, XHCI_CMD_RESTORE);
    assert_false(reg(bed, XHCI_OPERATIONAL + XHCI_USBSTS) & XHCI_STS_RESTORE_ERROR);
    start_controller(bed);
    rig.slot = first_slot(bed, 1);
    assert_int_equal(rig.slot, 1);
    assert_int_equal(control(bed, rig.slot, 0, USB_SET_CONFIGURATION, 1, 0, 0), 0);
    rig_close(&rig);
}

static void test_interrupts(void **state)
{
    struct bed bed;
    bed_open(&bed, false, 1, false);
    bed_start(&bed);
    /* Without messages the line is up until the guest has seen it. */
    push(&bed, &bed.commands, XHCI_COMMAND_NO_OP, 0, 0, 0);
    doorbell(&bed, 0, 0);
    turn(&bed);
    assert_true(bed.machine.line);
    assert_true(reg(&bed, XHCI_OPERATIONAL + XHCI_USBSTS) & XHCI_STS_EVENT);
    set_reg(&bed, XHCI_INTERRUPTER0 + XHCI_IMAN, XHCI_IMAN_PENDING | XHCI_IMAN_ENABLE);
    assert_false(bed.machine.line);
    /* The guest is at its events: the next one is told of when it is done with them. */
    push(&bed, &bed.commands, XHCI_COMMAND_NO_OP, 0, 0, 0);
    doorbell(&bed, 0, 0);
    turn(&bed);
    assert_false(bed.machine.line);
    next_event(&bed);
    assert_true(bed.machine.line);
    set_reg(&bed, XHCI_INTERRUPTER0 + XHCI_IMAN, XHCI_IMAN_PENDING);
    next_event(&bed);
    assert_false(bed.machine.line);
    /* Messages instead. */
    mmio_write(&bed.machine, bed.config + bed.xhci->pci.msix_capability + 2, 2, 0x8000);
    unsigned before = bed.machine.message[MESSAGE];
    command(&bed, XHCI_COMMAND_NO_OP, 0, 0, NULL);
    assert_int_equal(bed.machine.message[MESSAGE], before);
    set_reg(&bed, XHCI_INTERRUPTER0 + XHCI_IMAN, XHCI_IMAN_ENABLE);
    assert_int_equal(bed.machine.message[MESSAGE], before + 1);
    command(&bed, XHCI_COMMAND_NO_OP, 0, 0, NULL);
    assert_int_equal(bed.machine.message[MESSAGE], before + 2);
    assert_false(bed.machine.line);
    bed_close(&bed, NULL, 0);
}

/* The guest takes no events: work waits for room, and nothing is lost. */
static void test_a_full_event_ring(void **state)
{
    struct bed bed;
    bed_open(&bed, false, 1, true);
    bed_start(&bed);
    uint64_t block[2 * RING_BLOCKS];
    unsigned told = 0, pushed = 0;
    while (pushed < RING_BLOCKS - 2)
        block[pushed++] = push(&bed, &bed.commands, XHCI_COMMAND_NO_OP, 0, 0, 0);
    doorbell(&bed, 0, 0);
    for (unsigned i = 0; i < 5; i++)
        turn(&bed);
    for (; told < pushed; told++) {
        struct event event = next_event(&bed);
        assert_int_equal(type_of(&event), XHCI_EVENT_COMMAND);
        assert_int_equal(event.parameter, block[told]);
    }
    expect_quiet(&bed);
    /* A port that changes again and again says it with the last place that there is. */
    struct sample *sample = plug(&bed, USB_SPEED_HIGH);
    for (unsigned i = 0; i < 2 * EVENT_BLOCKS; i++) {
        set_portsc(&bed, 1, XHCI_PORT_POWER | XHCI_PORT_CHANGES);
        set_portsc(&bed, 1, XHCI_PORT_POWER | XHCI_PORT_RESET);
    }
    struct event event = {0};
    for (unsigned i = 0; i < EVENT_BLOCKS - 2; i++)
        assert_int_equal((event = next_event(&bed), type_of(&event)), XHCI_EVENT_PORT);
    event = next_event(&bed);
    assert_int_equal(type_of(&event), XHCI_EVENT_CONTROLLER);
    assert_int_equal(code_of_event(&event), XHCI_EVENT_RING_FULL);
    assert_int_equal(command(&bed, XHCI_COMMAND_NO_OP, 0, 0, NULL), XHCI_SUCCESS);
    /* A table that lies nowhere: no events, no harm. */
    set_reg(&bed, XHCI_INTERRUPTER0 + XHCI_ERSTBA, (uint32_t)RAM_SIZE);
    push(&bed, &bed.commands, XHCI_COMMAND_NO_OP, 0, 0, 0);
    doorbell(&bed, 0, 0);
    turn(&bed);
    struct device *device = &sample->usb.device;
    bed_close(&bed, &device, 1);
}

static void save(struct rig *rig, struct state_writer *writer)
{
    device_quiesce(&rig->bed.xhci->pci.device);
    state_writer_init(writer);
    device_save(&rig->bed.xhci->pci.device, writer);
    device_save(&rig->sample->usb.device, writer);
    state_writer_end(writer);
}

static void load(struct rig *rig, const struct state_writer *writer)
{
    struct state_reader reader;
    check_ok(state_reader_init(&reader, writer->out.data, writer->out.len));
    check_ok(device_load(&rig->bed.xhci->pci.device, &reader));
    check_ok(device_load(&rig->sample->usb.device, &reader));
    check_ok(state_reader_end(&reader));
}

static void test_state(void **state)
{
    struct rig rig;
    rig_open(&rig, false);
    struct bed *bed = &rig.bed;
    struct state_writer first, second;
    rig.sample->keep = true;
    uint64_t at = bulk(&rig, BULK_IN, bed->data, 512, XHCI_TRB_INTERRUPT);
    turn(bed);
    save(&rig, &first);
    /* Into a controller and a device at power-on: what was with the device begins anew. */
    device_reset(&bed->xhci->pci.device);
    device_quiesce(&bed->xhci->pci.device);
    assert_int_equal(rig.sample->usb.address, 0);
    load(&rig, &first);
    save(&rig, &second);
    assert_int_equal(first.out.len, second.out.len);
    assert_memory_equal(first.out.data, second.out.data, first.out.len);
    rig.sample->keep = false;
    device_resume(&bed->xhci->pci.device);
    expect_transfer(bed, at, XHCI_SUCCESS, 0);
    assert_int_equal(command(bed, XHCI_COMMAND_NO_OP, 0, 0, NULL), XHCI_SUCCESS);
    state_writer_fini(&first);
    state_writer_fini(&second);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_addressing),
        cmocka_unit_test(test_commands_that_are_wrong),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_interrupts),
        cmocka_unit_test(test_a_full_event_ring),
        cmocka_unit_test(test_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
