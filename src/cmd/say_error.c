/*
 * The one sentence of a command that failed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>

#include "cmd/command.h"

void command_say_error(const char *program, const struct err *err)
{
    scoped(free_cleanup) char *text = xstrdup(err_text(err));
    for (char *at = text; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 127)
            *at = '?';
    fprintf(stderr, "%s: %s\n", program, text);
}
