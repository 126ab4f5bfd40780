/*
 * The frame of a program beside tenon-vmm. See side_program.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/side_program.h"

#include <stdio.h>
#include <unistd.h>

#include "cmd/ready.h"

int side_program_main(int argc, char **argv, const struct side_program *program, void *opaque)
{
    struct err *err = NULL;
    int option, status_fd = -1;

    while (!err && (option = getopt_long(argc, argv, "", program->options, NULL)) != -1) {
        if (option == '?')
            return ERR_USAGE;
        if (option == SIDE_PROGRAM_VERSION)
            return printf("%s %s\n", program->name, TENON_VERSION) < 0;
        if (option == SIDE_PROGRAM_HELP)
            return fputs(program->help, stdout) < 0;
        err = option == SIDE_PROGRAM_STATUS_FD ? ready_parse_fd(optarg, "--status-fd", &status_fd)
                                               : program->parse(option, opaque);
    }
    if (!err && optind < argc)
        err = err_of(ERR_USAGE, "'%s' is not an option", argv[optind]);
    if (!err)
        err = program->set_up(status_fd, opaque);
    int status = ready_report(status_fd, err);
    if (status == 0)
        program->serve(opaque);
    /* Everything goes with the process; exit handlers have no place in the sandbox. */
    _exit(status);
}
