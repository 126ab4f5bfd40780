/*
 * The life of virtio-scsi: task management while commands are in flight, resets, resizing,
 * configuration, state.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "virtio_scsi_host.h"

/* One task management function; its response. */
static uint8_t manage(struct bed *bed, uint32_t type, uint32_t subtype, unsigned lun, uint64_t tag)
{
    struct ring *ring = &bed->driver.ring[VIRTIO_SCSI_CONTROL];
    uint64_t at = bed->memory + 40 * 0x4000ull;
    uint8_t *bytes = machine_host(&bed->machine, at);
    uint16_t id;
    uint32_t written;
    put_le32(bytes, type);
    put_le32(bytes + 4, subtype);
    put_lun(bytes + 8, lun);
    put_le64(bytes + 16, tag);
    bytes[64] = 0xee;
    struct buffer buffers[2] = {{at, 24}, {at + 64, 1}};
    ring_add(&bed->driver, ring, buffers, 1, 1, false);
    ring_kick(&bed->driver, ring);
    assert_true(ring_wait(&bed->driver, ring, &id, &written));
    assert_int_equal(written, 1);
    return bytes[64];
}

static void run_management(bool threads)
{
    struct bed bed;
    bed_open(&bed, threads);
    bed_start(&bed, 0);
    take_attention(&bed);
    assert_int_equal(manage(&bed, 0, 6, 0, 100), VIRTIO_SCSI_S_OK); /* QUERY TASK: not there */
    assert_int_equal(manage(&bed, 0, 0, 0, 100), VIRTIO_SCSI_S_OK); /* ABORT TASK: neither */
    assert_int_equal(manage(&bed, 0, 2, 0, 0), VIRTIO_SCSI_S_FUNCTION_REJECTED);
    assert_int_equal(manage(&bed, 0, 99, 0, 0), VIRTIO_SCSI_S_FUNCTION_REJECTED);
    assert_int_equal(manage(&bed, 0, 5, 9, 0), VIRTIO_SCSI_S_INCORRECT_LUN);
    assert_int_equal(manage(&bed, 0, 5, 1, 0), VIRTIO_SCSI_S_OK); /* LOGICAL UNIT RESET */
    assert_int_equal(RUN(&bed, 1, 0, 0, SCSI_TEST_UNIT_READY), ATTENTION(SCSI_ASC_BUS_RESET));
    assert_int_equal(RUN(&bed, 0, 0, 0, SCSI_TEST_UNIT_READY), 0);
    assert_int_equal(manage(&bed, 0, 4, 0, 0), VIRTIO_SCSI_S_OK); /* I_T NEXUS RESET */
    for (unsigned lun = 0; lun < UNITS; lun++)
        assert_int_equal(RUN(&bed, lun, 0, 0, SCSI_TEST_UNIT_READY), ATTENTION(SCSI_ASC_BUS_RESET));
    /* With commands in flight on every queue: when it answers, all of them have ended. */
    const uint8_t write8[] = {SCSI_WRITE_10, 0, 0, 0, 2, 0, 0, 0, 8, 0};
    for (unsigned round = 0; round < 20; round++) {
        uint16_t id;
        uint32_t written;
        for (unsigned i = 0; i < 24; i++)
            submit(&bed, i % QUEUES, i, 0, write8, sizeof(write8), 4096, 0, 0);
        for (unsigned q = 0; q < QUEUES; q++)
            ring_kick(&bed.driver, &bed.driver.ring[VIRTIO_SCSI_REQUEST + q]);
        if (!threads)
            loop_once(bed.machine.env.loop, 1);
        assert_int_equal(manage(&bed, 0, round % 2 ? 1 : 5, 0, 0), VIRTIO_SCSI_S_OK);
        for (unsigned i = 0; i < 24; i++)
            assert_true(ring_wait(&bed.driver, &bed.driver.ring[VIRTIO_SCSI_REQUEST + i % QUEUES],
                                  &id, &written));
        for (unsigned i = 0; i < 24; i++) {
            uint8_t code = slot(&bed, i)[RESPONSE_AT + 11];
            assert_true(code == VIRTIO_SCSI_S_OK || code == VIRTIO_SCSI_S_ABORTED ||
                        code == VIRTIO_SCSI_S_RESET);
        }
        RUN(&bed, 0, 0, 0, SCSI_TEST_UNIT_READY);
    }
    assert_int_equal(driver_status(&bed.driver), 15);
    bed_close(&bed);
}

static void test_management(void **state)
{
    run_management(false);
    run_management(true);
}

/* A function that waits when everything is stopped is answered, too. */
static void test_stops(void **state)
{
    struct bed bed;
    bed_open(&bed, true);
    const uint8_t write8[] = {SCSI_WRITE_10, 0, 0, 0, 2, 0, 0, 0, 8, 0};
    for (unsigned round = 0; round < 12; round++) {
        bed_start(&bed, round & 1 ? PACKED : 0);
        take_attention(&bed);
        for (unsigned i = 0; i < 24; i++)
            submit(&bed, i % QUEUES, i, 0, write8, sizeof(write8), 4096, 0, 0);
        for (unsigned q = 0; q < QUEUES; q++)
            ring_kick(&bed.driver, &bed.driver.ring[VIRTIO_SCSI_REQUEST + q]);
        uint64_t at = bed.memory + 40 * 0x4000ull;
        uint8_t *bytes = machine_host(&bed.machine, at);
        memset(bytes, 0, 24);
        put_le32(bytes + 4, 5);
        put_lun(bytes + 8, 0);
        struct buffer buffers[2] = {{at, 24}, {at + 64, 1}};
        ring_add(&bed.driver, &bed.driver.ring[0], buffers, 1, 1, false);
        ring_kick(&bed.driver, &bed.driver.ring[0]);
        if (round % 3 == 0) {
            device_quiesce(&bed.scsi->virtio.pci.device);
            assert_true(list_empty(&bed.scsi->tasks) && list_empty(&bed.scsi->functions));
            device_resume(&bed.scsi->virtio.pci.device);
        }
        driver_reset(&bed.driver);
        assert_true(list_empty(&bed.scsi->tasks) && list_empty(&bed.scsi->functions));
    }
    bed_close(&bed);
}

static void test_resize_event(void **state)
{
    struct bed bed;
    bed_open(&bed, false);
    bed_start(&bed, 0);
    take_attention(&bed);
    struct ring *ring = &bed.driver.ring[VIRTIO_SCSI_EVENT];
    uint16_t id;
    uint32_t written;
    /* No buffer yet: the event waits for one. */
    virtio_scsi_resized(bed.scsi, 2);
    driver_turn(&bed.driver, 2);
    uint64_t at = bed.memory + 40 * 0x4000ull;
    struct buffer buffer = {at, 16};
    ring_add(&bed.driver, ring, &buffer, 0, 1, false);
    ring_kick_always(&bed.driver, ring);
    assert_true(ring_wait(&bed.driver, ring, &id, &written));
    const uint8_t *event = machine_host(&bed.machine, at);
    assert_int_equal(get_le32(event), 3);
    assert_int_equal(event[4], 1);
    assert_int_equal(get_be16(event + 6), 2);
    assert_int_equal(get_le32(event + 12), 0x092a);
    assert_int_equal(RUN(&bed, 2, 0, 0, SCSI_TEST_UNIT_READY),
                     ATTENTION(SCSI_ASC_CAPACITY_CHANGED));
    bed_close(&bed);
}

static void test_configuration(void **state)
{
    struct bed bed;
    bed_open(&bed, false);
    uint64_t at = bed.driver.device_config;
    assert_int_equal(mmio_read(&bed.machine, at, 4), QUEUES);
    assert_int_equal(mmio_read(&bed.machine, at + 4, 4), 254);
    assert_int_equal(mmio_read(&bed.machine, at + 20, 4), 96);
    assert_int_equal(mmio_read(&bed.machine, at + 24, 4), 32);
    assert_int_equal(mmio_read(&bed.machine, at + 40, 4), 0);
    mmio_write(&bed.machine, at + 20, 4, 18);
    mmio_write(&bed.machine, at + 20, 4, 253);
    mmio_write(&bed.machine, at + 24, 4, 0);
    mmio_write(&bed.machine, at + 24, 4, 33);
    assert_int_equal(mmio_read(&bed.machine, at + 20, 4), 18);
    assert_int_equal(mmio_read(&bed.machine, at + 24, 4), 32);
    bed_start(&bed, 0); /* resets */
    assert_int_equal(mmio_read(&bed.machine, at + 20, 4), 96);
    mmio_write(&bed.machine, at + 20, 4, 18); /* too late */
    assert_int_equal(mmio_read(&bed.machine, at + 20, 4), 96);
    bed_close(&bed);
}

static void test_state(void **state)
{
    struct bed bed;
    bed_open(&bed, false);
    bed_start(&bed, PACKED | EVENT);
    take_attention(&bed);
    const uint8_t off[24] = {[4] = 0x08, [5] = 0x12};
    memcpy(data(&bed, 0), off, 24);
    assert_int_equal(RUN(&bed, 0, 24, 0, SCSI_MODE_SELECT_6, 0x10, 0, 0, 24), 0);
    assert_int_equal(manage(&bed, 0, 5, 2, 0), VIRTIO_SCSI_S_OK);
    const uint8_t write8[] = {SCSI_WRITE_10, 0, 0, 0, 2, 0, 0, 0, 8, 0};
    memset(data(&bed, 1), 0x19, 4096);
    submit(&bed, 1, 1, 0, write8, sizeof(write8), 4096, 0, 0);
    ring_kick(&bed.driver, &bed.driver.ring[VIRTIO_SCSI_REQUEST + 1]);
    loop_once(bed.machine.env.loop, 1);
    struct virtio_scsi *fresh = scsi_new(&bed);
    round_trip(&bed.scsi->virtio.pci.device, &fresh->virtio.pci.device);
    assert_int_equal(fresh->unit[0].scsi.write_cache, 0);
    device_free(&bed.scsi->virtio.pci.device);
    bed.scsi = fresh;
    device_resume(&fresh->virtio.pci.device);
    uint16_t id;
    uint32_t written;
    assert_true(ring_wait(&bed.driver, &bed.driver.ring[VIRTIO_SCSI_REQUEST + 1], &id, &written));
    assert_int_equal(result(&bed, 1), 0);
    memset(bed.model + 512 * 512, 0x19, 4096);
    verify_file(&bed);
    assert_int_equal(RUN(&bed, 2, 0, 0, SCSI_TEST_UNIT_READY), ATTENTION(SCSI_ASC_BUS_RESET));
    assert_int_equal(rw(&bed, 0, SCSI_READ_10, 0, 1, 0), 0);
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_management),   cmocka_unit_test(test_stops),
        cmocka_unit_test(test_resize_event), cmocka_unit_test(test_configuration),
        cmocka_unit_test(test_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
