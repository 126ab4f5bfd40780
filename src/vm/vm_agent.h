/*
 * The way to the agent in a guest. On the control loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_VM_VM_AGENT_H
#define TENON_VM_VM_AGENT_H

#include "vm/vm.h"

/*
 * Joins a socket, which is taken, to the agent's port until its other end is closed; not *connected
 * while another one is. *listens says whether a program in the guest has the port open.
 */
struct err *vm_agent_connect(struct vm *vm, int take_fd, bool *connected, bool *listens);

#endif
