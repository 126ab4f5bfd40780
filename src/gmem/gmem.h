/*
 * Guest-physical memory: RAM regions, borrow and return, dirty log.
 *
 * A guest-physical address (GPA) never becomes a pointer without a length and a way back. RAM is
 * private to the process and in huge pages where the host gives them. What is not RAM is not here:
 * MMIO goes through the dispatch tables of hw/core.
 *
 * Threads: regions are added before the first vCPU runs (hotplug later stops the vCPUs), and only
 * switched and moved afterwards; all accessors may be called from any thread and take no lock. The
 * guest may change any byte at any time: copy, then validate the copy.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_GMEM_GMEM_H
#define TENON_GMEM_GMEM_H

#include "base/base.h"
#include "base/bytes.h"
#include "base/err.h"

/* What the borrower will do with the bytes. */
enum gmem_dir {
    GMEM_READ,  /* the device reads guest memory */
    GMEM_WRITE, /* the device writes guest memory */
};

/* What a region shows. Only a switched one changes. */
enum gmem_view {
    GMEM_VIEW_RAM,
    GMEM_VIEW_RAM_READONLY, /* guest writes are dropped */
    GMEM_VIEW_ROM,          /* likewise; gmem_load() may fill it */
    GMEM_VIEW_NONE,         /* no memory: the device behind it answers */
};

/* Where the pages of a region lie behind its host address. */
struct gmem_order {
    uint64_t pages;
    uint64_t stride; /* page n is the n * stride-th, modulo `pages`; 0: in order */
    uint64_t back;   /* the inverse of `stride` */
};

/* The place of the byte at `offset` of a region, and the way back. */
static inline uint64_t gmem_place(const struct gmem_order *order, uint64_t offset)
{
    if (likely(!order->stride))
        return offset;
    uint64_t page = (offset >> GUEST_PAGE_SHIFT) * order->stride % order->pages;
    return page << GUEST_PAGE_SHIFT | (offset & (GUEST_PAGE_SIZE - 1));
}

static inline uint64_t gmem_offset(const struct gmem_order *order, uint64_t place)
{
    struct gmem_order inverse = {.pages = order->pages, .stride = order->back};
    return gmem_place(&inverse, place);
}

struct gmem_region {
    uint64_t gpa;
    uint64_t size;
    uint8_t *host; /* what is seen now, the whole region; equals `gpa` modulo 2 MiB */
    struct gmem_order order;
    uint8_t *ram, *rom; /* its mappings; one of them is NULL unless it is switched */
    uint8_t view;       /* enum gmem_view */
    bool readonly;      /* follows from the view */
    bool movable;       /* see gmem_add_movable */
    bool waits;         /* ... for gmem_settle, to be at `wanted`; both atomic */
    uint64_t wanted;
    bool shared;      /* gmem_alias works */
    uint64_t *huge;   /* of a shared one: a bit for 2 MiB that gmem_want_huge saw */
    uint64_t *dirty;  /* a bit a guest page, see gmem_dirty_* */
    uint64_t *code;   /* a bit a guest page that holds translated code, see gmem_code_* */
    const char *name; /* owned */
};

struct gmem;

struct gmem *gmem_new(void);
/* Unmaps everything; no borrow may be outstanding. */
void gmem_free(struct gmem *gmem);

/*
 * RAM that is added from now on is scattered: no two pages that the guest sees side by side lie
 * side by side in the host. For tests of whoever must not rely on that.
 */
void gmem_scatter(struct gmem *gmem);

/* Before RAM is added: an engine will map its pages a second time. */
void gmem_share(struct gmem *gmem);
/* The guest uses shared RAM around `gpa`: into a huge page with it, if the kernel can (6.1). */
void gmem_want_huge(struct gmem *gmem, uint64_t gpa);
/* Maps the page of RAM at `page` at `to` as well, which is reserved; false: it cannot, and `to`
   still is. */
bool gmem_alias(const struct gmem *gmem, const uint8_t *page, uint8_t *to);

/* RAM of `size` bytes at `gpa` (both page aligned, no overlap), zero, demand paged. */
struct err *gmem_add_ram(struct gmem *gmem, const char *name, uint64_t gpa, uint64_t size);
/*
 * RAM that another process shows us: `size` bytes of `fd` (borrowed) from `offset` on, shared. They
 * must be there; whoever cuts the file short later ends this process.
 */
struct err *gmem_add_file(struct gmem *gmem, const char *name, uint64_t gpa, uint64_t size, int fd,
                          uint64_t offset);
/* RAM, read-only for the guest and for devices. */
struct err *gmem_add_rom(struct gmem *gmem, const char *name, uint64_t gpa, uint64_t size);
/*
 * RAM and ROM at one place, of which one is seen: shadowed firmware, flash memory that answers
 * commands. Shows ROM at first.
 */
struct err *gmem_add_switched(struct gmem *gmem, const char *name, uint64_t gpa, uint64_t size);
/*
 * Any thread: the switched region at `gpa` shows something else from now on. True when that is a
 * change, of which the engine must hear.
 */
bool gmem_switch(struct gmem *gmem, uint64_t gpa, enum gmem_view view);

/*
 * RAM that the guest moves about, such as a card's: nowhere at first, and zero. Its owner finds its
 * bytes in `ram`; devices do not reach it by address. When all memory has been added,
 * gmem_movable() finds it by name.
 */
struct err *gmem_add_movable(struct gmem *gmem, const char *name, uint64_t size);
const struct gmem_region *gmem_movable(const struct gmem *gmem, const char *name);
/*
 * Any thread, one at a time for each region: the guest has put the region at `gpa`; 0 takes it
 * away. At a new place it shows itself only after gmem_settle(): others may be using the old one,
 * and until then its owner answers. True when the engine must hear of it.
 */
bool gmem_move(struct gmem *gmem, const struct gmem_region *region, uint64_t gpa);
bool gmem_unsettled(const struct gmem *gmem);
/* No vCPU runs: moved regions go to their new places. One that would lie over other memory stays
 * away. True when the engine must hear of it. */
bool gmem_settle(struct gmem *gmem);

/* Regions in rising order of address; movable ones stand last. */
size_t gmem_region_count(const struct gmem *gmem);
const struct gmem_region *gmem_region(const struct gmem *gmem, size_t index);
/* The region that holds `gpa`, or NULL. */
const struct gmem_region *gmem_find(const struct gmem *gmem, uint64_t gpa);
uint64_t gmem_ram_bytes(const struct gmem *gmem);

/* Copies; 0, or -EFAULT when any byte is outside RAM (or, for a write, in ROM): then none is moved.
 */
int gmem_read(struct gmem *gmem, uint64_t gpa, void *bytes, size_t len);
int gmem_write(struct gmem *gmem, uint64_t gpa, const void *bytes, size_t len);
int gmem_fill(struct gmem *gmem, uint64_t gpa, uint8_t value, size_t len);
/* A loader's write: as gmem_write, but ROM is allowed too. */
int gmem_load(struct gmem *gmem, uint64_t gpa, const void *bytes, size_t len);

/*
 * Borrows the `len` bytes at `gpa`. They must lie together: *mapped becomes how many bytes at
 * the start do (a caller that needs all of them loops). NULL when the first byte is not RAM, or is
 * ROM and `dir` is GMEM_WRITE. Give back with gmem_unmap and the same direction.
 */
void *gmem_map(struct gmem *gmem, uint64_t gpa, size_t len, enum gmem_dir dir, size_t *mapped);
/*
 * Returns a borrow: for GMEM_WRITE marks the first `written` bytes dirty and tells the engine about
 * pages that hold translated code.
 */
void gmem_unmap(struct gmem *gmem, void *host, size_t len, enum gmem_dir dir, size_t written);

/*
 * An aligned 16-, 32- or 64-bit ring field, moved in one access so that a concurrent guest never
 * sees half of it. Release on store, acquire on load. -EFAULT as above, -EINVAL if misaligned.
 */
int gmem_load_le16(struct gmem *gmem, uint64_t gpa, uint16_t *value);
int gmem_store_le16(struct gmem *gmem, uint64_t gpa, uint16_t value);
int gmem_load_le32(struct gmem *gmem, uint64_t gpa, uint32_t *value);
int gmem_store_le32(struct gmem *gmem, uint64_t gpa, uint32_t value);
int gmem_load_le64(struct gmem *gmem, uint64_t gpa, uint64_t *value);
int gmem_store_le64(struct gmem *gmem, uint64_t gpa, uint64_t value);

/* Marks [gpa, gpa+len) written by the VMM side: dirty log and code pages. Cheap when neither is on.
 */
void gmem_mark_written(struct gmem *gmem, uint64_t gpa, uint64_t len);
/* The same for bytes of a movable region that its owner wrote, wherever it is. */
void gmem_region_written(struct gmem *gmem, const struct gmem_region *region, uint64_t offset,
                         uint64_t len);
/*
 * Counts those writes from now on, for whoever compares memory at two times: how many have ended;
 * *busy: some have begun (a borrow is out), and their bytes may be there already. Those that tell
 * of bytes stored before (gmem_mark_written) begin a little late.
 */
void gmem_count_writes(struct gmem *gmem);
uint64_t gmem_writes(const struct gmem *gmem, bool *busy);

/*
 * Dirty log of what the VMM side and the software engine write; KVM's own log is merged in through
 * accel dirty_fetch. Off at first.
 */
void gmem_dirty_enable(struct gmem *gmem, bool on);
bool gmem_dirty_enabled(const struct gmem *gmem);
/* Sets the dirty bits of a page range (an accelerator's own log). */
void gmem_dirty_set(struct gmem *gmem, uint64_t gpa, uint64_t len);
/* Moves the bits of region `index` into `bitmap` (BITMAP_WORDS(pages) words) and clears them. */
void gmem_dirty_take(struct gmem *gmem, size_t index, uint64_t *bitmap);

/*
 * Code pages: a software engine marks pages that it decoded or translated. A write from the VMM
 * side to such a page calls `fn` after the bytes changed, from the writing thread.
 */
void gmem_code_listen(struct gmem *gmem, void (*fn)(void *opaque, uint64_t gpa, uint64_t len),
                      void *opaque);
void gmem_code_mark(struct gmem *gmem, uint64_t gpa, bool holds_code);

#endif
