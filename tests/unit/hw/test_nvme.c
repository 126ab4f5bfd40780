/*
 * The commands of the NVMe controller: transfers through PRP lists, deep queues, shadow doorbells,
 * identification, discards, errors to the letter, hostile registers and commands.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "nvme_host.h"

static void run_transfers(bool threads, bool shadows)
{
    static const struct {
        uint32_t length, offset;
    } shapes[] = {{512, 0},
                  {512, 4},
                  {4096, 0},
                  {4096, 2048},
                  {8192, 0},
                  {8192, 512},
                  {12288, 0},
                  {65536, 0},
                  {65536, 3584},
                  {NVME_TRANSFER_MAX, 0},
                  {NVME_TRANSFER_MAX, 512}};
    struct bed bed;
    bed_open(&bed, threads);
    bed.machine.doorbells = shadows;
    start(&bed, shadows, 64);
    for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++) {
        uint32_t length = shapes[i].length, offset = shapes[i].offset;
        uint64_t lba = 1000 + 16 * i;
        assert_int_equal(run(&bed, 1 + i % QUEUES, rw(&bed, false, lba, length, offset)), 0);
        for (uint32_t at = 0; at < length; at += 509)
            assert_int_equal(*rw_byte(&bed, length, offset, at), bed.model[lba * 512 + at]);
        for (uint32_t at = 0; at < length; at++)
            *rw_byte(&bed, length, offset, at) = bed.model[lba * 512 + at] = (uint8_t)(at * 3 + i);
        struct sqe write = rw(&bed, true, lba, length, offset);
        write.dw12 |= i & 1 ? 1u << 30 : 0;
        assert_int_equal(run(&bed, 1 + (i + 1) % QUEUES, write), 0);
    }
    assert_int_equal(IO(&bed, NVME_FLUSH, .nsid = 1), 0);
    verify_file(&bed);
    if (shadows)
        assert_int_equal(bed.machine.bells, QUEUES);
    for (unsigned q = 1; q <= QUEUES; q++)
        assert_true(__atomic_load_n(&bed.machine.message[1 + q], __ATOMIC_SEQ_CST) > 0);
    disable(&bed);
    assert_int_equal(bed.machine.bells, 0);
    bed_close(&bed);
}

static void test_transfers(void **state)
{
    run_transfers(false, false);
    run_transfers(false, true);
    run_transfers(true, false);
    run_transfers(true, true);
}

/* More than a thousand commands at once, in a completion queue that is smaller. */
static void run_deep(bool threads, bool shadows)
{
    struct bed bed;
    bed_open(&bed, threads);
    bed.machine.doorbells = shadows;
    enable(&bed, 32);
    if (shadows)
        shadow_on(&bed);
    struct pair *pair = lay_pair(&bed, 1, DEPTH);
    uint16_t sizes[2] = {DEPTH, 64}, cid;
    bool *seen = calloc(65536, 1);
    assert_int_equal(ADMIN(&bed, NVME_CREATE_CQ, .prp1 = pair->cq,
                           .dw10 = 1 | (uint32_t)(sizes[1] - 1) << 16, .dw11 = 3 | 1 << 16),
                     0);
    assert_int_equal(ADMIN(&bed, NVME_CREATE_SQ, .prp1 = pair->sq,
                           .dw10 = 1 | (uint32_t)(sizes[0] - 1) << 16, .dw11 = 1 | 1 << 16),
                     0);
    for (unsigned round = 0; round < 3; round++) {
        uint16_t first = bed.cid;
        pair->size = DEPTH;
        for (unsigned i = 0; i < DEPTH - 1; i++)
            put(&bed, pair,
                (struct sqe){NVME_READ, .nsid = 1, .prp1 = bed.data, .dw10 = i, .dw12 = 7});
        ring(&bed, 2, pair->tail);
        pair->size = 64;
        for (unsigned i = 0; i < DEPTH - 1; i++) {
            assert_int_equal(await(&bed, pair, &cid), 0);
            assert_true((uint16_t)(cid - first) < DEPTH - 1 && !seen[cid]);
            seen[cid] = true;
        }
    }
    free(seen);
    bed_close(&bed);
}

static void test_deep(void **state)
{
    run_deep(false, false);
    run_deep(false, true);
    run_deep(true, true);
}

static void test_identity(void **state)
{
    struct bed bed;
    bed_open(&bed, false);
    uint64_t cap = mmio_read(&bed.machine, bed.bar, 8);
    assert_true((cap & 0xffff) >= 1023 && (cap >> 37 & 1) && !(cap >> 48));
    assert_int_equal(reg(&bed, NVME_VS), 0x10400);
    start(&bed, false, 64);
    uint8_t *at = host(&bed, bed.data);
    assert_int_equal(ADMIN(&bed, NVME_IDENTIFY, .prp1 = bed.data, .dw10 = 1), 0);
    assert_memory_equal(at + 4, "NVME-0              ", 20);
    assert_int_equal(get_le32(at + 516), NAMESPACES);
    assert_memory_equal(at + 768, "nqn.2014-08.org.nvmexpress:uuid:", 32);
    assert_int_equal(strlen((char *)at + 768), 32 + 36);
    assert_int_equal(ADMIN(&bed, NVME_IDENTIFY, .nsid = 1, .prp1 = bed.data), 0);
    assert_int_equal(get_le64(at), DISK_SIZE / 512);
    assert_int_equal(at[130], 9);
    assert_int_equal(at[99], 0);
    /* Over two pages, unaligned. */
    assert_int_equal(
        ADMIN(&bed, NVME_IDENTIFY, .nsid = 2, .prp1 = bed.data + 4096 + 1024, .prp2 = bed.data), 0);
    assert_int_equal(get_le64(at + 4096 + 1024), DISK_SIZE / 512);
    assert_int_equal(at[4096 + 1024 + 99], 1);
    assert_int_equal(ADMIN(&bed, NVME_IDENTIFY, .prp1 = bed.data, .dw10 = 2), 0);
    assert_int_equal(get_le32(at), 1);
    assert_int_equal(get_le32(at + 4), 2);
    assert_int_equal(get_le32(at + 8), 0);
    assert_int_equal(ADMIN(&bed, NVME_IDENTIFY, .nsid = 1, .prp1 = bed.data, .dw10 = 2), 0);
    assert_int_equal(get_le32(at), 2);
    assert_int_equal(ADMIN(&bed, NVME_IDENTIFY, .nsid = 1, .prp1 = bed.data, .dw10 = 3), 0);
    assert_int_equal(get_le16(at), 0x1003);
    assert_int_equal(ADMIN(&bed, NVME_IDENTIFY, .nsid = 3, .prp1 = bed.data),
                     NVME_INVALID_NAMESPACE | DNR);
    assert_int_equal(ADMIN(&bed, NVME_IDENTIFY, .nsid = 1, .prp1 = bed.data, .dw10 = 0x55),
                     NVME_INVALID_FIELD | DNR);
    /* Features. */
    assert_int_equal(ADMIN(&bed, NVME_SET_FEATURES, .dw10 = 7, .dw11 = 0x003f003f), 0);
    assert_int_equal(bed.result, (QUEUES - 1) * 0x10001);
    assert_int_equal(ADMIN(&bed, NVME_GET_FEATURES, .dw10 = 6), 0);
    assert_int_equal(bed.result, 1);
    assert_int_equal(ADMIN(&bed, NVME_SET_FEATURES, .dw10 = 6, .dw11 = 0), 0);
    assert_int_equal(ADMIN(&bed, NVME_GET_FEATURES, .dw10 = 6), 0);
    assert_int_equal(bed.result, 0);
    assert_int_equal(ADMIN(&bed, NVME_GET_FEATURES, .dw10 = 6 | 3 << 8), 0);
    assert_int_equal(bed.result, 4);
    assert_int_equal(ADMIN(&bed, NVME_SET_FEATURES, .dw10 = 6 | 1u << 31, .dw11 = 1),
                     NVME_FEATURE_NOT_SAVEABLE | DNR);
    assert_int_equal(ADMIN(&bed, NVME_SET_FEATURES, .dw10 = 2, .dw11 = 1),
                     NVME_FEATURE_NOT_CHANGEABLE | DNR);
    assert_int_equal(ADMIN(&bed, NVME_GET_FEATURES, .dw10 = 0x77), NVME_INVALID_FIELD | DNR);
    assert_int_equal(ADMIN(&bed, NVME_ABORT, .dw10 = 1), 0);
    assert_int_equal(bed.result, 1);
    bed_close(&bed);
}

static void put_range(struct bed *bed, unsigned index, uint64_t lba, uint32_t blocks)
{
    uint8_t *at = host(bed, bed->data) + 16 * index;
    put_le32(at, 0);
    put_le32(at + 4, blocks);
    put_le64(at + 8, lba);
}

static void test_zero_and_discard(void **state)
{
    struct bed bed;
    bed_open(&bed, false);
    start(&bed, false, 64);
    assert_int_equal(IO(&bed, NVME_WRITE_ZEROES, .nsid = 1, .dw10 = 100, .dw12 = 9), 0);
    memset(bed.model + 100 * 512, 0, 10 * 512);
    assert_int_equal(IO(&bed, NVME_WRITE_ZEROES, .nsid = 1, .dw10 = 200, .dw12 = 15 | 1u << 25), 0);
    memset(bed.model + 200 * 512, 0, 16 * 512);
    put_range(&bed, 0, 4096, 64);
    put_range(&bed, 1, 5000, 8);
    put_range(&bed, 2, 0, 0);
    assert_int_equal(
        IO(&bed, NVME_DATASET_MANAGEMENT, .nsid = 1, .prp1 = bed.data, .dw10 = 2, .dw11 = 3),
        0); /* no deallocation is asked for */
    verify_file(&bed);
    assert_int_equal(
        IO(&bed, NVME_DATASET_MANAGEMENT, .nsid = 1, .prp1 = bed.data, .dw10 = 2, .dw11 = 4), 0);
    memset(bed.model + 4096 * 512, 0, 64 * 512);
    memset(bed.model + 5000 * 512, 0, 8 * 512);
    verify_file(&bed);
    /* One bad range: nothing is discarded. */
    put_range(&bed, 0, 10, 8);
    put_range(&bed, 1, DISK_SIZE / 512, 1);
    assert_int_equal(
        IO(&bed, NVME_DATASET_MANAGEMENT, .nsid = 1, .prp1 = bed.data, .dw10 = 1, .dw11 = 4),
        NVME_LBA_RANGE | DNR);
    put_range(&bed, 1, ~0ull, 0xffffffff);
    assert_int_equal(
        IO(&bed, NVME_DATASET_MANAGEMENT, .nsid = 1, .prp1 = bed.data, .dw10 = 1, .dw11 = 4),
        NVME_LBA_RANGE | DNR);
    verify_file(&bed);
    bed_close(&bed);
}

static void test_errors(void **state)
{
    struct bed bed;
    bed_open(&bed, false);
    start(&bed, false, 64);
    uint32_t end = DISK_SIZE / 512;
    struct sqe read = {NVME_READ, .nsid = 1, .prp1 = bed.data, .dw12 = 0};
    struct {
        struct sqe sqe;
        unsigned status;
    } cases[] = {
        {{NVME_READ, .nsid = 1, .prp1 = bed.data, .dw10 = end}, NVME_LBA_RANGE | DNR},
        {{NVME_READ, .nsid = 1, .prp1 = bed.data, .dw10 = end - 1, .dw12 = 1},
         NVME_LBA_RANGE | DNR},
        {{NVME_READ, .nsid = 1, .prp1 = bed.data, .dw10 = ~0u, .dw11 = ~0u}, NVME_LBA_RANGE | DNR},
        {{NVME_WRITE, .nsid = 1, .prp1 = bed.data, .dw10 = end}, NVME_LBA_RANGE | DNR},
        {{NVME_WRITE, .nsid = 2, .prp1 = bed.data}, NVME_WRITE_PROTECTED | DNR},
        {{NVME_WRITE_ZEROES, .nsid = 2}, NVME_WRITE_PROTECTED | DNR},
        {{NVME_READ, .nsid = 0, .prp1 = bed.data}, NVME_INVALID_NAMESPACE | DNR},
        {{NVME_READ, .nsid = 3, .prp1 = bed.data}, NVME_INVALID_NAMESPACE | DNR},
        {{NVME_FLUSH, .nsid = ~0u}, NVME_INVALID_NAMESPACE | DNR},
        {{0x55, .nsid = 1}, NVME_INVALID_OPCODE | DNR},
        {{NVME_READ, 0x40, .nsid = 1, .prp1 = bed.data}, NVME_INVALID_FIELD | DNR},
        {{NVME_READ, 0x01, .nsid = 1, .prp1 = bed.data}, NVME_INVALID_FIELD | DNR},
        {{NVME_READ, .nsid = 1, .prp1 = bed.data, .dw12 = 0xffff}, NVME_INVALID_FIELD | DNR},
        {{NVME_READ, .nsid = 1, .prp1 = bed.data + 1}, NVME_INVALID_PRP_OFFSET | DNR},
        {{NVME_READ, .nsid = 1, .prp1 = RAM_SIZE}, NVME_DATA_TRANSFER | DNR},
        {{NVME_READ, .nsid = 1, .prp1 = ROM_BASE}, NVME_DATA_TRANSFER | DNR},
        {{NVME_READ, .nsid = 1, .prp1 = ~0ull - 4095}, NVME_DATA_TRANSFER | DNR},
        {{NVME_READ, .nsid = 1, .prp1 = bed.data, .prp2 = bed.data + 8, .dw12 = 15},
         NVME_INVALID_PRP_OFFSET | DNR},
        {{NVME_READ, .nsid = 1, .prp1 = bed.data, .prp2 = RAM_SIZE, .dw12 = 15},
         NVME_DATA_TRANSFER | DNR},
        {{NVME_READ, .nsid = 1, .prp1 = bed.data, .prp2 = 0, .dw12 = 63}, NVME_DATA_TRANSFER | DNR},
        {{NVME_READ, .nsid = 1, .prp1 = bed.data, .prp2 = bed.data + 4, .dw12 = 63},
         NVME_INVALID_PRP_OFFSET | DNR},
        {{NVME_READ, .nsid = 1, .prp1 = bed.data, .prp2 = RAM_SIZE + 4096, .dw12 = 63},
         NVME_DATA_TRANSFER | DNR},
        {{NVME_READ, .nsid = 1, .prp1 = bed.data, .prp2 = ~0ull - 7, .dw12 = 63},
         NVME_DATA_TRANSFER | DNR},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        unsigned status = run(&bed, 1, cases[i].sqe);
        if (status != cases[i].status)
            fail_msg("case %u: status 0x%x, expected 0x%x", i, status, cases[i].status);
    }
    /* A list page that is full of links to itself. */
    uint64_t list = bed.data + 4096 * 100;
    for (unsigned i = 0; i < 512; i++)
        put_le64(host(&bed, list + 8 * i), list);
    IO(&bed, NVME_READ, .nsid = 1, .prp1 = bed.data, .prp2 = list + 4088, .dw12 = 1023);
    /* The error log has the newest first, with what was wrong. */
    assert_int_equal(IO(&bed, NVME_READ, .nsid = 1, .prp1 = bed.data, .dw10 = end + 7),
                     NVME_LBA_RANGE | DNR);
    assert_int_equal(ADMIN(&bed, NVME_GET_LOG_PAGE, .prp1 = bed.data, .dw10 = 1 | 127u << 16), 0);
    const uint8_t *log = host(&bed, bed.data);
    assert_true(get_le64(log) >= ARRAY_SIZE(cases));
    assert_int_equal(get_le16(log + 8), 1);
    assert_int_equal(get_le16(log + 12), NVME_LBA_RANGE << 1);
    assert_int_equal(get_le64(log + 16), end + 7);
    assert_int_equal(get_le64(log + 64), get_le64(log) - 1);
    assert_int_equal(ADMIN(&bed, NVME_GET_LOG_PAGE, .prp1 = bed.data, .dw10 = 2 | 127u << 16), 0);
    assert_int_equal(ADMIN(&bed, NVME_GET_LOG_PAGE, .prp1 = bed.data, .dw10 = 0x99),
                     NVME_INVALID_LOG_PAGE | DNR);
    assert_int_equal(ADMIN(&bed, NVME_GET_LOG_PAGE, .prp1 = bed.data, .dw10 = 2, .dw12 = 4096),
                     NVME_INVALID_FIELD | DNR);
    assert_int_equal(run(&bed, 1, read), 0);
    verify_file(&bed);
    bed_close(&bed);
}

/* Registers and commands at random: the controller may call itself broken, and starts anew. */
static void test_random(void **state)
{
    struct bed bed;
    uint32_t seed = 4711;
    bed_open(&bed, false);
    for (unsigned round = 0; round < 60; round++) {
        start(&bed, round & 1, 64);
        for (unsigned i = 0; i < 200; i++) {
            uint8_t raw[64];
            for (unsigned k = 0; k < sizeof(raw); k++) {
                seed = seed * 1664525 + 1013904223;
                raw[k] = (seed >> 28) < 9 ? 0 : (uint8_t)(seed >> 16);
            }
            unsigned queue = seed >> 8 & 3, bits = seed >> 10;
            struct pair *pair = &bed.pair[queue];
            raw[0] = queue ? (uint8_t)(bits % 11) : raw[0] & 0x0f;
            raw[4] = (uint8_t)(bits >> 4 & 3);
            raw[5] = raw[6] = raw[7] = 0;
            memcpy(host(&bed, pair->sq + 64ull * pair->tail), raw, 64);
            pair->tail = (uint16_t)((pair->tail + 1) % pair->size);
            ring(&bed, 2 * queue, pair->tail);
            if (bits % 7 == 0)
                mmio_write(&bed.machine, bed.bar + (bits >> 3) % 0x60, 1u << (bits & 3), seed);
            if (bits % 5 == 0)
                ring(&bed, 2 * queue + 1, (uint16_t)(seed >> 20) % 64);
            if (i % 8 == 0)
                loop_once(bed.machine.env.loop, 0);
        }
        device_quiesce(&bed.nvme->pci.device);
        assert_int_equal(bed.nvme->in_flight, 0);
        device_resume(&bed.nvme->pci.device);
    }
    start(&bed, false, 64);
    assert_int_equal(run(&bed, 1, rw(&bed, false, 0, 512, 0)), 0);
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transfers), cmocka_unit_test(test_deep),
        cmocka_unit_test(test_identity),  cmocka_unit_test(test_zero_and_discard),
        cmocka_unit_test(test_errors),    cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
