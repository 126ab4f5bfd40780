/*
 * The NVMe controller end to end: a host driver's queues in guest memory against files. Transfers
 * through PRP lists, deep queues, shadow doorbells, identification, events, errors to the letter,
 * resets and shutdown with commands in flight, hostile registers and commands, state.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "hw/disk/nvme_internal.h"
#include "virtio_driver.h"

#define DISK_SIZE MIB(4)
#define NAMESPACES 2
#define QUEUES 3
#define DEPTH 1024
#define DNR NVME_DO_NOT_RETRY

/* One queue pair as the host sees it. */
struct pair {
    unsigned id;
    uint16_t size, tail, head;
    bool phase;
    uint64_t sq, cq;
};

struct bed {
    struct machine machine;
    struct loop *io_loop[2];
    struct loop_thread *io_thread[2];
    struct block *block[NAMESPACES]; /* 0: plain; 1: read-only */
    char path[NAMESPACES][32];
    struct nvme *nvme;
    uint64_t config, bar;
    struct pair pair[QUEUES + 1];
    uint64_t shadow, event; /* 0: real doorbells */
    uint64_t data;          /* guest memory for data */
    uint8_t *model;
    uint16_t cid;
    uint32_t result;
    bool threads;
};

static struct nvme *nvme_new(struct bed *bed)
{
    struct nvme *nvme = (struct nvme *)device_new(&nvme_class, &bed->machine.env, "n0");
    for (unsigned i = 0; i < NAMESPACES; i++)
        nvme->ns[i].block = bed->block[i];
    nvme->ns_count = NAMESPACES;
    nvme->serial = "NVME-0";
    nvme->queues = QUEUES;
    if (bed->threads) {
        nvme->io_loops = bed->io_loop;
        nvme->io_loop_count = 2;
    }
    machine_add(&bed->machine, &nvme->pci.device);
    return nvme;
}

/* Finds BAR 0, turns memory, bus mastering and MSI-X on; vector v sends data 1 + v. */
static void find(struct bed *bed)
{
    struct machine *machine = &bed->machine;
    struct driver driver = {.machine = machine,
                            .config = ECAM + ((uint64_t)bed->nvme->pci.devfn << 12)};
    bed->config = driver.config;
    mmio_write(machine, driver.config + 4, 2, 6);
    driver.msix = (unsigned)mmio_read(machine, driver.config + 0x34, 1);
    while (mmio_read(machine, driver.config + driver.msix, 1) != 0x11)
        driver.msix = (unsigned)mmio_read(machine, driver.config + driver.msix + 1, 1);
    driver_msix_on(&driver);
    bed->bar = driver_bar(&driver, 0);
}

static void bed_open(struct bed *bed, bool threads)
{
    memset(bed, 0, sizeof(*bed));
    bed->threads = threads;
    machine_init(&bed->machine);
    bed->model = malloc(DISK_SIZE);
    for (uint64_t i = 0; i < DISK_SIZE; i++)
        bed->model[i] = (uint8_t)(i * 13 + (i >> 10));
    for (unsigned i = 0; i < NAMESPACES; i++) {
        strcpy(bed->path[i], "nvme-test-XXXXXX");
        int fd = mkstemp(bed->path[i]);
        assert_int_equal(pwrite(fd, bed->model, DISK_SIZE, 0), DISK_SIZE);
        struct block_options options = {.id = "d", .fd = fd, .readonly = i == 1, .discard = true};
        check_ok(block_open_raw(&options, &bed->block[i]));
    }
    for (unsigned i = 0; i < 2 && threads; i++)
        check_ok(loop_new("io", &bed->io_loop[i]));
    bed->nvme = nvme_new(bed);
    for (unsigned i = 0; i < 2 && threads; i++)
        check_ok(loop_thread_start(bed->io_loop[i], &bed->io_thread[i]));
    find(bed);
}

static void bed_close(struct bed *bed)
{
    device_quiesce(&bed->nvme->pci.device);
    for (unsigned i = 0; i < 2; i++)
        loop_thread_join(bed->io_thread[i]);
    device_free(&bed->nvme->pci.device);
    for (unsigned i = 0; i < NAMESPACES; i++) {
        block_close(bed->block[i]);
        unlink(bed->path[i]);
    }
    for (unsigned i = 0; i < 2; i++)
        loop_free(bed->io_loop[i]);
    machine_fini(&bed->machine);
    free(bed->model);
}

static uint32_t reg(struct bed *bed, unsigned offset)
{
    return (uint32_t)mmio_read(&bed->machine, bed->bar + offset, 4);
}

static void set_reg(struct bed *bed, unsigned offset, uint32_t value)
{
    mmio_write(&bed->machine, bed->bar + offset, 4, value);
}

static void turn(struct bed *bed)
{
    if (bed->threads)
        usleep(100);
    else
        loop_once(bed->machine.env.loop, 1);
}

/* Waits until the masked status reads `value`. */
static void await_status(struct bed *bed, uint32_t mask, uint32_t value)
{
    uint64_t limit = clock_now_ns() + 5 * NSEC_PER_SEC;
    while ((reg(bed, NVME_CSTS) & mask) != value && clock_now_ns() < limit)
        turn(bed);
    assert_int_equal(reg(bed, NVME_CSTS) & mask, value);
}

static void disable(struct bed *bed)
{
    set_reg(bed, NVME_CC, 0);
    await_status(bed, NVME_CSTS_RDY, 0);
    bed->shadow = bed->event = 0;
}

static uint8_t *host(struct bed *bed, uint64_t gpa)
{
    return machine_host(&bed->machine, gpa);
}

static struct pair *lay_pair(struct bed *bed, unsigned id, uint16_t size)
{
    struct pair *pair = &bed->pair[id];
    *pair = (struct pair){.id = id, .size = size, .phase = true};
    pair->sq = machine_alloc(&bed->machine, 64ull * size, 4096);
    pair->cq = machine_alloc(&bed->machine, 16ull * size, 4096);
    memset(host(bed, pair->cq), 0, 16ull * size);
    return pair;
}

static void enable(struct bed *bed, uint16_t admin_size)
{
    disable(bed);
    bed->machine.next = 4096;
    bed->data = RAM_SIZE / 2;
    struct pair *admin = lay_pair(bed, 0, admin_size);
    set_reg(bed, NVME_AQA, (uint32_t)(admin_size - 1) * 0x10001u);
    mmio_write(&bed->machine, bed->bar + NVME_ASQ, 8, admin->sq);
    set_reg(bed, NVME_ACQ, (uint32_t)admin->cq);
    set_reg(bed, NVME_ACQ + 4, 0);
    set_reg(bed, NVME_CC, NVME_CC_EN | 6 << 16 | 4 << 20);
    await_status(bed, ~0u, NVME_CSTS_RDY);
}

static void ring(struct bed *bed, unsigned doorbell, uint16_t value)
{
    uint64_t at = bed->bar + NVME_DOORBELLS + 4 * doorbell;
    if (bed->shadow && doorbell > 1) {
        uint32_t *shadow = (uint32_t *)(void *)(host(bed, bed->shadow) + 4 * doorbell);
        uint16_t old = (uint16_t)*shadow;
        __atomic_store_n(shadow, value, __ATOMIC_SEQ_CST);
        uint32_t event = __atomic_load_n((uint32_t *)(void *)(host(bed, bed->event) + 4 * doorbell),
                                         __ATOMIC_SEQ_CST);
        if (!virtq_need_event((uint16_t)event, value, old))
            return;
        for (unsigned i = 0; i < bed->machine.bells; i++) {
            uint64_t one = 1;
            if (bed->machine.bell_gpa[i] != at)
                continue;
            assert_int_equal(write(bed->machine.bell_fd[i], &one, 8), 8);
            return;
        }
    }
    mmio_write(&bed->machine, at, 4, value);
}

struct sqe {
    uint8_t op, flags;
    uint32_t nsid;
    uint64_t prp1, prp2;
    uint32_t dw10, dw11, dw12, dw13;
};

/* Puts a command into the queue without a doorbell; its identifier. */
static uint16_t put(struct bed *bed, struct pair *pair, struct sqe sqe)
{
    uint8_t *at = host(bed, pair->sq + 64ull * pair->tail);
    uint16_t cid = bed->cid++;
    memset(at, 0, 64);
    at[0] = sqe.op;
    at[1] = sqe.flags;
    put_le16(at + 2, cid);
    put_le32(at + 4, sqe.nsid);
    put_le64(at + 24, sqe.prp1);
    put_le64(at + 32, sqe.prp2);
    put_le32(at + 40, sqe.dw10);
    put_le32(at + 44, sqe.dw11);
    put_le32(at + 48, sqe.dw12);
    put_le32(at + 52, sqe.dw13);
    pair->tail = (uint16_t)((pair->tail + 1) % pair->size);
    return cid;
}

/* The next completion if there is one: status, identifier. */
static bool reap(struct bed *bed, struct pair *pair, unsigned *status, uint16_t *cid)
{
    const uint8_t *at = host(bed, pair->cq + 16ull * pair->head);
    uint32_t last = __atomic_load_n((const uint32_t *)(const void *)(at + 12), __ATOMIC_SEQ_CST);
    if ((last >> 16 & 1) != pair->phase)
        return false;
    *status = last >> 17;
    *cid = (uint16_t)last;
    bed->result = get_le32(at);
    assert_int_equal(get_le16(at + 10), pair->id);
    if (++pair->head == pair->size) {
        pair->head = 0;
        pair->phase = !pair->phase;
    }
    return true;
}

static unsigned await(struct bed *bed, struct pair *pair, uint16_t *cid)
{
    uint64_t limit = clock_now_ns() + 5 * NSEC_PER_SEC;
    unsigned status = 0xdead;
    while (!reap(bed, pair, &status, cid)) {
        if (clock_now_ns() >= limit)
            fail_msg("no completion on queue %u", pair->id);
        turn(bed);
    }
    ring(bed, 2 * pair->id + 1, pair->head);
    return status;
}

static unsigned run(struct bed *bed, unsigned queue, struct sqe sqe)
{
    struct pair *pair = &bed->pair[queue];
    uint16_t cid = put(bed, pair, sqe), got;
    ring(bed, 2 * queue, pair->tail);
    unsigned status = await(bed, pair, &got);
    assert_int_equal(got, cid);
    return status;
}

#define ADMIN(bed, ...) run(bed, 0, (struct sqe){__VA_ARGS__})
#define IO(bed, ...) run(bed, 1, (struct sqe){__VA_ARGS__})

static void create_pair(struct bed *bed, unsigned id, uint16_t size)
{
    struct pair *pair = lay_pair(bed, id, size);
    uint32_t dw10 = id | (uint32_t)(size - 1) << 16;
    assert_int_equal(
        ADMIN(bed, NVME_CREATE_CQ, .prp1 = pair->cq, .dw10 = dw10, .dw11 = 3 | id << 16), 0);
    assert_int_equal(
        ADMIN(bed, NVME_CREATE_SQ, .prp1 = pair->sq, .dw10 = dw10, .dw11 = 1 | id << 16), 0);
}

static void shadow_on(struct bed *bed)
{
    uint64_t shadow = machine_alloc(&bed->machine, 4096, 4096);
    uint64_t event = machine_alloc(&bed->machine, 4096, 4096);
    memset(host(bed, shadow), 0, 4096);
    memset(host(bed, event), 0, 4096);
    assert_int_equal(ADMIN(bed, NVME_DOORBELL_BUFFER, .prp1 = shadow, .prp2 = event), 0);
    bed->shadow = shadow;
    bed->event = event;
}

static void start(struct bed *bed, bool shadows, uint16_t size)
{
    enable(bed, 32);
    if (shadows)
        shadow_on(bed);
    for (unsigned i = 1; i <= QUEUES; i++)
        create_pair(bed, i, size);
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

/* PRPs of `length` bytes from `offset` into the first data page; pages lie in reverse order. */
static struct sqe rw(struct bed *bed, bool write, uint64_t lba, uint32_t length, uint32_t offset)
{
    struct sqe sqe = {.op = write ? NVME_WRITE : NVME_READ,
                      .nsid = 1,
                      .dw10 = (uint32_t)lba,
                      .dw11 = (uint32_t)(lba >> 32),
                      .dw12 = length / 512 - 1};
    unsigned pages = (offset + length + 4095) / 4096;
    uint64_t list = bed->data + 4096 * 200ull;
    sqe.prp1 = bed->data + 4096ull * (pages - 1) + offset;
    if (pages == 2)
        sqe.prp2 = bed->data;
    if (pages > 2) {
        /* The list begins near the end of its page, so that it needs a second one. */
        uint64_t at = list + 4096 - 3 * 8;
        sqe.prp2 = at;
        for (unsigned i = 1; i < pages; i++) {
            if (at % 4096 == 4096 - 8 && i + 1 < pages) {
                put_le64(host(bed, at), list + 4096);
                at = list + 4096;
            }
            put_le64(host(bed, at), bed->data + 4096ull * (pages - 1 - i));
            at += 8;
        }
    }
    return sqe;
}

/* Where byte `at` of such a transfer lies. */
static uint8_t *rw_byte(struct bed *bed, uint32_t length, uint32_t offset, uint32_t at)
{
    unsigned pages = (offset + length + 4095) / 4096, page = (offset + at) / 4096;
    return host(bed, bed->data + 4096ull * (pages - 1 - page) + (offset + at) % 4096);
}

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
        cmocka_unit_test(test_errors),    cmocka_unit_test(test_queue_rules),
        cmocka_unit_test(test_stops),     cmocka_unit_test(test_shutdown),
        cmocka_unit_test(test_events),    cmocka_unit_test(test_line_interrupt),
        cmocka_unit_test(test_state),     cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
