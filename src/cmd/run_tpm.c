/*
 * The TPM of a VM: swtpm, with a folder for what it keeps, and two sockets that tenon-vmm gets. It
 * ends when tenon-vmm has closed them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attest/tpm.h"
#include "base/bytes.h"
#include "cmd/run.h"
#include "cmd/spawn.h"
#include "hw/tpm/swtpm.h"

#define START_TIMEOUT_MS 30000

struct err *run_find_swtpm(char **path)
{
    const char *at = getenv("PATH");

    while (at && *at) {
        size_t len = strcspn(at, ":");
        *path = xasprintf("%.*s/swtpm", (int)len, at);
        if (access(*path, X_OK) == 0)
            return NULL;
        free(*path);
        *path = NULL;
        at += len + (at[len] == ':');
    }
    return err_new("the program swtpm is missing: install the package swtpm "
                   "(apt-get install swtpm), or remove --tpm");
}

static struct err *make_state(struct vm_config *config)
{
    if (!config->tpm_state) {
        scoped(free_cleanup) char *file = xasprintf("%s.tpm", config->name);
        TRY(run_user_path("XDG_STATE_HOME", ".local/state", file, &config->tpm_state));
    }
    if (strchr(config->tpm_state, ','))
        return err_of(ERR_USAGE, "swtpm takes no path with a comma: rename '%s'",
                      config->tpm_state);
    if (mkdir(config->tpm_state, 0700) != 0 && errno != EEXIST)
        return err_errno(errno, "cannot make the folder '%s'", config->tpm_state);
    return NULL;
}

static struct err *spawn_swtpm(struct run *run, int control, int command)
{
    const char *state = run->launch.config.tpm_state;
    scoped(free_cleanup) char *path = NULL;
    TRY(run_find_swtpm(&path));
    scoped(free_cleanup) char *control_arg = xasprintf("type=unixio,clientfd=%d", control);
    scoped(free_cleanup) char *command_arg = xasprintf("%d", command);
    scoped(free_cleanup) char *state_arg = xasprintf("dir=%s,mode=0600", state);
    scoped(free_cleanup) char *log_arg = xasprintf("file=%s/log,truncate", state);
    char *const argv[] = {"swtpm",     "socket", "--tpm2",    "--terminate", "--ctrl",
                          control_arg, "--fd",   command_arg, "--tpmstate",  state_arg,
                          "--log",     log_arg,  NULL};

    return spawn(path, argv, (int[]){control, command}, 2, run->child_stderr_fd,
                 &run->helper[RUN_SWTPM]);
}

/* A TPM that cannot start is to end the start of the VM, not to surprise the guest. */
static struct err *try_power(const struct vm_config *config)
{
    struct pollfd poll_fd = {.fd = config->tpm_control_fd, .events = POLLIN};
    uint8_t message[8] = {0};

    put_be32(message, SWTPM_INIT);
    if (send(config->tpm_control_fd, message, sizeof(message), MSG_NOSIGNAL) == sizeof(message) &&
        poll(&poll_fd, 1, START_TIMEOUT_MS) > 0 &&
        recv(config->tpm_control_fd, message, 4, 0) == 4 && get_be32(message) == 0)
        return NULL;
    return err_new("swtpm cannot start the TPM: see '%s/log' for why", config->tpm_state);
}

/* A TPM's first command takes no time that a guest would notice; a key on a loaded host may. */
static struct err *exchange(void *opaque, const uint8_t *command, size_t len, struct buf *reply)
{
    struct pollfd poll_fd = {.fd = *(int *)opaque, .events = POLLIN};
    uint8_t bytes[TPM_MESSAGE_MAX];

    if (send(poll_fd.fd, command, len, MSG_NOSIGNAL) != (ssize_t)len)
        return err_errno(errno, "swtpm takes no command");
    while (reply->len < TPM_HEADER_SIZE || reply->len < get_be32(reply->data + 2)) {
        if (poll(&poll_fd, 1, START_TIMEOUT_MS) <= 0)
            return err_new("swtpm does not answer");
        ssize_t n = recv(poll_fd.fd, bytes, sizeof(bytes), 0);
        if (n <= 0 || reply->len + (size_t)n > TPM_MESSAGE_MAX)
            return err_new("swtpm has ended, or answers too much");
        buf_append(reply, bytes, (size_t)n);
    }
    return NULL;
}

/* The TPM leaves the factory: with the key that `tenon attest` wants. A half-made one is none. */
static struct err *make_tpm(struct vm_config *config, const char *file)
{
    struct tpm_transport tpm = {exchange, &config->tpm_command_fd};
    struct err *err = tpm_provision(&tpm);

    if (err)
        unlink(file);
    return err;
}

static struct err *start(struct run *run)
{
    struct vm_config *config = &run->launch.config;
    int control[2], command[2];

    TRY(make_state(config));
    scoped(free_cleanup) char *file = xasprintf("%s/tpm2-00.permall", config->tpm_state);
    bool fresh = access(file, F_OK) != 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) != 0)
        return err_errno(errno, "cannot create a socket pair");
    config->tpm_control_fd = control[0];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, command) != 0) {
        close(control[1]);
        return err_errno(errno, "cannot create a socket pair");
    }
    config->tpm_command_fd = command[0];
    struct err *err = spawn_swtpm(run, control[1], command[1]);
    close(control[1]);
    close(command[1]);
    if (err)
        run->helper[RUN_SWTPM] = 0;
    TRY(err);
    TRY(try_power(config));
    return fresh ? make_tpm(config, file) : NULL;
}

struct err *run_start_tpm(struct run *run)
{
    return run->launch.config.tpm ? err_wrap(start(run), "TPM") : NULL;
}
