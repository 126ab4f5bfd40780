/*
 * Which VMs of this user run: a control socket each, NAME-PID.sock in /run/tenon (root) or
 * $XDG_RUNTIME_DIR/tenon. No daemon keeps it; what a killed `tenon run` left there is swept by who
 * finds it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_REGISTRY_H
#define TENON_CMD_REGISTRY_H

#include <sys/types.h>

#include "base/base.h"
#include "base/err.h"
#include "cmd/qmp_client.h"

struct registry_vm {
    char *name;
    pid_t pid;  /* of `tenon run` */
    char *path; /* the socket */
};

struct registry {
    struct registry_vm *vm; /* by name, then PID; owned with what it holds */
    unsigned count;
};

/* Where the VM `name` of this process may have its socket; the folder is made. NULL: this user has
 * no such folder, and the VM is reached by --qmp alone. The caller frees it. */
char *registry_path(const char *name);

/* Those that still answer. */
struct err *registry_read(struct registry *registry);
void registry_fini(struct registry *registry);

/* Connects to the VM that `what` means: path of a control socket, name, or PID of `tenon run`. */
struct err *registry_open(const char *what, struct qmp_client *client);

#endif
