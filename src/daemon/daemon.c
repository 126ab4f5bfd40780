/*
 * tenond, put together. See daemon.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "daemon/api.h"
#include "daemon/web.h"

/* Two daemons over one state would start every VM twice. */
static struct err *take_state(struct daemon *daemon)
{
    const char *state = daemon->config.state;
    scoped(free_cleanup) char *path = xasprintf("%s/lock", state);

    if (mkdir(state, 0700) != 0 && errno != EEXIST)
        return err_errno(errno, "cannot make the folder '%s'", state);
    daemon->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (daemon->lock_fd < 0)
        return err_errno(errno, "cannot write '%s'", path);
    if (flock(daemon->lock_fd, LOCK_EX | LOCK_NB) != 0)
        return err_of(ERR_BUSY, "another tenond uses '%s'", state);
    return NULL;
}

static struct err *open_state(struct daemon *daemon)
{
    scoped(free_cleanup) char *database = xasprintf("%s/tenond.db", daemon->config.state);
    scoped(free_cleanup) char *vms = xasprintf("%s/vms", daemon->config.state);

    TRY(take_state(daemon));
    TRY(store_open(database, &daemon->store));
    TRY(pool_open(daemon->config.state, &daemon->pool));
    TRY(audit_open(daemon->loop, daemon->config.state, &daemon->audit));
    const struct instance_host host = {.loop = daemon->loop,
                                       .store = daemon->store,
                                       .events = daemon->events,
                                       .start_keeper = daemon->config.start_keeper,
                                       .reap = daemon->config.reap,
                                       .opaque = daemon->config.opaque};
    return fleet_new(&host, vms, &daemon->fleet);
}

static struct err *serve(struct daemon *daemon)
{
    struct http_config http = {.loop = daemon->loop,
                               .listen_fd = daemon->config.local_fd,
                               .local = true,
                               .limits = daemon->config.limits,
                               .handle = api_handle,
                               .late = api_late,
                               .opaque = daemon};

    daemon->config.local_fd = -1;
    TRY(http_server_new(&http, &daemon->local));
    if (daemon->config.tcp_fd < 0)
        return NULL;
    http.listen_fd = daemon->config.tcp_fd;
    http.local = false;
    http.certificate = daemon->config.certificate;
    http.key = daemon->config.key;
    daemon->config.tcp_fd = -1;
    return http_server_new(&http, &daemon->tcp);
}

struct err *daemon_new(const struct daemon_config *config, struct daemon **result)
{
    struct daemon *daemon = xcalloc(1, sizeof(*daemon));

    daemon->config = *config;
    daemon->loop = config->loop;
    daemon->lock_fd = daemon->pool.dir_fd = -1;
    daemon->started_ns = clock_wall_ns();
    list_init(&daemon->sessions);
    list_init(&daemon->tickets);
    daemon->events = events_new();
    api_events_init(daemon);
    daemon->web = web_load(config->web);
    struct err *err = api_document_load(&daemon->document);
    if (!err)
        err = open_state(daemon);
    if (!err)
        err = serve(daemon);
    if (err) {
        daemon_free(daemon);
        return err;
    }
    *result = daemon;
    return NULL;
}

/* Connections that speak another protocol are not the servers' to end. */
static void close_sessions(struct daemon *daemon)
{
    struct session *session;

    list_for_each (session, &daemon->sessions, link)
        session->close(session->opaque);
    loop_once(daemon->loop, 0);
}

void daemon_free(struct daemon *daemon)
{
    if (!daemon)
        return;
    /* Calls that wait for a VM are answered by its going, before their connections end. */
    fleet_free(daemon->fleet);
    daemon->fleet = NULL;
    close_sessions(daemon);
    http_server_free(daemon->local);
    http_server_free(daemon->tcp);
    api_events_fini(daemon);
    api_tickets_forget(daemon, NULL);
    audit_close(daemon->audit);
    pool_close(&daemon->pool);
    api_document_fini(&daemon->document);
    web_free(daemon->web);
    events_free(daemon->events);
    store_close(daemon->store);
    fd_cleanup(&daemon->config.local_fd);
    fd_cleanup(&daemon->config.tcp_fd);
    fd_cleanup(&daemon->lock_fd);
    free(daemon);
}
