/*
 * The REST API, inside: a call, its operation, and its answer. One file a group of operations.
 *
 * A handler answers its call exactly once, now or later, or returns an error, which is the answer
 * then. Errors become problem details (RFC 9457) with the sentence that the command would say.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DAEMON_API_H
#define TENON_DAEMON_API_H

#include <jansson.h>

#include "daemon/access.h"
#include "daemon/audit.h"
#include "daemon/daemon.h"
#include "daemon/fleet.h"
#include "daemon/pool.h"
#include "daemon/session.h"

#define API_ARGUMENTS_MAX 3
#define API_OPERATIONS_MAX 48

struct api_call;

/* A row of api.json, taken apart. Borrowed from the document. */
struct api_operation {
    const char *id, *method, *path, *media;
    enum role role;
    unsigned status;
    bool audited;
    const json_t *query, *body; /* schemas by name, a schema's name; NULL: none */
    struct err *(*run)(struct api_call *call);
};

struct api_handler {
    const char *id;
    struct err *(*run)(struct api_call *call);
};

/* NULL-terminated; api_vm.c, api_events.c... */
extern const struct api_handler api_vm_handlers[], api_look_handlers[], api_event_handlers[],
    api_console_handlers[], api_screen_handlers[], api_token_handlers[], api_metrics_handlers[],
    api_image_handlers[];

struct api_document {
    json_t *source;  /* api.json with the VM's schema in it */
    json_t *schemas; /* borrowed from it */
    json_t *openapi;
    struct api_operation operation[API_OPERATIONS_MAX];
    unsigned count;
};

struct daemon {
    struct daemon_config config;
    struct loop *loop;
    struct store *store;
    struct events *events;
    struct fleet *fleet;
    struct pool pool; /* of images */
    struct api_document document;
    struct http_server *local, *tcp;
    int lock_fd; /* of the state folder */
    uint64_t started_ns;
    struct audit *audit;
    struct list sessions; /* what callers keep open */
    struct list streams;  /* event streams */
    struct list tickets;  /* to consoles and screens */
    struct web *web;      /* the console's pages; NULL: not installed */
    unsigned ticket_count;
    struct loop_timer heartbeat;
};

struct api_call {
    struct daemon *daemon;
    struct http_request *request;
    const struct api_operation *operation; /* NULL: none fits */
    struct identity who;
    char *argument[API_ARGUMENTS_MAX]; /* of the path, in order */
    struct instance *vm;               /* the first, when the path has {vm} */
    struct instance_console *console;  /* the second, when it has {console} */
    json_t *body;
    /* For handlers that answer later. */
    struct instance_waiter waiter;
    unsigned pending;
    struct err *err;
    int fd;
    char *text;
    char *target; /* for the audit log, where it is not an argument; NULL: it is */
};

/* ---- api_document.c ---- */

struct err *api_document_load(struct api_document *document);
void api_document_fini(struct api_document *document);
/* Finds the operation and its arguments. *known: the path exists, with other methods. */
const struct api_operation *api_document_find(const struct api_document *document,
                                              const char *method, const char *path,
                                              char *argument[API_ARGUMENTS_MAX], bool *known);

/* ---- api.c ---- */

/* For struct http_config. */
void api_handle(void *opaque, struct http_request *request);
void api_late(void *opaque, const char *from, const char *path);

/* The answers; each ends the call. */
void api_answer(struct api_call *call, json_t *take_json);
void api_answer_bytes(struct api_call *call, const char *type, const void *bytes, size_t len);
void api_answer_nothing(struct api_call *call);
void api_answer_error(struct api_call *call, unsigned status, struct err *take_err);
/* The call ends, the request has a stream or another protocol. */
void api_answered(struct api_call *call, unsigned status);

/* The status that an error of this kind has. */
unsigned api_status_of(const struct err *err);
/* Parts of the query, checked before the handler runs. */
bool api_query_is(struct api_call *call, const char *name);
uint64_t api_query_number(struct api_call *call, const char *name, uint64_t standard);

/* api_console.c: the identity that a ticket stands for, once; all of one identity, or (NULL) all.
 */
bool api_ticket_use(struct daemon *daemon, const char *text, const char *path,
                    struct identity *who);
void api_tickets_forget(struct daemon *daemon, const char *name);

/* api_events.c: streams of events, for the daemon's start and end. */
void api_events_init(struct daemon *daemon);
void api_events_fini(struct daemon *daemon);

#endif
