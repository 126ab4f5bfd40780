/*
 * A process that is perhaps not our child: known by its PID and the moment of its start, watched
 * through a pidfd.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DAEMON_PROCESS_H
#define TENON_DAEMON_PROCESS_H

#include <sys/types.h>

#include "base/base.h"
#include "loop/loop.h"

struct process {
    pid_t pid;        /* 0: none */
    uint64_t started; /* /proc/PID/stat, field 22: clock ticks after boot */
    int fd;           /* pidfd */
    struct loop_fd watch;
};

/*
 * Watches process `pid`, if it runs; with `started` not 0, only the one that began then. `ended`
 * runs once. False: there is none, or it is another one.
 */
bool process_watch(struct process *process, struct loop *loop, pid_t pid, uint64_t started,
                   void (*ended)(void *opaque, uint32_t events), void *opaque);
void process_forget(struct process *process);
/* When it began, in nanoseconds since 1970. */
uint64_t process_start_wall_ns(const struct process *process);
/* SIGKILL. Nothing when it has ended. */
void process_kill(const struct process *process);
/* Bytes of memory in use, and nanoseconds of CPU time; false: it has ended. */
bool process_usage(pid_t pid, uint64_t *resident, uint64_t *cpu_ns);
/* The same of a process and its children. */
bool process_tree_usage(pid_t pid, uint64_t *resident, uint64_t *cpu_ns);

#endif
