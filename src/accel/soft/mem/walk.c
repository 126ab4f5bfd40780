/*
 * Page tables (Intel SDM vol. 3, chapter 4): 32-bit, PAE and 4-level paging, rights, accessed and
 * dirty bits, and the error code of #PF.
 *
 * Runs on the vCPU's thread. Accessed and dirty bits are set by compare-and-swap on guest memory,
 * because other vCPUs and the guest itself change the same entries.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/soft/check/lockstep.h"
#include "accel/soft/interp/exec.h"

#define PTE_P 0x1ull
#define PTE_W 0x2ull
#define PTE_U 0x4ull
#define PTE_A 0x20ull
#define PTE_D 0x40ull
#define PTE_PS 0x80ull
#define PTE_G 0x100ull
#define PTE_NX (1ull << 63)

#define PF_P 1u
#define PF_W 2u
#define PF_U 4u
#define PF_RSVD 8u
#define PF_I 16u

/* One walk: what it asks for and what it has met so far. */
struct walker {
    struct soft_vcpu *v;
    uint64_t linear;
    enum soft_access access;
    bool user;
    bool quiet, failed; /* quiet: a fault only sets failed */
    uint64_t rights;    /* AND of the entries' W and U bits, OR of NX */
    bool nx;
};

/* Raises; true, as the walk's end, when it must not. */
static bool page_fault(struct walker *w, uint32_t why)
{
    struct soft_vcpu *v = w->v;
    if (w->quiet) {
        w->failed = true;
        return true;
    }
    uint32_t error = why | (w->access == ACC_WRITE ? PF_W : 0) | (w->user ? PF_U : 0);
    if (w->access == ACC_EXEC && (v->efer & EFER_NXE || v->cr4 & CR4_SMEP))
        error |= PF_I;
    v->cr2 = w->linear;
    soft_raise(v, VEC_PF, error);
}

/* The host address of a table entry; NULL outside RAM. */
static void *entry_ptr(struct soft_vcpu *v, uint64_t gpa)
{
    const struct soft_ram *ram = soft_ram_find(v->vm->mem, gpa);
    if (!ram)
        return NULL;
    uint8_t *host = soft_ram_host(ram, gpa);
    if (unlikely(v->lockstep))
        return lockstep_page(v, host - (gpa & 0xfff), false) + (gpa & 0xfff);
    return host;
}

static bool allowed(const struct walker *w)
{
    struct soft_vcpu *v = w->v;
    if (w->access == ACC_EXEC && w->nx)
        return false;
    if (w->user)
        return (w->rights & PTE_U) && (w->access != ACC_WRITE || w->rights & PTE_W);
    if (w->access == ACC_WRITE && !(w->rights & PTE_W) && v->cr0 & CR0_WP)
        return false;
    if (w->access == ACC_EXEC && w->rights & PTE_U && v->cr4 & CR4_SMEP)
        return false;
    return true;
}

/* Sets bits in an entry that must still read `old`; false to start the walk again. */
static bool set_bits(struct soft_vcpu *v, void *at, uint64_t gpa, uint64_t old, uint64_t bits,
                     unsigned size)
{
    uint64_t expected = old;
    uint32_t expected_32 = old;
    bool done;
    if ((old & bits) == bits)
        return true;
    if (unlikely(v->lockstep))
        lockstep_marked(v, at);
    if (size == 8)
        done = __atomic_compare_exchange_n((uint64_t *)at, &expected, old | bits, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    else
        done = __atomic_compare_exchange_n((uint32_t *)at, &expected_32, (uint32_t)(old | bits),
                                           false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    /* Should somebody run the table: as a device's write, for a block may be in the making. */
    if (done)
        soft_code_written(v->vm, NULL, gpa, size);
    return done;
}

static uint64_t load_entry(const void *at, unsigned size)
{
    return size == 8 ? __atomic_load_n((const uint64_t *)at, __ATOMIC_ACQUIRE)
                     : __atomic_load_n((const uint32_t *)at, __ATOMIC_ACQUIRE);
}

/* A walk of `levels` levels; false when an entry changed under it and it must start again. */
static bool walk_levels(struct walker *w, uint64_t table, unsigned levels, unsigned entry_size,
                        struct walk *result)
{
    struct soft_vcpu *v = w->v;
    unsigned index_bits = entry_size == 8 ? 9 : 10;
    bool pae3 = entry_size == 8 && levels == 3;
    uint64_t reserved = entry_size == 8 ? ~v->phys_mask & 0x000ffffffffff000ull : 0;
    if (entry_size == 8 && !(v->efer & EFER_NXE))
        reserved |= PTE_NX;
    w->rights = PTE_W | PTE_U;
    w->nx = false;
    for (unsigned level = levels;; level--) {
        unsigned shift = GUEST_PAGE_SHIFT + index_bits * (level - 1);
        uint64_t index = w->linear >> shift & ((1u << index_bits) - 1);
        if (pae3 && level == 3)
            index &= 3;
        uint64_t entry_gpa = table + index * entry_size;
        void *at = entry_ptr(v, entry_gpa);
        uint64_t entry = at ? load_entry(at, entry_size) : 0;
        if (!(entry & PTE_P))
            return page_fault(w, 0);
        if (entry & reserved)
            return page_fault(w, PF_P | PF_RSVD);
        bool pdpte = pae3 && level == 3; /* no rights, no A bit in a PDPTE of PAE paging */
        if (!pdpte) {
            w->rights &= entry;
            w->nx |= entry >> 63;
        }
        bool large = level > 1 && entry & PTE_PS && !pdpte && (entry_size == 8 || v->cr4 & CR4_PSE);
        if (large && level == 4)
            return page_fault(w, PF_P | PF_RSVD);
        if (level > 1 && !large) {
            if (!pdpte && !set_bits(v, at, entry_gpa, entry, PTE_A, entry_size))
                return false;
            table = entry & (entry_size == 8 ? 0x000ffffffffff000ull : 0xfffff000ull);
            continue;
        }
        uint64_t size = 1ull << shift;
        uint64_t frame = entry & (entry_size == 8 ? 0x000ffffffffff000ull : 0xfffff000ull);
        if (large && entry_size == 4) {
            frame = (entry & 0xffc00000) | (entry >> 13 & 0xff) << 32;
        } else if (large) {
            if (frame & (size - 1) & ~0x1000ull) /* bit 12 is PAT */
                return page_fault(w, PF_P | PF_RSVD);
            frame &= ~(size - 1);
        }
        if (!allowed(w))
            return page_fault(w, PF_P);
        bool dirty = w->access == ACC_WRITE;
        if (!set_bits(v, at, entry_gpa, entry, PTE_A | (dirty ? PTE_D : 0), entry_size))
            return false;
        result->gpa = frame | (w->linear & (size - 1));
        result->page_size = size;
        result->writable = dirty;
        result->global = entry & PTE_G && v->cr4 & CR4_PGE;
        return true;
    }
}

static void walk_from_root(struct walker *w, struct walk *walk)
{
    struct soft_vcpu *v = w->v;
    bool done;
    do {
        if (v->long_mode)
            done = walk_levels(w, v->cr3 & 0x000ffffffffff000ull, 4, 8, walk);
        else if (v->cr4 & CR4_PAE)
            done = walk_levels(w, v->cr3 & 0xffffffe0ull, 3, 8, walk);
        else
            done = walk_levels(w, v->cr3 & 0xfffff000ull, 2, 4, walk);
    } while (!done);
}

bool soft_walk_try(struct soft_vcpu *v, uint64_t linear, enum soft_access access, bool user,
                   struct walk *walk)
{
    struct walker w = {.v = v, .linear = linear, .access = access, .user = user, .quiet = true};
    walk_from_root(&w, walk);
    return !w.failed;
}

void soft_walk(struct soft_vcpu *v, uint64_t linear, enum soft_access access, bool user,
               struct walk *walk)
{
    if (!(v->cr0 & CR0_PG)) {
        walk->gpa = linear & 0xffffffff;
        walk->page_size = GUEST_PAGE_SIZE;
        walk->writable = access == ACC_WRITE;
        walk->global = false;
        return;
    }
    struct walker w = {.v = v, .linear = linear, .access = access, .user = user};
    walk_from_root(&w, walk);
}
