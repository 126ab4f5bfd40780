/*
 * What the two files of an instance share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DAEMON_INSTANCE_INTERNAL_H
#define TENON_DAEMON_INSTANCE_INTERNAL_H

#include "daemon/instance.h"

/* instance.c */
void instance_set_state(struct instance *instance, enum instance_state state, const char *status);
void instance_waiters_end(struct instance *instance);
/* instance_run.c */
void instance_on_timer(void *opaque);
/* Lets go of control socket and consoles. */
void instance_disconnect(struct instance *instance);

#endif
