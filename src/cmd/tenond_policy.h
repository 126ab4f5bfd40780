/*
 * The sandbox policy of tenond.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_TENOND_POLICY_H
#define TENON_CMD_TENOND_POLICY_H

#include "base/base.h"
#include "base/err.h"

/* Confines the process for good, when all is open but what is in the folder `state`. */
struct err *tenond_policy_enter(const char *state);

#endif
