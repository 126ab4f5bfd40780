/*
 * A client of tenond's REST API, for commands. Through libcurl, which is loaded when one runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_CMD_REST_H
#define TENON_CMD_REST_H

#include <jansson.h>

#include "base/base.h"
#include "base/buf.h"
#include "base/err.h"
#include "cmd/command.h"

/*
 * One call on the socket of this user's tenond ($TENON_SOCKET, or the standard place); `take_body`
 * may be NULL. A refusal is an error with the daemon's sentence. `*reply` (may be NULL) is the
 * caller's, NULL when there is none.
 */
struct err *rest_call(const char *method, const char *path, json_t *take_body, json_t **reply);
/* The bytes of a reply, as they come: written to standard output. */
struct err *rest_copy(const char *path);
/* Calls `line` for each whole line of a reply; for streams. */
struct err *rest_lines(const char *path, void (*line)(void *opaque, const char *text),
                       void *opaque);

/* ---- what such commands share ---- */

#define REST_WORDS_MAX 3

struct rest_arguments {
    const char *word[REST_WORDS_MAX]; /* in order; NULL: not given */
    bool json, force, paused, start, dry_run;
    const char *wait, *vm, *console, *role, *vms, *expires, *state;
};

/* Reads options by their names; `words` says what is wanted: "a VM". */
struct err *rest_arguments(int argc, char **argv, const struct option_spec *options, unsigned least,
                           unsigned most, const char *words, struct rest_arguments *arguments);
/* A name as a part of a path: ERR_USAGE when it cannot be one. */
struct err *rest_check_name(const char *name);
struct err *rest_print(const json_t *json);

#endif
