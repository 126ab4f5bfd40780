/*
 * What tenond remembers: VMs, tokens, and where the audit log ends. One sqlite file in its state
 * folder; on the loop's thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DAEMON_STORE_H
#define TENON_DAEMON_STORE_H

#include <jansson.h>
#include <sys/types.h>

#include "base/base.h"
#include "base/err.h"

struct store;

/* Makes the file when it is missing; refuses one of a later version. */
struct err *store_open(const char *path, struct store **store);
void store_close(struct store *store);

/* Several changes in one go: all of them are there after a crash, or none. */
struct err *store_begin(struct store *store);
struct err *store_commit(struct store *store);

/* ---- VMs ---- */

/* The process that keeps a VM running; pid 0: none. A PID alone may be somebody else's by now. */
struct store_process {
    pid_t pid;
    uint64_t started; /* clock ticks after boot: /proc/PID/stat, field 22 */
};

struct err *store_vm_put(struct store *store, const char *name, const json_t *config,
                         uint64_t created_ns);
struct err *store_vm_process(struct store *store, const char *name,
                             const struct store_process *process);
/* How its last run ended; NULL: never ran. */
struct err *store_vm_last(struct store *store, const char *name, const json_t *last);
struct err *store_vm_delete(struct store *store, const char *name);
/* All VMs by name. The JSON values are borrowed; `last` may be NULL. */
typedef struct err *store_vm_each(void *opaque, const char *name, json_t *config,
                                  uint64_t created_ns, const struct store_process *process,
                                  json_t *last);
struct err *store_vms(struct store *store, store_vm_each *each, void *opaque);

/* ---- tokens ---- */

#define TOKEN_HASH_SIZE 32

struct store_token {
    char *name, *role;
    char *vms;                       /* names with commas between them; NULL: all */
    uint64_t created_ns, expires_ns; /* wall clock; expires 0: never */
    uint8_t hash[TOKEN_HASH_SIZE];   /* SHA-256 of the token */
};

void store_token_fini(struct store_token *token);
/* ERR_BUSY when the name is taken. */
struct err *store_token_add(struct store *store, const struct store_token *token);
struct err *store_token_remove(struct store *store, const char *name, bool *found);
struct err *store_token_find(struct store *store, const uint8_t hash[TOKEN_HASH_SIZE],
                             struct store_token *token, bool *found);
struct err *store_tokens(struct store *store, void (*each)(void *opaque, struct store_token *token),
                         void *opaque);

/* ---- numbers and texts of the daemon itself ---- */

struct err *store_set(struct store *store, const char *key, const char *value);
/* *value is the caller's; NULL: not set. */
struct err *store_get(struct store *store, const char *key, char **value);

#endif
