/*
 * tenon-view: the screen of a VM for VNC viewers, in a sandboxed process of its own.
 *
 *   tenon-view --screen-fd N [--listen-fd N] [--clients-fd N] [--status-fd N] [options]
 *
 * It inherits a SOCK_SEQPACKET socket whose other end tenon-vmm has (display/surface.h), and
 * sockets on which viewers come (display/rfb/server.h). It enters its sandbox, says so on the
 * status descriptor (cmd/ready.h), and ends, status 0, when the VM does.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd/ready.h"
#include "cmd/side_program.h"
#include "display/rfb/server.h"
#include "sandbox/sandbox.h"

#define PASSWORD_MAX 256

struct options {
    struct rfb_server_config server;
    int password_fd, look_password_fd;
    char password[PASSWORD_MAX + 1], look_password[PASSWORD_MAX + 1];
    bool log_denied, without_landlock;
    struct rfb_server *running;
};

enum option_id {
    OPTION_SCREEN_FD = 1,
    OPTION_LISTEN_FD,
    OPTION_CLIENTS_FD,
    OPTION_NAME,
    OPTION_PASSWORD_FD,
    OPTION_LOOK_PASSWORD_FD,
    OPTION_CERTIFICATE_FD,
    OPTION_KEY_FD,
    OPTION_TLS_ONLY,
    OPTION_LOOK_ONLY,
    OPTION_LOG_DENIED,
    OPTION_WITHOUT_LANDLOCK,
};

static const struct option long_options[] = {
    {"screen-fd", required_argument, NULL, OPTION_SCREEN_FD},
    {"listen-fd", required_argument, NULL, OPTION_LISTEN_FD},
    {"clients-fd", required_argument, NULL, OPTION_CLIENTS_FD},
    {"name", required_argument, NULL, OPTION_NAME},
    {"password-fd", required_argument, NULL, OPTION_PASSWORD_FD},
    {"look-password-fd", required_argument, NULL, OPTION_LOOK_PASSWORD_FD},
    {"certificate-fd", required_argument, NULL, OPTION_CERTIFICATE_FD},
    {"key-fd", required_argument, NULL, OPTION_KEY_FD},
    {"tls-only", no_argument, NULL, OPTION_TLS_ONLY},
    {"look-only", no_argument, NULL, OPTION_LOOK_ONLY},
    {"log-denied", no_argument, NULL, OPTION_LOG_DENIED},
    {"without-landlock", no_argument, NULL, OPTION_WITHOUT_LANDLOCK},
    SIDE_PROGRAM_OPTIONS,
};

static const char help_text[] =
    "usage: tenon-view --screen-fd N [options]\n"
    "\n"
    "The screen of one VM for VNC viewers; started by `tenon view`, `tenon run --vnc` and tenond.\n"
    "\n"
    "  --screen-fd N         inherited SOCK_SEQPACKET socket to tenon-vmm\n"
    "  --listen-fd N         inherited socket on which viewers come\n"
    "  --clients-fd N        inherited SOCK_SEQPACKET socket that brings viewers' sockets\n"
    "  --status-fd N         where to report \"ready\" or \"error STATUS SENTENCE\"\n"
    "  --name NAME           of the VM, for the viewers' titles\n"
    "  --password-fd N       file whose first line is the password to look and type\n"
    "  --look-password-fd N  file whose first line is the password to look only\n"
    "  --certificate-fd N    file with a certificate for TLS (PEM)\n"
    "  --key-fd N            file with its key (PEM)\n"
    "  --tls-only            send away who does not speak TLS\n"
    "  --look-only           nobody types who has no password\n"
    "  --log-denied          the kernel logs system calls that the sandbox denies\n"
    "  --without-landlock    confine by seccomp alone, as on kernels without Landlock\n"
    "  --help, --version\n";

static struct err *parse_option(int option, void *opaque)
{
    struct options *options = opaque;

    switch ((enum option_id)option) {
    case OPTION_SCREEN_FD:
        return ready_parse_fd(optarg, "--screen-fd", &options->server.screen_fd);
    case OPTION_LISTEN_FD:
        return ready_parse_fd(optarg, "--listen-fd", &options->server.listen_fd);
    case OPTION_CLIENTS_FD:
        return ready_parse_fd(optarg, "--clients-fd", &options->server.clients_fd);
    case OPTION_NAME:
        options->server.name = optarg;
        return NULL;
    case OPTION_PASSWORD_FD:
        return ready_parse_fd(optarg, "--password-fd", &options->password_fd);
    case OPTION_LOOK_PASSWORD_FD:
        return ready_parse_fd(optarg, "--look-password-fd", &options->look_password_fd);
    case OPTION_CERTIFICATE_FD:
        return ready_parse_fd(optarg, "--certificate-fd", &options->server.certificate_fd);
    case OPTION_KEY_FD:
        return ready_parse_fd(optarg, "--key-fd", &options->server.key_fd);
    case OPTION_TLS_ONLY:
        options->server.access.tls_only = true;
        return NULL;
    case OPTION_LOOK_ONLY:
        options->server.access.open = RFB_LOOK;
        return NULL;
    case OPTION_LOG_DENIED:
        options->log_denied = true;
        return NULL;
    case OPTION_WITHOUT_LANDLOCK:
        options->without_landlock = true;
        return NULL;
    }
    return NULL;
}

static struct err *finish_options(const struct options *options)
{
    const struct rfb_server_config *server = &options->server;

    if (server->screen_fd < 0)
        return err_of(ERR_USAGE, "--screen-fd is missing: this program is started by `tenon view`");
    if (server->listen_fd < 0 && server->clients_fd < 0)
        return err_of(ERR_USAGE, "--listen-fd or --clients-fd is missing: nobody could look");
    if ((server->certificate_fd < 0) != (server->key_fd < 0))
        return err_of(ERR_USAGE, "--certificate-fd and --key-fd go together");
    return NULL;
}

/* The file's first line; *password stays NULL when there is no file. */
static struct err *read_password(int fd, char text[PASSWORD_MAX + 1], const char **password)
{
    if (fd < 0)
        return NULL;
    ssize_t n = pread(fd, text, PASSWORD_MAX, 0);
    if (n < 0)
        return err_errno(errno, "cannot read the password");
    text[n] = 0;
    if (n == PASSWORD_MAX && !strchr(text, '\n'))
        return err_of(ERR_USAGE, "a password of more than %d characters", PASSWORD_MAX - 1);
    text[strcspn(text, "\r\n")] = 0;
    if (!*text)
        return err_of(ERR_USAGE, "the password is empty");
    *password = text;
    close(fd);
    return NULL;
}

static struct err *enter_sandbox(const struct options *options)
{
    /* Sockets that exist, and viewers that come to them. */
    static const struct sandbox_rule rules[] = {
        SANDBOX_ALLOW(accept4),    SANDBOX_ALLOW(recvfrom),    SANDBOX_ALLOW(recvmsg),
        SANDBOX_ALLOW(sendto),     SANDBOX_ALLOW(sendmsg),     SANDBOX_ALLOW(getsockopt),
        SANDBOX_ALLOW(setsockopt), SANDBOX_ALLOW(getpeername),
    };
    const struct sandbox_policy policy = {
        .name = "tenon-view",
        .base = true,
        .rules = rules,
        .rule_count = ARRAY_SIZE(rules),
        .without_landlock = options->without_landlock,
        .log_denied = options->log_denied,
    };

    return sandbox_enter(&policy);
}

static struct err *set_up(int status_fd, void *opaque)
{
    struct options *options = opaque;
    struct rfb_server_config *config = &options->server;
    const int keep[] = {config->screen_fd,      config->listen_fd,        config->clients_fd,
                        config->certificate_fd, config->key_fd,           status_fd,
                        options->password_fd,   options->look_password_fd};

    TRY(finish_options(options));
    TRY(sandbox_close_others(keep, ARRAY_SIZE(keep)));
    signal(SIGPIPE, SIG_IGN);
    TRY(err_wrap(read_password(options->password_fd, options->password, &config->access.password),
                 "--password-fd"));
    TRY(err_wrap(read_password(options->look_password_fd, options->look_password,
                               &config->access.look_password),
                 "--look-password-fd"));
    TRY(loop_new("view", &config->loop));
    TRY(rfb_server_new(config, &options->running));
    return enter_sandbox(options);
}

static void serve(void *opaque)
{
    const struct options *options = opaque;

    loop_run(options->server.loop);
}

int main(int argc, char **argv)
{
    static const struct side_program program = {
        .name = "tenon-view",
        .help = help_text,
        .options = long_options,
        .parse = parse_option,
        .set_up = set_up,
        .serve = serve,
    };
    struct options options = {
        .server = {.name = "tenon",
                   .access = {.open = RFB_CONTROL, .tls = true},
                   .certificate_fd = -1,
                   .key_fd = -1,
                   .screen_fd = -1,
                   .listen_fd = -1,
                   .clients_fd = -1},
        .password_fd = -1,
        .look_password_fd = -1,
    };

    return side_program_main(argc, argv, &program, &options);
}
