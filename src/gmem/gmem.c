/*
 * Regions of guest-physical memory and access to them.
 *
 * The region array does not change while a vCPU or a device runs, so lookups take no lock; only the
 * place of a movable region changes, while no vCPU runs, and nobody else looks there. A switch
 * changes what one region shows; whoever copies at that moment uses what it has found, and both of
 * a switched region's mappings live as long as the region.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/bitmap.h"
#include "base/checked.h"
#include "gmem/internal.h"

#define HUGE_PAGE MIB(2)
/* Movable regions that are nowhere lie from here on: above every guest-physical address. */
#define NOWHERE (1ull << 56)

struct gmem *gmem_new(void)
{
    return xcalloc(1, sizeof(struct gmem));
}

static void region_fini(struct gmem_region *region)
{
    if (region->ram)
        munmap(region->ram, region->size);
    if (region->rom)
        munmap(region->rom, region->size);
    free(region->dirty);
    free(region->code);
    free(region->huge);
    free((char *)(uintptr_t)region->name);
}

void gmem_free(struct gmem *gmem)
{
    if (!gmem)
        return;
    for (size_t i = 0; i < gmem->count; i++)
        region_fini(&gmem->region[i]);
    free(gmem);
}

/*
 * Private memory, unless an engine wants it otherwise, because the kernel gives huge pages to
 * shared memory only where the administrator turned that on. The first 2 MiB of the guest stay
 * small pages: a directly booted guest needs a few of them, and clearing a huge one would be the
 * longest step of its start.
 */
static void region_advise(const struct gmem_region *region, uint8_t *host)
{
    uint64_t skip = region->gpa < HUGE_PAGE ? MIN(HUGE_PAGE - region->gpa, region->size) : 0;

    /* Advice: a kernel without huge pages refuses, and is fine. */
    (void)madvise(host + skip, region->size - skip, MADV_HUGEPAGE);
    /* What the guest keeps in its memory has no place in a core dump of ours. */
    (void)madvise(host, region->size, MADV_DONTDUMP);
}

/*
 * Maps the region's memory so that its 2 MiB pages can be the guest's as well: an engine with
 * nested paging maps those whole, and a first touch then costs one exit instead of 512.
 */
static struct err *region_map(const struct gmem_region *region, uint8_t **host)
{
    uint64_t reserve, skew = region->gpa % HUGE_PAGE;
    if (!checked_add(region->size, 2 * HUGE_PAGE, &reserve))
        return err_new("its size is out of range");
    uint8_t *area =
        mmap(NULL, reserve, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED)
        return err_errno(errno, "cannot map %llu MiB of guest memory",
                         (unsigned long long)(region->size >> 20));
    uint8_t *base = area + (-(uintptr_t)area & (HUGE_PAGE - 1)), *end = base + skew + region->size;
    *host = base + skew;
    /* Within shared memory, too, the kernel wants huge pages aligned: it begins at the base. */
    bool ok = region->shared
                  ? mmap(base, skew + region->size, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == base
                  : !mprotect(*host, region->size, PROT_READ | PROT_WRITE);
    if (!ok)
        return err_errno(errno, "cannot make guest memory writable");
    if (*host != area)
        munmap(area, (size_t)(*host - area));
    munmap(end, (size_t)(area + reserve - end));
    region_advise(region, *host);
    return NULL;
}

void gmem_scatter(struct gmem *gmem)
{
    gmem->scatter = true;
}

/* x with a * x = 1 modulo m, or 0 when there is none (Euclid's algorithm). */
static uint64_t inverse(uint64_t a, uint64_t m)
{
    int64_t x = 1, next_x = 0;
    uint64_t left = a, next_left = m;
    while (next_left) {
        uint64_t quotient = left / next_left, rest = left % next_left;
        int64_t rest_x = x - (int64_t)quotient * next_x;
        left = next_left;
        next_left = rest;
        x = next_x;
        next_x = rest_x;
    }
    return left != 1 ? 0 : x < 0 ? (uint64_t)(x + (int64_t)m) : (uint64_t)x;
}

/* A stride near the golden section, so that pages near one another are far apart. */
static struct gmem_order scattered(uint64_t pages)
{
    struct gmem_order order = {.pages = pages};
    for (uint64_t stride = pages * 5 / 8; stride > 1 && !order.back; stride--) {
        order.back = inverse(stride, pages);
        order.stride = order.back ? stride : 0;
    }
    return order;
}

/* The bytes from `gpa` on that lie together. */
static uint64_t room(const struct gmem_region *region, uint64_t gpa)
{
    if (unlikely(region->order.stride))
        return GUEST_PAGE_SIZE - gpa % GUEST_PAGE_SIZE;
    return region->gpa + region->size - gpa;
}

static uint8_t *host_of(const struct gmem_region *region, uint64_t gpa)
{
    return region->host + gmem_place(&region->order, gpa - region->gpa);
}

static bool shows_ram(enum gmem_view view)
{
    return view == GMEM_VIEW_RAM || view == GMEM_VIEW_RAM_READONLY;
}

static void region_show(struct gmem_region *region, enum gmem_view view)
{
    uint8_t *host = shows_ram(view) || region->movable ? region->ram : region->rom;

    __atomic_store_n(&region->host, host, __ATOMIC_RELAXED);
    __atomic_store_n(&region->readonly, view != GMEM_VIEW_RAM, __ATOMIC_RELAXED);
    __atomic_store_n(&region->view, (uint8_t)view, __ATOMIC_RELEASE);
}

static struct err *region_back(struct gmem_region *region, enum gmem_view view, bool switched)
{
    if (shows_ram(view) || switched)
        TRY(region_map(region, &region->ram));
    if (!shows_ram(view))
        TRY(region_map(region, &region->rom));
    region_show(region, view);
    uint64_t words = BITMAP_WORDS(region->size >> GUEST_PAGE_SHIFT);
    region->dirty = calloc(words, sizeof(uint64_t));
    region->code = calloc(words, sizeof(uint64_t));
    if (region->shared)
        region->huge = calloc(BITMAP_WORDS(region->size / HUGE_PAGE + 2), sizeof(uint64_t));
    if (!region->dirty || !region->code || (region->shared && !region->huge))
        return err_new("cannot allocate the page bitmaps of guest memory");
    return NULL;
}

static struct err *gmem_add(struct gmem *gmem, const char *name, uint64_t gpa, uint64_t size,
                            enum gmem_view view, bool switched)
{
    uint64_t end;
    if (!size || (gpa | size) % GUEST_PAGE_SIZE || !checked_add(gpa, size, &end))
        return err_new("memory '%s': 0x%llx bytes at 0x%llx are not whole pages", name,
                       (unsigned long long)size, (unsigned long long)gpa);
    if (gmem->count == GMEM_REGIONS_MAX)
        return err_new("memory '%s': more than %d regions", name, GMEM_REGIONS_MAX);
    size_t at = 0;
    for (; at < gmem->count && gmem->region[at].gpa < end; at++) {
        const struct gmem_region *other = &gmem->region[at];
        if (ranges_overlap(gpa, size, other->gpa, other->size))
            return err_new("memory '%s' at 0x%llx overlaps memory '%s'", name,
                           (unsigned long long)gpa, other->name);
    }
    struct gmem_region region = {
        .gpa = gpa, .size = size, .shared = gmem->shared, .name = xstrdup(name)};
    struct err *err = region_back(&region, view, switched);
    if (err) {
        region_fini(&region);
        return err_wrap(err, "memory '%s'", name);
    }
    memmove(&gmem->region[at + 1], &gmem->region[at], (gmem->count - at) * sizeof(gmem->region[0]));
    gmem->region[at] = region;
    gmem->count++;
    return NULL;
}

struct err *gmem_add_ram(struct gmem *gmem, const char *name, uint64_t gpa, uint64_t size)
{
    TRY(gmem_add(gmem, name, gpa, size, GMEM_VIEW_RAM, false));
    if (gmem->scatter)
        gmem_lookup(gmem, gpa)->order = scattered(size >> GUEST_PAGE_SHIFT);
    return NULL;
}

struct err *gmem_add_file(struct gmem *gmem, const char *name, uint64_t gpa, uint64_t size, int fd,
                          uint64_t offset)
{
    struct stat status;
    if (fstat(fd, &status) < 0 || status.st_size < 0 ||
        !range_within(offset, size, (uint64_t)status.st_size) || offset % GUEST_PAGE_SIZE)
        return err_new("memory '%s': the file does not have 0x%llx bytes at 0x%llx", name,
                       (unsigned long long)size, (unsigned long long)offset);
    TRY(gmem_add(gmem, name, gpa, size, GMEM_VIEW_RAM, false));
    /* Over the private memory, so that the place and what is left out of it stay the same. */
    void *host = gmem_lookup(gmem, gpa)->ram;
    if (mmap(host, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)offset) ==
        MAP_FAILED)
        return err_errno(errno, "memory '%s': cannot map the file", name);
    (void)madvise(host, size, MADV_DONTDUMP);
    return NULL;
}

struct err *gmem_add_rom(struct gmem *gmem, const char *name, uint64_t gpa, uint64_t size)
{
    return gmem_add(gmem, name, gpa, size, GMEM_VIEW_ROM, false);
}

struct err *gmem_add_switched(struct gmem *gmem, const char *name, uint64_t gpa, uint64_t size)
{
    return gmem_add(gmem, name, gpa, size, GMEM_VIEW_ROM, true);
}

#ifndef MADV_COLLAPSE /* Linux 6.1 */
#define MADV_COLLAPSE 25
#endif

void gmem_want_huge(struct gmem *gmem, uint64_t gpa)
{
    const struct gmem_region *region = gmem_lookup(gmem, gpa);
    if (!region || !region->huge || region->movable || region->order.stride)
        return;
    uint64_t first = region->gpa / HUGE_PAGE * HUGE_PAGE, start = gpa / HUGE_PAGE * HUGE_PAGE;
    if (!start || start < region->gpa || start + HUGE_PAGE > region->gpa + region->size ||
        bitmap_test_atomic(region->huge, (start - first) / HUGE_PAGE))
        return;
    bitmap_set_atomic(region->huge, (start - first) / HUGE_PAGE);
    uint8_t *at = region->ram + (start - region->gpa);
    (void)*(volatile uint8_t *)at; /* an empty range would be refused */
    (void)madvise(at, HUGE_PAGE, MADV_COLLAPSE);
}

void gmem_share(struct gmem *gmem)
{
    gmem->shared = true;
}

bool gmem_alias(const struct gmem *gmem, const uint8_t *page, uint8_t *to)
{
    if (!gmem->shared)
        return false;
    /* An old length of 0 asks for a second mapping. */
    void *from = (void *)(uintptr_t)page;
    if (mremap(from, 0, GUEST_PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to)
        return true;
    /* The place may have been unmapped by then, and nothing else may come there. */
    void *at = mmap(to, GUEST_PAGE_SIZE, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    if (at != to)
        abort();
    return false;
}

bool gmem_switch(struct gmem *gmem, uint64_t gpa, enum gmem_view view)
{
    for (size_t i = 0; i < gmem->count; i++) {
        struct gmem_region *region = &gmem->region[i];
        if (region->gpa != gpa || !region->ram || !region->rom || region->view == view)
            continue;
        region_show(region, view);
        gmem_dirty_set(gmem, gpa, region->size);
        return true;
    }
    return false;
}

struct err *gmem_add_movable(struct gmem *gmem, const char *name, uint64_t size)
{
    const struct gmem_region *last = gmem->count ? &gmem->region[gmem->count - 1] : NULL;
    uint64_t gpa = last && last->movable ? ALIGN_UP(last->gpa + last->size, HUGE_PAGE) : NOWHERE;

    TRY(gmem_add(gmem, name, gpa, size, GMEM_VIEW_RAM, false));
    struct gmem_region *region = &gmem->region[gmem->count - 1];
    region->movable = true;
    region_show(region, GMEM_VIEW_NONE);
    return NULL;
}

const struct gmem_region *gmem_movable(const struct gmem *gmem, const char *name)
{
    for (size_t i = 0; i < gmem->count; i++) {
        if (gmem->region[i].movable && !strcmp(gmem->region[i].name, name))
            return &gmem->region[i];
    }
    return NULL;
}

bool gmem_move(struct gmem *gmem, const struct gmem_region *moved, uint64_t gpa)
{
    struct gmem_region *region = &gmem->region[moved - gmem->region];
    enum gmem_view view = gpa == region->gpa ? GMEM_VIEW_RAM : GMEM_VIEW_NONE;
    bool waits = gpa && gpa != region->gpa, changed = region->view != view;

    if (changed) {
        region_show(region, view);
        gmem_region_written(gmem, region, 0, region->size);
    }
    __atomic_store_n(&region->wanted, gpa, __ATOMIC_RELAXED);
    __atomic_store_n(&region->waits, waits, __ATOMIC_RELEASE);
    return changed || waits;
}

bool gmem_unsettled(const struct gmem *gmem)
{
    for (size_t i = 0; i < gmem->count; i++) {
        if (__atomic_load_n(&gmem->region[i].waits, __ATOMIC_ACQUIRE))
            return true;
    }
    return false;
}

static bool is_free(const struct gmem *gmem, const struct gmem_region *but, uint64_t gpa)
{
    for (size_t i = 0; i < gmem->count; i++) {
        const struct gmem_region *other = &gmem->region[i];
        if (other != but && ranges_overlap(gpa, but->size, other->gpa, other->size))
            return false;
    }
    return true;
}

bool gmem_settle(struct gmem *gmem)
{
    bool changed = false;

    for (size_t i = 0; i < gmem->count; i++) {
        struct gmem_region *region = &gmem->region[i];
        uint64_t gpa = region->wanted;
        if (!region->waits)
            continue;
        region->waits = false;
        if (gpa % GUEST_PAGE_SIZE || gpa >= NOWHERE || !is_free(gmem, region, gpa))
            continue;
        region->gpa = gpa;
        region_show(region, GMEM_VIEW_RAM);
        changed = true;
    }
    return changed;
}

size_t gmem_region_count(const struct gmem *gmem)
{
    return gmem->count;
}

const struct gmem_region *gmem_region(const struct gmem *gmem, size_t index)
{
    return &gmem->region[index];
}

struct gmem_region *gmem_lookup(struct gmem *gmem, uint64_t gpa)
{
    for (size_t i = 0; i < gmem->count; i++) {
        struct gmem_region *region = &gmem->region[i];
        if (gpa - region->gpa < region->size)
            return region->view == GMEM_VIEW_NONE ? NULL : region;
    }
    return NULL;
}

/*
 * For copies and borrows, which run beside vCPUs: a movable region might be elsewhere a moment
 * later.
 */
static struct gmem_region *fixed(struct gmem *gmem, uint64_t gpa)
{
    struct gmem_region *region = gmem_lookup(gmem, gpa);

    return region && !region->movable ? region : NULL;
}

const struct gmem_region *gmem_find(const struct gmem *gmem, uint64_t gpa)
{
    return gmem_lookup((struct gmem *)(uintptr_t)gmem, gpa);
}

uint64_t gmem_ram_bytes(const struct gmem *gmem)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < gmem->count; i++)
        sum += gmem->region[i].ram && !gmem->region[i].movable ? gmem->region[i].size : 0;
    return sum;
}

/* Is every byte of the range RAM, and writable if asked? Ranges may span adjacent regions. */
static bool range_is_ram(struct gmem *gmem, uint64_t gpa, uint64_t len, bool write)
{
    while (len) {
        const struct gmem_region *region = fixed(gmem, gpa);
        if (!region || (write && region->readonly))
            return false;
        uint64_t here = MIN(len, region->gpa + region->size - gpa);
        gpa += here;
        len -= here;
    }
    return true;
}

int gmem_read(struct gmem *gmem, uint64_t gpa, void *bytes, size_t len)
{
    if (!range_is_ram(gmem, gpa, len, false))
        return -EFAULT;
    uint8_t *to = bytes;
    while (len) {
        const struct gmem_region *region = fixed(gmem, gpa);
        size_t here = MIN((uint64_t)len, room(region, gpa));
        memcpy(to, host_of(region, gpa), here);
        to += here;
        gpa += here;
        len -= here;
    }
    return 0;
}

/* Either copies `bytes` or, when that is NULL, fills with `value`. */
static void store(struct gmem *gmem, uint64_t gpa, const uint8_t *bytes, uint8_t value, size_t len)
{
    uint64_t start = gpa;
    size_t total = len;
    gmem_write_begins(gmem);
    while (len) {
        struct gmem_region *region = fixed(gmem, gpa);
        size_t here = MIN((uint64_t)len, room(region, gpa));
        uint8_t *to = host_of(region, gpa);
        if (bytes) {
            memcpy(to, bytes, here);
            bytes += here;
        } else {
            memset(to, value, here);
        }
        gpa += here;
        len -= here;
    }
    gmem_note_written(gmem, start, total);
    gmem_write_ends(gmem);
}

int gmem_write(struct gmem *gmem, uint64_t gpa, const void *bytes, size_t len)
{
    if (!range_is_ram(gmem, gpa, len, true))
        return -EFAULT;
    if (len)
        store(gmem, gpa, bytes, 0, len);
    return 0;
}

int gmem_fill(struct gmem *gmem, uint64_t gpa, uint8_t value, size_t len)
{
    if (!range_is_ram(gmem, gpa, len, true))
        return -EFAULT;
    store(gmem, gpa, NULL, value, len);
    return 0;
}

int gmem_load(struct gmem *gmem, uint64_t gpa, const void *bytes, size_t len)
{
    if (!range_is_ram(gmem, gpa, len, false))
        return -EFAULT;
    if (len)
        store(gmem, gpa, bytes, 0, len);
    return 0;
}

void *gmem_map(struct gmem *gmem, uint64_t gpa, size_t len, enum gmem_dir dir, size_t *mapped)
{
    struct gmem_region *region = fixed(gmem, gpa);
    if (!region || (dir == GMEM_WRITE && region->readonly))
        return NULL;
    *mapped = MIN((uint64_t)len, room(region, gpa));
    if (dir == GMEM_WRITE)
        gmem_write_begins(gmem);
    return host_of(region, gpa);
}

/* What gmem_map gave away at `host` has been written. */
static void note_borrow(struct gmem *gmem, const uint8_t *host, size_t written)
{
    for (size_t i = 0; i < gmem->count; i++) {
        const struct gmem_region *region = &gmem->region[i];
        uintptr_t place = (uintptr_t)host - (uintptr_t)region->host;
        if (place < region->size) {
            uint64_t offset = gmem_offset(&region->order, place);
            gmem_note_written(gmem, region->gpa + offset, written);
            return;
        }
    }
}

void gmem_unmap(struct gmem *gmem, void *host, size_t len, enum gmem_dir dir, size_t written)
{
    (void)len;
    if (dir != GMEM_WRITE)
        return;
    if (written)
        note_borrow(gmem, host, written);
    gmem_write_ends(gmem);
}

/* The host address of an aligned field of `size` bytes, or NULL with *error set. */
static void *field(struct gmem *gmem, uint64_t gpa, unsigned size, bool write, int *error)
{
    struct gmem_region *region = fixed(gmem, gpa);
    if (gpa % size) {
        *error = -EINVAL;
        return NULL;
    }
    if (!region || (write && region->readonly)) {
        *error = -EFAULT;
        return NULL;
    }
    return host_of(region, gpa);
}

#define FIELD_DEFINE(suffix, type, from, to)                                                       \
    int gmem_load_##suffix(struct gmem *gmem, uint64_t gpa, type *value)                           \
    {                                                                                              \
        int error = 0;                                                                             \
        type *at = field(gmem, gpa, sizeof(type), false, &error);                                  \
        if (!at)                                                                                   \
            return error;                                                                          \
        *value = from(__atomic_load_n(at, __ATOMIC_ACQUIRE));                                      \
        return 0;                                                                                  \
    }                                                                                              \
    int gmem_store_##suffix(struct gmem *gmem, uint64_t gpa, type value)                           \
    {                                                                                              \
        int error = 0;                                                                             \
        type *at = field(gmem, gpa, sizeof(type), true, &error);                                   \
        if (!at)                                                                                   \
            return error;                                                                          \
        gmem_write_begins(gmem);                                                                   \
        __atomic_store_n(at, to(value), __ATOMIC_RELEASE);                                         \
        gmem_note_written(gmem, gpa, sizeof(type));                                                \
        gmem_write_ends(gmem);                                                                     \
        return 0;                                                                                  \
    }

FIELD_DEFINE(le16, uint16_t, le16toh, htole16)
FIELD_DEFINE(le32, uint32_t, le32toh, htole32)
FIELD_DEFINE(le64, uint64_t, le64toh, htole64)
