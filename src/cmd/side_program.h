/*
 * The frame of a program beside tenon-vmm: it reads its options, sets itself up, enters its
 * sandbox, says so (cmd/ready.h) and serves until what it serves has ended.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_SIDE_PROGRAM_H
#define TENON_CMD_SIDE_PROGRAM_H

#include <getopt.h>

#include "base/err.h"

/* Options that the frame understands; the program's own have ids from 1 on. */
enum side_program_option {
    SIDE_PROGRAM_STATUS_FD = 1000,
    SIDE_PROGRAM_HELP,
    SIDE_PROGRAM_VERSION,
};
/* The last rows of the program's table of options. */
#define SIDE_PROGRAM_OPTIONS                                                                       \
    {"status-fd", required_argument, NULL, SIDE_PROGRAM_STATUS_FD},                                \
        {"help", no_argument, NULL, SIDE_PROGRAM_HELP},                                            \
        {"version", no_argument, NULL, SIDE_PROGRAM_VERSION},                                      \
    {                                                                                              \
        0                                                                                          \
    }

struct side_program {
    const char *name, *help;
    const struct option *options;
    /* Takes one of its own options; its value is in optarg. */
    struct err *(*parse)(int option, void *opaque);
    /* After all options: checks them and sets up; the sandbox is entered at its end. `status_fd` is
     * to be kept open. */
    struct err *(*set_up)(int status_fd, void *opaque);
    void (*serve)(void *opaque);
};

/* What main() returns. It does not return when the program has served. */
int side_program_main(int argc, char **argv, const struct side_program *program, void *opaque);

#endif
