/*
 * virtio-blk end to end: a driver's requests against a file, on both block engines; statuses; cache
 * modes; several queues on loops of their own; resets, quiesce and state with requests in flight.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "hw/virtio/virtio_blk_internal.h"
#include "virtio_driver.h"

#define VERSION_1 F(VIRTIO_F_VERSION_1)
#define PACKED F(VIRTIO_F_RING_PACKED)
#define EVENT F(VIRTIO_F_EVENT_IDX)
#define INDIRECT F(VIRTIO_F_INDIRECT_DESC)
#define ALL_BLK                                                                                    \
    (F(VIRTIO_BLK_F_FLUSH) | F(VIRTIO_BLK_F_DISCARD) | F(VIRTIO_BLK_F_WRITE_ZEROES) |              \
     F(VIRTIO_BLK_F_BLK_SIZE) | F(VIRTIO_BLK_F_SEG_MAX))
#define DISK_SIZE MIB(4)
#define QUEUES 4

enum { READ, WRITE, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };
enum { STATUS_OK, STATUS_IOERR, STATUS_UNSUPP, STATUS_NONE = 0xee };

struct bed {
    struct machine machine;
    struct loop *io_loop[2];
    struct loop_thread *io_thread[2];
    struct block *block;
    struct virtio_blk *blk;
    struct driver driver;
    uint8_t *model;
    char path[32];
    uint64_t memory;
};

struct setup {
    enum block_engine engine;
    enum block_cache cache;
    bool readonly, no_discard, threads;
    unsigned queues;
};

static struct virtio_blk *blk_new(struct bed *bed, const struct setup *setup)
{
    struct virtio_blk *blk =
        (struct virtio_blk *)device_new(&virtio_blk_class, &bed->machine.env, "d0");
    blk->block = bed->block;
    blk->serial = "SERIAL-0123456789-TOO-LONG";
    blk->queues = setup->queues;
    if (setup->threads) {
        blk->io_loops = bed->io_loop;
        blk->io_loop_count = 2;
    }
    machine_add(&bed->machine, &blk->virtio.pci.device);
    return blk;
}

static void bed_open(struct bed *bed, struct setup setup)
{
    memset(bed, 0, sizeof(*bed));
    machine_init(&bed->machine);
    strcpy(bed->path, "blk-test-XXXXXX");
    int fd = mkstemp(bed->path);
    bed->model = malloc(DISK_SIZE);
    for (uint64_t i = 0; i < DISK_SIZE; i++)
        bed->model[i] = (uint8_t)(i * 13 + (i >> 10));
    assert_int_equal(pwrite(fd, bed->model, DISK_SIZE, 0), DISK_SIZE);
    struct block_options options = {.id = "d0",
                                    .fd = fd,
                                    .readonly = setup.readonly,
                                    .cache = setup.cache,
                                    .discard = !setup.no_discard,
                                    .engine = setup.engine};
    check_ok(block_open_raw(&options, &bed->block));
    for (unsigned i = 0; i < 2 && setup.threads; i++)
        check_ok(loop_new("io", &bed->io_loop[i]));
    bed->blk = blk_new(bed, &setup);
    for (unsigned i = 0; i < 2 && setup.threads; i++)
        check_ok(loop_thread_start(bed->io_loop[i], &bed->io_thread[i]));
    driver_find(&bed->driver, &bed->machine, &bed->blk->virtio);
    driver_msix_on(&bed->driver);
}

static void bed_close(struct bed *bed)
{
    device_quiesce(&bed->blk->virtio.pci.device);
    for (unsigned i = 0; i < 2; i++)
        loop_thread_join(bed->io_thread[i]);
    device_free(&bed->blk->virtio.pci.device);
    block_close(bed->block);
    for (unsigned i = 0; i < 2; i++)
        loop_free(bed->io_loop[i]);
    machine_fini(&bed->machine);
    unlink(bed->path);
    free(bed->model);
}

static void bed_start(struct bed *bed, uint64_t features)
{
    bed->machine.next = 4096;
    bool agreed = driver_negotiate(&bed->driver, VERSION_1 | features);
    if (!agreed)
        print_message("offered 0x%llx, wanted 0x%llx\n",
                      (unsigned long long)driver_offered(&bed->driver),
                      (unsigned long long)features);
    assert_true(agreed);
    for (unsigned i = 0; i < bed->blk->queues; i++)
        driver_queue(&bed->driver, i, 64);
    driver_start(&bed->driver);
    for (unsigned i = 0; i < bed->blk->queues; i++)
        ring_arm(&bed->driver, &bed->driver.ring[i]);
    bed->memory = RAM_SIZE / 2; /* data in the upper region */
}

/* Where request `slot` keeps its header, status and data. */
static uint64_t slot_at(const struct bed *bed, unsigned slot)
{
    return bed->memory + slot * 0x4000ull;
}

static uint8_t *slot_data(struct bed *bed, unsigned slot)
{
    return machine_host(&bed->machine, slot_at(bed, slot) + 0x1000);
}

/* The status byte is the end of the data's segment, or one of its own; likewise the header. */
static void submit(struct bed *bed, unsigned queue, unsigned slot, uint32_t type, uint64_t sector,
                   uint32_t len, unsigned shape)
{
    struct buffer buffers[8];
    unsigned out = 0, in = 0;
    uint64_t at = slot_at(bed, slot), data = at + 0x1000;
    uint8_t *header = machine_host(&bed->machine, at + 0x1000 - 16);
    put_le32(header, type);
    put_le32(header + 4, 0);
    put_le64(header + 8, sector);
    bool to_disk = type == WRITE || type == DISCARD || type == WRITE_ZEROES;
    *machine_host(&bed->machine, at + 0x3000) = STATUS_NONE;
    if (shape == 1 && to_disk && len) { /* header and data in one piece */
        buffers[out++] = (struct buffer){data - 16, len + 16};
    } else if (shape == 2) { /* header in three */
        buffers[out++] = (struct buffer){data - 16, 3};
        buffers[out++] = (struct buffer){data - 13, 0};
        buffers[out++] = (struct buffer){data - 13, 13};
    } else {
        buffers[out++] = (struct buffer){data - 16, 16};
    }
    if (to_disk && len && shape != 1)
        buffers[out++] = (struct buffer){data, len};
    if (!to_disk && len >= 1024 && shape == 3) {
        buffers[out + in++] = (struct buffer){data, 512};
        buffers[out + in++] = (struct buffer){data + 512, len - 512};
    } else if (!to_disk && len) {
        buffers[out + in++] = (struct buffer){data, len};
    }
    buffers[out + in++] = (struct buffer){at + 0x3000, 1};
    bool indirect = driver_has(&bed->driver, VIRTIO_F_INDIRECT_DESC);
    ring_add(&bed->driver, &bed->driver.ring[queue], buffers, out, in, indirect);
}

static uint8_t request(struct bed *bed, uint32_t type, uint64_t sector, uint32_t len,
                       unsigned shape)
{
    uint16_t id;
    uint32_t written;
    submit(bed, 0, 0, type, sector, len, shape);
    ring_kick(&bed->driver, &bed->driver.ring[0]);
    assert_true(ring_wait(&bed->driver, &bed->driver.ring[0], &id, &written));
    bool to_disk = type == WRITE || type == DISCARD || type == WRITE_ZEROES;
    assert_int_equal(written, to_disk ? 1 : len + 1);
    return *machine_host(&bed->machine, slot_at(bed, 0) + 0x3000);
}

static void range(struct bed *bed, unsigned index, uint64_t sector, uint32_t sectors,
                  uint32_t flags)
{
    uint8_t *at = slot_data(bed, 0) + 16 * index;
    put_le64(at, sector);
    put_le32(at + 8, sectors);
    put_le32(at + 12, flags);
}

static void verify_file(struct bed *bed)
{
    uint8_t *back = malloc(DISK_SIZE);
    int fd = open(bed->path, O_RDONLY);
    assert_int_equal(pread(fd, back, DISK_SIZE, 0), DISK_SIZE);
    assert_memory_equal(back, bed->model, DISK_SIZE);
    close(fd);
    free(back);
}

static void run_operations(struct setup setup, uint64_t features)
{
    struct bed bed;
    bed_open(&bed, setup);
    bed_start(&bed, ALL_BLK | features);
    for (unsigned shape = 0; shape < 4; shape++) {
        assert_int_equal(request(&bed, READ, 8 * shape, 4096, shape), STATUS_OK);
        assert_memory_equal(slot_data(&bed, 0), bed.model + 4096 * shape, 4096);
        memset(slot_data(&bed, 0), (int)(0x30 + shape), 8192);
        assert_int_equal(request(&bed, WRITE, 800 + 16 * shape, 8192, shape), STATUS_OK);
        memset(bed.model + (800 + 16 * shape) * 512, (int)(0x30 + shape), 8192);
    }
    assert_int_equal(request(&bed, FLUSH, 0, 0, 0), STATUS_OK);
    assert_int_equal(request(&bed, GET_ID, 0, 20, 0), STATUS_OK);
    assert_memory_equal(slot_data(&bed, 0), "SERIAL-0123456789-TO", 20);
    range(&bed, 0, 4096, 64, 0);
    range(&bed, 1, 5000, 8, 0);
    assert_int_equal(request(&bed, DISCARD, 0, 32, 0), STATUS_OK);
    memset(bed.model + 4096 * 512, 0, 64 * 512);
    memset(bed.model + 5000 * 512, 0, 8 * 512);
    range(&bed, 0, 6000, 16, 1);
    range(&bed, 1, 100, 3, 0);
    range(&bed, 2, 7000, 0, 0);
    assert_int_equal(request(&bed, WRITE_ZEROES, 0, 48, 2), STATUS_OK);
    memset(bed.model + 6000 * 512, 0, 16 * 512);
    memset(bed.model + 100 * 512, 0, 3 * 512);
    verify_file(&bed);
    assert_int_equal(driver_status(&bed.driver), 15);
    bed_close(&bed);
}

static void test_operations(void **state)
{
    run_operations((struct setup){.engine = BLOCK_ENGINE_AUTO}, 0);
    run_operations((struct setup){.engine = BLOCK_ENGINE_AUTO}, PACKED | EVENT);
    run_operations((struct setup){.engine = BLOCK_ENGINE_AUTO}, PACKED | INDIRECT);
    run_operations((struct setup){.engine = BLOCK_ENGINE_AUTO, .cache = BLOCK_CACHE_WRITETHROUGH},
                   EVENT | INDIRECT);
    run_operations((struct setup){.engine = BLOCK_ENGINE_THREADS}, EVENT);
}

/* Statuses to the letter, and nothing written where nothing may be. */
static void test_errors(void **state)
{
    struct bed bed;
    bed_open(&bed, (struct setup){0});
    bed_start(&bed, ALL_BLK);
    uint64_t end = DISK_SIZE / 512;
    assert_int_equal(request(&bed, READ, end, 512, 0), STATUS_IOERR);
    assert_int_equal(request(&bed, READ, end - 1, 1024, 0), STATUS_IOERR);
    assert_int_equal(request(&bed, WRITE, end - 1, 1024, 0), STATUS_IOERR);
    assert_int_equal(request(&bed, WRITE, ~0ull, 512, 0), STATUS_IOERR);
    assert_int_equal(request(&bed, WRITE, (1ull << 55) - 1, 512, 0), STATUS_IOERR);
    assert_int_equal(request(&bed, READ, 0, 100, 0), STATUS_IOERR);
    assert_int_equal(request(&bed, READ, 0, 0, 0), STATUS_OK);
    assert_int_equal(request(&bed, GET_ID, 0, 19, 0), STATUS_IOERR);
    assert_int_equal(request(&bed, 99, 0, 512, 0), STATUS_UNSUPP);
    assert_int_equal(request(&bed, 0xffffffff, 0, 0, 0), STATUS_UNSUPP);
    range(&bed, 0, 0, 8, 1); /* unmap means nothing for a discard */
    assert_int_equal(request(&bed, DISCARD, 0, 16, 0), STATUS_UNSUPP);
    range(&bed, 0, 0, 8, 2);
    assert_int_equal(request(&bed, WRITE_ZEROES, 0, 16, 0), STATUS_UNSUPP);
    range(&bed, 0, end - 1, 2, 0);
    assert_int_equal(request(&bed, WRITE_ZEROES, 0, 16, 0), STATUS_IOERR);
    range(&bed, 0, 0, 0xffffffff, 0);
    assert_int_equal(request(&bed, DISCARD, 0, 16, 0), STATUS_IOERR);
    range(&bed, 0, ~0ull, 8, 0);
    assert_int_equal(request(&bed, DISCARD, 0, 16, 0), STATUS_IOERR);
    assert_int_equal(request(&bed, DISCARD, 0, 0, 0), STATUS_IOERR);
    assert_int_equal(request(&bed, DISCARD, 0, 17, 0), STATUS_IOERR);
    assert_int_equal(request(&bed, WRITE_ZEROES, 0, 16 * 65, 0), STATUS_IOERR);
    verify_file(&bed);
    /* Not agreed on. */
    bed_start(&bed, 0);
    range(&bed, 0, 0, 8, 0);
    assert_int_equal(request(&bed, DISCARD, 0, 16, 0), STATUS_UNSUPP);
    assert_int_equal(request(&bed, WRITE_ZEROES, 0, 16, 0), STATUS_UNSUPP);
    verify_file(&bed);
    /* No room for a header, or for a status. */
    for (unsigned i = 0; i < 2; i++) {
        bed_start(&bed, 0);
        struct buffer buffers[2] = {{bed.memory, i ? 15 : 16}, {bed.memory + 64, 1}};
        ring_add(&bed.driver, &bed.driver.ring[0], buffers, 1, i, false);
        ring_kick(&bed.driver, &bed.driver.ring[0]);
        driver_turn(&bed.driver, 3);
        assert_true(driver_status(&bed.driver) & VIRTIO_STATUS_NEEDS_RESET);
    }
    bed_close(&bed);
}

static void test_read_only(void **state)
{
    struct bed bed;
    bed_open(&bed, (struct setup){.readonly = true});
    uint64_t offered = driver_offered(&bed.driver);
    assert_true(offered & F(VIRTIO_BLK_F_RO));
    assert_false(offered & (F(VIRTIO_BLK_F_DISCARD) | F(VIRTIO_BLK_F_WRITE_ZEROES)));
    bed_start(&bed, F(VIRTIO_BLK_F_RO) | F(VIRTIO_BLK_F_FLUSH));
    assert_int_equal(request(&bed, WRITE, 0, 512, 0), STATUS_IOERR);
    assert_int_equal(request(&bed, FLUSH, 0, 0, 0), STATUS_OK);
    assert_int_equal(request(&bed, READ, 0, 512, 0), STATUS_OK);
    verify_file(&bed);
    bed_close(&bed);
}

static void test_configuration(void **state)
{
    struct bed bed;
    bed_open(&bed, (struct setup){.queues = QUEUES});
    uint64_t at = bed.driver.device_config;
    struct machine *machine = &bed.machine;
    assert_int_equal(mmio_read(machine, at, 8), DISK_SIZE / 512);
    assert_int_equal(mmio_read(machine, at + 12, 4), 254);
    assert_int_equal(mmio_read(machine, at + 20, 4), 512);
    assert_int_equal(mmio_read(machine, at + 34, 2), QUEUES);
    assert_int_equal(mmio_read(machine, at + 32, 1), 1);
    assert_int_equal(mmio_read(machine, at + 60, 4), 0);
    mmio_write(machine, at + 32, 1, 0); /* not agreed on */
    assert_int_equal(mmio_read(machine, at + 32, 1), 1);
    bed_start(&bed, ALL_BLK | F(VIRTIO_BLK_F_CONFIG_WCE) | F(VIRTIO_BLK_F_MQ));
    mmio_write(machine, at + 32, 1, 7);
    assert_int_equal(mmio_read(machine, at + 32, 1), 1);
    mmio_write(machine, at + 32, 1, 0);
    assert_int_equal(mmio_read(machine, at + 32, 1), 0);
    memset(slot_data(&bed, 0), 0x77, 512);
    assert_int_equal(request(&bed, WRITE, 0, 512, 0), STATUS_OK);
    memset(bed.model, 0x77, 512);
    verify_file(&bed);
    driver_reset(&bed.driver);
    assert_int_equal(mmio_read(machine, at + 32, 1), 1);
    bed_close(&bed);

    bed_open(&bed, (struct setup){.cache = BLOCK_CACHE_WRITETHROUGH});
    assert_false(driver_offered(&bed.driver) & F(VIRTIO_BLK_F_CONFIG_WCE));
    assert_int_equal(mmio_read(&bed.machine, bed.driver.device_config + 32, 1), 0);
    bed_close(&bed);
}

/* Writes and reads on four queues that two loops serve; an interrupt only to the queue's own
 * vector. */
static void run_queues(struct setup setup, uint64_t features)
{
    struct bed bed;
    setup.queues = QUEUES;
    bed_open(&bed, setup);
    bed_start(&bed, ALL_BLK | F(VIRTIO_BLK_F_MQ) | features);
    for (unsigned round = 0; round < 60; round++) {
        uint16_t id;
        uint32_t written;
        /* Different places at once: the order between queues is nobody's promise. */
        for (unsigned i = 0; i < 12; i++) {
            memset(slot_data(&bed, i), (int)(round + i), 4096);
            memset(bed.model + (i * 64 + round) * 512, (int)(round + i), 4096);
            submit(&bed, i % QUEUES, i, WRITE, i * 64 + round, 4096, round % 3);
        }
        for (unsigned q = 0; q < QUEUES; q++)
            ring_kick(&bed.driver, &bed.driver.ring[q]);
        for (unsigned i = 0; i < 12; i++)
            assert_true(ring_wait(&bed.driver, &bed.driver.ring[i % QUEUES], &id, &written));
        for (unsigned i = 0; i < 12; i++) {
            assert_int_equal(*machine_host(&bed.machine, slot_at(&bed, i) + 0x3000), STATUS_OK);
            submit(&bed, (i + 1) % QUEUES, i, READ, i * 64 + round, 4096, round % 4);
            memset(slot_data(&bed, i), 0, 4096);
        }
        for (unsigned q = 0; q < QUEUES; q++)
            ring_kick(&bed.driver, &bed.driver.ring[q]);
        for (unsigned i = 0; i < 12; i++)
            assert_true(ring_wait(&bed.driver, &bed.driver.ring[(i + 1) % QUEUES], &id, &written));
        for (unsigned i = 0; i < 12; i++)
            assert_memory_equal(slot_data(&bed, i), bed.model + (i * 64 + round) * 512, 4096);
    }
    verify_file(&bed);
    for (unsigned q = 0; q < QUEUES; q++)
        assert_true(__atomic_load_n(&bed.machine.message[2 + q], __ATOMIC_SEQ_CST) > 0);
    assert_int_equal(__atomic_load_n(&bed.machine.message[1], __ATOMIC_SEQ_CST), 0);
    bed_close(&bed);
}

static void test_queues(void **state)
{
    run_queues((struct setup){0}, EVENT);
    run_queues((struct setup){.threads = true}, EVENT | INDIRECT);
    run_queues((struct setup){.threads = true}, PACKED | EVENT);
    run_queues((struct setup){.threads = true, .engine = BLOCK_ENGINE_THREADS}, PACKED);
}

/* Stopped in every way with requests on their way to the disk: all are answered, none twice. */
static void run_stops(struct setup setup)
{
    struct bed bed;
    setup.queues = QUEUES;
    bed_open(&bed, setup);
    struct device *device = &bed.blk->virtio.pci.device;
    for (unsigned round = 0; round < 24; round++) {
        bed_start(&bed,
                  ALL_BLK | F(VIRTIO_BLK_F_MQ) | F(VIRTIO_F_RING_RESET) | (round & 1 ? PACKED : 0));
        struct driver *driver = &bed.driver;
        for (unsigned i = 0; i < 32; i++) {
            memset(slot_data(&bed, i), (int)round, 4096);
            submit(&bed, i % QUEUES, i, WRITE, 1000 + i * 8, 4096, 0);
        }
        for (unsigned q = 0; q < QUEUES; q++)
            ring_kick(driver, &driver->ring[q]);
        if (!setup.threads)
            loop_once(bed.machine.env.loop, 1);
        switch (round % 4) {
        case 0:
            driver_reset(driver);
            break;
        case 1:
            device_quiesce(device);
            device_resume(device);
            driver_reset(driver);
            break;
        case 2:
            device_reset(device);
            check_ok(pci_bus_assign(bed.machine.bus));
            driver_find(driver, &bed.machine, &bed.blk->virtio);
            driver_msix_on(driver);
            break;
        case 3:
            for (unsigned q = 0; q < QUEUES; q++) {
                COMMON_WRITE(driver, 0x16, 2, q);
                COMMON_WRITE(driver, 0x3a, 2, 1);
                uint64_t limit = clock_now_ns() + 5 * NSEC_PER_SEC;
                while (COMMON_READ(driver, 0x3a, 2) && clock_now_ns() < limit)
                    driver_turn(driver, 1);
                assert_int_equal(COMMON_READ(driver, 0x3a, 2), 0);
            }
            break;
        }
        /* Each status was written, or its request never left the ring. */
        for (unsigned i = 0; i < 32; i++) {
            uint8_t status = *machine_host(&bed.machine, slot_at(&bed, i) + 0x3000);
            assert_true(status == STATUS_OK || status == STATUS_NONE);
        }
    }
    bed_close(&bed);
}

static void test_stops(void **state)
{
    run_stops((struct setup){0});
    run_stops((struct setup){.threads = true});
    run_stops((struct setup){.threads = true, .engine = BLOCK_ENGINE_THREADS});
}

static void test_state(void **state)
{
    struct setup setup = {.queues = 2};
    struct bed bed;
    bed_open(&bed, setup);
    bed_start(&bed, ALL_BLK | F(VIRTIO_BLK_F_CONFIG_WCE) | F(VIRTIO_BLK_F_MQ) | PACKED | EVENT);
    mmio_write(&bed.machine, bed.driver.device_config + 32, 1, 0);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(request(&bed, READ, i, 512, 0), STATUS_OK);
    /* On its way while the device is stopped. */
    memset(slot_data(&bed, 1), 0x19, 4096);
    submit(&bed, 1, 1, WRITE, 64, 4096, 0);
    ring_kick(&bed.driver, &bed.driver.ring[1]);
    loop_once(bed.machine.env.loop, 1);
    struct virtio_blk *fresh = blk_new(&bed, &setup);
    round_trip(&bed.blk->virtio.pci.device, &fresh->virtio.pci.device);
    assert_int_equal(fresh->writeback, 0);
    device_free(&bed.blk->virtio.pci.device);
    bed.blk = fresh;
    device_resume(&fresh->virtio.pci.device);
    uint16_t id;
    uint32_t written;
    assert_true(ring_wait(&bed.driver, &bed.driver.ring[1], &id, &written));
    assert_int_equal(*machine_host(&bed.machine, slot_at(&bed, 1) + 0x3000), STATUS_OK);
    memset(bed.model + 64 * 512, 0x19, 4096);
    verify_file(&bed);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(request(&bed, READ, i, 512, 0), STATUS_OK);
    bed_close(&bed);
}

/* As many requests as the ring holds, many rounds: one interrupt serves many of them. */
static void test_batches(void **state)
{
    struct bed bed;
    bed_open(&bed, (struct setup){0});
    bed_start(&bed, ALL_BLK | EVENT | INDIRECT);
    unsigned requests = 0;
    for (unsigned round = 0; round < 50; round++) {
        for (unsigned i = 0; i < 32; i++)
            submit(&bed, 0, i, READ, i * 8, 4096, 0);
        ring_kick(&bed.driver, &bed.driver.ring[0]);
        for (unsigned i = 0; i < 32; i++, requests++) {
            uint16_t id;
            uint32_t written;
            assert_true(ring_wait(&bed.driver, &bed.driver.ring[0], &id, &written));
        }
    }
    assert_true(bed.driver.ring[0].kicks <= 50);
    assert_true(bed.machine.message[2] < requests / 4);
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operations), cmocka_unit_test(test_errors),
        cmocka_unit_test(test_read_only),  cmocka_unit_test(test_configuration),
        cmocka_unit_test(test_queues),     cmocka_unit_test(test_stops),
        cmocka_unit_test(test_state),      cmocka_unit_test(test_batches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
