/*
 * NBD server (github.com/NetworkBlockDevice/nbd, doc/proto.md): fixed newstyle negotiation,
 * structured replies, block status, TLS, several exports and connections.
 *
 * Connections are served by threads of their own, so that a slow or hostile peer holds up nobody
 * else. The server opens nothing: it gets open images, a listening socket and loaded credentials,
 * and may be confined before it looks at the first byte.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_EXPORT_NBD_H
#define TENON_BLOCK_EXPORT_NBD_H

#include "block/image.h"

#define NBD_NAME_MAX 4096

struct nbd_export {
    const char *name;        /* "" is what a client gets that names none */
    const char *description; /* NULL: none */
    struct image *image;     /* borrowed; read-only unless it is writable */
};

struct nbd_tls; /* credentials, nbd_tls.c */
/* `folder` has server-cert.pem, server-key.pem and, to ask clients for one, ca-cert.pem. */
struct err *nbd_tls_load_certificates(const char *folder, bool verify_clients,
                                      struct nbd_tls **tls);
/* `path` has lines "name:hexadecimal key", as psktool writes them. */
struct err *nbd_tls_load_psk(const char *path, struct nbd_tls **tls);
void nbd_tls_free(struct nbd_tls *tls);

struct nbd_server_config {
    const struct nbd_export *export;
    unsigned export_count;
    const struct nbd_tls *tls; /* NULL: in the clear; else nobody gets in without */
    int listen_fd;             /* borrowed; -1: there is only the first client */
    int client_fd;             /* a first client, taken; 0 or -1: none */
    int stop_fd;               /* readable or hung up: the server ends; borrowed */
    unsigned clients_max;      /* others wait in the listener's queue */
};

/* Serves until stop_fd says so and the last connection is closed. */
struct err *nbd_serve(const struct nbd_server_config *config);

#endif
