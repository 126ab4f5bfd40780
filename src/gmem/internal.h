/*
 * What gmem.c and dirty.c share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_GMEM_INTERNAL_H
#define TENON_GMEM_INTERNAL_H

#include "base/lock.h"
#include "gmem/gmem.h"

#define GMEM_REGIONS_MAX 32

struct gmem {
    struct gmem_region region[GMEM_REGIONS_MAX]; /* sorted by address */
    size_t count;
    bool scatter;
    bool dirty_on;                       /* atomic */
    bool shared;                         /* what is added from now on */
    bool counts;                         /* gmem_count_writes */
    uint64_t writes_begun, writes_ended; /* atomic */
    void (*code_fn)(void *opaque, uint64_t gpa, uint64_t len);
    void *code_opaque;
};

/* Around each write of the VMM side. */
static inline void gmem_write_begins(struct gmem *gmem)
{
    if (unlikely(gmem->counts))
        __atomic_fetch_add(&gmem->writes_begun, 1, __ATOMIC_ACQ_REL);
}

static inline void gmem_write_ends(struct gmem *gmem)
{
    if (unlikely(gmem->counts))
        __atomic_fetch_add(&gmem->writes_ended, 1, __ATOMIC_ACQ_REL);
}

/* Dirty log and code pages of a write that has begun. */
void gmem_note_written(struct gmem *gmem, uint64_t gpa, uint64_t len);

/* The writable view of gmem_find(). */
struct gmem_region *gmem_lookup(struct gmem *gmem, uint64_t gpa);

#endif
