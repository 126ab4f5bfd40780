/*
 * The control of one VM over QMP: its commands, its events, and the report of its end.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CTL_VM_CONTROL_H
#define TENON_CTL_VM_CONTROL_H

#include <jansson.h>

#include "base/base.h"
#include "base/err.h"
#include "loop/loop.h"
#include "vm/vm.h"

struct vm_control;

struct vm_control_config {
    struct loop *loop;               /* the control loop */
    struct vm *vm;                   /* borrowed, built and not started */
    const char *name;                /* borrowed */
    const struct timeline *timeline; /* borrowed */
    int owner_fd;  /* connected socket of who started the VM: its end quits the VM; -1: none; taken
                    */
    int listen_fd; /* listening socket for QMP clients; -1: none; taken */
    int gdb_fd;    /* listening socket for a debugger; -1: none; taken */
};

/* Clients are greeted at once and served when the loop runs. */
struct err *vm_control_new(const struct vm_control_config *config, struct vm_control **control);
/* NULL is fine. */
void vm_control_free(struct vm_control *control);

/* vm_start() succeeded: event RESUME, status "running"; or "paused", if it starts so. */
void vm_control_started(struct vm_control *control);
/*
 * The VM ended: event SHUTDOWN, then TENON_REPORT with vm_control_report() as its data; waits a
 * moment until the clients have them.
 */
void vm_control_ended(struct vm_control *control, const struct vm_result *result);

/*
 * The report of a VM: name, engine, result, status, reason, timeline (a list of {stage, at_ns,
 * at_ms}), stats. The same object that `tenon run --json` prints. The caller owns it.
 */
json_t *vm_control_report(const struct vm_control *control, const struct vm_result *result);

#endif
