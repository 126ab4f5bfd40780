/*
 * USB devices behind the xHCI controller: what keyboard, tablet and mass storage say of themselves,
 * reports in their order, idle and protocol; commands, data in pieces of any size, failures and
 * recovery of the bulk-only transport; state.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>

#include "hw/disk/scsi_internal.h"
#include "hw/usb/usb_hid.h"
#include "hw/usb/usb_storage.h"
#include "xhci_host.h"

#define DISK_SIZE MIB(4)
#define INTERRUPT_IN 3
#define BULK_IN 3
#define BULK_OUT 4

/* --- a device that is addressed and configured --- */

static unsigned take_into_use(struct bed *bed, unsigned port, uint32_t endpoints,
                              const enum xhci_endpoint_type *types)
{
    reset_port(bed, port);
    unsigned slot = enable_slot(bed);
    assert_int_equal(address_device(bed, slot, port, 0), XHCI_SUCCESS);
    input_begin(bed, 0, 1 | endpoints);
    input_slot(bed, port, 0, 5);
    for (unsigned dci = 2; dci < 6; dci++) {
        if (endpoints >> dci & 1)
            input_endpoint(bed, dci, types[dci]);
    }
    assert_int_equal(command(bed, XHCI_CONFIGURE_ENDPOINT, bed->input, SLOT(slot), NULL),
                     XHCI_SUCCESS);
    assert_int_equal(control(bed, slot, 0, USB_SET_CONFIGURATION, 1, 0, 0), 0);
    return slot;
}

/* Descriptors that hang together: lengths add up, endpoints are counted. */
static void check_descriptors(struct bed *bed, unsigned slot, const char *product)
{
    uint8_t *data = host(bed, bed->data);
    assert_int_equal(control(bed, slot, USB_IN, USB_GET_DESCRIPTOR, 0x100, 0, 64), 18);
    assert_int_equal(data[0], 18);
    assert_int_equal(data[17], 1);
    assert_int_equal(control(bed, slot, USB_IN, USB_GET_DESCRIPTOR, 0x200, 0, 9), 9);
    unsigned total = get_le16(data + 2), endpoints = 0, wanted = 0;
    assert_int_equal(control(bed, slot, USB_IN, USB_GET_DESCRIPTOR, 0x200, 0, 255), total);
    for (unsigned at = 0; at < total; at += data[at]) {
        assert_true(data[at] >= 2);
        endpoints += data[at + 1] == USB_DESCRIPTOR_ENDPOINT;
        wanted += data[at + 1] == USB_DESCRIPTOR_INTERFACE ? data[at + 4] : 0u;
    }
    assert_int_equal(endpoints, wanted);
    assert_int_equal(control(bed, slot, USB_IN, USB_GET_DESCRIPTOR, 0x300, 0, 255), 4);
    int length = control(bed, slot, USB_IN, USB_GET_DESCRIPTOR, 0x302, 0x409, 255);
    assert_int_equal(length, 2 + 2 * strlen(product));
    for (unsigned i = 0; i < strlen(product); i++)
        assert_int_equal(get_le16(data + 2 + 2 * i), product[i]);
    assert_int_equal(control(bed, slot, USB_IN, USB_GET_DESCRIPTOR, 0x305, 0x409, 255),
                     -XHCI_STALL);
    recover(bed, slot, 1);
    assert_int_equal(control(bed, slot, USB_IN, USB_GET_CONFIGURATION, 0, 0, 1), 1);
    assert_int_equal(data[0], 1);
    assert_int_equal(control(bed, slot, 0, USB_SET_CONFIGURATION, 7, 0, 0), -XHCI_STALL);
    recover(bed, slot, 1);
}

/* --- keyboard and tablet --- */

struct hid_rig {
    struct bed bed;
    struct usb_hid *hid;
    unsigned slot;
};

static void hid_open(struct hid_rig *rig, const struct device_class *class)
{
    static const enum xhci_endpoint_type types[6] = {[INTERRUPT_IN] = XHCI_TYPE_INTERRUPT_IN};
    bed_open(&rig->bed, false, 1, true);
    rig->hid = (struct usb_hid *)device_new(class, &rig->bed.machine.env, "input");
    rig->hid->usb.bus = &rig->bed.xhci->bus;
    check_ok(device_realize(&rig->hid->usb.device));
    bed_start(&rig->bed);
    assert_false(usb_hid_in_use(rig->hid));
    rig->slot = take_into_use(&rig->bed, 1, 1u << INTERRUPT_IN, types);
    assert_true(usb_hid_in_use(rig->hid));
}

static void hid_close(struct hid_rig *rig)
{
    struct device *device = &rig->hid->usb.device;
    bed_close(&rig->bed, &device, 1);
}

static uint64_t ask_report(struct hid_rig *rig)
{
    uint64_t at = push(&rig->bed, &rig->bed.endpoint[INTERRUPT_IN], XHCI_NORMAL, rig->bed.data, 8,
                       XHCI_TRB_INTERRUPT | XHCI_TRB_SHORT);
    doorbell(&rig->bed, rig->slot, INTERRUPT_IN);
    return at;
}

#define EXPECT_REPORT(rig, ...)                                                                    \
    do {                                                                                           \
        static const uint8_t report_[] = {__VA_ARGS__};                                            \
        uint64_t at_ = ask_report(rig);                                                            \
        expect_transfer(&(rig)->bed, at_, sizeof(report_) == 8 ? XHCI_SUCCESS : XHCI_SHORT_PACKET, \
                        8 - sizeof(report_));                                                      \
        assert_memory_equal(host(&(rig)->bed, (rig)->bed.data), report_, sizeof(report_));         \
    } while (0)

static void test_keyboard(void **state)
{
    struct hid_rig rig;
    hid_open(&rig, &usb_keyboard_class);
    struct bed *bed = &rig.bed;
    check_descriptors(bed, rig.slot, "Tenon USB keyboard");
    int length = control(bed, rig.slot, USB_IN | 1, USB_GET_DESCRIPTOR, 0x2200, 0, 255);
    assert_int_equal(length, get_le16(rig.hid->kind->description.configuration + 25));
    assert_int_equal(control(bed, rig.slot, USB_IN | 1, USB_GET_DESCRIPTOR, 0x2100, 0, 255), 9);
    /* A report for every change, in their order, however late they are asked for. */
    uint64_t at = ask_report(&rig);
    expect_quiet(bed);
    usb_keyboard_key(rig.hid, KEY_SHIFT, true);
    expect_transfer(bed, at, XHCI_SUCCESS, 0);
    usb_keyboard_key(rig.hid, key_find("a"), true);
    usb_keyboard_key(rig.hid, key_find("a"), true);
    usb_keyboard_key(rig.hid, key_find("a"), false);
    usb_keyboard_key(rig.hid, KEY_SHIFT, false);
    usb_keyboard_key(rig.hid, KEY_DOWN, true);
    usb_keyboard_key(rig.hid, KEY_DOWN, false);
    EXPECT_REPORT(&rig, 2, 0, 4, 0, 0, 0, 0, 0);
    EXPECT_REPORT(&rig, 2, 0, 0, 0, 0, 0, 0, 0);
    EXPECT_REPORT(&rig, 0, 0, 0, 0, 0, 0, 0, 0);
    EXPECT_REPORT(&rig, 0, 0, 0x51, 0, 0, 0, 0, 0);
    EXPECT_REPORT(&rig, 0, 0, 0, 0, 0, 0, 0, 0);
    /* More keys than a report has room for. */
    static const char *const keys[] = {"1", "2", "3", "4", "5", "6", "7"};
    for (unsigned i = 0; i < 7; i++)
        usb_keyboard_key(rig.hid, key_find(keys[i]), true);
    for (unsigned i = 0; i < 6; i++)
        expect_transfer(bed, ask_report(&rig), XHCI_SUCCESS, 0);
    EXPECT_REPORT(&rig, 0, 0, 1, 1, 1, 1, 1, 1);
    usb_keyboard_key(rig.hid, key_find("1"), false);
    EXPECT_REPORT(&rig, 0, 0, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x24);
    /* A guest that does not look: what fits comes, and nothing stays pressed. */
    for (unsigned i = 1; i < 7; i++)
        usb_keyboard_key(rig.hid, key_find(keys[i]), false);
    for (unsigned i = 0; i < 2 * USB_HID_REPORTS; i++) {
        usb_keyboard_key(rig.hid, KEY_RET, true);
        usb_keyboard_key(rig.hid, KEY_RET, false);
    }
    for (unsigned i = 0; i < USB_HID_REPORTS; i++)
        expect_transfer(bed, ask_report(&rig), XHCI_SUCCESS, 0);
    assert_int_equal(host(bed, bed->data)[2], 0);
    at = ask_report(&rig);
    expect_quiet(bed);
    /* Too little room for a report. */
    usb_keyboard_key(rig.hid, KEY_RET, true);
    expect_transfer(bed, at, XHCI_SUCCESS, 0);
    at = push(bed, &bed->endpoint[INTERRUPT_IN], XHCI_NORMAL, bed->data, 4, 0);
    doorbell(bed, rig.slot, INTERRUPT_IN);
    usb_keyboard_key(rig.hid, KEY_RET, false);
    expect_transfer(bed, at, XHCI_BABBLE, 0);
    hid_close(&rig);
}

static void test_every_key_has_a_usage(void **state)
{
    struct hid_rig rig;
    hid_open(&rig, &usb_keyboard_class);
    unsigned known = 0;
    for (unsigned key = 1; key < 256; key++) {
        usb_keyboard_key(rig.hid, (uint8_t)key, true);
        usb_keyboard_key(rig.hid, (uint8_t)key, false);
        if (!rig.hid->count)
            continue;
        known++;
        rig.hid->first = rig.hid->count = 0;
    }
    assert_int_equal(known, 117);
    struct key_stroke stroke = {0};
    for (unsigned character = 32; character < 127; character++) {
        stroke.count = 0;
        assert_true(key_stroke_character(&stroke, (unsigned char)character));
        usb_keyboard_key(rig.hid, stroke.key[stroke.count - 1], true);
        assert_true(rig.hid->count);
        usb_keyboard_key(rig.hid, stroke.key[stroke.count - 1], false);
        rig.hid->first = rig.hid->count = 0;
    }
    hid_close(&rig);
}

static void test_hid_requests(void **state)
{
    struct hid_rig rig;
    hid_open(&rig, &usb_keyboard_class);
    struct bed *bed = &rig.bed;
    uint8_t *data = host(bed, bed->data);
    /* LEDs, the report that is due, the protocol. */
    data[0] = 5;
    assert_int_equal(control(bed, rig.slot, 0x21, 9, 0x200, 0, 1), 1);
    assert_int_equal(rig.hid->leds, 5);
    data[0] = 0;
    assert_int_equal(control(bed, rig.slot, 0xa1, 1, 0x200, 0, 1), 1);
    assert_int_equal(data[0], 5);
    usb_keyboard_key(rig.hid, KEY_ESC, true);
    assert_int_equal(control(bed, rig.slot, 0xa1, 1, 0x100, 0, 8), 8);
    assert_int_equal(data[2], 0x29);
    assert_int_equal(control(bed, rig.slot, 0x21, 0xb, 0, 0, 0), 0);
    assert_int_equal(control(bed, rig.slot, 0xa1, 3, 0, 0, 1), 1);
    assert_int_equal(data[0], 0);
    assert_int_equal(control(bed, rig.slot, 0xa1, 1, 0x300, 0, 8), -XHCI_STALL);
    recover(bed, rig.slot, 1);
    assert_int_equal(control(bed, rig.slot, 0xa1, 3, 0, 1, 1), -XHCI_STALL);
    recover(bed, rig.slot, 1);
    /* With an idle rate the same report comes again and again, without one it does not. */
    assert_int_equal(control(bed, rig.slot, 0x21, 0xa, 1 << 8, 0, 0), 0);
    for (unsigned i = 0; i < 4; i++)
        EXPECT_REPORT(&rig, 0, 0, 0x29, 0, 0, 0, 0, 0);
    assert_int_equal(control(bed, rig.slot, 0xa1, 2, 0, 0, 1), 1);
    assert_int_equal(data[0], 1);
    assert_int_equal(control(bed, rig.slot, 0x21, 0xa, 0, 0, 0), 0);
    ask_report(&rig);
    expect_quiet(bed);
    /* It wakes a port, if it may. */
    assert_int_equal(control(bed, rig.slot, 0, USB_SET_FEATURE, 1, 0, 0), 0);
    set_portsc(bed, 1, XHCI_PORT_POWER | XHCI_PORT_LINK_STROBE | XHCI_LINK_U3 << 5);
    usb_keyboard_key(rig.hid, KEY_ESC, false);
    struct event event = next_event(bed);
    assert_int_equal(type_of(&event), XHCI_EVENT_PORT);
    hid_close(&rig);
}

static void test_tablet(void **state)
{
    struct hid_rig rig;
    hid_open(&rig, &usb_tablet_class);
    struct bed *bed = &rig.bed;
    check_descriptors(bed, rig.slot, "Tenon USB tablet");
    int length = control(bed, rig.slot, USB_IN | 1, USB_GET_DESCRIPTOR, 0x2200, 0, 255);
    assert_int_equal(length, get_le16(rig.hid->kind->description.configuration + 25));
    /* No boot protocol. */
    assert_int_equal(control(bed, rig.slot, 0xa1, 3, 0, 0, 1), -XHCI_STALL);
    recover(bed, rig.slot, 1);
    usb_tablet_event(rig.hid, 0x1234, 0x7fff, 0, 0);
    EXPECT_REPORT(&rig, 0, 0x34, 0x12, 0xff, 0x7f, 0);
    /* Of places that nobody saw, the last counts; what buttons and wheel did does not get lost. */
    usb_tablet_event(rig.hid, 1, -1, 0, 0);
    usb_tablet_event(rig.hid, 2, 99999, 0, 0);
    usb_tablet_event(rig.hid, -1, -1, 0, 1);
    usb_tablet_event(rig.hid, -1, -1, 0, 0);
    usb_tablet_event(rig.hid, -1, -1, 1, 0);
    usb_tablet_event(rig.hid, 3, 4, 0, 0);
    EXPECT_REPORT(&rig, 0, 2, 0, 0xff, 0x7f, 0);
    EXPECT_REPORT(&rig, 1, 2, 0, 0xff, 0x7f, 0);
    EXPECT_REPORT(&rig, 0, 2, 0, 0xff, 0x7f, 0);
    EXPECT_REPORT(&rig, 0, 2, 0, 0xff, 0x7f, 0xff);
    EXPECT_REPORT(&rig, 0, 3, 0, 4, 0, 0);
    hid_close(&rig);
}

/* --- mass storage --- */

struct disk_rig {
    struct bed bed;
    struct usb_storage *storage;
    struct block *block;
    uint8_t *model;
    unsigned slot;
    uint32_t tag, residue;
    char path[32];
};

static void disk_open(struct disk_rig *rig, bool threads)
{
    static const enum xhci_endpoint_type types[6] = {
        [BULK_IN] = XHCI_TYPE_BULK_IN, [BULK_OUT] = XHCI_TYPE_BULK_OUT};
    struct bed *bed = &rig->bed;
    bed_open(bed, threads, 1, true);
    rig->tag = 100;
    rig->model = malloc(DISK_SIZE);
    for (uint64_t i = 0; i < DISK_SIZE; i++)
        rig->model[i] = (uint8_t)(i * 13 + (i >> 10));
    strcpy(rig->path, "usb-test-XXXXXX");
    struct block_options options = {.id = "d0", .fd = mkstemp(rig->path), .discard = true};
    assert_int_equal(pwrite(options.fd, rig->model, DISK_SIZE, 0), DISK_SIZE);
    check_ok(block_open_raw(&options, &rig->block));
    rig->storage = (struct usb_storage *)device_new(&usb_storage_class, &bed->machine.env, "d0");
    rig->storage->usb.bus = &bed->xhci->bus;
    rig->storage->block = rig->block;
    rig->storage->serial = "STICK-1";
    check_ok(device_realize(&rig->storage->usb.device));
    bed_start(bed);
    rig->slot = take_into_use(bed, 1 + XHCI_CONNECTORS, 1u << BULK_IN | 1u << BULK_OUT, types);
}

static void disk_close(struct disk_rig *rig)
{
    struct device *device = &rig->storage->usb.device;
    bed_close(&rig->bed, &device, 1);
    block_close(rig->block);
    unlink(rig->path);
    free(rig->model);
}

/* One packet of one block; its completion code. */
static enum xhci_code packet(struct disk_rig *rig, unsigned dci, uint64_t gpa, uint32_t length,
                             uint32_t *left)
{
    struct bed *bed = &rig->bed;
    push(bed, &bed->endpoint[dci], XHCI_NORMAL, gpa, length, XHCI_TRB_INTERRUPT | XHCI_TRB_SHORT);
    doorbell(bed, rig->slot, dci);
    struct event event = next_event(bed);
    assert_int_equal(type_of(&event), XHCI_EVENT_TRANSFER);
    *left = event.status & 0xffffff;
    return (enum xhci_code)code_of_event(&event);
}

static void put_command(struct disk_rig *rig, uint64_t gpa, const uint8_t *cdb, unsigned cdb_length,
                        uint32_t length, bool in)
{
    uint8_t *wrapper = host(&rig->bed, gpa);
    memset(wrapper, 0, 31);
    put_le32(wrapper, 0x43425355);
    put_le32(wrapper + 4, ++rig->tag);
    put_le32(wrapper + 8, length);
    wrapper[12] = in ? 0x80 : 0;
    wrapper[14] = (uint8_t)cdb_length;
    memcpy(wrapper + 15, cdb, cdb_length);
}

/* The status of one command; its data moves in packets of `piece` bytes at most. */
static unsigned scsi(struct disk_rig *rig, const uint8_t *cdb, unsigned cdb_length, uint64_t gpa,
                     uint32_t length, bool in, uint32_t piece)
{
    uint64_t wrapper = rig->bed.input; /* some other memory */
    uint32_t left = 0;
    put_command(rig, wrapper, cdb, cdb_length, length, in);
    assert_int_equal(packet(rig, BULK_OUT, wrapper, 31, &left), XHCI_SUCCESS);
    for (uint32_t at = 0; at < length && !left; at += piece) {
        enum xhci_code code =
            packet(rig, in ? BULK_IN : BULK_OUT, gpa + at, MIN(piece, length - at), &left);
        assert_int_equal(code, left ? XHCI_SHORT_PACKET : XHCI_SUCCESS);
    }
    assert_int_equal(packet(rig, BULK_IN, wrapper, 13, &left), XHCI_SUCCESS);
    const uint8_t *status = host(&rig->bed, wrapper);
    assert_int_equal(get_le32(status), 0x53425355);
    assert_int_equal(get_le32(status + 4), rig->tag);
    rig->residue = get_le32(status + 8);
    return status[12];
}

static unsigned transfer(struct disk_rig *rig, bool write, uint32_t lba, uint16_t blocks,
                         uint64_t gpa, uint32_t piece)
{
    uint8_t cdb[10] = {write ? SCSI_WRITE_10 : SCSI_READ_10};
    put_be32(cdb + 2, lba);
    put_be16(cdb + 7, blocks);
    return scsi(rig, cdb, sizeof(cdb), gpa, blocks * 512u, !write, piece);
}

static uint32_t sense_of(struct disk_rig *rig)
{
    static const uint8_t request_sense[6] = {SCSI_REQUEST_SENSE, 0, 0, 0, 18};
    const uint8_t *data = host(&rig->bed, rig->bed.data);
    assert_int_equal(scsi(rig, request_sense, 6, rig->bed.data, 18, true, 18), 0);
    return (uint32_t)data[2] << 16 | get_be16(data + 12);
}

static void run_disk(bool threads)
{
    struct disk_rig rig;
    disk_open(&rig, threads);
    struct bed *bed = &rig.bed;
    uint8_t *data = host(bed, bed->data);
    check_descriptors(bed, rig.slot, "Tenon USB disk");
    assert_int_equal(control(bed, rig.slot, USB_IN, USB_GET_DESCRIPTOR, 0xf00, 0, 255), 22);
    assert_int_equal(control(bed, rig.slot, 0xa1, 0xfe, 0, 0, 1), 1);
    assert_int_equal(data[0], 0);
    /* The first command hears of the power-on. */
    static const uint8_t ready[6] = {SCSI_TEST_UNIT_READY};
    assert_int_equal(scsi(&rig, ready, 6, 0, 0, false, 0), 1);
    assert_int_equal(sense_of(&rig), 0x062900);
    assert_int_equal(sense_of(&rig), 0);
    assert_int_equal(scsi(&rig, ready, 6, 0, 0, true, 0), 0);
    /* An answer that is shorter than there is room for. */
    static const uint8_t inquiry[6] = {SCSI_INQUIRY, 0, 0, 0, 36};
    assert_int_equal(scsi(&rig, inquiry, 6, bed->data, 255, true, 255), 0);
    assert_int_equal(rig.residue, 255 - 36);
    assert_memory_equal(data + 8, "TENON   ", 8);
    static const uint8_t capacity[10] = {SCSI_READ_CAPACITY_10};
    assert_int_equal(scsi(&rig, capacity, 10, bed->data, 8, true, 8), 0);
    assert_int_equal(get_be32(data), DISK_SIZE / 512 - 1);
    /* Data in pieces of every size, whatever the command. */
    static const uint32_t pieces[] = {0x8000, 512, 1000, 4096, 100};
    for (unsigned i = 0; i < ARRAY_SIZE(pieces); i++) {
        memset(data, 0, 0x8000);
        assert_int_equal(transfer(&rig, false, 8 + i, 64, bed->data, pieces[i]), 0);
        assert_int_equal(rig.residue, 0);
        assert_memory_equal(data, rig.model + (8 + i) * 512, 0x8000);
        memset(data, (int)(0x31 + i), 0x8000);
        memset(rig.model + (1000 + 80 * i) * 512, (int)(0x31 + i), 0x8000);
        assert_int_equal(transfer(&rig, true, 1000 + 80 * i, 64, bed->data, pieces[i]), 0);
    }
    uint8_t *disk = malloc(DISK_SIZE);
    int fd = open(rig.path, O_RDONLY);
    assert_int_equal(pread(fd, disk, DISK_SIZE, 0), DISK_SIZE);
    assert_memory_equal(disk, rig.model, DISK_SIZE);
    close(fd);
    free(disk);
    /* Beyond the end: no data, and the reason when asked. */
    assert_int_equal(transfer(&rig, false, DISK_SIZE / 512 - 1, 2, bed->data, 1024), 1);
    assert_int_equal(rig.residue, 1024);
    assert_int_equal(sense_of(&rig), 0x052100);
    assert_int_equal(transfer(&rig, true, DISK_SIZE / 512 - 1, 2, bed->data, 1024), 1);
    assert_int_equal(sense_of(&rig), 0x052100);
    disk_close(&rig);
}

static void test_disk(void **state)
{
    run_disk(false);
    run_disk(true);
}

static void clear_halt(struct disk_rig *rig, unsigned dci, unsigned endpoint)
{
    recover(&rig->bed, rig->slot, dci);
    assert_int_equal(control(&rig->bed, rig->slot, 2, USB_CLEAR_FEATURE, 0, (uint16_t)endpoint, 0),
                     0);
}

static void test_disk_errors(void **state)
{
    struct disk_rig rig;
    disk_open(&rig, false);
    struct bed *bed = &rig.bed;
    static const uint8_t ready[6] = {SCSI_TEST_UNIT_READY};
    uint32_t left;
    assert_int_equal(scsi(&rig, ready, 6, 0, 0, false, 0), 1);
    /* Nonsense stalls both pipes, and clearing them is not enough. */
    static const unsigned bytes[] = {0, 4, 14, 13};
    for (unsigned i = 0; i <= ARRAY_SIZE(bytes); i++) {
        put_command(&rig, bed->data, ready, 6, 0, false);
        if (i < ARRAY_SIZE(bytes) && i != 1)
            host(bed, bed->data)[bytes[i]] = 0xff;
        uint32_t length = i == 1 ? 30 : i == ARRAY_SIZE(bytes) ? 32 : 31;
        assert_int_equal(packet(&rig, BULK_OUT, bed->data, length, &left), XHCI_STALL);
        clear_halt(&rig, BULK_OUT, 2);
        assert_int_equal(packet(&rig, BULK_IN, bed->data, 13, &left), XHCI_STALL);
        clear_halt(&rig, BULK_IN, 0x81);
        put_command(&rig, bed->data, ready, 6, 0, false);
        assert_int_equal(packet(&rig, BULK_OUT, bed->data, 31, &left), XHCI_STALL);
        recover(bed, rig.slot, BULK_OUT);
        assert_int_equal(control(bed, rig.slot, 0x21, 0xff, 0, 0, 0), 0);
        for (unsigned endpoint = 0; endpoint < 2; endpoint++)
            assert_int_equal(
                control(bed, rig.slot, 2, USB_CLEAR_FEATURE, 0, endpoint ? 2 : 0x81, 0), 0);
        assert_int_equal(scsi(&rig, ready, 6, 0, 0, false, 0), 0);
    }
    /* The command moves more than the wrapper says: a phase error. */
    uint8_t read[10] = {SCSI_READ_10, 0, 0, 0, 0, 0, 0, 0, 2};
    assert_int_equal(scsi(&rig, read, 10, bed->data, 512, true, 512), 2);
    assert_int_equal(scsi(&rig, read, 10, bed->data, 0, true, 512), 2);
    /* More than the buffer holds: the command fails, the transport goes on. */
    put_be16(read + 7, USB_STORAGE_BUFFER / 512 + 1);
    assert_int_equal(scsi(&rig, read, 10, bed->data, USB_STORAGE_BUFFER + 512, true, 0x8000), 1);
    assert_int_equal(sense_of(&rig), 0x052400);
    /* There is one unit. */
    put_command(&rig, bed->data, ready, 6, 0, false);
    host(bed, bed->data)[13] = 3;
    assert_int_equal(packet(&rig, BULK_OUT, bed->data, 31, &left), XHCI_SUCCESS);
    assert_int_equal(packet(&rig, BULK_IN, bed->data, 13, &left), XHCI_SUCCESS);
    assert_int_equal(host(bed, bed->data)[12], 1);
    assert_int_equal(sense_of(&rig), 0x052500);
    /* No room for the status. */
    put_command(&rig, bed->data, ready, 6, 0, false);
    assert_int_equal(packet(&rig, BULK_OUT, bed->data, 31, &left), XHCI_SUCCESS);
    assert_int_equal(packet(&rig, BULK_IN, bed->data, 12, &left), XHCI_BABBLE);
    recover(bed, rig.slot, BULK_IN);
    assert_int_equal(transfer(&rig, false, 0, 1, bed->data, 512), 0);
    /* A reset with the medium at work: its end is nobody's, the next command waits for it. */
    read[8] = 64;
    read[7] = 0;
    put_command(&rig, bed->data, read, 10, 0x8000, true);
    assert_int_equal(packet(&rig, BULK_OUT, bed->data, 31, &left), XHCI_SUCCESS);
    assert_int_equal(control(bed, rig.slot, 0x21, 0xff, 0, 0, 0), 0);
    assert_int_equal(transfer(&rig, false, 77, 8, bed->data, 4096), 0);
    assert_memory_equal(host(bed, bed->data), rig.model + 77 * 512, 4096);
    disk_close(&rig);
}

static void test_disk_state(void **state)
{
    struct disk_rig rig;
    disk_open(&rig, false);
    struct bed *bed = &rig.bed;
    struct device *devices[] = {&bed->xhci->pci.device, &rig.storage->usb.device};
    struct state_writer writers[2];
    struct state_reader reader;
    uint32_t left;
    static const uint8_t ready[6] = {SCSI_TEST_UNIT_READY};
    assert_int_equal(scsi(&rig, ready, 6, 0, 0, false, 0), 1);
    /* In the middle of the data of a read. */
    uint8_t read[10] = {SCSI_READ_10, 0, 0, 0, 0, 9, 0, 0, 8};
    put_command(&rig, bed->input, read, 10, 4096, true);
    assert_int_equal(packet(&rig, BULK_OUT, bed->input, 31, &left), XHCI_SUCCESS);
    assert_int_equal(packet(&rig, BULK_IN, bed->data, 1000, &left), XHCI_SUCCESS);
    for (unsigned round = 0; round < 2; round++) {
        state_writer_init(&writers[round]);
        for (unsigned i = 0; i < 2; i++)
            device_quiesce(devices[i]);
        for (unsigned i = 0; i < 2; i++)
            device_save(devices[i], &writers[round]);
        state_writer_end(&writers[round]);
        if (round)
            break;
        device_reset(devices[0]);
        assert_int_equal(rig.storage->phase, USB_STORAGE_COMMAND);
        memset(rig.storage->buffer, 0, USB_STORAGE_BUFFER);
        device_quiesce(devices[0]);
        check_ok(state_reader_init(&reader, writers[0].out.data, writers[0].out.len));
        for (unsigned i = 0; i < 2; i++)
            check_ok(device_load(devices[i], &reader));
    }
    assert_int_equal(writers[0].out.len, writers[1].out.len);
    assert_memory_equal(writers[0].out.data, writers[1].out.data, writers[0].out.len);
    for (unsigned i = 0; i < 2; i++)
        device_resume(devices[i]);
    assert_int_equal(packet(&rig, BULK_IN, bed->data + 1000, 3096, &left), XHCI_SUCCESS);
    assert_memory_equal(host(bed, bed->data), rig.model + 9 * 512, 4096);
    assert_int_equal(packet(&rig, BULK_IN, bed->input, 13, &left), XHCI_SUCCESS);
    assert_int_equal(get_le32(host(bed, bed->input) + 4), rig.tag);
    /* A controller stopped for an operation on its disk holds the command back. */
    device_quiesce(devices[1]);
    put_command(&rig, bed->input, read, 10, 4096, true);
    assert_int_equal(packet(&rig, BULK_OUT, bed->input, 31, &left), XHCI_SUCCESS);
    push(bed, &bed->endpoint[BULK_IN], XHCI_NORMAL, bed->data, 4096, XHCI_TRB_INTERRUPT);
    doorbell(bed, rig.slot, BULK_IN);
    expect_quiet(bed);
    device_resume(devices[1]);
    struct event event = next_event(bed);
    assert_int_equal(code_of_event(&event), XHCI_SUCCESS);
    state_writer_fini(&writers[0]);
    state_writer_fini(&writers[1]);
    disk_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keyboard),     cmocka_unit_test(test_every_key_has_a_usage),
        cmocka_unit_test(test_hid_requests), cmocka_unit_test(test_tablet),
        cmocka_unit_test(test_disk),         cmocka_unit_test(test_disk_errors),
        cmocka_unit_test(test_disk_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
