/*
 * Translations that the guest's tables no longer give. A guest that changes a table and does not
 * flush may be run by the old entry or by the new one: both are right (SDM vol. 3, 4.10.2.3).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_ACCEL_SOFT_STALE_H
#define TENON_ACCEL_SOFT_STALE_H

#include "accel/soft/soft.h"

/* Does `space` hold one, by the tables as the vCPU sees them now? Walks all that it holds, which
   may set accessed and dirty bits. The vCPU's thread. */
bool soft_space_stale(struct soft_vcpu *v, const struct soft_space *space);

#endif
