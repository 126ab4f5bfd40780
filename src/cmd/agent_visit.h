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

/* Rows of an option table. */
#define AGENT_OPTIONS                                                                              \
    {"wait", "SECONDS", "How long to wait until an agent answers in the guest (default 0)."},      \
    {                                                                                              \
        "timeout", "SECONDS", "How long the agent may take for one answer (default 30)."           \
    }

#define AGENT_WORDS_MAX 2
struct agent_arguments {
    struct agent_limits limits;
    const char *word[AGENT_WORDS_MAX]; /* from argv, as the command is */
    unsigned words;
    char **command; /* behind --, ends with NULL; NULL: there is no -- */
    bool own;       /* the one switch that the command has besides AGENT_OPTIONS */
};
/* Reads them all; `hint` says what to give instead of more words than `words_max`. */
struct err *agent_arguments_read(int argc, char **argv, const struct option_spec *specs,
                                 unsigned words_max, const char *hint,
                                 struct agent_arguments *arguments);

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
