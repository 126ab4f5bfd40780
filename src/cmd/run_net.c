/*
 * The host side of the networks: tap devices, and a tenon-slirp for each net of kind user.
 *
 * tenon-slirp listens on the forwarded ports before it says on its status pipe that it is ready, so
 * that a port that is taken ends the start with a sentence.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/ready.h"
#include "cmd/run.h"
#include "cmd/spawn.h"
#include "net/net.h"

#define ARGS_MAX (8 + 2 * VM_FORWARDS_MAX)

struct args {
    char *argv[ARGS_MAX + 1]; /* owned */
    unsigned count;
};

static void args_add(struct args *args, char *take_text)
{
    args->argv[args->count++] = take_text;
}

static void args_fini(struct args *args)
{
    for (unsigned i = 0; i < args->count; i++)
        free(args->argv[i]);
}

static void slirp_args(struct args *args, const struct run *run, const struct vm_net *net,
                       int socket, int status_fd)
{
    args_add(args, xstrdup("tenon-slirp"));
    args_add(args, xasprintf("--fd=%d", socket));
    args_add(args, xasprintf("--status-fd=%d", status_fd));
    args_add(args, xasprintf("--hostname=%s", run->launch.config.name));
    for (unsigned i = 0; i < net->forward_count; i++) {
        const struct vm_forward *forward = &net->forward[i];

        args_add(args, xasprintf("--forward=%s:%s:%u-:%u", forward->udp ? "udp" : "tcp",
                                 forward->host_address, forward->host_port, forward->guest_port));
    }
}

static struct err *start_slirp(struct run *run, unsigned index)
{
    struct vm_net *net = &run->launch.config.net[index];
    scoped(free_cleanup) char *path = NULL;
    struct args args = {0};
    int sockets[2], status[2];
    struct err *err;

    TRY(spawn_find("tenon-slirp", &path));
    TRY(net_user_socketpair(sockets));
    net->fd[0] = sockets[0];
    if (pipe2(status, O_CLOEXEC) != 0) {
        close(sockets[1]);
        return err_errno(errno, "cannot create a pipe");
    }
    run->slirp_status_fd[index] = status[0];
    slirp_args(&args, run, net, sockets[1], status[1]);
    err = spawn(path, args.argv, (int[]){sockets[1], status[1]}, 2, run->child_stderr_fd,
                &run->helper[index]);
    args_fini(&args);
    close(sockets[1]);
    close(status[1]);
    if (err)
        run->helper[index] = 0;
    return err;
}

struct err *run_start_nets(struct run *run)
{
    struct vm_config *config = &run->launch.config;

    for (unsigned i = 0; i < config->net_count; i++) {
        struct vm_net *net = &config->net[i];
        struct err *err = NULL;

        if (net->kind == VM_NET_TAP)
            err = net_tap_open(net->ifname, net->queues, net->fd);
        else if (net->kind == VM_NET_USER)
            err = start_slirp(run, i);
        TRY(err_wrap(err, "net '%s'", net->id));
    }
    return NULL;
}

struct err *run_await_nets(struct run *run)
{
    for (unsigned i = 0; i < run->launch.config.net_count; i++) {
        int *status_fd = &run->slirp_status_fd[i];

        if (*status_fd < 0)
            continue;
        TRY(err_wrap(ready_await(*status_fd, "tenon-slirp"), "net '%s'",
                     run->launch.config.net[i].id));
        close(*status_fd);
        *status_fd = -1;
    }
    return NULL;
}
