/*
 * A screen that is shared with a viewer in another process (tenon-view). On the control loop.
 *
 * The viewer is not trusted: it parses what comes from networks. It gets pixels and gives keys and
 * pointer movements, and no other command of the VM. See display/surface.h for what the two say.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CTL_SCREEN_SHARE_H
#define TENON_CTL_SCREEN_SHARE_H

#include "base/err.h"
#include "base/list.h"
#include "loop/loop.h"
#include "vm/vm.h"

/* Begins to serve `take_fd`, a SOCK_SEQPACKET socket, until the viewer closes it. The share puts
 * itself on `shares`. */
struct err *screen_share_new(struct loop *loop, struct vm *vm, struct list *shares, int take_fd);
void screen_shares_free(struct list *shares);

#endif
