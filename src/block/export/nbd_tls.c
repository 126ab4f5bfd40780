/*
 * TLS of NBD connections by GnuTLS: certificates or pre-shared keys, loaded before the server is
 * confined. File names are those that other NBD programs use.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/export/nbd_internal.h"

#define HANDSHAKE_MS 10000
#define PSK_NAME_MAX 256
#define PSK_BYTES_MAX 512

struct psk {
    char name[PSK_NAME_MAX];
    unsigned char key[PSK_BYTES_MAX];
    size_t length;
};

struct nbd_tls {
    gnutls_certificate_credentials_t certificates;
    gnutls_psk_server_credentials_t psk;
    bool verify;
    struct psk *keys; /* owned */
    unsigned key_count;
};

static struct err *tls_error(int code, const char *what)
{
    return err_new("TLS: %s: %s", what, gnutls_strerror(code));
}

void nbd_tls_free(struct nbd_tls *tls)
{
    if (!tls)
        return;
    if (tls->certificates)
        gnutls_certificate_free_credentials(tls->certificates);
    if (tls->psk)
        gnutls_psk_free_server_credentials(tls->psk);
    if (tls->keys)
        explicit_bzero(tls->keys, sizeof(*tls->keys) * tls->key_count);
    free(tls->keys);
    free(tls);
}

static struct err *load_certificates(struct nbd_tls *tls, const char *folder, bool verify)
{
    scoped(free_cleanup) char *cert = xasprintf("%s/server-cert.pem", folder);
    scoped(free_cleanup) char *key = xasprintf("%s/server-key.pem", folder);
    scoped(free_cleanup) char *ca = xasprintf("%s/ca-cert.pem", folder);
    int code = gnutls_certificate_allocate_credentials(&tls->certificates);
    if (code < 0)
        return tls_error(code, "credentials");
    code = gnutls_certificate_set_x509_key_file(tls->certificates, cert, key, GNUTLS_X509_FMT_PEM);
    if (code < 0)
        return tls_error(code, cert);
    tls->verify = verify;
    if (!verify)
        return NULL;
    code = gnutls_certificate_set_x509_trust_file(tls->certificates, ca, GNUTLS_X509_FMT_PEM);
    return code <= 0 ? tls_error(code ? code : GNUTLS_E_NO_CERTIFICATE_FOUND, ca) : NULL;
}

struct err *nbd_tls_load_certificates(const char *folder, bool verify_clients, struct nbd_tls **out)
{
    struct nbd_tls *tls = xcalloc(1, sizeof(*tls));
    struct err *err = load_certificates(tls, folder, verify_clients);
    if (err)
        nbd_tls_free(tls);
    else
        *out = tls;
    return err;
}

/* "name:hexadecimal key" */
static bool parse_key(char *line, struct psk *psk)
{
    char *colon = strrchr(line, ':');
    if (!colon || colon == line || (size_t)(colon - line) >= sizeof(psk->name))
        return false;
    *colon++ = 0;
    gnutls_datum_t hex = {(unsigned char *)colon, (unsigned)strcspn(colon, "\r\n")};
    psk->length = sizeof(psk->key);
    strcpy(psk->name, line);
    return hex.size && gnutls_hex_decode(&hex, psk->key, &psk->length) == 0;
}

static struct err *load_keys(struct nbd_tls *tls, const char *path)
{
    char line[PSK_NAME_MAX + 2 * PSK_BYTES_MAX + 4];
    FILE *file = fopen(path, "re");
    if (!file)
        return err_errno(errno, "TLS: cannot open '%s'", path);
    struct err *err = NULL;
    while (!err && fgets(line, sizeof(line), file)) {
        if (line[0] == '#' || line[0] == '\n')
            continue;
        tls->keys = xrealloc(tls->keys, tls->key_count + 1, sizeof(*tls->keys));
        if (parse_key(line, &tls->keys[tls->key_count]))
            tls->key_count++;
        else
            err = err_new("TLS: '%s': a line is not name:hexadecimal-key, as psktool writes it",
                          path);
    }
    explicit_bzero(line, sizeof(line));
    fclose(file);
    if (!err && !tls->key_count)
        err = err_new("TLS: '%s' has no key", path);
    return err;
}

/* The key of a name; called during the handshake, where no file can be opened. */
static int find_key(gnutls_session_t session, const char *name, gnutls_datum_t *key)
{
    const struct nbd_tls *tls = gnutls_session_get_ptr(session);
    for (unsigned i = 0; i < tls->key_count; i++) {
        const struct psk *psk = &tls->keys[i];
        if (strcmp(psk->name, name))
            continue;
        key->data = gnutls_malloc(psk->length);
        if (!key->data)
            return -1;
        memcpy(key->data, psk->key, psk->length);
        key->size = (unsigned)psk->length;
        return 0;
    }
    return -1;
}

struct err *nbd_tls_load_psk(const char *path, struct nbd_tls **out)
{
    struct nbd_tls *tls = xcalloc(1, sizeof(*tls));
    struct err *err = load_keys(tls, path);
    int code = err ? 0 : gnutls_psk_allocate_server_credentials(&tls->psk);
    if (!err && code < 0)
        err = tls_error(code, "credentials");
    if (err) {
        nbd_tls_free(tls);
        return err;
    }
    gnutls_psk_set_server_credentials_function(tls->psk, find_key);
    *out = tls;
    return NULL;
}

static int configure(const struct nbd_tls *tls, gnutls_session_t session, int fd)
{
    int code = gnutls_priority_set_direct(
        session, tls->psk ? "NORMAL:+ECDHE-PSK:+DHE-PSK:+PSK" : "NORMAL", NULL);
    if (code < 0)
        return code;
    code = tls->psk ? gnutls_credentials_set(session, GNUTLS_CRD_PSK, tls->psk)
                    : gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, tls->certificates);
    if (tls->verify) {
        gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
        gnutls_session_set_verify_cert(session, NULL, 0);
    }
    gnutls_session_set_ptr(session, (void *)(uintptr_t)tls);
    gnutls_transport_set_int(session, fd);
    gnutls_handshake_set_timeout(session, HANDSHAKE_MS);
    return code;
}

bool nbd_tls_start(const struct nbd_tls *tls, struct nbd_channel *channel)
{
    gnutls_session_t session;
    /* Bytes that came in the clear after STARTTLS are somebody else's. */
    if (channel->begin != channel->end ||
        gnutls_init(&session, GNUTLS_SERVER | GNUTLS_NO_SIGNAL | GNUTLS_NO_AUTO_REKEY) < 0)
        return false;
    int code = configure(tls, session, channel->fd);
    while (code >= 0) {
        code = gnutls_handshake(session);
        if (code == GNUTLS_E_SUCCESS) {
            channel->session = session;
            return true;
        }
        if (!gnutls_error_is_fatal(code))
            code = 0;
    }
    gnutls_deinit(session);
    return false;
}

void nbd_tls_end(struct nbd_channel *channel)
{
    if (channel->session)
        gnutls_deinit(channel->session);
    channel->session = NULL;
}

ssize_t nbd_tls_receive(struct nbd_channel *channel, void *bytes, size_t length)
{
    ssize_t got;
    do
        got = gnutls_record_recv(channel->session, bytes, length);
    while (got == GNUTLS_E_INTERRUPTED);
    return got;
}

ssize_t nbd_tls_send(struct nbd_channel *channel, const void *bytes, size_t length)
{
    ssize_t sent;
    do
        sent = gnutls_record_send(channel->session, bytes, length);
    while (sent == GNUTLS_E_INTERRUPTED);
    return sent;
}
