/*
 * QMP: the way to the agent in the guest. What is said there is between the client and the agent.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "vm/vm_agent.h"

#include "ctl/vm_control_internal.h"

struct err *vm_agent_command(void *opaque, const json_t *arguments, json_t **result)
{
    struct vm_control *control = opaque;
    bool connected = false, listens = false;
    int fd = qmp_server_take_fd(control->server);

    if (fd < 0)
        return err_new("no socket came along with tenon-agent-connect (SCM_RIGHTS)");
    TRY(vm_agent_connect(control->vm, fd, &connected, &listens));
    *result = json_pack("{s:b, s:b}", "connected", connected, "frontend-open", listens);
    return NULL;
}
