/*
 * tenond: the daemon. Parses its options, opens its sockets and runs until SIGTERM or SIGINT; the
 * VMs run on. What serves strangers is confined (tenond_policy.c); a launcher starts programs for
 * it (launcher.c). See src/daemon.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/log_output.h"
#include "cmd/command.h"
#include "cmd/launcher.h"
#include "cmd/listen.h"
#include "cmd/spawn.h"
#include "cmd/tenond_paths.h"
#include "cmd/tenond_policy.h"
#include "daemon/daemon.h"

#define PEM_MAX KIB(256)
#define HOSTS_MAX 16
#define CONNECTIONS_MAX 512
#define TIMEOUT_STANDARD_S 15
#define TIMEOUT_MAX_S 3600
#define LISTEN_FD 3 /* where systemd puts its socket */

static const struct option_spec options[] = {
    {"socket", "PATH",
     "Unix socket of the API. Default: /run/tenon/tenond.sock for root, else "
     "$XDG_RUNTIME_DIR/tenon/tenond.sock."},
    {"state", "DIR",
     "Folder of the VMs. Default: /var/lib/tenon for root, else $XDG_STATE_HOME/tenon-daemon."},
    {"listen", "WHERE",
     "Serve the API over TCP as well, to callers with a token: PORT of 127.0.0.1 or ADDRESS:PORT. "
     "Other addresses than loopback need TLS."},
    {"web", "DIR",
     "Folder of the web console, which is served at /. Default: where it is installed."},
    {"tls-cert", "FILE", "Certificate chain (PEM) for --listen."},
    {"tls-key", "FILE", "Its key (PEM)."},
    {"host", "NAME",
     "A name by which clients of --listen call this host, besides localhost and the address. May "
     "be repeated."},
    {"timeout", "SECONDS",
     "How long a client may take to send its headers, twice that for its body, four times to read "
     "the answer. Default: 15."},
    {"verbose", NULL, "More log lines."},
    {"log-format", "FORMAT",
     "How it and its VMs write their logs: text or json (a line an event), or journald (to "
     "systemd's journal, with fields). Default: journald where standard error is the journal, else "
     "text."},
    {"help", NULL, "Print this help."},
    {NULL, NULL, NULL},
};

static const struct command command_tenond = {
    .usage = "tenond [OPTIONS]",
    .summary = "Keep virtual machines, and serve the REST API to them",
    .options = options,
};

struct tenond {
    const char *socket, *state, *web, *listen, *cert_path, *key_path, *log_format;
    struct log_output log;
    unsigned timeout_s;
    bool activated;                  /* the socket is systemd's */
    const char *host[HOSTS_MAX + 4]; /* ends with NULL */
    unsigned host_count;
    char *default_socket, *default_state, *default_web, *cert, *key, *address;
    struct loop *loop;
    struct loop_fd signals;
    int signal_fd;
    struct daemon *daemon;
    struct launcher launcher;
    struct loop_fd launcher_watch;
    bool failed;
};

/* ---- options ---- */

static struct err *take_timeout(struct tenond *tenond, const char *value)
{
    char *end;
    long seconds = strtol(value, &end, 10);

    if (!*value || *end || seconds < 1 || seconds > TIMEOUT_MAX_S)
        return err_of(ERR_USAGE, "--timeout is 1 to %d seconds, not '%s'", TIMEOUT_MAX_S, value);
    tenond->timeout_s = (unsigned)seconds;
    return NULL;
}

static struct err *take_option(struct tenond *tenond, const char *name, const char *value)
{
    if (!strcmp(name, "socket"))
        tenond->socket = value;
    else if (!strcmp(name, "state"))
        tenond->state = value;
    else if (!strcmp(name, "web"))
        tenond->web = value;
    else if (!strcmp(name, "listen"))
        tenond->listen = value;
    else if (!strcmp(name, "tls-cert"))
        tenond->cert_path = value;
    else if (!strcmp(name, "tls-key"))
        tenond->key_path = value;
    else if (!strcmp(name, "timeout"))
        return take_timeout(tenond, value);
    else if (!strcmp(name, "verbose"))
        log_set_level(LOG_DEBUG);
    else if (!strcmp(name, "log-format"))
        tenond->log_format = value;
    else if (tenond->host_count == HOSTS_MAX)
        return err_of(ERR_USAGE, "--host: more than %d names", HOSTS_MAX);
    else
        tenond->host[tenond->host_count++] = value;
    return NULL;
}

static struct err *read_options(struct tenond *tenond, int argc, char **argv)
{
    for (int i = 1; i < argc;) {
        struct option_arg arg;
        struct err *err = option_next(argc, argv, &i, options, NULL, NULL, &arg);
        if (!err && arg.spec)
            err = take_option(tenond, arg.name, arg.value);
        else if (!err)
            err = err_of(ERR_USAGE, "'%s' is one word too many: see --help", arg.value);
        option_arg_fini(&arg);
        TRY(err);
    }
    if (!tenond->cert_path != !tenond->key_path)
        return err_of(ERR_USAGE, "--tls-cert and --tls-key go together");
    if (tenond->cert_path && !tenond->listen)
        return err_of(ERR_USAGE, "--tls-cert needs --listen");
    return NULL;
}

static struct err *use_defaults(struct tenond *tenond)
{
    if (!tenond->socket)
        tenond->socket = tenond->default_socket = tenond_socket_path(true);
    if (!tenond->state)
        tenond->state = tenond->default_state = tenond_state_path();
    if (!tenond->socket)
        return err_of(ERR_USAGE, "XDG_RUNTIME_DIR is not set: give --socket");
    return tenond->state ? NULL : err_of(ERR_USAGE, "HOME is not set: give --state");
}

/* ---- sockets ---- */

static struct err *read_pem(const char *path, char **text)
{
    scoped(fd_cleanup) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return err_errno(errno, "cannot open '%s'", path);
    *text = xcalloc(1, PEM_MAX + 1);
    n = read(fd, *text, PEM_MAX);
    return n > 0 ? NULL : err_new("'%s' has no certificate", path);
}

/* The address of a socket as a name in Host; whether the network cannot reach it. */
static struct err *look_at(struct tenond *tenond, int fd, bool *loopback)
{
    struct sockaddr_storage bound;
    socklen_t length = sizeof(bound);
    char text[INET6_ADDRSTRLEN];

    if (getsockname(fd, (struct sockaddr *)&bound, &length) != 0)
        return err_errno(errno, "--listen");
    if (bound.ss_family == AF_INET6) {
        const struct in6_addr *address = &((const struct sockaddr_in6 *)&bound)->sin6_addr;
        *loopback = IN6_IS_ADDR_LOOPBACK(address);
        inet_ntop(AF_INET6, address, text, sizeof(text));
        tenond->address = xasprintf("[%s]", text);
    } else {
        const struct in_addr *address = &((const struct sockaddr_in *)&bound)->sin_addr;
        *loopback = ntohl(address->s_addr) >> 24 == 127;
        inet_ntop(AF_INET, address, text, sizeof(text));
        tenond->address = xstrdup(text);
    }
    tenond->host[tenond->host_count++] = tenond->address;
    tenond->host[tenond->host_count++] = "localhost";
    return NULL;
}

static struct err *open_tcp(struct tenond *tenond, struct daemon_config *config)
{
    bool loopback = false;
    unsigned port;

    if (!tenond->listen)
        return NULL;
    TRY(err_wrap(listen_tcp(tenond->listen, &config->tcp_fd, &port), "--listen"));
    TRY(look_at(tenond, config->tcp_fd, &loopback));
    if (!loopback && !tenond->cert_path)
        return err_of(ERR_USAGE,
                      "--listen: '%s' is for others as well: give --tls-cert and "
                      "--tls-key",
                      tenond->listen);
    if (tenond->cert_path) {
        TRY(err_wrap(read_pem(tenond->cert_path, &tenond->cert), "--tls-cert"));
        TRY(err_wrap(read_pem(tenond->key_path, &tenond->key), "--tls-key"));
    }
    config->certificate = tenond->cert;
    config->key = tenond->key;
    printf("tenond: listening on port %u\n", port);
    fflush(stdout);
    return NULL;
}

/* ---- life ---- */

static struct err *start_keeper(void *opaque, int directory_fd, int log_fd, pid_t *pid)
{
    struct tenond *tenond = opaque;

    return launcher_keeper(&tenond->launcher, directory_fd, log_fd, pid);
}

static struct err *start_view(void *opaque, const char *vm, int screen_fd, int clients_fd,
                              pid_t *pid)
{
    struct tenond *tenond = opaque;

    return launcher_view(&tenond->launcher, vm, screen_fd, clients_fd, pid);
}

static int reap(void *opaque, pid_t pid)
{
    struct tenond *tenond = opaque;

    return launcher_reap(&tenond->launcher, pid);
}

static void on_launcher_end(void *opaque, uint32_t events)
{
    struct tenond *tenond = opaque;

    log_error("the launcher has ended; the VMs run on");
    tenond->failed = true;
    loop_stop(tenond->loop);
}

/* The process that keeps our rights has none of what is opened after it. */
static struct err *start_launcher(struct tenond *tenond)
{
    const struct launcher_config config = {
        .log_format = log_output_format(&tenond->log),
        .remove = tenond->activated ? NULL : tenond->socket,
    };

    TRY(launcher_start(&config, &tenond->launcher));
    return loop_fd_add(tenond->loop, &tenond->launcher_watch, tenond->launcher.fd, EPOLLIN,
                       on_launcher_end, tenond);
}

/* Where a build has the web console, else where it is installed. */
static struct err *find_web(char **folder)
{
    scoped(free_cleanup) char *tenon = NULL;

    TRY(spawn_find("tenon", &tenon));
    int length = (int)(strrchr(tenon, '/') - tenon);
    scoped(free_cleanup) char *build = xasprintf("%.*s/../..", length, tenon);
    scoped(free_cleanup) char *mark = xasprintf("%s/build.ninja", build);
    scoped(free_cleanup) char *page = xasprintf("%s/web/index.html", build);
    bool built = access(mark, R_OK) == 0 && access(page, R_OK) == 0;
    *folder = built ? xasprintf("%s/web", build) : xstrdup(TENON_WEBDIR);
    return NULL;
}

static void on_signal(void *opaque, uint32_t events)
{
    struct tenond *tenond = opaque;

    loop_stop(tenond->loop);
}

static struct err *catch_signals(struct tenond *tenond)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    signal(SIGHUP, SIG_IGN);
    tenond->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (tenond->signal_fd < 0)
        return err_errno(errno, "cannot wait for signals");
    return loop_fd_add(tenond->loop, &tenond->signals, tenond->signal_fd, EPOLLIN, on_signal,
                       tenond);
}

/* systemd's socket, sd_listen_fds(3): the first descriptor, for the process that the variable
 * names. */
static bool take_activated(struct daemon_config *config)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    bool ours = pid && count && strtol(pid, NULL, 10) == getpid() && strtol(count, NULL, 10) >= 1;

    /* Not for the VMs. */
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    if (!ours)
        return false;
    config->local_fd = LISTEN_FD;
    return fcntl(LISTEN_FD, F_SETFD, FD_CLOEXEC) == 0 && fcntl(LISTEN_FD, F_SETFL, O_NONBLOCK) == 0;
}

static struct err *start(struct tenond *tenond, int argc, char **argv)
{
    struct daemon_config config = {.local_fd = -1,
                                   .tcp_fd = -1,
                                   .start_keeper = start_keeper,
                                   .start_view = start_view,
                                   .reap = reap,
                                   .opaque = tenond};

    TRY(read_options(tenond, argc, argv));
    TRY(log_output_open(&tenond->log, tenond->log_format, NULL, LOG_JOURNAL_PATH));
    log_output_use(&tenond->log);
    TRY(use_defaults(tenond));
    if (!tenond->web)
        TRY(find_web(&tenond->default_web));
    config.web = tenond->web ? tenond->web : tenond->default_web;
    umask(0077);
    TRY(loop_new("tenond", &tenond->loop));
    TRY(catch_signals(tenond));
    tenond->activated = take_activated(&config);
    struct err *err = start_launcher(tenond);
    if (!err && !tenond->activated)
        err = err_wrap(listen_unix(tenond->socket, &config.local_fd), "--socket");
    if (!err)
        err = open_tcp(tenond, &config);
    if (err) {
        fd_cleanup(&config.local_fd);
        fd_cleanup(&config.tcp_fd);
        return err;
    }
    config.limits = (struct http_limits){.head_ms = tenond->timeout_s * 1000,
                                         .body_ms = tenond->timeout_s * 2000,
                                         .reply_ms = tenond->timeout_s * 4000,
                                         .connections = CONNECTIONS_MAX};
    config.loop = tenond->loop;
    config.state = tenond->state;
    config.hosts = tenond->host;
    TRY(daemon_new(&config, &tenond->daemon));
    return tenond_policy_enter(tenond->state);
}

static void tenond_fini(struct tenond *tenond)
{
    bool served = tenond->daemon;

    daemon_free(tenond->daemon);
    if (tenond->loop)
        loop_once(tenond->loop, 0); /* what waits to be freed */
    loop_fd_remove(&tenond->launcher_watch);
    launcher_end(&tenond->launcher, served);
    loop_fd_remove(&tenond->signals);
    fd_cleanup(&tenond->signal_fd);
    loop_free(tenond->loop);
    free(tenond->default_socket);
    free(tenond->default_state);
    free(tenond->default_web);
    free(tenond->cert);
    free(tenond->key);
    free(tenond->address);
}

static bool said(int argc, char **argv, const char *word)
{
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], word))
            return true;
    return false;
}

int main(int argc, char **argv)
{
    struct tenond tenond = {
        .signal_fd = -1, .launcher.fd = -1, .log.journal_fd = -1, .timeout_s = TIMEOUT_STANDARD_S};
    int status = 0;

    if (said(argc, argv, "--help") || said(argc, argv, "--version")) {
        struct buf text = BUF_INIT;
        if (said(argc, argv, "--help"))
            command_help(&text, &command_tenond);
        else
            buf_text(&text, "tenond " TENON_VERSION "\n");
        fwrite(text.data, 1, text.len, stdout);
        buf_fini(&text);
        return 0;
    }
    struct err *err = start(&tenond, argc, argv);
    if (!err)
        loop_run(tenond.loop);
    if (tenond.failed)
        status = ERR_FAILED;
    if (err) {
        status = (int)err_kind(err);
        if (tenond.log.format == LOG_TEXT)
            command_say_error("tenond", err);
        else
            log_error("%s", err_text(err));
        err_free(err);
    }
    tenond_fini(&tenond);
    /* Exit handlers have no place in the sandbox. */
    _exit(status);
}
