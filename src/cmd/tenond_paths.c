/*
 * Where tenond is. See tenond_paths.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "cmd/tenond_paths.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

char *tenon_runtime_folder(void)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");

    if (geteuid() == 0)
        return xstrdup("/run/tenon");
    return runtime && *runtime == '/' ? xasprintf("%s/tenon", runtime) : NULL;
}

char *tenond_socket_path(bool server)
{
    const char *named = getenv("TENON_SOCKET");

    if (!server && named && *named)
        return xstrdup(named);
    scoped(free_cleanup) char *in = tenon_runtime_folder();
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
