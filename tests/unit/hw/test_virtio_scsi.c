/*
 * SCSI commands through virtio-scsi, on both ring kinds: transfers, provisioning, what a unit says
 * of itself, sense data, hostile commands.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "virtio_scsi_host.h"

static void run_transfers(bool threads, uint64_t features)
{
    static const uint8_t reads[] = {SCSI_READ_6, SCSI_READ_10, SCSI_READ_12, SCSI_READ_16};
    static const uint8_t writes[] = {SCSI_WRITE_6, SCSI_WRITE_10, SCSI_WRITE_12, SCSI_WRITE_16};
    struct bed bed;
    bed_open(&bed, threads);
    bed_start(&bed, features);
    take_attention(&bed);
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned shape = 0; shape < 4; shape++) {
            unsigned lba = 100 * i + 16 * shape;
            assert_int_equal(rw(&bed, 0, reads[i], lba, 8, shape), 0);
            assert_memory_equal(data(&bed, 0), bed.model + 512 * lba, 4096);
            assert_int_equal(residual(&bed), 0);
            memset(data(&bed, 0), (int)(1 + 4 * i + shape), 0x3000);
            assert_int_equal(rw(&bed, 0, writes[i], 1000 + lba, 16, shape), 0);
            memset(bed.model + 512 * (1000 + lba), (int)(1 + 4 * i + shape), 8192);
        }
    }
    assert_int_equal(RUN(&bed, 0, 0, 0, SCSI_SYNC_CACHE_10, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0);
    assert_int_equal(RUN(&bed, 0, 0, 0, SCSI_SYNC_CACHE_16), 0);
    /* More room than the command moves. */
    assert_int_equal(RUN(&bed, 0, 0, 2048, SCSI_READ_10, 0, 0, 0, 0, 9, 0, 0, 1, 0), 0);
    assert_int_equal(residual(&bed), 1536);
    assert_memory_equal(data(&bed, 0), bed.model + 512 * 9, 512);
    /* FUA. */
    memset(data(&bed, 0), 0x5e, 512);
    assert_int_equal(RUN(&bed, 0, 512, 0, SCSI_WRITE_10, 8, 0, 0, 0, 3, 0, 0, 1, 0), 0);
    memset(bed.model + 512 * 3, 0x5e, 512);
    verify_file(&bed);
    bed_close(&bed);
}

static void test_transfers(void **state)
{
    run_transfers(false, 0);
    run_transfers(false, PACKED | EVENT);
    run_transfers(true, PACKED | INDIRECT);
    run_transfers(true, EVENT | INDIRECT);
}

static void put_unmap(uint8_t *at, unsigned count, unsigned index, uint64_t lba, uint32_t blocks)
{
    put_be16(at, (uint16_t)(6 + 16 * count));
    put_be16(at + 2, (uint16_t)(16 * count));
    put_be64(at + 8 + 16 * index, lba);
    put_be32(at + 16 + 16 * index, blocks);
}

static void test_provisioning(void **state)
{
    struct bed bed;
    bed_open(&bed, false);
    bed_start(&bed, 0);
    take_attention(&bed);
    memset(data(&bed, 0), 0, 64);
    put_unmap(data(&bed, 0), 2, 0, 4096, 64);
    put_unmap(data(&bed, 0), 2, 1, 5000, 8);
    assert_int_equal(RUN(&bed, 0, 40, 0, SCSI_UNMAP, 0, 0, 0, 0, 0, 0, 0, 40, 0), 0);
    memset(bed.model + 4096 * 512, 0, 64 * 512);
    memset(bed.model + 5000 * 512, 0, 8 * 512);
    verify_file(&bed);
    assert_int_equal(RUN(&bed, 0, 0, 0, SCSI_UNMAP), 0); /* no list: nothing to do */
    assert_int_equal(RUN(&bed, 0, 8, 0, SCSI_UNMAP, 0, 0, 0, 0, 0, 0, 0, 8, 0),
                     ILLEGAL(SCSI_ASC_LIST_LENGTH)); /* the list says 32 bytes */
    assert_int_equal(RUN(&bed, 0, 4, 0, SCSI_UNMAP, 0, 0, 0, 0, 0, 0, 0, 4, 0),
                     ILLEGAL(SCSI_ASC_LIST_LENGTH));
    put_unmap(data(&bed, 0), 1, 0, DISK_SIZE / 512 - 1, 2);
    assert_int_equal(RUN(&bed, 0, 24, 0, SCSI_UNMAP, 0, 0, 0, 0, 0, 0, 0, 24, 0),
                     ILLEGAL(SCSI_ASC_LBA_RANGE));
    put_unmap(data(&bed, 0), 1, 0, ~0ull, 0xffffffff);
    assert_int_equal(RUN(&bed, 0, 24, 0, SCSI_UNMAP, 0, 0, 0, 0, 0, 0, 0, 24, 0),
                     ILLEGAL(SCSI_ASC_LBA_RANGE));
    put_unmap(data(&bed, 0), 65, 0, 0, 0);
    assert_int_equal(RUN(&bed, 0, 1048, 0, SCSI_UNMAP, 0, 0, 0, 0, 0, 0, 4, 24, 0),
                     ILLEGAL(SCSI_ASC_INVALID_FIELD_LIST));
    assert_int_equal(RUN(&bed, 2, 24, 0, SCSI_UNMAP, 0, 0, 0, 0, 0, 0, 0, 24, 0),
                     ILLEGAL(SCSI_ASC_INVALID_OPCODE));
    /* WRITE SAME: zeros with and without data, and a pattern over more than one piece. */
    assert_int_equal(
        RUN(&bed, 0, 0, 0, SCSI_WRITE_SAME_16, 0x09, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 32), 0);
    memset(bed.model + 4096 * 512, 0, 32 * 512);
    memset(data(&bed, 0), 0, 512);
    assert_int_equal(RUN(&bed, 0, 512, 0, SCSI_WRITE_SAME_10, 0, 0, 0, 0, 70, 0, 0, 9, 0), 0);
    memset(bed.model + 70 * 512, 0, 9 * 512);
    for (unsigned i = 0; i < 512; i++)
        data(&bed, 0)[i] = (uint8_t)(i * 7);
    assert_int_equal(RUN(&bed, 0, 512, 0, SCSI_WRITE_SAME_10, 0, 0, 0, 0, 80, 0, 0, 200, 0), 0);
    for (unsigned i = 0; i < 200 * 512; i++)
        bed.model[80 * 512 + i] = (uint8_t)(i % 512 * 7);
    verify_file(&bed);
    assert_int_equal(RUN(&bed, 0, 512, 0, SCSI_WRITE_SAME_10, 0, 0, 0, 0, 80, 0, 0, 0, 0),
                     ILLEGAL(SCSI_ASC_INVALID_FIELD_CDB));
    assert_int_equal(RUN(&bed, 1, 512, 0, SCSI_WRITE_SAME_10, 0, 0, 0, 0, 80, 0, 0, 1, 0),
                     PROTECTED(SCSI_ASC_WRITE_PROTECTED));
    verify_file(&bed);
    bed_close(&bed);
}

static void test_identity(void **state)
{
    struct bed bed;
    bed_open(&bed, false);
    bed_start(&bed, 0);
    uint8_t *at = data(&bed, 0);
    /* These answer while a unit attention is pending. */
    assert_int_equal(RUN(&bed, 0, 0, 96, SCSI_INQUIRY, 0, 0, 0, 96), 0);
    assert_int_equal(at[0], 0);
    assert_memory_equal(at + 8, "TENON   DISK            1.0 ", 28);
    assert_int_equal(residual(&bed), 96 - 66);
    assert_int_equal(RUN(&bed, 9, 0, 36, SCSI_INQUIRY, 0, 0, 0, 36), 0);
    assert_int_equal(at[0], 0x7f);
    assert_int_equal(RUN(&bed, 0, 0, 64, SCSI_REPORT_LUNS, 0, 0, 0, 0, 0, 0, 0, 0, 64), 0);
    assert_int_equal(get_be32(at), 8 * UNITS);
    assert_int_equal(get_be16(at + 8 + 16), 2);
    assert_int_equal(RUN(&bed, 0, 0, 18, SCSI_REQUEST_SENSE, 0, 0, 0, 18), 0);
    assert_int_equal(get_be16(at + 12), SCSI_ASC_POWER_ON);
    assert_int_equal(RUN(&bed, 0, 0, 0, SCSI_TEST_UNIT_READY), 0);
    /* Vital product data: every page that the list names is there. */
    assert_int_equal(RUN(&bed, 0, 0, 64, SCSI_INQUIRY, 1, 0, 0, 64), 0);
    uint8_t pages[16], count = at[3];
    memcpy(pages, at + 4, count);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(RUN(&bed, 0, 0, 128, SCSI_INQUIRY, 1, pages[i], 0, 128), 0);
        assert_int_equal(at[1], pages[i]);
        assert_int_equal(residual(&bed), 128 - 4 - get_be16(at + 2));
        if (pages[i] == 0x80)
            assert_memory_equal(at + 4, "SERIAL-0", 8);
        if (pages[i] == 0x83)
            assert_memory_equal(at + 8, "TENON   SERIAL-0", 16);
        if (pages[i] == 0xb2)
            assert_int_equal(at[5], 0xe0);
    }
    assert_int_equal(RUN(&bed, 0, 0, 64, SCSI_INQUIRY, 1, 0x42, 0, 64),
                     ILLEGAL(SCSI_ASC_INVALID_FIELD_CDB));
    assert_int_equal(RUN(&bed, 0, 0, 64, SCSI_INQUIRY, 0, 0x80, 0, 64),
                     ILLEGAL(SCSI_ASC_INVALID_FIELD_CDB));
    assert_int_equal(RUN(&bed, 0, 0, 8, SCSI_READ_CAPACITY_10), 0);
    assert_int_equal(get_be32(at), DISK_SIZE / 512 - 1);
    assert_int_equal(get_be32(at + 4), 512);
    assert_int_equal(
        RUN(&bed, 0, 0, 32, SCSI_SERVICE_ACTION_IN, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32), 0);
    assert_int_equal(get_be64(at), DISK_SIZE / 512 - 1);
    assert_int_equal(at[14], 0x80);
    bed_close(&bed);
}

static void test_modes(void **state)
{
    struct bed bed;
    bed_open(&bed, false);
    bed_start(&bed, 0);
    take_attention(&bed);
    uint8_t *at = data(&bed, 0);
    assert_int_equal(RUN(&bed, 0, 0, 255, SCSI_MODE_SENSE_6, 0, 0x3f, 0, 255), 0);
    assert_int_equal(at[0], 3 + 8 + 12 + 20 + 12);
    assert_int_equal(at[2], 0x10);
    assert_int_equal(at[4 + 8 + 12], 0x08);
    assert_int_equal(at[4 + 8 + 12 + 2], 0x04);
    assert_int_equal(RUN(&bed, 1, 0, 64, SCSI_MODE_SENSE_10, 8, 0x08, 0, 0, 0, 0, 0, 64), 0);
    assert_int_equal(get_be16(at), 26);
    assert_int_equal(at[3], 0x90);
    assert_int_equal(RUN(&bed, 0, 0, 64, SCSI_MODE_SENSE_6, 0, 0xc8, 0, 64),
                     ILLEGAL(SCSI_ASC_SAVING_UNSUPPORTED));
    assert_int_equal(RUN(&bed, 0, 0, 64, SCSI_MODE_SENSE_6, 0, 0x1c, 0, 64),
                     ILLEGAL(SCSI_ASC_INVALID_FIELD_CDB));
    /* The write cache off and on; nothing else may change. */
    const uint8_t off[24] = {[4] = 0x08, [5] = 0x12},
                  stranger[24] = {[4] = 0x08, [5] = 0x12, [9] = 1};
    memcpy(at, off, 24);
    assert_int_equal(RUN(&bed, 0, 24, 0, SCSI_MODE_SELECT_6, 0x10, 0, 0, 24), 0);
    assert_int_equal(bed.scsi->unit[0].scsi.write_cache, 0);
    memset(at, 0x3c, 512);
    assert_int_equal(rw(&bed, 0, SCSI_WRITE_10, 5, 1, 0), 0);
    memset(bed.model + 5 * 512, 0x3c, 512);
    memcpy(at, stranger, 24);
    assert_int_equal(RUN(&bed, 0, 24, 0, SCSI_MODE_SELECT_6, 0x10, 0, 0, 24),
                     ILLEGAL(SCSI_ASC_INVALID_FIELD_LIST));
    assert_int_equal(RUN(&bed, 0, 23, 0, SCSI_MODE_SELECT_6, 0x10, 0, 0, 23),
                     ILLEGAL(SCSI_ASC_LIST_LENGTH));
    assert_int_equal(RUN(&bed, 0, 24, 0, SCSI_MODE_SELECT_6, 0x11, 0, 0, 24),
                     ILLEGAL(SCSI_ASC_INVALID_FIELD_CDB));
    verify_file(&bed);
    bed_close(&bed);
}

static void test_errors(void **state)
{
    struct bed bed;
    unsigned lines = 0;
    bed_open(&bed, false);
    bed_start(&bed, 0);
    take_attention(&bed);
    uint64_t end = DISK_SIZE / 512;
    assert_int_equal(rw(&bed, 0, SCSI_READ_10, end, 1, 0), ILLEGAL(SCSI_ASC_LBA_RANGE));
    assert_int_equal(rw(&bed, 0, SCSI_READ_16, end - 1, 2, 0), ILLEGAL(SCSI_ASC_LBA_RANGE));
    assert_int_equal(rw(&bed, 0, SCSI_WRITE_16, ~0ull, 1, 0), ILLEGAL(SCSI_ASC_LBA_RANGE));
    assert_int_equal(rw(&bed, 0, SCSI_READ_16, ~0ull, 0xffffffff, 0), ILLEGAL(SCSI_ASC_LBA_RANGE));
    assert_int_equal(rw(&bed, 0, SCSI_READ_10, end, 0, 0), 0);
    assert_int_equal(rw(&bed, 1, SCSI_WRITE_10, 0, 1, 0), PROTECTED(SCSI_ASC_WRITE_PROTECTED));
    assert_int_equal(RUN(&bed, 0, 0, 0, 0xfe), ILLEGAL(SCSI_ASC_INVALID_OPCODE));
    assert_int_equal(RUN(&bed, 9, 0, 0, SCSI_TEST_UNIT_READY), ILLEGAL(SCSI_ASC_NO_SUCH_UNIT));
    assert_int_equal(RUN(&bed, 0, 0, 512, SCSI_READ_10, 0x20, 0, 0, 0, 0, 0, 0, 1, 0),
                     ILLEGAL(SCSI_ASC_INVALID_FIELD_CDB));
    /* Reservations: refused, and the log says so. */
    log_set_sink(quiet_log, &lines);
    assert_int_equal(RUN(&bed, 0, 0, 8, SCSI_PERSISTENT_RESERVE_IN, 0, 0, 0, 0, 0, 0, 0, 8),
                     ILLEGAL(SCSI_ASC_INVALID_OPCODE));
    assert_int_equal(RUN(&bed, 0, 24, 0, SCSI_PERSISTENT_RESERVE_OUT, 0, 0, 0, 0, 0, 0, 0, 24),
                     ILLEGAL(SCSI_ASC_INVALID_OPCODE));
    assert_int_equal(RUN(&bed, 0, 0, 0, SCSI_RESERVE_6), ILLEGAL(SCSI_ASC_INVALID_OPCODE));
    assert_int_equal(lines, 3);
    /* Less room than the command moves: nothing is moved. */
    const uint8_t read8[] = {SCSI_READ_10, 0, 0, 0, 0, 0, 0, 0, 8, 0};
    memset(data(&bed, 0), 0x11, 1024);
    command(&bed, 0, read8, sizeof(read8), 0, 1024, 0);
    assert_int_equal(slot(&bed, 0)[RESPONSE_AT + 11], VIRTIO_SCSI_S_OVERRUN);
    assert_int_equal(data(&bed, 0)[0], 0x11);
    /* Both directions; another target. */
    command(&bed, 0, read8, sizeof(read8), 512, 512, 0);
    assert_int_equal(slot(&bed, 0)[RESPONSE_AT + 11], VIRTIO_SCSI_S_FAILURE);
    struct ring *ring = &bed.driver.ring[VIRTIO_SCSI_REQUEST];
    submit(&bed, 0, 0, 0, read8, sizeof(read8), 0, 4096, 0);
    slot(&bed, 0)[1] = 1;
    ring_kick(&bed.driver, ring);
    uint16_t id;
    uint32_t written;
    assert_true(ring_wait(&bed.driver, ring, &id, &written));
    assert_int_equal(slot(&bed, 0)[RESPONSE_AT + 11], VIRTIO_SCSI_S_BAD_TARGET);
    verify_file(&bed);
    assert_int_equal(driver_status(&bed.driver), 15);
    /* No room for a header, or for a response. */
    for (unsigned i = 0; i < 2; i++) {
        bed_start(&bed, 0);
        struct buffer buffers[2] = {{bed.memory, i ? 51 : 50}, {bed.memory + 64, i ? 107 : 108}};
        ring_add(&bed.driver, &bed.driver.ring[VIRTIO_SCSI_REQUEST], buffers, 1, 1, false);
        ring_kick(&bed.driver, &bed.driver.ring[VIRTIO_SCSI_REQUEST]);
        driver_turn(&bed.driver, 3);
        assert_true(driver_status(&bed.driver) & VIRTIO_STATUS_NEEDS_RESET);
    }
    bed_close(&bed);
}

/* Commands at random, with any data sizes: all are answered, the device goes on. */
static void test_random_commands(void **state)
{
    struct bed bed;
    uint32_t seed = 12345;
    bed_open(&bed, false);
    bed_start(&bed, 0);
    for (unsigned i = 0; i < 20000; i++) {
        uint8_t cdb[16];
        for (unsigned k = 0; k < sizeof(cdb); k++) {
            seed = seed * 1664525 + 1013904223;
            /* Small numbers more often than chance has it. */
            cdb[k] = (seed >> 28) < 9 ? 0 : (uint8_t)(seed >> 16);
        }
        unsigned way = seed >> 8 & 3;
        uint32_t size = seed >> 10 & 0xfff;
        command(&bed, seed >> 24 & 3, cdb, sizeof(cdb), way == 1 ? size : 0, way == 2 ? size : 0,
                0);
        memset(data(&bed, 0), (int)(seed >> 9), 64);
    }
    assert_int_equal(driver_status(&bed.driver), 15);
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transfers), cmocka_unit_test(test_provisioning),
        cmocka_unit_test(test_identity),  cmocka_unit_test(test_modes),
        cmocka_unit_test(test_errors),    cmocka_unit_test(test_random_commands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
