/*
 * A host of the NVMe controller for its tests: queues in guest memory, commands, disks behind it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TEST_NVME_HOST_H
#define TENON_TEST_NVME_HOST_H

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

static inline struct nvme *nvme_new(struct bed *bed)
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
static inline void find(struct bed *bed)
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

static inline void bed_open(struct bed *bed, bool threads)
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

static inline void bed_close(struct bed *bed)
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

static inline uint32_t reg(struct bed *bed, unsigned offset)
{
    return (uint32_t)mmio_read(&bed->machine, bed->bar + offset, 4);
}

static inline void set_reg(struct bed *bed, unsigned offset, uint32_t value)
{
    mmio_write(&bed->machine, bed->bar + offset, 4, value);
}

static inline void turn(struct bed *bed)
{
    if (bed->threads)
        usleep(100);
    else
        loop_once(bed->machine.env.loop, 1);
}

/* Waits until the masked status reads `value`. */
static inline void await_status(struct bed *bed, uint32_t mask, uint32_t value)
{
    uint64_t limit = clock_now_ns() + 5 * NSEC_PER_SEC;
    while ((reg(bed, NVME_CSTS) & mask) != value && clock_now_ns() < limit)
        turn(bed);
    assert_int_equal(reg(bed, NVME_CSTS) & mask, value);
}

static inline void disable(struct bed *bed)
{
    set_reg(bed, NVME_CC, 0);
    await_status(bed, NVME_CSTS_RDY, 0);
    bed->shadow = bed->event = 0;
}

static inline uint8_t *host(struct bed *bed, uint64_t gpa)
{
    return machine_host(&bed->machine, gpa);
}

static inline struct pair *lay_pair(struct bed *bed, unsigned id, uint16_t size)
{
    struct pair *pair = &bed->pair[id];
    *pair = (struct pair){.id = id, .size = size, .phase = true};
    pair->sq = machine_alloc(&bed->machine, 64ull * size, 4096);
    pair->cq = machine_alloc(&bed->machine, 16ull * size, 4096);
    memset(host(bed, pair->cq), 0, 16ull * size);
    return pair;
}

static inline void enable(struct bed *bed, uint16_t admin_size)
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

static inline void ring(struct bed *bed, unsigned doorbell, uint16_t value)
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
static inline uint16_t put(struct bed *bed, struct pair *pair, struct sqe sqe)
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
static inline bool reap(struct bed *bed, struct pair *pair, unsigned *status, uint16_t *cid)
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

static inline unsigned await(struct bed *bed, struct pair *pair, uint16_t *cid)
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

static inline unsigned run(struct bed *bed, unsigned queue, struct sqe sqe)
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

static inline void create_pair(struct bed *bed, unsigned id, uint16_t size)
{
    struct pair *pair = lay_pair(bed, id, size);
    uint32_t dw10 = id | (uint32_t)(size - 1) << 16;
    assert_int_equal(
        ADMIN(bed, NVME_CREATE_CQ, .prp1 = pair->cq, .dw10 = dw10, .dw11 = 3 | id << 16), 0);
    assert_int_equal(
        ADMIN(bed, NVME_CREATE_SQ, .prp1 = pair->sq, .dw10 = dw10, .dw11 = 1 | id << 16), 0);
}

static inline void shadow_on(struct bed *bed)
{
    uint64_t shadow = machine_alloc(&bed->machine, 4096, 4096);
    uint64_t event = machine_alloc(&bed->machine, 4096, 4096);
    memset(host(bed, shadow), 0, 4096);
    memset(host(bed, event), 0, 4096);
    assert_int_equal(ADMIN(bed, NVME_DOORBELL_BUFFER, .prp1 = shadow, .prp2 = event), 0);
    bed->shadow = shadow;
    bed->event = event;
}

static inline void start(struct bed *bed, bool shadows, uint16_t size)
{
    enable(bed, 32);
    if (shadows)
        shadow_on(bed);
    for (unsigned i = 1; i <= QUEUES; i++)
        create_pair(bed, i, size);
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

/* PRPs of `length` bytes from `offset` into the first data page; pages lie in reverse order. */
static inline struct sqe rw(struct bed *bed, bool write, uint64_t lba, uint32_t length,
                            uint32_t offset)
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
static inline uint8_t *rw_byte(struct bed *bed, uint32_t length, uint32_t offset, uint32_t at)
{
    unsigned pages = (offset + length + 4095) / 4096, page = (offset + at) / 4096;
    return host(bed, bed->data + 4096ull * (pages - 1 - page) + (offset + at) % 4096);
}

#endif
