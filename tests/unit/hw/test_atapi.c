/*
 * Optical drives behind the AHCI controller: what they say of themselves and of a disc, reads,
 * sense data and unit attention, the tray, and discs that are changed while the host looks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "ahci_host.h"
#include "hw/disk/scsi_internal.h"

#define KEY(key, asc) ((uint32_t)(key) << 16 | (asc))
#define POWER_ON KEY(SCSI_KEY_UNIT_ATTENTION, SCSI_ASC_POWER_ON)
#define CHANGED KEY(SCSI_KEY_UNIT_ATTENTION, SCSI_ASC_MEDIUM_CHANGED)
#define NO_DISC KEY(SCSI_KEY_NOT_READY, SCSI_ASC_NO_MEDIUM)
#define TRAY_OPEN KEY(SCSI_KEY_NOT_READY, SCSI_ASC_TRAY_OPEN)
#define ILLEGAL(asc) KEY(SCSI_KEY_ILLEGAL_REQUEST, asc)

static void test_commands(void **state)
{
    struct bed bed;
    bed_open(&bed, false, true);
    const uint8_t *answer = host(&bed, bed.data);
    /* INQUIRY does not clear the unit attention, TEST UNIT READY tells it once. */
    assert_int_equal(PACKET(&bed, PORT_DISC, 36, 0x12, 0, 0, 0, 36), 0);
    assert_int_equal(answer[0], 0x05);
    assert_int_equal(answer[1], 0x80);
    assert_memory_equal(answer + 16, "DVD-ROM", 7);
    assert_int_equal(moved(&bed, PORT_DISC), 36);
    assert_int_equal(PACKET(&bed, PORT_DISC, 0, 0), POWER_ON);
    assert_int_equal(PACKET(&bed, PORT_DISC, 0, 0), 0);
    assert_int_equal(PACKET(&bed, PORT_DISC, 8, 0x25), 0);
    assert_int_equal(get_be32(answer), DISC_SIZE / 2048 - 1);
    assert_int_equal(get_be32(answer + 4), 2048);
    /* READ(10) and (12); the end of the disc. */
    assert_int_equal(PACKET(&bed, PORT_DISC, 8 * 2048, 0x28, 0, 0, 0, 0, 5, 0, 0, 8), 0);
    assert_memory_equal(answer, bed.model + 5 * 2048, 8 * 2048);
    assert_int_equal(PACKET(&bed, PORT_DISC, 2 * 2048, 0xa8, 0, 0, 0, 1, 0x10, 0, 0, 0, 2), 0);
    assert_memory_equal(answer, bed.model + 0x110 * 2048, 2 * 2048);
    assert_int_equal(PACKET(&bed, PORT_DISC, 4096, 0x28, 0, 0, 0, 1, 0xff, 0, 0, 2),
                     ILLEGAL(SCSI_ASC_LBA_RANGE));
    /* Table of contents, by sectors and by time. */
    assert_int_equal(PACKET(&bed, PORT_DISC, 20, 0x43, 0, 0, 0, 0, 0, 0, 0, 20), 0);
    assert_int_equal(get_be16(answer), 18);
    assert_int_equal(answer[4 + 1], 0x14);
    assert_int_equal(answer[12 + 2], 0xaa);
    assert_int_equal(get_be32(answer + 16), DISC_SIZE / 2048);
    assert_int_equal(PACKET(&bed, PORT_DISC, 20, 0x43, 2, 0, 0, 0, 0, 1, 0, 20), 0);
    assert_int_equal(get_be32(answer + 8), 0x000200); /* 0:2:0 */
    assert_int_equal(get_be32(answer + 16), 0x000800 | 62);
    assert_int_equal(PACKET(&bed, PORT_DISC, 12, 0x43, 0, 1, 0, 0, 0, 0, 0, 12), 0);
    assert_int_equal(PACKET(&bed, PORT_DISC, 12, 0x43, 0, 5, 0, 0, 0, 0, 0, 12),
                     ILLEGAL(SCSI_ASC_INVALID_FIELD_CDB));
    /* The profile of a small disc is CD-ROM; one feature alone. */
    assert_int_equal(PACKET(&bed, PORT_DISC, 256, 0x46, 0, 0, 0, 0, 0, 0, 1, 0), 0);
    assert_int_equal(get_be16(answer + 6), 0x0008);
    assert_int_equal(get_be32(answer) + 4, moved(&bed, PORT_DISC));
    assert_int_equal(PACKET(&bed, PORT_DISC, 64, 0x46, 2, 0, 3, 0, 0, 0, 0, 64), 0);
    assert_int_equal(get_be16(answer + 8), 3);
    assert_int_equal(moved(&bed, PORT_DISC), 16);
    /* Mode pages, disc and track, and what the drive does not know. */
    assert_int_equal(PACKET(&bed, PORT_DISC, 128, 0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 128), 0);
    assert_int_equal(answer[8], 0x2a);
    assert_int_equal(PACKET(&bed, PORT_DISC, 64, 0x1a, 0, 0x3f, 0, 64), 0);
    assert_int_equal(PACKET(&bed, PORT_DISC, 64, 0x1a, 0, 0x08, 0, 64),
                     ILLEGAL(SCSI_ASC_INVALID_FIELD_CDB));
    assert_int_equal(PACKET(&bed, PORT_DISC, 34, 0x51, 0, 0, 0, 0, 0, 0, 0, 34), 0);
    assert_int_equal(PACKET(&bed, PORT_DISC, 36, 0x52, 1, 0, 0, 0, 1, 0, 0, 36), 0);
    assert_int_equal(PACKET(&bed, PORT_DISC, 0, 0x2a), ILLEGAL(SCSI_ASC_INVALID_OPCODE));
    /* Without a failure there is nothing to sense. */
    assert_int_equal(PACKET(&bed, PORT_DISC, 18, 0x03, 0, 0, 0, 18), 0);
    assert_int_equal(answer[2], 0);
    bed_close(&bed);
}

/* By PIO the data is announced, then the end. */
static void test_pio(void **state)
{
    static const uint8_t inquiry[12] = {0x12, 0, 0, 0, 36};
    struct bed bed;
    bed_open(&bed, false, true);
    assert_int_equal(RUN(&bed, PORT_DISC, ATA_PACKET, .cdb = inquiry, .length = 36), GOOD_TFD);
    assert_int_equal(preg(&bed, PORT_DISC, AHCI_PxIS) & (AHCI_IS_PSS | AHCI_IS_DHRS),
                     AHCI_IS_PSS | AHCI_IS_DHRS);
    assert_int_equal(get_le16(host(&bed, bed.fis[PORT_DISC] + AHCI_RX_PIO_SETUP + 16)), 36);
    assert_int_equal(host(&bed, bed.fis[PORT_DISC] + AHCI_RX_REGISTER)[12], 3);
    bed_close(&bed);
}

/* Memory counts only as far as a command needs it. */
static void test_memory(void **state)
{
    static const uint8_t ready[12] = {0x00}, read[12] = {0x28, 0, 0, 0, 0, 0, 0, 0, 4};
    struct bed bed;
    bed_open(&bed, false, true);
    assert_int_equal(PACKET(&bed, PORT_DISC, 0, 0), POWER_ON);
    assert_int_equal(RUN(&bed, PORT_DISC, ATA_PACKET, .cdb = ready, .features = 1,
                         .gpa = RAM_SIZE - 4096, .length = MIB(4)),
                     GOOD_TFD);
    assert_int_equal(RUN(&bed, PORT_DISC, ATA_PACKET, .cdb = ready, .features = 1, .gpa = GIB(1),
                         .length = 4096),
                     GOOD_TFD);
    RUN(&bed, PORT_DISC, ATA_PACKET, .cdb = read, .features = 1, .gpa = RAM_SIZE - 4096,
        .length = 4 * 2048);
    assert_true(preg(&bed, PORT_DISC, AHCI_PxIS) & AHCI_IS_HBFS);
    start_port(&bed, PORT_DISC);
    RUN(&bed, PORT_DISC, ATA_PACKET, .cdb = read, .features = 1, .length = 4096);
    assert_true(preg(&bed, PORT_DISC, AHCI_PxIS) & AHCI_IS_OFS);
    start_port(&bed, PORT_DISC);
    /* Data in the wrong direction has no room. */
    RUN(&bed, PORT_DISC, ATA_PACKET, .cdb = read, .features = 1, .length = 8192, .write = true);
    assert_true(preg(&bed, PORT_DISC, AHCI_PxIS) & AHCI_IS_OFS);
    start_port(&bed, PORT_DISC);
    assert_int_equal(RUN(&bed, PORT_DISC, ATA_PACKET, .cdb = read, .features = 1, .length = 8192),
                     GOOD_TFD);
    assert_memory_equal(host(&bed, bed.data), bed.model, 8192);
    bed_close(&bed);
}

struct moves {
    unsigned count;
    bool open;
};

static void moved_tray(void *opaque, bool open)
{
    struct moves *moves = opaque;
    moves->count++;
    moves->open = open;
}

/* The media event that is told, and what the drive says of itself beside. */
static unsigned event(struct bed *bed, unsigned port, uint8_t *status)
{
    const uint8_t *answer = host(bed, bed->data);
    assert_int_equal(PACKET(bed, port, 8, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 0);
    assert_int_equal(answer[2] & 0x80, 0);
    *status = answer[5];
    return answer[4];
}

static void test_tray(void **state)
{
    struct bed bed;
    struct moves moves = {0};
    uint8_t status;
    bed_open(&bed, false, true);
    bed.ahci->port[PORT_DISC].unit.tray_moved = moved_tray;
    bed.ahci->port[PORT_DISC].unit.opaque = &moves;
    assert_int_equal(PACKET(&bed, PORT_DISC, 0, 0), POWER_ON);
    assert_int_equal(event(&bed, PORT_DISC, &status), SCSI_MEDIA_NOTHING);
    assert_int_equal(status, 2);
    /* Locked: the tray stays. */
    assert_int_equal(PACKET(&bed, PORT_DISC, 0, 0x1e, 0, 0, 0, 1), 0);
    assert_int_equal(PACKET(&bed, PORT_DISC, 0, 0x1b, 0, 0, 0, 2),
                     ILLEGAL(SCSI_ASC_REMOVAL_PREVENTED));
    assert_int_equal(PACKET(&bed, PORT_DISC, 0, 0x1e), 0);
    assert_int_equal(PACKET(&bed, PORT_DISC, 0, 0x1b, 0, 0, 0, 2), 0);
    assert_int_equal(moves.count, 1);
    assert_true(moves.open);
    assert_int_equal(PACKET(&bed, PORT_DISC, 0, 0), TRAY_OPEN);
    assert_int_equal(event(&bed, PORT_DISC, &status), SCSI_MEDIA_REMOVED);
    assert_int_equal(status, 3);
    assert_int_equal(PACKET(&bed, PORT_DISC, 0, 0x1b, 0, 0, 0, 3), 0);
    assert_int_equal(moves.count, 2);
    assert_int_equal(event(&bed, PORT_DISC, &status), SCSI_MEDIA_NEW);
    assert_int_equal(PACKET(&bed, PORT_DISC, 0, 0), CHANGED);
    assert_int_equal(PACKET(&bed, PORT_DISC, 0, 0), 0);
    /* A class that the drive has no events of. */
    assert_int_equal(PACKET(&bed, PORT_DISC, 8, 0x4a, 1, 0, 0, 0x02, 0, 0, 0, 8), 0);
    assert_int_equal(host(&bed, bed.data)[2], 0x80);
    assert_int_equal(PACKET(&bed, PORT_DISC, 8, 0x4a, 0, 0, 0, 0x10, 0, 0, 0, 8),
                     ILLEGAL(SCSI_ASC_INVALID_FIELD_CDB));
    bed_close(&bed);
}

static struct image *disc_of(const char *path)
{
    struct image *file, *image;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    check_ok(image_open_fd(fd, 0, &file));
    check_ok(image_open(file, image_driver_find("raw"), 0, NULL, &image));
    return image;
}

/* As the VM does it: quiesced, the node exchanged, the drive told. */
static void change(struct bed *bed, struct image *disc, bool tray_open)
{
    struct ahci_port *port = &bed->ahci->port[PORT_EMPTY];
    device_quiesce(&bed->ahci->pci.device);
    check_ok(block_set_medium(bed->block[PORT_EMPTY], disc));
    lock_take(&bed->ahci->pci.device.lock);
    scsi_unit_medium_changed(&port->unit, tray_open);
    lock_drop(&bed->ahci->pci.device.lock);
    device_resume(&bed->ahci->pci.device);
}

static void test_change(void **state)
{
    struct bed bed;
    uint8_t status;
    bed_open(&bed, false, true);
    assert_int_equal(PACKET(&bed, PORT_EMPTY, 0, 0), POWER_ON);
    assert_int_equal(PACKET(&bed, PORT_EMPTY, 0, 0), NO_DISC);
    assert_int_equal(PACKET(&bed, PORT_EMPTY, 8, 0x25), NO_DISC);
    assert_int_equal(PACKET(&bed, PORT_EMPTY, 2048, 0x28, 0, 0, 0, 0, 0, 0, 0, 1), NO_DISC);
    change(&bed, disc_of(bed.path[PORT_DISC]), false);
    assert_int_equal(event(&bed, PORT_EMPTY, &status), SCSI_MEDIA_NEW);
    assert_int_equal(PACKET(&bed, PORT_EMPTY, 0, 0), CHANGED);
    assert_int_equal(PACKET(&bed, PORT_EMPTY, 8, 0x25), 0);
    assert_int_equal(get_be32(host(&bed, bed.data)), DISC_SIZE / 2048 - 1);
    assert_int_equal(PACKET(&bed, PORT_EMPTY, 2048, 0x28, 0, 0, 0, 0, 9, 0, 0, 1), 0);
    assert_memory_equal(host(&bed, bed.data), bed.model + 9 * 2048, 2048);
    /* A larger one instead, then none. */
    change(&bed, disc_of(bed.path[PORT_READONLY]), false);
    assert_int_equal(PACKET(&bed, PORT_EMPTY, 0, 0), CHANGED);
    assert_int_equal(PACKET(&bed, PORT_EMPTY, 8, 0x25), 0);
    assert_int_equal(get_be32(host(&bed, bed.data)), DISK_SIZE / 2048 - 1);
    change(&bed, NULL, true);
    assert_int_equal(event(&bed, PORT_EMPTY, &status), SCSI_MEDIA_REMOVED);
    assert_int_equal(status, 1);
    assert_int_equal(PACKET(&bed, PORT_EMPTY, 0, 0), TRAY_OPEN);
    /* A disk of another kind keeps its node. */
    assert_non_null(bed.block[PORT_DISK]);
    struct err *err = block_set_medium(bed.block[PORT_DISK], NULL);
    assert_non_null(err);
    err_free(err);
    bed_close(&bed);
}

static void test_state(void **state)
{
    struct bed bed;
    bed_open(&bed, false, true);
    assert_int_equal(PACKET(&bed, PORT_DISC, 0, 0), POWER_ON);
    assert_int_equal(PACKET(&bed, PORT_DISC, 0, 0x1e, 0, 0, 0, 1), 0);
    RUN(&bed, PORT_DISC, ATA_PACKET, .cdb = (const uint8_t[12]){0x77}, .features = 1);
    struct ahci *fresh = ahci_new(&bed);
    round_trip(&bed.ahci->pci.device, &fresh->pci.device);
    device_free(&bed.ahci->pci.device);
    bed.ahci = fresh;
    device_resume(&fresh->pci.device);
    start_port(&bed, PORT_DISC);
    /* The sense data of the failure, and the lock, came along. */
    assert_int_equal(PACKET(&bed, PORT_DISC, 18, 0x03, 0, 0, 0, 18), 0);
    assert_int_equal(get_be16(host(&bed, bed.data) + 12), SCSI_ASC_INVALID_OPCODE);
    assert_int_equal(PACKET(&bed, PORT_DISC, 0, 0x1b, 0, 0, 0, 2),
                     ILLEGAL(SCSI_ASC_REMOVAL_PREVENTED));
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands), cmocka_unit_test(test_pio),
        cmocka_unit_test(test_memory),   cmocka_unit_test(test_tray),
        cmocka_unit_test(test_change),   cmocka_unit_test(test_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
