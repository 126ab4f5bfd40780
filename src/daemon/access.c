/*
 * Identities and rights. See access.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "daemon/access.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

static const char *const role_names[] = {"none", "viewer", "operator", "admin"};

const char *role_name(enum role role)
{
    return role_names[role];
}

enum role role_find(const char *name)
{
    for (size_t i = ROLE_VIEWER; i < ARRAY_SIZE(role_names); i++)
        if (!strcmp(role_names[i], name))
            return (enum role)i;
    return ROLE_NONE;
}

void identity_fini(struct identity *identity)
{
    free(identity->name);
    free(identity->vms);
    *identity = (struct identity){0};
}

struct identity identity_copy(const struct identity *identity)
{
    struct identity copy = *identity;

    copy.name = identity->name ? xstrdup(identity->name) : NULL;
    copy.vms = identity->vms ? xstrdup(identity->vms) : NULL;
    return copy;
}

bool identity_has_expired(const struct identity *identity)
{
    return identity->expires_ns && identity->expires_ns <= clock_wall_ns();
}

bool identity_sees(const struct identity *identity, const char *vm)
{
    size_t len = strlen(vm);

    if (!identity->vms)
        return true;
    for (const char *at = identity->vms; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (!strncmp(at, vm, len) && (at[len] == ',' || !at[len]))
            return true;
    }
    return false;
}

void access_hash(const char *token, uint8_t hash[TOKEN_HASH_SIZE])
{
    SHA256((const unsigned char *)token, strlen(token), hash);
}

bool access_equal(const void *a, const void *b, size_t len)
{
    return CRYPTO_memcmp(a, b, len) == 0;
}

struct err *access_secret(char text[ACCESS_SECRET_SIZE])
{
    uint8_t random[33]; /* of which 32 fill the text */
    char encoded[45];

    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        return err_errno(errno, "the host has no random numbers");
    EVP_EncodeBlock((unsigned char *)encoded, random, sizeof(random));
    snprintf(text, ACCESS_SECRET_SIZE, "tenon_%.43s", encoded);
    for (char *c = text; *c; c++)
        *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
    return NULL;
}

/* By what the socket knows. */
static bool by_peer(struct http_request *request, struct identity *identity)
{
    struct ucred peer;

    if (!http_peer(request, &peer) || (peer.uid != 0 && peer.uid != geteuid()))
        return false;
    identity->role = ROLE_ADMIN;
    identity->name = xasprintf("uid:%u", (unsigned)peer.uid);
    return true;
}

static struct err *by_token(const char *text, struct store *store, struct identity *identity)
{
    uint8_t hash[TOKEN_HASH_SIZE];
    struct store_token token = {0};
    bool found;

    access_hash(text, hash);
    TRY(store_token_find(store, hash, &token, &found));
    struct err *err = NULL;
    if (!found) {
        err = err_of(ERR_DENIED, "the token is unknown or was revoked");
    } else {
        identity->role = role_find(token.role);
        identity->name = xasprintf("token:%s", token.name);
        identity->vms = token.vms ? xstrdup(token.vms) : NULL;
        identity->expires_ns = token.expires_ns;
        if (identity_has_expired(identity))
            err = err_of(ERR_DENIED, "the token '%s' has expired", token.name);
    }
    store_token_fini(&token);
    return err;
}

struct err *access_identify(struct http_request *request, struct store *store,
                            struct identity *identity, unsigned *status)
{
    const char *header = http_header(request, "Authorization");

    *status = 401;
    if (header && strncasecmp(header, "Bearer ", 7) != 0)
        return err_of(ERR_DENIED, "the authorization is no bearer token");
    if (header)
        return by_token(header + 7 + strspn(header + 7, " "), store, identity);
    if (by_peer(request, identity))
        return NULL;
    return err_of(ERR_DENIED, "a token is needed: `tenon token create` makes one");
}

/* "NAME", "NAME:PORT" or "[ADDRESS]:PORT" is one of ours, whatever the port. */
static bool is_our_host(const char *host, const char *const *hosts)
{
    const char *end = host + (*host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":"));
    size_t len = (size_t)(end - host);

    if (len > strlen(host) || (*end && (*end != ':' || end[1 + strspn(end + 1, "0123456789")])))
        return false;
    for (; *hosts; hosts++)
        if (strlen(*hosts) == len && !strncasecmp(*hosts, host, len))
            return true;
    return false;
}

struct err *access_check_names(struct http_request *request, const char *const *hosts,
                               unsigned *status)
{
    const char *host = http_header(request, "Host");
    const char *origin = http_header(request, "Origin");
    const char *scheme = http_is_tls(request) ? "https://" : "http://";

    *status = 421;
    if (!host || !is_our_host(host, hosts))
        return err_of(ERR_DENIED, "the host '%.64s' is none of ours", host ? host : "");
    *status = 403;
    if (origin && (strncmp(origin, scheme, strlen(scheme)) != 0 ||
                   strcasecmp(origin + strlen(scheme), host) != 0))
        return err_of(ERR_DENIED, "pages of '%.64s' may not call us", origin);
    return NULL;
}
