/*
 * What the commands on tenond's VMs share. Inside src/cmd only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_VMS_H
#define TENON_CMD_VMS_H

#include <jansson.h>

#include "base/err.h"
#include "cmd/rest.h"
#include "vm/config.h"

/* A configuration to fill, and then its description with every default; `take_err` says how the
 * filling went. The caller owns the description. */
struct vm_config *vms_config_new(void);
struct err *vms_config_describe(struct vm_config *take_config, struct err *take_err,
                                json_t **description);
/* That of a VM file, paths absolute: the daemon works in another folder. */
struct err *vms_read_file(const char *path, json_t **description);
/* What the daemon has of a VM; NULL: it has none. */
struct err *vms_find(const char *name, json_t **vm);
/* Starts it and waits as the arguments say; `vm` may be NULL. */
struct err *vms_start(const char *name, const struct rest_arguments *arguments, json_t **vm);
/* Everything that was printed is out. */
struct err *vms_flush(void);

#endif
