/*
 * A page walk from outside: where a linear address of a stopped vCPU lies. Changes nothing, neither
 * accessed bits nor TLBs, and asks no right.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_X86_WALK_H
#define TENON_ACCEL_X86_WALK_H

#include "accel/x86_state.h"
#include "gmem/gmem.h"

/*
 * *gpa becomes the guest-physical address of `linear`; *left (optional) how many bytes from it on
 * lie in the same page. False when no page is there. Paging of all kinds (Intel SDM vol. 3, 4).
 */
bool x86_walk(struct gmem *gmem, const struct x86_state *state, uint64_t linear, uint64_t *gpa,
              uint64_t *left);

#endif
