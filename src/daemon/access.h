/*
 * Who calls, and what that allows: peers of the unix socket by their credentials, everybody else by
 * a token. And what a browser may be made to send: Host and Origin.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TENON_DAEMON_ACCESS_H
#define TENON_DAEMON_ACCESS_H

#include "base/base.h"
#include "base/err.h"
#include "daemon/http.h"
#include "daemon/store.h"

/* Each may do what those before it may. */
enum role {
    ROLE_NONE,
    ROLE_VIEWER,   /* looks, and changes nothing */
    ROLE_OPERATOR, /* starts, stops, types */
    ROLE_ADMIN,    /* creates and deletes; names files of the host */
};

struct identity {
    enum role role;
    char *name;          /* "uid:1000", "token:ci"; NULL: nobody */
    char *vms;           /* names with commas between them; NULL: all */
    uint64_t expires_ns; /* wall clock; 0: never */
};

void identity_fini(struct identity *identity);
struct identity identity_copy(const struct identity *identity);
/* Its token is too old by now. */
bool identity_has_expired(const struct identity *identity);
/* May it see this VM? */
bool identity_sees(const struct identity *identity, const char *vm);

const char *role_name(enum role role);
/* ROLE_NONE: there is none. */
enum role role_find(const char *name);

/*
 * Finds out who calls; an error with *status 401 when nobody does. The superuser and the daemon's
 * own user are admin on the unix socket; a token there is what it says.
 */
struct err *access_identify(struct http_request *request, struct store *store,
                            struct identity *identity, unsigned *status);
/*
 * Host must be one of our names: another page's name may resolve to our address. Origin, if there
 * is one, must be that host. *status is 421 or 403 with an error.
 */
struct err *access_check_names(struct http_request *request, const char *const *hosts,
                               unsigned *status);

/* A new token or ticket: as text, 256 bits of it random. */
#define ACCESS_SECRET_SIZE 50
struct err *access_secret(char text[ACCESS_SECRET_SIZE]);
/* Compares in a time that does not tell where they differ. */
bool access_equal(const void *a, const void *b, size_t len);
/* SHA-256 of a token's text. */
void access_hash(const char *token, uint8_t hash[TOKEN_HASH_SIZE]);

#endif
