/*
 * GDB stub: a debugger on a VM over the GDB remote serial protocol (GDB manual, appendix E).
 *
 * Each CPU is a thread, CPU 0 is thread 1. The guest stops while a debugger is attached and speaks
 * to it, goes on when the debugger says so or goes away, and notices neither. The debugger is as
 * powerful as a cable to the machine's bus: whoever may connect owns the guest. But its bytes are
 * not trusted: nothing that it sends harms the process.
 *
 * All on the control loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CTL_GDB_GDB_H
#define TENON_CTL_GDB_GDB_H

#include "base/base.h"
#include "base/err.h"
#include "loop/loop.h"
#include "vm/vm.h"

struct gdb_server;

struct gdb_config {
    struct loop *loop; /* the control loop */
    struct vm *vm;     /* borrowed */
    int listen_fd;     /* taken */
    /* The debugger stopped the VM, or let it go on. */
    void (*changed)(void *opaque, bool running);
    void *opaque;
};

struct err *gdb_server_new(const struct gdb_config *config, struct gdb_server **server);
/* The VM has ended: tells the debugger. */
void gdb_server_ended(struct gdb_server *server, unsigned status);
/* NULL is fine. */
void gdb_server_free(struct gdb_server *server);

#endif
