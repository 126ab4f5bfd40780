/*
 * Files with keys. See signature_file.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "uefi/signature_file.h"

#include <errno.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "uefi/image_hash.h"
#include "uefi/signature_list.h"

#define CERTIFICATES_MAX 64

/* EFI_VARIABLE_AUTHENTICATION_2 (UEFI 2.10, 8.2.2): a time, then a certificate structure. */
#define TIME_SIZE 16u
#define CERTIFICATE_HEADER 8u
#define LIST_MAX KIB(64) /* firmware has room for half of that */
#define REVISION_AND_TYPE 0x0ef10200u

static const struct guid pkcs7 =
    GUID(0x4aafd29d, 0x68df, 0x49ee, 0x8a, 0xa9, 0x34, 0x7d, 0x37, 0x56, 0x65, 0xa7);

static bool has_text(const uint8_t *bytes, size_t len, const char *text)
{
    return memmem(bytes, len, text, strlen(text));
}

/* --- certificates --- */

static struct err *add_certificate(gnutls_x509_crt_t certificate, const struct guid *owner,
                                   struct buf *list)
{
    gnutls_datum_t der;
    unsigned bits;
    int algorithm = gnutls_x509_crt_get_pk_algorithm(certificate, &bits);

    if (algorithm != GNUTLS_PK_RSA)
        return err_new("its key is of the kind %s, and the firmware checks RSA alone",
                       gnutls_pk_get_name((gnutls_pk_algorithm_t)algorithm));
    if (bits < 2048)
        return err_new("its RSA key has %u bits, and the firmware wants 2048", bits);
    if (gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_DER, &der) < 0)
        return err_new("it has a certificate that cannot be written");
    signature_list_add(list,
                       &(struct signature){signature_x509.bytes, owner->bytes, der.data, der.size});
    gnutls_free(der.data);
    return NULL;
}

static struct err *add_certificates(const uint8_t *bytes, size_t len, bool pem,
                                    const struct guid *owner, struct buf *list)
{
    gnutls_datum_t file = {(unsigned char *)bytes, (unsigned)len};
    gnutls_x509_crt_t certificate[CERTIFICATES_MAX];
    unsigned count = CERTIFICATES_MAX;
    struct err *err = NULL;

    int result = gnutls_x509_crt_list_import(certificate, &count, &file,
                                             pem ? GNUTLS_X509_FMT_PEM : GNUTLS_X509_FMT_DER,
                                             GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED);
    if (result < 0)
        return err_new("its certificate cannot be read: %s", gnutls_strerror(result));
    for (unsigned i = 0; i < (unsigned)result; i++) {
        if (!err)
            err = add_certificate(certificate[i], owner, list);
        gnutls_x509_crt_deinit(certificate[i]);
    }
    return err;
}

/* --- the kinds of files --- */

/* The list in a signed update. Its signature is for a firmware that is asked; here its owner is. */
static bool skip_signature(const uint8_t **bytes, size_t *len)
{
    if (*len < TIME_SIZE + CERTIFICATE_HEADER + GUID_SIZE)
        return false;
    uint32_t size = get_le32(*bytes + TIME_SIZE);
    if (get_le32(*bytes + TIME_SIZE + 4) != REVISION_AND_TYPE ||
        !guid_is(*bytes + TIME_SIZE + CERTIFICATE_HEADER, &pkcs7) || size > *len - TIME_SIZE)
        return false;
    *bytes += TIME_SIZE + size;
    *len -= TIME_SIZE + size;
    return true;
}

static struct err *add_image(const uint8_t *bytes, size_t len, const struct guid *owner,
                             struct buf *list)
{
    uint8_t hash[SHA256_SIZE];

    TRY(image_hash(bytes, len, hash));
    signature_list_add(
        list, &(struct signature){signature_sha256.bytes, owner->bytes, hash, SHA256_SIZE});
    return NULL;
}

static struct err *add_list(const uint8_t *bytes, size_t len, struct buf *list)
{
    if (!skip_signature(&bytes, &len) && len && bytes[0] < 0x80 && has_text(bytes, len, "-----"))
        return err_new("it is text without a certificate");
    if (len > LIST_MAX)
        return err_new("it has %zu bytes, more than firmware has room for", len);
    struct err *err = signature_list_join(list, bytes, len);
    if (!err)
        return len ? NULL : err_new("it is empty");
    err_free(err);
    return err_new("it is no certificate (PEM or DER), no list of signatures and no EFI program");
}

struct err *signature_file_parse(const uint8_t *bytes, size_t len, const struct guid *owner,
                                 struct buf *list)
{
    if (has_text(bytes, len, "-----BEGIN CERTIFICATE-----"))
        return add_certificates(bytes, len, true, owner, list);
    if (has_text(bytes, len, "PRIVATE KEY-----"))
        return err_new("it is a private key, which stays with you: give the certificate");
    if (len >= 4 && bytes[0] == 0x30 && bytes[1] == 0x82)
        return add_certificates(bytes, len, false, owner, list);
    if (image_is_pe(bytes, len))
        return add_image(bytes, len, owner, list);
    return add_list(bytes, len, list);
}

struct err *signature_file_read(const char *path, const struct guid *owner, struct buf *list)
{
    FILE *file = fopen(path, "rbe");

    if (!file)
        return err_errno(errno, "cannot open '%s'", path);
    scoped(free_cleanup) uint8_t *bytes = xcalloc(1, SIGNATURE_FILE_MAX + 1);
    size_t len = fread(bytes, 1, SIGNATURE_FILE_MAX + 1, file);
    bool failed = ferror(file);
    fclose(file);
    if (failed)
        return err_errno(EIO, "cannot read '%s'", path);
    if (len > SIGNATURE_FILE_MAX)
        return err_new("'%s' is too large for keys", path);
    return err_wrap(signature_file_parse(bytes, len, owner, list), "'%s'", path);
}
