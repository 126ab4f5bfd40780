/*
 * tenon image serve: images as NBD exports, or one as a vhost-user disk, until a signal.
 *
 * The command opens everything (images, socket, credentials), then forks: the child serves,
 * confined and with nothing to open; the parent waits for a signal and takes the socket's name
 * away. Between them is a socket pair: whichever ends, the other notices.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block/export/nbd.h"
#include "cmd/image/image.h"
#include "cmd/listen.h"
#include "cmd/run.h"
#include "hw/vhost/vhost_user.h"
#include "hw/virtio/virtio_blk.h"
#include "sandbox/sandbox.h"
#include "vm/schema_table.h"

#define EXPORTS_MAX 64
#define CLIENTS_STANDARD 64u
#define CLIENTS_MAX 4096u

static const struct option_spec options[] = {
    {"socket", "PATH", "Listen on a unix socket."},
    {"vhost-user", "PATH",
     "Serve one image as a vhost-user-blk device on a unix socket, for another VMM's guest."},
    {"queues", "N", "Request queues of that device. Default: 1."},
    {"listen", "[ADDRESS:]PORT", "Listen on TCP; without an address, on 127.0.0.1."},
    {"read-only", NULL, "Clients cannot write; other readers may share the files."},
    {"format", "FORMAT", "What the images are; without it, their first bytes tell."},
    {"clients", "N", "Connections at once; others wait. Default: 64."},
    {"tls-certificates", "DIR",
     "TLS with server-cert.pem and server-key.pem of that folder; nobody gets in without."},
    {"tls-verify", NULL, "Clients must show a certificate that ca-cert.pem of that folder signed."},
    {"tls-psk", "FILE", "TLS with pre-shared keys: lines name:hexadecimal-key, as psktool writes."},
    {NULL, NULL, NULL},
};

struct serve {
    const char *socket, *vhost, *listen, *format, *certificates, *psk;
    bool readonly, verify;
    unsigned clients, queues;
    struct vm_disk disk; /* for vhost-user */
    const char *word[EXPORTS_MAX];
    struct nbd_export export[EXPORTS_MAX];
    char *name[EXPORTS_MAX]; /* owned */
    unsigned count;
    struct nbd_tls *tls;
    int listen_fd;
    unsigned port;
};

static struct err *take_number(const char *option, const char *value, unsigned most,
                               unsigned *number)
{
    char *end;
    unsigned long got = strtoul(value, &end, 10);
    if (*end || !got || got > most)
        return err_of(ERR_USAGE, "%s is a number from 1 to %u, not '%s'", option, most, value);
    *number = (unsigned)got;
    return NULL;
}

static struct err *take_option(struct serve *serve, const char *name, const char *value)
{
    if (!strcmp(name, "socket"))
        serve->socket = value;
    else if (!strcmp(name, "vhost-user"))
        serve->vhost = value;
    else if (!strcmp(name, "listen"))
        serve->listen = value;
    else if (!strcmp(name, "read-only"))
        serve->readonly = true;
    else if (!strcmp(name, "format"))
        serve->format = value;
    else if (!strcmp(name, "tls-certificates"))
        serve->certificates = value;
    else if (!strcmp(name, "tls-verify"))
        serve->verify = true;
    else if (!strcmp(name, "tls-psk"))
        serve->psk = value;
    else if (!strcmp(name, "queues"))
        return take_number("--queues", value, VIRTIO_BLK_QUEUES_MAX, &serve->queues);
    else
        return take_number("--clients", value, CLIENTS_MAX, &serve->clients);
    return NULL;
}

/* FILE, which clients get that name no export, or NAME=FILE. */
static struct err *open_export(struct serve *serve, unsigned index)
{
    const char *word = serve->word[index];
    const struct image_args args = {.verb = "serve"};
    const char *equals = strchr(word, '='), *slash = strchr(word, '/');
    bool named = equals && equals != word && (!slash || equals < slash);
    unsigned flags = serve->readonly ? 0 : (unsigned)(IMAGE_OPEN_WRITABLE | IMAGE_OPEN_DISCARD);
    struct nbd_export *export = &serve->export[index];
    char *name = named ? xasprintf("%.*s", (int)(equals - word), word) : xstrdup("");
    serve->name[index] = name;
    *export = (struct nbd_export){.name = name};
    for (unsigned i = 0; i < index; i++) {
        if (!strcmp(serve->name[i], name))
            return err_of(ERR_USAGE,
                          *name ? "two exports are named '%s': rename one"
                                : "two exports have no name%s: write NAME=FILE",
                          name);
    }
    return image_open_chain(&args, named ? equals + 1 : word, serve->format, flags, &export->image);
}

static struct err *take_word(struct serve *serve, const char *word)
{
    if (serve->count == EXPORTS_MAX)
        return err_of(ERR_USAGE, "more than %d exports", EXPORTS_MAX);
    serve->word[serve->count++] = word;
    return NULL;
}

static struct err *parse(struct serve *serve, int argc, char **argv)
{
    for (int i = 1; i < argc;) {
        struct option_arg arg;
        struct err *err = option_next(argc, argv, &i, options, NULL, NULL, &arg);
        if (!err)
            err = arg.spec ? take_option(serve, arg.spec->name, arg.value)
                           : take_word(serve, arg.value);
        option_arg_fini(&arg);
        TRY(err);
    }
    if (!serve->count)
        return err_of(ERR_USAGE, "what is to be served? Write FILE, or NAME=FILE");
    if (!!serve->socket + !!serve->listen + !!serve->vhost != 1)
        return err_of(ERR_USAGE,
                      "where to listen? Give --socket PATH, --listen PORT or --vhost-user PATH");
    if (serve->vhost && (serve->count > 1 || serve->certificates || serve->psk))
        return err_of(ERR_USAGE, "--vhost-user is for one image, and without TLS");
    if (serve->certificates && serve->psk)
        return err_of(ERR_USAGE, "--tls-certificates and --tls-psk exclude each other");
    if (serve->verify && !serve->certificates)
        return err_of(ERR_USAGE, "--tls-verify needs --tls-certificates DIR");
    return NULL;
}

static struct err *prepare_vhost(struct serve *serve)
{
    schema_init(&schema_disk, &serve->disk);
    serve->disk.path = xstrdup(serve->word[0]);
    serve->disk.format = serve->format ? xstrdup(serve->format) : NULL;
    serve->disk.readonly = serve->readonly;
    TRY(run_open_disk(&serve->disk));
    return listen_unix(serve->vhost, &serve->listen_fd);
}

static struct err *prepare(struct serve *serve)
{
    if (serve->vhost)
        return prepare_vhost(serve);
    for (unsigned i = 0; i < serve->count; i++)
        TRY(open_export(serve, i));
    if (serve->certificates)
        TRY(nbd_tls_load_certificates(serve->certificates, serve->verify, &serve->tls));
    if (serve->psk)
        TRY(nbd_tls_load_psk(serve->psk, &serve->tls));
    return serve->socket ? listen_unix(serve->socket, &serve->listen_fd)
                         : listen_tcp(serve->listen, &serve->listen_fd, &serve->port);
}

/* The images are written back before the process ends; the status says whether that worked. */
static struct err *close_images(struct serve *serve)
{
    struct err *err = NULL;
    for (unsigned i = 0; i < serve->count; i++) {
        int result = image_close(serve->export[i].image);
        serve->export[i].image = NULL;
        if (result < 0 && !err)
            err = err_errno(result, "export '%s': its last writes failed", serve->name[i]);
    }
    return err;
}

/* `step`: sandbox_enter(), or one of its two halves. */
static struct err *confine(struct err *(*step)(const struct sandbox_policy *policy))
{
    static const struct sandbox_rule rules[] = {
        SANDBOX_ALLOW(accept4),
        SANDBOX_ALLOW(sendto),
        SANDBOX_ALLOW(sendmsg),
        SANDBOX_ALLOW(recvfrom),
        SANDBOX_ALLOW(recvmsg),
        SANDBOX_ALLOW(setsockopt),
        SANDBOX_ALLOW(getsockopt),
        SANDBOX_ALLOW(fdatasync),
        SANDBOX_ALLOW(sync_file_range),
        SANDBOX_ALLOW(fsync),
        SANDBOX_ALLOW(fallocate),
        SANDBOX_ALLOW(ftruncate),
        SANDBOX_ALLOW(io_uring_enter),
        SANDBOX_ALLOW(memfd_create),
        SANDBOX_ALLOW_IF(fcntl, {1, UINT32_MAX, F_OFD_SETLK}),
    };
    const struct sandbox_policy policy = {
        .name = "tenon image serve",
        .base = true,
        .threads = true,
        .rules = rules,
        .rule_count = ARRAY_SIZE(rules),
    };
    return step(&policy);
}

static struct err *serve_nbd(struct serve *serve, int stop_fd)
{
    const struct nbd_server_config config = {
        .export = serve->export,
        .export_count = serve->count,
        .tls = serve->tls,
        .listen_fd = serve->listen_fd,
        .stop_fd = stop_fd,
        .clients_max = serve->clients,
    };
    struct err *err = confine(sandbox_enter);
    if (!err)
        err = nbd_serve(&config);
    struct err *closed = close_images(serve);
    if (!err)
        return closed;
    err_free(closed);
    return err;
}

/* The disk's threads and ring are made before the filter, which knows neither. */
static struct err *serve_vhost(struct serve *serve, int stop_fd)
{
    const struct block_options disk = {
        .id = serve->disk.path,
        .fd = serve->disk.fd,
        .readonly = serve->disk.readonly,
        .discard = true,
        .formats = serve->disk.format,
        .backing_fds = serve->disk.backing_fd,
    };
    struct vhost_user_config config = {.queues = serve->queues,
                                       .listen_fd = serve->listen_fd,
                                       .stop_fd = stop_fd,
                                       .serial = "vhost-user"};
    struct vhost_user *vhost = NULL;
    struct err *err = confine(sandbox_renounce);
    if (!err)
        err = loop_new("vhost-user", &config.loop);
    if (!err)
        err = err_wrap(block_open(&disk, &config.block), "'%s'", serve->disk.path);
    if (!err)
        err = vhost_user_new(&config, &vhost);
    if (!err)
        err = confine(sandbox_filter);
    if (!err)
        vhost_user_run(vhost);
    vhost_user_free(vhost);
    block_close(config.block);
    return err;
}

/* In the child, where the parent's signals stay blocked. */
static int serve_confined(struct serve *serve, int stop_fd)
{
    signal(SIGPIPE, SIG_IGN);
    struct err *err = serve->vhost ? serve_vhost(serve, stop_fd) : serve_nbd(serve, stop_fd);
    if (!err)
        return 0;
    fprintf(stderr, "tenon: %s\n", err_text(err));
    int status = (int)err_kind(err);
    err_free(err);
    return status;
}

/* In the parent: until a signal, or the child's end. */
static struct err *wait_for(pid_t child, int signal_fd, int stop_fd)
{
    struct pollfd fds[2] = {{.fd = signal_fd, .events = POLLIN}, {.fd = stop_fd, .events = POLLIN}};
    int status;
    while (poll(fds, 2, -1) < 0 && errno == EINTR)
        ;
    close(stop_fd);
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR)
            return err_errno(errno, "cannot wait for the server");
    }
    if (WIFSIGNALED(status))
        return err_new("the server ended by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status) ? err_of((enum err_kind)WEXITSTATUS(status),
                                        "the server ended; what it said is above")
                               : NULL;
}

static struct err *run(struct serve *serve)
{
    sigset_t signals;
    int pair[2];
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    scoped(fd_cleanup) int signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
    if (signal_fd < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return err_errno(errno, "cannot create the server's sockets");
    if (!serve->listen)
        printf("tenon: serving at %s\n", serve->socket ? serve->socket : serve->vhost);
    else
        printf("tenon: serving at port %u\n", serve->port);
    fflush(stdout);
    pid_t child = fork();
    if (child < 0)
        return err_errno(errno, "cannot start the server");
    if (!child) {
        close(pair[0]);
        _exit(serve_confined(serve, pair[1]));
    }
    close(pair[1]);
    return wait_for(child, signal_fd, pair[0]);
}

void image_serve_help(struct buf *out)
{
    buf_text(out, "  serve [OPTIONS] FILE | NAME=FILE ...\n"
                  "      Serve images to NBD clients, or one to another VMM. Its options:\n");
    options_help(out, options);
}

void image_serve_man(struct buf *out)
{
    options_man(out, options);
}

struct err *image_serve(int argc, char **argv)
{
    struct serve serve = {.listen_fd = -1, .clients = CLIENTS_STANDARD, .queues = 1};
    const char *path;
    struct err *err = parse(&serve, argc, argv);
    if (!err)
        err = prepare(&serve);
    if (!err)
        err = run(&serve);
    path = serve.socket ? serve.socket : serve.vhost;
    if (path && serve.listen_fd >= 0)
        unlink(path);
    fd_cleanup(&serve.listen_fd);
    nbd_tls_free(serve.tls);
    for (unsigned i = 0; i < serve.count; i++)
        free(serve.name[i]);
    return err;
}
