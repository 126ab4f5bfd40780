/*
 * The hand-over from `tenon run` to tenon-vmm: a JSON text in a memfd, whose number is the
 * program's only argument. It names the other descriptors that the program inherits.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_LAUNCH_H
#define TENON_CMD_LAUNCH_H

#include "base/base.h"
#include "base/err.h"
#include "base/log.h"
#include "base/log_output.h"
#include "vm/config.h"
#include "vm/timeline.h"

struct launch {
    struct vm_config config; /* control_fd is the socket to tenon */
    int listen_fd;           /* listening socket for QMP clients; -1: none */
    int gdb_fd;              /* listening socket for a debugger; -1: none */
    bool paused;             /* the guest waits for QMP `cont` or for the debugger */
    enum log_level log_level;
    struct log_output log;
    struct timeline timeline; /* what has been reached so far */
};

/* A memfd with the text, at its beginning; closed on exec unless kept. */
struct err *launch_write(const struct launch *launch, int *fd);
/* Reads it and closes `take_fd`. launch->config wants vm_config_fini, after an error as well. */
struct err *launch_read(int take_fd, struct launch *launch);

/* All descriptors of the hand-over, at most `max`; returns how many there are. */
size_t launch_fds(const struct launch *launch, int *fds, size_t max);
#define LAUNCH_FDS_MAX (VM_DISKS_MAX + VM_NETS_MAX * VM_QUEUES_MAX + VM_CONSOLES_MAX * 2 + 12)

#endif
