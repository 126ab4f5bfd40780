/*
 * A host of the AHCI controller for tests: ports with drives over files, command slots in guest
 * memory, commands issued and awaited as a driver does it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TEST_AHCI_HOST_H
#define TENON_TEST_AHCI_HOST_H

#include <fcntl.h>

#include "block/live.h"
#include "hw/disk/ahci_internal.h"
#include "virtio_driver.h"

#define DISK_SIZE MIB(4)
#define DISC_SIZE MIB(1)
#define MESSAGE 7

/* Port 0: a disk; 1: a read-only disk; 2: a drive with a disc; 3: an empty drive; 4: nothing. */
enum { PORT_DISK, PORT_READONLY, PORT_DISC, PORT_EMPTY, DRIVES, PORT_NOTHING = DRIVES };

struct bed {
    struct machine machine;
    struct loop *io_loop;
    struct loop_thread *io_thread;
    struct block *block[DRIVES];
    char path[DRIVES][32];
    struct ahci *ahci;
    uint64_t config, bar;
    uint64_t list[AHCI_PORTS], fis[AHCI_PORTS]; /* guest addresses */
    uint64_t table;                             /* of slot 0; the others follow */
    uint64_t data;
    uint8_t *model; /* what the disk should hold */
    bool threads;
};

#define TABLE_STRIDE 0x1000u /* of command tables: 248 entries */
#define DATA_SIZE 0x40000u

/* One command as the tests write it. */
struct sata {
    uint8_t command;
    uint64_t lba;
    uint32_t count; /* sectors */
    uint16_t features;
    uint8_t device;
    const uint8_t *cdb;
    uint64_t gpa;    /* memory; 0: bed->data */
    uint32_t length; /* bytes of it */
    bool write;
    unsigned flags; /* of the header, beside */
};

static inline uint8_t *host(struct bed *bed, uint64_t gpa)
{
    return machine_host(&bed->machine, gpa);
}

static inline struct ahci *ahci_new(struct bed *bed)
{
    struct ahci *ahci = (struct ahci *)device_new(&ahci_class, &bed->machine.env, "a0");
    for (unsigned i = 0; i < DRIVES; i++) {
        ahci->port[i].block = bed->block[i];
        ahci->port[i].id = "d";
        ahci->port[i].serial = "AHCI-0";
        ahci->port[i].optical = i >= PORT_DISC;
    }
    ahci->io_loop = bed->threads ? bed->io_loop : NULL;
    machine_add(&bed->machine, &ahci->pci.device);
    return ahci;
}

static inline void find(struct bed *bed, bool message)
{
    struct machine *machine = &bed->machine;
    struct driver driver = {.machine = machine,
                            .config = ECAM + ((uint64_t)bed->ahci->pci.devfn << 12)};
    bed->config = driver.config;
    mmio_write(machine, driver.config + 4, 2, 6);
    unsigned msi = (unsigned)mmio_read(machine, driver.config + 0x34, 1);
    assert_int_equal(mmio_read(machine, driver.config + msi, 1), 5);
    mmio_write(machine, driver.config + msi + 4, 4, 0xfee00000);
    mmio_write(machine, driver.config + msi + 12, 2, MESSAGE);
    mmio_write(machine, driver.config + msi + 2, 2, message);
    bed->bar = driver_bar(&driver, 5);
}

static inline void open_drive(struct bed *bed, unsigned i)
{
    uint64_t size = i >= PORT_DISC ? DISC_SIZE : DISK_SIZE;
    struct block_options options = {
        .id = "d", .fd = -1, .readonly = i != PORT_DISK, .discard = true};
    if (i != PORT_EMPTY) {
        strcpy(bed->path[i], "ahci-test-XXXXXX");
        options.fd = mkstemp(bed->path[i]);
        assert_int_equal(pwrite(options.fd, bed->model, size, 0), size);
    }
    check_ok(i >= PORT_DISC ? block_open_removable(&options, &bed->block[i])
                            : block_open_raw(&options, &bed->block[i]));
}

static inline uint32_t reg(struct bed *bed, unsigned offset)
{
    return (uint32_t)mmio_read(&bed->machine, bed->bar + offset, 4);
}

static inline void set_reg(struct bed *bed, unsigned offset, uint32_t value)
{
    mmio_write(&bed->machine, bed->bar + offset, 4, value);
}

static inline uint32_t preg(struct bed *bed, unsigned port, unsigned offset)
{
    return reg(bed, AHCI_PORT0 + AHCI_PORT_SIZE * port + offset);
}

static inline void set_preg(struct bed *bed, unsigned port, unsigned offset, uint32_t value)
{
    set_reg(bed, AHCI_PORT0 + AHCI_PORT_SIZE * port + offset, value);
}

static inline void turn(struct bed *bed)
{
    if (bed->threads)
        usleep(100);
    else
        loop_once(bed->machine.env.loop, 1);
}

/* Waits until the masked register of the port reads `value`. */
static inline void await(struct bed *bed, unsigned port, unsigned offset, uint32_t mask,
                         uint32_t value)
{
    uint64_t limit = clock_now_ns() + 20 * NSEC_PER_SEC;
    while ((preg(bed, port, offset) & mask) != value && clock_now_ns() < limit)
        turn(bed);
    assert_int_equal(preg(bed, port, offset) & mask, value);
}

static inline void stop_port(struct bed *bed, unsigned port)
{
    set_preg(bed, port, AHCI_PxCMD, AHCI_CMD_FRE);
    await(bed, port, AHCI_PxCMD, AHCI_CMD_CR, 0);
}

/* As a driver starts a port, or starts it anew after an error. */
static inline void start_port(struct bed *bed, unsigned port)
{
    stop_port(bed, port);
    set_preg(bed, port, AHCI_PxCLB, (uint32_t)bed->list[port]);
    set_preg(bed, port, AHCI_PxFB, (uint32_t)bed->fis[port]);
    set_preg(bed, port, AHCI_PxCLBU, 0);
    set_preg(bed, port, AHCI_PxFBU, 0);
    set_preg(bed, port, AHCI_PxSERR, 0xffffffff);
    set_preg(bed, port, AHCI_PxIS, 0xffffffff);
    set_preg(bed, port, AHCI_PxIE, 0xffffffff);
    set_preg(bed, port, AHCI_PxCMD, AHCI_CMD_FRE | AHCI_CMD_ST);
    assert_int_equal(preg(bed, port, AHCI_PxCMD) & AHCI_CMD_CR, AHCI_CMD_CR);
}

static inline void start_all(struct bed *bed)
{
    set_reg(bed, AHCI_GHC, AHCI_GHC_AE | AHCI_GHC_IE);
    for (unsigned i = 0; i < DRIVES; i++)
        start_port(bed, i);
}

static inline void bed_open(struct bed *bed, bool threads, bool message)
{
    memset(bed, 0, sizeof(*bed));
    bed->threads = threads;
    machine_init(&bed->machine);
    bed->model = malloc(DISK_SIZE);
    for (uint64_t i = 0; i < DISK_SIZE; i++)
        bed->model[i] = (uint8_t)(i * 13 + (i >> 10));
    for (unsigned i = 0; i < DRIVES; i++)
        open_drive(bed, i);
    if (threads)
        check_ok(loop_new("io", &bed->io_loop));
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        bed->list[i] = machine_alloc(&bed->machine, 1024, 1024);
        bed->fis[i] = machine_alloc(&bed->machine, 256, 256);
    }
    bed->table = machine_alloc(&bed->machine, AHCI_SLOTS * TABLE_STRIDE, 128);
    bed->data = machine_alloc(&bed->machine, DATA_SIZE, 4096);
    bed->ahci = ahci_new(bed);
    if (threads)
        check_ok(loop_thread_start(bed->io_loop, &bed->io_thread));
    find(bed, message);
    start_all(bed);
}

static inline void bed_close(struct bed *bed)
{
    device_quiesce(&bed->ahci->pci.device);
    if (bed->io_thread)
        loop_thread_join(bed->io_thread);
    device_free(&bed->ahci->pci.device);
    for (unsigned i = 0; i < DRIVES; i++) {
        block_close(bed->block[i]);
        if (bed->path[i][0])
            unlink(bed->path[i]);
    }
    if (bed->io_loop)
        loop_free(bed->io_loop);
    machine_fini(&bed->machine);
    free(bed->model);
}

static inline uint64_t table_of(const struct bed *bed, unsigned slot)
{
    return bed->table + TABLE_STRIDE * slot;
}

static inline void put_entry(struct bed *bed, unsigned slot, unsigned index, uint64_t gpa,
                             uint32_t length)
{
    uint8_t *at = host(bed, table_of(bed, slot) + 0x80 + 16 * index);
    put_le64(at, gpa);
    put_le32(at + 8, 0);
    put_le32(at + 12, length - 1);
}

static inline void put_header(struct bed *bed, unsigned port, unsigned slot, unsigned flags,
                              unsigned entries)
{
    uint8_t *at = host(bed, bed->list[port] + 32 * slot);
    put_le32(at, 5 | flags | entries << 16);
    put_le32(at + 4, 0);
    put_le64(at + 8, table_of(bed, slot));
}

static inline void put_fis(struct bed *bed, unsigned slot, const struct sata *sata)
{
    uint8_t *fis = host(bed, table_of(bed, slot));
    memset(fis, 0, 0x80);
    fis[0] = FIS_HOST_TO_DEVICE;
    fis[1] = 0x80;
    fis[2] = sata->command;
    fis[3] = (uint8_t)sata->features;
    put_le32(fis + 4, (uint32_t)(sata->lba & 0xffffff));
    put_le32(fis + 8, (uint32_t)(sata->lba >> 24 & 0xffffff));
    fis[7] = sata->device | 0x40;
    fis[11] = (uint8_t)(sata->features >> 8);
    put_le16(fis + 12, (uint16_t)sata->count);
    if (sata->cdb)
        memcpy(fis + 0x40, sata->cdb, 12);
}

/* Lays a command into a slot, its memory as one entry. */
static inline void put_command(struct bed *bed, unsigned port, unsigned slot, struct sata sata)
{
    put_fis(bed, slot, &sata);
    if (sata.length)
        put_entry(bed, slot, 0, sata.gpa ? sata.gpa : bed->data, sata.length);
    put_header(bed, port, slot, (sata.write ? 1u << 6 : 0) | sata.flags, sata.length ? 1 : 0);
}

/* The end of the command in slot 0: TFD. */
static inline uint32_t finish(struct bed *bed, unsigned port)
{
    uint64_t limit = clock_now_ns() + 20 * NSEC_PER_SEC;
    while ((preg(bed, port, AHCI_PxCI) & 1) && clock_now_ns() < limit &&
           !(preg(bed, port, AHCI_PxIS) & (AHCI_IS_TFES | AHCI_IS_HBFS | AHCI_IS_IFS)))
        turn(bed);
    uint32_t tfd = preg(bed, port, AHCI_PxTFD);
    if (preg(bed, port, AHCI_PxIS) & (AHCI_IS_TFES | AHCI_IS_HBFS | AHCI_IS_IFS))
        return tfd;
    assert_int_equal(preg(bed, port, AHCI_PxCI) & 1, 0);
    return tfd;
}

/* Runs one command in slot 0; TFD. After an error the port has to be started anew. */
static inline uint32_t run(struct bed *bed, unsigned port, struct sata sata)
{
    put_command(bed, port, 0, sata);
    set_preg(bed, port, AHCI_PxIS, 0xffffffff);
    set_preg(bed, port, AHCI_PxCI, 1);
    return finish(bed, port);
}

#define RUN(bed, port, ...) run(bed, port, (struct sata){__VA_ARGS__})
#define GOOD_TFD (ATA_READY)
#define ABORTED (ATA_READY | ATA_ERR | ATA_ERROR_ABORT << 8)

static inline uint32_t moved(struct bed *bed, unsigned port)
{
    return get_le32(host(bed, bed->list[port] + 4));
}

/* One packet; 0 or the sense: key << 16 | additional code. `length` bytes into bed->data. */
static inline uint32_t packet(struct bed *bed, unsigned port, const uint8_t cdb[12],
                              uint32_t length)
{
    static const uint8_t request_sense[12] = {0x03, 0, 0, 0, 18};
    uint8_t sense[18];
    if (RUN(bed, port, ATA_PACKET, .cdb = cdb, .length = length, .features = 1, .flags = 1u << 5) ==
        GOOD_TFD)
        return 0;
    uint32_t tfd = preg(bed, port, AHCI_PxTFD);
    start_port(bed, port);
    assert_int_equal(RUN(bed, port, ATA_PACKET, .cdb = request_sense, .length = 18, .features = 1),
                     GOOD_TFD);
    memcpy(sense, host(bed, bed->data), 18);
    assert_int_equal(sense[0], 0x70);
    assert_int_equal(tfd >> 12 & 15, sense[2]);
    return (uint32_t)sense[2] << 16 | get_be16(sense + 12);
}

#define PACKET(bed, port, length, ...) packet(bed, port, (const uint8_t[12]){__VA_ARGS__}, length)

static inline void verify_file(struct bed *bed)
{
    uint8_t *bytes = malloc(DISK_SIZE);
    int fd = open(bed->path[PORT_DISK], O_RDONLY);
    assert_int_equal(pread(fd, bytes, DISK_SIZE, 0), DISK_SIZE);
    assert_memory_equal(bytes, bed->model, DISK_SIZE);
    close(fd);
    free(bytes);
}

#endif
