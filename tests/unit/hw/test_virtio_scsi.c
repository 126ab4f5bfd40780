/*
 * virtio-scsi end to end: a driver's commands against files, on both ring kinds; what a unit says
 * of itself; sense data; task management while commands are in flight; hostile commands; state.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "hw/disk/scsi_internal.h"
#include "hw/virtio/virtio_scsi_internal.h"
#include "virtio_driver.h"

#define VERSION_1 F(VIRTIO_F_VERSION_1)
#define PACKED F(VIRTIO_F_RING_PACKED)
#define EVENT F(VIRTIO_F_EVENT_IDX)
#define INDIRECT F(VIRTIO_F_INDIRECT_DESC)
#define DISK_SIZE MIB(4)
#define UNITS 3
#define QUEUES 3
#define ATTENTION(asc) (SCSI_KEY_UNIT_ATTENTION << 16 | (asc))
#define ILLEGAL(asc) (SCSI_KEY_ILLEGAL_REQUEST << 16 | (asc))
#define PROTECTED(asc) (SCSI_KEY_DATA_PROTECT << 16 | (asc))

struct bed {
    struct machine machine;
    struct loop *io_loop[2];
    struct loop_thread *io_thread[2];
    struct block *block[UNITS]; /* 0: plain, 1: read-only, 2: without discard */
    char path[UNITS][32];
    struct virtio_scsi *scsi;
    struct driver driver;
    uint8_t *model;
    uint64_t memory;
    bool threads;
};

static struct virtio_scsi *scsi_new(struct bed *bed)
{
    struct virtio_scsi *scsi =
        (struct virtio_scsi *)device_new(&virtio_scsi_class, &bed->machine.env, "scsi");
    for (unsigned i = 0; i < UNITS; i++)
        scsi->disk[i] = (struct virtio_scsi_disk){bed->block[i], "d0", "SERIAL-0"};
    scsi->disk_count = UNITS;
    scsi->queues = QUEUES;
    if (bed->threads) {
        scsi->io_loops = bed->io_loop;
        scsi->io_loop_count = 2;
    }
    machine_add(&bed->machine, &scsi->virtio.pci.device);
    return scsi;
}

static void bed_open(struct bed *bed, bool threads)
{
    memset(bed, 0, sizeof(*bed));
    bed->threads = threads;
    machine_init(&bed->machine);
    bed->model = malloc(DISK_SIZE);
    for (uint64_t i = 0; i < DISK_SIZE; i++)
        bed->model[i] = (uint8_t)(i * 13 + (i >> 10));
    for (unsigned i = 0; i < UNITS; i++) {
        strcpy(bed->path[i], "scsi-test-XXXXXX");
        int fd = mkstemp(bed->path[i]);
        assert_int_equal(pwrite(fd, bed->model, DISK_SIZE, 0), DISK_SIZE);
        struct block_options options = {
            .id = "d0", .fd = fd, .readonly = i == 1, .discard = i != 2};
        check_ok(block_open_raw(&options, &bed->block[i]));
    }
    for (unsigned i = 0; i < 2 && threads; i++)
        check_ok(loop_new("io", &bed->io_loop[i]));
    bed->scsi = scsi_new(bed);
    for (unsigned i = 0; i < 2 && threads; i++)
        check_ok(loop_thread_start(bed->io_loop[i], &bed->io_thread[i]));
    driver_find(&bed->driver, &bed->machine, &bed->scsi->virtio);
    driver_msix_on(&bed->driver);
}

static void bed_close(struct bed *bed)
{
    device_quiesce(&bed->scsi->virtio.pci.device);
    for (unsigned i = 0; i < 2; i++)
        loop_thread_join(bed->io_thread[i]);
    device_free(&bed->scsi->virtio.pci.device);
    for (unsigned i = 0; i < UNITS; i++) {
        block_close(bed->block[i]);
        unlink(bed->path[i]);
    }
    for (unsigned i = 0; i < 2; i++)
        loop_free(bed->io_loop[i]);
    machine_fini(&bed->machine);
    free(bed->model);
}

static void bed_start(struct bed *bed, uint64_t features)
{
    bed->machine.next = 4096;
    assert_true(driver_negotiate(&bed->driver, VERSION_1 | F(VIRTIO_SCSI_F_CHANGE) | features));
    for (unsigned i = 0; i < VIRTIO_SCSI_REQUEST + QUEUES; i++)
        driver_queue(&bed->driver, i, 64);
    driver_start(&bed->driver);
    for (unsigned i = 0; i < VIRTIO_SCSI_REQUEST + QUEUES; i++)
        ring_arm(&bed->driver, &bed->driver.ring[i]);
    bed->memory = RAM_SIZE / 2;
}

/* Slots: the header, then the response, then data, each with room to spare. */
static uint8_t *slot(struct bed *bed, unsigned index)
{
    return machine_host(&bed->machine, bed->memory + index * 0x4000ull);
}

static uint8_t *data(struct bed *bed, unsigned index)
{
    return slot(bed, index) + 0x1000;
}

#define RESPONSE_AT 0x800

static void put_lun(uint8_t *at, unsigned lun)
{
    memset(at, 0, 8);
    at[0] = 1;
    put_be16(at + 2, (uint16_t)(0x4000 | lun));
}

/* `out` and `in`: bytes of data; `shape` cuts the headers and data in different ways. */
static void submit(struct bed *bed, unsigned queue, unsigned index, unsigned lun,
                   const uint8_t *cdb, size_t cdb_len, uint32_t out, uint32_t in, unsigned shape)
{
    struct buffer buffers[8];
    unsigned outs = 0, ins = 0;
    uint64_t at = bed->memory + index * 0x4000ull;
    uint8_t *header = slot(bed, index);
    memset(header, 0, 51);
    put_lun(header, lun);
    put_le64(header + 8, 100 + index); /* tag */
    memcpy(header + 19, cdb, cdb_len);
    memset(header + RESPONSE_AT, 0xee, 108);
    if (shape & 1) {
        buffers[outs++] = (struct buffer){at, 7};
        buffers[outs++] = (struct buffer){at + 7, 44};
    } else {
        buffers[outs++] = (struct buffer){at, 51};
    }
    if (out)
        buffers[outs++] = (struct buffer){at + 0x1000, out};
    buffers[outs + ins++] = (struct buffer){at + RESPONSE_AT, 108};
    if (in > 600 && (shape & 2)) {
        buffers[outs + ins++] = (struct buffer){at + 0x1000, 100};
        buffers[outs + ins++] = (struct buffer){at + 0x1000 + 100, in - 100};
    } else if (in) {
        buffers[outs + ins++] = (struct buffer){at + 0x1000, in};
    }
    ring_add(&bed->driver, &bed->driver.ring[VIRTIO_SCSI_REQUEST + queue], buffers, outs, ins,
             driver_has(&bed->driver, VIRTIO_F_INDIRECT_DESC));
}

/* 0: good; else key << 16 | asc. */
static unsigned result(struct bed *bed, unsigned index)
{
    const uint8_t *at = slot(bed, index) + RESPONSE_AT;
    assert_int_equal(at[11], VIRTIO_SCSI_S_OK);
    if (at[10] == SCSI_GOOD)
        return 0;
    assert_int_equal(at[10], SCSI_CHECK_CONDITION);
    assert_int_equal(get_le32(at), SCSI_SENSE_SIZE);
    assert_int_equal(at[12], 0x70);
    return (unsigned)at[14] << 16 | get_be16(at + 24);
}

static uint32_t residual(struct bed *bed)
{
    return get_le32(slot(bed, 0) + RESPONSE_AT + 4);
}

static void command(struct bed *bed, unsigned lun, const uint8_t *cdb, size_t cdb_len, uint32_t out,
                    uint32_t in, unsigned shape)
{
    struct ring *ring = &bed->driver.ring[VIRTIO_SCSI_REQUEST];
    uint16_t id;
    uint32_t written;
    submit(bed, 0, 0, lun, cdb, cdb_len, out, in, shape);
    ring_kick(&bed->driver, ring);
    assert_true(ring_wait(&bed->driver, ring, &id, &written));
    assert_true(written >= 108 && written <= 108 + in);
}

#define RUN(bed, lun, out, in, ...)                                                                \
    ({                                                                                             \
        const uint8_t cdb_[] = {__VA_ARGS__};                                                      \
        command(bed, lun, cdb_, sizeof(cdb_), out, in, 0);                                         \
        result(bed, 0);                                                                            \
    })

static unsigned rw(struct bed *bed, unsigned lun, uint8_t op, uint64_t lba, uint32_t blocks,
                   unsigned shape)
{
    uint8_t cdb[16] = {op};
    bool write =
        op == SCSI_WRITE_6 || op == SCSI_WRITE_10 || op == SCSI_WRITE_12 || op == SCSI_WRITE_16;
    switch (op >> 5) {
    case 0:
        put_be32(cdb, (uint32_t)op << 24 | (uint32_t)lba);
        cdb[4] = (uint8_t)blocks;
        break;
    case 4:
        put_be64(cdb + 2, lba);
        put_be32(cdb + 10, blocks);
        break;
    case 5:
        put_be32(cdb + 2, (uint32_t)lba);
        put_be32(cdb + 6, blocks);
        break;
    default:
        put_be32(cdb + 2, (uint32_t)lba);
        put_be16(cdb + 7, (uint16_t)blocks);
    }
    uint32_t bytes = MIN(blocks * 512, 0x3000u);
    command(bed, lun, cdb, sizeof(cdb), write ? bytes : 0, write ? 0 : bytes, shape);
    return result(bed, 0);
}

/* The first command to each unit hears of the reset. */
static void take_attention(struct bed *bed)
{
    for (unsigned lun = 0; lun < UNITS; lun++) {
        assert_int_equal(RUN(bed, lun, 0, 0, SCSI_TEST_UNIT_READY), ATTENTION(SCSI_ASC_POWER_ON));
        assert_int_equal(RUN(bed, lun, 0, 0, SCSI_TEST_UNIT_READY), 0);
    }
}

static void verify_file(struct bed *bed)
{
    uint8_t *back = malloc(DISK_SIZE);
    int fd = open(bed->path[0], O_RDONLY);
    assert_int_equal(pread(fd, back, DISK_SIZE, 0), DISK_SIZE);
    assert_memory_equal(back, bed->model, DISK_SIZE);
    close(fd);
    free(back);
}

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
        cmocka_unit_test(test_transfers),       cmocka_unit_test(test_provisioning),
        cmocka_unit_test(test_identity),        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_errors),          cmocka_unit_test(test_management),
        cmocka_unit_test(test_stops),           cmocka_unit_test(test_resize_event),
        cmocka_unit_test(test_configuration),   cmocka_unit_test(test_state),
        cmocka_unit_test(test_random_commands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
