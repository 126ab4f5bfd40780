/*
 * The sandbox of tenon-slirp.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_NET_SLIRP_POLICY_H
#define TENON_NET_SLIRP_POLICY_H

#include "base/base.h"
#include "base/err.h"

struct slirp_policy {
    bool log_denied;       /* the kernel logs what is denied */
    bool without_landlock; /* confine by seccomp alone; then /etc/resolv.conf cannot be read */
};

/* Main thread, once; what it gives up does not come back. */
struct err *slirp_policy_enter(const struct slirp_policy *policy);
/* Will /etc/resolv.conf stay readable? */
bool slirp_policy_has_files(const struct slirp_policy *policy);

#endif
