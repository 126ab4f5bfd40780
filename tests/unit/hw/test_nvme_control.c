/*
 * The life of the NVMe controller: rules of its queues, resets and shutdown with commands in
 * flight, events, line interrupts, state.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "nvme_host.h"

static void test_queue_rules(void **state)
{
    struct bed bed;
    bed_open(&bed, false);
    start(&bed, false, 64);
    uint64_t page = machine_alloc(&bed.machine, 4096, 4096);
#define CREATE(op, id, size, dw11_, at)                                                            \
    ADMIN(&bed, op, .prp1 = (at), .dw10 = (id) | (uint32_t)((size)-1) << 16, .dw11 = (dw11_))
    assert_int_equal(CREATE(NVME_CREATE_CQ, 1, 16, 3, page), NVME_INVALID_QUEUE_ID | DNR);
    assert_int_equal(CREATE(NVME_CREATE_CQ, 0, 16, 3, page), NVME_INVALID_QUEUE_ID | DNR);
    assert_int_equal(CREATE(NVME_CREATE_CQ, QUEUES + 1, 16, 3, page), NVME_INVALID_QUEUE_ID | DNR);
    assert_int_equal(CREATE(NVME_CREATE_SQ, 1, 16, 1 | 1 << 16, page), NVME_INVALID_QUEUE_ID | DNR);
    assert_int_equal(ADMIN(&bed, NVME_DELETE_CQ, .dw10 = 1), NVME_INVALID_QUEUE_DELETION | DNR);
    assert_int_equal(ADMIN(&bed, NVME_DELETE_CQ, .dw10 = 0), NVME_INVALID_QUEUE_ID | DNR);
    assert_int_equal(ADMIN(&bed, NVME_DELETE_SQ, .dw10 = 0), NVME_INVALID_QUEUE_ID | DNR);
    assert_int_equal(ADMIN(&bed, NVME_DELETE_SQ, .dw10 = 3), 0);
    assert_int_equal(ADMIN(&bed, NVME_DELETE_SQ, .dw10 = 3), NVME_INVALID_QUEUE_ID | DNR);
    assert_int_equal(ADMIN(&bed, NVME_DELETE_CQ, .dw10 = 3), 0);
    assert_int_equal(CREATE(NVME_CREATE_SQ, 3, 16, 1 | 3 << 16, page), NVME_INVALID_CQ | DNR);
    assert_int_equal(CREATE(NVME_CREATE_SQ, 3, 1, 1 | 1 << 16, page),
                     NVME_INVALID_QUEUE_SIZE | DNR);
    assert_int_equal(CREATE(NVME_CREATE_SQ, 3, 4097, 1 | 1 << 16, page),
                     NVME_INVALID_QUEUE_SIZE | DNR);
    assert_int_equal(CREATE(NVME_CREATE_SQ, 3, 16, 0 | 1 << 16, page), NVME_INVALID_FIELD | DNR);
    assert_int_equal(CREATE(NVME_CREATE_SQ, 3, 16, 1 | 1 << 16, page + 4),
                     NVME_INVALID_PRP_OFFSET | DNR);
    assert_int_equal(CREATE(NVME_CREATE_CQ, 3, 16, 3 | 99 << 16, page), NVME_INVALID_VECTOR | DNR);
    assert_int_equal(ADMIN(&bed, NVME_DOORBELL_BUFFER, .prp1 = page, .prp2 = page + 4),
                     NVME_INVALID_FIELD | DNR);
    assert_int_equal(ADMIN(&bed, NVME_DOORBELL_BUFFER, .prp1 = page, .prp2 = RAM_SIZE),
                     NVME_INVALID_FIELD | DNR);
    /* Doorbells of queues that are not there, and beyond a queue's end. */
    set_reg(&bed, NVME_DOORBELLS + 8 * 3, 1);
    set_reg(&bed, NVME_DOORBELLS + 8 * 200, 1);
    set_reg(&bed, NVME_DOORBELLS + 8, 64);
    set_reg(&bed, NVME_DOORBELLS + 12, 0xffffffff);
    turn(&bed);
    assert_int_equal(run(&bed, 1, rw(&bed, false, 0, 512, 0)), 0);
    bed_close(&bed);

    /* Bad admin queues: a fatal status, and a good start afterwards. */
    bed_open(&bed, false);
    set_reg(&bed, NVME_AQA, 0);
    set_reg(&bed, NVME_CC, NVME_CC_EN);
    assert_int_equal(reg(&bed, NVME_CSTS), NVME_CSTS_CFS);
    disable(&bed);
    set_reg(&bed, NVME_AQA, 0x001f001f);
    set_reg(&bed, NVME_CC, NVME_CC_EN | 1 << 7); /* 8 KiB pages */
    assert_int_equal(reg(&bed, NVME_CSTS), NVME_CSTS_CFS);
    disable(&bed);
    set_reg(&bed, NVME_ASQ, (uint32_t)RAM_SIZE);
    set_reg(&bed, NVME_ACQ, (uint32_t)RAM_SIZE);
    set_reg(&bed, NVME_CC, NVME_CC_EN | 6 << 16 | 4 << 20);
    set_reg(&bed, NVME_DOORBELLS, 1);
    await_status(&bed, NVME_CSTS_CFS, NVME_CSTS_CFS);
    start(&bed, false, 64);
    assert_int_equal(run(&bed, 1, rw(&bed, false, 0, 512, 0)), 0);
    bed_close(&bed);
}

/* Everything stopped with commands in flight: each has ended, or never begun. */
static void run_stops(bool threads, bool shadows)
{
    struct bed bed;
    bed_open(&bed, threads);
    for (unsigned round = 0; round < 24; round++) {
        start(&bed, shadows, 64);
        for (unsigned i = 0; i < 60; i++)
            put(&bed, &bed.pair[1 + i % QUEUES], rw(&bed, true, 1000 + 8 * i, 4096, 0));
        memset(host(&bed, bed.data), (int)round, 4096);
        for (unsigned q = 1; q <= QUEUES; q++)
            ring(&bed, 2 * q, bed.pair[q].tail);
        if (!threads)
            loop_once(bed.machine.env.loop, 1);
        switch (round % 4) {
        case 0:
            break;
        case 1:
            device_quiesce(&bed.nvme->pci.device);
            assert_int_equal(bed.nvme->in_flight, 0);
            device_resume(&bed.nvme->pci.device);
            break;
        case 2:
            device_reset(&bed.nvme->pci.device);
            check_ok(pci_bus_assign(bed.machine.bus));
            find(&bed);
            assert_int_equal(reg(&bed, NVME_CSTS), 0);
            break;
        case 3:
            for (unsigned q = 1; q <= QUEUES; q++) {
                assert_int_equal(ADMIN(&bed, NVME_DELETE_SQ, .dw10 = q), 0);
                assert_int_equal(ADMIN(&bed, NVME_DELETE_CQ, .dw10 = q), 0);
            }
            break;
        }
        disable(&bed);
    }
    bed_close(&bed);
}

static void test_stops(void **state)
{
    run_stops(false, false);
    run_stops(true, false);
    run_stops(true, true);
}

static void test_shutdown(void **state)
{
    for (unsigned threads = 0; threads < 2; threads++) {
        struct bed bed;
        bed_open(&bed, threads);
        start(&bed, false, 64);
        set_reg(&bed, NVME_CC, reg(&bed, NVME_CC) | 1 << 14);
        await_status(&bed, NVME_CSTS_SHST, NVME_CSTS_SHST_DONE);
        start(&bed, false, 64);
        assert_int_equal(run(&bed, 1, rw(&bed, false, 0, 512, 0)), 0);
        bed_close(&bed);
    }
}

static void test_events(void **state)
{
    struct bed bed;
    uint16_t cid, first;
    bed_open(&bed, false);
    start(&bed, false, 64);
    assert_int_equal(ADMIN(&bed, NVME_SET_FEATURES, .dw10 = 11, .dw11 = 0x100), 0);
    first = bed.cid;
    for (unsigned i = 0; i < NVME_AER_MAX; i++)
        put(&bed, &bed.pair[0], (struct sqe){NVME_ASYNC_EVENT});
    assert_int_equal(ADMIN(&bed, NVME_ASYNC_EVENT), NVME_AER_LIMIT | DNR);
    nvme_resized(bed.nvme, 1);
    assert_int_equal(await(&bed, &bed.pair[0], &cid), 0);
    assert_int_equal(cid, first);
    assert_int_equal(bed.result, 0x040002);
    /* No second event until the log has been read. */
    nvme_resized(bed.nvme, 0);
    for (unsigned i = 0; i < 5; i++)
        turn(&bed);
    unsigned status;
    assert_false(reap(&bed, &bed.pair[0], &status, &cid));
    assert_int_equal(ADMIN(&bed, NVME_GET_LOG_PAGE, .prp1 = bed.data, .dw10 = 4 | 1023u << 16), 0);
    assert_int_equal(get_le32(host(&bed, bed.data)), 1);
    assert_int_equal(get_le32(host(&bed, bed.data + 4)), 2);
    assert_int_equal(get_le32(host(&bed, bed.data + 8)), 0);
    nvme_resized(bed.nvme, 0);
    assert_int_equal(await(&bed, &bed.pair[0], &cid), 0);
    assert_int_equal(cid, (uint16_t)(first + 1));
    bed_close(&bed);
}

/* Without MSI-X the line is high while a completion waits for the host. */
static void test_line_interrupt(void **state)
{
    for (unsigned shadows = 0; shadows < 2; shadows++) {
        struct bed bed;
        bed_open(&bed, false);
        struct driver driver = {.machine = &bed.machine};
        driver.msix = bed.nvme->pci.msix_capability;
        mmio_write(&bed.machine, bed.config + driver.msix + 2, 2, 0);
        enable(&bed, 32);
        if (shadows)
            shadow_on(&bed);
        struct pair *pair = lay_pair(&bed, 1, 16);
        assert_int_equal(
            ADMIN(&bed, NVME_CREATE_CQ, .prp1 = pair->cq, .dw10 = 1 | 15 << 16, .dw11 = 3), 0);
        assert_int_equal(ADMIN(&bed, NVME_CREATE_SQ, .prp1 = pair->sq, .dw10 = 1 | 15 << 16,
                               .dw11 = 1 | 1 << 16),
                         0);
        assert_false(bed.machine.line);
        for (unsigned i = 0; i < 40; i++) {
            put(&bed, pair, rw(&bed, false, 0, 512, 0));
            ring(&bed, 2, pair->tail);
            unsigned status;
            uint16_t cid;
            uint64_t limit = clock_now_ns() + 5 * NSEC_PER_SEC;
            while (!reap(&bed, pair, &status, &cid) && clock_now_ns() < limit)
                turn(&bed);
            while (!bed.machine.line && clock_now_ns() < limit)
                turn(&bed);
            assert_true(bed.machine.line);
            set_reg(&bed, NVME_INTMS, 1);
            assert_false(bed.machine.line);
            set_reg(&bed, NVME_INTMC, 1);
            assert_true(bed.machine.line);
            ring(&bed, 3, pair->head);
            assert_false(bed.machine.line);
        }
        bed_close(&bed);
    }
}

static void test_state(void **state)
{
    struct bed bed;
    bed_open(&bed, false);
    start(&bed, true, 64);
    assert_int_equal(ADMIN(&bed, NVME_SET_FEATURES, .dw10 = 6, .dw11 = 0), 0);
    put(&bed, &bed.pair[0], (struct sqe){NVME_ASYNC_EVENT});
    assert_int_equal(IO(&bed, 0x55, .nsid = 1), NVME_INVALID_OPCODE | DNR);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(run(&bed, 1 + i % 3, rw(&bed, false, i, 512, 0)), 0);
    memset(host(&bed, bed.data), 0x19, 4096);
    put(&bed, &bed.pair[2], rw(&bed, true, 64, 4096, 0));
    ring(&bed, 4, bed.pair[2].tail);
    loop_once(bed.machine.env.loop, 1);
    struct nvme *fresh = nvme_new(&bed);
    round_trip(&bed.nvme->pci.device, &fresh->pci.device);
    device_free(&bed.nvme->pci.device);
    bed.nvme = fresh;
    device_resume(&fresh->pci.device);
    uint16_t cid;
    assert_int_equal(await(&bed, &bed.pair[2], &cid), 0);
    memset(bed.model + 64 * 512, 0x19, 4096);
    verify_file(&bed);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(run(&bed, 1 + i % 3, rw(&bed, false, i, 512, 0)), 0);
    assert_int_equal(ADMIN(&bed, NVME_GET_FEATURES, .dw10 = 6), 0);
    assert_int_equal(bed.result, 0);
    assert_int_equal(bed.nvme->aer_count, 1);
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queue_rules),    cmocka_unit_test(test_stops),
        cmocka_unit_test(test_shutdown),       cmocka_unit_test(test_events),
        cmocka_unit_test(test_line_interrupt), cmocka_unit_test(test_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
