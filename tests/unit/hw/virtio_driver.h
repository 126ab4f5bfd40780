/*
 * A virtio driver for tests: finds the device's registers through PCI capabilities as a guest does,
 * keeps its rings in guest memory, both layouts, and honours what the device says about doorbells.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TEST_VIRTIO_DRIVER_H
#define TENON_TEST_VIRTIO_DRIVER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "hw/core/env.h"
#include "hw/virtio/virtio.h"
#include "hw/virtio/virtq.h"

#define ECAM 0xb0000000ull
#define RAM_SIZE MIB(2) /* two regions of 1 MiB side by side: buffers may cross */
#define ROM_BASE MIB(8)
#define DRIVER_RINGS 40
#define F(bit) (1ull << (bit))

struct machine {
    struct hw_env env;
    struct pci_bus *bus;
    bool doorbells; /* does the accelerator offer them? */
    uint64_t bell_gpa[80];
    int bell_fd[80];
    unsigned bells;
    unsigned messages, message[64]; /* MSIs by data value */
    bool line;                      /* INTA */
    uint64_t next;                  /* bump allocator of guest memory */
};

static inline void machine_msi(void *opaque, uint64_t address, uint32_t data)
{
    struct machine *machine = opaque;
    (void)address;
    __atomic_fetch_add(&machine->messages, 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&machine->message[data % 64], 1, __ATOMIC_SEQ_CST);
}

static inline struct err *machine_bell_add(void *opaque, uint64_t gpa, unsigned size, int fd)
{
    struct machine *machine = opaque;
    (void)size;
    if (!machine->doorbells)
        return err_new("none here");
    assert_true(machine->bells < ARRAY_SIZE(machine->bell_fd));
    machine->bell_gpa[machine->bells] = gpa;
    machine->bell_fd[machine->bells++] = fd;
    return NULL;
}

static inline void machine_bell_remove(void *opaque, uint64_t gpa, unsigned size, int fd)
{
    struct machine *machine = opaque;
    for (unsigned i = 0; i < machine->bells; i++) {
        if (machine->bell_gpa[i] != gpa)
            continue;
        assert_int_equal(machine->bell_fd[i], fd);
        machine->bells--;
        machine->bell_gpa[i] = machine->bell_gpa[machine->bells];
        machine->bell_fd[i] = machine->bell_fd[machine->bells];
        return;
    }
    fail_msg("a doorbell at 0x%llx is removed that is not there", (unsigned long long)gpa);
}

static const struct hw_env_ops machine_ops = {.msi_send = machine_msi,
                                              .doorbell_add = machine_bell_add,
                                              .doorbell_remove = machine_bell_remove};

static inline void machine_line(void *opaque, unsigned pin, bool level)
{
    ((struct machine *)opaque)->line = level;
}

static inline void check_ok(struct err *err)
{
    if (err)
        print_error("%s\n", err_text(err));
    assert_null(err);
}

static inline void quiet_log(void *opaque, const struct log_record *record)
{
    unsigned *lines = opaque;
    if (lines)
        (*lines)++;
}

static inline void machine_init(struct machine *machine)
{
    *machine = (struct machine){.next = 4096};
    machine->env.ops = &machine_ops;
    machine->env.opaque = machine;
    check_ok(loop_new("test", &machine->env.loop));
    machine->env.gmem = gmem_new();
    check_ok(gmem_add_ram(machine->env.gmem, "low", 0, RAM_SIZE / 2));
    check_ok(gmem_add_ram(machine->env.gmem, "high", RAM_SIZE / 2, RAM_SIZE / 2));
    check_ok(gmem_add_rom(machine->env.gmem, "rom", ROM_BASE, 4096));
    machine->env.pio = io_bus_new("pio");
    machine->env.mmio = io_bus_new("mmio");
    struct pci_bus_config config = {.env = &machine->env,
                                    .ecam_base = ECAM,
                                    .ecam_buses = 1,
                                    .mmio32_base = 0xc0000000,
                                    .mmio32_size = 0x10000000,
                                    .mmio64_base = GIB(16),
                                    .mmio64_size = GIB(1)};
    for (unsigned i = 0; i < 4; i++)
        config.intx[i] = (struct irq_line){machine_line, machine, i};
    check_ok(pci_bus_new(&config, &machine->bus));
    log_set_sink(quiet_log, NULL);
}

static inline void machine_fini(struct machine *machine)
{
    assert_int_equal(machine->bells, 0);
    pci_bus_free(machine->bus);
    io_bus_free(machine->env.pio);
    io_bus_free(machine->env.mmio);
    gmem_free(machine->env.gmem);
    loop_free(machine->env.loop);
    log_set_sink(NULL, NULL);
}

/* Attaches, realizes and places a device. */
static inline void machine_add(struct machine *machine, struct device *device)
{
    check_ok(pci_bus_attach(machine->bus, (struct pci_device *)device, -1));
    check_ok(device_realize(device));
    check_ok(pci_bus_assign(machine->bus));
}

static inline uint64_t machine_alloc(struct machine *machine, uint64_t len, uint64_t align)
{
    machine->next = ALIGN_UP(machine->next, align);
    uint64_t at = machine->next;
    machine->next += len;
    assert_true(machine->next <= RAM_SIZE / 2);
    return at;
}

static inline uint8_t *machine_host(struct machine *machine, uint64_t gpa)
{
    size_t mapped;
    uint8_t *host = gmem_map(machine->env.gmem, gpa, 1, GMEM_WRITE, &mapped);
    assert_non_null(host);
    return host;
}

struct ring {
    unsigned index;
    uint16_t size;
    uint64_t area[3];
    uint8_t *host[3];
    uint16_t avail, used; /* split: counters; packed: places */
    bool avail_wrap, used_wrap;
    uint16_t published; /* avail at the last kick decision */
    uint16_t published_count;
    uint16_t chain[1024]; /* by id: descriptors it took */
    bool busy[1024];
    uint64_t table[1024]; /* by id: memory for an indirect table */
    uint16_t next_desc;
    unsigned kicks;
};

struct driver {
    struct machine *machine;
    struct virtio_device *device;
    uint64_t config; /* ECAM address */
    uint64_t common, isr, device_config, notify;
    uint32_t notify_multiplier;
    unsigned msix; /* capability */
    uint64_t features;
    bool no_interrupts;
    struct ring ring[DRIVER_RINGS];
};

static inline uint64_t mmio_read(struct machine *machine, uint64_t at, unsigned size)
{
    return io_bus_read(machine->env.mmio, at, size);
}

static inline void mmio_write(struct machine *machine, uint64_t at, unsigned size, uint64_t value)
{
    io_bus_write(machine->env.mmio, at, size, value);
}

#define COMMON_READ(driver, offset, size)                                                          \
    mmio_read((driver)->machine, (driver)->common + (offset), size)
#define COMMON_WRITE(driver, offset, size, value)                                                  \
    mmio_write((driver)->machine, (driver)->common + (offset), size, value)

static inline uint64_t driver_bar(struct driver *driver, unsigned bar)
{
    uint64_t at = driver->config + 0x10 + 4 * bar;
    uint64_t low = mmio_read(driver->machine, at, 4);
    uint64_t high = (low & 4) ? mmio_read(driver->machine, at + 4, 4) : 0;
    return (low & ~15ull) | high << 32;
}

static inline void driver_find(struct driver *driver, struct machine *machine,
                               struct virtio_device *device)
{
    *driver = (struct driver){.machine = machine, .device = device};
    driver->config = ECAM + ((uint64_t)device->pci.devfn << 12);
    /* Memory and bus master on. */
    mmio_write(machine, driver->config + 4, 2, 6);
    unsigned at = (unsigned)mmio_read(machine, driver->config + 0x34, 1);
    while (at) {
        unsigned id = (unsigned)mmio_read(machine, driver->config + at, 1);
        if (id == 0x11)
            driver->msix = at;
        if (id == 0x09) {
            unsigned type = (unsigned)mmio_read(machine, driver->config + at + 3, 1);
            unsigned bar = (unsigned)mmio_read(machine, driver->config + at + 4, 1);
            uint64_t place = mmio_read(machine, driver->config + at + 8, 4);
            if (type < 5)
                place += driver_bar(driver, bar);
            if (type == 1)
                driver->common = place;
            if (type == 2) {
                driver->notify = place;
                driver->notify_multiplier =
                    (uint32_t)mmio_read(machine, driver->config + at + 16, 4);
            }
            if (type == 3)
                driver->isr = place;
            if (type == 4)
                driver->device_config = place;
        }
        at = (unsigned)mmio_read(machine, driver->config + at + 1, 1);
    }
    assert_true(driver->common && driver->isr && driver->device_config && driver->notify);
}

/* Unmasks all vectors; vector v sends data 1 + v. */
static inline void driver_msix_on(struct driver *driver)
{
    struct machine *machine = driver->machine;
    uint16_t control = (uint16_t)mmio_read(machine, driver->config + driver->msix + 2, 2);
    uint32_t table = (uint32_t)mmio_read(machine, driver->config + driver->msix + 4, 4);
    uint64_t at = driver_bar(driver, table & 7) + (table & ~7u);
    for (unsigned v = 0; v <= (control & 0x7ffu); v++) {
        mmio_write(machine, at + 16 * v, 4, 0xfee00000);
        mmio_write(machine, at + 16 * v + 8, 4, 1 + v);
        mmio_write(machine, at + 16 * v + 12, 4, 0);
    }
    mmio_write(machine, driver->config + driver->msix + 2, 2, 0x8000);
}

static inline uint8_t driver_status(struct driver *driver)
{
    return (uint8_t)COMMON_READ(driver, 0x14, 1);
}

static inline void driver_add_status(struct driver *driver, uint8_t bits)
{
    COMMON_WRITE(driver, 0x14, 1, (uint64_t)(driver_status(driver) | bits));
}

static inline void driver_reset(struct driver *driver)
{
    COMMON_WRITE(driver, 0x14, 1, 0);
    uint64_t limit = clock_now_ns() + 5 * NSEC_PER_SEC;
    while (driver_status(driver) && clock_now_ns() < limit) {
        if (loop_is_mine(driver->machine->env.loop))
            loop_once(driver->machine->env.loop, 1);
        else
            usleep(100);
    }
    assert_int_equal(driver_status(driver), 0);
}

static inline uint64_t driver_offered(struct driver *driver)
{
    COMMON_WRITE(driver, 0, 4, 0);
    uint64_t features = COMMON_READ(driver, 4, 4);
    COMMON_WRITE(driver, 0, 4, 1);
    return features | COMMON_READ(driver, 4, 4) << 32;
}

/* Up to FEATURES_OK; returns whether the device agreed. */
static inline bool driver_negotiate(struct driver *driver, uint64_t features)
{
    driver_reset(driver);
    driver_add_status(driver, VIRTIO_STATUS_ACKNOWLEDGE);
    driver_add_status(driver, VIRTIO_STATUS_DRIVER);
    for (unsigned half = 0; half < 2; half++) {
        COMMON_WRITE(driver, 8, 4, half);
        COMMON_WRITE(driver, 12, 4, (uint32_t)(features >> (32 * half)));
    }
    driver->features = features;
    driver_add_status(driver, VIRTIO_STATUS_FEATURES_OK);
    return driver_status(driver) & VIRTIO_STATUS_FEATURES_OK;
}

static inline bool driver_has(const struct driver *driver, unsigned bit)
{
    return driver->features >> bit & 1;
}

/* Lays the ring of a queue into memory and enables it. */
static inline struct ring *driver_queue(struct driver *driver, unsigned index, uint16_t size)
{
    struct machine *machine = driver->machine;
    struct ring *ring = &driver->ring[index];
    bool packed = driver_has(driver, VIRTIO_F_RING_PACKED);
    *ring = (struct ring){.index = index, .size = size, .avail_wrap = true, .used_wrap = true};
    uint64_t bytes[3] = {16ull * size, packed ? 4 : 6 + 2ull * size, packed ? 4 : 6 + 8ull * size};
    COMMON_WRITE(driver, 0x16, 2, index);
    COMMON_WRITE(driver, 0x18, 2, size);
    COMMON_WRITE(driver, 0x1a, 2, index + 1);
    for (unsigned i = 0; i < 3; i++) {
        ring->area[i] = machine_alloc(machine, bytes[i], 16);
        ring->host[i] = machine_host(machine, ring->area[i]);
        memset(ring->host[i], 0, bytes[i]);
        COMMON_WRITE(driver, 0x20 + 8 * i, 4, (uint32_t)ring->area[i]);
        COMMON_WRITE(driver, 0x24 + 8 * i, 4, ring->area[i] >> 32);
    }
    COMMON_WRITE(driver, 0x1c, 2, 1);
    return ring;
}

static inline void driver_start(struct driver *driver)
{
    COMMON_WRITE(driver, 0x10, 2, 0);
    driver_add_status(driver, VIRTIO_STATUS_DRIVER_OK);
}

struct buffer {
    uint64_t gpa;
    uint32_t len;
};

/* The layout-dependent part of one descriptor. */
static inline void put_desc(uint8_t *at, struct buffer buffer, uint16_t a, uint16_t b)
{
    put_le64(at, buffer.gpa);
    put_le32(at + 8, buffer.len);
    put_le16(at + 12, a);
    put_le16(at + 14, b);
}

static inline uint16_t ring_add_split(struct driver *driver, struct ring *ring,
                                      const struct buffer *buffers, unsigned out, unsigned in,
                                      uint64_t table)
{
    unsigned count = out + in;
    uint16_t head = ring->next_desc;
    uint8_t *descs = table ? machine_host(driver->machine, table) : ring->host[0];
    for (unsigned i = 0; i < count; i++) {
        unsigned place = table ? i : (head + i) % ring->size;
        unsigned next = table ? i + 1 : (head + i + 1) % ring->size;
        uint16_t flags =
            (uint16_t)((i + 1 < count ? VIRTQ_DESC_NEXT : 0) | (i >= out ? VIRTQ_DESC_WRITE : 0));
        put_desc(descs + 16 * place, buffers[i], flags, (uint16_t)next);
    }
    if (table)
        put_desc(ring->host[0] + 16 * head, (struct buffer){table, 16 * count}, VIRTQ_DESC_INDIRECT,
                 0);
    ring->next_desc = (uint16_t)((head + (table ? 1 : count)) % ring->size);
    put_le16(ring->host[1] + 4 + 2 * (ring->avail % ring->size), head);
    ring->avail++;
    ring->published_count++;
    __atomic_store_n((uint16_t *)(void *)(ring->host[1] + 2), ring->avail, __ATOMIC_SEQ_CST);
    return head;
}

static inline uint16_t ring_add_packed(struct driver *driver, struct ring *ring,
                                       const struct buffer *buffers, unsigned out, unsigned in,
                                       uint64_t table)
{
    unsigned count = table ? 1 : out + in;
    uint16_t id = 0;
    while (ring->busy[id])
        id++;
    ring->busy[id] = true;
    ring->chain[id] = (uint16_t)count;
    for (unsigned i = 0; table && i < out + in; i++)
        put_desc(machine_host(driver->machine, table) + 16 * i, buffers[i], 0,
                 i >= out ? VIRTQ_DESC_WRITE : 0);
    struct buffer whole = {table, 16 * (out + in)};
    uint16_t first = ring->avail, first_flags = 0;
    for (unsigned i = 0; i < count; i++) {
        uint16_t flags = (uint16_t)(ring->avail_wrap ? 1u << 7 : 1u << 15);
        flags |= (uint16_t)(table ? VIRTQ_DESC_INDIRECT
                                  : (i + 1 < count ? VIRTQ_DESC_NEXT : 0) |
                                        (i >= out ? VIRTQ_DESC_WRITE : 0));
        /* The first descriptor's flags come last: they make the chain available. */
        uint8_t *at = ring->host[0] + 16 * ring->avail;
        if (i) {
            put_desc(at, buffers[i], id, flags);
        } else {
            first_flags = flags;
            put_le64(at, table ? whole.gpa : buffers[0].gpa);
            put_le32(at + 8, table ? whole.len : buffers[0].len);
            put_le16(at + 12, id);
        }
        if (++ring->avail == ring->size) {
            ring->avail = 0;
            ring->avail_wrap = !ring->avail_wrap;
        }
    }
    ring->published_count = (uint16_t)(ring->published_count + count);
    __atomic_store_n((uint16_t *)(void *)(ring->host[0] + 16 * first + 14), first_flags,
                     __ATOMIC_SEQ_CST);
    return id;
}

/* Makes a chain available; `indirect`: through a table of its own. */
static inline uint16_t ring_add(struct driver *driver, struct ring *ring,
                                const struct buffer *buffers, unsigned out, unsigned in,
                                bool indirect)
{
    uint64_t table = 0;
    if (indirect) {
        unsigned slot = ring->avail % ring->size;
        if (!ring->table[slot])
            ring->table[slot] = machine_alloc(driver->machine, 16 * 40, 16);
        assert_true(out + in <= 40);
        table = ring->table[slot];
    }
    return driver_has(driver, VIRTIO_F_RING_PACKED)
               ? ring_add_packed(driver, ring, buffers, out, in, table)
               : ring_add_split(driver, ring, buffers, out, in, table);
}

static inline uint16_t shared16(const uint8_t *at)
{
    return __atomic_load_n((const uint16_t *)(const void *)at, __ATOMIC_SEQ_CST);
}

static inline bool ring_wants_kick(struct driver *driver, struct ring *ring)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    uint16_t count = ring->published_count;
    ring->published_count = 0;
    if (driver_has(driver, VIRTIO_F_RING_PACKED)) {
        uint32_t word =
            __atomic_load_n((const uint32_t *)(const void *)ring->host[2], __ATOMIC_SEQ_CST);
        uint16_t place = (uint16_t)word, flags = (uint16_t)(word >> 16);
        if (flags != 2)
            return flags == 0;
        uint16_t event = place & 0x7fff;
        if (!!(place >> 15) != ring->avail_wrap)
            event = (uint16_t)(event - ring->size);
        return virtq_need_event(event, ring->avail, (uint16_t)(ring->avail - count));
    }
    if (driver_has(driver, VIRTIO_F_EVENT_IDX))
        return virtq_need_event(shared16(ring->host[2] + 4 + 8 * ring->size), ring->avail,
                                (uint16_t)(ring->avail - count));
    return !(shared16(ring->host[2]) & 1);
}

/* Rings whatever the device wants, as the accelerator would. */
static inline void ring_kick_always(struct driver *driver, struct ring *ring)
{
    struct machine *machine = driver->machine;
    uint64_t at = driver->notify + ring->index * driver->notify_multiplier, one = 1;
    ring->kicks++;
    for (unsigned i = 0; i < machine->bells; i++) {
        if (machine->bell_gpa[i] == at) {
            assert_int_equal(write(machine->bell_fd[i], &one, 8), 8);
            return;
        }
    }
    mmio_write(machine, at, 2, ring->index);
}

static inline void ring_kick(struct driver *driver, struct ring *ring)
{
    if (ring_wants_kick(driver, ring))
        ring_kick_always(driver, ring);
}

/* Asks for an interrupt at the next used entry. */
static inline void ring_arm(struct driver *driver, struct ring *ring)
{
    if (driver_has(driver, VIRTIO_F_RING_PACKED)) {
        uint32_t wish = driver_has(driver, VIRTIO_F_EVENT_IDX) ? 2 : 0;
        __atomic_store_n((uint32_t *)(void *)ring->host[1],
                         ring->used | (uint32_t)ring->used_wrap << 15 | wish << 16,
                         __ATOMIC_SEQ_CST);
    } else if (driver_has(driver, VIRTIO_F_EVENT_IDX)) {
        __atomic_store_n((uint16_t *)(void *)(ring->host[1] + 4 + 2 * ring->size), ring->used,
                         __ATOMIC_SEQ_CST);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Takes a used entry if there is one. */
static inline bool ring_used(struct driver *driver, struct ring *ring, uint16_t *id, uint32_t *len)
{
    if (driver_has(driver, VIRTIO_F_RING_PACKED)) {
        const uint8_t *at = ring->host[0] + 16 * ring->used;
        uint16_t flags =
            __atomic_load_n((const uint16_t *)(const void *)(at + 14), __ATOMIC_SEQ_CST);
        bool avail = flags >> 7 & 1, used = flags >> 15 & 1;
        if (avail != used || used != ring->used_wrap)
            return false;
        *id = get_le16(at + 12);
        *len = get_le32(at + 8);
        assert_true(ring->busy[*id]);
        ring->busy[*id] = false;
        ring->used = (uint16_t)(ring->used + ring->chain[*id]);
        if (ring->used >= ring->size) {
            ring->used = (uint16_t)(ring->used - ring->size);
            ring->used_wrap = !ring->used_wrap;
        }
    } else {
        if (__atomic_load_n((const uint16_t *)(const void *)(ring->host[2] + 2),
                            __ATOMIC_SEQ_CST) == ring->used)
            return false;
        const uint8_t *at = ring->host[2] + 4 + 8 * (ring->used % ring->size);
        *id = get_le16(at);
        *len = get_le32(at + 4);
        ring->used++;
    }
    ring_arm(driver, ring);
    return true;
}

static inline void driver_turn(struct driver *driver, int rounds)
{
    struct loop *loop = driver->machine->env.loop;
    for (int i = 0; i < rounds; i++) {
        if (loop_is_mine(loop))
            loop_once(loop, 1);
        else
            usleep(200);
    }
}

/* Waits for one used entry. */
static inline bool ring_wait(struct driver *driver, struct ring *ring, uint16_t *id, uint32_t *len)
{
    uint64_t limit = clock_now_ns() + 5 * NSEC_PER_SEC;
    *len = 0;
    while (clock_now_ns() < limit) {
        if (ring_used(driver, ring, id, len))
            return true;
        driver_turn(driver, 1);
    }
    return false;
}

/* Saves two devices one into the other and compares the streams; the first is left quiesced. */
static inline void round_trip(struct device *device, struct device *fresh)
{
    struct state_writer first, second;
    struct state_reader reader;
    device_quiesce(device);
    state_writer_init(&first);
    device_save(device, &first);
    state_writer_end(&first);
    check_ok(state_reader_init(&reader, first.out.data, first.out.len));
    device_quiesce(fresh);
    check_ok(device_load(fresh, &reader));
    check_ok(state_reader_end(&reader));
    state_writer_init(&second);
    device_save(fresh, &second);
    state_writer_end(&second);
    assert_int_equal(first.out.len, second.out.len);
    assert_memory_equal(first.out.data, second.out.data, first.out.len);
    state_writer_fini(&first);
    state_writer_fini(&second);
}

#endif
