/*
 * The launcher of tenond: a process that is forked off before tenond gives up its rights, and that
 * starts programs for it. It knows two: a `tenon run` in a folder, and a tenon-view. tenond itself,
 * which reads what strangers send, can start none.
 *
 * It holds no descriptor but its socket to tenond, and ends when that closes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_LAUNCHER_H
#define TENON_CMD_LAUNCHER_H

#include <sys/types.h>

#include "base/base.h"
#include "base/err.h"

struct launcher_config {
    const char *log_format; /* of the VMs */
    const char *remove;     /* file to remove at the end; NULL: none */
};

struct launcher {
    int fd; /* readable when the launcher has ended */
    pid_t pid;
};

/* Forks, so it comes before threads and before descriptors that nobody else may hold. */
struct err *launcher_start(const struct launcher_config *config, struct launcher *launcher);
/* Its end, and that of each tenon-view; VMs run on. With `remove` it removes the file before. */
void launcher_end(struct launcher *launcher, bool remove);

/* A `tenon run` of vm.yaml in the folder of `directory_fd`, which outlives us. */
struct err *launcher_keeper(struct launcher *launcher, int directory_fd, int log_fd, pid_t *pid);
/* A tenon-view over its sockets to the VM and to who brings viewers. */
struct err *launcher_view(struct launcher *launcher, const char *vm, int screen_fd, int clients_fd,
                          pid_t *pid);
/* Ends what it started, if it runs still, and returns its status as waitpid does. */
int launcher_reap(struct launcher *launcher, pid_t pid);

#endif
