/*
 * What tenon-vmm may still do once it is confined.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_VMM_POLICY_H
#define TENON_CMD_VMM_POLICY_H

#include "accel/accel.h"
#include "base/err.h"

/*
 * Enters the sandbox of tenon-vmm for a VM of engine `accel`. Everything is open by then; nothing
 * can be opened, connected, started or looked at afterwards. Descriptors stay usable.
 */
struct err *vmm_policy_enter(const struct accel_ops *accel);

#endif
