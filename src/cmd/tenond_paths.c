/*
 * Where tenond is. See tenond_paths.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/tenond_paths.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

char *tenond_socket_path(bool server)
{
    const char *named = getenv("TENON_SOCKET"), *runtime = getenv("XDG_RUNTIME_DIR");
    scoped(free_cleanup) char *in = NULL;

    if (!server && named && *named)
        return xstrdup(named);
    if (geteuid() == 0)
        in = xstrdup("/run/tenon");
    else if (runtime && *runtime == '/')
        in = xasprintf("%s/tenon", runtime);
    if (!in)
        return NULL;
    if (server)
        mkdir(in, 0700);
    return xasprintf("%s/tenond.sock", in);
}

char *tenond_state_path(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

    if (geteuid() == 0)
        return xstrdup("/var/lib/tenon");
    if (state && *state == '/')
        return xasprintf("%s/tenon-daemon", state);
    return home ? xasprintf("%s/.local/state/tenon-daemon", home) : NULL;
}
