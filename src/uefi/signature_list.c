/*
 * Lists of signatures. See signature_list.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "uefi/signature_list.h"

#include <ctype.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <stdio.h>

#include "base/bytes.h"

#define LIST_HEADER 28u /* type, size of all, of a header of the type, of one signature */
#define LIST_SIZE_AT 16
#define TYPE_HEADER_SIZE_AT 20
#define SIGNATURE_SIZE_AT 24

const struct guid signature_x509 =
    GUID(0xa5c059a1, 0x94e4, 0x4aa7, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72);
const struct guid signature_sha256 =
    GUID(0xc1c41626, 0x504c, 0x4092, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28);

static struct err *begin_list(struct signature_reader *reader)
{
    if (reader->left < LIST_HEADER)
        return err_new("%zu bytes follow the last list of signatures", reader->left);
    uint64_t all = get_le32(reader->at + LIST_SIZE_AT);
    uint64_t header = LIST_HEADER + (uint64_t)get_le32(reader->at + TYPE_HEADER_SIZE_AT);
    uint32_t one = get_le32(reader->at + SIGNATURE_SIZE_AT);
    if (all > reader->left || header > all || one <= GUID_SIZE || (all - header) % one)
        return err_new("a list of signatures has impossible sizes: %llu bytes, %u for each",
                       (unsigned long long)all, one);
    reader->list = reader->at;
    reader->in_list = (size_t)(all - header);
    reader->size = one;
    reader->at += header;
    reader->left -= (size_t)header;
    return NULL;
}

bool signature_next(struct signature_reader *reader, struct signature *signature, struct err **err)
{
    *err = NULL;
    while (!reader->in_list) {
        if (!reader->left)
            return false;
        *err = begin_list(reader);
        if (*err)
            return false;
    }
    *signature = (struct signature){reader->list, reader->at, reader->at + GUID_SIZE,
                                    reader->size - GUID_SIZE};
    reader->at += reader->size;
    reader->left -= reader->size;
    reader->in_list -= reader->size;
    return true;
}

static bool has(const struct buf *list, const struct signature *wanted)
{
    struct signature_reader reader = {.at = list->data, .left = list->len};
    struct signature found;
    struct err *err;

    while (signature_next(&reader, &found, &err)) {
        if (found.len == wanted->len && !memcmp(found.type, wanted->type, GUID_SIZE) &&
            !memcmp(found.data, wanted->data, found.len))
            return true;
    }
    err_free(err);
    return false;
}

void signature_list_add(struct buf *list, const struct signature *signature)
{
    uint32_t one = (uint32_t)(GUID_SIZE + signature->len);

    buf_append(list, signature->type, GUID_SIZE);
    buf_le32(list, LIST_HEADER + one);
    buf_le32(list, 0);
    buf_le32(list, one);
    buf_append(list, signature->owner, GUID_SIZE);
    buf_append(list, signature->data, signature->len);
}

struct err *signature_list_join(struct buf *list, const uint8_t *bytes, size_t len)
{
    struct signature_reader reader = {.at = bytes, .left = len};
    struct signature signature;
    struct err *err;

    while (signature_next(&reader, &signature, &err)) {
        if (!has(list, &signature))
            signature_list_add(list, &signature);
    }
    return err;
}

/* --- for people --- */

static void describe_certificate(const struct signature *signature, struct signature_text *text)
{
    gnutls_datum_t der = {(unsigned char *)signature->data, (unsigned)signature->len};
    size_t size = sizeof(text->name);
    gnutls_x509_crt_t certificate;

    if (gnutls_x509_crt_init(&certificate) < 0)
        return;
    if (gnutls_x509_crt_import(certificate, &der, GNUTLS_X509_FMT_DER) < 0 ||
        gnutls_x509_crt_get_dn(certificate, text->name, &size) < 0)
        snprintf(text->name, sizeof(text->name), "no certificate that can be read");
    gnutls_x509_crt_deinit(certificate);
    for (char *c = text->name; *c; c++) {
        if (!isprint((unsigned char)*c))
            *c = '?';
    }
}

void signature_describe(const struct signature *signature, struct signature_text *text)
{
    bool hash = guid_is(signature->type, &signature_sha256) && signature->len == SHA256_SIZE;
    bool certificate = guid_is(signature->type, &signature_x509);
    uint8_t digest[SHA256_SIZE];

    *text = (struct signature_text){.type = hash ? "sha256" : certificate ? "x509" : "?"};
    if (hash)
        memcpy(digest, signature->data, SHA256_SIZE);
    else
        gnutls_hash_fast(GNUTLS_DIG_SHA256, signature->data, signature->len, digest);
    for (unsigned i = 0; i < SHA256_SIZE; i++)
        snprintf(text->digest + (size_t)2 * i, 3, "%02x", digest[i]);
    if (certificate)
        describe_certificate(signature, text);
}
