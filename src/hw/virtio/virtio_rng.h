/*
 * virtio-rng (virtio 1.2, section 5.4): the host's entropy for the guest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_VIRTIO_VIRTIO_RNG_H
#define TENON_HW_VIRTIO_VIRTIO_RNG_H

#include "hw/virtio/virtio.h"

struct virtio_rng {
    struct virtio_device virtio;

    /* Set before realize; 0: the default of 1 MiB a second. */
    uint64_t bytes_per_second;

    /* The device's own: a bucket of bytes that fills with time. */
    struct loop_timer timer;
    uint64_t budget, refilled_ns;
};

extern const struct device_class virtio_rng_class;

#endif
