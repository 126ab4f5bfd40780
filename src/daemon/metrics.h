/*
 * Figures of VMs as the text that Prometheus reads (exposition format, version 0.0.4).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DAEMON_METRICS_H
#define TENON_DAEMON_METRICS_H

#include <jansson.h>
#include <sys/types.h>

#include "base/base.h"
#include "base/buf.h"

/* What a running VM is asked. */
enum metrics_question {
    METRICS_ENGINE, /* query-stats of the VM */
    METRICS_VCPUS,  /* ... and of its vCPUs */
    METRICS_DISKS,  /* query-blockstats */
    METRICS_NETS,   /* tenon-query-netstats */
    METRICS_QUEUES, /* tenon-query-queuestats */
    METRICS_QUESTIONS
};

struct metrics_vm {
    const char *name, *state;
    pid_t keeper; /* 0: it does not run */
    uint64_t memory, started_ns;
    const json_t *answer[METRICS_QUESTIONS]; /* NULL: none */
};

/* Appends all families. Names and ids of VMs need no escape. */
void metrics_write(struct buf *out, const struct metrics_vm *vms, unsigned count);
/* The lines that begin a family. */
void metrics_head(struct buf *out, const char *name, const char *type, const char *help);

#endif
