/*
 * tenond: VMs under supervision, and the REST API to them.
 *
 * Everything runs on one loop. The document of the API (api.json) is the one description of its
 * operations: routing, roles, the checks of what comes in, and openapi.json follow from it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DAEMON_DAEMON_H
#define TENON_DAEMON_DAEMON_H

#include <sys/types.h>

#include "base/base.h"
#include "base/err.h"
#include "daemon/http.h"
#include "loop/loop.h"

struct daemon;

struct daemon_config {
    struct loop *loop;
    const char *state; /* folder; made when it is missing. Borrowed, as all texts here */
    int local_fd;      /* listening unix socket; taken */
    int tcp_fd;        /* listening TCP socket; -1: none; taken */
    const char *certificate, *key; /* PEM texts for TCP; NULL: no TLS */
    const char *const
        *hosts; /* names by which TCP clients may call us, without port; NULL-terminated */
    struct http_limits limits;
    /* See struct instance_host. */
    struct err *(*start_keeper)(void *opaque, int directory_fd, int log_fd, pid_t *pid);
    int (*reap)(void *opaque, pid_t pid);
    /* Starts a tenon-view for VM `vm` with its sockets to the VM and to who brings viewers. */
    struct err *(*start_view)(void *opaque, const char *vm, int screen_fd, int clients_fd,
                              pid_t *pid);
    void *opaque;
    const char *web; /* folder of the web console; NULL: none */
};

struct err *daemon_new(const struct daemon_config *config, struct daemon **daemon);
/* The VMs run on. NULL is fine. */
void daemon_free(struct daemon *daemon);

#endif
