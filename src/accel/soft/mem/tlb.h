/*
 * Small inline parts of the software TLBs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_TLB_H
#define TENON_ACCEL_SOFT_TLB_H

#include "accel/soft/interp/exec.h"

typedef uint64_t __attribute__((may_alias, aligned(1))) host_u64;
typedef uint32_t __attribute__((may_alias, aligned(1))) host_u32;
typedef uint16_t __attribute__((may_alias, aligned(1))) host_u16;
typedef uint8_t __attribute__((may_alias)) host_u8;

/* One access of the given width, as the guest made it: other vCPUs may watch. */
static inline uint64_t host_load(uintptr_t at, unsigned size)
{
    switch (size) {
    case 1:
        return *(volatile host_u8 *)at;
    case 2:
        return *(volatile host_u16 *)at;
    case 4:
        return *(volatile host_u32 *)at;
    default:
        return *(volatile host_u64 *)at;
    }
}

static inline void host_store(uintptr_t at, unsigned size, uint64_t value)
{
    switch (size) {
    case 1:
        *(volatile host_u8 *)at = value;
        break;
    case 2:
        *(volatile host_u16 *)at = value;
        break;
    case 4:
        *(volatile host_u32 *)at = value;
        break;
    default:
        *(volatile host_u64 *)at = value;
        break;
    }
}

static inline unsigned tlb_index(uint64_t linear)
{
    return linear >> GUEST_PAGE_SHIFT & (TLB_SIZE - 1);
}

static inline unsigned huge_index(uint64_t linear)
{
    return linear >> 21 & (HUGE_SIZE - 1);
}

/* A tag that no address of slot `index` can match. */
static inline uint64_t tlb_empty_tag(unsigned index)
{
    return (uint64_t)(index ^ 1) << GUEST_PAGE_SHIFT;
}

/* Supervisor and user addresses have a half each: a process's pages come and go. */
static inline unsigned tlb_exec_hash(uint64_t linear)
{
    return ((linear >> 12 ^ linear >> 24) & 2047) | (linear >> 63) << 11;
}

/* The bit of the GiB around `linear` in soft_space.large_near. */
static inline uint64_t tlb_near(uint64_t linear)
{
    return 1ull << ((linear >> 30) * 0x9e3779b97f4a7c15ull >> 58);
}

/* First byte of the page after the one of `linear`; 32-bit linear addresses wrap. */
static inline uint64_t tlb_next_page(const struct soft_vcpu *v, uint64_t linear)
{
    uint64_t next = (linear | 0xfff) + 1;
    return v->long_mode ? next : (uint32_t)next;
}

static inline unsigned jc_index(uint64_t rip)
{
    return (rip ^ rip >> 12) & (JC_SIZE - 1);
}

struct soft_space *soft_space_new(struct soft_vcpu *v);
/* Drops the entries that its logs name, or all where they overflowed. */
void soft_space_flush(struct soft_vcpu *v, struct soft_space *space);
struct soft_space *soft_space_of(struct soft_vcpu *v, bool user);
uint64_t soft_host_gpa(const struct soft_mem *mem, const uint8_t *host);
/* Dirty log: a write entry goes away, its page may have been written until now. */
void tlb_write_dropped(struct soft_vcpu *v, unsigned index, const struct soft_tlbe *e);

#endif
