/*
 * A page walk from outside. See x86_walk.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "accel/x86_walk.h"

#define CR0_PG 0x80000000u
#define CR4_PSE 0x10u
#define CR4_PAE 0x20u
#define CR4_LA57 0x1000u
#define EFER_LMA 0x400u

#define PTE_PRESENT 1u
#define PTE_LARGE 0x80u
#define PTE_ADDRESS 0x000ffffffffff000ull

/* One kind of paging: how many levels, how wide an entry and an index are. */
struct paging {
    unsigned levels, index_bits, entry_size;
    unsigned large_levels; /* a large page may stand at levels 1..this, counted from the last, 0 */
    uint64_t root;
};

static struct paging paging_of(const struct x86_state *state)
{
    if (state->efer & EFER_LMA)
        return (struct paging){state->cr4 & CR4_LA57 ? 5 : 4, 9, 8, 2, state->cr3 & PTE_ADDRESS};
    if (state->cr4 & CR4_PAE)
        return (struct paging){3, 9, 8, 1, state->cr3 & 0xffffffe0u};
    return (struct paging){2, 10, 4, state->cr4 & CR4_PSE ? 1 : 0, state->cr3 & 0xfffff000u};
}

/* A 4 MiB page of 32-bit paging has address bits 39:32 in bits 20:13 of its entry. */
static uint64_t page_base(const struct paging *paging, uint64_t entry, uint64_t size)
{
    uint64_t base = entry & PTE_ADDRESS & ~(size - 1);

    if (paging->entry_size == 4 && size > 4096)
        base |= (entry >> 13 & 0xff) << 32;
    return base;
}

static bool read_entry(struct gmem *gmem, uint64_t at, unsigned size, uint64_t *entry)
{
    uint8_t bytes[8] = {0};

    if (gmem_read(gmem, at, bytes, size) != 0)
        return false;
    *entry = get_le64(bytes);
    return *entry & PTE_PRESENT;
}

static bool walk(struct gmem *gmem, const struct paging *paging, uint64_t linear, uint64_t *gpa,
                 uint64_t *size)
{
    uint64_t table = paging->root, entry;

    for (unsigned level = paging->levels; level-- > 0;) {
        unsigned shift = 12 + level * paging->index_bits;
        uint64_t index = linear >> shift & ((1u << paging->index_bits) - 1);

        if (!read_entry(gmem, table + index * paging->entry_size, paging->entry_size, &entry))
            return false;
        if (level == 0 || (entry & PTE_LARGE && level <= paging->large_levels)) {
            *size = 1ull << shift;
            *gpa = page_base(paging, entry, *size) + (linear & (*size - 1));
            return true;
        }
        table = entry & PTE_ADDRESS;
    }
    return false;
}

bool x86_walk(struct gmem *gmem, const struct x86_state *state, uint64_t linear, uint64_t *gpa,
              uint64_t *left)
{
    uint64_t size = 4096;

    if (!(state->efer & EFER_LMA))
        linear = (uint32_t)linear;
    if (!(state->cr0 & CR0_PG)) {
        *gpa = linear;
    } else {
        struct paging paging = paging_of(state);
        if (!walk(gmem, &paging, linear, gpa, &size))
            return false;
    }
    if (left)
        *left = size - (linear & (size - 1));
    return true;
}
