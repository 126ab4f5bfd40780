/*
 * What a device may use of its machine. A device knows nothing of the accelerator, of other devices
 * or of the VM's configuration: it gets this.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_CORE_ENV_H
#define TENON_HW_CORE_ENV_H

#include "base/base.h"
#include "base/err.h"
#include "gmem/gmem.h"
#include "hw/core/bus.h"
#include "hw/core/irq.h"
#include "loop/loop.h"

/* Why a guest wants its machine to change. */
enum hw_power_event {
    HW_POWER_OFF,   /* ACPI S5 */
    HW_POWER_SLEEP, /* ACPI S3: memory stays, all else loses its state */
    HW_POWER_WAKE,  /* out of S3; may come before the VM has acted on HW_POWER_SLEEP */
    HW_POWER_RESET, /* reset register, keyboard controller, port 0xcf9 */
    HW_POWER_EXIT,  /* debug-exit device; the status is the guest's */
};

/* Implemented by the VM; unit tests give their own. All callable from any thread. */
struct hw_env_ops {
    void (*msi_send)(void *opaque, uint64_t address, uint32_t data);
    /* Guest writes to `gpa` ring `event_fd` (see accel.h). An error means: take the MMIO path. */
    struct err *(*doorbell_add)(void *opaque, uint64_t gpa, unsigned size, int event_fd);
    void (*doorbell_remove)(void *opaque, uint64_t gpa, unsigned size, int event_fd);
    /*
     * A switched region of gmem shows something else: the engine goes by it from the next access of
     * this vCPU on. Optional.
     */
    void (*memory_changed)(void *opaque);
    /* The guest asks; the VM acts later, on the control loop. */
    void (*power)(void *opaque, enum hw_power_event event, unsigned status);
};

struct hw_env {
    struct gmem *gmem;
    struct io_bus *pio;  /* ports, 0..0xffff */
    struct io_bus *mmio; /* guest-physical addresses outside RAM */
    struct loop *loop;   /* control loop: timers, console input */
    const struct hw_env_ops *ops;
    void *opaque; /* for ops */
};

#endif
