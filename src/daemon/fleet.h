/*
 * All VMs of a daemon. On the loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DAEMON_FLEET_H
#define TENON_DAEMON_FLEET_H

#include "daemon/instance.h"

struct fleet {
    struct instance_host host;
    char *root;            /* folder of the VMs' folders */
    struct list instances; /* by name */
    unsigned count;
};

/* Loads what the store has and finds those that run. The host is copied; `root` is made. */
struct err *fleet_new(const struct instance_host *host, const char *root, struct fleet **fleet);
/* Lets the VMs run on. NULL is fine. */
void fleet_free(struct fleet *fleet);

/* NULL: there is none. */
struct instance *fleet_find(const struct fleet *fleet, const char *name);

/*
 * A VM's description as a user wrote it, checked and with every default filled in. ERR_USAGE with
 * the sentence that `tenon run` would say.
 */
struct err *fleet_resolve(const json_t *json, json_t **resolved);
/* ERR_BUSY: the name is taken. */
struct err *fleet_create(struct fleet *fleet, json_t *take_resolved, struct instance **instance);
/* Another description for the next start; its name must be the VM's. */
struct err *fleet_change(struct fleet *fleet, struct instance *instance, json_t *take_resolved);
/* ERR_BUSY while it runs; frees the instance. */
struct err *fleet_delete(struct fleet *fleet, struct instance *instance);

#endif
