/*
 * vhost-user back end (QEMU's docs/interop/vhost-user.rst): a virtio disk for the guest of another
 * VMM. The front end shows us its guest's memory and rings; they are served by the same device and
 * queues that a guest of ours has.
 *
 * One front end at a time, and everything on one loop, which this runs. It is not trusted: what it
 * says is judged like what a guest says. But its guest's memory is a file of its own, and if it
 * cuts that short, the kernel ends the process that serves it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_HW_VHOST_VHOST_USER_H
#define TENON_HW_VHOST_VHOST_USER_H

#include "block/block.h"

struct vhost_user_config {
    struct block *block; /* borrowed */
    const char *serial;
    unsigned queues;
    struct loop *loop;
    int listen_fd; /* non-blocking; borrowed */
    int stop_fd;   /* readable or hung up: the end; borrowed */
};

struct vhost_user;

/* Builds the device, and everything that its sandbox must not see being made. */
struct err *vhost_user_new(const struct vhost_user_config *config, struct vhost_user **vhost);
/* Serves until stop_fd says so. */
void vhost_user_run(struct vhost_user *vhost);
/* NULL is fine. */
void vhost_user_free(struct vhost_user *vhost);

#endif
