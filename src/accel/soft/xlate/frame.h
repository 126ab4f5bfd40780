/*
 * What translated code has at hand: the frame at its stack pointer, which lies in the current
 * soft_space, and the sites behind it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_FRAME_H
#define TENON_ACCEL_SOFT_FRAME_H

#include <stdint.h>

/*
 * A site is the translation that one place of translated code used last: an access of `span` bytes
 * at `linear` lies in its window if linear - start < limit. The window is a page, or several that
 * lie together in RAM; `limit` is its length less span - 1, so all who share a site have one span.
 * 0 is an empty one.
 */
struct soft_site {
    uint64_t start, limit;
    uint64_t addend; /* host address - guest linear address */
};

#define SITE_CLASSES 8 /* spans of 1, 2, 4 ... 128 bytes */
#define SITE_WAYS 1024
#define SITE_COUNT (SITE_CLASSES * SITE_WAYS)
#define SITE_SPAN(index) (1u << (index) / SITE_WAYS)
#define SITE_LOG 2048
#define SITE_SEEN 4096

struct soft_sites {
    struct soft_site at[SITE_COUNT];
    uint16_t log[SITE_LOG]; /* those that are not empty; all may be where they do not fit */
    uint32_t n;
    uint64_t seen[SITE_SEEN / 64]; /* pages of their windows: a bit a page, hashed */
};

#define XLATE_BOUNCE 32 /* bytes of the largest access */

#define XLATE_LOCALS 8

struct xlate_frame {
    uint64_t stolen[3]; /* guest R9, R10, R11 */
    uint64_t vcpu;
    uint64_t page;  /* linear address of the page that the running block lies in */
    uint64_t flags; /* LAHF in 15:8, OF in 0; or XLATE_FLAGS_NONE */
    uint64_t save;  /* RAX around flag moves */
    uint64_t target, block;
    uint64_t linear; /* of an access */
    uint64_t icount;
    uint64_t simd;   /* bits of soft_simd_enter: the vector registers are the guest's; 0: not */
    uint64_t seg[2]; /* bases of FS and GS */
    uint64_t host;   /* the caller's RSP */
    uint64_t local[XLATE_LOCALS]; /* addends of groups that go through the hashed TLB */
    /* An access that crosses into a page that lies elsewhere: its bytes, and where they belong. */
    uint8_t bounce[XLATE_BOUNCE] __attribute__((aligned(16)));
    uint8_t *part[2];
    uint64_t part_len[2];
};
#define XLATE_FLAGS_NONE UINT32_MAX /* v's lazy flags are still right */

#endif
