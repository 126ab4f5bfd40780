/*
 * The AHCI controller with ATA disks, end to end: what the drives say of themselves, every way to
 * move data, queued commands, errors to the letter, memory that is none, resets and stops with
 * commands in flight, interrupts, state. Optical drives are in test_atapi.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "ahci_host.h"

static void test_identity(void **state)
{
    struct bed bed;
    bed_open(&bed, false, true);
    assert_int_equal(mmio_read(&bed.machine, bed.config, 4), 0x29228086);
    assert_int_equal(mmio_read(&bed.machine, bed.config + 9, 2), 0x0601);
    assert_int_equal(reg(&bed, AHCI_CAP) & 0x1f, AHCI_PORTS - 1);
    assert_int_equal(reg(&bed, AHCI_CAP) >> 8 & 0x1f, AHCI_SLOTS - 1);
    assert_int_equal(reg(&bed, AHCI_PI), 0x3f);
    assert_int_equal(preg(&bed, PORT_DISK, AHCI_PxSIG), 0x101);
    assert_int_equal(preg(&bed, PORT_DISC, AHCI_PxSIG), 0xeb140101);
    assert_int_equal(preg(&bed, PORT_DISK, AHCI_PxSSTS), 0x123);
    assert_int_equal(preg(&bed, PORT_NOTHING, AHCI_PxSSTS), 0);
    assert_int_equal(preg(&bed, PORT_NOTHING, AHCI_PxTFD), 0x7f);
    /* Narrow and wide reads of the same registers. */
    assert_int_equal(mmio_read(&bed.machine, bed.bar + 1, 1), reg(&bed, 0) >> 8 & 0xff);
    assert_int_equal(mmio_read(&bed.machine, bed.bar + 0xc, 8), 0x000103010000003full);

    assert_int_equal(RUN(&bed, PORT_DISK, 0xec, .length = 512), GOOD_TFD);
    const uint8_t *answer = host(&bed, bed.data);
    uint8_t sum = 0;
    for (unsigned i = 0; i < 512; i++)
        sum = (uint8_t)(sum + answer[i]);
    assert_int_equal(sum, 0);
    assert_memory_equal(answer + 20, "HAIC0- ", 6);
    assert_int_equal(get_le32(answer + 120), DISK_SIZE / 512);
    assert_int_equal(get_le64(answer + 200), DISK_SIZE / 512);
    assert_int_equal(get_le16(answer + 150), 31);
    assert_int_equal(get_le16(answer + 338), 1); /* TRIM */
    assert_int_equal(moved(&bed, PORT_DISK), 512);
    /* A PIO answer is announced by its own FIS. */
    assert_true(preg(&bed, PORT_DISK, AHCI_PxIS) & AHCI_IS_PSS);
    const uint8_t *fis = host(&bed, bed.fis[PORT_DISK] + AHCI_RX_PIO_SETUP);
    assert_int_equal(fis[0], FIS_PIO_SETUP);
    assert_int_equal(fis[15], ATA_READY);
    assert_int_equal(get_le16(fis + 16), 512);

    assert_int_equal(RUN(&bed, PORT_DISK, 0xa1, .length = 512), ABORTED);
    start_port(&bed, PORT_DISK);
    assert_int_equal(RUN(&bed, PORT_DISC, 0xa1, .length = 512), GOOD_TFD);
    assert_int_equal(get_le16(host(&bed, bed.data)), 0x85c0);
    assert_int_equal(RUN(&bed, PORT_DISC, 0xec, .length = 512), ABORTED);
    fis = host(&bed, bed.fis[PORT_DISC] + AHCI_RX_REGISTER);
    assert_int_equal(fis[5], 0x14);
    assert_int_equal(fis[6], 0xeb);
    bed_close(&bed);
}

struct way {
    uint8_t command;
    bool write, pio;
};

static void test_transfers(void **state)
{
    static const struct way ways[] = {
        {0x25, false, false}, {0x35, true, false}, {0x3d, true, false}, {0xc8, false, false},
        {0xca, true, false},  {0x20, false, true}, {0x24, false, true}, {0x29, false, true},
        {0xc4, false, true},  {0x30, true, true},  {0x34, true, true},  {0x39, true, true},
        {0xc5, true, true},   {0xce, true, true},
    };
    struct bed bed;
    for (unsigned threads = 0; threads < 2; threads++) {
        bed_open(&bed, threads, true);
        for (unsigned i = 0; i < ARRAY_SIZE(ways); i++) {
            const struct way *way = &ways[i];
            uint64_t lba = 100 + 50 * i;
            uint8_t *data = host(&bed, bed.data);
            memset(data, (int)(i + 1), 16 * 512);
            assert_int_equal(RUN(&bed, PORT_DISK, way->command, lba, 16, .length = 16 * 512,
                                 .write = way->write),
                             GOOD_TFD);
            assert_int_equal(moved(&bed, PORT_DISK), 16 * 512);
            uint32_t is = preg(&bed, PORT_DISK, AHCI_PxIS);
            assert_int_equal(!!(is & AHCI_IS_PSS), way->pio && !way->write);
            assert_int_equal(!!(is & AHCI_IS_DHRS), !(way->pio && !way->write));
            if (way->write)
                memset(bed.model + lba * 512, (int)(i + 1), 16 * 512);
            else
                assert_memory_equal(data, bed.model + lba * 512, 16 * 512);
        }
        verify_file(&bed);
        /* A count of 0 is 256; and nothing beyond the end. */
        uint64_t end = DISK_SIZE / 512;
        assert_int_equal(RUN(&bed, PORT_DISK, 0xc8, end - 256, 0, .length = 256 * 512), GOOD_TFD);
        assert_memory_equal(host(&bed, bed.data), bed.model + DISK_SIZE - 256 * 512, 256 * 512);
        assert_int_equal(RUN(&bed, PORT_DISK, 0x25, end - 1, 2, .length = 1024),
                         (ATA_READY | ATA_ERR | 0x14 << 8));
        start_port(&bed, PORT_DISK);
        assert_int_equal(RUN(&bed, PORT_READONLY, 0x35, 0, 1, .length = 512, .write = true),
                         ABORTED);
        bed_close(&bed);
    }
}

/* Data scattered over pieces of `piece` bytes, with gaps between them. */
static void scattered(struct bed *bed, uint32_t piece, unsigned sectors, bool write)
{
    unsigned entries = sectors * 512 / piece;
    struct sata sata = {write ? 0x35 : 0x25, 64, sectors};
    put_fis(bed, 0, &sata);
    for (unsigned i = 0; i < entries; i++) {
        uint64_t gpa = bed->data + 2ull * piece * i;
        put_entry(bed, 0, i, gpa, piece);
        if (write)
            memset(host(bed, gpa), (int)(i * 7 + piece), piece);
    }
    put_header(bed, PORT_DISK, 0, write ? 1u << 6 : 0, entries);
    set_preg(bed, PORT_DISK, AHCI_PxIS, 0xffffffff);
    set_preg(bed, PORT_DISK, AHCI_PxCI, 1);
    assert_int_equal(finish(bed, PORT_DISK), GOOD_TFD);
    assert_int_equal(moved(bed, PORT_DISK), sectors * 512);
    for (unsigned i = 0; i < entries; i++) {
        uint8_t *here = bed->model + 64 * 512 + (size_t)piece * i;
        uint64_t gpa = bed->data + 2ull * piece * i;
        if (write)
            memset(here, (int)(i * 7 + piece), piece);
        else
            assert_memory_equal(host(bed, gpa), here, piece);
    }
}

static void test_tables(void **state)
{
    struct bed bed;
    bed_open(&bed, false, true);
    /* Tables longer than the segments of a step; they run on into the next slots' room. */
    scattered(&bed, 2, 4, true);
    scattered(&bed, 2, 4, false);
    scattered(&bed, 6, 3, true); /* sectors and pieces do not meet */
    scattered(&bed, 6, 3, false);
    scattered(&bed, 96, 90, true);
    scattered(&bed, 96, 90, false);
    scattered(&bed, 512, 200, true);
    scattered(&bed, 512, 200, false);
    verify_file(&bed);
    /* Across two regions of memory. */
    uint64_t edge = RAM_SIZE / 2;
    assert_int_equal(RUN(&bed, PORT_DISK, 0x25, 8, 2, .gpa = edge - 300, .length = 1024), GOOD_TFD);
    assert_memory_equal(host(&bed, edge - 300), bed.model + 8 * 512, 300);
    assert_memory_equal(host(&bed, edge), bed.model + 8 * 512 + 300, 724);
    bed_close(&bed);
}

/* The error is the cause, the port stands, and serves again after a restart. */
static void expect_fatal(struct bed *bed, uint32_t cause)
{
    set_preg(bed, PORT_DISK, AHCI_PxIS, 0xffffffff);
    set_preg(bed, PORT_DISK, AHCI_PxCI, 1);
    finish(bed, PORT_DISK);
    assert_int_equal(preg(bed, PORT_DISK, AHCI_PxIS) & cause, cause);
    set_preg(bed, PORT_DISK, AHCI_PxCI, 2);
    for (unsigned i = 0; i < 3; i++)
        turn(bed);
    assert_int_equal(preg(bed, PORT_DISK, AHCI_PxCI) & 2, 2);
    start_port(bed, PORT_DISK);
    assert_int_equal(RUN(bed, PORT_DISK, 0x25, 0, 1, .length = 512), GOOD_TFD);
}

static void test_bad_memory(void **state)
{
    struct bed bed;
    bed_open(&bed, false, true);
    const struct sata read = {0x25, 0, 8, .length = 4096};
    struct sata at = read;
    at.gpa = RAM_SIZE - 512; /* half of it is no memory */
    put_command(&bed, PORT_DISK, 0, at);
    expect_fatal(&bed, AHCI_IS_HBFS);
    at.gpa = ROM_BASE;
    put_command(&bed, PORT_DISK, 0, at);
    expect_fatal(&bed, AHCI_IS_HBFS);
    at.gpa = ~0ull - 1;
    put_command(&bed, PORT_DISK, 0, at);
    expect_fatal(&bed, AHCI_IS_HBFS);
    /* The table ends before the data does. */
    at = read;
    at.length = 4096 - 2;
    put_command(&bed, PORT_DISK, 0, at);
    expect_fatal(&bed, AHCI_IS_TFES | AHCI_IS_OFS);
    put_command(&bed, PORT_DISK, 0, read);
    put_header(&bed, PORT_DISK, 0, 0, 0);
    expect_fatal(&bed, AHCI_IS_TFES | AHCI_IS_OFS);
    /* A table that lies nowhere, or runs out of memory. */
    put_command(&bed, PORT_DISK, 0, read);
    put_le64(host(&bed, bed.list[PORT_DISK] + 8), RAM_SIZE);
    expect_fatal(&bed, AHCI_IS_HBFS);
    put_command(&bed, PORT_DISK, 0, read);
    memcpy(host(&bed, RAM_SIZE - 128), host(&bed, table_of(&bed, 0)), 128);
    put_le64(host(&bed, bed.list[PORT_DISK] + 8), RAM_SIZE - 128);
    expect_fatal(&bed, AHCI_IS_HBFS);
    /* No FIS, or a short one. */
    put_command(&bed, PORT_DISK, 0, read);
    host(&bed, table_of(&bed, 0))[0] = 0x41;
    expect_fatal(&bed, AHCI_IS_IFS);
    put_command(&bed, PORT_DISK, 0, read);
    host(&bed, bed.list[PORT_DISK])[0] = 2;
    expect_fatal(&bed, AHCI_IS_IFS);
    /* A command list that lies nowhere; FISes that go nowhere. */
    set_preg(&bed, PORT_DISK, AHCI_PxCLB, (uint32_t)RAM_SIZE);
    expect_fatal(&bed, AHCI_IS_HBFS);
    set_preg(&bed, PORT_DISK, AHCI_PxFB, (uint32_t)RAM_SIZE);
    assert_int_equal(RUN(&bed, PORT_DISK, 0x25, 0, 1, .length = 512), GOOD_TFD);
    verify_file(&bed);
    bed_close(&bed);
}

static void put_queued(struct bed *bed, unsigned slot, bool write, uint64_t lba, unsigned sectors)
{
    put_command(bed, PORT_DISK, slot,
                (struct sata){write ? ATA_WRITE_QUEUED : ATA_READ_QUEUED, lba, slot << 3,
                              .features = (uint16_t)sectors, .gpa = bed->data + slot * 4096ull,
                              .length = sectors * 512, .write = write});
}

static void run_queued(bool threads)
{
    struct bed bed;
    bed_open(&bed, threads, true);
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned slot = 0; slot < AHCI_SLOTS; slot++) {
            uint64_t lba = (round * 37 + slot * 131) % 500 * 8;
            bool write = (round + slot) % 3 == 0;
            uint8_t *data = host(&bed, bed.data + slot * 4096ull);
            put_queued(&bed, slot, write, lba, 8);
            if (write) {
                memset(data, (int)(round + slot), 4096);
                memset(bed.model + lba * 512, (int)(round + slot), 4096);
            }
        }
        unsigned before = bed.machine.message[MESSAGE];
        set_preg(&bed, PORT_DISK, AHCI_PxIS, 0xffffffff);
        set_reg(&bed, AHCI_IS, 0xffffffff);
        set_preg(&bed, PORT_DISK, AHCI_PxSACT, 0xffffffff);
        set_preg(&bed, PORT_DISK, AHCI_PxCI, 0xffffffff);
        await(&bed, PORT_DISK, AHCI_PxSACT, 0xffffffff, 0);
        assert_int_equal(preg(&bed, PORT_DISK, AHCI_PxCI), 0);
        assert_true(preg(&bed, PORT_DISK, AHCI_PxIS) & AHCI_IS_SDBS);
        assert_true(bed.machine.message[MESSAGE] > before);
        assert_int_equal(host(&bed, bed.fis[PORT_DISK] + AHCI_RX_DEVICE_BITS)[0], FIS_DEVICE_BITS);
    }
    verify_file(&bed);
    for (unsigned slot = 0; slot < AHCI_SLOTS; slot++)
        put_queued(&bed, slot, false, slot * 8, 8);
    set_preg(&bed, PORT_DISK, AHCI_PxSACT, 0xffffffff);
    set_preg(&bed, PORT_DISK, AHCI_PxCI, 0xffffffff);
    await(&bed, PORT_DISK, AHCI_PxSACT, 0xffffffff, 0);
    assert_memory_equal(host(&bed, bed.data), bed.model, AHCI_SLOTS * 4096);
    bed_close(&bed);
}

static void test_queued(void **state)
{
    run_queued(false);
    run_queued(true);
}

static void test_queued_error(void **state)
{
    struct bed bed;
    bed_open(&bed, false, true);
    put_queued(&bed, 3, false, 0, 8);
    put_queued(&bed, 5, false, DISK_SIZE / 512 - 4, 8);
    set_preg(&bed, PORT_DISK, AHCI_PxIS, 0xffffffff);
    set_preg(&bed, PORT_DISK, AHCI_PxSACT, 1u << 3 | 1u << 5);
    set_preg(&bed, PORT_DISK, AHCI_PxCI, 1u << 3 | 1u << 5);
    await(&bed, PORT_DISK, AHCI_PxIS, AHCI_IS_TFES, AHCI_IS_TFES);
    /* The one that failed is still active; the host restarts the port and asks which. */
    assert_int_equal(preg(&bed, PORT_DISK, AHCI_PxSACT) >> 5 & 1, 1);
    assert_int_equal(preg(&bed, PORT_DISK, AHCI_PxTFD) & 0xff, ATA_READY | ATA_ERR);
    start_port(&bed, PORT_DISK);
    assert_int_equal(preg(&bed, PORT_DISK, AHCI_PxSACT), 0);
    assert_int_equal(RUN(&bed, PORT_DISK, 0x2f, 0x10, 1, .length = 512), GOOD_TFD);
    const uint8_t *log = host(&bed, bed.data);
    assert_int_equal(log[0], 5);
    assert_int_equal(log[2], ATA_READY | ATA_ERR);
    assert_int_equal(log[3], 0x14);
    assert_int_equal(get_le32(log + 4) & 0xffffff, DISK_SIZE / 512 - 4);
    /* Once. */
    assert_int_equal(RUN(&bed, PORT_DISK, 0x47, 0x10, 1, .length = 512), GOOD_TFD);
    assert_int_equal(log[0], 0x80);
    /* A tag that is not its slot's, and one that was never made active. */
    put_queued(&bed, 4, false, 0, 8);
    put_le16(host(&bed, table_of(&bed, 4) + 12), 9 << 3);
    set_preg(&bed, PORT_DISK, AHCI_PxSACT, 1u << 4);
    set_preg(&bed, PORT_DISK, AHCI_PxCI, 1u << 4);
    await(&bed, PORT_DISK, AHCI_PxIS, AHCI_IS_TFES, AHCI_IS_TFES);
    start_port(&bed, PORT_DISK);
    put_queued(&bed, 4, false, 0, 8);
    set_preg(&bed, PORT_DISK, AHCI_PxCI, 1u << 4);
    await(&bed, PORT_DISK, AHCI_PxIS, AHCI_IS_TFES, AHCI_IS_TFES);
    start_port(&bed, PORT_DISK);
    assert_int_equal(RUN(&bed, PORT_DISK, 0x25, 0, 1, .length = 512), GOOD_TFD);
    bed_close(&bed);
}

static void test_trim(void **state)
{
    struct bed bed;
    bed_open(&bed, false, true);
    uint8_t *list = host(&bed, bed.data);
    memset(list, 0, 4096);
    put_le64(list, 16 | 8ull << 48);
    put_le64(list + 8, 4096 | 64ull << 48);
    put_le64(list + 504, 2048 | 8ull << 48);
    assert_int_equal(RUN(&bed, PORT_DISK, 0x06, 0, 1, 1, .length = 512, .write = true), GOOD_TFD);
    memset(bed.model + 16 * 512, 0, 8 * 512);
    memset(bed.model + 4096 * 512, 0, 64 * 512);
    memset(bed.model + 2048 * 512, 0, 8 * 512);
    verify_file(&bed);
    /* One range outside: nothing is done. */
    put_le64(list + 16, (DISK_SIZE / 512 - 1) | 2ull << 48);
    put_le64(list, 64 | 8ull << 48);
    assert_int_equal(RUN(&bed, PORT_DISK, 0x06, 0, 1, 1, .length = 512, .write = true) & 0xff,
                     ATA_READY | ATA_ERR);
    start_port(&bed, PORT_DISK);
    assert_int_equal(RUN(&bed, PORT_DISK, 0x06, 0, 9, 1, .length = 512, .write = true), ABORTED);
    start_port(&bed, PORT_DISK);
    assert_int_equal(RUN(&bed, PORT_DISK, 0x06, 0, 1, 0, .length = 512, .write = true), ABORTED);
    verify_file(&bed);
    bed_close(&bed);
}

static void test_settings(void **state)
{
    struct bed bed;
    const uint64_t key = 0xc24f00;
    const uint8_t *answer;
    bed_open(&bed, false, true);
    answer = host(&bed, bed.data);
    assert_int_equal(RUN(&bed, PORT_DISK, 0xe7), GOOD_TFD);
    assert_int_equal(RUN(&bed, PORT_DISK, 0xea), GOOD_TFD);
    assert_int_equal(RUN(&bed, PORT_DISK, 0xef, 0, 0x42, 3), GOOD_TFD);
    assert_int_equal(RUN(&bed, PORT_DISK, 0xef, 0, 0, 0x82), GOOD_TFD);
    assert_int_equal(RUN(&bed, PORT_DISK, 0xc6, 0, 8), GOOD_TFD);
    assert_int_equal(RUN(&bed, PORT_DISK, 0xec, .length = 512), GOOD_TFD);
    assert_int_equal(get_le16(answer + 2 * 88) >> 8, 1u << 2);
    assert_int_equal(get_le16(answer + 2 * 85) & 0x20, 0);
    assert_int_equal(get_le16(answer + 2 * 59), 0x108);
    assert_int_equal(RUN(&bed, PORT_DISK, 0xef, 0, 0, 0x02), GOOD_TFD);
    assert_int_equal(RUN(&bed, PORT_DISK, 0xb0, key, 1, 0xd0, .length = 512), GOOD_TFD);
    assert_int_equal(answer[2], 0x01);
    assert_int_equal(RUN(&bed, PORT_DISK, 0xb0, key, 1, 0xd1, .length = 512), GOOD_TFD);
    assert_int_equal(RUN(&bed, PORT_DISK, 0xb0, key | 0x10, 1, 0xd5, .length = 512), GOOD_TFD);
    assert_int_equal(RUN(&bed, PORT_DISK, 0xb0, key, 0, 0xda), GOOD_TFD);
    const uint8_t *fis = host(&bed, bed.fis[PORT_DISK] + AHCI_RX_REGISTER);
    assert_int_equal(fis[5], 0x4f);
    assert_int_equal(fis[6], 0xc2);
    assert_int_equal(RUN(&bed, PORT_DISK, 0xe5), GOOD_TFD);
    assert_int_equal(get_le16(fis + 12), 0xff);
    assert_int_equal(RUN(&bed, PORT_DISK, 0x27), GOOD_TFD);
    assert_int_equal(get_le32(fis + 4) & 0xffffff, DISK_SIZE / 512 - 1);
    static const struct sata wrong[] = {
        {0xb0, 0, 1, 0xd0, .length = 512},
        {0xb0, 0xc24f00, 1, 0x77, .length = 512},
        {0xc6, 0, 3},
        {0xef, 0, 0, 0x10},
        {0x2f, 0x55, 1, .length = 512},
        {0x2f, 0x10, 2, .length = 1024},
        {0x2f, 0x0110, 1, .length = 512},
        {0x77},
        {ATA_PACKET, .length = 512},
        {0x00},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
        assert_int_equal(run(&bed, PORT_DISK, wrong[i]), ABORTED);
        start_port(&bed, PORT_DISK);
    }
    /* Cylinders, heads and sectors are not spoken. */
    put_command(&bed, PORT_DISK, 0, (struct sata){0xc8, 0, 1, .length = 512});
    host(&bed, table_of(&bed, 0))[7] = 0;
    set_preg(&bed, PORT_DISK, AHCI_PxCI, 1);
    assert_int_equal(finish(&bed, PORT_DISK), ABORTED);
    bed_close(&bed);
}

/* Everything stopped with commands in flight: each has ended, or never begun. */
static void run_stops(bool threads)
{
    struct bed bed;
    bed_open(&bed, threads, true);
    for (unsigned round = 0; round < 30; round++) {
        start_all(&bed);
        for (unsigned slot = 0; slot < AHCI_SLOTS; slot++)
            put_queued(&bed, slot, true, 1000 + 8 * slot, 8);
        memset(host(&bed, bed.data), (int)round, 4096);
        set_preg(&bed, PORT_DISK, AHCI_PxSACT, 0xffffffff);
        set_preg(&bed, PORT_DISK, AHCI_PxCI, 0xffffffff);
        if (!threads)
            loop_once(bed.machine.env.loop, 1);
        switch (round % 5) {
        case 0:
            stop_port(&bed, PORT_DISK);
            break;
        case 1:
            device_quiesce(&bed.ahci->pci.device);
            assert_int_equal(bed.ahci->in_flight, 0);
            device_resume(&bed.ahci->pci.device);
            await(&bed, PORT_DISK, AHCI_PxSACT, 0xffffffff, 0);
            break;
        case 2: /* COMRESET */
            set_preg(&bed, PORT_DISK, AHCI_PxSCTL, 0x301);
            assert_int_equal(preg(&bed, PORT_DISK, AHCI_PxSSTS), 0);
            set_preg(&bed, PORT_DISK, AHCI_PxSCTL, 0x300);
            await(&bed, PORT_DISK, AHCI_PxSSTS, 0xfff, 0x123);
            assert_int_equal(preg(&bed, PORT_DISK, AHCI_PxIS) & AHCI_IS_PCS, AHCI_IS_PCS);
            break;
        case 3: /* the whole controller */
            set_reg(&bed, AHCI_GHC, AHCI_GHC_HR);
            for (unsigned i = 0; i < 10000 && (reg(&bed, AHCI_GHC) & AHCI_GHC_HR); i++)
                turn(&bed);
            assert_int_equal(reg(&bed, AHCI_GHC), AHCI_GHC_AE);
            assert_int_equal(preg(&bed, PORT_DISK, AHCI_PxCMD) & (AHCI_CMD_ST | AHCI_CMD_CR), 0);
            break;
        case 4:
            device_reset(&bed.ahci->pci.device);
            check_ok(pci_bus_assign(bed.machine.bus));
            find(&bed, true);
            break;
        }
        assert_int_equal(preg(&bed, PORT_DISK, AHCI_PxCI), 0);
        assert_int_equal(preg(&bed, PORT_DISK, AHCI_PxSACT), 0);
    }
    start_all(&bed);
    assert_int_equal(RUN(&bed, PORT_DISK, 0x25, 0, 1, .length = 512), GOOD_TFD);
    bed_close(&bed);
}

static void test_stops(void **state)
{
    run_stops(false);
    run_stops(true);
}

static void soft_reset(struct bed *bed, unsigned port)
{
    for (unsigned on = 0; on < 2; on++) {
        struct sata none = {0};
        put_fis(bed, 0, &none);
        host(bed, table_of(bed, 0))[1] = 0;
        host(bed, table_of(bed, 0))[15] = on ? 0 : 4;
        put_header(bed, port, 0, 1u << 8 | 1u << 10, 0);
        set_preg(bed, port, AHCI_PxCI, 1);
        await(bed, port, AHCI_PxCI, 1, 0);
        assert_int_equal(preg(bed, port, AHCI_PxTFD) & ATA_BUSY, on ? 0 : ATA_BUSY);
    }
}

static void test_soft_reset(void **state)
{
    struct bed bed;
    bed_open(&bed, false, true);
    assert_int_equal(RUN(&bed, PORT_DISK, 0xc6, 0, 8), GOOD_TFD);
    soft_reset(&bed, PORT_DISK);
    assert_int_equal(preg(&bed, PORT_DISK, AHCI_PxSIG), 0x101);
    assert_int_equal(host(&bed, bed.fis[PORT_DISK] + AHCI_RX_REGISTER)[4], 1);
    assert_int_equal(RUN(&bed, PORT_DISK, 0xec, .length = 512), GOOD_TFD);
    assert_int_equal(get_le16(host(&bed, bed.data + 2 * 59)), 0);
    soft_reset(&bed, PORT_DISC);
    assert_int_equal(preg(&bed, PORT_DISC, AHCI_PxSIG), 0xeb140101);
    bed_close(&bed);
}

static void test_interrupts(void **state)
{
    struct bed bed;
    bed_open(&bed, false, false);
    struct machine *machine = &bed.machine;
    assert_false(machine->line);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(RUN(&bed, PORT_DISK, 0x25, 0, 1, .length = 512), GOOD_TFD);
        assert_true(machine->line);
        assert_int_equal(reg(&bed, AHCI_IS), 1u << PORT_DISK);
        /* IS comes back as long as the port's own status is there. */
        set_reg(&bed, AHCI_IS, 0xffffffff);
        assert_true(machine->line);
        set_preg(&bed, PORT_DISK, AHCI_PxIS, 0xffffffff);
        assert_true(machine->line);
        set_reg(&bed, AHCI_IS, 0xffffffff);
        assert_false(machine->line);
    }
    /* Masked at the port, then at the controller. */
    set_preg(&bed, PORT_DISK, AHCI_PxIE, 0);
    assert_int_equal(RUN(&bed, PORT_DISK, 0x25, 0, 1, .length = 512), GOOD_TFD);
    assert_false(machine->line);
    set_reg(&bed, AHCI_GHC, AHCI_GHC_AE);
    set_preg(&bed, PORT_DISK, AHCI_PxIE, 0xffffffff);
    assert_false(machine->line);
    set_reg(&bed, AHCI_GHC, AHCI_GHC_AE | AHCI_GHC_IE);
    assert_true(machine->line);
    /* With messages the line is quiet; one a change, and one for what was not served. */
    assert_int_equal(machine->message[MESSAGE], 0);
    find(&bed, true);
    assert_false(machine->line);
    assert_int_equal(machine->message[MESSAGE], 1);
    set_reg(&bed, AHCI_IS, 0xffffffff);
    assert_int_equal(machine->message[MESSAGE], 2);
    set_preg(&bed, PORT_DISK, AHCI_PxIS, 0xffffffff);
    set_reg(&bed, AHCI_IS, 0xffffffff);
    assert_int_equal(machine->message[MESSAGE], 2);
    assert_int_equal(RUN(&bed, PORT_DISK, 0x25, 0, 1, .length = 512), GOOD_TFD);
    assert_int_equal(machine->message[MESSAGE], 3);
    assert_false(machine->line);
    bed_close(&bed);
}

static void test_state(void **state)
{
    struct bed bed;
    bed_open(&bed, false, true);
    assert_int_equal(RUN(&bed, PORT_DISK, 0xc6, 0, 8), GOOD_TFD);
    assert_int_equal(RUN(&bed, PORT_DISK, 0xef, 0, 0, 0x82), GOOD_TFD);
    memset(host(&bed, bed.data), 0x19, 4096);
    put_queued(&bed, 0, true, 64, 8);
    put_queued(&bed, 9, false, 0, 8);
    /* Stopped before they begin: they begin over there. */
    device_quiesce(&bed.ahci->pci.device);
    set_preg(&bed, PORT_DISK, AHCI_PxSACT, 1 | 1u << 9);
    set_preg(&bed, PORT_DISK, AHCI_PxCI, 1 | 1u << 9);
    turn(&bed);
    struct ahci *fresh = ahci_new(&bed);
    round_trip(&bed.ahci->pci.device, &fresh->pci.device);
    device_free(&bed.ahci->pci.device);
    bed.ahci = fresh;
    device_resume(&fresh->pci.device);
    bed.config = ECAM + ((uint64_t)fresh->pci.devfn << 12);
    await(&bed, PORT_DISK, AHCI_PxSACT, 0xffffffff, 0);
    memset(bed.model + 64 * 512, 0x19, 4096);
    verify_file(&bed);
    assert_int_equal(RUN(&bed, PORT_DISK, 0xec, .length = 512), GOOD_TFD);
    assert_int_equal(get_le16(host(&bed, bed.data + 2 * 59)), 0x108);
    assert_int_equal(get_le16(host(&bed, bed.data + 2 * 85)) & 0x20, 0);
    bed_close(&bed);
}

/* Registers, headers and commands at random: the port may stand, and starts anew. */
static void test_random(void **state)
{
    struct bed bed;
    uint32_t seed = 4711;
    bed_open(&bed, false, true);
    for (unsigned round = 0; round < 60; round++) {
        start_all(&bed);
        for (unsigned i = 0; i < 200; i++) {
            seed = seed * 1664525 + 1013904223;
            unsigned bits = seed >> 8, port = bits % 5, slot = bits >> 4 & 31;
            uint8_t *table = host(&bed, table_of(&bed, slot)), *list;
            for (unsigned k = 0; k < 0xa0; k++) {
                seed = seed * 1664525 + 1013904223;
                if ((seed >> 28) > 12)
                    table[k] = (uint8_t)(seed >> 16);
            }
            table[0] = bits % 17 ? FIS_HOST_TO_DEVICE : table[0];
            table[1] = 0x80;
            table[4 + 3] |= 0x40;
            list = host(&bed, bed.list[port] + 32 * slot);
            put_le32(list, 5 | (bits & 0xe0) | (bits >> 12 & 3) << 16);
            put_le64(list + 8, table_of(&bed, slot));
            set_preg(&bed, port, AHCI_PxSACT, bits % 3 ? 1u << slot : 0);
            set_preg(&bed, port, AHCI_PxCI, 1u << slot);
            if (bits % 7 == 0)
                set_preg(&bed, port, 4 * (bits >> 5 & 15), seed);
            if (bits % 11 == 0)
                start_port(&bed, port % DRIVES);
            if (i % 4 == 0)
                loop_once(bed.machine.env.loop, 0);
        }
        device_quiesce(&bed.ahci->pci.device);
        assert_int_equal(bed.ahci->in_flight, 0);
        device_resume(&bed.ahci->pci.device);
        for (unsigned i = 0; i < DRIVES; i++)
            set_preg(&bed, i, AHCI_PxSCTL, 0);
    }
    start_all(&bed);
    assert_int_equal(RUN(&bed, PORT_DISK, 0x25, 0, 1, .length = 512), GOOD_TFD);
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),   cmocka_unit_test(test_transfers),
        cmocka_unit_test(test_tables),     cmocka_unit_test(test_bad_memory),
        cmocka_unit_test(test_queued),     cmocka_unit_test(test_queued_error),
        cmocka_unit_test(test_trim),       cmocka_unit_test(test_settings),
        cmocka_unit_test(test_stops),      cmocka_unit_test(test_soft_reset),
        cmocka_unit_test(test_interrupts), cmocka_unit_test(test_state),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
