/*
 * The audit log: who did what, one JSON object a line, each with the SHA-256 of all that stands
 * before it. So one changed byte is found, and so is a line that was removed, also the last: a
 * second file has the number and the hash of the latest. Whoever may write both files can write
 * another history; against that the latest hash is kept elsewhere from time to time.
 *
 * A line is {...,"prev":HASH,"hash":HASH}: "prev" is the "hash" of the line before, and "hash" that
 * of the line up to the comma in front of it. On the loop; verifying takes files alone.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DAEMON_AUDIT_H
#define TENON_DAEMON_AUDIT_H

#include <jansson.h>

#include "base/base.h"
#include "base/err.h"
#include "loop/loop.h"

#define AUDIT_FILE "audit.log"
#define AUDIT_HEAD "audit.head"

struct audit;

struct audit_entry {
    const char *who;    /* "uid:0", "token:ci", "nobody" */
    const char *from;   /* "unix", an address */
    const char *action; /* "createVm" */
    const char *target; /* a VM, a token; NULL: none */
    const char *detail; /* an action, a console; NULL: none */
    unsigned status;    /* of the answer */
};

/* Goes on behind the last whole line of what is in the folder. */
struct err *audit_open(struct loop *loop, const char *folder, struct audit **audit);
/* NULL is fine. */
void audit_close(struct audit *audit);
void audit_write(struct audit *audit, const struct audit_entry *entry);

/* Checks the whole log of a folder; *count: how many lines are good, from the first. */
struct err *audit_verify(const char *folder, uint64_t *count);
/* The lines after number `after`, at most `limit` of them. The caller owns the list. */
struct err *audit_read(const char *folder, uint64_t after, uint64_t limit, json_t **list);

#endif
