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
 * First step, before the first thread: no new privileges, no capabilities, no file system, no TCP.
 * Descriptors stay usable, and the VM is built from them.
 */
struct err *vmm_policy_renounce(void);
/*
 * Second step, before the guest runs: only the system calls of the list, on all threads. `accel` is
 * the engine, which may add some. Nothing can be opened, connected, started or looked at
 * afterwards.
 */
struct err *vmm_policy_enter(const struct accel_ops *accel);

#endif
