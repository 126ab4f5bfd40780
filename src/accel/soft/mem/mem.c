/*
 * Guest memory as instructions see it: linear addresses, the slow path behind the software TLBs,
 * accesses that cross a page.
 *
 * Runs on the vCPU's thread. A page that holds decoded code never gets a write-TLB entry, so that
 * every write to it comes here, where it is compared with the page's lines and, if it meets one,
 * reaches code.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/check/few.h"
#include "accel/soft/check/lockstep.h"
#include "accel/soft/interp/exec.h"
#include "accel/soft/mem/tlb.h"
#include "accel/soft/system/segment.h"
#include "base/bitmap.h"

static bool is_user(const struct soft_vcpu *v)
{
    return v->cpl == 3;
}

/* What an access of `size` bytes is aligned to (SDM vol. 3, table 6-7); of those that are no simple
   number, x87 environments by the width of their words. */
static unsigned alignment_of(unsigned size)
{
    switch (size) {
    case 2:
    case 4:
    case 8:
        return size;
    case 10:
        return 8;
    case 14:
    case 94:
        return 2;
    case 28:
    case 108:
        return 4;
    default:
        return 1;
    }
}

void soft_check_alignment(struct soft_vcpu *v, uint64_t linear, unsigned size)
{
    if (unlikely(soft_aligned_only(v)) && linear & (alignment_of(size) - 1) &&
        (!v->long_mode || soft_canonical(linear)))
        soft_raise(v, VEC_AC, 0);
}

bool soft_crossing_forced(const struct soft_vcpu *v, uint64_t linear, unsigned size)
{
    return unlikely(v->vm->modes.crossings) && size > 1 && (size > 2 || linear & 1);
}

/* What a later flush must know of an entry. */
static void filled(struct soft_vcpu *v, struct soft_space *space, uint64_t linear,
                   const struct walk *walk)
{
    if (walk->page_size > GUEST_PAGE_SIZE) {
        space->large = MAX(space->large, walk->page_size);
        space->large_near |= tlb_near(linear);
    }
    if (walk->global && !(linear >> 63))
        v->low_global = true;
}

static void fill(struct soft_vcpu *v, struct soft_space *space, enum soft_access access,
                 uint64_t linear, const struct walk *walk, uint8_t *host_page)
{
    uint64_t page = linear & ~0xfffull;
    unsigned index = tlb_index(linear);
    struct soft_tlbe *e = access == ACC_READ ? &space->read[index] : &space->write[index];
    uint32_t *n = access == ACC_READ ? &space->n_read : &space->n_write;
    uint16_t *log = access == ACC_READ ? space->log_read : space->log_write;
    if (access == ACC_WRITE)
        tlb_write_dropped(v, index, e);
    uint64_t bit = 1ull << index % 64, *global = &space->global[access == ACC_WRITE][index / 64];
    *global |= bit;
    if (!walk->global || space != v->supervisor) {
        *global &= ~bit;
        if (*n < TLB_LOG)
            log[*n] = index;
        ++*n;
    }
    if (unlikely(v->lockstep) && access == ACC_WRITE)
        lockstep_filled(v, e, index);
    if (unlikely(v->few))
        few_filled(v, space, e, linear);
    e->tag = page;
    e->addend = (uintptr_t)host_page - page;
    filled(v, space, linear, walk);
    v->stats.tlb_misses++;
}

/* What a write-TLB entry would be; not where one would not do either. */
static void keep_beside(struct soft_vcpu *v, struct soft_space *space, uint64_t linear,
                        const struct soft_ram *ram, uint64_t gpa, uint64_t index)
{
    if (v->watching || v->lockstep || v->few || v->vm->modes.crossings)
        return;
    v->beside = (struct soft_beside){.page = linear & ~0xfffull,
                                     .space = space,
                                     .host = soft_ram_host(ram, gpa & ~0xfffull),
                                     .gpa = gpa & ~0xfffull,
                                     .lines = &v->vm->mem->lines[index]};
}

/* A store to the page with code that was written to last; false: it is elsewhere, or meets code, or
   the page has none any more and can have a TLB entry. */
static bool store_beside(struct soft_vcpu *v, const struct soft_space *space, uint64_t linear,
                         unsigned size, uint64_t value)
{
    const struct soft_beside *beside = &v->beside;
    unsigned at = linear & 0xfff;
    if ((linear ^ beside->page) > GUEST_PAGE_SIZE - size || beside->space != space || v->watching ||
        v->vm->dirty_log)
        return false;
    uint64_t mask = soft_line_mask(at, size);
    uint64_t lines = __atomic_load_n(beside->lines, __ATOMIC_ACQUIRE);
    if (!lines || lines & mask)
        return false;
    host_store((uintptr_t)beside->host + at, size, value);
    atomic_thread_fence(memory_order_seq_cst);
    if (unlikely(__atomic_load_n(beside->lines, __ATOMIC_ACQUIRE) & mask))
        soft_code_written(v->vm, v, beside->gpa + at, size); /* decoded in between */
    return true;
}

/* Fills the TLB after a walk when the page is plain RAM; NULL when it is not. */
static uint8_t *resolve_walked(struct soft_vcpu *v, struct soft_space *space, uint64_t linear,
                               enum soft_access access, const struct walk *walk)
{
    struct soft_mem *mem = v->vm->mem;
    const struct soft_ram *ram = soft_ram_find(mem, walk->gpa);
    if (!ram || (access == ACC_WRITE && ram->readonly))
        return NULL;
    uint64_t offset = walk->gpa - ram->gpa;
    if (access == ACC_WRITE) {
        uint64_t index = ram->first_page + (offset >> GUEST_PAGE_SHIFT);
        /* In this order: code_mark sets `lines` first and then looks at `writable`. */
        bitmap_set_atomic(mem->writable, index);
        atomic_thread_fence(memory_order_seq_cst);
        if (__atomic_load_n(&mem->lines[index], __ATOMIC_ACQUIRE)) {
            keep_beside(v, space, linear, ram, walk->gpa, index);
            return NULL;
        }
        if (v->vm->dirty_log)
            gmem_dirty_set(v->vm->gmem, walk->gpa & ~0xfffull, GUEST_PAGE_SIZE);
        gmem_want_huge(v->vm->gmem, walk->gpa);
    }
    uint8_t *page = soft_ram_host(ram, walk->gpa & ~0xfffull);
    if (unlikely(v->lockstep)) {
        page = lockstep_page(v, page, access == ACC_WRITE);
        lockstep_uses(v, page);
    }
    if (likely(!v->vm->modes.crossings) && (likely(!v->watching) || !soft_watched_page(v, linear)))
        fill(v, space, access, linear, walk, page);
    return page + (offset & 0xfff);
}

/* Translates one page's access and fills the TLB when it is plain RAM; NULL when it is not. */
static uint8_t *resolve(struct soft_vcpu *v, struct soft_space *space, bool user, uint64_t linear,
                        enum soft_access access, uint64_t *gpa)
{
    struct walk walk;
    if (v->long_mode && !soft_canonical(linear))
        soft_raise(v, v->stack_access ? VEC_SS : VEC_GP, 0);
    soft_walk(v, linear, access, user, &walk);
    *gpa = walk.gpa;
    return resolve_walked(v, space, linear, access, &walk);
}

/* Remembers the 2 MiB around `linear`, if they are RAM. */
static void fill_huge(struct soft_vcpu *v, uint64_t linear, const struct walk *walk)
{
    struct soft_space *space = v->space;
    const struct soft_ram *ram = soft_ram_find(v->vm->mem, walk->gpa);
    uint64_t gpa = walk->gpa & ~(MIB(2) - 1), start = linear & ~(MIB(2) - 1);
    if (walk->page_size < MIB(2) || v->watching || v->vm->modes.crossings || !ram ||
        ram->order.stride || gpa < ram->gpa || gpa + MIB(2) > ram->gpa + ram->size)
        return;
    unsigned index = huge_index(linear);
    space->huge[index] =
        (struct soft_tlbe){.tag = start, .addend = (uintptr_t)ram->host + (gpa - ram->gpa) - start};
    space->huge_global &= ~(1ull << index);
    space->huge_global |= (uint64_t)walk->global << index;
}

uint8_t *soft_host_try(struct soft_vcpu *v, uint64_t linear, bool write)
{
    enum soft_access access = write ? ACC_WRITE : ACC_READ;
    struct walk walk;
    if (!soft_canonical(linear) || !soft_walk_try(v, linear, access, is_user(v), &walk))
        return NULL;
    if (!write)
        fill_huge(v, linear, &walk);
    return resolve_walked(v, v->space, linear, access, &walk);
}

bool soft_tlb_fill(struct soft_vcpu *v, uint64_t linear, bool write)
{
    const struct soft_tlbe *e = (write ? v->space->write : v->space->read) + tlb_index(linear);
    soft_host_try(v, linear, write);
    return (linear ^ e->tag) <= 0xfff;
}

/* One part of an access that crosses pages: from the TLB, or by a walk. */
static uint8_t *part(struct soft_vcpu *v, struct soft_space *space, bool user, uint64_t linear,
                     enum soft_access access, uint64_t *gpa)
{
    const struct soft_tlbe *e =
        access == ACC_WRITE ? &space->write[tlb_index(linear)] : &space->read[tlb_index(linear)];
    if (likely((linear ^ e->tag) <= 0xfff))
        return (uint8_t *)(uintptr_t)(linear + e->addend);
    return resolve(v, space, user, linear, access, gpa);
}

static uint64_t load_slow(struct soft_vcpu *v, struct soft_space *space, bool user, uint64_t linear,
                          unsigned size)
{
    unsigned first = GUEST_PAGE_SIZE - (linear & 0xfff);
    uint64_t gpa;
    if (likely(first >= size)) {
        uint8_t *host = resolve(v, space, user, linear, ACC_READ, &gpa);
        if (unlikely(!host))
            return soft_phys_load(v, gpa, size);
        if (likely(!soft_crossing_forced(v, linear, size)))
            return host_load((uintptr_t)host, size);
        first = size / 2;
    }
    /* Across a page boundary: both parts are checked before a device is read. */
    uint8_t bytes[8];
    uint64_t second = soft_lin(v, linear + first);
    uint64_t gpa2;
    uint8_t *host = part(v, space, user, linear, ACC_READ, &gpa);
    uint8_t *host2 = part(v, space, user, second, ACC_READ, &gpa2);
    if (likely(host && host2)) {
        unsigned shift = 8 * first; /* 8 to 56 */
        uint64_t low = get_le(host, first), high = get_le(host2, size - first);
        return low | high << shift;
    }
    for (unsigned i = 0; i < size; i++) {
        bool low = i < first;
        uint8_t *at = low ? host : host2;
        unsigned skip = low ? i : i - first;
        bytes[i] = at ? at[skip] : soft_phys_load(v, (low ? gpa : gpa2) + skip, 1);
    }
    return get_le(bytes, size);
}

static uint64_t load_in(struct soft_vcpu *v, struct soft_space *space, bool user, uint64_t linear,
                        unsigned size)
{
    struct soft_tlbe *e = &space->read[tlb_index(linear)];
    if (likely((linear ^ e->tag) <= GUEST_PAGE_SIZE - size))
        return host_load(linear + e->addend, size);
    uint64_t value = load_slow(v, space, user, linear, size);
    if (unlikely(v->watching))
        soft_watch(v, linear, size, ACC_READ);
    return value;
}

static void store_slow(struct soft_vcpu *v, struct soft_space *space, bool user, uint64_t linear,
                       unsigned size, uint64_t value)
{
    unsigned first = GUEST_PAGE_SIZE - (linear & 0xfff);
    uint64_t gpa;
    if (likely(first >= size)) {
        uint8_t *host = resolve(v, space, user, linear, ACC_WRITE, &gpa);
        if (unlikely(!host)) {
            soft_phys_store(v, gpa, size, value);
            return;
        }
        if (likely(!soft_crossing_forced(v, linear, size))) {
            host_store((uintptr_t)host, size, value);
            return;
        }
        first = size / 2;
    }
    uint64_t second = soft_lin(v, linear + first);
    uint64_t gpa2;
    uint8_t *host = part(v, space, user, linear, ACC_WRITE, &gpa);
    uint8_t *host2 = part(v, space, user, second, ACC_WRITE, &gpa2);
    for (unsigned i = 0; i < size; i++) {
        bool low = i < first;
        uint8_t *at = low ? host : host2;
        unsigned skip = low ? i : i - first;
        uint8_t byte = value >> (8 * i);
        if (at)
            at[skip] = byte;
        else
            soft_phys_store(v, (low ? gpa : gpa2) + skip, 1, byte);
    }
}

static void store_in(struct soft_vcpu *v, struct soft_space *space, bool user, uint64_t linear,
                     unsigned size, uint64_t value)
{
    struct soft_tlbe *e = &space->write[tlb_index(linear)];
    if (likely((linear ^ e->tag) <= GUEST_PAGE_SIZE - size)) {
        host_store(linear + e->addend, size, value);
        return;
    }
    if (store_beside(v, space, linear, size, value))
        return;
    store_slow(v, space, user, linear, size, value);
    if (unlikely(v->watching))
        soft_watch(v, linear, size, ACC_WRITE);
}

uint64_t soft_load(struct soft_vcpu *v, uint64_t linear, unsigned size)
{
    soft_check_alignment(v, linear, size);
    return load_in(v, v->space, is_user(v), linear, size);
}

void soft_store(struct soft_vcpu *v, uint64_t linear, unsigned size, uint64_t value)
{
    soft_check_alignment(v, linear, size);
    store_in(v, v->space, is_user(v), linear, size, value);
}

uint64_t soft_load_sys(struct soft_vcpu *v, uint64_t linear, unsigned size)
{
    return load_in(v, soft_space_of(v, false), false, linear, size);
}

void soft_store_sys(struct soft_vcpu *v, uint64_t linear, unsigned size, uint64_t value)
{
    store_in(v, soft_space_of(v, false), false, linear, size, value);
}

void soft_probe(struct soft_vcpu *v, uint64_t linear, unsigned len, enum soft_access access)
{
    uint64_t end = linear + len - 1;
    for (uint64_t at = linear;; at = tlb_next_page(v, at)) {
        struct soft_tlbe *e =
            access == ACC_WRITE ? &v->space->write[tlb_index(at)] : &v->space->read[tlb_index(at)];
        uint64_t gpa;
        if ((at ^ e->tag) > 0xfff)
            resolve(v, v->space, is_user(v), at, access, &gpa);
        if (!((at ^ end) & ~0xfffull) || end < linear)
            break;
    }
}

/* Runs over the pieces of a range, a page each. */
static void copy_range(struct soft_vcpu *v, uint64_t linear, uint8_t *bytes, unsigned len,
                       bool write)
{
    while (len) {
        unsigned piece = MIN(len, (unsigned)(GUEST_PAGE_SIZE - (linear & 0xfff)));
        struct soft_tlbe *e =
            write ? &v->space->write[tlb_index(linear)] : &v->space->read[tlb_index(linear)];
        uint8_t *host = NULL;
        if ((linear ^ e->tag) <= 0xfff)
            host = (uint8_t *)(uintptr_t)(linear + e->addend);
        uint64_t gpa;
        if (!host)
            host = resolve(v, v->space, is_user(v), linear, write ? ACC_WRITE : ACC_READ, &gpa);
        if (!host) { /* a device: in words where they fit */
            unsigned word = piece >= 8 ? 8 : piece >= 4 ? 4 : piece >= 2 ? 2 : 1;
            piece = word;
            if (write)
                soft_phys_store(v, gpa, word, get_le(bytes, word));
            else
                put_le(bytes, word, soft_phys_load(v, gpa, word));
        } else {
            if (soft_crossing_forced(v, linear, piece))
                piece /= 2;
            memcpy(write ? host : bytes, write ? bytes : host, piece);
        }
        linear += piece;
        bytes += piece;
        len -= piece;
        if (!v->long_mode)
            linear = (uint32_t)linear;
    }
}

void soft_read(struct soft_vcpu *v, uint64_t linear, void *bytes, unsigned len)
{
    if (!len)
        return;
    if ((linear & 0xfff) + len > GUEST_PAGE_SIZE)
        soft_probe(v, linear, len, ACC_READ);
    copy_range(v, linear, bytes, len, false);
    if (unlikely(v->watching))
        soft_watch(v, linear, len, ACC_READ);
}

void soft_write(struct soft_vcpu *v, uint64_t linear, const void *bytes, unsigned len)
{
    if (!len)
        return;
    if ((linear & 0xfff) + len > GUEST_PAGE_SIZE)
        soft_probe(v, linear, len, ACC_WRITE);
    copy_range(v, linear, (uint8_t *)(uintptr_t)bytes, len, true);
    if (unlikely(v->watching))
        soft_watch(v, linear, len, ACC_WRITE);
}

/* NULL where there is none; *gpa then, unless it is UINT64_MAX, is what a page's walk came to. */
static void *write_ptr(struct soft_vcpu *v, uint64_t linear, unsigned size, uint64_t *gpa)
{
    struct soft_tlbe *e = &v->space->write[tlb_index(linear)];
    *gpa = UINT64_MAX;
    soft_check_alignment(v, linear, size);
    if (likely((linear ^ e->tag) <= GUEST_PAGE_SIZE - size))
        return (void *)(uintptr_t)(linear + e->addend);
    if ((linear & 0xfff) + size > GUEST_PAGE_SIZE || soft_crossing_forced(v, linear, size)) {
        soft_probe(v, linear, size, ACC_WRITE);
        return NULL;
    }
    void *host = resolve(v, v->space, is_user(v), linear, ACC_WRITE, gpa);
    if (likely(!v->watching) || !soft_watched_page(v, linear))
        return host;
    *gpa = UINT64_MAX;
    return NULL;
}

void *soft_write_ptr(struct soft_vcpu *v, uint64_t linear, unsigned size)
{
    uint64_t gpa;
    return write_ptr(v, linear, size, &gpa);
}

void *soft_atomic_ptr(struct soft_vcpu *v, uint64_t linear, unsigned size, uint64_t *code)
{
    void *host = write_ptr(v, linear, size, code);
    const struct soft_ram *ram = host ? NULL : soft_ram_find(v->vm->mem, *code);
    if (likely(!ram) || ram->readonly) {
        *code = UINT64_MAX;
        return host;
    }
    if (unlikely(v->lockstep))
        lockstep_device(v);
    return soft_ram_host(ram, *code);
}

const uint8_t *soft_fetch_ptr(struct soft_vcpu *v, uint64_t linear, uint64_t *gpa)
{
    struct soft_space *space = v->space;
    unsigned index = linear >> GUEST_PAGE_SHIFT & (TLBX_SIZE - 1);
    struct soft_tlbe *e = &space->exec[index];
    uint8_t *host;
    if ((linear ^ e->tag) <= 0xfff) {
        host = (uint8_t *)(uintptr_t)(linear + e->addend);
        *gpa = soft_host_gpa(v->vm->mem, host);
        return host;
    }
    struct walk walk;
    v->stack_access = false;
    if (v->long_mode && !soft_canonical(linear))
        soft_raise(v, VEC_GP, 0);
    soft_walk(v, linear, ACC_EXEC, is_user(v), &walk);
    *gpa = walk.gpa;
    const struct soft_ram *ram = soft_ram_find(v->vm->mem, walk.gpa);
    if (!ram)
        return NULL;
    uint64_t page = linear & ~0xfffull;
    host = soft_ram_host(ram, walk.gpa);
    bool keep = walk.global && space == v->supervisor;
    uint64_t keep_bit = 1ull << (index % 64);
    space->exec_global[index / 64] &= ~keep_bit;
    if (keep) {
        space->exec_global[index / 64] |= keep_bit;
    } else {
        if (space->n_exec < TLB_LOG)
            space->log_exec[space->n_exec] = index;
        space->n_exec++;
    }
    e->tag = page;
    e->addend = (uintptr_t)host - linear;
    unsigned bit = tlb_exec_hash(linear);
    space->exec_seen[bit / 64] |= 1ull << (bit % 64);
    filled(v, space, linear, &walk);
    return host;
}
