/*
 * What the tests of virtqueues and of the device around them share: a machine with the device that
 * sends everything back, and its driver.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_TESTS_UNIT_HW_VIRTQ_BED_H
#define TENON_TESTS_UNIT_HW_VIRTQ_BED_H

#include "virtio_driver.h"
#include "virtio_echo.h"

#define VERSION_1 F(VIRTIO_F_VERSION_1)
#define PACKED F(VIRTIO_F_RING_PACKED)
#define EVENT F(VIRTIO_F_EVENT_IDX)
#define INDIRECT F(VIRTIO_F_INDIRECT_DESC)
#define RING_RESET F(VIRTIO_F_RING_RESET)

struct bed {
    struct machine machine;
    struct echo *echo;
    struct driver driver;
};

static inline void bed_open(struct bed *bed)
{
    machine_init(&bed->machine);
    bed->echo = (struct echo *)device_new(&echo_class, &bed->machine.env, "e0");
    machine_add(&bed->machine, &bed->echo->virtio.pci.device);
    driver_find(&bed->driver, &bed->machine, &bed->echo->virtio);
    driver_msix_on(&bed->driver);
}

static inline void bed_close(struct bed *bed)
{
    device_free(&bed->echo->virtio.pci.device);
    machine_fini(&bed->machine);
}

static inline struct ring *bed_start(struct bed *bed, uint64_t features, uint16_t size)
{
    assert_true(driver_negotiate(&bed->driver, VERSION_1 | features));
    struct ring *ring = driver_queue(&bed->driver, 0, size);
    driver_start(&bed->driver);
    ring_arm(&bed->driver, ring);
    return ring;
}

static inline void fill(struct bed *bed, struct buffer buffer, unsigned seed)
{
    for (uint32_t i = 0; i < buffer.len; i++) {
        uint8_t byte = (uint8_t)(seed + i * 3);
        assert_int_equal(gmem_write(bed->machine.env.gmem, buffer.gpa + i, &byte, 1), 0);
    }
}

static inline void expect(struct bed *bed, struct buffer buffer, unsigned seed, uint32_t from)
{
    for (uint32_t i = 0; i < buffer.len; i++) {
        uint8_t byte;
        assert_int_equal(gmem_read(bed->machine.env.gmem, buffer.gpa + i, &byte, 1), 0);
        assert_int_equal(byte, (uint8_t)(seed + (from + i) * 3) ^ 0x5a);
    }
}

static inline unsigned interrupts(struct bed *bed)
{
    return bed->machine.message[2]; /* vector 1: queue 0 */
}

static inline void add_one(struct bed *bed, struct ring *ring)
{
    struct buffer buffers[2] = {{1 << 16, 8}, {(1 << 16) + 64, 8}};
    ring_add(&bed->driver, ring, buffers, 1, 1, false);
}

static inline void take(struct bed *bed, struct ring *ring, unsigned count)
{
    uint16_t id;
    uint32_t len;
    for (unsigned i = 0; i < count; i++)
        assert_true(ring_wait(&bed->driver, ring, &id, &len));
    assert_false(ring_used(&bed->driver, ring, &id, &len));
}

#endif
