/*
 * Dispatch tables. See bus.h for the contract.
 *
 * The mapped regions, in order of adding, are flattened into sorted segments that do not overlap.
 * vCPU threads search the segments without a lock, under a sequence count: an odd or changed count
 * means that somebody is rebuilding, and the search starts again. So a lookup writes nothing that
 * another vCPU reads. LOCK_BUS serialises the rebuilding.
 *
 * A callback runs under the region's lock. Between the search and that lock the region may have
 * gone, so the count is compared once more with the lock held; whoever removes a region that vCPUs
 * may be using does so under the same lock (a device moves its BAR inside its own callback).
 *
 * Segment arrays grow by doubling and old ones live as long as the bus, because a search may still
 * be reading them: together they are smaller than the current one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "hw/core/bus.h"

struct segment {
    uint64_t first, last; /* inclusive, so that the end of the address space needs no care */
    uint64_t base;        /* of the region, when the segment was made */
    struct io_region *region;
};

struct segment_table {
    struct segment_table *older;
    size_t capacity;
    struct segment segment[];
};

struct io_bus {
    const char *name;
    struct lock lock;
    uint64_t sequence; /* odd while `table` and `count` change */
    struct segment_table *table;
    size_t count;
    struct io_region **regions; /* in order of adding */
    size_t region_count, region_capacity;
    struct segment *scratch;
};

struct io_bus *io_bus_new(const char *name)
{
    struct io_bus *bus = xcalloc(1, sizeof(*bus));
    bus->name = name;
    lock_init(&bus->lock, LOCK_BUS);
    return bus;
}

void io_bus_free(struct io_bus *bus)
{
    if (!bus)
        return;
    while (bus->table) {
        struct segment_table *older = bus->table->older;
        free(bus->table);
        bus->table = older;
    }
    free(bus->regions);
    free(bus->scratch);
    lock_fini(&bus->lock);
    free(bus);
}

/* Puts what is still free of [first, last] into the sorted list; returns the new count. */
static size_t lay(struct segment *list, size_t count, struct io_region *region)
{
    uint64_t first = region->base, last = region->base + (region->size - 1);
    for (size_t i = 0; i <= count; i++) {
        if (i < count && list[i].last < first)
            continue;
        /* Everything before i lies below; list[i] begins the first obstacle, if there is one. */
        bool free_here = i == count || list[i].first > first;
        if (free_here) {
            uint64_t end = i == count || list[i].first > last ? last : list[i].first - 1;
            memmove(&list[i + 1], &list[i], (count - i) * sizeof(*list));
            list[i] = (struct segment){first, end, region->base, region};
            count++;
            if (end == last)
                break;
            first = end + 1;
        } else {
            if (list[i].last >= last)
                break;
            first = list[i].last + 1;
        }
    }
    return count;
}

static void store_segment(struct segment *to, const struct segment *from)
{
    __atomic_store_n(&to->first, from->first, __ATOMIC_RELAXED);
    __atomic_store_n(&to->last, from->last, __ATOMIC_RELAXED);
    __atomic_store_n(&to->base, from->base, __ATOMIC_RELAXED);
    __atomic_store_n(&to->region, from->region, __ATOMIC_RELAXED);
}

static void rebuild_locked(struct io_bus *bus)
{
    size_t count = 0;
    for (size_t i = 0; i < bus->region_count; i++)
        count = lay(bus->scratch, count, bus->regions[i]);

    struct segment_table *table = bus->table;
    if (!table || table->capacity < count) {
        size_t capacity = MAX(count, table ? 2 * table->capacity : 32);
        struct segment_table *grown =
            xcalloc(1, sizeof(*grown) + capacity * sizeof(struct segment));
        grown->capacity = capacity;
        grown->older = table;
        table = grown;
    }
    uint64_t sequence = bus->sequence;
    __atomic_store_n(&bus->sequence, sequence + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    for (size_t i = 0; i < count; i++)
        store_segment(&table->segment[i], &bus->scratch[i]);
    __atomic_store_n(&bus->table, table, __ATOMIC_RELEASE);
    __atomic_store_n(&bus->count, count, __ATOMIC_RELAXED);
    __atomic_store_n(&bus->sequence, sequence + 2, __ATOMIC_RELEASE);
}

void io_bus_add(struct io_bus *bus, struct io_region *region, uint64_t base)
{
    /* A region that would wrap, or is empty, is visible nowhere. */
    if (region->bus || !region->size || base + (region->size - 1) < base)
        return;
    lock_take(&bus->lock);
    if (bus->region_count == bus->region_capacity) {
        bus->region_capacity = bus->region_capacity ? 2 * bus->region_capacity : 16;
        bus->regions = xrealloc(bus->regions, bus->region_capacity, sizeof(*bus->regions));
        /* n regions cut each other into fewer than 2n segments. */
        bus->scratch = xrealloc(bus->scratch, 2 * bus->region_capacity, sizeof(*bus->scratch));
    }
    region->base = base;
    region->bus = bus;
    bus->regions[bus->region_count++] = region;
    rebuild_locked(bus);
    lock_drop(&bus->lock);
}

void io_bus_remove(struct io_region *region)
{
    struct io_bus *bus = region->bus;
    if (!bus)
        return;
    lock_take(&bus->lock);
    size_t kept = 0;
    for (size_t i = 0; i < bus->region_count; i++) {
        if (bus->regions[i] != region)
            bus->regions[kept++] = bus->regions[i];
    }
    bus->region_count = kept;
    region->bus = NULL;
    rebuild_locked(bus);
    lock_drop(&bus->lock);
}

/*
 * One try at finding the segment of `address`. found->region is NULL where nobody is; found->last
 * is how far that goes.
 */
static void search(const struct segment_table *table, size_t count, uint64_t address,
                   struct segment *found)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (__atomic_load_n(&table->segment[middle].last, __ATOMIC_RELAXED) < address)
            low = middle + 1;
        else
            high = middle;
    }
    found->region = NULL;
    found->last = UINT64_MAX;
    if (low == count)
        return;
    const struct segment *at = &table->segment[low];
    uint64_t first = __atomic_load_n(&at->first, __ATOMIC_RELAXED);
    if (first > address) {
        found->last = first - 1;
        return;
    }
    found->last = __atomic_load_n(&at->last, __ATOMIC_RELAXED);
    found->base = __atomic_load_n(&at->base, __ATOMIC_RELAXED);
    found->region = __atomic_load_n(&at->region, __ATOMIC_RELAXED);
}

/* Returns the sequence count under which `found` is true. */
static uint64_t find(struct io_bus *bus, uint64_t address, struct segment *found)
{
    for (unsigned tries = 0;; tries++) {
        uint64_t sequence = __atomic_load_n(&bus->sequence, __ATOMIC_ACQUIRE);
        if (!(sequence & 1)) {
            const struct segment_table *table = __atomic_load_n(&bus->table, __ATOMIC_ACQUIRE);
            size_t count = __atomic_load_n(&bus->count, __ATOMIC_RELAXED);
            /* A table and a count of different moments: the check below would tell, too late. */
            if (!table)
                count = 0;
            else if (count > table->capacity)
                count = table->capacity;
            search(table, count, address, found);
            __atomic_thread_fence(__ATOMIC_ACQUIRE);
            if (__atomic_load_n(&bus->sequence, __ATOMIC_RELAXED) == sequence)
                return sequence;
        }
        if (tries > 64)
            sched_yield();
    }
}

/*
 * Finds the region of `address` and takes its lock. NULL where nobody is. *size shrinks to the
 * power of two that the region, or the gap, still holds.
 */
static struct io_region *enter(struct io_bus *bus, uint64_t address, unsigned *size,
                               uint64_t *offset)
{
    for (;;) {
        struct segment found;
        uint64_t sequence = find(bus, address, &found);
        struct io_region *region = found.region;
        if (!region) {
            while (found.last - address < *size - 1)
                *size /= 2;
            return NULL;
        }
        if (region->lock)
            lock_take(region->lock);
        if (likely(__atomic_load_n(&bus->sequence, __ATOMIC_ACQUIRE) == sequence)) {
            while (found.last - address < *size - 1)
                *size /= 2;
            *offset = address - found.base;
            return region;
        }
        if (region->lock)
            lock_drop(region->lock);
    }
}

static uint64_t size_mask(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (1ull << (8 * size)) - 1;
}

uint64_t io_bus_read(struct io_bus *bus, uint64_t address, unsigned size)
{
    uint64_t value = 0;
    for (unsigned done = 0; done < size;) {
        unsigned piece = size - done;
        uint64_t offset, part;
        /* What is left after a cut may be 3, 5, 6 or 7 bytes. */
        while (!(piece == 1 || piece == 2 || piece == 4 || piece == 8))
            piece--;
        struct io_region *region = enter(bus, address + done, &piece, &offset);
        if (region) {
            part = region->ops->read(region->opaque, offset, piece);
            if (region->lock)
                lock_drop(region->lock);
        } else {
            part = UINT64_MAX;
        }
        value |= (part & size_mask(piece)) << (8 * done);
        done += piece;
    }
    return value;
}

void io_bus_write(struct io_bus *bus, uint64_t address, unsigned size, uint64_t value)
{
    for (unsigned done = 0; done < size;) {
        unsigned piece = size - done;
        uint64_t offset;
        while (!(piece == 1 || piece == 2 || piece == 4 || piece == 8))
            piece--;
        struct io_region *region = enter(bus, address + done, &piece, &offset);
        if (region) {
            struct lock *lock = region->lock;
            region->ops->write(region->opaque, offset, piece,
                               (value >> (8 * done)) & size_mask(piece));
            if (lock)
                lock_drop(lock);
        }
        done += piece;
    }
}
