/*
 * A client of the agent in a guest: the QEMU Guest Agent protocol (QEMU, qga/qapi-schema.json),
 * JSON over a byte stream.
 *
 * The agent is a program of the guest, and the guest is not trusted: what it says is bounded in
 * size and time, and everything that comes out of it is checked here before anybody uses it. Texts
 * that it gives may hold any characters, addresses only what they say.
 *
 * Blocking; one thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_AGENT_AGENT_H
#define TENON_AGENT_AGENT_H

#include <jansson.h>

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"

/* The agent keeps 16 MiB of each output of a command and sends both at once, in base64. */
#define AGENT_REPLY_MAX MIB(64)

struct agent {
    int fd;              /* borrowed */
    unsigned timeout_ms; /* for each answer */
    struct buf in;       /* what came behind the last answer */
};

/* After something else may have talked to it: waits until the agent answers us. ERR_BUSY: it does
 * not. */
struct err *agent_sync(struct agent *agent);
/* `take_arguments` may be NULL; *result, when it is wanted, is the caller's. */
struct err *agent_call(struct agent *agent, const char *command, json_t *take_arguments,
                       json_t **result);
void agent_fini(struct agent *agent);

/* One line of an agent as the result of a command, or the error that it reports. */
struct err *agent_read_reply(const void *line, size_t len, json_t **result);

/* ---- commands.c ---- */

struct agent_exec {
    bool ended, truncated; /* truncated: the agent kept but the beginning of the output */
    int status;            /* as a shell has it: 128 and the signal for one that was killed */
    struct buf out, err;
};

/* argv ends with NULL; `input` may be empty. */
struct err *agent_exec_start(struct agent *agent, char *const argv[], const struct buf *input,
                             json_int_t *pid);
struct err *agent_exec_look(struct agent *agent, json_int_t pid, struct agent_exec *exec);
struct err *agent_exec_read(const json_t *reply, struct agent_exec *exec);
void agent_exec_fini(struct agent_exec *exec);

/* "r" or "w". */
struct err *agent_file_open(struct agent *agent, const char *path, const char *mode,
                            json_int_t *handle);
/* The next bytes, at most AGENT_CHUNK; none at the end. Appended. */
#define AGENT_CHUNK KIB(192)
struct err *agent_file_read(struct agent *agent, json_int_t handle, struct buf *bytes);
struct err *agent_file_write(struct agent *agent, json_int_t handle, const void *bytes, size_t len);
struct err *agent_file_close(struct agent *agent, json_int_t handle);

/* How many file systems were frozen, or thawed. */
struct err *agent_freeze(struct agent *agent, unsigned *count);
struct err *agent_thaw(struct agent *agent, unsigned *count);

/* The guest's clock, in nanoseconds since 1970; and its setting to that of this host. */
struct err *agent_get_time(struct agent *agent, int64_t *time_ns);
struct err *agent_set_time(struct agent *agent);

/* A list of texts: IP addresses of the guest's network cards but the loopback. The caller's. */
struct err *agent_addresses(struct agent *agent, json_t **list);
json_t *agent_read_addresses(const json_t *interfaces);

#endif
