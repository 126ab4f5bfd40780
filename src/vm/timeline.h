/*
 * Boot timeline: monotonic marks of a VM's start, each set once, from any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_VM_TIMELINE_H
#define TENON_VM_TIMELINE_H

#include <jansson.h>

#include "base/base.h"
#include "base/buf.h"

enum timeline_mark {
    TIMELINE_EXEC,         /* the tenon command began */
    TIMELINE_CONFIG,       /* VM resolved, files open */
    TIMELINE_MEMORY,       /* guest RAM and accelerator ready */
    TIMELINE_DEVICES,      /* board built, kernel loaded */
    TIMELINE_FIRST_INSN,   /* first guest instruction */
    TIMELINE_BOOT_LOADER,  /* firmware starts one, and says so on the first serial port */
    TIMELINE_KERNEL_ENTRY, /* direct boot: the same moment; firmware: it routes its first interrupt
                            */
    TIMELINE_FIRST_OUTPUT, /* first byte on a console */
    TIMELINE_INIT,         /* init says so: a write to the debug port, or its first console line */
    TIMELINE_END,          /* the VM ended */
    TIMELINE_MARKS,
};

struct timeline {
    uint64_t at_ns[TIMELINE_MARKS]; /* CLOCK_MONOTONIC; 0: not reached */
};

/* The first call counts, later ones are ignored. */
void timeline_mark(struct timeline *timeline, enum timeline_mark mark);
void timeline_mark_at(struct timeline *timeline, enum timeline_mark mark, uint64_t at_ns);
/* Now, again: for what may come several times, of which the last counts. */
void timeline_move(struct timeline *timeline, enum timeline_mark mark);
const char *timeline_name(enum timeline_mark mark);
/* A table of stages with milliseconds since the first mark and since the one before. */
void timeline_print(const struct timeline *timeline, struct buf *out);

/* [{"stage", "at_ms", "took_ms"}], the stages that were reached, in order of time. The caller owns
 * it. */
json_t *timeline_to_json(const struct timeline *timeline);

#endif
