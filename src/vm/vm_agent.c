/*
 * The way to the agent in a guest. See vm_agent.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vm/vm_agent.h"

#include <unistd.h>

#include "hw/virtio/virtio_console.h"
#include "vm/vm_internal.h"

struct err *vm_agent_connect(struct vm *vm, int take_fd, bool *connected, bool *listens)
{
    if (!vm->board.agent) {
        close(take_fd);
        return err_new("the VM has no port for a guest agent: start it with --agent");
    }
    *listens = virtio_console_port_open(vm->board.agent, 0);
    struct err *err = stream_join(vm->board.agent_stream, take_fd);
    *connected = !err;
    if (err && err_kind(err) == ERR_BUSY) {
        err_free(err);
        return NULL;
    }
    return err_wrap(err, "guest agent");
}
