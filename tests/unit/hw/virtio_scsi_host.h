/*
 * A driver of virtio-scsi for its tests: commands in its queues, disks behind the units.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TEST_VIRTIO_SCSI_HOST_H
#define TENON_TEST_VIRTIO_SCSI_HOST_H

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

static inline struct virtio_scsi *scsi_new(struct bed *bed)
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

static inline void bed_open(struct bed *bed, bool threads)
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

static inline void bed_close(struct bed *bed)
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

static inline void bed_start(struct bed *bed, uint64_t features)
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
static inline uint8_t *slot(struct bed *bed, unsigned index)
{
    return machine_host(&bed->machine, bed->memory + index * 0x4000ull);
}

static inline uint8_t *data(struct bed *bed, unsigned index)
{
    return slot(bed, index) + 0x1000;
}

#define RESPONSE_AT 0x800

static inline void put_lun(uint8_t *at, unsigned lun)
{
    memset(at, 0, 8);
    at[0] = 1;
    put_be16(at + 2, (uint16_t)(0x4000 | lun));
}

/* `out` and `in`: bytes of data; `shape` cuts the headers and data in different ways. */
static inline void submit(struct bed *bed, unsigned queue, unsigned index, unsigned lun,
                          const uint8_t *cdb, size_t cdb_len, uint32_t out, uint32_t in,
                          unsigned shape)
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
static inline unsigned result(struct bed *bed, unsigned index)
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

static inline uint32_t residual(struct bed *bed)
{
    return get_le32(slot(bed, 0) + RESPONSE_AT + 4);
}

static inline void command(struct bed *bed, unsigned lun, const uint8_t *cdb, size_t cdb_len,
                           uint32_t out, uint32_t in, unsigned shape)
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

static inline unsigned rw(struct bed *bed, unsigned lun, uint8_t op, uint64_t lba, uint32_t blocks,
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
static inline void take_attention(struct bed *bed)
{
    for (unsigned lun = 0; lun < UNITS; lun++) {
        assert_int_equal(RUN(bed, lun, 0, 0, SCSI_TEST_UNIT_READY), ATTENTION(SCSI_ASC_POWER_ON));
        assert_int_equal(RUN(bed, lun, 0, 0, SCSI_TEST_UNIT_READY), 0);
    }
}

static inline void verify_file(struct bed *bed)
{
    uint8_t *back = malloc(DISK_SIZE);
    int fd = open(bed->path[0], O_RDONLY);
    assert_int_equal(pread(fd, back, DISK_SIZE, 0), DISK_SIZE);
    assert_memory_equal(back, bed->model, DISK_SIZE);
    close(fd);
    free(back);
}

#endif
