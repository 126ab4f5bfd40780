/*
 * Dispatch of port and memory accesses to device registers.
 *
 * A region is a span of addresses with an owner's callbacks. Lookup runs on every vCPU thread at
 * once; adding, moving and removing regions may run beside it (a guest moves a BAR while another
 * vCPU uses it). The owner's lock is taken around its callback by the bus, so a device handler is
 * always alone with its device. There is no lock around the whole machine.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_CORE_BUS_H
#define TENON_HW_CORE_BUS_H

#include "base/base.h"
#include "base/err.h"
#include "base/lock.h"

/*
 * `offset` counts from the start of the region. `size` is 1, 2, 4 or 8 and never crosses the end of
 * the region: the bus cuts such an access. A device answers sizes it does not know with all ones
 * and ignores such writes.
 */
struct io_ops {
    uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
    void (*write)(void *opaque, uint64_t offset, unsigned size, uint64_t value);
};

struct io_region {
    const char *name; /* borrowed, for logs and listings */
    uint64_t base, size;
    const struct io_ops *ops;
    void *opaque;
    struct lock *lock;  /* owner's, LOCK_DEVICE or above; NULL when the ops lock themselves */
    struct io_bus *bus; /* set while mapped */
};

struct io_bus;

struct io_bus *io_bus_new(const char *name);
/* All regions have been removed. */
void io_bus_free(struct io_bus *bus);

/*
 * Maps a region that its owner keeps alive until io_bus_remove() returns. Overlap: a later region
 * does not replace an earlier one, the first stays visible (BARs that a guest laid over a device).
 */
void io_bus_add(struct io_bus *bus, struct io_region *region, uint64_t base);
/*
 * After this no new call into the region begins. It may be called from inside the region's own
 * callback. Not mapped is fine.
 */
void io_bus_remove(struct io_region *region);

/* vCPU threads. An address of nobody reads all ones; the write is dropped. */
uint64_t io_bus_read(struct io_bus *bus, uint64_t address, unsigned size);
void io_bus_write(struct io_bus *bus, uint64_t address, unsigned size, uint64_t value);

#endif
