/*
 * A visit to the agent in a guest: what `tenon exec`, `cp`, `agent` and `ps` share. Others are kept
 * out while it lasts.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_AGENT_VISIT_H
#define TENON_CMD_AGENT_VISIT_H

#include "agent/agent.h"
#include "cmd/command.h"
#include "cmd/qmp_client.h"

struct agent_limits {
    long wait_s;    /* until an agent is there, and free */
    long timeout_s; /* for one answer */
};
#define AGENT_LIMITS_STANDARD                                                                      \
    {                                                                                              \
        .wait_s = 0, .timeout_s = 30                                                               \
    }

/* Rows of an option table, and what their values mean; false: it is another option. */
#define AGENT_OPTIONS                                                                              \
    {"wait", "SECONDS", "How long to wait until an agent answers in the guest (default 0)."},      \
    {                                                                                              \
        "timeout", "SECONDS", "How long the agent may take for one answer (default 30)."           \
    }
struct err *agent_limits_read(const struct option_arg *arg, struct agent_limits *limits,
                              bool *known);

struct agent_visit {
    struct qmp_client client;
    int fd;
    struct agent agent;
};

/* `vm` as registry_open() takes it. agent_visit_close() is due after an error as well. */
struct err *agent_visit_open(struct agent_visit *visit, const char *vm,
                             const struct agent_limits *limits);
void agent_visit_close(struct agent_visit *visit);

#endif
