/*
 * Images that another machine or process has: NBD, HTTP, Ceph RBD, iSCSI, vhost-user. For `tenon
 * image` and processes of their own; a VMM parses nothing that comes from a network. Their
 * libraries are loaded when such a name is opened.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_BLOCK_PROTO_REMOTE_H
#define TENON_BLOCK_PROTO_REMOTE_H

#include "block/core/driver.h"

/* Is this the name of a remote image? Only names that the user typed may be asked. */
bool image_is_remote(const char *name);
/* Opens it as the bottom node of a graph: IMAGE_OPEN_WRITABLE or not. */
struct err *image_open_remote(const char *name, unsigned flags, struct image **image);

/* nbd_client.c: the image of the NBD server at the other end of a socket. */
struct err *image_open_socket(int take_fd, unsigned flags, struct image **image);

/* The kinds, each in its file. */
struct err *remote_open_nbd(const char *name, unsigned flags, struct image **image);
struct err *remote_open_http(const char *name, unsigned flags, struct image **image);
struct err *remote_open_rbd(const char *name, unsigned flags, struct image **image);
struct err *remote_open_vhost_user(const char *name, unsigned flags, struct image **image);
struct err *remote_open_iscsi(const char *name, unsigned flags, struct image **image);

/* The socket's path of a vhost-user name, whose back end serves one client at a time; or NULL. */
const char *image_vhost_user_path(const char *name);

/* A bottom node of this size; beyond its end it reads as zeros, and cannot be written. */
struct image *remote_node(const struct block_driver *driver, void *state, unsigned flags,
                          uint64_t size);
/* Cuts what is beyond the end: *length becomes what is left, the rest of a buffer zeros. */
void remote_clip_read(const struct image *image, void *buffer, uint64_t offset, uint64_t *length);
int remote_clip_write(const struct image *image, uint64_t offset, uint64_t length);

#endif
