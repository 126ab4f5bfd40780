/*
 * A process's pages in the order of their linear addresses.
 *
 * Pages that lie side by side for a program lie anywhere in guest RAM. Those that it uses much are
 * mapped once more here, side by side, so that one window (xlate/frame.h) covers a whole heap. A
 * page counts as mirrored to read or to write while a TLB entry for it was seen since the last
 * flush; its mapping stays behind a flush, and costs nothing when the same page is there again.
 *
 * One mirror a user space, made when first used; the vCPU's thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_MIRROR_H
#define TENON_ACCEL_SOFT_MIRROR_H

#include "accel/soft/soft.h"

/* Pages that may be used in one piece. */
struct mirror_run {
    uint64_t start, length;
    uint64_t addend; /* host address - guest linear address */
};

/* The run around `linear`, if its page is mirrored, or is where the TLB has it. Changes no vector
   register; nor does soft_mirror_wanted. */
bool soft_mirror_find(struct soft_space *space, uint64_t linear, bool write,
                      struct mirror_run *run);
/* A site was filled for `linear`: has that come so often that its page should be mirrored? */
bool soft_mirror_wanted(struct soft_vcpu *v, uint64_t linear);
/* Takes in the page of `linear`, and those around, as the current space's TLB has them. Translated
   code may go on only if nothing that was mirrored before has gone: it has checked some of it. */
enum mirror_result { MIRROR_NOT, MIRROR_ADDED, MIRROR_OTHERS_GONE };
enum mirror_result soft_mirror_add(struct soft_vcpu *v, uint64_t linear, bool write);

/* No page may be used any more; or this one: was it mirrored? The sites are the caller's. */
void soft_mirror_flush(struct soft_vcpu *v, struct soft_space *space, bool write);
bool soft_mirror_drop(struct soft_vcpu *v, struct soft_space *space, uint64_t linear, bool write);
/* The next linear address, from `from` on, where the host page may be written; or UINT64_MAX. */
uint64_t soft_mirror_next(const struct soft_space *space, const uint8_t *page, uint64_t from);
void soft_mirror_free(struct soft_space *space);

#endif
