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

/* A VM file with every default in it, paths absolute: the daemon works in another folder. */
struct err *vms_read_file(const char *path, json_t **config);
/* What the daemon has of a VM; NULL: it has none. */
struct err *vms_find(const char *name, json_t **vm);
/* Starts it and waits as the arguments say; `vm` may be NULL. */
struct err *vms_start(const char *name, const struct rest_arguments *arguments, json_t **vm);
/* Everything that was printed is out. */
struct err *vms_flush(void);

#endif
