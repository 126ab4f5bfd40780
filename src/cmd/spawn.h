/*
 * Starting the programs beside `tenon`: tenon-vmm and tenon-slirp.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_SPAWN_H
#define TENON_CMD_SPAWN_H

#include <sys/types.h>

#include "base/base.h"
#include "base/err.h"

/*
 * The path of a program that belongs to this one: in the directory of the running binary, else in
 * Tenon's libexec directory, else in bin beside the directory of the running binary. The caller
 * frees it.
 */
struct err *spawn_find(const char *program, char **path);

/*
 * Starts `path` with `argv`. The child has its own session (no controlling terminal, no signals of
 * the terminal), standard input and output on /dev/null, standard error on `stderr_fd` (-1: ours),
 * and of the other descriptors those in `keep`, under the same numbers. The kernel kills it when
 * this process dies. *pid is for waitpid.
 */
struct err *spawn(const char *path, char *const argv[], const int *keep, size_t keep_count,
                  int stderr_fd, pid_t *pid);

/*
 * The same for a program that outlives this process: it works in folder `directory`, gets no other
 * descriptors, and what it says goes to `stderr_fd`.
 */
struct err *spawn_detached(const char *path, char *const argv[], const char *directory,
                           int stderr_fd, pid_t *pid);

/* "was killed by signal 9 (Killed)" or "ended with status 3", for a status of waitpid. */
void spawn_status_text(int status, char *text, size_t size);

#endif
